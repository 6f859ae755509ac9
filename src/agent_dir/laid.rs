//! A layout on the disk: files of the session's own in its state directory, what is kept in the live one, and the note
//! by which all of it is found again.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::{
    entry::{LOGINS, MODELS, OTHER_LOGINS, SETTINGS, TRANSCRIPTS, TRUST},
    fd::{Dir, Kind, Made, PRIVATE_DIR, PRIVATE_FILE},
    layout::{Copy, Kept, Layout},
    settings::Scope,
};
use crate::{files::Identity, host::Owner, inside::Access, report::Hinted, secret::Value};

/// In the session's directory.
pub(crate) const DIRECTORY: &str = "agent";
const NOTE: &str = "layout.json";
/// What the copies were at first.
const BEFORE: &str = "before";
/// Into which the supervisor writes the names that are in the agent's directory at the end, each with NUL behind it.
pub(crate) const LEFT: &str = "left";
/// Into which `xdg-open` writes addresses, a line each.
pub(crate) const OPEN: &str = ".pi-open";
/// Certificates of the user's, for an agent that asks providers itself.
pub(crate) const AUTHORITIES: &str = ".pi-authorities.pem";
/// Its name inside.
const LEFT_INSIDE: &str = ".pi-left";

/// The directories inside that are in memory, below the agent's: they must be the agent's own, for its locks and for
/// transcripts of other directories.
pub(crate) const IN_MEMORY: [&str; 2] = ["", TRANSCRIPTS];

/// The copies of which something can come back, or is told.
pub(crate) const RETURNING: [&str; 3] = [SETTINGS, TRUST, LOGINS];

/// Where a layout goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The session's own directory, which is the launcher's alone.
    pub(crate) session: &'a Path,
    /// The live directory, without links.
    pub(crate) live: &'a Path,
    pub(crate) root: &'a Path,
    /// Who the agent is, where it is not who we are.
    pub(crate) owner: Option<Owner>,
}

/// One thing to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Laid {
    pub(crate) source: PathBuf,
    /// Below the agent's directory inside, or an absolute path.
    pub(crate) target: PathBuf,
    pub(crate) access: Access,
    /// Of the descriptor that made or opened it.
    pub(crate) identity: Identity,
}

/// What would be mounted, where nothing is laid out yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) access: Access,
    pub(crate) made: Making,
}

/// How that comes to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Making {
    There(Identity),
    Directory,
    /// A file, with what this one has where it exists.
    File(Option<PathBuf>),
    /// A file with this in it.
    Text(Value),
}

/// The same as [`lay`] without doing it, for whoever shows or remembers it.
pub(crate) fn planned(layout: &Layout, session: &Path, live: &Path) -> Vec<Planned> {
    let at = session.join(DIRECTORY);
    let write = Access::ReadWrite;
    let copy = |Copy { name, access, text }: &Copy| Planned {
        source: at.join(name),
        target: name.into(),
        access: *access,
        made: if [LOGINS, MODELS].contains(name) {
            Making::Text(text.clone())
        } else {
            Making::File(Some(live.join(name)))
        },
    };
    let read = layout.read.iter().map(|read| Planned {
        source: live.join(&read.name),
        target: read.name.clone().into(),
        access: Access::ReadOnly,
        made: Making::There(read.identity),
    });
    let kept = layout.kept.iter().map(|kept| {
        let is_file = match kept {
            Kept::Transcripts(_) => false,
            Kept::OtherLogins => true,
            Kept::Entry(persist) => !persist.is_directory_by_name(),
        };
        let made = if is_file { Making::File(None) } else { Making::Directory };
        Planned { source: live.join(kept.path()), target: kept.path(), access: write, made }
    });
    let left = Planned {
        source: at.join(LEFT),
        target: LEFT_INSIDE.into(),
        access: write,
        made: Making::File(None),
    };
    let staged = layout.staged.iter().map(|package| Planned {
        source: session.join("staged").join(package),
        target: package.into(),
        access: write,
        made: Making::Directory,
    });
    layout.copies.iter().map(copy).chain([left]).chain(read).chain(kept).chain(staged).collect()
}

/// What has to be known to take a session's changes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    live: OsString,
    root: OsString,
    set_up: bool,
    login: bool,
    transcripts: Option<OsString>,
    /// What sessions had of the names that nobody knows.
    known: Vec<String>,
}

impl Note {
    pub(crate) fn live(&self) -> &Path {
        Path::new(&self.live)
    }

