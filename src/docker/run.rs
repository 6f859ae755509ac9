//! How a command runs: with a deadline, on the launcher's own streams, or with the caller's pipes.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use shared_child::SharedChild;

use super::{Cmd, Docker, Shown, failure::Failure};
use crate::{
    child,
    report::{self, Interrupted},
    terminal::Kept,
};

/// How much a command may print. What an engine says about all that it has is far less.
const OUTPUT: u64 = 128 << 20;

/// How the wait for a command ended.
enum Waited {
    Ended(ExitStatus),
    Late,
    Interrupted(Interrupted),
}

impl Docker {
    /// Runs a command to its end and returns its output. The error says what failed, and docker's message.
    pub(crate) fn run(&self, cmd: &Cmd) -> anyhow::Result<String> {
        self.try_run(cmd).map_err(|failure| failure.explain(&cmd.purpose))
    }

    /// Runs a command to its end, within the deadline.
    pub(crate) fn try_run(&self, cmd: &Cmd) -> Result<String, Failure> {
        self.try_run_within(cmd, self.deadline)
    }

    /// Runs a command to its end, within a deadline of its own.
    pub(crate) fn try_run_within(&self, cmd: &Cmd, deadline: Duration) -> Result<String, Failure> {
        let outcome = self.run_once(cmd, deadline);
        if !outcome.as_ref().is_err_and(Failure::is_unheard) {
            self.known.heard.store(true, Ordering::SeqCst);
        }
        outcome
    }

    fn run_once(&self, cmd: &Cmd, deadline: Duration) -> Result<String, Failure> {
        // An engine that hangs is asked once more, but not for long.
        let deadline = if self.hangs() { deadline.min(ONCE_MORE) } else { deadline };
        let mut command = self.command(cmd);
        // It gets a process group of its own, so that a Ctrl-C does not end it half-way.
        let lock = self.lock.as_deref().map(File::try_clone).transpose().map_err(Failure::NotStarted)?;
        command.stdin(lock.map_or_else(Stdio::null, Stdio::from));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // `PI_BOX_DEADLINE` may be shorter than the caller's deadline.
        let deadline = deadline.min(self.deadline);
        let child = SharedChild::spawn(&mut command).map_err(Failure::NotStarted)?;
        let stdout = drain(child.take_stdout());
        let stderr = drain(child.take_stderr());
        let begun = Instant::now();
        let waited = self.wait(&child, cmd, begun, deadline).map_err(Failure::NotStarted)?;
        let status = match waited {
            Waited::Ended(status) => status,
            Waited::Late | Waited::Interrupted(_) => {
                // The program may be a script, whose child would hold the session's lock. So the whole group must end.
                child::kill_group(&child);
                let _ = child.kill();
                let _ = child.wait();
                if cmd.makes_something() {
                    self.known.late.store(true, Ordering::SeqCst);
                }
                if begun.elapsed() >= ONCE_MORE.min(deadline) {
                    self.known.hangs.store(true, Ordering::SeqCst);
                }
                return Err(match waited {
                    Waited::Interrupted(signal) => Failure::Interrupted(signal),
                    _ => Failure::Late(deadline),
                });
            }
        };
        self.known.hangs.store(false, Ordering::SeqCst);
        let (said, complaint) = (said(&stdout), said(&stderr));
        if status.success() {
            // Docker warns about a limit that this kernel does not know, for example. The user should know that.
            for line in complaint.lines() {
                if let Some(warning) = line.trim().strip_prefix("WARNING: ") {
                    report::warn(format_args!("docker says: {warning}"));
                }
            }
            Ok(said.trim_end().to_owned())
        } else {
            Err(Failure::Refused { code: status.code(), stderr: complaint })
        }
    }

