//! What is made, written, renamed or exchanged in a directory: under a random name first, which must be new.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use super::{Dir, Kind, Made, PLAIN, PRIVATE_DIR, PRIVATE_FILE, one};
use crate::host::hex;

/// How often another random name is tried.
const NAMES: usize = 8;

impl Dir {
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
