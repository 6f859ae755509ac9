//! What a session needs on the host before its containers.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    files::{private_dir, replace, set_mode},
    host::Owner,
    plan::{Directory, File, Keep, Plan},
};

/// Makes the directories and files that the plan names.
pub(super) fn prepare(plan: &Plan) -> anyhow::Result<()> {
    for Directory { path, owner } in &plan.directories {
        if !path.is_dir() {
            make_directory(path, *owner)?;
        }
    }
    for File { path, text, keep, owner } in &plan.files {
        let written = match keep {
            Keep::Session => {
                // Read inside containers by users without a name; what is above is private.
                if let Some(parent) = path.parent().filter(|parent| *parent != plan.state) {
                    fs::create_dir_all(parent).and_then(|()| set_mode(parent, 0o755))
                } else {
                    Ok(())
                }
                .and_then(|()| replace(path, text.bytes()))
            }
            Keep::Existing => {
                match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                    Ok(mut file) => {
                        chown(path, *owner)?;
                        // An empty file, as a full disk leaves one, would be taken for the user's own.
                        file.write_all(text.bytes()).inspect_err(|_| drop(fs::remove_file(path)))
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    Err(error) => Err(error),
                }
            }
        };
        written.with_context(|| format!("could not write `{}`", path.display()))?;
    }
    Ok(())
}

/// Makes a directory that is its owner's from the first moment at which another session can see it.
fn make_directory(path: &Path, owner: Option<Owner>) -> anyhow::Result<()> {
    let (Some(_), Some(parent), Some(name)) = (owner, path.parent(), path.file_name()) else {
        return private_dir(path);
    };
    private_dir(parent)?;
    let next = parent.join(format!(".{}.next-{}", name.display(), std::process::id()));
    private_dir(&next)?;
    chown(&next, owner)?;
    match renameat_with(CWD, &next, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Another session was first.
        Err(_) if path.is_dir() => {
            fs::remove_dir(&next).with_context(|| format!("could not remove `{}`", next.display()))
        }
        Err(error) => Err(error).with_context(|| format!("could not create `{}`", path.display())),
    }
}

fn chown(path: &Path, owner: Option<Owner>) -> anyhow::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))
        .with_context(|| format!("could not give `{}` to user {}", path.display(), owner.uid))
}
