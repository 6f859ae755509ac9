//! Files that commonly run on the host and that sessions have left in a work tree, kept for a user who asks later.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::scan::{Change, Risky};
use crate::{
    files::{private_dir, replace},
    host::{Host, hex, seconds},
    record::directory_lock,
};

/// In the state directory: a file for each work tree.
const DIRECTORY: &str = "risky";

/// How long they are kept.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many are kept for one work tree.
const MOST: usize = 100_000;

/// A file that a session has left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    /// Relative to the work tree.
    pub(crate) path: OsString,
    pub(crate) change: Change,
    /// The session's name.
    pub(crate) session: String,
    /// When it ended, in seconds since 1970; `None` while it runs.
    pub(crate) ended: Option<u64>,
}

/// Keeps what a session has left in the work tree at `root`.
pub(crate) fn note(host: &Host, root: &Path, session: &str, risky: &[Risky]) -> anyhow::Result<()> {
    if risky.is_empty() {
        return Ok(());
    }
    let now = seconds(SystemTime::now());
    let path = file(host, root);
    let dir = path.parent().unwrap_or(&path);
    private_dir(dir)?;
    // Two sessions may end at once.
    let _lock = directory_lock(host)?;
    forget_old(dir);
    let left = risky.iter().map(|Risky { path, change }| Left {
        path: path.clone().into_os_string(),
        change: *change,
        session: session.to_owned(),
        ended: Some(now),
    });
    let mut all: Vec<Left> = left.chain(noted(host, root)).collect();
    let mut seen = BTreeSet::new();
    // The last change of each counts, and that comes first.
    all.retain(|left| seen.insert(left.path.clone()));
    all.truncate(MOST);
    replace(&path, &serde_json::to_vec(&all)?)
        .with_context(|| format!("could not write `{}`", path.display()))
}

/// What is kept for the work tree at `root` and still there, the newest first.
pub(crate) fn noted(host: &Host, root: &Path) -> Vec<Left> {
    let all = fs::read(file(host, root)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mut all: Vec<Left> = all.unwrap_or_default();
    let begin = seconds(SystemTime::now()).saturating_sub(LONG.as_secs());
    all.retain(|left| {
        left.ended.is_some_and(|ended| ended >= begin) && fs::symlink_metadata(root.join(&left.path)).is_ok()
    });
    all
}

fn file(host: &Host, root: &Path) -> PathBuf {
    let hash = hex(&Sha256::digest(root.as_os_str().as_encoded_bytes()));
    host.state_dir().join(DIRECTORY).join(format!("{}.json", &hash[..16]))
}

/// Removes what is kept for work trees in which nothing was left for long.
fn forget_old(dir: &Path) {
    let is_old = |entry: &fs::DirEntry| {
        let modified = entry.metadata().and_then(|meta| meta.modified());
        modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > LONG))
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(is_old) {
        let _ = fs::remove_file(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn the_last_change_of_each_file_is_kept_while_it_is_there_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host { home: dir.path().join("home"), ..Host::for_tests() };
        let root = dir.path().join("repo");
        fs::create_dir_all(&root).unwrap();
        let odd = OsString::from_vec(b"M\xff/Makefile\n".to_vec());
        fs::create_dir_all(root.join(&odd).parent().unwrap()).unwrap();
        for path in ["a.mk".into(), "b.mk".into(), odd.clone()] {
            fs::write(root.join(path), "").unwrap();
        }
        let risky = |path: &OsString, change| Risky { path: path.into(), change };
        let (a, b) = ("a.mk".into(), "b.mk".into());
        note(&host, &root, "one", &[risky(&a, Change::New), risky(&odd, Change::New)]).unwrap();
        note(&host, &root, "two", &[risky(&a, Change::Changed), risky(&b, Change::New)]).unwrap();
        note(&host, &root, "three", &[]).unwrap();
        let shown = |host: &Host| -> Vec<(OsString, Change, String)> {
            noted(host, &root).into_iter().map(|left| (left.path, left.change, left.session)).collect()
        };
        let two = |path: &OsString, change| (path.clone(), change, "two".to_owned());
        let one = (odd.clone(), Change::New, "one".to_owned());
        assert_eq!(shown(&host), [two(&a, Change::Changed), two(&b, Change::New), one.clone()]);
        fs::remove_file(root.join(&a)).unwrap();
        assert_eq!(shown(&host), [two(&b, Change::New), one]);
        assert_eq!(noted(&host, dir.path()), []);
        // As if it had been written long ago.
        let path = file(&host, &root);
        let mut all = noted(&host, &root);
        all[0].ended = all[0].ended.map(|ended| ended - LONG.as_secs() - 60);
        fs::write(&path, serde_json::to_vec(&all).unwrap()).unwrap();
        assert_eq!(shown(&host).len(), 1);
        let old = SystemTime::now() - LONG - Duration::from_secs(60);
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        note(&host, dir.path(), "four", &[risky(&"repo".into(), Change::New)]).unwrap();
        assert!(!path.exists());
    }
}
