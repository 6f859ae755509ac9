//! The agent's own directory as a stream.

use std::{ffi::OsStr, io::Write, path::Path};

use anyhow::{Context as _, bail};

use crate::{
    agent_dir::{
        entry::TRANSCRIPTS,
        fd::{Dir, Kind},
    },
    git::copy::tar::Tar,
    inside::Access,
    plan::Sent,
};

/// How many files go along, and how many bytes they have together.
const MOST_FILES: usize = 100_000;
const MOST_BYTES: u64 = 1 << 30;

/// The newest transcripts go along, up to so many bytes.
const TRANSCRIPTS_BYTES: u64 = 8 << 20;

/// What goes along, and how much of it there may still be.
struct Sending<'a> {
    tar: Tar<'a>,
    files: usize,
    bytes: u64,
}

pub(super) fn write(sent: &[Sent], out: &mut dyn Write) -> anyhow::Result<()> {
    let mut sending = Sending { tar: Tar::new(out), files: MOST_FILES, bytes: MOST_BYTES };
    let mut made = Vec::new();
    for Sent { source, target, access } in sent {
        for above in target.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            if above != Path::new("") && !made.contains(&above) {
                sending.tar.dir(above)?;
                made.push(above);
            }
        }
        let (Some(above), Some(name)) = (source.parent(), source.file_name()) else { continue };
        let could = || format!("could not send `{}`", source.display());
        let above = Dir::open(above).with_context(could)?;
        if *access == Access::ReadWrite && target.starts_with(TRANSCRIPTS) {
            sending.tar.dir(target)?;
            sending.newest(&above.dir(name).with_context(could)?, target).with_context(could)?;
        } else {
            sending.tree(&above, name, target, 0).with_context(could)?;
        }
    }
    Ok(sending.tar.end()?)
}

impl Sending<'_> {
    /// A file, a link, or a directory with all that is in it.
    fn tree(&mut self, dir: &Dir, name: &OsStr, target: &Path, depth: usize) -> anyhow::Result<()> {
        match dir.kind(name)? {
            Some(Kind::Directory) if depth < 64 => {
                self.tar.dir(target)?;
                let below = dir.dir(name)?;
                let mut names = below.names(MOST_FILES + 1)?;
                names.sort();
                for name in names {
                    self.tree(&below, &name, &target.join(&name), depth + 1)?;
                }
                Ok(())
            }
            Some(Kind::File) => {
                self.count(dir.file(name)?.metadata()?.len())?;
                self.tar.entry(dir, name, target)?;
                Ok(())
            }
            Some(Kind::Link) => {
                self.count(0)?;
                self.tar.entry(dir, name, target)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The newest files of a directory, as far as there is room for them.
    fn newest(&mut self, dir: &Dir, target: &Path) -> anyhow::Result<()> {
        let mut found = Vec::new();
        for name in dir.names(MOST_FILES)? {
            if dir.kind(&name)? == Some(Kind::File) {
                let meta = dir.file(&name)?.metadata()?;
                found.push((meta.modified()?, meta.len(), name));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        let mut left = TRANSCRIPTS_BYTES;
        for (_, size, name) in found {
            let Some(rest) = left.checked_sub(size) else { break };
            left = rest;
            self.count(size)?;
            self.tar.entry(dir, &name, &target.join(&name))?;
        }
        Ok(())
    }

    fn count(&mut self, size: u64) -> anyhow::Result<()> {
        match (self.files.checked_sub(1), self.bytes.checked_sub(size)) {
            (Some(files), Some(bytes)) => {
                (self.files, self.bytes) = (files, bytes);
                Ok(())
            }
            _ => bail!(
                "there is more than {} MiB, or {MOST_FILES} files, which is too much for another engine",
                MOST_BYTES >> 20
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        time::{Duration, SystemTime},
    };

    use super::*;

    #[test]
    fn the_directory_goes_along_with_its_links_and_its_newest_transcripts() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(base.join("extensions/deep")).unwrap();
        fs::write(base.join("extensions/deep/a.js"), "a").unwrap();
        symlink("deep/a.js", base.join("extensions/b.js")).unwrap();
        fs::create_dir_all(base.join("transcripts")).unwrap();
        for (name, size, at) in [("old", TRANSCRIPTS_BYTES, 1), ("new", 1000, 2)] {
            let file = fs::File::create(base.join("transcripts").join(name)).unwrap();
            file.set_len(size).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(at)).unwrap();
        }
        let sent = |source: &str, target: &str, access| Sent {
            source: base.join(source),
            target: target.into(),
            access,
        };
        let mut stream = Vec::new();
        let all = [
            sent("extensions", "extensions", Access::ReadOnly),
            sent("transcripts", "sessions/--r--", Access::ReadWrite),
        ];
        write(&all, &mut stream).unwrap();
        let mut archive = tar::Archive::new(stream.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "extensions", "extensions/b.js", "extensions/deep", "extensions/deep/a.js", "sessions",
                "sessions/--r--", "sessions/--r--/new"
            ]
        );
    }
}
