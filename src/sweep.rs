//! Sessions whose process is gone: found by locks that can be taken, and taken down by their records alone.

use std::{fs, path::PathBuf, time::Duration};

use crate::{
    docker::Docker,
    host::{Engine, Host},
    plan::session::{Record, SessionId},
    report, scratch, session,
};

/// A session whose lock is ours now: nobody lives in it.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) id: SessionId,
    /// `None` where it died before it had made anything.
    pub(crate) record: Option<Record>,
    dir: PathBuf,
    _lock: Option<fs::File>,
}

/// A session that somebody runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) record: Record,
    pub(crate) dir: PathBuf,
}

/// The sessions of this user on this machine, told apart by their locks; the dead ones cannot come back.
pub(crate) fn sessions(host: &Host) -> anyhow::Result<(Vec<Live>, Vec<Dead>)> {
    let mut live = Vec::new();
    let mut dead = Vec::new();
    let Ok(list) = fs::read_dir(session::sessions_dir(host)) else { return Ok((live, dead)) };
    let found: Vec<_> = list
        .flatten()
        .filter_map(|entry| Some((SessionId::parse(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    if found.is_empty() {
        return Ok((live, dead));
    }
    let _directory = session::directory_lock(host)?;
    for (id, dir) in found {
        let record = || -> Option<Record> {
            serde_json::from_str(&fs::read_to_string(dir.join("session.json")).ok()?).ok()
        };
        match fs::File::open(dir.join("lock")) {
            Ok(lock) if lock.try_lock().is_ok() => {
                let record = record().filter(|record| record.id == id);
                dead.push(Dead { id, record, dir, _lock: Some(lock) });
            }
            // A directory without a lock died between two steps of its making; one that is gone has just ended. Any other
            // failure, such as too many open files, says nothing about the session.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => {
                dead.push(Dead { id, record: None, dir, _lock: None });
            }
            Err(_) => {}
            Ok(_) => live.extend(record().map(|record| Live { record, dir })),
        }
    }
    live.sort_by(|a, b| (a.record.started, &a.record.id).cmp(&(b.record.started, &b.record.id)));
    Ok((live, dead))
}

impl Dead {
    /// Takes the session down, on the engine that its record names.
    ///
    /// # Errors
    /// The engine does not answer or keeps something; the record stays for the next time.
    pub(crate) fn take_down(self, docker: &Docker, host: &Host) -> anyhow::Result<()> {
        if let Some(record) = &self.record {
            if record.engine != docker.address() {
                Engine::at(&record.engine, host.uid).check()?;
            }
            let docker = docker.at(&record.engine).within(Duration::from_secs(30));
            session::take_down_dead(&docker, &self.id)?;
            // Its agent may have lived until now.
            self.mend_login(host);
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn mend_login(&self, host: &Host) {
        if let Some(record) = &self.record {
            session::mend_login(&record.login, &self.dir, host);
        }
    }
}

/// What every start of `pi` does for those that ended badly. It finds nothing nearly always, and then costs a look into
/// one directory.
pub(crate) fn sweep(host: &Host, docker: &Docker) {
    scratch::sweep(host);
    let dead = match sessions(host) {
        Ok((_, dead)) => dead,
        Err(error) => return report::warn(format_args!("could not look for dead sessions: {error:#}")),
    };
    // First of all, and at once for all of them: the session that begins beside this reads the login in a moment, and an
    // engine may take long.
    for session in &dead {
        session.mend_login(host);
    }
    for session in dead {
        let (id, dir) = (session.id.clone(), session.dir.clone());
        let engine = session.record.as_ref().map(|record| Engine::at(&record.engine, host.uid));
        if let Err(error) = session.take_down(docker, host) {
            if engine.is_some_and(|engine| !engine.socket().exists()) {
                session::forget_login(&dir);
            }
            report::warn(format_args!(
                "could not remove what the dead session `{}` left: {error:#}",
                id.as_str()
            ));
        }
    }
}
