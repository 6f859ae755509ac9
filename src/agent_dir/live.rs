//! What stands in the live directory, looked at by descriptor; nothing is changed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{
    entry::{KEYS, LOGINS, MODELS, SETTINGS, TRUST},
    fd::{Dir, Kind},
    notice::Notice,
};
use crate::files::Identity;

/// Nobody has more.
const MANY: usize = 1000;

/// The largest of the files that are copied.
pub(crate) const LARGEST: u64 = 1 << 20;

/// The live directory at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// Without links.
    pub(crate) path: PathBuf,
    pub(crate) entries: BTreeMap<String, Found>,
    /// Where links among them lead, for whoever is told about one.
    pub(crate) links: BTreeMap<String, PathBuf>,
    /// Of the files that are copied, those which could be read.
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) notices: Vec<Notice>,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    /// Where it could be opened.
    pub(crate) identity: Option<Identity>,
}

impl Live {
    /// Looks at a directory, of which the path has no links. One that does not exist has nothing in it.
    ///
    /// # Errors
    /// It cannot be read, or holds more than anybody's.
    pub(crate) fn look(path: &Path) -> anyhow::Result<Self> {
        let mut live = Self { path: path.to_owned(), ..Self::default() };
        let dir = match Dir::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(live),
            other => other.with_context(|| format!("could not open `{}`", path.display()))?,
        };
        let names = dir.names(MANY + 1).with_context(|| format!("could not read `{}`", path.display()))?;
        if names.len() > MANY {
            bail!("there are more than {MANY} entries in `{}`", path.display());
        }
        for name in names {
            let kind = dir.kind(&name).ok().flatten();
            // What is not UTF-8 the agent has no use for.
            if let (Some(kind), Some(name)) = (kind, name.to_str()) {
                let identity = match kind {
                    Kind::File | Kind::Directory => dir.identity_of(name.as_ref()).ok().flatten(),
                    Kind::Link | Kind::Other => None,
                };
                if let (Kind::Link, Ok(to)) = (kind, fs::canonicalize(path.join(name))) {
                    live.links.insert(name.to_owned(), to);
                }
                live.entries.insert(name.to_owned(), Found { kind, identity });
            }
        }
        for name in [SETTINGS, TRUST, MODELS, KEYS, LOGINS] {
            live.read(&dir, name);
        }
        Ok(live)
    }

    /// Reads one text. One that cannot be read is told, and the session does without.
    fn read(&mut self, dir: &Dir, name: &str) {
        // A link is told with the others.
        if self.entries.get(name).is_none_or(|found| found.kind == Kind::Link) {
            return;
        }
        match dir.read(name.as_ref(), LARGEST) {
            Ok(Some(bytes)) => {
                // As the agent decodes it.
                self.texts.insert(name.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
            }
            Ok(None) => {}
            Err(error) => self.notices.push(Notice::plain(format!(
                "could not read `{}`, so the session begins without it: {error}",
                self.path.join(name).display()
            ))),
        }
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.texts.get(name).map_or("", String::as_str)
    }
}
