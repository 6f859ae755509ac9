//! The walk over a work tree, through descriptors that no link can lead astray.

use std::{
    ffi::{CStr, CString, OsStr},
    io::{self, Read as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, openat, renameat_with, statat},
    io::Errno,
};

use super::{Disarmed, Seen, Top, key};
use crate::git::risky::{Ground, is_manifest, scripts};

/// How deep a walk goes; it holds a descriptor for each level.
pub(super) const DEEPEST: usize = 100;

/// How many files and directories a walk looks at.
const MOST: usize = 5_000_000;

/// How many manifests are read.
const MANIFESTS: usize = 2000;

/// How large a manifest may be.
const MANIFEST: u64 = 1 << 20;

/// How many of one kind are kept, so that no agent can fill the memory.
const KEPT: usize = 100_000;

/// The ending of what is out of action.
const QUARANTINE: &str = "pi-quarantine";

/// One directory of a walk.
struct Here<'a> {
    dir: &'a OwnedFd,
    path: &'a Path,
    ground: Ground,
    depth: usize,
}

pub(super) struct Walk<'a> {
    top: Top,
    /// What was there before; then what was not is disarmed.
    before: Option<&'a Seen>,
    pub(super) links: &'a [PathBuf],
    left: usize,
    manifests: usize,
    pub(super) git: Vec<(PathBuf, String)>,
    pub(super) risky: Vec<(PathBuf, String)>,
    pub(super) sockets: Vec<PathBuf>,
    pub(super) unseen: Vec<PathBuf>,
    pub(super) disarmed: Vec<Disarmed>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(top: Top, before: Option<&'a Seen>) -> Self {
        Self {
            top,
            before,
            links: &[],
            left: MOST,
            manifests: MANIFESTS,
            git: vec![],
            risky: vec![],
            sockets: vec![],
            unseen: vec![],
            disarmed: vec![],
        }
    }

    pub(super) fn run(&mut self, root: &Path) -> io::Result<()> {
        let dir =
            rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        self.directory(&Here { dir: &dir, path: Path::new(""), ground: Ground::Ordinary, depth: 0 })?;
        self.risky.sort();
        self.git.sort();
        Ok(())
    }

    fn directory(&mut self, here: &Here<'_>) -> io::Result<()> {
        let mut down = Vec::new();
        let mut shape = Shape::default();
        for entry in Dir::read_from(here.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let Some(left) = self.left.checked_sub(1) else {
                keep(&mut self.unseen, here.path.to_owned());
                return Ok(());
            };
            self.left = left;
            let kind = match entry.file_type() {
                FileType::Unknown => statat(here.dir, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                kind => kind,
            };
            shape.see(bytes, kind);
            let is_top = here.depth == 0;
            if is_git(bytes) {
                if is_top && self.top == Top::Repository {
                    continue;
                }
                // Its inside is looked at under its new name.
                if let Some(now) = self.repository(here, name)
                    && kind == FileType::Directory
                {
                    down.push(now);
                }
            } else if kind == FileType::Directory {
                down.push(name.to_owned());
            } else if kind == FileType::Socket {
                keep(&mut self.sockets, here.path.join(OsStr::from_bytes(bytes)));
            } else if here.ground.runs(bytes) {
                self.risky(here, name);
            }
        }
        if shape.is_bare() && (here.depth > 0 || self.top == Top::Directory) {
            self.bare(here);
        }
        for name in down {
            self.below(here, &name);
        }
        Ok(())
    }

    fn below(&mut self, here: &Here<'_>, name: &CStr) {
        let path = here.path.join(OsStr::from_bytes(name.to_bytes()));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = if here.depth < DEEPEST {
            openat(here.dir, name, flags, Mode::empty())
        } else {
            Err(Errno::NAMETOOLONG)
        };
        // One that was removed meanwhile needs no look.
        let Ok(dir) = opened else {
            if !matches!(opened, Err(Errno::NOENT)) {
                keep(&mut self.unseen, path);
            }
            return;
        };
        let below = Here {
            dir: &dir,
            path: &path,
            ground: here.ground.below(name.to_bytes()),
            depth: here.depth + 1,
        };
        if self.directory(&below).is_err() {
            keep(&mut self.unseen, path);
        }
    }

    /// A `.git`; what it is called afterwards, where its inside is to be looked at.
    fn repository(&mut self, here: &Here<'_>, name: &CStr) -> Option<CString> {
        let path = here.path.join(OsStr::from_bytes(name.to_bytes()));
        let mark = identity(here.dir, name);
        let Some(before) = self.before else {
            keep(&mut self.git, (path, mark));
            return None;
        };
        if self.links.contains(&path)
            || before.git.get(&key(&path)) == Some(&mark)
            || before.git.values().any(|known| *known == mark)
        {
            return None;
        }
        let now = rename(here.dir, name);
        let there = now.as_ref().ok().cloned();
        let now = now
            .map(|now| here.path.join(OsStr::from_bytes(now.to_bytes())))
            .map_err(|error| error.to_string());
        keep(&mut self.disarmed, Disarmed { path, now });
        there
    }

    /// A directory that is laid out as a repository itself.
    fn bare(&mut self, here: &Here<'_>) {
        let parts = [c"HEAD", c"config", c"commondir", c"hooks", c"config.worktree"];
        let mark = parts.map(|part| stamp(here.dir, part).unwrap_or_default()).join(" ");
        let Some(before) = self.before else {
            return keep(&mut self.git, (here.path.to_owned(), mark));
        };
        if before.git.get(&key(here.path)) == Some(&mark) {
            return;
        }
        // Without HEAD it is none, whatever else is in it.
        let now = rename(here.dir, c"HEAD")
            .map(|now| here.path.join(OsStr::from_bytes(now.to_bytes())))
            .map_err(|error| error.to_string());
        // What a `.git` was that has been renamed is told already.
        let is_told = here.path.file_name().is_some_and(|name| {
            name.as_bytes().starts_with(b".git.")
                && self.disarmed.iter().any(|one| one.now.as_deref() == Ok(here.path))
        });
        if !is_told || now.is_err() {
            keep(&mut self.disarmed, Disarmed { path: here.path.to_owned(), now });
        }
    }

    fn risky(&mut self, here: &Here<'_>, name: &CStr) {
        let path = here.path.join(OsStr::from_bytes(name.to_bytes()));
        let mut mark = stamp(here.dir, name).unwrap_or_default();
        if is_manifest(name.to_bytes())
            && let Some(left) = self.manifests.checked_sub(1)
        {
            self.manifests = left;
            if let Ok(text) = manifest(here.dir, name) {
                mark = scripts(&text);
            }
        }
        keep(&mut self.risky, (path, mark));
    }
}

