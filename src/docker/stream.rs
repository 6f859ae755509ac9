//! Commands with a stream into them, and containers that live as long as the launcher holds their stdin.

use std::{
    io::{BufRead as _, BufReader, BufWriter, Read as _, Write},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, bail};
use shared_child::SharedChild;

use super::{
    Cmd, Created, Docker,
    failure::Failure,
    remove_containers, render,
    run::{drain, lost, said},
};
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
        let child = Arc::new(self.hold(cmd)?);
        // Whoever waits for a child that has ended drops its stdin.
        let stdin = child.take_stdin().context("docker has no stdin")?;
        let (stdout, stderr) = (drain(child.take_stdout()), drain(child.take_stderr()));
        let watch = bound(&child, patience);
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
        let status = child.wait().with_context(|| lost(cmd));
        drop(travel);
        let is_late = watch.join().expect("waiting does not panic");
        if !is_broken {
            written?;
        }
        let status = status?;
        if is_late {
            return Err(Failure::Late(patience).explain(&cmd.purpose));
        }
        if status.success() {
            return Ok(said(&stdout).trim_end().to_owned());
        }
        Err(Failure::Refused { code: status.code(), stderr: said(&stderr) }.explain(&cmd.purpose))
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
        let child = Arc::new(self.hold(cmd)?);
        drop((child.take_stdin(), drain(child.take_stderr())));
        let mut stdout = child.take_stdout().context("docker has no stdout")?;
        let watch = bound(&child, patience);
        let travel = self.travel(&cmd.purpose);
        let copied = std::io::copy(&mut stdout, &mut travel.counting(to));
        drop(stdout);
        let status = child.wait().with_context(|| lost(cmd));
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
        let child = self.hold(&cmd)?;
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
        let said = report::one_line(said(&stderr).trim());
        bail!("could not {}: `{name}` did not come up: {said}", cmd.purpose)
    }
}

/// Ends a child that takes longer. Returns whether it did.
fn bound(child: &Arc<SharedChild>, patience: Duration) -> JoinHandle<bool> {
    let child = child.clone();
    thread::spawn(move || {
        let is_late = matches!(child.wait_timeout(patience), Ok(None));
        if is_late {
            let _ = child.kill();
        }
        is_late
    })
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
