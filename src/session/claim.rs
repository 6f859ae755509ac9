//! A session's directory on the host: its lock and its record.

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;

use super::private_dir;
use crate::{
    files::lock_within,
    host::Host,
    plan::{Plan, session::Record},
};

/// How long others may hold the directory's lock: a stopped process must not stop all others.
const MOMENTS: Duration = Duration::from_secs(10);

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

impl Claim {
    /// Makes the session's directory, takes its lock and writes its record, before anything else of it exists.
    pub(super) fn take(host: &Host, plan: &Plan) -> anyhow::Result<Self> {
        let _directory = directory_lock(host)?;
        let dir = plan.state.clone();
        private_dir(&dir)?;
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
        claim.write(&plan.record)?;
        Ok(claim)
    }

    pub(super) fn write(&self, record: &Record) -> anyhow::Result<()> {
        let path = self.dir.join("session.json");
        let text = serde_json::to_string(record).context("could not render the session's record")?;
        fs::write(&path, text).with_context(|| format!("could not write `{}`", path.display()))
    }
}
