//! Files as a stream that GNU tar unpacks.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Component, Path},
};

use tar::{Builder, EntryType, Header};

use crate::agent_dir::fd::{Dir, Kind};

/// A stream that is being written.
pub(crate) struct Tar<'a>(Builder<&'a mut dyn Write>);

impl<'a> Tar<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self(Builder::new(out))
    }

    /// Adds a directory.
    pub(crate) fn dir(&mut self, path: impl AsRef<Path>) -> io::Result<()> {
        self.add(path.as_ref(), header(EntryType::Directory, 0o755, 0), io::empty())
    }

    /// Adds a file with these bytes.
    pub(crate) fn text(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.add(Path::new(path), header(EntryType::Regular, 0o644, bytes.len() as u64), bytes)
    }

    /// Adds what `name` in `dir` is now; what is neither a file nor a link has no contents. Says whether it was added.
    pub(crate) fn entry(&mut self, dir: &Dir, name: &OsStr, path: &Path) -> io::Result<bool> {
        match dir.kind(name)? {
            Some(Kind::File) => self.file(&dir.file(name)?, path).map(|()| true),
            Some(Kind::Link) => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                let target = dir.link(name)?;
                self.name(EntryType::GNULongLink, &target, &mut header.as_old_mut().linkname)?;
                self.add(path, header, io::empty()).map(|()| true)
            }
            Some(Kind::Directory | Kind::Other) | None => Ok(false),
        }
    }

    fn file(&mut self, file: &File, path: &Path) -> io::Result<()> {
        let meta = file.metadata()?;
        let size = meta.len();
        // Its owner can always write it there.
        let mut header = header(EntryType::Regular, meta.mode() & 0o777 | 0o600, size);
        header.set_mtime(meta.mtime().try_into().unwrap_or(0));
        // It may grow or shrink at this moment.
        self.add(path, header, file.chain(io::repeat(0)).take(size))
    }

    /// Ends the stream.
    pub(crate) fn end(self) -> io::Result<()> {
        self.0.into_inner()?.flush()
    }

    fn add(&mut self, path: &Path, mut header: Header, contents: impl Read) -> io::Result<()> {
        self.name(EntryType::GNULongName, path.as_os_str(), &mut header.as_old_mut().name)?;
        header.set_cksum();
        self.0.append(&header, contents)
    }

    /// Writes a name into a header. Where it is too long for that, it goes before it as contents of its own, by bytes: the
    /// crate's functions for names change links, and take no long name that begins with another encoding.
    fn name(&mut self, kind: EntryType, name: &OsStr, field: &mut [u8; 100]) -> io::Result<()> {
        let name = name.as_bytes();
        let fitting = name.len().min(field.len());
        field[..fitting].copy_from_slice(&name[..fitting]);
        if fitting == name.len() {
            return Ok(());
        }
        let mut header = header(kind, 0o644, name.len() as u64 + 1);
        header.set_path("@LongLink")?;
        header.set_cksum();
        self.0.append(&header, name.chain(&b"\0"[..]))
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Directories on the way to files that come in the order of their paths. No link on the way is followed.
pub(super) struct Way {
    dirs: Vec<(OsString, Dir)>,
    root: Dir,
}

impl Way {
    pub(super) fn at(root: &Path) -> io::Result<Self> {
        Ok(Self { dirs: vec![], root: Dir::open(root)? })
    }

    /// The directory of a file, and the file's name; `None` where something on the way is no directory.
    pub(super) fn to<'p>(&mut self, path: &'p Path) -> io::Result<Option<(&Dir, &'p OsStr)>> {
        let mut names = Vec::new();
        for part in path.components() {
            let Component::Normal(name) = part else { return Ok(None) };
            names.push(name);
        }
        let Some(name) = names.pop() else { return Ok(None) };
        let same = self.dirs.iter().zip(&names).take_while(|((known, _), name)| known == *name).count();
        self.dirs.truncate(same);
        for part in &names[same..] {
            let here = self.dirs.last().map_or(&self.root, |(_, dir)| dir);
            if here.kind(part)? != Some(Kind::Directory) {
                return Ok(None);
            }
            let dir = match here.dir(part) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            self.dirs.push(((*part).to_owned(), dir));
        }
        Ok(Some((self.dirs.last().map_or(&self.root, |(_, dir)| dir), name)))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        process::Command,
        time::{Duration, SystemTime},
    };

    use super::*;

    #[test]
    fn tar_unpacks_what_was_there_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        let (from, to) = (base.join("from"), base.join("to"));
        let long = "n".repeat(90) + "/" + &"m".repeat(90) + "/" + &"o".repeat(200);
        let paths = ["a", "b c/d\ne", "ünï", &long, "link", "long-link", "dir/through/x", "pipe"];
        for path in &paths[..4] {
            let path = from.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x".repeat(511)).unwrap();
        }
        fs::create_dir_all(base.join("outside")).unwrap();
        fs::write(base.join("outside/x"), "secret").unwrap();
        fs::create_dir_all(from.join("dir")).unwrap();
        symlink("../../outside", from.join("dir/through")).unwrap();
        symlink("a", from.join("link")).unwrap();
        symlink(&long, from.join("long-link")).unwrap();
        // More seconds than fit in the digits of a header.
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(9_000_000_000);
        File::options().write(true).open(from.join("a")).unwrap().set_modified(late).unwrap();
        assert!(Command::new("mkfifo").arg(from.join("pipe")).status().unwrap().success());
        fs::create_dir(&to).unwrap();
        let mut stream = Vec::new();
        let mut tar = Tar::new(&mut stream);
        tar.dir("empty").unwrap();
        tar.text("text", b"text").unwrap();
        let mut way = Way::at(&from).unwrap();
        let mut added = Vec::new();
        for path in paths.map(Path::new) {
            let Some((dir, name)) = way.to(path).unwrap() else { continue };
            if tar.entry(dir, name, path).unwrap() {
                added.push(path);
            }
        }
        tar.end().unwrap();
        assert_eq!(added.len(), 6, "neither a pipe nor what a link leads to: {added:?}");
        fs::write(base.join("stream"), &stream).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("--warning=no-timestamp").arg("-xf").arg(base.join("stream"));
        let tar = tar.current_dir(&to).output().unwrap();
        assert!(tar.status.success() && tar.stderr.is_empty(), "{tar:?}");
        for path in &paths[..4] {
            assert_eq!(fs::read(to.join(path)).unwrap(), fs::read(from.join(path)).unwrap(), "{path}");
        }
        assert_eq!(fs::read_link(to.join("long-link")).unwrap(), Path::new(&long));
        assert_eq!(fs::read(to.join("text")).unwrap(), b"text");
        assert_eq!(fs::metadata(to.join("a")).unwrap().modified().unwrap(), late);
        assert!(to.join("empty").is_dir() && !to.join("dir").exists());
    }
}
