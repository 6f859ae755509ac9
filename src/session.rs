//! The life of a session: claim, up, attach, down.

mod answers;
mod awaited;
mod away;
mod browser;
mod cache;
mod came_over;
mod commits;
pub(crate) mod copy;
mod hidden;
mod left;
mod line;
mod prepare;
mod proxy_log;
mod relay;
mod renewal;
mod settings;
mod sidecar;
mod space;
mod steer;
mod sweep;
mod teardown;
mod up;
mod watcher;

use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};

use self::{
    awaited::{Awaited, Came},
    browser::Browser,
    commits::Commits,
    line::Line,
    renewal::Over,
    sidecar::Sidecar,
    space::{Space, Watch},
    steer::{Phase, Steer},
    teardown::{Extent, Teardown},
    watcher::Watcher,
};
pub(crate) use self::{
    away::remove as remove_volume,
    browser::{open, opener},
    cache::{forget, unused_for},
    prepare::write_file,
    renewal::Renewal,
    settings::{LaidOut, lay_out},
    sweep::{Sweep, bring_in, engine, take_down},
    teardown::take_down_by_id,
    watcher::watch,
};
use crate::{
    config::MinFree,
    control::Server,
    docker::{Docker, Ended, Shown, known_refusal},
    domain::upstream::Upstream,
    egress::Sources,
    git::command::Git,
    host::{Host, Owner},
    plan::{Choices, Plan},
    record::{Claim, Naming, SessionId},
    report::{FAILED, Finding, Hinted, Interrupted},
    signals::Signals,
    written::real,
};

/// How long one call of a teardown may take.
const TEARDOWN: Duration = Duration::from_secs(30);

/// Makes something ready for an agent from the image with this id.
type MakeReady<'a> = &'a dyn Fn(&str) -> anyhow::Result<()>;

/// The effects that a session needs besides docker's.
pub(crate) struct Needs<'a> {
    pub(crate) host: &'a Host,
    pub(crate) docker: &'a Docker,
    pub(crate) signals: &'a Signals,
    /// Plans the session with these choices.
    pub(crate) plan: &'a dyn Fn(&Choices) -> anyhow::Result<Plan>,
    /// Lays out the agent's own directories, once the session has a place and this name.
    pub(crate) lay_out: &'a dyn Fn(&str) -> anyhow::Result<LaidOut>,
    /// Who the agent is, where it is not who we are.
    pub(crate) owner: Option<Owner>,
    /// Makes the copy ready for an agent from this image, in a session that works on one.
    pub(crate) copy: Option<MakeReady<'a>>,
    /// What takes over the agent's commits, where it can make some.
    pub(crate) git: Option<&'a Git>,
    /// Makes the agent's image exist and names it.
    pub(crate) agent_image: &'a dyn Fn() -> anyhow::Result<String>,
    /// Makes the sidecar's image exist and names it.
    pub(crate) sidecar_image: &'a dyn Fn() -> anyhow::Result<String>,
    pub(crate) naming: &'a Naming,
    /// What must stay free on this machine's file systems.
    pub(crate) min_free: MinFree,
    /// Where the allowlist comes from, in a restricted session.
    pub(crate) sources: Option<&'a Sources>,
    /// The allowlist's file, where another than the usual one was named.
    pub(crate) list: Option<&'a Path>,
    /// How long a session that logs in may take.
    pub(crate) login_within: Option<Duration>,
    /// The proxy that this machine uses, in a session with a broker.
    pub(crate) upstream: Option<&'a Upstream>,
    /// What renews logins, in a session with a broker.
    pub(crate) renewal: Option<Renewal<'a>>,
    /// What is done with a session's directory when its agent has ended.
    pub(crate) afterwards: Option<&'a dyn Fn(&Path)>,
    /// The host's program that opens pages for logging in.
    pub(crate) opener: Option<&'a Path>,
}