    /// Waits for a command's end, which has begun at this moment.
    fn wait(&self, child: &SharedChild, cmd: &Cmd, begun: Instant, deadline: Duration) -> io::Result<Waited> {
        let grace = self.heeds.as_ref().zip(cmd.grace());
        let mut told = false;
        let mut signalled = None;
        loop {
            let left = deadline.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(Waited::Late);
            }
            let until_told = if told { left } else { SAY_SO.saturating_sub(begun.elapsed()) };
            let pause = left.min(until_told).max(Duration::from_millis(1));
            let pause = if grace.is_some() { pause.min(OFTEN) } else { pause };
            if let Some(status) = child.wait_timeout(pause)? {
                return Ok(Waited::Ended(status));
            }
            if !told && begun.elapsed() >= SAY_SO {
                told = true;
                if self.aside {
                    continue;
                }
                report::note(format_args!("docker has not answered yet; still waiting to {}", cmd.purpose));
            }
            if let Some((flag, grace)) = grace
                && let Err(signal) = flag.check()
                && signalled.get_or_insert_with(Instant::now).elapsed() >= grace
            {
                return Ok(Waited::Interrupted(signal));
            }
        }
    }

    /// Runs a command on the launcher's own streams, without a deadline. If its output on stderr begins with a
    /// complaint of docker's, that is returned instead of shown.
    ///
    /// The command stays in the launcher's process group, so that it can read the terminal.
    pub(crate) fn attach(
        &self,
        cmd: &Cmd,
        silent: bool,
        running: impl FnOnce(Arc<SharedChild>),
    ) -> anyhow::Result<Shown> {
        let terminal = if silent { None } else { Kept::now(self.draws) };
        let mut command = self.command(cmd);
        command.stderr(Stdio::piped());
        if silent {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        let child = Arc::new(started(&mut command, cmd)?);
        running(child.clone());
        let complaint = child.take_stderr().map(complaint).unwrap_or_default();
        let status = child.wait().with_context(|| lost(cmd))?;
        if let Some(terminal) = terminal {
            terminal.restore();
        }
        Ok(Shown::new(status, complaint))
    }

    /// Starts a command whose stdin and stdout the caller holds.
    pub(super) fn hold(&self, cmd: &Cmd) -> anyhow::Result<SharedChild> {
        let mut command = self.command(cmd);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        started(&mut command, cmd)
    }

    /// Runs a long command in the foreground, where a Ctrl-C ends it, for at most `patience`. Its output goes to
    /// `sink`.
    pub(crate) fn foreground(
        &self,
        cmd: &Cmd,
        patience: Option<Duration>,
        running: impl FnOnce(Arc<SharedChild>),
        sink: impl Fn(&[u8]) + Send + Sync,
    ) -> anyhow::Result<ExitStatus> {
        let mut command = self.command(cmd);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // One that builds or pulls has work of its own.
        command.env_remove("GOMAXPROCS");
        let child = Arc::new(started(&mut command, cmd)?);
        running(child.clone());
        watch(&child, cmd, patience, &sink)
    }
}

fn started(command: &mut Command, cmd: &Cmd) -> anyhow::Result<SharedChild> {
    SharedChild::spawn(command).with_context(|| format!("could not {}: could not run docker", cmd.purpose))
}

/// The message where the program is no child of ours any more.
pub(super) fn lost(cmd: &Cmd) -> String {
    format!("could not {}: lost the docker program", cmd.purpose)
}

/// Passes on what a child prints until it ends, for at most `patience`.
fn watch(
    child: &SharedChild,
    cmd: &Cmd,
    patience: Option<Duration>,
    sink: &(impl Fn(&[u8]) + Sync),
) -> anyhow::Result<ExitStatus> {
    thread::scope(|scope| {
        if let Some(stdout) = child.take_stdout() {
            scope.spawn(|| copy(stdout, sink));
        }
        if let Some(stderr) = child.take_stderr() {
            scope.spawn(|| copy(stderr, sink));
        }
        let Some(patience) = patience else { return child.wait().with_context(|| lost(cmd)) };
        if let Some(status) = child.wait_timeout(patience).with_context(|| lost(cmd))? {
            return Ok(status);
        }
        let _ = child.kill();
        let _ = child.wait();
        bail!("could not {}: it did not end within {} minutes", cmd.purpose, patience.as_secs() / 60)
    })
}

/// Passes on a client's stderr. A complaint of docker's at the beginning is returned instead.
fn complaint(mut stderr: impl Read) -> String {
    let mut held = Vec::new();
    let mut holding = None;
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = stderr.read(&mut buffer) {
        let bytes = &buffer[..n];
        if *holding.get_or_insert_with(|| bytes.starts_with(b"Error response from daemon")) {
            held.extend_from_slice(bytes);
        } else {
            report::progress(bytes);
        }
        // Docker's complaints are shorter, so this text is the agent's.
        if held.len() > 4096 {
            report::progress(&held);
            held.clear();
            holding = Some(false);
        }
    }
    String::from_utf8_lossy(&held).into_owned()
}

fn copy(mut from: impl Read, sink: &dyn Fn(&[u8])) {
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        sink(&buffer[..n]);
    }
}

/// Reads what a child prints, in a thread.
pub(super) fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<(Vec<u8>, bool)> {
    child::drain(pipe, OUTPUT)
}

/// What a child has printed that has ended. Its helpers may still hold the pipe.
pub(super) fn said(pipe: &mpsc::Receiver<(Vec<u8>, bool)>) -> String {
    let (bytes, _) = pipe.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How long an engine that did not answer in time may take for what comes next.
const ONCE_MORE: Duration = Duration::from_secs(3);

/// How often to look for a signal.
const OFTEN: Duration = Duration::from_millis(30);

/// When to tell a waiting user what the launcher waits for.
const SAY_SO: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_ends_where_its_time_does() {
        let run = |script: &str, patience: f32| {
            let mut shell = Command::new("/bin/sh");
            let child = SharedChild::spawn(shell.args(["-c", script])).unwrap();
            let pull = Cmd::new("pull the image `x`", &[]);
            watch(&child, &pull, Some(Duration::from_secs_f32(patience)), &|_: &[u8]| {})
        };
        assert_eq!(run("exit 3", 60.0).unwrap().code(), Some(3));
        let error = run("exec sleep 600", 0.1).unwrap_err();
        assert_eq!(error.to_string(), "could not pull the image `x`: it did not end within 0 minutes");
    }
}
