//! The records of copies. Each copy that sessions with `--clone` work on has a directory with a lock and a record; its files
//! are in a volume of an engine. Whoever works with a copy holds its lock.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    files::{private_dir, read_small, replace},
    host::{Host, Owner, hex},
    report::Hinted,
};

const RECORD: &str = "copy.json";
const LOCK: &str = "lock";

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copy {
    pub(crate) name: String,
    /// The work tree that was copied.
    pub(crate) repository: PathBuf,
    /// Its directory of objects, references and config.
    pub(crate) common: PathBuf,
    /// The engine's address, as docker takes it.
    pub(crate) engine: String,
    pub(crate) volume: String,
    /// The id of an image that has git.
    pub(crate) image: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) runtime: Option<String>,
    /// Seconds since 1970.
    pub(crate) made: u64,
    pub(crate) used: u64,
    /// The commit that holds all that was copied; `None` while the copy is not whole.
    pub(crate) base: Option<String>,
    /// An agent may have changed it since its work was brought in.
    pub(crate) pending: bool,
    /// In KiB, when its work was brought in last.
    pub(crate) size: Option<u64>,
    /// What has become of its work: by the branch's name in the copy, `""` for its result, the name of the branch here
    /// and the commit that came.
    pub(crate) branches: std::collections::BTreeMap<String, (String, String)>,
    /// The commit that `pi diff` has shown last.
    pub(crate) shown: Option<String>,
    /// The commit that `pi apply` has applied last.
    pub(crate) applied: Option<String>,
}

impl Copy {
    pub(crate) fn owner(&self) -> Owner {
        Owner { uid: self.uid, gid: self.gid }
    }

    /// The branch with its result, by its full name, and the commit that came.
    pub(crate) fn result(&self) -> Option<(&str, &str)> {
        self.branches.get("").map(|(name, oid)| (name.as_str(), oid.as_str()))
    }

    fn load(dir: &Path) -> Option<Self> {
        serde_json::from_str(&read_small(&dir.join(RECORD)).ok()??).ok()
    }
}

/// The names of a copy on the machine and on its engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) volume: String,
}

impl Place {
    /// Where the copy of this name of this repository is.
    pub(crate) fn of(host: &Host, repository: &Path, name: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [host.state_dir().as_os_str(), repository.as_os_str(), name.as_ref()] {
            hash.update(part.as_encoded_bytes());
            hash.update([0]);
        }
        let key = &hex(&hash.finalize())[..16];
        Self { dir: above(host).join(key), volume: format!("pi-copy-{key}") }
    }
}

fn above(host: &Host) -> PathBuf {
    host.state_dir().join("copies")
}

/// A copy that nobody else works with while this value lives.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) dir: PathBuf,
    pub(crate) copy: Option<Copy>,
    _lock: fs::File,
}

impl Held {
    /// Takes the lock of a copy, which need not exist yet; nothing where another process holds it.
    pub(crate) fn take(dir: &Path) -> anyhow::Result<Option<Self>> {
        loop {
            private_dir(dir)?;
            let path = dir.join(LOCK);
            let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let lock = match lock {
                // Another process has just removed it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("could not open `{}`", path.display()))?,
            };
            if lock.try_lock().is_err() {
                return Ok(None);
            }
            if is_there(&lock, &path) {
                return Ok(Some(Self { copy: Copy::load(dir), dir: dir.to_owned(), _lock: lock }));
            }
        }
    }

