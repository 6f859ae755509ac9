//! `pi stop`: asks the launchers of running sessions to end them.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::{
    control::{self, Request},
    launcher::Launcher,
    record::{self, Live},
    report::{self, Hinted},
};

/// How long a launcher may take to clean up after its agent has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stops one session, or all of them.
pub(crate) fn run(launcher: &Launcher, name: Option<&str>) -> anyhow::Result<u8> {
    let mut sessions = match name {
        Some(name) => vec![record::find(&launcher.host, name)?],
        None => record::live(&launcher.host)?,
    };
    if let Some(context) = &launcher.options.on {
        let engine = launcher.host.on(context)?.engine;
        sessions.retain(|session| session.record.engine == engine.address);
    }
    if sessions.is_empty() {
        report::note("no session is running");
        return Ok(0);
    }
    let left: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> =
            sessions.iter().map(|session| scope.spawn(|| stop(launcher, session))).collect();
        threads
            .into_iter()
            .zip(&sessions)
            .filter_map(|(thread, session)| {
                let error = thread.join().expect("stopping a session does not panic").err()?;
                Some(format!("{}: {error:#}", session.record.name))
            })
            .collect()
    });
    if !left.is_empty() {
        bail!("could not stop every session: {}", left.join("; "));
    }
    Ok(0)
}

/// Asks the session's launcher to end it, and waits.
fn stop(launcher: &Launcher, session: &Live) -> anyhow::Result<()> {
    let begun = Instant::now();
    // A launcher that hangs does not answer, but its lock shows when it ends.
    let asked = control::ask(session, &Request::Stop, &launcher.signals, Some(PATIENCE));
    launcher.signals.check()?;
    while begun.elapsed() < PATIENCE {
        if session.has_ended() {
            return Ok(());
        }
        launcher.signals.check()?;
        thread::sleep(Duration::from_millis(5));
    }
    let why = asked.err().map(|error| format!(" ({error:#})")).unwrap_or_default();
    Err(Hinted::error(
        format!("its launcher did not end within {} s{why}", PATIENCE.as_secs()),
        "end that `pi` process, with `kill -9` if necessary: its watcher cleans up",
    ))
}
