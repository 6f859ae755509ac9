//! A session while its agent runs: shown to its end, and come back to when the line to another engine was lost.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};

use super::{
    Needs,
    awaited::{Awaited, Came},
    browser::Browser,
    line::Line,
    renewal::Over,
    sidecar::Sidecar,
    space::{Space, Watch},
    steer::{Phase, Steer},
    teardown::{Extent, Teardown},
};
use crate::{
    docker::{Docker, Ended, From, Shown, known_refusal},
    plan::{Plan, Streams},
    report::{self, FAILED, Hinted, Interrupted},
    signals::Signals,
    written::real,
};

/// How often an engine is asked whether the agent still runs.
const AGAIN: Duration = Duration::from_secs(1);

/// A client that shows the agent for a shorter time has not shown it.
const MOMENT: Duration = Duration::from_secs(5);

/// How often in a row a client may not show the agent.
const TRIES: u32 = 5;

/// An agent that is to be shown.
pub(super) struct Following<'a> {
    pub(super) needs: &'a Needs<'a>,
    pub(super) plan: &'a Plan,
    pub(super) space: Space,
    /// The session's directory.
    pub(super) dir: &'a Path,
    pub(super) from: From,
}

/// Shows the agent until it ends. Returns its exit status.
///
/// # Errors
/// There is none, and why.
pub(super) fn follow(
    following: Following<'_>,
    teardown: &mut Teardown<'_>,
    steer: &Steer,
) -> anyhow::Result<u8> {
    let Following { needs, plan, space, dir, from } = following;
    let Needs { docker, signals, .. } = needs;
    let (stopper, agent) = ((*docker).clone(), plan.agent.name.clone());
    signals.stops(move || stopper.halt(&agent))?;
    let browser = Browser::start(dir, needs.opener, &steer.waiting);
    let awaited = needs.login_within.map(|limit| Awaited::start(docker, &plan.agent.name, dir, limit));
    let (killer, agent) = ((*docker).clone(), plan.agent.name.clone());
    let watch = Watch::start(space, move || killer.halt_now(&agent));
    let is_shown = plan.agent.streams == Streams::Tty;
    let line = plan.away.is_some().then(|| {
        let hint = if is_shown {
            let name = report::quote(&plan.record.name);
            format!("it lives on there: `pi attach {name}` comes back to it, and `pi stop {name}` brings its work in")
        } else {
            "its work stays there: the next `pi` that reaches the engine, or `pi diff`, brings it in".to_owned()
        };
        Line::watch(docker, needs.host, teardown.sidecar.clone(), hint)
    });
    let shown = show(needs, plan, line.as_ref(), teardown.sidecar.as_deref(), from, &|| {
        steer.reached(Phase::Running(teardown.sidecar.clone()));
    });
    let came = awaited.map_or(Came::End, Awaited::end);
    browser.end();
    let shown = shown?;
    watch.check()?;
    if let Some(line) = &line {
        line.check().inspect_err(|_| teardown.lives_on = is_shown)?;
    }
    if let Some(afterwards) = needs.afterwards {
        afterwards(&real(dir));
    }
    let outcome = outcome(&docker.heeding(signals), signals, plan, &shown);
    has_begun(teardown.sidecar.as_deref(), signals)?;
    if outcome.is_ok() && shown.status().code().is_some() {
        // The engine has removed the agent's container before its client returned.
        let is_alone = plan.sidecar.is_none() && plan.model.is_none();
        teardown.extent = if is_alone { Extent::Nothing } else { Extent::WithoutAgent };
    }
    match came {
        Came::End => outcome,
        Came::Login => signals.check().map(|()| 0),
        Came::Nothing => Err(too_late(needs.login_within.unwrap_or_default())),
    }
}

