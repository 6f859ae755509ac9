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

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};

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
    ///
    /// # Errors
    /// As the system has it.
    pub(crate) fn new_dir(&self, purpose: &str, made: Made) -> io::Result<(OsString, Self)> {
        let name = at_new_name(purpose, |name| rustix::fs::mkdirat(&self.0, name, Mode::RWXU))?.0;
        let dir = self.dir(&name)?;
        dir.set(made).inspect_err(|_| drop(self.remove_dir(&name)))?;
        Ok((name, dir))
    }

    /// Makes a file of this name, which must be new.
    ///
    /// # Errors
    /// As the system has it.
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

    /// Writes a file so that a reader finds the old one or the new one, also after the machine has lost its power.
    ///
    /// # Errors
    /// As the system has it; a directory has that name.
    pub(crate) fn write(&self, name: &OsStr, bytes: &[u8], made: Made) -> io::Result<()> {
        let (temporary, mut file) = at_new_name("new", |name| self.create(name))?;
        let written = file
            .write_all(bytes)
            .and_then(|()| made.give(&file))
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(rustix::fs::renameat(&self.0, &*temporary, &self.0, one(name)?)?));
        written.inspect_err(|_| drop(self.remove_file(&temporary)))?;
        // Not every file system can do this for a directory.
        let _ = self.0.sync_all();
        Ok(())
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
    ///
    /// # Errors
    /// As the system has it.
    pub(crate) fn kind(&self, name: &OsStr) -> io::Result<Option<Kind>> {
        match rustix::fs::statat(&self.0, one(name)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode).into())),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where a link leads.
    ///
    /// # Errors
    /// As the system has it.
    pub(crate) fn link(&self, name: &OsStr) -> io::Result<OsString> {
        let target: CString = rustix::fs::readlinkat(&self.0, one(name)?, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// The first names in it, in the order of the disk.
    ///
    /// # Errors
    /// As the system has it.
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

    pub(crate) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, one(name)?, AtFlags::empty())?)
    }

    pub(crate) fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, one(name)?, AtFlags::REMOVEDIR)?)
    }

    /// Lets us into a directory of our own that has a mode which keeps us out.
    ///
    /// # Errors
    /// As the system has it.
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
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
        path::PathBuf,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    fn name(name: &str) -> &OsStr {
        OsStr::new(name)
    }

    struct World {
        _dir: tempfile::TempDir,
        base: PathBuf,
    }

    impl World {
        /// `in`, where an agent can write, and `out`, where nothing is to be reached.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let base = fs::canonicalize(dir.path()).unwrap();
            for name in ["in", "out"] {
                fs::create_dir(base.join(name)).unwrap();
            }
            fs::write(base.join("out/secret"), "secret").unwrap();
            Self { _dir: dir, base }
        }

        fn inside(&self) -> Dir {
            Dir::open(&self.base.join("in")).unwrap()
        }

        fn outside(&self) -> Vec<(OsString, u32, String)> {
            let mut found: Vec<_> = fs::read_dir(self.base.join("out"))
                .unwrap()
                .map(|entry| {
                    let path = entry.unwrap().path();
                    let mode = fs::metadata(&path).unwrap().permissions().mode();
                    (
                        path.file_name().unwrap().to_owned(),
                        mode,
                        fs::read_to_string(&path).unwrap_or_default(),
                    )
                })
                .collect();
            found.sort();
            found
        }
    }

    #[test]
    fn no_link_on_the_way_is_followed() {
        let world = World::new();
        symlink(world.base.join("out"), world.base.join("in/link")).unwrap();
        symlink(world.base.join("in"), world.base.join("way")).unwrap();
        fs::create_dir(world.base.join("in/deep")).unwrap();
        for path in ["in/link", "way", "way/deep", "in/deep/../deep"] {
            assert!(Dir::open(&world.base.join(path)).is_err(), "{path}");
        }
        let step_by_step = |path: &str| Dir::open(Path::new("/")).unwrap().down(&world.base.join(path));
        for path in ["in/link", "way", "way/deep"] {
            assert!(step_by_step(path).is_err(), "{path}");
        }
        let deep = Dir::open(&world.base.join("in/deep")).unwrap().identity().unwrap();
        assert_eq!(step_by_step("in/deep").unwrap().identity().unwrap(), deep);
        assert!(Dir::open(&world.base.join("in/deep")).is_ok());
        assert!(Dir::open(Path::new("/")).is_ok());
        assert!(Dir::open(Path::new("in")).is_err());
        let inside = world.inside();
        assert!(inside.dir(name("link")).is_err());
        assert!(inside.ensure_dir(name("link"), Made::ours(PRIVATE_DIR)).is_err());
        symlink(world.base.join("out/secret"), world.base.join("in/file")).unwrap();
        assert!(inside.file(name("file")).is_err());
        let said = inside.read(name("file"), 10).unwrap_err().to_string();
        assert!(said.contains("it is a link"), "{said}");
    }

    #[test]
    fn a_name_is_one_component() {
        let inside = World::new().inside();
        for odd in ["", ".", "..", "/", "a/b", "a/", "./a", "../out", "a/../../out"] {
            assert!(one(name(odd)).is_err(), "{odd}");
            assert!(inside.write(name(odd), b"x", Made::ours(TEXT)).is_err(), "{odd}");
            assert!(inside.ensure_dir(name(odd), Made::ours(PRIVATE_DIR)).is_err(), "{odd}");
        }
        assert_eq!(inside.names(10).unwrap(), Vec::<OsString>::new());
    }

    #[test]
    fn a_write_replaces_a_planted_link_and_leaves_what_it_led_to() {
        let world = World::new();
        let before = world.outside();
        symlink(world.base.join("out/secret"), world.base.join("in/file")).unwrap();
        let inside = world.inside();
        inside.write(name("file"), b"ours", Made::ours(PRIVATE_FILE)).unwrap();
        assert_eq!(inside.read(name("file"), 4).unwrap().unwrap(), b"ours");
        assert!(inside.read(name("file"), 3).is_err());
        assert_eq!(world.outside(), before);
        assert_eq!(inside.names(10).unwrap(), ["file"]);
        assert!(inside.write(name("file/x"), b"", Made::ours(TEXT)).is_err());
    }

    #[test]
    fn a_pipe_and_a_socket_are_no_files_and_nobody_waits_for_them() {
        let world = World::new();
        let inside = world.inside();
        let made = std::process::Command::new("mkfifo").arg(world.base.join("in/pipe")).status().unwrap();
        assert!(made.success());
        let _socket = std::os::unix::net::UnixListener::bind(world.base.join("in/socket")).unwrap();
        for other in ["pipe", "socket"] {
            assert!(inside.read(name(other), 10).is_err(), "{other}");
            assert_eq!(inside.kind(name(other)).unwrap(), Some(Kind::Other));
        }
        assert_eq!(inside.read(name("none"), 10).unwrap(), None);
        assert_eq!(inside.kind(name("none")).unwrap(), None);
    }

    #[test]
    fn a_rename_to_a_name_that_is_taken_fails_and_an_exchange_exchanges() {
        let world = World::new();
        let inside = world.inside();
        for dir in ["a", "b"] {
            inside.ensure_dir(name(dir), Made::ours(PRIVATE_DIR)).unwrap();
            fs::write(world.base.join("in").join(dir).join(dir), dir).unwrap();
        }
        let taken = inside.rename_new(name("a"), &inside, name("b")).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        let [a, b] = ["a", "b"].map(|dir| inside.dir(name(dir)).unwrap().identity().unwrap());
        inside.exchange(name("a"), &inside, name("b")).unwrap();
        assert_eq!([b, a], ["a", "b"].map(|dir| inside.dir(name(dir)).unwrap().identity().unwrap()));
        assert_eq!(fs::read_to_string(world.base.join("in/a/b")).unwrap(), "b");
    }

    #[test]
    fn a_directory_that_two_make_at_once_is_one() {
        let world = World::new();
        let identities: Vec<Identity> = thread::scope(|scope| {
            let make = || {
                world.inside().ensure_dir(name("dir"), Made::ours(PRIVATE_DIR)).unwrap().identity().unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(identities.iter().all(|one| *one == identities[0]));
        assert_eq!(world.inside().names(10).unwrap(), ["dir"]);
    }

    /// The attacker of a shared directory: whatever appears in it is replaced by a link out of it, as fast as can be.
    #[test]
    fn whoever_plants_links_at_every_moment_reaches_nothing_outside() {
        let world = World::new();
        let before = world.outside();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let inside = world.base.join("in");
                let trash = world.base.join("trash");
                fs::create_dir(&trash).unwrap();
                for count in 0_u64.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    for entry in fs::read_dir(&inside).into_iter().flatten().flatten() {
                        let _ = fs::rename(entry.path(), trash.join(count.to_string()));
                        let to = if count % 2 == 0 { "out" } else { "out/secret" };
                        let _ = symlink(world.base.join(to), entry.path());
                    }
                    for planted in ["dir", "file"] {
                        let _ = symlink(world.base.join("out"), inside.join(planted));
                    }
                }
            });
            let inside = world.inside();
            let made = Made::ours(PROGRAM);
            for _ in 0..200 {
                if let Ok(dir) = inside.ensure_dir(name("dir"), made) {
                    let _ = dir.set(made);
                    let _ = dir.write(name("planted"), b"x", made);
                }
                let _ = inside.write(name("file"), b"x", made);
                let _ = inside.read(name("file"), 10);
                if let Ok((temporary, dir)) = inside.new_dir("test", made) {
                    let _ = dir.new_file(name("planted"), made);
                    let _ = inside.exchange(&temporary, &inside, name("dir"));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(world.outside(), before);
    }
}
