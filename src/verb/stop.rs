//! `pi stop`: asks the launchers of running sessions to end them.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::{
    control::{self, Request},
    docker::Docker,
    launcher::Launcher,
    record::{self, Dead, Live, Record},
    report::{self, Hinted},
    session,
    written::Written,
};

/// How long a launcher may take to clean up after its agent has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stops one session, or all of them; one that has lost its launcher, too.
pub(crate) fn run(launcher: &Launcher, name: Option<&str>) -> anyhow::Result<u8> {
    let host = &launcher.host;
    let (mut live, mut lost) = match name {
        Some(name) => match record::find(host, name) {
            Ok(one) => (vec![one], vec![]),
            Err(error) => (vec![], vec![record::lost_named(host, Some(name))?.ok_or(error)?]),
        },
        None => (record::live(host)?, record::all_lost(host)?),
    };
    if let Some(context) = &launcher.options.on {
        let engine = host.on(context)?.engine;
        live.retain(|session| session.record.engine == engine.address);
        lost.retain(|(_, record)| record.engine == engine.address);
    }
    if live.is_empty() && lost.is_empty() {
        report::note("no session is running");
        return Ok(0);
    }
    let left: Vec<String> = thread::scope(|scope| {
        let asked = live
            .iter()
            .map(|session| (session.record.name.clone(), scope.spawn(|| stop(launcher, session))))
            .collect::<Vec<_>>();
        let ended = lost.into_iter().map(|(dead, record)| {
            (record.name.clone(), scope.spawn(move || take_down(launcher, dead, &record)))
        });
        let all: Vec<_> = asked.into_iter().chain(ended.collect::<Vec<_>>()).collect();
        all.into_iter()
            .filter_map(|(name, thread)| {
                let error = thread.join().expect("stopping a session does not panic").err()?;
                Some(format!("{name}: {error:#}"))
            })
            .collect()
    });
    if !left.is_empty() {
        bail!("could not stop every session: {}", left.join("; "));
    }
    Ok(0)
}

/// Takes down a session on another engine that has lost its launcher, and brings its work in.
fn take_down(launcher: &Launcher, dead: Dead, record: &Record) -> anyhow::Result<()> {
    let host = &launcher.host;
    let written = Written::load(host).and_around(host);
    let docker = Docker::find(&launcher.config()?.docker, &host.back_at(&record.engine), &written)?;
    let docker = docker.heeding(&launcher.signals);
    session::take_down(&dead, &docker, host)?;
    drop(dead);
    session::copy::bring_in_all(&docker, host, &|copy| copy.engine == record.engine);
    Ok(())
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
