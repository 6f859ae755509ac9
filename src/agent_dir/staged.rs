//! `pi install`, `remove`, `update` and `config`: what they change is a copy of the user's packages, which is exchanged
//! for the live ones when it is found to be what packages are.
//!
//! The copy lies in the live directory, under a hidden name: only there is it sure to be on the same file system. After
//! the container is gone, what is allowed of it is copied once more into a place that no container has had, and that is
//! exchanged, package directory by package directory. So transcripts and logins never move, and nobody who still has
//! something open has it in the live directory. A change that somebody else made meanwhile is seen, and nothing is
//! exchanged then.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{
    entry::PACKAGES,
    fd::{Dir, Kind, Made, PRIVATE_DIR, PRIVATE_FILE},
    laid::Laid,
    tree::{self, Fingerprint, Limits},
};
use crate::{host::Owner, inside::Access, report::Hinted};

const PURPOSE: &str = "stage";
const LOCK: &str = "lock";
/// What a session writes, and what is exchanged.
const WORK: &str = "work";
const FRESH: &str = "fresh";

/// A copy of the packages that is being changed.
#[derive(Debug)]
pub(crate) struct Stage {
    path: PathBuf,
    live: Dir,
    name: OsString,
    holder: Dir,
    work: Dir,
    owner: Option<Owner>,
    limits: Limits,
    seen: BTreeMap<&'static str, Seen>,
    _lock: File,
}

/// What a package directory was when it was copied.
#[derive(Debug)]
struct Seen {
    /// `None` where there was none.
    live: Option<Fingerprint>,
    copy: Fingerprint,
}

impl Stage {
    /// Copies the packages. It is removed again when the value is dropped.
    ///
    /// # Errors
    /// Another one is being changed, or the packages are more than they may be.
    pub(crate) fn make(live: &Path, owner: Option<Owner>) -> anyhow::Result<Self> {
        Self::make_within(live, owner, tree::PACKAGES)
    }

