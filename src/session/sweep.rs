//! Sessions whose process is gone: taken down by their records alone.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    away,
    commits::{may_have_commits, settle_dead},
    copy::bring_in_all,
    left::look,
    settings::keep_of_dead,
    teardown::take_down_by_id,
};
use crate::{
    docker::Docker,
    host::Host,
    record::{self, Dead, Record},
    report::{self, Interrupted},
    scratch,
    signals::Signals,
};

/// Takes a dead session down, on the engine that its record names.
///
/// # Errors
/// The engine does not answer or keeps something; the record stays for the next time.
pub(crate) fn take_down(dead: &Dead, docker: &Docker, host: &Host) -> anyhow::Result<()> {
    let engine = engine(dead, docker);
    if engine != docker.address() {
        host.engine_at(engine).check()?;
    }
    let docker = docker.at(engine).within(Duration::from_secs(30));
    take_down_by_id(&docker, &dead.id)?;
    away::fetch(&docker, host, &dead.dir)?;
    keep_of_dead(dead.record.as_ref(), &dead.dir, host);
    if let Some(record) = &dead.record {
        look(&dead.dir, &record.repository, host);
    }
    if settle_dead(&dead.dir, &docker, host)? {
        record::remove(&dead.dir)?;
    }
    Ok(())
}

/// How long an agent may go on that has lost its launcher, on another engine.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long an engine may take to say whether an agent lives.
const ANSWER: Duration = Duration::from_secs(10);

/// Whether a dead session is one that somebody can come back to: its agent lives.
///
/// # Errors
/// The engine does not say.
fn lives_on(dead: &Dead, docker: &Docker) -> anyhow::Result<bool> {
    if dead.lost_for().is_none_or(|time| time >= LONGEST) {
        return Ok(false);
    }
    docker.at(engine(dead, docker)).within(ANSWER).runs(&dead.id.agent())
}

/// The engine of a dead session. A record that was lost says nothing, but the directory has the id for its name.
pub(crate) fn engine<'a>(dead: &'a Dead, docker: &'a Docker) -> &'a str {
    dead.record.as_ref().map_or(docker.address(), |record| &record.engine)
}

/// Takes over what killed sessions of this repository have left, before another one begins with what it finds there. What
/// is on another engine comes later: that one may hang.
pub(crate) fn bring_in(repository: &Path, docker: &Docker, host: &Host) {
    let Ok((_, dead)) = record::all(host) else { return };
    let is_of = |dead: &Dead| {
        let here = |record: &Record| record.repository == repository && record.engine == docker.address();
        dead.record.as_ref().is_some_and(here)
    };
    for dead in dead.into_iter().filter(|dead| is_of(dead) && may_have_commits(&dead.dir)) {
        if let Err(error) = take_down(&dead, docker, host)
            && !error.is::<Interrupted>()
        {
            report::warn(failure(&dead, &error));
        }
    }
}

/// What every start of `pi` does for those that ended badly, beside its own session. It finds nothing nearly always, and
/// then costs a look into one directory.
pub(crate) struct Sweep {
    thread: thread::JoinHandle<()>,
    /// What went wrong, for the end: the terminal is the agent's until then.
    failed: Arc<Mutex<Vec<String>>>,
    /// Since when another engine than the session's own is asked for something.
    elsewhere: Arc<Mutex<Option<Instant>>>,
}

/// How long a session that has ended waits for the sweep of its own engine.
const MOMENTS: Duration = Duration::from_secs(2);

/// How long another engine may take, counted from when it was asked. A session that lasts longer waits for none.
const MOMENT: Duration = Duration::from_secs(1);

impl Sweep {
    pub(crate) fn start(host: &Host, docker: &Docker) -> Self {
        let (host, docker) = (host.clone(), docker.aside());
        let (failed, elsewhere) = (Arc::default(), Arc::default());
        let (failures, since) = (Arc::clone(&failed), Arc::clone(&elsewhere));
        let thread = thread::spawn(move || sweep(&host, &docker, &failures, &since));
        Self { thread, failed, elsewhere }
    }

    /// Waits for its end, for a moment and until a signal comes. An engine that hangs holds up nobody.
    pub(crate) fn settle(self, signals: &Signals) {
        let begun = Instant::now();
        let hangs = || held(&self.elsewhere).is_some_and(|since| since.elapsed() >= MOMENT);
        while !self.thread.is_finished() && !hangs() && begun.elapsed() < MOMENTS && signals.check().is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
        held(&self.failed).drain(..).for_each(report::warn);
    }
}

fn sweep(host: &Host, docker: &Docker, failed: &Mutex<Vec<String>>, elsewhere: &Mutex<Option<Instant>>) {
    let fails = |what: String| held(failed).push(what);
    scratch::sweep(host);
    record::remove_gone(host);
    let dead = match record::all(host) {
        Ok((_, dead)) => dead,
        Err(error) => return fails(format!("could not look for dead sessions: {error:#}")),
    };
    let is_here = |dead: &Dead| engine(dead, docker) == docker.address();
    let (here, there): (Vec<Dead>, Vec<Dead>) = dead.into_iter().partition(is_here);
    let end = |dead: Dead| match lives_on(&dead, docker) {
        Ok(true) => fails(abandoned(&dead)),
        Ok(false) => {
            if let Err(error) = take_down(&dead, docker, host) {
                fails(failure(&dead, &error));
            }
        }
        // An engine that is only slow still has the agent.
        Err(error) => fails(failure(&dead, &error)),
    };
    here.into_iter().for_each(end);
    bring_in_all(docker, host, &|copy| copy.engine == docker.address());
    for dead in there {
        *held(elsewhere) = Some(Instant::now());
        end(dead);
        *held(elsewhere) = None;
    }
    *held(elsewhere) = Some(Instant::now());
    bring_in_all(docker, host, &|copy| copy.engine != docker.address());
    *held(elsewhere) = None;
}

fn held<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure(dead: &Dead, error: &anyhow::Error) -> String {
    format!("could not remove what the dead session `{}` left: {error:#}", dead.id.as_str())
}

fn abandoned(dead: &Dead) -> String {
    let name = dead.record.as_ref().map_or(dead.id.as_str(), |record| &record.name);
    format!(
        "the session `{name}` has lost its launcher, and its agent lives: `pi attach {name}` comes back to it, and `pi stop \
         {name}` ends it"
    )
}
