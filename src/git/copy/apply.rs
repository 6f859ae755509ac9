//! Brings the difference between two commits into the work tree, where the files are still what was copied. Nothing is
//! touched unless all of it fits; no program of git's or the repository's takes part in writing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::fs::Mode;

use super::tar::Way;
use crate::{
    agent_dir::fd::{Dir, Kind, Made, PROGRAM, TEXT},
    git::{command::Git, repository::Repository},
    host::Owner,
    report::{Hinted, one_line},
};

/// How many bytes are in memory at once, unless a single file is larger.
const AT_ONCE: u64 = 64 << 20;

/// The largest file.
const LARGEST: u64 = 1 << 30;

/// How many names an error lists.
const NAMED: usize = 10;

const GITLINK: &str = "160000";
const LINK: &str = "120000";

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) files: usize,
    /// Submodules, of which a commit would have to be checked out.
    pub(crate) submodules: Vec<PathBuf>,
}

/// The work tree, and whose new files are, where they are not ours.
pub(crate) struct Apply<'a> {
    pub(crate) git: &'a Git,
    pub(crate) repository: &'a Repository,
    pub(crate) owner: Option<Owner>,
}

/// One file that differs.
#[derive(Debug, Clone)]
struct Change {
    path: PathBuf,
    old: Option<Side>,
    new: Option<Side>,
}

/// A file in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Side {
    mode: String,
    oid: String,
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
struct Stamp {
    numbers: [u64; 2],
    times: [i64; 4],
    mode: u32,
}

/// How a file takes its change.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fit {
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
    changes: Vec<Change>,
    fits: BTreeMap<PathBuf, Fit>,
    submodules: Vec<PathBuf>,
}

impl Compared {
    fn fit(&self, change: &Change) -> Fit {
        self.fits.get(&change.path).cloned().unwrap_or(Fit::No)
    }

    /// Files that are neither what they were before the difference nor what they are after it.
    fn astray(&self) -> Vec<&Path> {
        let is_astray = |change: &&Change| self.fit(change) == Fit::No;
        self.changes.iter().filter(is_astray).map(|change| change.path.as_path()).collect()
    }
}

impl Apply<'_> {
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
            astray.iter().take(NAMED).map(|path| format!("`{}`", shown(path))).collect();
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
                bail!("`{}` is no name that a file of a repository can have", shown(&change.path));
            } else {
                changes.push(change);
            }
        }
        let fits = self.look(&changes)?;
        Ok(Compared { changes, fits, submodules })
    }

    /// Applies what was compared.
    ///
    /// # Errors
    /// A file has just been changed, or cannot be written.
    pub(crate) fn apply(&self, compared: &Compared) -> anyhow::Result<Applied> {
        let fit = |change: &Change| compared.fit(change);
        let mut applied = Applied { files: 0, submodules: compared.submodules.clone() };
        let (gone, written): (Vec<Change>, Vec<Change>) = compared
            .changes
            .iter()
            .filter(|change| fit(change) != Fit::Already)
            .cloned()
            .partition(|change| change.new.is_none());
        let root = Dir::open(&self.repository.work_tree)
            .with_context(|| format!("could not open `{}`", self.repository.work_tree.display()))?;
        for change in &gone {
            Self::remove(&root, change, &fit(change)).with_context(|| failed(&change.path, &applied))?;
            applied.files += 1;
        }
        for some in self.in_parts(&written, |change| change.new.as_ref())? {
            let contents = self.contents(some.iter().filter_map(|change| change.new.as_ref()))?;
            for change in some {
                let (Some(new), fit) = (&change.new, fit(change)) else { continue };
                let bytes = contents.get(&new.oid).context("git left out a file")?;
                self.write(&root, change, new, &fit, bytes)
                    .with_context(|| failed(&change.path, &applied))?;
                applied.files += 1;
            }
        }
        Ok(applied)
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
                let doing = || format!("could not read `{}`", shown(&change.path));
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
    fn in_parts<'c>(
        &self,
        changes: &'c [Change],
        side: impl Fn(&Change) -> Option<&Side>,
    ) -> anyhow::Result<Vec<Vec<&'c Change>>> {
        let asked: String = changes
            .iter()
            .flat_map(|change| [side(change), change.new.as_ref()])
            .flatten()
            .fold(String::new(), |text, side| text + &side.oid + "\n");
        let said = self
            .git
            .within(self.repository)
            .args(["cat-file", "--batch-check"])
            .stdin(asked.into_bytes())
            .text()?;
        let sizes: BTreeMap<&str, u64> = said
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.next()?, words.nth(1)?.parse().ok()?))
            })
            .collect();
        let mut parts: Vec<Vec<&Change>> = vec![vec![]];
        let mut filled = 0;
        for change in changes {
            let both = [side(change), change.new.as_ref()];
            let bytes =
                both.into_iter().flatten().filter_map(|side| sizes.get(side.oid.as_str())).sum::<u64>();
            if bytes > LARGEST {
                bail!("`{}` is larger than 1 GiB; use `git merge` instead", shown(&change.path));
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
    fn contents<'s>(
        &self,
        sides: impl Iterator<Item = &'s Side>,
    ) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
        let oids: BTreeSet<&str> = sides.map(|side| side.oid.as_str()).collect();
        let asked = oids.iter().fold(String::new(), |text, oid| text + oid + "\n").into_bytes();
        if asked.is_empty() {
            return Ok(BTreeMap::new());
        }
        let said = self
            .git
            .within(self.repository)
            .args(["cat-file", "--batch"])
            .stdin(asked)
            .output(2 * LARGEST + (64 << 20))
            .run()?;
        parse_batch(&said).context("git left out a file")
    }

    fn remove(root: &Dir, change: &Change, fit: &Fit) -> anyhow::Result<()> {
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

    fn write(&self, root: &Dir, change: &Change, new: &Side, fit: &Fit, bytes: &[u8]) -> anyhow::Result<()> {
        let give = |mode| Made { mode, owner: self.owner };
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
        0 => format!("could not apply the change of `{}`; nothing was applied", shown(path)),
        n => format!(
            "could not apply the change of `{}`; {n} other files have theirs, and the same command goes on",
            shown(path)
        ),
    }
}

fn shown(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

/// Whether every part of a path is the name of a file, and none is git's own.
fn is_plain(path: &Path) -> bool {
    let is_name = |part: Component<'_>| match part {
        Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
        _ => false,
    };
    !path.as_os_str().is_empty() && path.components().all(is_name)
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

fn found(dir: &Dir, name: &OsStr) -> io::Result<Found> {
    use std::io::Read as _;
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

fn stamp_of(meta: &std::fs::Metadata) -> Stamp {
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

fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| if *byte == b'\n' { b"\r\n".to_vec() } else { vec![*byte] }).collect()
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

/// `OID blob SIZE`, newline, contents, newline.
pub(super) fn parse_batch(said: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut rest = said;
    let mut all = BTreeMap::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let words: Vec<&str> = std::str::from_utf8(&rest[..end]).ok()?.split(' ').collect();
        let [oid, "blob", size] = words.as_slice() else { return None };
        let size: usize = size.parse().ok()?;
        let bytes = rest.get(end + 1..end + 1 + size)?;
        all.insert((*oid).to_owned(), bytes.to_vec());
        rest = rest.get(end + 2 + size..)?;
    }
    Some(all)
}
