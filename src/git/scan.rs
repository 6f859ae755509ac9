//! A look at a work tree: other git directories in it, sockets, and files that commonly run on the host. By names and
//! kinds, with few questions about single files, through descriptors that no link can lead astray.

mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use self::walk::Walk;

/// What was in a work tree at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Other git directories, by path, with what must not have changed of them.
    git: BTreeMap<String, String>,
    risky: BTreeMap<String, String>,
    /// Paths of other repositories' git directories and files, relative to the work tree.
    #[serde(skip)]
    pub(crate) nested: Vec<PathBuf>,
    #[serde(skip)]
    pub(crate) sockets: Vec<PathBuf>,
    /// Where the look ended early.
    #[serde(skip)]
    pub(crate) unseen: Vec<PathBuf>,
    /// The same, as it is kept.
    closed: BTreeSet<String>,
}

/// What an agent has left in a work tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) disarmed: Vec<Disarmed>,
    pub(crate) risky: Vec<Risky>,
    pub(crate) unseen: Vec<PathBuf>,
}

/// A new or changed file that commonly runs on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Risky {
    pub(crate) path: PathBuf,
    pub(crate) change: Change,
}

/// What has become of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    New,
    Changed,
}

/// Something that git on the host would take for a repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Disarmed {
    pub(crate) path: PathBuf,
    /// What it is called now, or why it could not be renamed.
    pub(crate) now: Result<PathBuf, String>,
}

/// Whose the git directory at the top is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Top {
    /// The repository's own, which no agent can write.
    Repository,
    /// There was none; one that is there is the agent's.
    Directory,
}

impl Seen {
    /// Looks at what is there before a session.
    pub(crate) fn look(root: &Path, top: Top) -> io::Result<Self> {
        let mut seen = Self::default();
        let mut walk = Walk::new(top, None);
        walk.run(root)?;
        seen.git.extend(walk.git.iter().map(|(path, mark)| (key(path), mark.clone())));
        seen.risky = walk.risky.into_iter().map(|(path, mark)| (key(&path), mark)).collect();
        let names = |path: &PathBuf| path.file_name() == Some(OsStr::new(".git"));
        seen.nested = walk.git.into_iter().map(|(path, _)| path).filter(names).collect();
        seen.sockets = walk.sockets;
        seen.closed = walk.unseen.iter().map(|path| key(path)).collect();
        seen.unseen = walk.unseen;
        Ok(seen)
    }

    /// What commonly runs on the host and is in the work tree now, but was not there, or was another.
    pub(crate) fn news(&self, root: &Path, top: Top) -> io::Result<Vec<Risky>> {
        let mut walk = Walk::new(top, None);
        walk.run(root)?;
        Ok(self.news_of(&walk.risky))
    }

    fn news_of(&self, now: &[(PathBuf, String)]) -> Vec<Risky> {
        let news = now.iter().filter_map(|(path, mark)| {
            let change = match self.risky.get(&key(path)) {
                None => Change::New,
                Some(known) if known != mark => Change::Changed,
                Some(_) => return None,
            };
            Some(Risky { path: path.clone(), change })
        });
        news.collect()
    }
}

/// Looks at what is there after a session, and takes out of action what git on the host would take for a repository and
/// was not there before, but for `links`, which lead to the repository itself.
pub(crate) fn disarm(root: &Path, top: Top, before: &Seen, links: &[PathBuf]) -> io::Result<Left> {
    let mut walk = Walk::new(top, Some(before));
    walk.links = links;
    walk.run(root)?;
    let risky = before.news_of(&walk.risky);
    // Where the user's own rights end, as in a database's files, they ended before.
    walk.unseen.retain(|path| !before.closed.contains(&key(path)));
    Ok(Left { disarmed: walk.disarmed, risky, unseen: walk.unseen })
}

/// A path as text, each as another one.
fn key(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

#[cfg(test)]
mod tests;
