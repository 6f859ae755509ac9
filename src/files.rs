//! Safe use of files that others may write, exchange or lock: no link leads astray, no pipe blocks, no text is endless.

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;

/// Settings and git's own files are smaller than this.
const SMALL: u64 = 1 << 20;

/// The file at a path: its device and its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Identity {
    /// The file at `path` now; links are followed.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|meta| Self::from(&meta))
    }

    /// The file at `path` now. There is none if the path has a link, which somebody may have added since it was
    /// resolved.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        #[cfg(target_os = "linux")]
        {
            let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut here = File::from(rustix::fs::open("/", look | OFlags::DIRECTORY, Mode::empty()).ok()?);
            for part in path.components() {
                if let Component::Normal(name) = part {
                    here = File::from(rustix::fs::openat(&here, name, look, Mode::empty()).ok()?);
                }
            }
            let meta = here.metadata().ok()?;
            (!meta.is_symlink()).then(|| Self::from(&meta))
        }
        #[cfg(not(target_os = "linux"))]
        Self::of(path)
    }
}

impl From<&std::fs::Metadata> for Identity {
    fn from(meta: &std::fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// Whether to follow a link in the last place of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

/// Opens a regular file of at most 1 MiB; any other is `InvalidData`. It never waits for a pipe.
pub(crate) fn open_small(path: &Path, links: Links, write: bool) -> io::Result<File> {
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let follow = if links == Links::Refuse { OFlags::NOFOLLOW } else { OFlags::empty() };
    let flags = access | follow | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > SMALL {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file of at most 1 MiB"));
    }
    Ok(file)
}

/// Whether this is a regular file, and no link to one.
pub(crate) fn is_plain_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}

/// The text of a small file that is no link.
pub(crate) fn read_plain(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_small(path, Links::Refuse, false)?.take(SMALL + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// The text of a small file, if it exists. It must be UTF-8.
pub(crate) fn read_small(path: &Path) -> anyhow::Result<Option<String>> {
    let Some(bytes) = read_small_bytes(path)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).with_context(|| format!("could not read `{}`", path.display()))
}

/// The bytes of a small file, if it exists.
pub(crate) fn read_small_bytes(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match small_bytes(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        other => other.map(Some).with_context(|| format!("could not read `{}`", path.display())),
    }
}

/// The bytes of a small file, with the system's own error.
pub(crate) fn small_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_small(path, Links::Follow, false)?.take(SMALL + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SMALL {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Makes a directory and its parents for this user only.
pub(crate) fn private_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("could not create `{}`", path.display()))
}

/// Replaces a file at once: a reader sees the old one or the new one.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    // Each process has its own file: several sessions may end at once.
    let next = path.with_extension(format!("next-{}", std::process::id()));
    let written = fs::write(&next, text).and_then(|()| set_mode(&next, 0o644));
    written.and_then(|()| fs::rename(&next, path)).inspect_err(|_| drop(fs::remove_file(&next)))
}

/// Whether this is the name of a temporary file of [`replace`].
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.contains(".next-"))
}

/// Sets the permissions of a file.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The mount points that this process sees. There are none on a system without `/proc`.
pub(crate) fn mount_points() -> impl Iterator<Item = PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points: Vec<_> = table.lines().filter_map(|line| line.split(' ').nth(4).map(unescaped)).collect();
    points.into_iter()
}

/// Decodes a path of the kernel's table, where blanks, tabs, newlines and backslashes are three octal digits.
fn unescaped(path: &str) -> PathBuf {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (written, meant)| path.replace(written, meant))
        .into()
}

/// Takes a lock that another process may hold. It gives up when `patience` is over or `go_on` fails.
pub(crate) fn lock_within(
    file: &File,
    patience: Duration,
    go_on: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) => go_on()?,
        }
        if begun.elapsed() > patience {
            bail!("another `pi` has held the lock for {} s", patience.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_on_the_way_is_seen_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let base = std::fs::canonicalize(dir.path()).unwrap();
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", base.join("link")).unwrap();
        assert_eq!(Identity::at(&base.join("a/b")), Identity::of(&base.join("a/b")));
        assert_eq!(Identity::at(&base.join("link/b")), None);
        assert_eq!(Identity::at(&base.join("link")), None);
        assert_eq!(Identity::at(&base.join("missing")), None);
    }

    #[test]
    fn a_pipe_a_link_and_endless_text_are_no_small_files() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read_small(&pipe).is_err());
        let big = dir.path().join("big");
        File::create(&big).unwrap().set_len(SMALL + 1).unwrap();
        assert!(read_small(&big).is_err());
        let link = dir.path().join("link");
        std::fs::write(dir.path().join("text"), "text").unwrap();
        std::os::unix::fs::symlink("text", &link).unwrap();
        assert!(open_small(&link, Links::Refuse, true).is_err());
        assert_eq!(read_small(&link).unwrap().as_deref(), Some("text"));
        assert_eq!(read_small(&dir.path().join("none")).unwrap(), None);
    }
}
