//! A repository of the user's, as its own git sees it: where it lies, where its references stand, what is half-done in it.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{
    command::{Call, Failure, Git},
    names::is_oid,
};
use crate::files::read_small;

/// Where the parts of a repository lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repository {
    pub(crate) work_tree: PathBuf,
    /// Holds HEAD and the index of this work tree.
    pub(crate) git_dir: PathBuf,
    /// Holds objects, references and the config; the same but for a linked worktree.
    pub(crate) common: PathBuf,
}

impl Repository {
    /// The repository at `root`, whose git directory has been proven to be `common`.
    ///
    /// # Errors
    /// `.git` does not lead there.
    pub(crate) fn at(root: &Path, common: &Path) -> anyhow::Result<Self> {
        let dot_git = root.join(".git");
        let of = |git_dir: PathBuf| Self { work_tree: root.to_owned(), git_dir, common: common.to_owned() };
        if fs::symlink_metadata(&dot_git).is_ok_and(|meta| meta.is_dir()) {
            return Ok(of(dot_git));
        }
        let text = read_small(&dot_git)?.unwrap_or_default();
        let named = text.trim_end().strip_prefix("gitdir:").map(str::trim).unwrap_or_default();
        let git_dir = fs::canonicalize(root.join(named))
            .with_context(|| format!("could not follow `{}`", dot_git.display()))?;
        let is_ours = git_dir == common || git_dir.parent() == Some(&*common.join("worktrees"));
        anyhow::ensure!(is_ours, "`{}` does not lead to `{}`", dot_git.display(), common.display());
        Ok(of(git_dir))
    }

    /// The repository's store of objects.
    pub(crate) fn objects(&self) -> PathBuf {
        self.common.join("objects")
    }

    /// Whether this is one of several work trees of a repository.
    pub(crate) fn is_linked(&self) -> bool {
        self.git_dir != self.common
    }

    /// Whether a commit holds an older one.
    pub(super) fn is_ancestor(&self, git: &Git, old: &str, new: &str) -> bool {
        git.within(self).args(["merge-base", "--is-ancestor", old, new]).answers().unwrap_or(false)
    }

    /// What the user has begun and not ended yet.
    pub(crate) fn half_done(&self) -> Option<&'static str> {
        half_done(&self.git_dir)
    }
}

/// What is begun and not ended in a git directory.
pub(super) fn half_done(git_dir: &Path) -> Option<&'static str> {
    const SIGNS: [(&str, &str); 6] = [
        ("rebase-merge", "a rebase"),
        ("rebase-apply", "a rebase"),
        ("MERGE_HEAD", "a merge"),
        ("CHERRY_PICK_HEAD", "a cherry-pick"),
        ("REVERT_HEAD", "a revert"),
        ("BISECT_LOG", "a bisection"),
    ];
    let is_there = |name: &str| fs::symlink_metadata(git_dir.join(name)).is_ok();
    SIGNS.iter().find(|(name, _)| is_there(name)).map(|(_, what)| *what)
}

/// What HEAD says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Head {
    /// The branch in use, which may not have a commit yet.
    Branch(String),
    Detached(String),
}

/// As the file `HEAD` has it.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch(name) => writeln!(f, "ref: {name}"),
            Self::Detached(oid) => writeln!(f, "{oid}"),
        }
    }
}

/// A reference on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ref {
    pub(super) oid: String,
    /// The work tree in which this is the branch in use.
    pub(super) worktree: Option<PathBuf>,
}

/// Where the references of a repository stand.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) head: Head,
    pub(super) refs: BTreeMap<String, Ref>,
    /// Names that stand for others, such as `refs/remotes/origin/HEAD`.
    pub(super) symbolic: BTreeMap<String, String>,
}

impl Standing {
    /// Asks git.
    pub(super) fn of(git: &Git, repository: &Repository) -> Result<Self, Failure> {
        let head = head(|| git.within(repository))?;
        let format = "--format=%(objectname) %(symref)%00%(refname)%00%(worktreepath)%00";
        let text = git.within(repository).args(["for-each-ref", format]).run()?;
        let mut refs = BTreeMap::new();
        let mut symbolic = BTreeMap::new();
        for line in String::from_utf8_lossy(&text).split_terminator("\0\n") {
            let mut parts = line.split('\0');
            let (Some(oid), Some(name), Some(worktree)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let Some(oid) = oid.strip_suffix(' ') else {
                let target = oid.split_once(' ').map(|(_, target)| target.to_owned());
                symbolic.extend(target.map(|target| (name.to_owned(), target)));
                continue;
            };
            let worktree = (!worktree.is_empty()).then(|| PathBuf::from(worktree));
            refs.insert(name.to_owned(), Ref { oid: oid.to_owned(), worktree });
        }
        Ok(Self { head, refs, symbolic })
    }

    /// HEAD has gone from one branch or commit to another.
    pub(super) fn leave(&mut self, to: &Head) {
        let mut worktree = None;
        if let Head::Branch(name) = &self.head {
            worktree = self.refs.get_mut(name).and_then(|found| found.worktree.take());
        }
        if let Head::Branch(name) = to
            && let Some(found) = self.refs.get_mut(name)
        {
            found.worktree = worktree;
        }
        self.head = to.clone();
    }

    /// The commit that is checked out, unless there is none yet.
    pub(super) fn commit(&self) -> Option<&str> {
        match &self.head {
            Head::Branch(name) => self.refs.get(name).map(|found| &*found.oid),
            Head::Detached(oid) => Some(oid),
        }
    }
}

/// What HEAD says now.
pub(super) fn head(call: impl Fn() -> Call) -> Result<Head, Failure> {
    match call().args(["symbolic-ref", "-q", "HEAD"]).text() {
        Ok(branch) => Ok(Head::Branch(branch)),
        Err(Failure::Refused { code: Some(1), .. }) => {
            let oid = call().args(["rev-parse", "--verify", "-q", "HEAD"]).text()?;
            if is_oid(&oid) {
                Ok(Head::Detached(oid))
            } else {
                Err(Failure::Refused { code: None, stderr: "HEAD names no commit".to_owned() })
            }
        }
        Err(failure) => Err(failure),
    }
}

/// Branches that an unfinished command of the user's will move when it ends, in any work tree of the repository.
pub(super) fn in_progress(repository: &Repository) -> Vec<String> {
    let mut dirs = vec![repository.common.clone()];
    let linked = fs::read_dir(repository.common.join("worktrees")).into_iter().flatten().flatten();
    dirs.extend(linked.take(1000).map(|entry| entry.path()));
    let names = dirs.iter().flat_map(|dir| {
        ["rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"].map(|file| dir.join(file))
    });
    let read = |path: PathBuf| read_small(&path).ok().flatten();
    names
        .filter_map(read)
        .map(|text| {
            let name = text.trim();
            if name.starts_with("refs/") { name.to_owned() } else { format!("refs/heads/{name}") }
        })
        .collect()
}
