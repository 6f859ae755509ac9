//! The difference between two commits, and what of it the work tree still has as it was copied.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io::{self, Read as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{
    objects::{contents, sizes},
    tar::Way,
};
use crate::{
    agent_dir::fd::{Dir, Kind},
    git::{command::Git, repository::Repository},
    report::{Hinted, shown_path},
};

/// How many bytes are in memory at once, unless a single file is larger.
const AT_ONCE: u64 = 64 << 20;

/// The largest file.
const LARGEST: u64 = 1 << 30;

/// How many names an error lists.
const NAMED: usize = 10;

const GITLINK: &str = "160000";
pub(super) const LINK: &str = "120000";

/// A repository, and its work tree, into which changes are to come.
pub(crate) struct Target<'a> {
    pub(crate) git: &'a Git,
    pub(crate) repository: &'a Repository,
}

/// One file that differs.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) path: PathBuf,
    pub(super) old: Option<Side>,
    pub(super) new: Option<Side>,
}

/// A file in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) mode: String,
    pub(super) oid: String,
}

/// What is in the work tree.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    File { bytes: Vec<u8>, stamp: Stamp },
    Link(OsString),
    Other,
}

/// What differs after any change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) numbers: [u64; 2],
    pub(super) times: [i64; 4],
    pub(super) mode: u32,
}

/// How a file takes its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fit {
    Already,
    /// It is what was copied; as text with line ends of another system, where that is so.
    Same {
        stamp: Option<Stamp>,
        crlf: bool,
    },
    No,
}

/// A difference that was compared with the work tree.
pub(crate) struct Compared {
    pub(super) changes: Vec<Change>,
    fits: BTreeMap<PathBuf, Fit>,
    pub(super) submodules: Vec<PathBuf>,
}

impl Compared {
    pub(super) fn fit(&self, change: &Change) -> Fit {
        self.fits.get(&change.path).cloned().unwrap_or(Fit::No)
    }

    /// Files that are neither what they were before the difference nor what they are after it.
    fn astray(&self) -> Vec<&Path> {
        let is_astray = |change: &&Change| self.fit(change) == Fit::No;
        self.changes.iter().filter(is_astray).map(|change| change.path.as_path()).collect()
    }
}

impl Target<'_> {
    /// Compares the work tree with what `tip` has made of one of these commits, the first that fits.
    ///
    /// # Errors
    /// A file is not as it is in any of them, or cannot be read.
    pub(crate) fn compare(&self, bases: &[&str], tip: &str) -> anyhow::Result<Compared> {
        let mut first = None;
        for base in bases {
            let compared = self.compare_one(base, tip)?;
            if compared.astray().is_empty() {
                return Ok(compared);
            }
            first = first.or(Some(compared));
        }
        let first = first.context("there is nothing to compare with")?;
        let astray = first.astray();
        let mut names: Vec<String> =
            astray.iter().take(NAMED).map(|path| format!("`{}`", shown_path(path))).collect();
        if astray.len() > NAMED {
            names.push(format!("{} more", astray.len() - NAMED));
        }
        Err(Hinted::error(
            format!("nothing was applied: you have changed {} since it was copied", names.join(", ")),
            "commit your own changes and use `git merge`, or undo them",
        ))
    }

    fn compare_one(&self, base: &str, tip: &str) -> anyhow::Result<Compared> {
        let (mut changes, mut submodules) = (vec![], vec![]);
        for change in self.changes(base, tip)? {
            let is_gitlink = |side: &Option<Side>| side.as_ref().is_some_and(|side| side.mode == GITLINK);
            if is_gitlink(&change.old) || is_gitlink(&change.new) {
                submodules.push(change.path);
            } else if !is_plain(&change.path) {
                bail!("`{}` is no name that a file of a repository can have", shown_path(&change.path));
            } else {
                changes.push(change);
            }
        }
        let fits = self.look(&changes)?;
        Ok(Compared { changes, fits, submodules })
    }

    fn changes(&self, base: &str, tip: &str) -> anyhow::Result<Vec<Change>> {
        let list = self
            .git
            .within(self.repository)
            .args(["diff-tree", "-r", "-z", "--no-renames", "--raw", base, tip])
            .run()?;
        parse(&list).context("git's list of what differs cannot be understood")
    }

    /// Compares the work tree with what was copied and what is to come.
    fn look(&self, changes: &[Change]) -> anyhow::Result<BTreeMap<PathBuf, Fit>> {
        let gone: BTreeSet<&Path> = changes
            .iter()
            .filter(|change| change.new.is_none())
            .map(|change| change.path.as_path())
            .collect();
        let mut fits = BTreeMap::new();
        let mut way = Way::at(&self.repository.work_tree)?;
        for some in self.in_parts(changes, |change| change.old.as_ref())? {
            let sides = some.iter().flat_map(|change| [change.old.as_ref(), change.new.as_ref()]).flatten();
            let contents = self.contents(sides)?;
            for change in some {
                let doing = || format!("could not read `{}`", shown_path(&change.path));
                let found = match way.to(&change.path).with_context(doing)? {
                    Some((dir, name)) => found(dir, name).with_context(doing)?,
                    None if self.is_blocked(&change.path, &gone)? => Found::Other,
                    None => Found::Nothing,
                };
                fits.insert(change.path.clone(), fit(change, found, &contents));
            }
        }
        Ok(fits)
    }

    /// Whether something that stays is in the place of a directory above `path`.
    fn is_blocked(&self, path: &Path, gone: &BTreeSet<&Path>) -> anyhow::Result<bool> {
        let mut way = Way::at(&self.repository.work_tree)?;
        let mut above: Vec<&Path> =
            path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).collect();
        above.reverse();
        for dir in above {
            let Some((parent, name)) = way.to(dir)? else { return Ok(false) };
            match parent.kind(name)? {
                None => return Ok(false),
                Some(Kind::Directory) => {}
                Some(_) => return Ok(!gone.contains(dir)),
            }
        }
        Ok(false)
    }

    /// Cuts a list so that the contents of a part fit into the memory.
    pub(super) fn in_parts<'c>(
        &self,
        changes: &'c [Change],
        side: impl Fn(&'c Change) -> Option<&'c Side>,
    ) -> anyhow::Result<Vec<Vec<&'c Change>>> {
        let both = |change: &'c Change| [side(change), change.new.as_ref()].into_iter().flatten();
        let asked = changes.iter().flat_map(both).map(|side| side.oid.as_str());
        let sizes = sizes(self.git, self.repository, asked)?;
        let mut parts: Vec<Vec<&Change>> = vec![vec![]];
        let mut filled = 0;
        for change in changes {
            let bytes = both(change).filter_map(|side| sizes.get(&side.oid)).sum::<u64>();
            if bytes > LARGEST {
                bail!("`{}` is larger than 1 GiB; use `git merge` instead", shown_path(&change.path));
            }
            if filled + bytes > AT_ONCE {
                parts.push(vec![]);
                filled = 0;
            }
            filled += bytes;
            parts.last_mut().expect("there is one").push(change);
        }
        Ok(parts)
    }

    /// The contents of files in commits, by their names.
    pub(super) fn contents<'s>(
        &self,
        sides: impl Iterator<Item = &'s Side>,
    ) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
        let oids: BTreeSet<&str> = sides.map(|side| side.oid.as_str()).collect();
        contents(self.git, self.repository, oids)
    }
}

