//! The records of sessions. Each session has a directory with a lock and a record. It lives as long as its lock is
//! held; the kernel frees the lock when the launcher ends, however it ends.

mod find;
mod id;
mod lost;

use std::{
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    find::{find, restricted},
    id::SessionId,
    lost::{WayBack, all_lost, lost, lost_named, what_next},
};
use crate::{
    files::{lock_within, private_dir, read_small, replace},
    host::Host,
    report::Hinted,
};

/// How long to wait for the directory's lock: one hanging process must not block all others.
const MOMENTS: Duration = Duration::from_secs(10);

/// How long a killed session's clients may take to end.
const LAST_CLIENTS: Duration = Duration::from_secs(2);

const RECORD: &str = "session.json";
/// The launcher and its docker clients hold this lock.
const LOCK: &str = "lock";

/// Whoever takes the session down after its launcher holds this lock.
const CLEANING: &str = "cleaning";

/// A session's data, for teardown and for `pi ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: SessionId,
    pub(crate) name: String,
    /// The engine's address, as docker takes it.
    pub(crate) engine: String,
    pub(crate) repository: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) image: String,
    /// `open`, `proxy`, `none` or `demo`.
    pub(crate) network: String,
    /// Seconds since 1970.
    pub(crate) started: u64,
    /// The allowlist's file, if the network is restricted.
    pub(crate) allowlist: Option<PathBuf>,
    /// The agent's directory on the host, in which an interrupted change of packages leaves something.
    #[serde(default)]
    pub(crate) agent_dir: PathBuf,
}

impl Record {
    #[cfg(test)]
    pub(crate) fn for_tests(id: SessionId) -> Self {
        Self {
            id,
            name: "name".to_owned(),
            engine: String::new(),
            repository: "/r".into(),
            directory: "/r".into(),
            image: String::new(),
            network: "proxy".to_owned(),
            started: 0,
            allowlist: None,
            agent_dir: "/l".into(),
        }
    }

    /// The record in a session's directory, if it has one.
    pub(crate) fn load(dir: &Path) -> Option<Self> {
        serde_json::from_str(&read_small(&dir.join(RECORD)).ok()??).ok()
    }

    /// Replaces the record at once: a reader sees the old one or the new one.
    pub(crate) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(RECORD);
        let text = serde_json::to_string(self).context("could not render the session's record")?;
        replace(&path, text.as_bytes()).with_context(|| format!("could not write `{}`", path.display()))
    }
}

/// The directory of all sessions of this user on this machine.
fn sessions_dir(host: &Host) -> PathBuf {
    host.state_dir().join("sessions")
}

/// The directory of the session with this id.
pub(crate) fn directory(host: &Host, id: &SessionId) -> PathBuf {
    sessions_dir(host).join(id.as_str())
}

/// Locks the directory of all sessions. A launcher holds this lock while it makes a session's directory and takes its
/// lock, so that nobody sees a directory without its lock.
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

/// The source of a session's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The user typed it. Only one session can have it.
    Chosen(String),
    /// It is the repository's. If it is taken, it gets a number.
    Repository(String),
}

impl Naming {
    /// The name without a number.
    pub(crate) fn plain(&self) -> &str {
        match self {
            Self::Chosen(name) | Self::Repository(name) => name,
        }
    }
}

/// This process's own session, which lives as long as this value.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) dir: PathBuf,
    pub(crate) lock: Arc<fs::File>,
    pub(crate) name: String,
}

impl Claim {
    /// Makes the session's directory, takes its lock and writes the record that `record` returns for its name. This
    /// happens before anything else of the session exists. It fails if a live session has the chosen name.
    pub(crate) fn take(
        host: &Host,
        id: &SessionId,
        naming: &Naming,
        record: impl FnOnce(&str) -> anyhow::Result<Record>,
    ) -> anyhow::Result<Self> {
        let (directory_lock, name) = free_name(host, naming)?;
        let dir = directory(host, id);
        private_dir(&dir)?;
        let claim = Self::fill(dir.clone(), name, record);
        if claim.is_err() {
            let _ = fs::remove_dir_all(dir);
        }
        drop(directory_lock);
        claim
    }

    fn fill(
        dir: PathBuf,
        name: String,
        record: impl FnOnce(&str) -> anyhow::Result<Record>,
    ) -> anyhow::Result<Self> {
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            // Docker clients hold the lock as their stdin, which must be empty.
            .read(true)
            .write(true)
            .open(dir.join(LOCK))
            .with_context(|| format!("could not write in `{}`", dir.display()))?;
        lock.lock().with_context(|| format!("could not lock `{}`", dir.display()))?;
        record(&name)?.save(&dir)?;
        Ok(Self { dir, lock: Arc::new(lock), name })
    }
}

/// A name that no live session has, as long as the returned lock is held.
fn free_name(host: &Host, naming: &Naming) -> anyhow::Result<(fs::File, String)> {
    let begun = Instant::now();
    loop {
        let lock = directory_lock(host)?;
        let (live, _) = look_at(host, false);
        let is_taken = |name: &str| live.iter().any(|session| session.record.name == name);
        match naming {
            Naming::Chosen(name) | Naming::Repository(name) if !is_taken(name) => {
                return Ok((lock, name.clone()));
            }
            Naming::Repository(name) => {
                // One of these is free: there are as many of them as live sessions, and one has the plain name.
                let mut numbered = (2..=live.len() + 1).map(|n| format!("{name}-{n}"));
                return Ok((lock, numbered.find(|name| !is_taken(name)).unwrap_or_default()));
            }
            // The last docker clients of a killed session hold its lock for a moment.
            Naming::Chosen(_) if begun.elapsed() < LAST_CLIENTS => {
                drop(lock);
                thread::sleep(Duration::from_millis(100));
            }
            Naming::Chosen(name) => {
                return Err(Hinted::error(
                    format!("a session named `{name}` is running"),
                    "choose another name, or end that session with `pi stop`",
                ));
            }
        }
    }
}

