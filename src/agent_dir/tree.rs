//! Trees that an agent may have made: copied without trusting them, compared, removed however deep they are.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::fs::Mode;
use sha2::{Digest as _, Sha256};

use super::fd::{Dir, Kind, Made, PRIVATE_DIR, PROGRAM, TEXT, write::random_name};
use crate::host::Owner;

/// How much is copied at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) entries: usize,
    pub(crate) bytes: u64,
    pub(crate) depth: usize,
}

/// What a user's packages may come to. An installation of a hundred packages has some ten thousand files.
pub(crate) const PACKAGES: Limits = Limits { entries: 200_000, bytes: 2 << 30, depth: 64 };

/// Copies what stands in a directory: regular files, directories, and links that cannot lead out of it. What is copied
/// is made anew, so it has no other name, no bit of a mode but the ordinary ones, and nobody who still has it open.
///
/// # Errors
/// Something else stands there, it is more than the limits, or as the system has it.
pub(crate) fn copy(from: &Dir, to: &Dir, limits: Limits, owner: Option<Owner>) -> anyhow::Result<()> {
    Copy { left: limits, most: limits, owner }.dir(from, to, Path::new(""))
}

struct Copy {
    left: Limits,
    most: Limits,
    owner: Option<Owner>,
}

impl Copy {
    fn dir(&mut self, from: &Dir, to: &Dir, at: &Path) -> anyhow::Result<()> {
        if at.components().count() > self.most.depth {
            bail!("there are more than {} directories in one another", self.most.depth);
        }
        let names = from.names(self.left.entries + 1).with_context(|| could("read", at))?;
        self.left.entries = self
            .left
            .entries
            .checked_sub(names.len())
            .with_context(|| format!("there are more than {} files", self.most.entries))?;
        for name in names {
            let at = at.join(&name);
            self.entry(from, to, &name, &at)?;
        }
        Ok(())
    }

    fn entry(&mut self, from: &Dir, to: &Dir, name: &OsStr, at: &Path) -> anyhow::Result<()> {
        match from.kind(name).with_context(|| could("look at", at))? {
            // Somebody has removed it meanwhile.
            None => Ok(()),
            Some(Kind::File) => {
                let source = from.file(name).with_context(|| could("read", at))?;
                self.file(&source, to, name).with_context(|| could("copy", at))
            }
            Some(Kind::Directory) => {
                let source = from.dir(name).with_context(|| could("read", at))?;
                let meta = source.metadata().with_context(|| could("look at", at))?;
                let made = Made { mode: ordinary(meta.mode(), PROGRAM), owner: self.owner };
                let copy = to.ensure_dir(name, made).with_context(|| could("create", at))?;
                self.dir(&source, &copy, at)
            }
            Some(Kind::Link) => {
                let target = from.link(name).with_context(|| could("read", at))?;
                if !stays_inside(at, &target) {
                    bail!("`{}` is a link out of it, to `{}`", at.display(), target.display());
                }
                to.new_link(name, &target).with_context(|| could("create", at))
            }
            Some(Kind::Other) => bail!("`{}` is neither a file nor a directory", at.display()),
        }
    }

    fn file(&mut self, source: &File, to: &Dir, name: &OsStr) -> anyhow::Result<()> {
        let meta = source.metadata()?;
        let most = self.most.bytes;
        let too_large = || anyhow::anyhow!("all files together are larger than {} MiB", most >> 20);
        // Before it is read: a file may have a length and no content.
        if meta.len() > self.left.bytes {
            return Err(too_large());
        }
        let mut copy = to.new_file(name, Made { mode: file_mode(meta.mode()), owner: self.owner })?;
        let copied = io::copy(&mut source.take(self.left.bytes + 1), &mut copy)?;
        self.left.bytes = self.left.bytes.checked_sub(copied).ok_or_else(too_large)?;
        Ok(())
    }
}

fn could(what: &str, at: &Path) -> String {
    format!("could not {what} `{}`", at.display())
}

fn file_mode(mode: u32) -> Mode {
    ordinary(mode, if mode & 0o100 == 0 { TEXT } else { PROGRAM })
}

/// What others could not read they cannot read in the copy.
fn ordinary(mode: u32, all: Mode) -> Mode {
    let others = mode & 0o077;
    if others == 0 { all & Mode::RWXU } else { all }
}

