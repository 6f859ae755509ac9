//! How an agent's commits come over to the host's repository: fetched, checked, and then branch by branch compared and
//! swapped. What cannot take its own place is kept under `pi/NAME/…`; nothing of the user's is moved.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

pub(crate) use super::quarantine::Inside;
use super::{
    command::{Failure, Git},
    follow::mend,
    give::give_all,
    names::Taken as Names,
    quarantine::{Listed, Quarantine},
    repository::{Head, Standing, half_done, in_progress},
    state::{Entry, State, private_dir},
    swap::Swap,
};
use crate::files::lock_within;

/// How many references come over at once.
const AT_ONCE: usize = 500;

/// How many are tried one by one when they do not come over together.
const ONE_BY_ONE: usize = 20;

/// How long another session may hold the repository.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many entries of a git directory are looked at for a change.
const LOOKED_AT: usize = 4096;

/// When work is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The agent is at work: what it has begun may wait.
    Running,
    /// Nothing more will come.
    End,
}

/// What has come over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Branches and notes that moved or are new, by their full names.
    pub(crate) updated: Vec<String>,
    pub(crate) tags: Vec<String>,
    /// What HEAD is now, where it has followed.
    pub(crate) head: Option<String>,
    pub(crate) aside: Vec<Aside>,
    /// What the agent has deleted, and the host still has.
    pub(crate) deleted: Vec<String>,
    /// What could not be taken over and is in the agent's git directory alone, and why.
    pub(crate) refused: Vec<(String, String)>,
    /// There is more than comes over at once.
    pub(crate) more: bool,
    /// Why some of what was refused may come over at another time.
    pub(crate) later: Option<String>,
}

/// Work that stands beside the place that it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aside {
    pub(crate) name: String,
    /// The branch or tag on the host, by its short name.
    pub(crate) kept: String,
    pub(crate) reason: String,
}

impl Taken {
    /// Whether the agent's git directory holds nothing any more that the host's lacks.
    pub(crate) fn is_whole(&self) -> bool {
        self.refused.is_empty() && !self.more
    }
}

/// A session whose work is taken over.
pub(crate) struct Takeover<'a> {
    git: &'a Git,
    dir: PathBuf,
    state: State,
    /// What git has found wrong, by repository and name: it is not asked for again.
    bad: BTreeMap<(usize, String), (String, String)>,
}

