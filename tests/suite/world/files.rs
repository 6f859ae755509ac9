//! Files, and whose they are.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown},
    path::{Path, PathBuf},
    sync::RwLock,
};

/// A user and a group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Who runs the tests.
pub(crate) fn myself() -> Who {
    Who { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
}

/// A user like any other, also where root runs the tests.
pub(crate) fn somebody() -> Who {
    match myself() {
        Who { uid: 0, .. } => Who { uid: 1000, gid: 1000 },
        user => user,
    }
}

/// Whose a file is.
pub(crate) fn owner_of(path: &Path) -> Who {
    let meta = fs::symlink_metadata(path).unwrap();
    Who { uid: meta.uid(), gid: meta.gid() }
}

/// Gives away a file, or a directory with all that is in it.
pub(crate) fn own(path: &Path, who: Who) {
    if who != owner_of(path) {
        lchown(path, Some(who.uid), Some(who.gid)).unwrap();
    }
    if path.is_dir() && !path.is_symlink() {
        for child in children(path) {
            own(&child, who);
        }
    }
}

/// Makes a directory and those above it; they belong to the owner of the first one that was there.
pub(crate) fn make_dir(path: &Path) {
    let made: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
    if let Some(first) = made.last() {
        fs::create_dir_all(path).unwrap();
        own(first, owner_of(first.parent().unwrap()));
    }
}

/// Writes a file and the directories above it, as the owner of the directory would.
pub(crate) fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let (path, dir) = (path.as_ref(), path.as_ref().parent().unwrap());
    make_dir(dir);
    fs::write(path, content).unwrap();
    own(path, owner_of(dir));
}

/// Held while a program is written, and shared while one is started: a child keeps all files of this process open until
/// it runs its own program, and a file that anybody has open for writing cannot be run.
pub(crate) static PROGRAMS: RwLock<()> = RwLock::new(());

/// Writes a file that can be run.
pub(crate) fn write_program(path: &Path, content: impl AsRef<[u8]>) {
    let _alone = PROGRAMS.write().unwrap();
    write(path, content);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What stands in a directory, sorted; nothing where there is none.
pub(crate) fn children(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}
