//! A session's directory on the host: its lock, its record, and the backup of the login.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;

use super::private_dir;
use crate::{
    host::Host,
    plan::{Plan, Record},
    report,
};

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
    file.lock().with_context(|| format!("could not lock `{}`", path.display()))?;
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

/// A login that an agent writes while it is killed may be lost; the one from before is better than none.
pub(super) fn back_up(login: &Path, dir: &Path) {
    if let Ok(text) = fs::read(login)
        && parses(&text)
    {
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(BACKUP));
        let _ = made.and_then(|mut file| file.write_all(&text));
    }
}

const BACKUP: &str = "login.backup";

fn parses(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}

/// Puts the login back where what is there cannot be read any more.
pub(crate) fn restore_login(login: &Path, dir: &Path) {
    let broken = || fs::read(login).is_ok_and(|text| !parses(&text));
    let Ok(backup) = fs::read(dir.join(BACKUP)) else { return };
    if !broken() {
        return;
    }
    // Another session may be writing it at this moment: it is written in place.
    thread::sleep(Duration::from_millis(200));
    if broken() {
        match fs::write(login, backup) {
            Ok(()) => report::warn(format_args!(
                "`{}` was cut short; it is again as it was when the session began",
                login.display()
            )),
            Err(error) => report::complain(format_args!("could not restore `{}`: {error}", login.display())),
        }
    }
}