impl<'a> Takeover<'a> {
    /// Goes on from what is remembered in the session's directory for git.
    ///
    /// # Errors
    /// Nothing is remembered there.
    pub(crate) fn open(git: &'a Git, dir: &Path) -> anyhow::Result<Self> {
        Ok(Self { git, dir: dir.to_owned(), state: State::load(dir)?, bad: BTreeMap::new() })
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Something that differs when the agent may have made or moved a commit; nothing where only a pass can tell. It reads
    /// names and times, no contents.
    pub(crate) fn fingerprint(&self) -> Option<[u8; 32]> {
        let common = &self.state.entries.first()?.repository.common;
        let mut hash = Sha256::new();
        let mut left = LOOKED_AT;
        for entry in &self.state.entries {
            let inside = |path: &Path| self.inside(path, common);
            let (git_dir, common) = (inside(&entry.repository.git_dir), inside(&entry.repository.common));
            for file in [git_dir.join("HEAD"), common.join("packed-refs"), common.join("reftable")] {
                look(&file, &mut hash);
            }
            hash.update(half_done(&git_dir).unwrap_or_default());
            walk(&common.join("refs"), &mut hash, &mut left, 20)?;
        }
        Some(hash.finalize().into())
    }

    /// Whether the agent has begun something, which a pass while it runs leaves to it.
    pub(crate) fn is_half_done(&self) -> bool {
        let Some(first) = self.state.entries.first() else { return false };
        let own = |entry: &Entry| self.inside(&entry.repository.git_dir, &first.repository.common);
        self.state.entries.iter().any(|entry| half_done(&own(entry)).is_some())
    }

    /// Where the agent's git directory for one of the host's is.
    fn inside(&self, path: &Path, common: &Path) -> PathBuf {
        private_dir(&self.dir).join(path.strip_prefix(common).unwrap_or(path))
    }

    /// Takes over what there is. It can be repeated at any time, also after one that was killed.
    ///
    /// # Errors
    /// The agent's git directory or the host's cannot be reached; nothing is lost by that.
    pub(crate) fn pass(&mut self, inside: &Inside, moment: Moment) -> anyhow::Result<Taken> {
        let mut taken = Taken::default();
        let mut failed = None;
        for n in 0..self.state.entries.len() {
            let before = self.state.entries[n].clone();
            let outcome = self.entry(n, inside, moment, &mut taken);
            if self.state.entries[n] != before {
                self.state.save(&self.dir)?;
            }
            failed = outcome.err().or(failed);
        }
        failed.map_or(Ok(taken), Err)
    }

    fn entry(&mut self, n: usize, inside: &Inside, moment: Moment, taken: &mut Taken) -> anyhow::Result<()> {
        let first = self.state.entries[0].repository.common.clone();
        let repository = self.state.entries[n].repository.clone();
        let doing =
            || format!("could not take over what the agent did in `{}`", repository.work_tree.display());
        let is_half_done = half_done(&self.inside(&repository.git_dir, &first)).is_some();
        let quarantine = Quarantine {
            git: self.git,
            store: self.dir.join(&self.state.entries[n].store),
            objects: repository.objects(),
            inside,
            path: &repository.git_dir,
        };
        let listed = quarantine.list().with_context(doing)?;
        // One session after another, and no name in the directory for it.
        let lock = fs::File::open(&repository.common).with_context(doing)?;
        lock_within(&lock, PATIENCE, || Ok(())).with_context(doing)?;
        mend(self.git, &repository).with_context(doing)?;
        let standing = Standing::of(self.git, &repository).with_context(doing)?;
        let wanted = self.wanted(n, &listed, &standing, is_half_done && moment == Moment::Running, taken);
        let fetched = self.fetch(n, &quarantine, &wanted, taken);
        let mut host = Swap {
            git: self.git,
            name: &self.state.name,
            entry: &mut self.state.entries[n],
            names: Names::of(standing.refs.keys().map(String::as_str)),
            busy: in_progress(&repository),
            standing,
            taken,
        };
        let outcome = host.take(&listed, fetched, is_half_done);
        give_all(&repository).with_context(doing)?;
        outcome.with_context(doing)
    }

    /// The names of what has changed inside.
    fn wanted(
        &mut self,
        n: usize,
        listed: &Listed,
        standing: &Standing,
        is_waiting: bool,
        taken: &mut Taken,
    ) -> Vec<String> {
        let entry = &mut self.state.entries[n];
        let mut wanted = Vec::new();
        let mut want = |name: &str, oid: &str, entry: &Entry| {
            let is_aside = entry.aside.get(name).is_some_and(|(kept, known)| {
                known == oid && standing.refs.get(kept).is_some_and(|found| found.oid == oid)
            });
            match self.bad.get(&(n, name.to_owned())) {
                Some((known, why)) if known == oid => taken.refused.push((name.to_owned(), why.clone())),
                _ if is_aside => {}
                _ => wanted.push(name.to_owned()),
            }
        };
        for (name, oid) in &listed.refs {
            let is_taken =
                ["refs/heads/", "refs/tags/", "refs/notes/"].iter().any(|kind| name.starts_with(kind));
            if !is_taken && name != "refs/stash" || entry.refs.get(name) == Some(oid) {
                continue;
            }
            if name != "refs/stash" && standing.refs.get(name).is_some_and(|found| found.oid == *oid) {
                entry.refs.insert(name.clone(), oid.clone());
            } else {
                want(name, oid, entry);
            }
        }
        if let Some(head @ Head::Detached(oid)) = &listed.head
            && *head != entry.head
            && !is_waiting
            && !listed.refs.values().any(|other| other == oid)
        {
            want("HEAD", oid, entry);
        }
        let own = match &listed.head {
            Some(Head::Branch(name)) => name.as_str(),
            _ => "HEAD",
        };
        wanted.sort_by_key(|name| name != own);
        taken.more |= wanted.len() > AT_ONCE;
        wanted.truncate(AT_ONCE);
        wanted
    }

    /// Fetches all, or one by one those that come.
    fn fetch(
        &mut self,
        n: usize,
        quarantine: &Quarantine<'_>,
        wanted: &[String],
        taken: &mut Taken,
    ) -> BTreeMap<String, String> {
        if wanted.is_empty() {
            return BTreeMap::new();
        }
        let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
        if let Ok(fetched) = quarantine.fetch(&names) {
            return fetched;
        }
        let mut fetched = BTreeMap::new();
        let mut late = false;
        for (tried, name) in names.into_iter().enumerate() {
            let outcome = if late || tried >= ONE_BY_ONE { None } else { Some(quarantine.fetch(&[name])) };
            match outcome {
                Some(Ok(one)) => fetched.extend(one),
                Some(Err(failure)) => {
                    late = matches!(failure, Failure::Late(_));
                    let why = failure.to_string();
                    taken.refused.push((name.to_owned(), why.clone()));
                    if failure.may_pass() {
                        taken.later = Some(why);
                    } else if let Failure::Refused { .. } = failure {
                        let oid = quarantine.list().ok().and_then(|listed| listed.refs.get(name).cloned());
                        self.bad.extend(oid.map(|oid| ((n, name.to_owned()), (oid, why))));
                    }
                }
                None => taken
                    .refused
                    .push((name.to_owned(), "others before it could not be taken over".to_owned())),
            }
        }
        fetched
    }
}

/// What there is to see of a file without reading it.
fn look(path: &Path, hash: &mut Sha256) {
    let Ok(meta) = fs::symlink_metadata(path) else { return hash.update([0]) };
    for number in [meta.ino(), meta.size(), meta.mtime().cast_unsigned(), meta.mtime_nsec().cast_unsigned()] {
        hash.update(number.to_le_bytes());
    }
}

/// The same for a directory and all below it; nothing where that is more than an agent at work needs.
fn walk(dir: &Path, hash: &mut Sha256, left: &mut usize, depth: usize) -> Option<()> {
    look(dir, hash);
    // What is in the place of a directory of git's must not lead anywhere else.
    if !fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir()) {
        return Some(());
    }
    let depth = depth.checked_sub(1)?;
    let mut entries: Vec<_> = fs::read_dir(dir).ok()?.flatten().take(*left + 1).collect();
    *left = left.checked_sub(entries.len())?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), hash, left, depth)?;
        } else {
            look(&entry.path(), hash);
        }
    }
    Some(())
}