    fn make_within(live: &Path, owner: Option<Owner>, limits: Limits) -> anyhow::Result<Self> {
        let made = Made { mode: PRIVATE_DIR, owner };
        let dir = Dir::ensure(live, made).with_context(|| format!("could not open `{}`", live.display()))?;
        if sweep(&dir)? > 0 {
            return Err(Hinted::error(
                "another `pi` is installing or removing packages",
                "wait until it has ended",
            ));
        }
        let (name, holder) = dir
            .new_dir(PURPOSE, Made::ours(PRIVATE_DIR))
            .with_context(|| format!("could not create a directory in `{}`", live.display()))?;
        let path = live.join(&name);
        // Locked before it can be swept: whoever finds no lock file leaves it for a while.
        let prepared = (|| {
            let lock = holder.new_file(LOCK.as_ref(), Made::ours(PRIVATE_FILE))?;
            lock.try_lock().map_err(io::Error::from)?;
            holder.make_new(FRESH.as_ref())?;
            Ok::<_, io::Error>((lock, holder.ensure_dir(WORK.as_ref(), Made::ours(PRIVATE_DIR))?))
        })();
        let (lock, work) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = tree::remove(&dir, &name);
                return Err(error).with_context(|| format!("could not prepare `{}`", path.display()));
            }
        };
        let seen = BTreeMap::new();
        let mut stage = Self { path, live: dir, name, holder, work, owner, limits, seen, _lock: lock };
        for package in PACKAGES {
            let seen = stage
                .copy_in(package)
                .with_context(|| format!("could not copy `{}`", live.join(package).display()))?;
            stage.seen.insert(package, seen);
        }
        Ok(stage)
    }

    fn copy_in(&self, package: &'static str) -> anyhow::Result<Seen> {
        let name: &OsStr = package.as_ref();
        let made = Made { mode: PRIVATE_DIR, owner: self.owner };
        let copy = self.work.ensure_dir(name, made)?;
        let live = match self.live.kind(name)? {
            None => None,
            Some(Kind::Directory) => {
                let live = self.live.dir(name)?;
                let before = tree::fingerprint(&live, self.limits)?;
                tree::copy(&live, &copy, self.limits, self.owner)?;
                Some(before)
            }
            Some(_) => {
                return Err(Hinted::error(
                    "it is not a directory, so packages cannot be installed there",
                    "put a real directory there, or remove it",
                ));
            }
        };
        Ok(Seen { live, copy: tree::fingerprint(&copy, self.limits)? })
    }

    /// What is to be mounted for the command, writable.
    pub(crate) fn mounts(&self) -> anyhow::Result<Vec<Laid>> {
        let laid = |package: &&'static str| {
            Ok(Laid {
                source: self.path.join(WORK).join(package),
                target: package.into(),
                access: Access::ReadWrite,
                identity: self.work.dir(OsStr::new(package))?.identity()?,
            })
        };
        PACKAGES.iter().map(laid).collect()
    }

    /// Exchanges what was changed for what is live. The container must be gone.
    ///
    /// # Errors
    /// What was left is not what packages are, or the live ones were changed meanwhile; everything is as it was then.
    pub(crate) fn swap_in(self) -> anyhow::Result<()> {
        let fresh = self.holder.dir(FRESH.as_ref()).context("could not open the new packages")?;
        let mut changed = Vec::new();
        for (package, seen) in &self.seen {
            let work = self.work.dir(OsStr::new(package)).context("could not open the new packages")?;
            let unfit = |error: anyhow::Error| {
                Hinted::error(
                    format!("what is in `{package}` now was not taken over: {error:#}"),
                    "nothing was changed: the packages and the settings are what they were",
                )
            };
            let now = tree::fingerprint(&work, self.limits).map_err(unfit)?;
            // An empty one that was not there before is the place for it and no more.
            if now != seen.copy {
                let made = Made { mode: PRIVATE_DIR, owner: self.owner };
                let copy =
                    fresh.ensure_dir(OsStr::new(package), made).map_err(|error| unfit(error.into()))?;
                tree::copy(&work, &copy, self.limits, self.owner).map_err(unfit)?;
                changed.push((*package, seen.live.as_ref()));
            }
        }
        let mut done: Vec<(&str, Option<&Fingerprint>)> = Vec::new();
        for (package, seen) in changed {
            if let Err(error) = self.exchange(&fresh, package, seen) {
                for (package, seen) in done.into_iter().rev() {
                    self.put_back(&fresh, package, seen.is_some())?;
                }
                return Err(error);
            }
            done.push((package, seen));
        }
        Ok(())
    }

    fn exchange(&self, fresh: &Dir, package: &str, seen: Option<&Fingerprint>) -> anyhow::Result<()> {
        let name: &OsStr = package.as_ref();
        let could = || format!("could not exchange `{package}`");
        let meanwhile = || {
            Hinted::error(
                format!("somebody else has changed `{package}` meanwhile, so nothing was taken over"),
                "run the command again",
            )
        };
        let Some(seen) = seen else {
            return match fresh.rename_new(name, &self.live, name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(meanwhile()),
                other => other.with_context(could),
            };
        };
        let is_as_seen = |dir: &Dir| -> anyhow::Result<bool> {
            Ok(dir.kind(name)? == Some(Kind::Directory)
                && tree::fingerprint(&dir.dir(name)?, self.limits)? == *seen)
        };
        if !is_as_seen(&self.live).with_context(could)? {
            return Err(meanwhile());
        }
        swap(fresh, &self.live, name).with_context(could)?;
        // Whoever was in the middle of a change has made it in what is here now.
        if !is_as_seen(fresh).unwrap_or(false) {
            self.put_back(fresh, package, true)?;
            return Err(meanwhile());
        }
        Ok(())
    }

    fn put_back(&self, fresh: &Dir, package: &str, was_there: bool) -> anyhow::Result<()> {
        let name: &OsStr = package.as_ref();
        let back =
            if was_there { swap(fresh, &self.live, name) } else { self.live.rename_new(name, fresh, name) };
        back.with_context(|| format!("could not put `{package}` back as it was"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = tree::remove(&self.live, &self.name);
    }
}

/// Exchanges what a name stands for here and there; in three steps where the file system cannot do it in one.
fn swap(fresh: &Dir, live: &Dir, name: &OsStr) -> io::Result<()> {
    match fresh.exchange(name, live, name) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            in_three_steps(fresh, live, name)
        }
        other => other,
    }
}

fn in_three_steps(fresh: &Dir, live: &Dir, name: &OsStr) -> io::Result<()> {
    let aside = super::fd::write::random_name("aside")?;
    live.rename_new(name, fresh, &aside)?;
    fresh.rename_new(name, live, name).inspect_err(|_| drop(fresh.rename_new(&aside, live, name)))?;
    fresh.rename_new(&aside, fresh, name)
}

/// Removes what installations that were killed have left in the live directory, and counts those that are running.
pub(crate) fn sweep(live: &Dir) -> anyhow::Result<usize> {
    let mut running = 0;
    for name in live.names(10_000)? {
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(&format!(".pi-{PURPOSE}-")));
        if !is_ours || live.kind(&name)? != Some(Kind::Directory) {
            continue;
        }
        // Held until it is removed: two may sweep at once.
        match lock_of_dead(&live.dir(&name)?) {
            Ok(Some(_lock)) => {
                tree::remove(live, &name)
                    .with_context(|| format!("could not remove `{}`", name.display()))?;
            }
            Ok(None) => running += 1,
            Err(error) => bail!("could not look at `{}`: {error}", name.display()),
        }
    }
    Ok(running)
}

/// How long somebody may take to lock what he has made.
const A_MOMENT: std::time::Duration = std::time::Duration::from_secs(10);

/// The lock that nobody holds any more, or the place where it never was; `None` where somebody is at work.
fn lock_of_dead(holder: &Dir) -> io::Result<Option<File>> {
    match holder.file(LOCK.as_ref()) {
        Ok(lock) => match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_old = holder.metadata()?.modified()?.elapsed().is_ok_and(|age| age > A_MOMENT);
            if is_old { holder.new_file(LOCK.as_ref(), Made::ours(PRIVATE_FILE)).map(Some) } else { Ok(None) }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
