//! Commands with a stream into them, and containers that live as long as the launcher holds their stdin.

use std::{
    io::{BufRead as _, BufReader, BufWriter, Read as _, Write},
    os::unix::process::CommandExt as _,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use shared_child::SharedChild;

use super::{Cmd, Created, Docker, failure::Failure, program::drain, remove_containers, render};
use crate::{inside::UP, plan::Container, report};

/// How long a container may take to say that it is up, and to end.
const MOMENTS: Duration = Duration::from_secs(30);

impl Docker {
    /// Runs a command to its end within `patience`, and writes into its stdin meanwhile. Returns what it printed.
    ///
    /// # Errors
    /// It cannot be started, says no, or does not end; or the writer fails.
    pub(crate) fn feed(
        &self,
        cmd: &Cmd,
        patience: Duration,
        write: &mut dyn FnMut(&mut dyn Write) -> anyhow::Result<()>,
    ) -> anyhow::Result<String> {
        let mut command = self.command(cmd);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = Arc::new(
            SharedChild::spawn(&mut command)
                .map_err(Failure::NotStarted)
                .map_err(|failure| failure.explain(&cmd.purpose))?,
        );
        // Whoever waits for a child that has ended drops its stdin.
        let stdin = child.take_stdin().context("docker has no stdin")?;
        let (stdout, stderr) = (drain(child.take_stdout()), drain(child.take_stderr()));
        let late = Arc::new(AtomicBool::new(false));
        let watch = {
            let (child, late) = (child.clone(), late.clone());
            thread::spawn(move || {
                if matches!(child.wait_timeout(patience), Ok(None)) {
                    late.store(true, Ordering::SeqCst);
                    let _ = child.kill();
                }
            })
        };
        let travel = self.travel(&cmd.purpose);
        let mut out = BufWriter::with_capacity(1 << 18, travel.counting(stdin));
        let written = write(&mut out).and_then(|()| Ok(out.flush()?));
        // Without what is in the buffer still, where writing has failed.
        drop(out.into_parts());
        let broken = written.as_ref().err().and_then(|error| error.downcast_ref::<std::io::Error>());
        let is_broken = broken.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        if written.is_err() && !is_broken {
            let _ = child.kill();
        }
        let status =
            child.wait().with_context(|| format!("could not {}: lost the docker program", cmd.purpose));
        drop(travel);
        watch.join().expect("waiting does not panic");
        if !is_broken {
            written?;
        }
        let status = status?;
        if late.load(Ordering::SeqCst) {
            return Err(Failure::Late(patience).explain(&cmd.purpose));
        }
        let said =
            |pipe: mpsc::Receiver<Vec<u8>>| pipe.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if status.success() {
            return Ok(text(said(stdout)).trim_end().to_owned());
        }
        Err(Failure::Refused { code: status.code(), stderr: text(said(stderr)) }.explain(&cmd.purpose))
    }

    /// Runs a container to its end within `patience`, and returns what it printed.
    ///
    /// # Errors
    /// The engine says no, or the container fails or does not end. It is gone then, too.
    pub(crate) fn answer(&self, container: &Container, patience: Duration) -> anyhow::Result<String> {
        let made = self.create(container)?;
        anyhow::ensure!(made == Created::Yes, "the image `{}` is gone already", container.image);
        self.feed(&render::attach(container), patience, &mut |_| Ok(()))
            .inspect_err(|_| self.halt_now(&container.name))
    }

    /// Passes on what a command prints, within `patience`. Says whether the command ended well.
    ///
    /// # Errors
    /// It cannot be started, or `to` does not take it.
    pub(crate) fn pass_on(&self, cmd: &Cmd, patience: Duration, to: &mut dyn Write) -> anyhow::Result<bool> {
        let mut command = self.command(cmd);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let child = Arc::new(
            SharedChild::spawn(&mut command)
                .map_err(Failure::NotStarted)
                .map_err(|failure| failure.explain(&cmd.purpose))?,
        );
        let mut stdout = child.take_stdout().context("docker has no stdout")?;
        let watch = {
            let child = child.clone();
            thread::spawn(move || {
                if matches!(child.wait_timeout(patience), Ok(None)) {
                    let _ = child.kill();
                }
            })
        };
        let travel = self.travel(&cmd.purpose);
        let copied = std::io::copy(&mut stdout, &mut travel.counting(to));
        drop(stdout);
        let status =
            child.wait().with_context(|| format!("could not {}: lost the docker program", cmd.purpose));
        watch.join().expect("waiting does not panic");
        copied?;
        Ok(status?.success())
    }

    /// Starts a container that prints [`UP`], and waits for that.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) fn hold_up(&self, container: &Container) -> anyhow::Result<Up> {
        let cmd = render::attach(container);
        let mut command = self.command(&cmd);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = SharedChild::spawn(&mut command)
            .map_err(Failure::NotStarted)
            .map_err(|failure| failure.explain(&cmd.purpose))?;
        let stderr = drain(child.take_stderr());
        let (send, receive) = mpsc::channel();
        let stdout = child.take_stdout().context("docker has no stdout")?;
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout.take(1 << 16));
            let mut line = String::new();
            let _ = lines.read_line(&mut line);
            let _ = send.send(line);
        });
        let up = Up { docker: self.clone(), name: container.name.clone(), child };
        if receive.recv_timeout(MOMENTS).is_ok_and(|line| line.trim_end() == UP) {
            return Ok(up);
        }
        let name = up.name.clone();
        drop(up);
        let said = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        bail!(
            "could not {}: `{name}` did not come up: {}",
            cmd.purpose,
            report::one_line(String::from_utf8_lossy(&said).trim())
        )
    }
}

/// A container that is up. It ends, and is removed, when this value is dropped or the launcher ends.
pub(crate) struct Up {
    docker: Docker,
    name: String,
    child: SharedChild,
}

impl Up {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.child.take_stdin());
        if !matches!(self.child.wait_timeout(MOMENTS), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // Mostly the engine has removed it before its client has ended.
        let _ = self.docker.gone_within(&remove_containers(std::slice::from_ref(&self.name)), MOMENTS);
    }
}
