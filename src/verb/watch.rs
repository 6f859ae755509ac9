//! The watcher: a second process of the session, which takes the session down if the launcher is killed.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{docker::Docker, launcher::Launcher, record, session, written::Written};

/// How long to retry while the engine is away. After that, the next `pi` removes the rest.
const PATIENCE: Duration = Duration::from_secs(600);

/// Waits until the launcher says that all is well, or ends. In the second case it takes the session down, and retries
/// while the engine does not let it.
pub(crate) fn run(launcher: &Launcher, dir: &Path) -> anyhow::Result<u8> {
    let host = &launcher.host;
    if !session::watch(host) {
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
        let Some(dead) = dead.into_iter().find(|dead| dead.dir == dir) else {
            if record::is_kept(dir) || begun.elapsed() > PATIENCE {
                return Ok(0);
            }
            // Somebody else is at it, or only looks.
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(10));
            continue;
        };
        match session::take_down(&dead, &docker, host) {
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => {}
            Ok(()) => {
                drop(dead);
                session::copy::bring_in_all(&docker, host, &|_| true);
                return Ok(0);
            }
        }
        drop(dead);
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}
