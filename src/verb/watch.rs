//! The second process of a session: it outlives a launcher that is killed, and takes the session down.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{docker::Docker, launcher::Launcher, record, session, written::Written};

/// How long an engine may be away before what is left is the next `pi`'s to remove.
const PATIENCE: Duration = Duration::from_secs(600);

/// Waits for the launcher's word or its end; in the latter case takes the session down as the next `pi` would, and tries
/// again while the engine does not let it.
pub(crate) fn run(launcher: &Launcher, dir: &Path) -> anyhow::Result<u8> {
    let host = &launcher.host;
    if !session::watch() {
        return Ok(0);
    }
    let docker =
        Docker::find(host.var("PI_BOX_WATCH_DOCKER").unwrap_or("docker"), host, &Written::load(host))?
            .within(Duration::from_secs(30));
    let begun = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        if !dir.is_dir() {
            return Ok(0);
        }
        // The kernel frees a dead process's lock a moment after its pipes.
        record::wait_for_end(dir)?;
        let (_, dead) = record::all(host)?;
        let Some(dead) = dead.into_iter().find(|dead| dead.dir == dir) else { return Ok(0) };
        match session::take_down(&dead, &docker, host) {
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => {}
            Ok(()) => return Ok(0),
        }
        drop(dead);
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}
