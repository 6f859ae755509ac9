//! What root has written in a repository of somebody else's belongs to that user afterwards. No agent can write there.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, lchown},
    path::Path,
};

use super::repository::Repository;

/// How deep names of references may lie.
const DEEPEST: usize = 40;

/// Gives a file or directory to the owner of the directory that it is in, where root has made it.
pub(super) fn give(path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(above) = path.parent() else { return Ok(()) };
    let (above, own) = (fs::symlink_metadata(above)?, fs::symlink_metadata(path)?);
    if own.uid() == 0 && above.uid() != 0 {
        lchown(path, Some(above.uid()), Some(above.gid()))?;
    }
    Ok(())
}

/// The same for all that a pass can have written, but for objects.
pub(super) fn give_all(repository: &Repository) -> io::Result<()> {
    let Repository { git_dir, common, .. } = repository;
    if !rustix::process::geteuid().is_root() || fs::symlink_metadata(common)?.uid() == 0 {
        return Ok(());
    }
    for dir in [git_dir, common] {
        for file in ["HEAD", "ORIG_HEAD", "index", "packed-refs", "logs", "refs", "reftable"] {
            all(&dir.join(file), DEEPEST)?;
        }
    }
    Ok(())
}

fn all(path: &Path, depth: usize) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    give(path)?;
    if !meta.is_dir() || depth == 0 {
        return Ok(());
    }
    fs::read_dir(path)?.try_for_each(|entry| all(&entry?.path(), depth - 1))
}
