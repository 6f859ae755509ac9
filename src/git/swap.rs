//! The host's side: every name that an agent has moved is compared with the host's and swapped, or its commit is kept
//! beside it.

use std::collections::BTreeMap;

use super::{
    command::Git,
    follow::{Followed, Step, follow},
    names::{Taken as Names, tame, zero},
    quarantine::Listed,
    repository::{Head, Standing},
    state::Entry,
    takeover::{Aside, Taken},
};

/// How many names are tried for what cannot have its own.
const NAMES: usize = 20;

/// The host's side of a pass over one repository.
pub(super) struct Swap<'a> {
    pub(super) git: &'a Git,
    pub(super) name: &'a str,
    pub(super) entry: &'a mut Entry,
    pub(super) standing: Standing,
    pub(super) names: Names,
    /// Branches that a command of the user's will move.
    pub(super) busy: Vec<String>,
    pub(super) taken: &'a mut Taken,
}

impl Swap<'_> {
    /// Puts in its place what was fetched.
    pub(super) fn take(
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
    fn obstacle(&self, name: &str, oid: &str) -> Option<String> {
        let base = self.entry.refs.get(name);
        let why = match self.standing.refs.get(name) {
            None if base.is_some() => "you have deleted it",
            None if self.names.leaves(name) => return None,
            None => "its name could be mistaken for another",
            Some(_) if name.starts_with("refs/tags/") => "you have another one of this name",
            Some(_) if self.busy.iter().any(|busy| busy == name) => "you have begun to rebase it",
            Some(found) if self.is_in_use(found) && self.standing.head != Head::Branch(name.to_owned()) => {
                "it is in use in another work tree"
            }
            Some(found) if base == Some(&found.oid) || self.is_ancestor(&found.oid, oid) => return None,
            Some(_) => "you have moved it meanwhile",
        };
        Some(why.to_owned())
    }

    /// A subagent's worktree follows its branch.
    fn is_in_use(&self, found: &super::repository::Ref) -> bool {
        let is_subagents = |path: &std::path::Path| super::trees::is_subagents(&self.entry.repository, path);
        found.worktree.as_deref().is_some_and(|path| !is_subagents(path))
    }

    fn is_ancestor(&self, old: &str, new: &str) -> bool {
        self.entry.repository.is_ancestor(self.git, old, new)
    }

    /// A branch or tag that is in use in no work tree.
    fn branch(&mut self, name: &str, oid: &str) -> anyhow::Result<()> {
        if name == "refs/stash" {
            return self.aside(name, oid, "a stash stays with who made it");
        }
        if let Some(reason) = self.obstacle(name, oid) {
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
            && self.is_ancestor(&old, oid)
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
        Ok(call.args(["update-ref", "-m", &self.message(), name, new, &old]).moves()?)
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
            _ => self.obstacle(name, oid),
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
