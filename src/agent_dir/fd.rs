//! Directories by descriptor: what is made, given away, renamed or removed in a directory that an agent could ever
//! write goes through one, so a link that somebody puts in the way leads nowhere.
//!
//! A name is one component. Nothing here follows a link, and what is new has a random name that must be new.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Component, Path},
};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, Uid};

use crate::{
    files::Identity,
    host::{Owner, hex},
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(PLAIN);
const PLAIN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Read and written by its owner alone.
pub(crate) const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
pub(crate) const PRIVATE_DIR: Mode = Mode::RWXU;
/// Read by everybody.
pub(crate) const TEXT: Mode = PRIVATE_FILE.union(Mode::RGRP).union(Mode::ROTH);
pub(crate) const PROGRAM: Mode =
    Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);

/// How often another random name is tried.
const NAMES: usize = 8;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(File);

/// What a name stands for; a link is a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Link,
    /// A pipe, a socket, a device.
    Other,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            _ => Self::Other,
        }
    }
}

/// The mode of something new, and whose it is where it is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) mode: Mode,
    pub(crate) owner: Option<Owner>,
}

impl Made {
    /// The mode, and our own.
    pub(crate) fn ours(mode: Mode) -> Self {
        Self { mode, owner: None }
    }

    /// Gives the mode after the owner: a change of the owner takes bits of the mode away.
    pub(crate) fn give(self, file: &File) -> io::Result<()> {
        if let Some(Owner { uid, gid }) = self.owner {
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(rustix::fs::fchmod(file, self.mode)?)
    }
}

impl Dir {
    /// Opens an absolute path on which no link lies.
    ///
    /// # Errors
    /// As the system has it; `ELOOP` or `ENOTDIR` for a link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let root = File::from(rustix::fs::open("/", DIRECTORY, Mode::empty())?);
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not an absolute path without `..`",
            ));
        }
        #[cfg(target_os = "linux")]
        if let Some(opened) = open_at_once(&root, path) {
            return opened;
        }
        Self(root).down(path)
    }

    /// Step by step, where one call is not to be had.
    fn down(self, path: &Path) -> io::Result<Self> {
        path.components().try_fold(self, |here, part| match part {
            Component::Normal(name) => here.dir(name),
            _ => Ok(here),
        })
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// As the system has it; `ELOOP` or `ENOTDIR` for a link.
    pub(crate) fn dir(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self(File::from(rustix::fs::openat(&self.0, one(name)?, DIRECTORY, Mode::empty())?)))
    }

    /// The same directory once more.
    pub(crate) fn again(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    pub(crate) fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::from(&self.0.metadata()?))
    }

    pub(crate) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.0.metadata()
    }

    pub(crate) fn set(&self, made: Made) -> io::Result<()> {
        made.give(&self.0)
    }

    /// Opens the directory of this name, and makes it where there is none: somebody who looks sees none or the finished
    /// one.
    ///
    /// # Errors
    /// As the system has it; something else has that name.
    pub(crate) fn ensure_dir(&self, name: &OsStr, made: Made) -> io::Result<Self> {
        match self.dir(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (temporary, dir) = self.new_dir("new", made)?;
        match self.rename_new(&temporary, self, name) {
            Ok(()) => Ok(dir),
            Err(error) => {
                self.remove_dir(&temporary)?;
                if error.kind() == io::ErrorKind::AlreadyExists { self.dir(name) } else { Err(error) }
            }
        }
    }

    /// Opens an absolute path without links, and makes what of it is not there yet.
    ///
    /// # Errors
    /// As the system has it; `ELOOP` or `ENOTDIR` for a link.
    pub(crate) fn ensure(path: &Path, made: Made) -> io::Result<Self> {
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Self::ensure(parent, made)?.ensure_dir(name, made),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Makes a directory of this name, which must be new.
    ///
    /// # Errors
    /// `AlreadyExists`, or as the system has it.
    pub(crate) fn make_new(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.0, one(name)?, PRIVATE_DIR)?)
    }

    /// Makes a directory under a random hidden name that tells what it is for.
    pub(crate) fn new_dir(&self, purpose: &str, made: Made) -> io::Result<(OsString, Self)> {
        let name = at_new_name(purpose, |name| rustix::fs::mkdirat(&self.0, name, Mode::RWXU))?.0;
        let dir = self.dir(&name)?;
        dir.set(made).inspect_err(|_| drop(self.remove_dir(&name)))?;
        Ok((name, dir))
    }

    /// Makes a file of this name, which must be new.
    pub(crate) fn new_file(&self, name: &OsStr, made: Made) -> io::Result<File> {
        let file = self.create(one(name)?)?;
        made.give(&file).inspect_err(|_| drop(self.remove_file(name)))?;
        Ok(file)
    }

    fn create(&self, name: &OsStr) -> rustix::io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | PLAIN;
        rustix::fs::openat(&self.0, name, flags, PRIVATE_FILE).map(File::from)
    }

    /// Makes a link of this name, which must be new.
    pub(crate) fn new_link(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, one(name)?)?)
    }

    /// What a file or a directory is; `None` for a link and for what is neither. It is not opened for reading, so it
    /// need not be readable, and nobody can keep us waiting with a lease.
    pub(crate) fn identity_of(&self, name: &OsStr) -> io::Result<Option<Identity>> {
        #[cfg(target_os = "linux")]
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        #[cfg(not(target_os = "linux"))]
        let look = OFlags::RDONLY | PLAIN;
        let meta = File::from(rustix::fs::openat(&self.0, one(name)?, look, Mode::empty())?).metadata()?;
        Ok((meta.is_file() || meta.is_dir()).then(|| Identity::from(&meta)))
    }

    /// Opens a regular file for reading; a pipe does not make this wait.
    ///
    /// # Errors
    /// As the system has it, or `InvalidData` for what is no regular file.
    pub(crate) fn file(&self, name: &OsStr) -> io::Result<File> {
        let file =
            File::from(rustix::fs::openat(&self.0, one(name)?, OFlags::RDONLY | PLAIN, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
        }
        Ok(file)
    }

    /// The bytes of a file of at most this length; `None` where there is none.
    ///
    /// # Errors
    /// As the system has it, or `InvalidData` for a link, for what is no regular file, and for what is longer.
    pub(crate) fn read(&self, name: &OsStr, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if self.kind(name)? == Some(Kind::Link) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is a link ({error})")));
            }
            other => other?,
        };
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            let why = format!("it is larger than {most} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Some(bytes))
    }

    /// Writes a file so that a reader finds the old one or the new one.
    ///
    /// # Errors
    /// As the system has it; a directory has that name.
    pub(crate) fn write(&self, name: &OsStr, bytes: &[u8], made: Made) -> io::Result<()> {
        self.write_from(name, &mut &*bytes, made)
    }

    /// The same for what is read from elsewhere, and need not fit into memory.
    ///
    /// # Errors
    /// As the system has it; a directory has that name; nothing more can be read.
    pub(crate) fn write_from(&self, name: &OsStr, from: &mut impl io::Read, made: Made) -> io::Result<()> {
        self.write_and(name, from, made, |_| Ok(()))
    }

    /// The same for what must be there when the machine has lost its power at any moment. This takes milliseconds.
    ///
    /// # Errors
    /// As the system has it; a directory has that name.
    pub(crate) fn write_lasting(&self, name: &OsStr, bytes: &[u8], made: Made) -> io::Result<()> {
        self.write_and(name, &mut &*bytes, made, File::sync_all)?;
        // Not every file system can do this for a directory.
        let _ = self.0.sync_all();
        Ok(())
    }

    /// Writes a file of a name that must be new: nobody sees it before it is whole.
    ///
    /// # Errors
    /// `AlreadyExists`, or as the system has it.
    pub(crate) fn write_new(&self, name: &OsStr, bytes: &[u8], made: Made) -> io::Result<()> {
        let (temporary, mut file) = at_new_name("new", |name| self.create(name))?;
        let written = file.write_all(bytes).and_then(|()| made.give(&file)).and_then(|()| {
            match self.rename_new(&temporary, self, name) {
                // The file system has no such rename.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
                {
                    rustix::fs::linkat(&self.0, &*temporary, &self.0, one(name)?, AtFlags::empty())?;
                    self.remove_file(&temporary)
                }
                other => other,
            }
        });
        written.inspect_err(|_| drop(self.remove_file(&temporary)))
    }

    fn write_and(
        &self,
        name: &OsStr,
        from: &mut impl io::Read,
        made: Made,
        finish: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        let (temporary, mut file) = at_new_name("new", |name| self.create(name))?;
        let written = io::copy(from, &mut file)
            .and_then(|_| made.give(&file))
            .and_then(|()| finish(&file))
            .and_then(|()| Ok(rustix::fs::renameat(&self.0, &*temporary, &self.0, one(name)?)?));
        written.inspect_err(|_| drop(self.remove_file(&temporary)))
    }

    /// Renames, where nothing has the new name yet.
    ///
    /// # Errors
    /// `AlreadyExists`, or as the system has it.
    pub(crate) fn rename_new(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        let (name, new) = (one(name)?, one(new)?);
        match rustix::fs::renameat_with(&self.0, name, &to.0, new, RenameFlags::NOREPLACE) {
            // The file system has no such rename. An empty directory is all that this could replace.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS)
                if self.kind(name)? == Some(Kind::Directory) =>
            {
                if to.kind(new)?.is_some_and(|kind| kind != Kind::Directory) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                rustix::fs::renameat(&self.0, name, &to.0, new).map_err(|error| match error {
                    rustix::io::Errno::NOTEMPTY => io::ErrorKind::AlreadyExists.into(),
                    other => other.into(),
                })
            }
            other => Ok(other?),
        }
    }

    /// Exchanges what two names stand for, in one step.
    ///
    /// # Errors
    /// As the system has it; `InvalidInput` where the file system cannot do it.
    pub(crate) fn exchange(&self, name: &OsStr, with: &Self, other: &OsStr) -> io::Result<()> {
        let (name, other) = (one(name)?, one(other)?);
        Ok(rustix::fs::renameat_with(&self.0, name, &with.0, other, RenameFlags::EXCHANGE)?)
    }

    /// What a name stands for; `None` where nothing has it.
    pub(crate) fn kind(&self, name: &OsStr) -> io::Result<Option<Kind>> {
        match rustix::fs::statat(&self.0, one(name)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode).into())),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where a link leads.
    pub(crate) fn link(&self, name: &OsStr) -> io::Result<OsString> {
        let target: CString = rustix::fs::readlinkat(&self.0, one(name)?, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// The first names in it, in the order of the disk.
    pub(crate) fn names(&self, most: usize) -> io::Result<Vec<OsString>> {
        let names = rustix::fs::Dir::read_from(&self.0)?.filter_map(|entry| match entry {
            Ok(entry) => {
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                (name != "." && name != "..").then(|| Ok(name.to_owned()))
            }
            Err(error) => Some(Err(error.into())),
        });
        names.take(most).collect()
    }

    /// Makes what has this name look as if it had just been changed.
    pub(crate) fn touch(&self, name: &OsStr) -> io::Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let both = Timestamps { last_access: now, last_modification: now };
        Ok(rustix::fs::utimensat(&self.0, one(name)?, &both, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes what has this name look as if it had been changed at this time, in seconds since 1970.
    pub(crate) fn date(&self, name: &OsStr, at: u64) -> io::Result<()> {
        let at = Timespec { tv_sec: at.try_into().unwrap_or_default(), tv_nsec: 0 };
        let both = Timestamps { last_access: at, last_modification: at };
        Ok(rustix::fs::utimensat(&self.0, one(name)?, &both, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(crate) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, one(name)?, AtFlags::empty())?)
    }

    pub(crate) fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, one(name)?, AtFlags::REMOVEDIR)?)
    }

    /// Lets us into a directory of our own that has a mode which keeps us out.
    pub(crate) fn make_ours(&self, name: &OsStr) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let look = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let held = rustix::fs::openat(&self.0, one(name)?, look, Mode::empty())?;
            // A descriptor of this kind takes no `fchmod`, but its name is not a name that somebody could exchange.
            let by_number = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
            Ok(rustix::fs::chmod(by_number, PRIVATE_DIR)?)
        }
        #[cfg(not(target_os = "linux"))]
        Ok(rustix::fs::chmodat(&self.0, one(name)?, PRIVATE_DIR, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Does something with a random name until that name was new.
fn at_new_name<T>(
    purpose: &str,
    create: impl Fn(&OsStr) -> rustix::io::Result<T>,
) -> io::Result<(OsString, T)> {
    let mut last = io::ErrorKind::AlreadyExists.into();
    for _ in 0..NAMES {
        let name = random_name(purpose)?;
        match create(&name) {
            Ok(made) => return Ok((name, made)),
            Err(error @ rustix::io::Errno::EXIST) => last = error.into(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last)
}

/// A hidden name that nobody can have guessed.
pub(crate) fn random_name(purpose: &str) -> io::Result<OsString> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(format!(".pi-{purpose}-{}", hex(&random)).into())
}

/// One call, where the kernel has it and lets us.
#[cfg(target_os = "linux")]
fn open_at_once(root: &File, path: &Path) -> Option<io::Result<Dir>> {
    use rustix::{fs::ResolveFlags, io::Errno};

    let inside = path.strip_prefix("/").ok().filter(|path| !path.as_os_str().is_empty())?;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH;
    match rustix::fs::openat2(root, inside, DIRECTORY, Mode::empty(), resolve) {
        // An old kernel; a sandbox around us; somebody renames above us again and again.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::AGAIN | Errno::XDEV) => None,
        other => Some(other.map(|fd| Dir(File::from(fd))).map_err(io::Error::from)),
    }
}

/// A name without a way.
fn one(name: &OsStr) -> io::Result<&OsStr> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name => Ok(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a single name")),
    }
}

#[cfg(test)]
mod tests;