/// What a directory has of a repository's parts.
#[derive(Default)]
struct Shape(Vec<&'static str>);

impl Shape {
    fn see(&mut self, name: &[u8], kind: FileType) {
        let is_directory = kind == FileType::Directory;
        let leads_to_one = is_directory || matches!(kind, FileType::Symlink | FileType::Unknown);
        match name {
            b"HEAD" if !is_directory => self.0.push("HEAD"),
            b"objects" if leads_to_one => self.0.push("objects"),
            b"refs" if leads_to_one => self.0.push("refs"),
            b"commondir" => self.0.push("commondir"),
            _ => {}
        }
    }

    fn is_bare(&self) -> bool {
        let has = |part| self.0.contains(&part);
        has("HEAD") && (has("commondir") || has("objects") && has("refs"))
    }
}

fn is_git(name: &[u8]) -> bool {
    // On the disks of a Mac the case of letters makes no difference.
    if cfg!(target_os = "macos") { name.eq_ignore_ascii_case(b".git") } else { name == b".git" }
}

fn keep<T>(list: &mut Vec<T>, what: T) {
    if list.len() < KEPT {
        list.push(what);
    }
}

/// What a directory is, whatever changes in it, or a file as it is at this moment.
fn identity(dir: impl AsFd, name: &CStr) -> String {
    match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            format!("{}:{}", stat.st_dev, stat.st_ino)
        }
        _ => stamp(dir, name).unwrap_or_default(),
    }
}

/// What differs after any change of a file. No program sets the time of change.
fn stamp(dir: impl AsFd, name: &CStr) -> Option<String> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(format!("{}:{}:{}:{}.{}", stat.st_dev, stat.st_ino, stat.st_size, stat.st_ctime, stat.st_ctime_nsec))
}

fn manifest(dir: impl AsFd, name: &CStr) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(openat(dir, name, flags, Mode::empty())?);
    let mut text = Vec::new();
    file.take(MANIFEST).read_to_end(&mut text)?;
    Ok(text)
}

/// Gives an entry a name that git does not look for.
fn rename(dir: impl AsFd, name: &CStr) -> Result<CString, Errno> {
    let plain = name.to_string_lossy();
    for n in 1..1000 {
        let number = if n == 1 { String::new() } else { format!("-{n}") };
        let Ok(new) = CString::new(format!("{plain}.{QUARANTINE}{number}")) else {
            return Err(Errno::INVAL);
        };
        match renameat_with(&dir, name, &dir, &new, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(new),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EXIST)
}
