//! Taking a session down: from its id alone, and as often as it takes.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use super::{
    TEARDOWN, away,
    commits::{Commits, Following, InVain},
    left::look,
    settings::keep,
    sidecar::Sidecar,
    watcher::Watcher,
};
use crate::{
    agent_dir::staged::Stage,
    docker::{self, Cmd, Docker},
    host::Host,
    record::{self, SessionId},
    refused::say_at_exit,
    report::{self, Finding},
};

/// How much of a session there can still be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Anything that an id names.
    Everything,
    /// The agent's container is known to be gone.
    WithoutAgent,
    /// All containers are known to be gone.
    WithoutContainers,
    /// The network, too, or there was none.
    Nothing,
}

/// Takes the session down, whatever became of it.
pub(super) struct Teardown<'a> {
    pub(super) docker: &'a Docker,
    pub(super) host: &'a Host,
    pub(super) id: SessionId,
    pub(super) dir: PathBuf,
    /// The work tree.
    pub(super) root: PathBuf,
    /// The allowlist, where another than the usual one was named.
    pub(super) list: Option<PathBuf>,
    /// What a set-up command is changing.
    pub(super) packages: Option<Stage>,
    /// Why that was not taken over.
    pub(super) refused: Option<anyhow::Error>,
    /// What takes over the agent's commits.
    pub(super) commits: Option<Following>,
    pub(super) extent: Extent,
    pub(super) watcher: Option<Watcher>,
    pub(super) sidecar: Option<Arc<Sidecar>>,
    /// Whether it is left as it is: somebody can come back to it.
    pub(super) lives_on: bool,
    pub(super) done: bool,
}

impl Teardown<'_> {
    pub(super) fn finish(&mut self) {
        if self.done {
            return;
        }
        self.done = true;
        // What was asked of an engine that hangs is not waited for; its answer is for the next launcher.
        let commits = self.commits.take().map(|following| following.end(|| self.docker.hangs()));
        let sidecar = self.sidecar.take();
        let has_ended = sidecar.as_ref().is_some_and(|sidecar| sidecar.end(self.docker));
        if has_ended && self.extent == Extent::WithoutAgent {
            self.extent = Extent::WithoutContainers;
        }
        if self.lives_on {
            if let Some(sidecar) = sidecar {
                say_at_exit(&sidecar.finish(self.host), self.list.as_deref());
            }
            if let Some(watcher) = self.watcher.take() {
                watcher.dismiss();
            }
            return;
        }
        let left = if self.docker.was_heard() {
            take_down(self.docker, &self.id, self.extent)
                .and_then(|()| away::fetch(self.docker, self.host, &self.dir))
        } else {
            // An engine that does not answer has nothing of ours, and would not answer now either.
            Ok(())
        };
        if let Some(sidecar) = sidecar {
            say_at_exit(&sidecar.finish(self.host), self.list.as_deref());
        }
        if left.is_ok() {
            self.refused = keep(&self.dir, self.host, self.packages.take()).err();
            look(&self.dir, &self.root, self.host);
        }
        let is_empty = left.is_ok() && self.take_over(commits);
        match left {
            Ok(()) if !is_empty => {}
            Ok(()) if self.docker.was_late() => Finding::hinted(
                "the engine left a command of this session without an answer, and may still carry it out",
                "the next `pi`, or `pi clean`, looks whether something came of it",
            )
            .warn(),
            Ok(()) => {
                if let Err(error) = record::remove(&self.dir) {
                    report::warn(format_args!("could not remove `{}`: {error}", self.dir.display()));
                }
            }
            Err(error) => {
                // The watcher finds the launcher gone and something left, and goes on.
                self.watcher = None;
                let running = match self.extent {
                    Extent::Everything => " (the agent may still be running)",
                    _ => "",
                };
                Finding::hinted(
                    format!("something of this session is left{running}: {error:#}"),
                    if report::is_full(&error) {
                        "nothing is lost: make room on the disk of that file, and the next `pi`, or `pi clean`, goes on"
                    } else {
                        "a second process removes it when the engine answers; the next `pi` and `pi clean` do, too"
                    },
                )
                .warn();
            }
        }
        if let Some(watcher) = self.watcher.take() {
            watcher.dismiss();
        }
    }
}

impl Teardown<'_> {
    /// Takes over the agent's commits, if it could make some. Returns whether the session's directory holds nothing of
    /// value any more.
    fn take_over(&self, commits: Option<Result<Commits, InVain>>) -> bool {
        let settled = match commits {
            None => return true,
            Some(Err(InVain)) => Err(anyhow::anyhow!("the engine does not answer")),
            Some(Ok(mut commits)) => commits.settle(self.extent == Extent::Everything),
        };
        settled.unwrap_or_else(|error| {
            Finding::hinted(
                format!("the agent's commits did not come over: {error:#}"),
                "nothing is lost: the next `pi`, or `pi clean`, tries it again",
            )
            .warn();
            false
        })
    }
}

impl Drop for Teardown<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Removes what a session can have on an engine; repeated until it is gone or has failed too often, since an engine may
/// be removing the same things at this moment.
///
/// # Errors
/// What the last round could not remove.
fn take_down(docker: &Docker, id: &SessionId, extent: Extent) -> anyhow::Result<()> {
    let whole = extent == Extent::Everything;
    let mut extent = extent;
    let mut last = Ok(());
    for pause in [0, 20, 80, 400, 1600, 3000] {
        thread::sleep(Duration::from_millis(pause));
        if pause > 20 {
            // One that was given another name keeps the network in use.
            let _ = remove_by_label(docker, id);
        }
        // Somebody may have given a container another name.
        let renamed = || if whole { remove_by_label(docker, id) } else { Ok(()) };
        last = one_round(docker, id, extent).and_then(|()| renamed());
        if last.is_ok() || docker.hangs() {
            break;
        }
        extent = Extent::Everything;
    }
    last
}

/// Takes a dead session down, and what an engine that was killed has kept of it without a name.
///
/// # Errors
/// What could not be removed.
pub(crate) fn take_down_by_id(docker: &Docker, id: &SessionId) -> anyhow::Result<()> {
    // Asked first: an engine that does not answer is not asked again and again.
    docker.run(&docker::containers_of(id.as_str()))?;
    take_down(docker, id, Extent::Everything)?;
    for home in docker.run(&docker::homes_of(id.as_str()))?.lines() {
        if let Some((name, "home")) = home.split_once('\t') {
            docker.gone_within(&docker::remove_volume(name), TEARDOWN)?;
        }
    }
    Ok(())
}

/// Removes the session's containers, whatever they are called now.
fn remove_by_label(docker: &Docker, id: &SessionId) -> anyhow::Result<()> {
    let remnants = docker.run(&docker::containers_of(id.as_str()))?;
    if remnants.is_empty() {
        return Ok(());
    }
    let remnants: Vec<String> = remnants.lines().map(str::to_owned).collect();
    docker.gone_within(&docker::remove_containers(&remnants), TEARDOWN)
}

fn one_round(docker: &Docker, id: &SessionId, extent: Extent) -> anyhow::Result<()> {
    let gone = |cmd: &Cmd| docker.gone_within(cmd, TEARDOWN);
    let [containers, network] = docker::down(id);
    match extent {
        Extent::Everything => gone(&containers)?,
        Extent::WithoutAgent => gone(&docker::remove_containers(&[id.sidecar(), id.model()]))?,
        Extent::WithoutContainers => {}
        Extent::Nothing => return Ok(()),
    }
    gone(&network)
}
