//! Files as a stream that GNU tar unpacks.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _, Write},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Component, Path},
};

use crate::agent_dir::fd::{Dir, Kind};

const BLOCK: usize = 512;

/// Where a name is too long for a header, it goes before it as contents of its own.
const NAME: usize = 100;

/// A stream that is being written.
pub(crate) struct Tar<'a> {
    out: &'a mut dyn Write,
}

/// What a header says of a file.
struct Header<'a> {
    path: &'a [u8],
    kind: u8,
    mode: u32,
    size: u64,
    /// Seconds since 1970.
    modified: u64,
    target: &'a [u8],
}

impl<'a> Tar<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }

    /// Adds a directory.
    pub(crate) fn dir(&mut self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref().as_os_str().as_bytes();
        self.header(&Header { kind: b'5', mode: 0o755, ..Header::of(path) })
    }

    /// Adds a file with these bytes.
    pub(crate) fn text(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.header(&Header { size: bytes.len() as u64, ..Header::of(path.as_bytes()) })?;
        self.contents(bytes)
    }

    /// Adds what `name` in `dir` is now; what is neither a file nor a link has no contents. Says whether it was added.
    pub(crate) fn entry(&mut self, dir: &Dir, name: &OsStr, path: &Path) -> io::Result<bool> {
        let path = path.as_os_str().as_bytes();
        match dir.kind(name)? {
            Some(Kind::File) => self.file(&dir.file(name)?, path).map(|()| true),
            Some(Kind::Link) => {
                let target = dir.link(name)?;
                let target = target.as_bytes();
                self.header(&Header { kind: b'2', mode: 0o777, target, ..Header::of(path) }).map(|()| true)
            }
            Some(Kind::Directory | Kind::Other) | None => Ok(false),
        }
    }

    fn file(&mut self, file: &File, path: &[u8]) -> io::Result<()> {
        let meta = file.metadata()?;
        let size = meta.len();
        let modified = meta.mtime().try_into().unwrap_or(0);
        // Its owner can always write it there.
        let mode = meta.mode() & 0o777 | 0o600;
        self.header(&Header { mode, size, modified, ..Header::of(path) })?;
        // It may grow or shrink at this moment.
        let copied = io::copy(&mut file.take(size), self.out)?;
        io::copy(&mut io::repeat(0).take(size - copied), self.out)?;
        self.pad(size)
    }

    /// Ends the stream.
    pub(crate) fn end(self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }

    fn contents(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        self.out.write_all(&[0; BLOCK][..(BLOCK - over) % BLOCK])
    }

    fn header(&mut self, header: &Header<'_>) -> io::Result<()> {
        for (kind, long) in [(b'K', header.target), (b'L', header.path)] {
            if long.len() > NAME {
                let size = long.len() as u64 + 1;
                self.out.write_all(&Header { kind, size, ..Header::of(b"././@LongLink") }.block())?;
                self.contents(&[long, &[0]].concat())?;
            }
        }
        self.out.write_all(&header.block())
    }
}

impl<'a> Header<'a> {
    fn of(path: &'a [u8]) -> Self {
        Self { path, kind: b'0', mode: 0o644, size: 0, modified: 0, target: b"" }
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.path[..self.path.len().min(NAME)]);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, b"0000000\x000000000\0");
        put(124, &number(self.size));
        put(136, &number(self.modified));
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.target[..self.target.len().min(NAME)]);
        put(257, b"ustar  \0");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }
}

/// Octal digits; a larger number than fits is written as it is in memory, with the first bit set.
fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if value < 1 << 33 {
        field[..11].copy_from_slice(format!("{value:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
    field
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
    use std::{fs, os::unix::fs::symlink, process::Command};

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
        let tar = Command::new("tar").arg("-xf").arg(base.join("stream")).current_dir(&to).output().unwrap();
        assert!(tar.status.success() && tar.stderr.is_empty(), "{tar:?}");
        for path in &paths[..4] {
            assert_eq!(fs::read(to.join(path)).unwrap(), fs::read(from.join(path)).unwrap(), "{path}");
        }
        assert_eq!(fs::read_link(to.join("long-link")).unwrap(), Path::new(&long));
        assert_eq!(fs::read(to.join("text")).unwrap(), b"text");
        assert!(to.join("empty").is_dir() && !to.join("dir").exists());
    }

    #[test]
    fn large_numbers_are_written_in_another_way() {
        assert_eq!(&number(8), b"00000000010\0");
        assert_eq!(number(1 << 40)[..], [0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    }
}
