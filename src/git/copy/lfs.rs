//! Large files: which of them new commits point to, and how one gets among the repository's own, under its own name only.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::objects::{contents, sizes};
use crate::{
    git::{command::Git, give::give, repository::Repository},
    host::hex,
};

/// No file that points to another is longer.
const POINTER: u64 = 1024;

/// How many objects are looked at for pointers.
const MOST: usize = 200_000;

/// The largest file that is brought in.
const LARGEST: u64 = 16 << 30;

/// What a commit has in place of a large file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pointer {
    /// The SHA-256 of the file.
    pub(crate) oid: String,
    pub(crate) size: u64,
}

impl Pointer {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("version https://git-lfs.github.com/spec/v1\n")?;
        let of = |key: &str| rest.lines().find_map(|line| line.strip_prefix(key));
        let oid = of("oid sha256:")?;
        let is_oid = oid.len() == 64 && oid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let size = of("size ")?.parse().ok().filter(|size| *size <= LARGEST)?;
        is_oid.then(|| Self { oid: oid.to_owned(), size })
    }

    /// Where it is below a git directory.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("lfs/objects").join(&self.oid[..2]).join(&self.oid[2..4]).join(&self.oid)
    }
}

/// The large files that a copy's commits point to and the repository does not have. `base` is what was copied.
pub(crate) fn missing(
    git: &Git,
    repository: &Repository,
    base: &str,
    tip: &str,
) -> anyhow::Result<Vec<Pointer>> {
    let parents = format!("{base}^@");
    let list = git.within(repository).args(["rev-list", "--objects", tip, base, "--not", &parents]).text()?;
    let oids = list.lines().take(MOST).filter_map(|line| line.split(' ').next());
    let mut small = sizes(git, repository, oids)?;
    small.retain(|_, size| *size <= POINTER);
    let contents = contents(git, repository, small.keys().map(String::as_str))?;
    let mut pointers: Vec<Pointer> =
        contents.values().filter_map(|bytes| Pointer::parse(std::str::from_utf8(bytes).ok()?)).collect();
    pointers.sort();
    pointers.dedup();
    pointers.retain(|pointer| !repository.common.join(pointer.path()).exists());
    Ok(pointers)
}

/// Puts a large file among the repository's, if what `read` writes is what the name says.
pub(crate) fn keep(
    repository: &Repository,
    pointer: &Pointer,
    read: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let to = repository.common.join(pointer.path());
    let failed = || format!("could not write `{}`", to.display());
    let dir = to.parent().context("it has no directory")?;
    fs::create_dir_all(dir).with_context(failed)?;
    let made = [3, 2, 1, 0].map(|n| to.ancestors().nth(n + 1).map(Path::to_owned));
    made.iter().flatten().try_for_each(|dir| give(dir)).with_context(failed)?;
    let file = tempfile::NamedTempFile::new_in(dir).with_context(failed)?;
    let mut incoming = Incoming { file, hash: Sha256::new(), left: pointer.size, is_longer: false };
    let outcome = read(&mut incoming);
    let Incoming { file, hash, left, is_longer } = incoming;
    if is_longer {
        return Ok(false);
    }
    outcome?;
    if left > 0 || hex(&hash.finalize()) != pointer.oid {
        return Ok(false);
    }
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).with_context(failed)?;
    file.persist(&to).map_err(|error| error.error).with_context(failed)?;
    give(&to).with_context(failed)?;
    Ok(true)
}

/// A large file on its way, of which no more is taken than its pointer says.
struct Incoming {
    file: tempfile::NamedTempFile,
    hash: Sha256,
    left: u64,
    is_longer: bool,
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            self.is_longer = true;
            return Err(io::Error::other("it is longer than its name says"));
        }
        self.hash.update(bytes);
        self.left -= bytes.len() as u64;
        self.file.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_kept_under_its_own_name_only() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository {
            work_tree: dir.path().into(),
            git_dir: dir.path().into(),
            common: dir.path().into(),
        };
        let oid = hex(&Sha256::digest(b"large"));
        let text = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 5\n");
        let pointer = Pointer::parse(&text).unwrap();
        let keep = |bytes: &[u8]| keep(&repository, &pointer, |out| Ok(out.write_all(bytes)?));
        for other in [b"larg".as_slice(), b"larges", b"largE"] {
            assert!(!keep(other).unwrap(), "{other:?}");
        }
        assert!(keep(b"large").unwrap());
        assert_eq!(fs::read(dir.path().join(pointer.path())).unwrap(), b"large");
        for odd in [text.replace("size 5", "size x"), text.replace(&oid, "../../x"), text.replace("v1", "v9")]
        {
            assert_eq!(Pointer::parse(&odd), None);
        }
    }
}