/// Shows the agent, as often as it takes: a client that lost the line to another engine has a successor.
fn show(
    needs: &Needs<'_>,
    plan: &Plan,
    line: Option<&Line>,
    sidecar: Option<&Sidecar>,
    mut from: From,
    runs: &dyn Fn(),
) -> anyhow::Result<Shown> {
    let Needs { docker, signals, .. } = needs;
    let over = Over::default();
    thread::scope(|scope| {
        if let (Some(renewal), Some(sidecar)) = (needs.renewal, sidecar) {
            let over = &over;
            scope.spawn(move || renewal.run(sidecar, over));
        }
        let mut in_vain = 0;
        let shown = loop {
            let begun = Instant::now();
            let shown = docker.show(&plan.agent, from, |client| {
                if let Some(line) = line {
                    line.shows(client.clone());
                }
                signals.shows(client);
                runs();
            });
            in_vain = if begun.elapsed() < MOMENT { in_vain + 1 } else { 0 };
            let is_lost = |shown: &Shown| {
                let was_cut = shown.status().code().is_some_and(|code| code != 0) && !report::nobody_reads();
                let Some(line) = line.filter(|line| was_cut && goes_on(plan, docker, signals, line)) else {
                    return false;
                };
                if in_vain >= TRIES {
                    line.give_up_after(TRIES);
                }
                in_vain < TRIES
            };
            if !shown.as_ref().is_ok_and(is_lost) {
                break shown;
            }
            report::note("the line to the engine was cut; the agent goes on, and here it is again");
            from = From::Now;
            if let Some(sidecar) = sidecar
                && let Err(error) = sidecar.replace()
            {
                report::warn(format_args!("the way out of the session does not come back: {error:#}"));
            }
        };
        over.now();
        shown
    })
}

/// Whether the agent runs though the client that showed it has ended. An engine that does not answer is asked until the
/// session is given up.
fn goes_on(plan: &Plan, docker: &Docker, signals: &Signals, line: &Line) -> bool {
    let docker = docker.unheeded().within(Duration::from_secs(20)).heeding(signals);
    while signals.check().is_ok() && line.check().is_ok() {
        match docker.runs(&plan.agent.name) {
            Ok(runs) => return runs && signals.check().is_ok(),
            Err(_) => thread::sleep(AGAIN),
        }
    }
    false
}

/// Fails if the sidecar has ended before it was ready: the agent has not started then, and never will.
pub(super) fn has_begun(sidecar: Option<&Sidecar>, signals: &Signals) -> anyhow::Result<()> {
    let Some((sidecar, said)) = sidecar.and_then(|sidecar| Some((sidecar, sidecar.failed_before_ready()?)))
    else {
        return Ok(());
    };
    signals.check()?;
    if let Some(clearer) = known_refusal(&said) {
        return Err(clearer);
    }
    let what = if sidecar.restricts() { "proxy" } else { "keys' broker" };
    anyhow::bail!("the {what} could not be started, so the agent was not: {said}")
}

fn too_late(limit: Duration) -> anyhow::Error {
    Hinted::error(
        format!("no login came within {} s, so nothing was changed", limit.as_secs()),
        "try again; `pi login --timeout 10m` waits longer",
    )
}

/// The exit status of the agent, or why there is none.
fn outcome(docker: &Docker, signals: &Signals, plan: &Plan, shown: &Shown) -> anyhow::Result<u8> {
    signals.check()?;
    // What a terminal sends goes to its whole process group, and the client may be the first to notice.
    if let Some(signal @ (SIGHUP | SIGINT | SIGQUIT | SIGTERM)) = shown.status().signal() {
        return Err(Interrupted(u8::try_from(signal).unwrap_or(FAILED)).into());
    }
    let ended = docker.how_ended(&plan.agent, shown, plan.record.started);
    signals.check()?;
    match ended {
        Ended::Exited(own) => Ok(own),
        Ended::ClientKilled(signal) => anyhow::bail!(
            "the docker program that showed the agent was killed by signal {signal}; the session is over"
        ),
        // As a program that writes into a closed pipe ends.
        Ended::ClientGone => Err(Interrupted(u8::try_from(SIGPIPE).unwrap_or(FAILED)).into()),
        Ended::LostEngine(Some(why)) => Err(why.context("lost the engine; the session is over")),
        Ended::LostEngine(None) => {
            anyhow::bail!("lost the engine while the agent was running; the session is over")
        }
        Ended::NeverStarted(why) => Err(why),
    }
}
