//! What a running launcher does for verbs that ask it over its control socket.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use signal_hook::consts::SIGTERM;

use super::{browser::Waiting, sidecar::Sidecar};
use crate::{
    control::{Answer, Request, Serve},
    docker::{Docker, end_marked},
    domain::Allowlist,
    egress::{self, Sources},
    host::Host,
    signals::Signals,
};

/// How long it may take to end what was started beside the agent.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far a session has come.
#[derive(Clone)]
pub(super) enum Phase {
    Starting,
    /// The agent's container has been started, behind this sidecar in a restricted session.
    Running(Option<Arc<Sidecar>>),
    Over,
}

/// The session as its control socket sees it.
pub(super) struct Steer {
    name: String,
    host: Host,
    signals: Signals,
    /// Where the allowlist comes from, in a restricted session. Held while it changes: one change at a time.
    sources: Mutex<Option<Sources>>,
    phase: Mutex<Phase>,
    /// Addresses that the session wants to have opened.
    pub(super) waiting: Waiting,
    changed: Condvar,
    docker: Docker,
    /// The agent's container.
    agent: String,
}

impl Steer {
    pub(super) fn new(
        name: &str,
        host: &Host,
        signals: &Signals,
        sources: Option<&Sources>,
        docker: &Docker,
        agent: String,
    ) -> Self {
        Self {
            name: name.to_owned(),
            docker: docker.clone(),
            agent,
            host: host.clone(),
            signals: signals.share(),
            sources: Mutex::new(sources.cloned()),
            phase: Mutex::new(Phase::Starting),
            waiting: Waiting::default(),
            changed: Condvar::new(),
        }
    }

    /// Notes how far the session has come, and wakes those who wait for it.
    pub(super) fn reached(&self, phase: Phase) {
        *held(&self.phase) = phase;
        self.changed.notify_all();
    }

    /// Waits until the session runs.
    ///
    /// # Errors
    /// It has ended.
    fn running(&self) -> anyhow::Result<Option<Arc<Sidecar>>> {
        let mut phase = held(&self.phase);
        loop {
            match &*phase {
                Phase::Starting => {}
                Phase::Running(sidecar) => return Ok(sidecar.clone()),
                Phase::Over => bail!("the session `{}` has ended", self.name),
            }
            phase = self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn restricted(&self) -> anyhow::Result<Arc<Sidecar>> {
        let sidecar = self.running()?.filter(|sidecar| sidecar.restricts());
        sidecar.with_context(|| format!("the session `{}` has no restricted network", self.name))
    }

    fn allow(&self, entries: &[String]) -> anyhow::Result<Answer> {
        let sidecar = self.restricted()?;
        let mut sources = held(&self.sources);
        let mut next = sources.clone().context("this session has no allowlist")?;
        next.allow
            .extend(entries.iter().filter(|entry| !next.allow.contains(entry)).cloned().collect::<Vec<_>>());
        let before = next.again()?;
        // With entries, those and nothing else: the agent may have written the file, and have asked for this very command.
        let list = if entries.is_empty() { next.reread()? } else { next.again()? };
        sidecar.change(&egress::render(&list, &self.host, &next.brokered)?)?;
        *sources = Some(next);
        let mut answer = Answer::default();
        if entries.is_empty() {
            answer.notes.push(format!("`{}` has read its allowlist again", self.name));
            tell_difference(&before, &list, &mut answer);
        } else {
            answer.notes.push(format!("`{}` may reach {}", self.name, entries.join(" ")));
        }
        Ok(answer)
    }

    fn try_answer(&self, request: Request) -> anyhow::Result<Answer> {
        match request {
            Request::Ready => self.running().map(|_| Answer::default()),
            Request::Allow(entries) => self.allow(&entries),
            Request::Blocked => {
                let refused = self.restricted()?.refused();
                Ok(Answer { data: refused.save(), ..Answer::default() })
            }
            Request::Stop => {
                self.signals.raise(SIGTERM);
                Ok(Answer::default())
            }
            Request::Addresses => Ok(Answer { data: self.waiting.take().join("\n"), ..Answer::default() }),
            Request::Log { .. } | Request::Entered(_) => Ok(Answer::default()),
        }
    }
}

impl Serve for Steer {
    fn answer(&self, request: Request) -> Answer {
        self.try_answer(request).unwrap_or_else(Answer::from)
    }

    fn end(&self, mark: &str) {
        // If it fails, the agent's container is gone, or will be.
        let _ = self.docker.try_run_within(&end_marked(&self.agent, mark), PATIENCE);
    }

    fn send_log(&self, follow: bool, to: &mut dyn Write) -> io::Result<()> {
        let Ok(Some(sidecar)) = self.running() else { return Ok(()) };
        let (so_far, more) = sidecar.read_log();
        to.write_all(&so_far)?;
        if !follow {
            return Ok(());
        }
        loop {
            match more.recv_timeout(Duration::from_secs(1)) {
                Ok(lines) => to.write_all(&lines)?,
                // Finds out whether anybody still reads.
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => to.flush()?,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

/// Says which entries came and went.
fn tell_difference(before: &Allowlist, now: &Allowlist, answer: &mut Answer) {
    let (came, gone) = now.difference(before);
    for entry in came {
        if entry.is_lan() {
            answer.warnings.push(format!(
                "`{entry}` is for sessions to come: the proxy lays the route to it before it starts"
            ));
        } else {
            answer.notes.push(format!("now allowed: `{entry}`"));
        }
    }
    answer.notes.extend(gone.iter().map(|entry| format!("no longer allowed: `{entry}`")));
}

fn held<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