/// Runs a session from claim to teardown and returns the agent's exit status.
///
/// # Errors
/// Any step failed, or a signal came; everything is taken down all the same.
pub(crate) fn run(needs: &Needs<'_>, id: &SessionId, choices: &Choices) -> anyhow::Result<u8> {
    let with_name = |name: &str| Choices { name: name.to_owned(), ..choices.clone() };
    let mut root = PathBuf::new();
    let claim = Claim::take(needs.host, id, needs.naming, |name| {
        let record = (needs.plan)(&with_name(name))?.record;
        root.clone_from(&record.repository);
        Ok(record)
    })?;
    let Needs { host, docker, signals, sources, .. } = needs;
    let steer = Arc::new(Steer::new(&claim.name, host, signals, *sources, docker, id.agent()));
    let server = Server::start(&claim.dir, steer.clone())?;
    let docker = needs.docker.clone().holding(claim.lock.clone());
    let needs = &Needs { docker: &docker, ..*needs };
    let mut teardown = Teardown {
        docker: needs.docker,
        host: needs.host,
        id: id.clone(),
        dir: claim.dir.clone(),
        root,
        list: needs.list.map(Path::to_owned),
        packages: None,
        refused: None,
        commits: None,
        extent: Extent::Everything,
        watcher: None,
        sidecar: None,
        done: false,
    };
    let outcome = live(needs, with_name(&claim.name), &claim, &mut teardown, &steer);
    steer.reached(Phase::Over);
    teardown.finish();
    drop((server, claim));
    match (teardown.refused.take(), outcome) {
        (None, outcome) => outcome,
        // The agent knows nothing of it, and has said that all is well.
        (Some(why), Ok(0)) => Err(why),
        (Some(why), outcome) => {
            Finding::plain(format!("{why:#}")).warn();
            outcome
        }
    }
}

fn live(
    needs: &Needs<'_>,
    mut choices: Choices,
    claim: &Claim,
    teardown: &mut Teardown<'_>,
    steer: &Steer,
) -> anyhow::Result<u8> {
    let Needs { docker, signals, .. } = needs;
    let LaidOut { mounts, packages } = (needs.lay_out)(&claim.name)?;
    choices.laid = Some(mounts);
    teardown.packages = packages;
    let first = (needs.plan)(&choices)?;
    let space = Space::of(&first, needs.host, needs.min_free);
    space.check()?;
    prepare::prepare(&first)?;
    relay::start(&claim.dir, &first.relays, needs.upstream)?;
    teardown.watcher = Some(Watcher::start(&claim.dir, docker)?);
    if let Some(copy) = needs.copy {
        // The container that fills it is of the same image.
        choices.agent_image = (needs.agent_image)()?;
        signals.check()?;
        copy(&choices.agent_image)?;
        signals.check()?;
    }
    if let Some(away) = (needs.plan)(&choices)?.away {
        let owner = needs.owner;
        away::send(&away, owner, docker, needs.host, &claim.dir)?;
        signals.check()?;
    }
    let heeding = &docker.heeding(signals);
    let plan = up::up(&Needs { docker: heeding, ..*needs }, choices, claim, &mut teardown.sidecar)?;
    signals.check()?;
    // One that has ended before there was an agent's container could not take that with it.
    has_begun(teardown.sidecar.as_deref(), signals)?;
    if let Some(model) = &plan.model {
        heeding.create(model)?;
        signals.check()?;
        heeding.start(model)?;
    }
    if let (Some(git), Some(hatch)) = (needs.git, &plan.git) {
        let commits = Commits::begin(git, docker, needs.host, &claim.dir, hatch)?;
        teardown.commits = Some(commits.follow());
    }
    let (stopper, agent) = ((*docker).clone(), plan.agent.name.clone());
    signals.stops(move || stopper.halt(&agent))?;
    let browser = Browser::start(&claim.dir, needs.opener, &steer.waiting);
    let awaited = needs.login_within.map(|limit| Awaited::start(docker, &plan.agent.name, &claim.dir, limit));
    let (killer, agent) = ((*docker).clone(), plan.agent.name.clone());
    let watch = Watch::start(space, move || killer.halt_now(&agent));
    let line = plan.away.is_some().then(|| Line::watch(docker, needs.host));
    let (sidecar, over) = (teardown.sidecar.clone(), Over::default());
    let shown = thread::scope(|scope| {
        if let (Some(renewal), Some(sidecar)) = (needs.renewal, &sidecar) {
            let over = &over;
            scope.spawn(move || renewal.run(sidecar, over));
        }
        let shown = docker.show(&plan.agent, |client| {
            if let Some(line) = &line {
                line.shows(client.clone());
            }
            signals.shows(client);
            steer.reached(Phase::Running(sidecar.clone()));
        });
        over.now();
        shown
    });
    let came = awaited.map_or(Came::End, Awaited::end);
    browser.end();
    let shown = shown?;
    watch.check()?;
    line.as_ref().map_or(Ok(()), Line::check)?;
    if let Some(afterwards) = needs.afterwards {
        afterwards(&real(&claim.dir));
    }
    let outcome = outcome(heeding, signals, &plan, &shown);
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

/// Fails if the sidecar has ended before it was ready: the agent has not started then, and never will.
fn has_begun(sidecar: Option<&Sidecar>, signals: &Signals) -> anyhow::Result<()> {
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
