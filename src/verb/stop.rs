//! `pi stop`: ends sessions that run in other terminals; their launchers take them down.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::{
    docker::{self, Docker},
    launcher::Launcher,
    record::{self, Live},
    report,
    written::Written,
};

/// How long a launcher may take to clean up after its agent has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stops one session, or every one.
pub(crate) fn run(launcher: &Launcher, name: Option<&str>) -> anyhow::Result<u8> {
    let config = launcher.config()?;
    let sessions = match name {
        Some(name) => vec![record::find(&launcher.host, name)?],
        None => record::all(&launcher.host)?.0,
    };
    if sessions.is_empty() {
        report::note("no session is running");
        return Ok(0);
    }
    let docker = Docker::find(&config.docker, &launcher.host, &Written::load(&launcher.host))?;
    let left: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = sessions.iter().map(|session| scope.spawn(|| stop(&docker, session))).collect();
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

fn stop(docker: &Docker, session: &Live) -> anyhow::Result<()> {
    let docker = docker.at(&session.record.engine);
    let stop = docker::stop(&session.record.id.agent());
    docker.gone(&stop)?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if session.has_ended() {
            return Ok(());
        }
        // A session that was still being built had no agent to stop; it may have one by now.
        thread::sleep(Duration::from_millis(50));
        let _ = docker.try_run(&stop);
    }
    bail!("its launcher did not end within {} s", PATIENCE.as_secs())
}
