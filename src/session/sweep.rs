//! Sessions whose process is gone: taken down by their records alone.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    commits::{may_have_commits, settle_dead},
    copy::bring_in_all,
    left::look,
    settings::keep_of_dead,
    teardown::take_down_by_id,
};
use crate::{
    docker::Docker,
    host::{Engine, Host},
    record::{self, Dead},
    report, scratch,
    signals::Signals,
};

/// Takes a dead session down, on the engine that its record names.
///
/// # Errors
/// The engine does not answer or keeps something; the record stays for the next time.
pub(crate) fn take_down(dead: &Dead, docker: &Docker, host: &Host) -> anyhow::Result<()> {
    // A record that was lost says nothing, but the directory has the id for its name.
    let engine = dead.record.as_ref().map_or(docker.address(), |record| &record.engine);
    if engine != docker.address() {
        Engine::at(engine, host.uid).check()?;
    }
    let docker = docker.at(engine).within(Duration::from_secs(30));
    take_down_by_id(&docker, &dead.id)?;
    keep_of_dead(dead.record.as_ref(), &dead.dir, host);
    if let Some(record) = &dead.record {
        look(&dead.dir, &record.repository, host);
    }
    if settle_dead(&dead.dir, &docker, host)? {
        record::remove(&dead.dir)?;
    }
    Ok(())
}

/// Takes over what killed sessions of this repository have left, before another one begins with what it finds there.
pub(crate) fn bring_in(repository: &Path, docker: &Docker, host: &Host) {
    let Ok((_, dead)) = record::all(host) else { return };
    let is_of = |dead: &Dead| dead.record.as_ref().is_some_and(|record| record.repository == repository);
    for dead in dead.into_iter().filter(|dead| is_of(dead) && may_have_commits(&dead.dir)) {
        if let Err(error) = take_down(&dead, docker, host) {
            tell(&dead, &error);
        }
    }
}

/// What every start of `pi` does for those that ended badly, beside its own session. It finds nothing nearly always, and
/// then costs a look into one directory.
pub(crate) struct Sweep(thread::JoinHandle<()>);

/// How long a session that has ended waits for the sweep. An engine that hangs must hold up nobody.
const MOMENTS: Duration = Duration::from_secs(2);

impl Sweep {
    pub(crate) fn start(host: &Host, docker: &Docker) -> Self {
        let (host, docker) = (host.clone(), docker.clone());
        Self(thread::spawn(move || sweep(&host, &docker)))
    }

    /// Waits for its end, for a moment and until a signal comes.
    pub(crate) fn settle(self, signals: &Signals) {
        let begun = Instant::now();
        while !self.0.is_finished() && begun.elapsed() < MOMENTS && signals.check().is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn sweep(host: &Host, docker: &Docker) {
    scratch::sweep(host);
    record::remove_gone(host);
    let dead = match record::all(host) {
        Ok((_, dead)) => dead,
        Err(error) => return report::warn(format_args!("could not look for dead sessions: {error:#}")),
    };
    for dead in dead {
        if let Err(error) = take_down(&dead, docker, host) {
            tell(&dead, &error);
        }
    }
    bring_in_all(docker, host);
}

fn tell(dead: &Dead, error: &anyhow::Error) {
    report::warn(format_args!(
        "could not remove what the dead session `{}` left: {error:#}",
        dead.id.as_str()
    ));
}
