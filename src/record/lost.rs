//! Sessions on another engine that have lost their launcher, while their agent may live: how somebody comes back to one.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{CLEANING, Claim, Dead, LOCK, Live, Record, directory_lock, entries, find::named, is_kept};
use crate::{
    files::{read_small, replace},
    host::Host,
    report::{Hinted, quote},
};

/// In a session's directory: its [`WayBack`].
const BACK: &str = "back.json";

/// In the directory of a session that was found without a launcher; its time says when that was.
const LOST: &str = "lost";

/// What it takes to come back to a session, besides its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WayBack {
    /// The words after the launcher's name.
    pub(crate) words: Vec<String>,
    /// How often the session's addresses were taken.
    pub(crate) attempt: u32,
    pub(crate) agent_image: String,
    pub(crate) sidecar_image: String,
    /// What the agent's placeholders are made of.
    pub(crate) random: [u8; 16],
    /// Whether the sidecar has keys for it.
    pub(crate) has_keys: bool,
}

impl WayBack {
    /// # Errors
    /// It cannot be read.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(BACK);
        let text = read_small(&path)?.with_context(|| format!("there is no `{}`", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("could not read `{}`", path.display()))
    }

    /// # Errors
    /// It cannot be written.
    pub(crate) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(BACK);
        replace(&path, &serde_json::to_vec(self)?)
            .with_context(|| format!("could not write `{}`", path.display()))
    }
}

/// The sessions without a launcher that somebody can come back to, if their agent lives; those that are being taken down are
/// not among them.
pub(crate) fn lost(host: &Host) -> Vec<Live> {
    if entries(host).next().is_none() {
        return vec![];
    }
    // Somebody who looks for dead sessions would take this look for their owner's.
    let Ok(_directory) = directory_lock(host) else { return vec![] };
    let is_free = |path: &Path| fs::File::open(path).is_ok_and(|lock| lock.try_lock().is_ok());
    let is_held = |path: &Path| fs::File::open(path).is_ok_and(|lock| lock.try_lock().is_err());
    let all = entries(host).filter(|(_, dir)| {
        dir.join(BACK).is_file() && !is_kept(dir) && is_free(&dir.join(LOCK)) && !is_held(&dir.join(CLEANING))
    });
    all.filter_map(|(id, dir)| {
        let record = Record::load(&dir).filter(|record| record.id == id)?;
        Some(Live { record, dir })
    })
    .collect()
}

/// What can be done about a session of this name that has lost its launcher.
pub(crate) fn what_next(name: &str) -> String {
    let name = quote(name);
    format!(
        "`pi attach {name}` comes back to it if its agent lives, and `pi stop {name}` ends it and brings its work in"
    )
}

/// The session without a launcher of this name, or with an id that begins like this; without a name, the only one. `None` where
/// there is none. While the returned value lives, nobody else takes it down.
///
/// # Errors
/// There are several, or somebody else has it at this moment.
pub(crate) fn lost_named(host: &Host, name: Option<&str>) -> anyhow::Result<Option<(Dead, Record)>> {
    let all = lost(host);
    let named = name.map_or_else(|| all.iter().collect(), |name| named(&all, name));
    let one = match named.as_slice() {
        [] => return Ok(None),
        [one] => *one,
        [first, ..] => {
            return Err(Hinted::error(
                format!("{} such sessions have lost their launchers", named.len()),
                format!("say which by id, as in `{}`; `pi ps` lists them", first.record.id.as_str()),
            ));
        }
    };
    let found = all_lost(host)?.into_iter().find(|(dead, _)| dead.id == one.record.id);
    found.with_context(|| format!("another `pi` is at the session `{}`", one.record.name)).map(Some)
}

/// All of these. While the returned values live, nobody else takes them down.
///
/// # Errors
/// The directory of sessions cannot be locked.
pub(crate) fn all_lost(host: &Host) -> anyhow::Result<Vec<(Dead, Record)>> {
    let dead = super::all(host)?.1.into_iter().filter(|dead| dead.dir.join(BACK).is_file());
    Ok(dead.filter_map(|dead| dead.record.clone().map(|record| (dead, record))).collect())
}

impl Dead {
    /// Since when this session is known to have no launcher, where its agent may live without one.
    pub(crate) fn lost_for(&self) -> Option<Duration> {
        if !self.dir.join(BACK).is_file() {
            return None;
        }
        let path = self.dir.join(LOST);
        if !path.exists() {
            let _ = fs::File::create_new(&path);
        }
        let since = fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
        Some(SystemTime::now().duration_since(since).unwrap_or_default())
    }
}

impl Claim {
    /// Makes a dead session this process's own.
    ///
    /// # Errors
    /// Its lock cannot be taken.
    pub(crate) fn again(dead: Dead, name: &str) -> anyhow::Result<Self> {
        let Dead { dir, _cleaning: cleaning, .. } = dead;
        let lock = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(dir.join(LOCK))
            .with_context(|| format!("could not open the lock in `{}`", dir.display()))?;
        // Whoever looks whether it is free holds it for a moment.
        lock.lock().with_context(|| format!("could not lock `{}`", dir.display()))?;
        let _ = fs::remove_file(dir.join(LOST));
        // From here on the other lock says that it is somebody's.
        drop(cleaning);
        Ok(Self { dir, lock: Arc::new(lock), name: name.to_owned() })
    }
}