/// Whether every part of a path is the name of a file, and none is git's own.
fn is_plain(path: &Path) -> bool {
    let is_name = |part: Component<'_>| match part {
        Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
        _ => false,
    };
    !path.as_os_str().is_empty() && path.components().all(is_name)
}

fn found(dir: &Dir, name: &OsStr) -> io::Result<Found> {
    Ok(match dir.kind(name)? {
        None => Found::Nothing,
        Some(Kind::Link) => Found::Link(dir.link(name)?),
        Some(Kind::File) => {
            let file = dir.file(name)?;
            let meta = file.metadata()?;
            if meta.len() > LARGEST {
                return Ok(Found::Other);
            }
            let mut bytes = Vec::new();
            file.take(LARGEST).read_to_end(&mut bytes)?;
            Found::File { bytes, stamp: stamp_of(&meta) }
        }
        Some(Kind::Directory | Kind::Other) => Found::Other,
    })
}

pub(super) fn stamp_of(meta: &std::fs::Metadata) -> Stamp {
    Stamp {
        numbers: [meta.ino(), meta.size()],
        times: [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()],
        mode: meta.mode(),
    }
}

fn fit(change: &Change, found: Found, contents: &BTreeMap<String, Vec<u8>>) -> Fit {
    let bytes_of = |side: &Side| contents.get(&side.oid).map(Vec::as_slice);
    let is = |side: Option<&Side>| match (side, &found) {
        (None, Found::Nothing) => true,
        (Some(side), Found::Link(target)) => side.mode == LINK && bytes_of(side) == Some(target.as_bytes()),
        (Some(side), Found::File { bytes, .. }) => side.mode != LINK && bytes_of(side) == Some(bytes),
        _ => false,
    };
    let is_program = |side: &Side| side.mode == "100755";
    let is_new = is(change.new.as_ref());
    let has_mode = match (&change.new, &found) {
        (Some(new), Found::File { stamp, .. }) => is_program(new) == (stamp.mode & 0o100 != 0),
        _ => true,
    };
    if is_new && has_mode {
        return Fit::Already;
    }
    let is_old = is(change.old.as_ref());
    match found {
        Found::File { stamp, .. } if is_old || is_new => Fit::Same { stamp: Some(stamp), crlf: false },
        Found::File { bytes, stamp } => match &change.old {
            Some(old) if old.mode != LINK && bytes_of(old) == Some(&without_crlf(&bytes)) => {
                Fit::Same { stamp: Some(stamp), crlf: true }
            }
            _ => Fit::No,
        },
        _ if is_old => Fit::Same { stamp: None, crlf: false },
        _ => Fit::No,
    }
}

fn without_crlf(bytes: &[u8]) -> Vec<u8> {
    let is_kept = |at: usize| bytes[at] != b'\r' || bytes.get(at + 1) != Some(&b'\n');
    (0..bytes.len()).filter(|at| is_kept(*at)).map(|at| bytes[at]).collect()
}

/// `:MODE MODE OID OID STATUS`, NUL, path, NUL.
fn parse(list: &[u8]) -> Option<Vec<Change>> {
    let mut parts = list.split(|byte| *byte == 0);
    let mut changes = Vec::new();
    while let Some(head) = parts.next().filter(|head| !head.is_empty()) {
        let head = std::str::from_utf8(head).ok()?.strip_prefix(':')?;
        let words: Vec<&str> = head.split(' ').collect();
        let [old_mode, new_mode, old, new, _] = words.as_slice() else { return None };
        let side = |mode: &str, oid: &str| {
            (mode != "000000").then(|| Side { mode: mode.to_owned(), oid: oid.to_owned() })
        };
        let path = PathBuf::from(OsString::from_vec(parts.next()?.to_vec()));
        changes.push(Change { path, old: side(old_mode, old), new: side(new_mode, new) });
    }
    Some(changes)
}
