//! The watcher: a second process of the session, which takes the session down if the launcher is killed.

use std::{path::Path, time::Duration};

use crate::{docker::Docker, launcher::Launcher, record, session, written::Written};

/// Waits until the launcher says that all is well, or ends. In the second case it takes the session down.
pub(crate) fn run(launcher: &Launcher, dir: &Path) -> anyhow::Result<u8> {
    let host = &launcher.host;
    if !session::watch() {
        return Ok(0);
    }
    let docker =
        Docker::find(host.var("PI_BOX_WATCH_DOCKER").unwrap_or("docker"), host, &Written::load(host))?
            .within(Duration::from_secs(30));
    // The kernel frees a dead process's lock a moment after its pipes.
    record::wait_for_end(dir)?;
    let (_, dead) = record::all(host)?;
    for dead in dead.into_iter().filter(|dead| dead.dir == dir) {
        session::take_down(&dead, &docker, host)?;
    }
    Ok(0)
}
