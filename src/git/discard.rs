//! Removes a directory that an agent has written, however deep it is.

use std::{fs, io, path::Path};

use crate::agent_dir::{fd::Dir, tree::remove};

/// Removes `dir` and all in it; nothing runs any more that could write there, and no agent could write above it. No link
/// in it is followed.
///
/// # Errors
/// Something in it cannot be removed.
pub(crate) fn discard(dir: &Path) -> io::Result<()> {
    let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    match fs::canonicalize(above) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        above => remove(&Dir::open(&above?)?, name),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::agent_dir::fd::{Made, PRIVATE_DIR};

    #[test]
    fn depth_rights_and_links_are_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("outside");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("kept"), "").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("closed/in")).unwrap();
        fs::write(tree.join("closed/in/file"), "").unwrap();
        fs::set_permissions(tree.join("closed/in"), fs::Permissions::from_mode(0o000)).unwrap();
        std::os::unix::fs::symlink(&out, tree.join("closed/link")).unwrap();
        // Deeper than descriptors, the stack or a path's length allow.
        let mut at = Dir::open(&fs::canonicalize(&tree).unwrap()).unwrap();
        for _ in 0..5_000 {
            at = at.ensure_dir("pi-1".as_ref(), Made::ours(PRIVATE_DIR)).unwrap();
        }
        discard(&tree).unwrap();
        assert!(!tree.exists() && out.join("kept").exists());
        discard(&tree).unwrap();
    }
}