/// Whether a link cannot lead out of the tree in which it stands at `at`, wherever it leads within it. Its target goes
/// up first, at most to the root, and then only down: behind a step down, which may be another link, `..` would be the
/// parent of wherever that leads.
fn stays_inside(at: &Path, target: &OsStr) -> bool {
    let mut above = at.components().count().saturating_sub(1);
    let mut went_down = false;
    for part in Path::new(target).components() {
        match part {
            Component::Normal(_) => went_down = true,
            Component::CurDir => {}
            Component::ParentDir if went_down || above == 0 => return false,
            Component::ParentDir => above -= 1,
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    !target.is_empty()
}

/// What a tree was at one moment: equal as long as nobody has changed, added, exchanged or removed anything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

/// Looks at a whole tree.
///
/// # Errors
/// It is more than the limits, or as the system has it.
pub(crate) fn fingerprint(dir: &Dir, limits: Limits) -> anyhow::Result<Fingerprint> {
    let mut digest = Sha256::new();
    let mut left = limits.entries;
    let mut waiting: Vec<(PathBuf, Dir)> = vec![(PathBuf::new(), dir.again()?)];
    while let Some((at, dir)) = waiting.pop() {
        if at.components().count() > limits.depth {
            bail!("there are more than {} directories in one another", limits.depth);
        }
        note(&mut digest, &at, &dir.metadata()?);
        let mut names = dir.names(left + 1)?;
        left = left
            .checked_sub(names.len())
            .with_context(|| format!("there are more than {} files", limits.entries))?;
        names.sort();
        for name in names {
            let at = at.join(&name);
            match dir.kind(&name)? {
                Some(Kind::Directory) => waiting.push((at, dir.dir(&name)?)),
                Some(Kind::File) => note(&mut digest, &at, &dir.file(&name)?.metadata()?),
                Some(Kind::Link) => {
                    digest.update(at.as_os_str().as_bytes());
                    digest.update(dir.link(&name)?.as_bytes());
                }
                Some(Kind::Other) | None => digest.update(at.as_os_str().as_bytes()),
            }
        }
    }
    Ok(Fingerprint(digest.finalize().into()))
}

/// Not the time of access, which a reader changes; and of a directory's own name nothing, which an exchange changes.
fn note(digest: &mut Sha256, at: &Path, meta: &std::fs::Metadata) {
    digest.update((at.as_os_str().len() as u64).to_le_bytes());
    digest.update(at.as_os_str().as_bytes());
    for number in [meta.ino(), meta.len(), u64::from(meta.mode())] {
        digest.update(number.to_le_bytes());
    }
    for number in [meta.mtime(), meta.mtime_nsec()] {
        digest.update(number.to_le_bytes());
    }
}

/// How many names are looked at in one go.
const BATCH: usize = 1024;

/// Removes what a name stands for, and all below it. However deep it is, this needs three descriptors: what lies deeper
/// is moved up first.
pub(crate) fn remove(parent: &Dir, name: &OsStr) -> io::Result<()> {
    match parent.kind(name)? {
        None => return Ok(()),
        Some(Kind::Directory) => {}
        Some(_) => return parent.remove_file(name),
    }
    let top = open_to_empty(parent, name)?;
    loop {
        let names = top.names(BATCH)?;
        if names.is_empty() {
            return parent.remove_dir(name);
        }
        for name in names {
            if top.kind(&name)? == Some(Kind::Directory) {
                flatten(&top, &name)?;
            } else {
                top.remove_file(&name)?;
            }
        }
    }
}

/// Removes a directory whose own directories are moved up to `top`.
fn flatten(top: &Dir, name: &OsStr) -> io::Result<()> {
    // Most are empty, or become so.
    if top.remove_dir(name).is_ok() {
        return Ok(());
    }
    let dir = open_to_empty(top, name)?;
    loop {
        let names: Vec<OsString> = dir.names(BATCH)?;
        if names.is_empty() {
            return top.remove_dir(name);
        }
        for name in names {
            if dir.kind(&name)? != Some(Kind::Directory) {
                dir.remove_file(&name)?;
            } else if dir.remove_dir(&name).is_err() {
                // To move a directory is to change what its `..` is.
                drop(open_to_empty(&dir, &name)?);
                dir.rename_new(&name, top, &random_name("up")?)?;
            }
        }
    }
}

/// Opens a directory after it was made ours to change, whatever mode it has.
fn open_to_empty(parent: &Dir, name: &OsStr) -> io::Result<Dir> {
    let opened = match parent.dir(name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            parent.make_ours(name)?;
            parent.dir(name)?
        }
        other => other?,
    };
    if opened.metadata()?.mode() & 0o700 != 0o700 {
        opened.set(Made::ours(PRIVATE_DIR))?;
    }
    Ok(opened)
}

#[cfg(test)]
mod tests;
