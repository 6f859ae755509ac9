//! Removes a directory that an agent has written: however deep it is, with two descriptors and no recursion.

use std::{ffi::CString, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, chmodat, openat, renameat_with, statat,
        unlinkat,
    },
    io::Errno,
};

/// How many names are held in memory at once.
const AT_ONCE: usize = 10_000;

/// Removes `dir` and all in it; nothing runs any more that could write there. No link is followed.
pub(crate) fn discard(dir: &Path) -> io::Result<()> {
    let top = match open(CWD, &CString::new(dir.as_os_str().as_encoded_bytes())?) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut number = 0_u64;
    loop {
        let names = names(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if !removed(&top, &name)? {
                flatten(&top, &name, &mut number)?;
            }
        }
    }
    std::fs::remove_dir(dir)
}

/// Empties a directory; those in it that are not empty move up, so that the depth never grows.
fn flatten(top: &OwnedFd, name: &CString, number: &mut u64) -> io::Result<()> {
    let dir = open(top, name)?;
    loop {
        let names = names(&dir)?;
        if names.is_empty() {
            break;
        }
        for inner in names {
            if removed(&dir, &inner)? {
                continue;
            }
            // Its owner may have taken the right to move it away.
            let _ = chmodat(&dir, &inner, Mode::RWXU, AtFlags::empty());
            loop {
                *number += 1;
                match renameat_with(&dir, &inner, top, format!("pi-{number}"), RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => {}
                    other => break other?,
                }
            }
        }
    }
    Ok(unlinkat(top, name, AtFlags::REMOVEDIR)?)
}

/// Whether an entry could be removed at once: a file, or an empty directory.
fn removed(dir: &OwnedFd, name: &CString) -> io::Result<bool> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        unlinkat(dir, name, AtFlags::empty())?;
        return Ok(true);
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn open(dir: impl std::os::fd::AsFd, name: &CString) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(&dir, name, Mode::RWXU, AtFlags::empty())?;
            openat(&dir, name, flags, Mode::empty())
        }
        other => other,
    }
}

fn names(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
        if names.len() == AT_ONCE {
            break;
        }
    }
    // Without the right to write in it nothing could be removed.
    let _ = rustix::fs::fchmod(dir, Mode::RWXU);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

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
        let mut at: OwnedFd = fs::File::open(&tree).unwrap().into();
        for _ in 0..5_000 {
            rustix::fs::mkdirat(&at, "pi-1", Mode::RWXU).unwrap();
            at = open(&at, &CString::new("pi-1").unwrap()).unwrap();
        }
        discard(&tree).unwrap();
        assert!(!tree.exists() && out.join("kept").exists());
        discard(&tree).unwrap();
    }
}
