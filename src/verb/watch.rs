//! The second process of a session: it outlives a launcher that is killed, and takes the session down.

use std::{fs, path::Path, time::Duration};

use crate::{docker::Docker, launcher::Launcher, session, sweep, written::Written};

/// Waits for the launcher's word or its end; in the latter case takes the session down as the next `pi` would.
pub(crate) fn run(launcher: &Launcher, dir: &Path) -> anyhow::Result<u8> {
    let host = &launcher.host;
    if !session::watch() {
        return Ok(0);
    }
    let docker =
        Docker::find(host.var("PI_BOX_WATCH_DOCKER").unwrap_or("docker"), host, &Written::load(host))?
            .within(Duration::from_secs(30));
    // The kernel frees a dead process's lock a moment after its pipes.
    if let Ok(lock) = fs::File::open(dir.join("lock")) {
        lock.lock()?;
    }
    let (_, dead) = sweep::sessions(host)?;
    for session in dead {
        if dir.file_name().is_some_and(|name| name == session.id.as_str()) {
            session.take_down(&docker, host)?;
        }
    }
    Ok(0)
}
