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
    follow::{Followed, Step, follow, mend},
    names::{Taken as Names, tame, zero},
    quarantine::{Listed, Quarantine},
    repository::{Head, Standing, half_done, in_progress},
    state::{Entry, State, private_dir},
};
use crate::files::lock_within;

/// How many references come over at once.
const AT_ONCE: usize = 500;

/// How many are tried one by one when they do not come over together.
const ONE_BY_ONE: usize = 20;

/// How many names are tried for what cannot have its own.
const NAMES: usize = 20;

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
        host.take(&listed, fetched, is_half_done).with_context(doing)
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
                    if let Failure::Refused { .. } = failure {
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

/// The host's side of a pass over one repository.
struct Swap<'a> {
    git: &'a Git,
    name: &'a str,
    entry: &'a mut Entry,
    standing: Standing,
    names: Names,
    /// Branches that a command of the user's will move.
    busy: Vec<String>,
    taken: &'a mut Taken,
}

impl Swap<'_> {
    fn take(
        &mut self,
        listed: &Listed,
        fetched: BTreeMap<String, String>,
        is_half_done: bool,
    ) -> anyhow::Result<()> {
        let in_use = match &self.standing.head {
            Head::Branch(name) => Some(name.clone()),
            Head::Detached(_) => None,
        };
        let mut own = None;
        let mut loose = None;
        for (name, oid) in fetched {
            if name == "HEAD" {
                loose = Some(oid);
            } else if Some(&name) == in_use.as_ref() {
                own = Some((name, oid));
            } else {
                self.branch(&name, &oid)?;
            }
        }
        self.head(listed, own, loose, is_half_done)?;
        let host = &self.standing.refs;
        let gone = self.entry.refs.keys().filter(|name| {
            (name.starts_with("refs/heads/") || name.starts_with("refs/tags/"))
                && !listed.refs.contains_key(*name)
                && host.contains_key(*name)
        });
        self.taken.deleted.extend(gone.cloned());
        Ok(())
    }

    /// Why the name cannot be moved on the host to this commit.
    fn obstacle(&self, name: &str, oid: &str) -> anyhow::Result<Option<String>> {
        let base = self.entry.refs.get(name);
        let why = match self.standing.refs.get(name) {
            None if base.is_some() => "you have deleted it",
            None if self.names.leaves(name) => return Ok(None),
            None => "its name could be mistaken for another",
            Some(_) if name.starts_with("refs/tags/") => "you have another one of this name",
            Some(_) if self.busy.iter().any(|busy| busy == name) => "you have begun to rebase it",
            Some(found)
                if found.worktree.is_some() && self.standing.head != Head::Branch(name.to_owned()) =>
            {
                "it is in use in another work tree"
            }
            Some(found) if base == Some(&found.oid) || self.is_ancestor(&found.oid, oid)? => return Ok(None),
            Some(_) => "you have moved it meanwhile",
        };
        Ok(Some(why.to_owned()))
    }

    fn is_ancestor(&self, old: &str, new: &str) -> anyhow::Result<bool> {
        let call = self.git.within(&self.entry.repository);
        Ok(call.args(["merge-base", "--is-ancestor", old, new]).answers().unwrap_or(false))
    }

    /// A branch or tag that is in use in no work tree.
    fn branch(&mut self, name: &str, oid: &str) -> anyhow::Result<()> {
        if name == "refs/stash" {
            return self.aside(name, oid, "a stash stays with who made it");
        }
        if let Some(reason) = self.obstacle(name, oid)? {
            return self.aside(name, oid, &reason);
        }
        let old = self.standing.refs.get(name).map(|found| found.oid.clone());
        if !self.swap(name, oid, old.as_deref())? {
            return self.aside(name, oid, "you have moved it meanwhile");
        }
        self.settle(name, oid);
        Ok(())
    }

    /// Both sides agree on this.
    fn settle(&mut self, name: &str, oid: &str) {
        let list =
            if name.starts_with("refs/tags/") { &mut self.taken.tags } else { &mut self.taken.updated };
        list.push(name.to_owned());
        self.entry.refs.insert(name.to_owned(), oid.to_owned());
        if let Some(found) = self.standing.refs.get_mut(name) {
            oid.clone_into(&mut found.oid);
        } else {
            let found = super::repository::Ref { oid: oid.to_owned(), worktree: None };
            self.standing.refs.insert(name.to_owned(), found);
        }
        // What stood beside it, and is part of it now, needs no name of its own any more.
        if let Some((kept, old)) = self.entry.aside.get(name).cloned()
            && self.is_ancestor(&old, oid).unwrap_or(false)
        {
            let call = self.git.within(&self.entry.repository).args(["update-ref", "-d", &kept, &old]);
            if call.run().is_ok() {
                self.entry.aside.remove(name);
            }
        }
    }

    /// Moves a name on the host from one commit to another; false where it is not there any more, or cannot be made.
    fn swap(&self, name: &str, new: &str, old: Option<&str>) -> anyhow::Result<bool> {
        let old = old.map_or_else(|| zero(new), str::to_owned);
        let call = self.git.within(&self.entry.repository);
        match call.args(["update-ref", "-m", &self.message(), name, new, &old]).run() {
            Ok(_) => Ok(true),
            Err(Failure::Refused { .. }) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    fn message(&self) -> String {
        format!("pi: from the session {}", tame(self.name))
    }

    /// Keeps a commit where it is in nobody's way.
    fn aside(&mut self, name: &str, oid: &str, reason: &str) -> anyhow::Result<()> {
        let session = tame(self.name);
        let (kind, tail) = match name.strip_prefix("refs/tags/") {
            Some(tag) => ("refs/tags", tame(tag)),
            None => ("refs/heads", tame(name)),
        };
        let known = self.entry.aside.get(name).cloned();
        let kept = match known {
            Some((kept, old)) if self.swap(&kept, oid, Some(&old))? => Some(kept),
            _ => {
                let prefixes =
                    [format!("pi/{session}"), format!("pi-{session}"), format!("pi-{session}-work")];
                let mut kept = None;
                'all: for prefix in prefixes {
                    for n in 1..=NAMES {
                        let number = if n == 1 { String::new() } else { format!("-{n}") };
                        let candidate = format!("{kind}/{prefix}/{tail}{number}");
                        let is_there =
                            self.standing.refs.get(&candidate).is_some_and(|found| found.oid == oid);
                        if is_there || self.swap(&candidate, oid, None)? {
                            kept = Some(candidate);
                            break 'all;
                        }
                    }
                }
                kept
            }
        };
        let Some(kept) = kept else {
            self.taken.refused.push((name.to_owned(), "git takes no name for it".to_owned()));
            return Ok(());
        };
        self.entry.aside.insert(name.to_owned(), (kept.clone(), oid.to_owned()));
        let short = kept.splitn(3, '/').nth(2).unwrap_or(&kept).to_owned();
        self.taken.aside.push(Aside { name: name.to_owned(), kept: short, reason: reason.to_owned() });
        Ok(())
    }

    /// HEAD, the index, and the branch in use on the host.
    fn head(
        &mut self,
        listed: &Listed,
        own: Option<(String, String)>,
        loose: Option<String>,
        is_half_done: bool,
    ) -> anyhow::Result<()> {
        let target = listed.head.clone().unwrap_or_else(|| self.entry.head.clone());
        let is_changed = target != self.entry.head && target != self.standing.head;
        if target == self.standing.head && target != self.entry.head {
            self.entry.head = target.clone();
        }
        if !is_changed {
            return match own {
                Some((name, oid)) if target == Head::Branch(name.clone()) => self.own(&name, &oid),
                Some((name, oid)) => self.aside(&name, &oid, "it is in use in your work tree"),
                None => self.loose(loose),
            };
        }
        if is_half_done && matches!(target, Head::Detached(_)) {
            // In the middle of a rebase; its branch stands where it stood.
            if let Some((name, oid)) = own {
                self.own(&name, &oid)?;
            }
            return self.loose(loose);
        }
        let why = self.switch(&target, loose.as_deref())?;
        let Some(why) = why else {
            self.taken.head = Some(match &target {
                Head::Branch(name) | Head::Detached(name) => name.clone(),
            });
            self.standing.leave(&target);
            self.entry.head = target;
            if let Some((name, oid)) = own {
                self.branch(&name, &oid)?;
            }
            return Ok(());
        };
        if let Some((name, oid)) = own {
            self.aside(&name, &oid, &why)?;
        }
        self.loose(loose)
    }

    /// Keeps a commit that no branch of the agent's leads to.
    fn loose(&mut self, loose: Option<String>) -> anyhow::Result<()> {
        match loose {
            Some(oid) => self.aside("HEAD", &oid, "it is on no branch"),
            None => Ok(()),
        }
    }

    /// The branch in use on both sides moves.
    fn own(&mut self, name: &str, oid: &str) -> anyhow::Result<()> {
        let why = match self.standing.refs.get(name) {
            // It has no commit yet, so nothing can be mistaken.
            None if !self.entry.refs.contains_key(name) => None,
            _ => self.obstacle(name, oid)?,
        };
        if let Some(why) = why.or_else(|| self.unfinished()) {
            return self.aside(name, oid, &why);
        }
        let head = self.standing.head.clone();
        let old = self.standing.commit().map(str::to_owned);
        let step = Step { from: &head, old: old.as_deref(), to: &head, new: oid };
        match follow(self.git, &self.entry.repository, &step, &self.message())? {
            Followed::No(why) => self.aside(name, oid, &why),
            Followed::Yes => {
                self.settle(name, oid);
                Ok(())
            }
        }
    }

    /// HEAD goes to another branch or commit; says why not.
    fn switch(&mut self, target: &Head, loose: Option<&str>) -> anyhow::Result<Option<String>> {
        if self.standing.head != self.entry.head {
            return Ok(Some("you have changed branches".to_owned()));
        }
        if let Some(why) = self.unfinished() {
            return Ok(Some(why));
        }
        let new = match target {
            Head::Branch(name) => {
                let Some(found) = self.standing.refs.get(name) else {
                    return Ok(Some("its branch could not take its own place".to_owned()));
                };
                if found.worktree.is_some() {
                    return Ok(Some("its branch is in use in another work tree".to_owned()));
                }
                if self.entry.refs.get(name) != Some(&found.oid) {
                    return Ok(Some("its branch could not take its own place".to_owned()));
                }
                found.oid.clone()
            }
            Head::Detached(oid) => {
                let is_here =
                    loose == Some(oid) || self.standing.refs.values().any(|found| found.oid == *oid);
                if !is_here {
                    return Ok(Some("its commit is not here".to_owned()));
                }
                oid.clone()
            }
        };
        let old = self.standing.commit().map(str::to_owned);
        let from = self.standing.head.clone();
        let step = Step { from: &from, old: old.as_deref(), to: target, new: &new };
        Ok(match follow(self.git, &self.entry.repository, &step, &self.message())? {
            Followed::Yes => None,
            Followed::No(why) => Some(why),
        })
    }

    fn unfinished(&self) -> Option<String> {
        self.entry.repository.half_done().map(|what| format!("you have begun {what}"))
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