/// A running session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) record: Record,
    pub(crate) dir: PathBuf,
}

impl Live {
    /// Whether its launcher has ended.
    pub(crate) fn has_ended(&self) -> bool {
        fs::File::open(self.dir.join(LOCK)).map_or(true, |lock| lock.try_lock().is_ok())
    }
}

/// A dead session. While this value lives, nobody else takes the session down.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) id: SessionId,
    /// `None` if it died before it made anything, or if the record is lost.
    pub(crate) record: Option<Record>,
    pub(crate) dir: PathBuf,
    _cleaning: fs::File,
}

/// The live and the dead sessions of this user on this machine, told apart by their locks.
pub(crate) fn all(host: &Host) -> anyhow::Result<(Vec<Live>, Vec<Dead>)> {
    // Mostly there are no sessions, and then there is no need for a lock.
    if entries(host).next().is_none() {
        return Ok((vec![], vec![]));
    }
    let _directory = directory_lock(host)?;
    Ok(look(host))
}

/// The live sessions. Unlike [`all`], it leaves the dead to whoever takes them down.
///
/// # Errors
/// The directory of sessions cannot be locked.
pub(crate) fn live(host: &Host) -> anyhow::Result<Vec<Live>> {
    if entries(host).next().is_none() {
        return Ok(vec![]);
    }
    let _directory = directory_lock(host)?;
    Ok(look_at(host, false).0)
}

/// Whether a session's directory is kept, and no session's any more.
pub(crate) fn is_kept(dir: &Path) -> bool {
    dir.join(KEPT).exists()
}

/// Waits a moment for other processes that take dead sessions down.
pub(crate) fn wait_for_cleaners(host: &Host, go_on: impl Fn() -> bool) {
    let begun = Instant::now();
    let is_held = |path: PathBuf| fs::File::open(path).is_ok_and(|lock| lock.try_lock().is_err());
    while begun.elapsed() < MOMENTS && go_on() && entries(host).any(|(_, dir)| is_held(dir.join(CLEANING))) {
        thread::sleep(Duration::from_millis(20));
    }
}

fn entries(host: &Host) -> impl Iterator<Item = (SessionId, PathBuf)> {
    entries_of(&sessions_dir(host))
}

/// The sessions that have a directory here, dead or alive.
fn entries_of(dir: &Path) -> impl Iterator<Item = (SessionId, PathBuf)> + use<> {
    let list = fs::read_dir(dir).into_iter().flatten().flatten();
    list.filter_map(|entry| Some((SessionId::parse(entry.file_name().to_str()?)?, entry.path())))
}

/// The same, for a caller that holds the directory's lock.
fn look(host: &Host) -> (Vec<Live>, Vec<Dead>) {
    look_at(host, true)
}

fn look_at(host: &Host, dead_too: bool) -> (Vec<Live>, Vec<Dead>) {
    let mut live = Vec::new();
    let mut dead = Vec::new();
    for (id, dir) in entries(host).filter(|(_, dir)| !is_kept(dir)) {
        let record = Record::load(&dir).filter(|record| record.id == id);
        let is_dead = match fs::File::open(dir.join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            // A session without a lock file died while it was made, and one without a directory has just ended. Any
            // other failure, such as too many open files, says nothing about the session.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => true,
            Err(_) => continue,
        };
        if !is_dead {
            live.extend(record.map(|record| Live { record, dir }));
        } else if dead_too
            && let Ok(cleaning) = fs::File::create(dir.join(CLEANING))
            && cleaning.try_lock().is_ok()
        {
            dead.push(Dead { id, record, dir, _cleaning: cleaning });
        }
    }
    live.sort_by(|a, b| (a.record.started, &a.record.id).cmp(&(b.record.started, &b.record.id)));
    (live, dead)
}

/// Keeps the directory of a session that has ended: there is work in it that could not be taken over, for this reason.
pub(crate) fn keep(dir: &Path, reason: &str) -> anyhow::Result<()> {
    let path = dir.join(KEPT);
    replace(&path, reason.as_bytes()).with_context(|| format!("could not write `{}`", path.display()))
}

/// The directories that were kept, and why.
pub(crate) fn kept(host: &Host) -> Vec<(PathBuf, String)> {
    let reason = |dir: &Path| read_small(&dir.join(KEPT)).ok().flatten();
    entries(host).filter_map(|(_, dir)| reason(&dir).map(|reason| (dir, reason))).collect()
}

/// In the directory of a session that is neither live nor to be taken down.
const KEPT: &str = "kept";

/// Removes a session's directory. It first gets a name that is no session's: nobody is to find half of it.
///
/// # Errors
/// As the system has it; a directory that is gone already is no error.
pub(crate) fn remove(dir: &Path) -> std::io::Result<()> {
    let gone = dir.with_extension(GONE);
    match fs::rename(dir, &gone).and_then(|()| fs::remove_dir_all(&gone)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what killed processes have left of such directories.
pub(crate) fn remove_gone(host: &Host) {
    for entry in fs::read_dir(sessions_dir(host)).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == GONE) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

const GONE: &str = "gone";

/// Waits until the kernel has freed the lock of the session in this directory.
pub(crate) fn wait_for_end(dir: &Path) -> anyhow::Result<()> {
    if let Ok(lock) = fs::File::open(dir.join(LOCK)) {
        lock.lock()?;
    }
    Ok(())
}
