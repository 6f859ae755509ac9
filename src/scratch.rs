//! Scratch directories. Dropping one removes it; after a crash, the next start does.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    files::{is_temporary, private_dir},
    host::Host,
    report,
};

/// A scratch directory. Its lock shows that it is in use.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one below the user's cache directory. Some engines run in a virtual machine that shares the home.
    pub(crate) fn new(host: &Host, prefix: &str) -> anyhow::Result<Self> {
        let above = host.cache_dir();
        private_dir(&above)?;
        let dir = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(&above)
            .with_context(|| format!("could not create a directory in `{}`", above.display()))?
            .keep();
        let lock = File::create(dir.join(LOCK)).and_then(|lock| lock.lock().map(|()| lock));
        let lock = lock.with_context(|| format!("could not lock `{}`", dir.display()))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            report::warn(format_args!("could not remove `{}`: {error}", self.dir.display()));
        }
    }
}

const LOCK: &str = ".lock";

/// Removes the directories of killed processes. A directory without its lock file is just being made, and stays.
pub(crate) fn sweep(host: &Host) {
    for entry in fs::read_dir(host.cache_dir()).into_iter().flatten().flatten() {
        let dir = entry.path();
        if File::open(dir.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
            && let Err(error) = fs::remove_dir_all(&dir)
        {
            report::warn(format_args!("could not remove `{}`: {error}", dir.display()));
        }
    }
    let is_old = |entry: &fs::DirEntry| {
        let age =
            entry.metadata().and_then(|meta| meta.modified()).map(|then| then.elapsed().unwrap_or_default());
        age.is_ok_and(|age| age > OLD)
    };
    for entry in fs::read_dir(host.state_dir()).into_iter().flatten().flatten() {
        if is_temporary(&entry.file_name()) && is_old(&entry) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A temporary file that is older than this is a leftover.
const OLD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_and_what_a_killed_process_left_goes() {
        let home = tempfile::tempdir().unwrap();
        let host = Host { home: home.path().to_owned(), ..Host::for_tests() };
        let used = Scratch::new(&host, "a-").unwrap();
        let left = host.cache_dir().join("b-left");
        fs::create_dir(&left).unwrap();
        File::create(left.join(LOCK)).unwrap();
        sweep(&host);
        assert!(used.path().is_dir() && !left.exists());
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
    }
}
