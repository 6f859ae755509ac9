//! What the tests of these modules have in common.

use std::{fs, path::PathBuf};

use super::fd::Dir;

/// A place of its own, whose path has no links.
pub(super) struct World {
    _dir: tempfile::TempDir,
    base: PathBuf,
}

impl World {
    /// With these directories.
    pub(super) fn with(dirs: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        for name in dirs {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        Self { _dir: dir, base }
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    pub(super) fn dir(&self, path: &str) -> Dir {
        Dir::open(&self.at(path)).unwrap()
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }
}
