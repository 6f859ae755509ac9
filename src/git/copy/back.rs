//! The way back: commits of a copy, fetched with every check of the launcher's and put under a branch that is the copy's
//! own. Nothing of the user's is moved.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{BASE, OTHERS, RESULT, paths};
use crate::{
    files::lock_within,
    git::{
        command::Git,
        give::give_all,
        names::{tame, zero},
        private::{Part, config},
        quarantine::Quarantine,
        repository::{Repository, Standing},
        scan::Change,
        state::lay_out_store_of,
        takeover::Inside,
    },
};

/// How long a repository's history may take on its way.
pub(super) const PATIENCE: Duration = Duration::from_secs(3600);

/// How long another process may hold the repository.
const OTHERS_PATIENCE: Duration = Duration::from_secs(30);

/// How many names are tried for a branch.
const NAMES: usize = 20;

/// The branches on the host, by what they are in the copy: the full name and the commit. `""` is the copy's result.
type Branches = BTreeMap<String, (String, String)>;

/// The host's repository, and the way to a copy of it.
pub(crate) struct Back<'a> {
    pub(crate) git: &'a Git,
    pub(crate) repository: &'a Repository,
    /// The copy's name.
    pub(crate) name: &'a str,
    /// A directory of the launcher's own, for what has not been checked yet.
    pub(crate) store: PathBuf,
    pub(crate) inside: &'a Inside,
    /// The copy's git directory, as it is called inside.
    pub(crate) path: &'a Path,
}

impl Back<'_> {
    fn quarantine(&self) -> anyhow::Result<Quarantine<'_>> {
        let standing = Standing::of(self.git, self.repository)?;
        let config = config(self.git, self.repository)?;
        let part = Part { repository: self.repository.clone(), config, alternates: vec![] };
        // Anew each time: objects that it was laid out for may be gone by now.
        if fs::symlink_metadata(&self.store).is_ok() {
            fs::remove_dir_all(&self.store)
                .with_context(|| format!("could not remove `{}`", self.store.display()))?;
        }
        lay_out_store_of(&part, &standing, &self.store)?;
        Ok(Quarantine {
            git: self.git,
            store: self.store.clone(),
            objects: self.repository.objects(),
            inside: self.inside,
            path: self.path,
        })
    }

    fn doing(&self) -> String {
        format!("could not bring in the work of the copy `{}`", self.name)
    }

    /// Fetches the commit that holds what was copied, before any agent could change it, and keeps it.
    ///
    /// # Errors
    /// It could not be fetched, or is another.
    pub(crate) fn base(&self, expected: &str) -> anyhow::Result<()> {
        let fetched = self.quarantine()?.fetch(&[BASE]).with_context(|| self.doing())?;
        if fetched.get(BASE).map(String::as_str) != Some(expected) {
            bail!("the copy `{}` does not hold what was copied", self.name);
        }
        self.git
            .within(self.repository)
            .args(["update-ref", &kept(self.name), expected])
            .run()
            .with_context(|| format!("could not note what is in the copy `{}`", self.name))?;
        give_all(self.repository).with_context(|| self.doing())
    }

    /// Fetches what the copy has made of itself, and moves the copy's branches. `brought` is what came before, and `base`
    /// what was copied.
    ///
    /// # Errors
    /// It cannot be reached, or git refuses what it has; nothing is lost by that.
    pub(crate) fn bring(&self, base: &str, brought: &mut Branches) -> anyhow::Result<()> {
        let quarantine = self.quarantine()?;
        let listed = quarantine.list().with_context(|| self.doing())?;
        let Some(result) = listed.refs.get(RESULT) else {
            bail!("{}: it names no commit", self.doing());
        };
        let is_other = |name: &&String| name.starts_with(OTHERS);
        let names: Vec<&str> =
            [RESULT].into_iter().chain(listed.refs.keys().filter(is_other).map(String::as_str)).collect();
        let is_known = |name: &&str| {
            let known = name.strip_prefix(OTHERS).unwrap_or_default();
            brought.get(known).is_some_and(|(_, oid)| Some(oid) == listed.refs.get(*name))
        };
        let names: Vec<&str> = names.into_iter().filter(|name| !is_known(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let fetched = quarantine.fetch(&names).with_context(|| self.doing())?;
        let lock = fs::File::open(&self.repository.common).with_context(|| self.doing())?;
        lock_within(&lock, OTHERS_PATIENCE, || Ok(())).with_context(|| self.doing())?;
        for (name, oid) in fetched {
            let own = name.strip_prefix(OTHERS).unwrap_or_default().to_owned();
            if own.is_empty() && oid == *result && self.is_unchanged(base, &oid)? && !brought.contains_key("")
            {
                continue;
            }
            let known = brought.get(&own).cloned();
            let placed = self.place(&own, &oid, known.as_ref())?;
            brought.insert(own, (placed, oid));
        }
        give_all(self.repository).with_context(|| self.doing())
    }

    /// Whether a result holds no commit of an agent's, and the files are those that were copied.
    fn is_unchanged(&self, base: &str, oid: &str) -> anyhow::Result<bool> {
        let tree = |commit: &str| {
            self.git.within(self.repository).args(["rev-parse", &format!("{commit}^{{tree}}")]).text()
        };
        if tree(base)? != tree(oid)? {
            return Ok(false);
        }
        let count =
            self.git.within(self.repository).args(["rev-list", "--count", oid, "--not", base]).text()?;
        // What was not committed when the copy was made is a commit of the launcher's on both sides.
        let is_wip = || self.git.within(self.repository).args(["log", "-1", "--format=%s", oid]).text();
        Ok(count == "0" || count == "1" && is_wip()? == "wip")
    }

    /// Gives a commit its branch: the one that it had, where nobody has moved it, or else a new one.
    fn place(&self, own: &str, oid: &str, known: Option<&(String, String)>) -> anyhow::Result<String> {
        let standing = Standing::of(self.git, self.repository)?;
        let plain =
            if own.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.name, tame(own)) };
        let numbered = (2..NAMES).map(|n| format!("refs/heads/pi/{plain}-{n}"));
        // Where a branch is called `pi`, no name can begin with it.
        let beside = (1..NAMES).map(|n| {
            format!("refs/heads/pi-{plain}{}", if n == 1 { String::new() } else { format!("-{n}") })
        });
        let names = known.map(|(name, _)| name.clone()).into_iter();
        let names = names.chain([format!("refs/heads/pi/{plain}")]).chain(numbered).chain(beside);
        let mut last = None;
        for name in names {
            let old = match standing.refs.get(&name) {
                None => zero(oid),
                Some(found) if found.oid == oid => return Ok(name),
                Some(found) if found.worktree.is_some() => continue,
                Some(found) if known.is_some_and(|(mine, last)| *mine == name && *last == found.oid) => {
                    found.oid.clone()
                }
                Some(found)
                    if self.repository.is_ancestor(self.git, &found.oid, oid)
                        && known.is_some_and(|(mine, _)| *mine == name) =>
                {
                    found.oid.clone()
                }
                Some(_) => continue,
            };
            let message = format!("pi: the copy {}", self.name);
            match self
                .git
                .within(self.repository)
                .args(["update-ref", "-m", &message, &name, oid, &old])
                .run()
            {
                Ok(_) => return Ok(name),
                Err(failure) => last = Some(failure),
            }
        }
        match last {
            Some(failure) => Err(failure).with_context(|| self.doing()),
            None => bail!("{}: {NAMES} names for its branch are taken", self.doing()),
        }
    }
}

