//! Brings the difference between two commits into the work tree, where the files are still what was copied. Nothing is
//! touched unless all of it fits; no program of git's or the repository's takes part in writing.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::fs::Mode;

use super::compare::{Change, Compared, Fit, LINK, Side, Target, stamp_of};
use crate::{
    agent_dir::fd::{Dir, Kind, Made, PROGRAM, TEXT},
    host::Owner,
    report::shown_path,
};

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) files: usize,
    /// Submodules, of which a commit would have to be checked out.
    pub(crate) submodules: Vec<PathBuf>,
}

/// Applies what was compared. `owner` is whose new files are, where they are not ours.
///
/// # Errors
/// A file has just been changed, or cannot be written.
pub(crate) fn apply(to: &Target<'_>, compared: &Compared, owner: Option<Owner>) -> anyhow::Result<Applied> {
    let fit = |change: &Change| compared.fit(change);
    let mut applied = Applied { files: 0, submodules: compared.submodules.clone() };
    let (gone, written): (Vec<Change>, Vec<Change>) = compared
        .changes
        .iter()
        .filter(|change| fit(change) != Fit::Already)
        .cloned()
        .partition(|change| change.new.is_none());
    let work_tree = &to.repository.work_tree;
    let root = Dir::open(work_tree).with_context(|| format!("could not open `{}`", work_tree.display()))?;
    let files = Files { root, owner };
    for change in &gone {
        files.remove(change, &fit(change)).with_context(|| failed(&change.path, &applied))?;
        applied.files += 1;
    }
    for some in to.in_parts(&written, |change| change.new.as_ref())? {
        let contents = to.contents(some.iter().filter_map(|change| change.new.as_ref()))?;
        for change in some {
            let (Some(new), fit) = (&change.new, fit(change)) else { continue };
            let bytes = contents.get(&new.oid).context("git left out a file")?;
            files.write(change, new, &fit, bytes).with_context(|| failed(&change.path, &applied))?;
            applied.files += 1;
        }
    }
    Ok(applied)
}

/// The files of a work tree, and whose new ones are.
struct Files {
    root: Dir,
    owner: Option<Owner>,
}

impl Files {
    fn remove(&self, change: &Change, fit: &Fit) -> anyhow::Result<()> {
        let root = &self.root;
        let (dirs, name) = down(root, &change.path, None)?;
        let dir = dirs.last().map_or(root, |(_, dir)| dir);
        check(dir, &name, fit)?;
        dir.remove_file(&name)?;
        // A directory that has nothing left goes, too.
        for n in (0..dirs.len()).rev() {
            let above = if n == 0 { root } else { &dirs[n - 1].1 };
            if above.remove_dir(&dirs[n].0).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, change: &Change, new: &Side, fit: &Fit, bytes: &[u8]) -> anyhow::Result<()> {
        let give = |mode| Made { mode, owner: self.owner };
        let root = &self.root;
        let (dirs, name) = down(root, &change.path, Some(give(PROGRAM)))?;
        let dir = dirs.last().map_or(root, |(_, dir)| dir);
        check(dir, &name, fit)?;
        if new.mode == LINK {
            if dir.kind(&name)?.is_some() {
                dir.remove_file(&name)?;
            }
            return Ok(dir.new_link(&name, OsStr::from_bytes(bytes))?);
        }
        let is_program = new.mode == "100755";
        let mode = match fit {
            Fit::Same { stamp: Some(stamp), .. } => {
                let plain = stamp.mode & 0o666;
                Mode::from_raw_mode(if is_program { plain | plain >> 2 & 0o111 } else { plain })
            }
            _ if is_program => PROGRAM,
            _ => TEXT,
        };
        let converted =
            matches!(fit, Fit::Same { crlf: true, .. }) && !bytes.windows(2).any(|two| two == b"\r\n");
        let converted = converted.then(|| with_crlf(bytes));
        Ok(dir.write(&name, converted.as_deref().unwrap_or(bytes), give(mode))?)
    }
}

fn failed(path: &Path, applied: &Applied) -> String {
    match applied.files {
        0 => format!("could not apply the change of `{}`; nothing was applied", shown_path(path)),
        n => format!(
            "could not apply the change of `{}`; {n} other files have theirs, and the same command goes on",
            shown_path(path)
        ),
    }
}

/// Opens the directories on the way to a file, and makes them where that is wanted.
fn down(root: &Dir, path: &Path, made: Option<Made>) -> io::Result<(Vec<(OsString, Dir)>, OsString)> {
    let mut names: Vec<&OsStr> = path.iter().collect();
    let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    let mut dirs: Vec<(OsString, Dir)> = Vec::new();
    for part in names {
        let here = dirs.last().map_or(root, |(_, dir)| dir);
        let dir = match made {
            Some(made) => here.ensure_dir(part, made)?,
            None => here.dir(part)?,
        };
        dirs.push((part.to_owned(), dir));
    }
    Ok((dirs, name))
}

/// Looks once more, just before a file is replaced.
fn check(dir: &Dir, name: &OsStr, fit: &Fit) -> anyhow::Result<()> {
    let is_same = match (fit, dir.kind(name)?) {
        (Fit::Same { stamp: Some(stamp), .. }, Some(Kind::File)) => {
            stamp_of(&dir.file(name)?.metadata()?) == *stamp
        }
        (Fit::Same { stamp: None, .. }, kind) => matches!(kind, None | Some(Kind::Link)),
        _ => false,
    };
    if is_same { Ok(()) } else { bail!("it has just been changed") }
}

fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| if *byte == b'\n' { b"\r\n".to_vec() } else { vec![*byte] }).collect()
}