    pub(crate) fn root(&self) -> &Path {
        Path::new(&self.root)
    }

    pub(crate) fn scope(&self) -> Scope {
        match (self.set_up, self.login) {
            (true, _) => Scope::SetUp,
            (_, true) => Scope::Login,
            _ => Scope::Session,
        }
    }

    pub(crate) fn transcripts(&self) -> Option<&OsStr> {
        self.transcripts.as_deref()
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        self.known.iter().any(|known| known == name)
    }
}

/// Makes the files and directories of a layout. It may be done again for the same session.
///
/// # Errors
/// Something could not be made, or is a link.
pub(crate) fn lay(layout: &Layout, place: Place<'_>) -> anyhow::Result<Vec<Laid>> {
    let Place { session, live, owner, .. } = place;
    let at = session.join(DIRECTORY);
    let session_dir = open(session)?;
    let own =
        session_dir.ensure_dir(DIRECTORY.as_ref(), Made::ours(PRIVATE_DIR)).with_context(|| could(&at))?;
    write_note(layout, place, &own).with_context(|| could(&at.join(NOTE)))?;
    let mut laid = copies(layout, &own, &at, owner)?;
    laid.extend(layout.read.iter().map(|read| Laid {
        source: live.join(&read.name),
        target: read.name.clone().into(),
        access: Access::ReadOnly,
        identity: read.identity,
    }));
    if !layout.kept.is_empty() {
        let dir = Dir::ensure(live, Made { mode: PRIVATE_DIR, owner }).with_context(|| could(live))?;
        for kept in &layout.kept {
            let target = kept.path();
            let source = live.join(&target);
            let identity = keep(kept, &dir, &source, owner)?;
            laid.push(Laid { source, target, access: Access::ReadWrite, identity });
        }
    }
    Ok(laid)
}

fn write_note(layout: &Layout, place: Place<'_>, own: &Dir) -> anyhow::Result<()> {
    let transcripts = layout.kept.iter().find_map(|kept| match kept {
        Kept::Transcripts(name) => Some(name.clone()),
        Kept::OtherLogins | Kept::Entry(_) => None,
    });
    let names = layout.kept.iter().filter_map(|kept| match kept {
        Kept::Entry(persist) => Some(persist.name().to_owned()),
        Kept::Transcripts(_) | Kept::OtherLogins => None,
    });
    let note = Note {
        live: place.live.into(),
        root: place.root.into(),
        set_up: layout.scope == Scope::SetUp,
        login: layout.scope == Scope::Login,
        transcripts,
        known: names.chain(layout.read.iter().map(|read| read.name.clone())).collect(),
    };
    Ok(own.write(NOTE.as_ref(), &serde_json::to_vec(&note)?, Made::ours(PRIVATE_FILE))?)
}

fn copies(layout: &Layout, own: &Dir, at: &Path, owner: Option<Owner>) -> anyhow::Result<Vec<Laid>> {
    let before = own.ensure_dir(BEFORE.as_ref(), Made::ours(PRIVATE_DIR)).with_context(|| could(at))?;
    let mut laid = Vec::new();
    for copy in &layout.copies {
        let source = at.join(copy.name);
        if RETURNING.contains(&copy.name) {
            let kept = before.write(copy.name.as_ref(), copy.text.bytes(), Made::ours(PRIVATE_FILE));
            kept.with_context(|| could(&source))?;
        }
        let identity = new_file(own, copy.name, copy.text.bytes(), owner).with_context(|| could(&source))?;
        laid.push(Laid { source, target: copy.name.into(), access: copy.access, identity });
    }
    let source = at.join(LEFT);
    let identity = new_file(own, LEFT, b"", owner).with_context(|| could(&source))?;
    laid.push(Laid { source, target: LEFT_INSIDE.into(), access: Access::ReadWrite, identity });
    Ok(laid)
}

/// A file of the agent's. That it can be written changes nothing for one that is mounted read-only.
fn new_file(own: &Dir, name: &str, bytes: &[u8], owner: Option<Owner>) -> anyhow::Result<Identity> {
    own.write(name.as_ref(), bytes, Made { mode: PRIVATE_FILE, owner })?;
    Ok(Identity::from(&own.file(name.as_ref())?.metadata()?))
}