/// Keeps what was copied from being removed by git.
fn kept(name: &str) -> String {
    format!("refs/pi/copies/{name}")
}

/// Forgets what was copied.
pub(crate) fn forget(git: &Git, repository: &Repository, name: &str) {
    let _ = git.within(repository).args(["update-ref", "-d", &kept(name)]).run();
}

/// The commit of a branch, where there is one.
pub(crate) fn tip(git: &Git, repository: &Repository, name: &str) -> Option<String> {
    git.within(repository)
        .args(["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])
        .text()
        .ok()
}

/// How many commits `tip` has that `base` does not hold, not counting what was uncommitted before.
pub(crate) fn commits(git: &Git, repository: &Repository, base: &str, tip: &str) -> usize {
    let count = git.within(repository).args(["rev-list", "--count", tip, "--not", base]).text();
    count.ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The files that differ between two commits.
pub(crate) fn changed(
    git: &Git,
    repository: &Repository,
    base: &str,
    tip: &str,
) -> anyhow::Result<Vec<PathBuf>> {
    let list = git
        .within(repository)
        .args(["diff-tree", "-r", "-z", "--no-renames", "--name-only", base, tip])
        .run()?;
    Ok(paths(&list).collect())
}

/// The same, each with what has become of it; not those that are gone.
pub(crate) fn changes(
    git: &Git,
    repository: &Repository,
    base: &str,
    tip: &str,
) -> anyhow::Result<Vec<(Change, PathBuf)>> {
    let list = git
        .within(repository)
        .args(["diff-tree", "-r", "-z", "--no-renames", "--name-status", base, tip])
        .run()?;
    let mut words = paths(&list);
    let mut all = Vec::new();
    while let (Some(kind), Some(path)) = (words.next(), words.next()) {
        match kind.to_str() {
            Some("A") => all.push((Change::New, path)),
            Some("D") => {}
            _ => all.push((Change::Changed, path)),
        }
    }
    Ok(all)
}

/// The difference between two commits, as text. No program of the repository's takes part.
pub(crate) fn diff(
    git: &Git,
    repository: &Repository,
    base: &str,
    tip: &str,
    whole: bool,
) -> anyhow::Result<Vec<u8>> {
    let call = git.within(repository).args([
        "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/",
        "--submodule=short", "--ignore-submodules=none", "--find-renames",
    ]);
    let call = if whole { call.args(["--binary", "--full-index"]) } else { call };
    call.args([base, tip, "--"]).run().context("could not show the difference")
}