    /// The same, after a moment if necessary: another process may just be bringing its work in.
    ///
    /// # Errors
    /// Another process works with it for longer.
    pub(crate) fn take_within(dir: &Path, name: &str, patience: Duration) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            if let Some(held) = Self::take(dir)? {
                return Ok(held);
            }
            if begun.elapsed() > patience {
                bail!(Hinted::error(
                    format!("another session works on the copy `{name}`"),
                    "end it with `pi stop`, or choose another copy with `--clone=NAME`",
                ));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Replaces the record at once.
    pub(crate) fn save(&mut self, copy: Copy) -> anyhow::Result<()> {
        let path = self.dir.join(RECORD);
        let text = serde_json::to_string(&copy).context("could not render the copy's record")?;
        replace(&path, text.as_bytes()).with_context(|| format!("could not write `{}`", path.display()))?;
        self.copy = Some(copy);
        Ok(())
    }

    /// Forgets the copy.
    pub(crate) fn remove(self) -> std::io::Result<()> {
        // Nobody is to find half of it.
        let _ = fs::remove_file(self.dir.join(RECORD));
        fs::remove_dir_all(&self.dir)
    }
}

#[cfg(unix)]
fn is_there(lock: &fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    matches!((lock.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if same(&a, &b))
}

/// All copies of this user on this machine, with their directories.
pub(crate) fn all(host: &Host) -> Vec<(PathBuf, Copy)> {
    let dirs = fs::read_dir(above(host)).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut all: Vec<_> = dirs.filter_map(|dir| Copy::load(&dir).map(|copy| (dir, copy))).collect();
    all.sort_by(|(_, a), (_, b)| (&a.repository, &a.name).cmp(&(&b.repository, &b.name)));
    all
}

/// The copy of this name of a repository; without a name, the only one.
///
/// # Errors
/// There is none, or there are several.
pub(crate) fn find(host: &Host, repository: &Path, name: Option<&str>) -> anyhow::Result<(PathBuf, Copy)> {
    let mut own: Vec<_> = all(host).into_iter().filter(|(_, copy)| copy.repository == repository).collect();
    if let Some(name) = name {
        own.retain(|(_, copy)| copy.name == name);
    }
    match (own.len(), name) {
        (1, _) => Ok(own.remove(0)),
        (0, Some(name)) => Err(Hinted::error(
            format!("this repository has no copy `{}`", name.escape_debug()),
            "`pi ps --all` lists the copies; `pi --clone=NAME` makes one",
        )),
        (0, None) => Err(Hinted::error(
            "this repository has no copy",
            "`pi --clone` makes one for an agent to work on",
        )),
        (n, _) => {
            let names: Vec<String> = own.iter().map(|(_, copy)| format!("`{}`", copy.name)).collect();
            Err(Hinted::usage_hinted(
                format!("this repository has {n} copies: {}", names.join(", ")),
                "say which by its name",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_held_by_one_and_found_by_its_name() {
        let home = tempfile::tempdir().unwrap();
        let host = Host { home: home.path().to_owned(), ..Host::for_tests() };
        let (repository, other) = (Path::new("/r"), Path::new("/other"));
        let make = |repository: &Path, name: &str| {
            let place = Place::of(&host, repository, name);
            let mut held = Held::take(&place.dir).unwrap().unwrap();
            held.save(Copy {
                name: name.to_owned(),
                repository: repository.to_owned(),
                common: repository.join(".git"),
                engine: String::new(),
                volume: place.volume,
                image: String::new(),
                uid: 0,
                gid: 0,
                runtime: None,
                made: 0,
                used: 0,
                base: None,
                pending: false,
                size: None,
                branches: [].into(),
                shown: None,
                applied: None,
            })
            .unwrap();
            held
        };
        let held = make(repository, "a");
        assert!(Held::take(&held.dir).unwrap().is_none());
        assert!(Held::take_within(&held.dir, "a", Duration::ZERO).is_err());
        drop(make(other, "a"));
        assert_eq!(all(&host).len(), 2);
        let found = |name| find(&host, repository, name).map(|(_, copy)| copy.name);
        assert_eq!(found(None).unwrap(), "a");
        assert!(found(Some("b")).is_err());
        drop(make(repository, "b"));
        assert!(format!("{:#}", found(None).unwrap_err()).contains("2 copies: `a`, `b`"));
        held.remove().unwrap();
        assert_eq!(found(None).unwrap(), "b");
    }
}
