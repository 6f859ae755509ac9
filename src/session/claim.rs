//! A session's directory on the host: its lock and its record.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::private_dir;
use crate::{
    files::lock_within,
    host::Host,
    plan::{Plan, session::Record},
    report::Hinted,
};

/// How long others may hold the directory's lock: a stopped process must not stop all others.
const MOMENTS: Duration = Duration::from_secs(10);

/// How long a killed session's clients may take to end.
const LAST_CLIENTS: Duration = Duration::from_secs(2);

/// A session's directory and the lock in it. While the lock is held the session is alive; the kernel frees it when the
/// process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) dir: PathBuf,
    pub(super) lock: Arc<fs::File>,
}

/// Where all sessions of this machine and user are.
pub(crate) fn sessions_dir(host: &Host) -> PathBuf {
    host.state_dir().join("sessions")
}

/// Held for moments only: between the making of a session's directory and the taking of its lock nobody may look.
pub(crate) fn directory_lock(host: &Host) -> anyhow::Result<fs::File> {
    let dir = sessions_dir(host);
    private_dir(&dir)?;
    let path = dir.join(".lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("could not open `{}`", path.display()))?;
    lock_within(&file, MOMENTS, || Ok(())).with_context(|| format!("could not lock `{}`", path.display()))?;
    Ok(file)
}

/// Where a session's name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The user typed it.
    Chosen,
    /// It is the repository's.
    Repository,
}

impl Claim {
    /// Makes the session's directory, takes its lock and writes its record, before anything else of it exists. No two
    /// sessions that live have one name: a chosen one is refused, the repository's gets a number.
    pub(super) fn take(host: &Host, plan: &mut Plan, name: Naming) -> anyhow::Result<Self> {
        let mut directory = directory_lock(host)?;
        let mut taken = live_names(host);
        let record = &mut plan.record;
        // One that has just been killed is held by its last clients for a moment.
        let begun = Instant::now();
        while name == Naming::Chosen && taken.contains(&record.name) && begun.elapsed() < LAST_CLIENTS {
            drop(directory);
            thread::sleep(Duration::from_millis(100));
            directory = directory_lock(host)?;
            taken = live_names(host);
        }
        if taken.contains(&record.name) {
            if name == Naming::Chosen {
                return Err(Hinted::error(
                    format!("a session named `{}` is running", record.name),
                    "take another name, or end that one with `pi stop`",
                ));
            }
            // One more than are taken besides the plain name, so one of them is free.
            let mut numbered = (2..=taken.len() + 1).map(|n| format!("{}-{n}", record.name));
            record.name = numbered.find(|name| !taken.contains(name)).unwrap_or_default();
        }
        let dir = plan.state.clone();
        private_dir(&dir)?;
        let claim = Self::fill(dir.clone(), record);
        if claim.is_err() {
            let _ = fs::remove_dir_all(dir);
        }
        drop(directory);
        claim
    }

    fn fill(dir: PathBuf, record: &Record) -> anyhow::Result<Self> {
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            // For the clients that hold it as their stdin, an empty one.
            .read(true)
            .write(true)
            .open(dir.join("lock"))
            .with_context(|| format!("could not write in `{}`", dir.display()))?;
        lock.lock().with_context(|| format!("could not lock `{}`", dir.display()))?;
        let claim = Self { dir, lock: Arc::new(lock) };
        claim.write(record)?;
        Ok(claim)
    }

    pub(super) fn write(&self, record: &Record) -> anyhow::Result<()> {
        let path = self.dir.join("session.json");
        let text = serde_json::to_string(record).context("could not render the session's record")?;
        fs::write(&path, text).with_context(|| format!("could not write `{}`", path.display()))
    }
}

/// The names of the sessions that somebody runs; to be asked while the directory's lock is held.
fn live_names(host: &Host) -> BTreeSet<String> {
    let list = fs::read_dir(sessions_dir(host)).into_iter().flatten().flatten();
    list.filter_map(|entry| {
        let lock = fs::File::open(entry.path().join("lock")).ok()?;
        if lock.try_lock().is_ok() {
            return None;
        }
        let text = fs::read_to_string(entry.path().join("session.json")).ok()?;
        serde_json::from_str::<Record>(&text).ok().map(|record| record.name)
    })
    .collect()
}