fn keep(kept: &Kept, live: &Dir, source: &Path, owner: Option<Owner>) -> anyhow::Result<Identity> {
    match kept {
        Kept::Transcripts(name) => {
            let made = Made { mode: PRIVATE_DIR, owner };
            let dir = live
                .ensure_dir(TRANSCRIPTS.as_ref(), made)
                .and_then(|all| all.ensure_dir(name, made))
                .with_context(|| could(source))?;
            tidy(&dir).with_context(|| could(source))?;
            Ok(dir.identity()?)
        }
        Kept::OtherLogins => entry(OTHER_LOGINS, Kind::File, live, owner).with_context(|| could(source)),
        Kept::Entry(persist) => {
            let kind = if persist.is_directory_by_name() { Kind::Directory } else { Kind::File };
            entry(persist.name(), kind, live, owner).with_context(|| could(source))
        }
    }
}

/// What is there, or a new one of this kind.
fn entry(name: &str, new: Kind, live: &Dir, owner: Option<Owner>) -> anyhow::Result<Identity> {
    let name: &OsStr = name.as_ref();
    let found = live.kind(name)?;
    if found.is_none() && new == Kind::File {
        // What reads it as JSON finds some.
        let is_json = Path::new(name).extension().is_some_and(|kind| kind == "json");
        let text = if is_json { "{}\n" } else { "" };
        match live.write_new(name, text.as_bytes(), Made { mode: PRIVATE_FILE, owner }) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    let kind = found.unwrap_or(new);
    match kind {
        Kind::Directory => Ok(live.ensure_dir(name, Made { mode: PRIVATE_DIR, owner })?.identity()?),
        Kind::File => live.identity_of(name)?.context("it was exchanged at this moment; try again"),
        Kind::Link | Kind::Other => Err(Hinted::error(
            "it is neither a file nor a directory, and what a link leads to would be writable for the agent",
            "put the real thing there, or remove it",
        )),
    }
}

/// How many transcripts are looked at.
const MANY: usize = 100_000;

/// Removes what is no transcript: the agent of the host opens what it finds there, and would follow a link or wait for
/// a pipe. Returns how many there were.
pub(crate) fn tidy(transcripts: &Dir) -> anyhow::Result<usize> {
    let mut removed = 0;
    for name in transcripts.names(MANY)? {
        if matches!(transcripts.kind(&name)?, Some(Kind::Link | Kind::Other)) {
            match transcripts.remove_file(&name) {
                // By somebody else who ends or begins.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => {
                    other?;
                    removed += 1;
                }
            }
        }
    }
    Ok(removed)
}

/// The laid out files of a session, for whoever takes them back; `None` where there are none, or were taken back.
pub(crate) fn find(session: &Path) -> anyhow::Result<Option<(Note, Own)>> {
    let path = session.join(DIRECTORY);
    let dir = match Dir::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("could not open `{}`", path.display()))?,
    };
    let Some(note) = dir.read(NOTE.as_ref(), 1 << 20)? else { return Ok(None) };
    let note = serde_json::from_slice(&note)
        .with_context(|| format!("could not read `{}`", path.join(NOTE).display()))?;
    let before = dir.dir(BEFORE.as_ref()).with_context(|| format!("could not open `{}`", path.display()))?;
    Ok(Some((note, Own { dir, before })))
}

/// The session's own files.
#[derive(Debug)]
pub(crate) struct Own {
    dir: Dir,
    before: Dir,
}

impl Own {
    /// A text as it was at first and as it is now.
    pub(crate) fn texts(&self, name: &str, most: u64) -> anyhow::Result<(String, String)> {
        let read = |dir: &Dir| -> anyhow::Result<String> {
            let bytes = dir.read(name.as_ref(), most)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok((read(&self.before)?, read(&self.dir)?))
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The names that the supervisor found at the end, or somebody else wrote there.
    pub(crate) fn left(&self) -> Vec<String> {
        const MOST: u64 = 64 << 10;
        let bytes = self.dir.read(LEFT.as_ref(), MOST).ok().flatten().unwrap_or_default();
        let names = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()
    }

    /// Notes that everything was taken back.
    pub(crate) fn done(&self) -> anyhow::Result<()> {
        self.dir
            .remove_file(NOTE.as_ref())
            .context("could not note that the session's settings were taken back")
    }
}

fn open(path: &Path) -> anyhow::Result<Dir> {
    if !path.is_absolute() {
        bail!("`{}` is not an absolute path", path.display());
    }
    Dir::open(path).with_context(|| format!("could not open `{}`", path.display()))
}

fn could(path: &Path) -> String {
    format!("could not create `{}`", path.display())
}
