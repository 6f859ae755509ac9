//! Directories by descriptor: what is made, given away, renamed or removed in a directory that an agent could ever
//! write goes through one, so a link that somebody puts in the way leads nowhere.
//!
//! A name is one component. Nothing here follows a link, and what is new has a random name that must be new.

pub(super) mod write;

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Component, Path},
};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, Uid};

use crate::{files::Identity, host::Owner};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(PLAIN);
const PLAIN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Read and written by its owner alone.
pub(crate) const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
pub(crate) const PRIVATE_DIR: Mode = Mode::RWXU;
/// Read by everybody.
pub(crate) const TEXT: Mode = PRIVATE_FILE.union(Mode::RGRP).union(Mode::ROTH);
pub(crate) const PROGRAM: Mode =
    Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);

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
        self.set_times(name, Timespec { tv_sec: 0, tv_nsec: UTIME_NOW })
    }

    /// Makes what has this name look as if it had been changed at this time, in seconds since 1970.
    pub(crate) fn date(&self, name: &OsStr, at: u64) -> io::Result<()> {
        self.set_times(name, Timespec { tv_sec: at.try_into().unwrap_or_default(), tv_nsec: 0 })
    }

    fn set_times(&self, name: &OsStr, at: Timespec) -> io::Result<()> {
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
