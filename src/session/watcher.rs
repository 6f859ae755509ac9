//! The process that outlives a launcher which is killed.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use nix::unistd::getpgrp;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{cli::WATCH, docker::Docker, host::Host};

/// A second process of the launcher's, in a process group of its own: when the launcher is killed, it takes the session down.
pub(super) struct Watcher {
    child: Child,
}

impl Watcher {
    pub(super) fn start(dir: &Path, docker: &Docker) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("could not find the launcher's own program")?;
        let child = Command::new(program)
            .arg(WATCH)
            .arg(dir)
            .env("PI_BOX_WATCH_DOCKER", docker.program())
            .env(GROUP, getpgrp().to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // From its first moment, or what kills the launcher's process group could kill this too.
            .process_group(0)
            .spawn()
            .context("could not start the watch over the session")?;
        Ok(Self { child })
    }

    /// Tells the watcher that there is nothing left to do, and waits for its end.
    pub(super) fn dismiss(mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(DISMISSED);
        }
        let _ = self.child.wait();
    }
}

const DISMISSED: &[u8] = b"done";

/// The launcher's process group, for the watcher.
const GROUP: &str = "PI_BOX_WATCH_GROUP";

/// The watcher's whole life: waits for the launcher's word or its end. Returns whether the session is to be taken down.
pub(crate) fn watch(host: &Host) -> bool {
    let mut word = Vec::new();
    let _ = io::stdin().lock().read_to_end(&mut word);
    let was_killed = word != DISMISSED;
    // The kernel takes group 1 for everybody.
    let group = host.var(GROUP).and_then(|text| text.parse().ok()).filter(|group| *group > 1);
    if was_killed && let Some(group) = group.and_then(Pid::from_raw) {
        // A client that the launcher held at that moment would stay stopped for ever.
        let _ = kill_process_group(group, Signal::CONT);
    }
    was_killed
}
