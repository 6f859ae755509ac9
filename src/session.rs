//! The life of a session: claim, up, attach, down.

mod answers;
mod awaited;
mod away;
mod browser;
mod cache;
mod came_over;
mod commits;
pub(crate) mod copy;
mod follow;
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

use std::{cell::Cell, path::Path, sync::Arc, time::Duration};

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
use self::{
    commits::Commits,
    follow::{Following, follow, has_begun},
    space::Space,
    steer::{Phase, Steer},
    teardown::{Extent, Teardown},
    up::Made,
    watcher::Watcher,
};
use crate::{
    config::MinFree,
    control::Server,
    docker::{Docker, From, remove_containers},
    domain::upstream::Upstream,
    egress::Sources,
    git::command::Git,
    host::{Host, Owner},
    plan::{Choices, Plan},
    record::{Claim, Dead, Naming, SessionId, WayBack},
    report::{self, Finding, Hinted},
    signals::Signals,
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
    /// The work tree.
    pub(crate) root: &'a Path,
    /// The words by which another launcher comes back to a session on another engine.
    pub(crate) words: Option<&'a [String]>,
    /// Whether the session goes on without this process, when its run is over.
    pub(crate) lives_on: &'a Cell<bool>,
}

/// Runs a session from claim to teardown and returns the agent's exit status.
///
/// # Errors
/// Any step failed, or a signal came; everything is taken down all the same.
pub(crate) fn run(needs: &Needs<'_>, id: &SessionId, choices: &Choices) -> anyhow::Result<u8> {
    let with_name = |name: &str| Choices { name: name.to_owned(), ..choices.clone() };
    let claim = Claim::take(needs.host, id, needs.naming, |name| Ok((needs.plan)(&with_name(name))?.record))?;
    let choices = with_name(&claim.name);
    carry(needs, id, claim, |needs, claim, teardown, steer| live(needs, choices, claim, teardown, steer))
}

/// Comes back to a session on another engine that has lost its launcher, and returns the agent's exit status. It is taken
/// down when its agent has ended.
///
/// # Errors
/// As those of [`run`]. A session that could not be shown lives on.
pub(crate) fn come_back(needs: &Needs<'_>, dead: Dead, choices: &Choices) -> anyhow::Result<u8> {
    needs.lives_on.set(true);
    fits(&(needs.plan)(choices)?, &dead)?;
    let id = dead.id.clone();
    let claim = Claim::again(dead, &choices.name)?;
    carry(needs, &id, claim, |needs, claim, teardown, steer| again(needs, choices, claim, teardown, steer))
}

/// Fails if the settings of now would give a session another way out than it has: its network stays as it was made.
fn fits(now: &Plan, dead: &Dead) -> anyhow::Result<()> {
    let Some(then) = &dead.record else { return Ok(()) };
    let (name, typed) = (&then.name, report::quote(&then.name));
    if now.record.network != then.network {
        return Err(Hinted::error(
            format!(
                "the network of the session `{name}` is `{}`, and with the settings of now it would be `{}`",
                then.network, now.record.network
            ),
            format!("set it as it was; `pi stop {typed}` ends the session and brings its work in"),
        ));
    }
    let (without, there_are, make) = match (WayBack::load(&dead.dir)?.has_keys, now.has_keys()) {
        (true, false) => ("", "none", "set"),
        // There was a sidecar all the same.
        (false, true) if then.allowlist.is_none() => ("out", "some", "unset"),
        _ => return Ok(()),
    };
    Err(Hinted::error(
        format!("the session `{name}` was started with{without} keys, and now there are {there_are}"),
        format!(
            "{make} them, such as `ANTHROPIC_API_KEY`; `pi stop {typed}` ends the session and brings its work in"
        ),
    ))
}

/// Carries a session from its claim to its teardown.
fn carry(
    needs: &Needs<'_>,
    id: &SessionId,
    claim: Claim,
    session: impl FnOnce(&Needs<'_>, &Claim, &mut Teardown<'_>, &Steer) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
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
        root: needs.root.to_owned(),
        list: needs.list.map(Path::to_owned),
        packages: None,
        refused: None,
        commits: None,
        extent: Extent::Everything,
        watcher: None,
        sidecar: None,
        lives_on: false,
        done: false,
    };
    let outcome = session(needs, &claim, &mut teardown, &steer);
    steer.reached(Phase::Over);
    teardown.finish();
    needs.lives_on.set(teardown.lives_on);
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
    let plan =
        up::up(&Needs { docker: heeding, ..*needs }, choices, claim, Made::default(), &mut teardown.sidecar)?;
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
    let dir = &claim.dir;
    follow(Following { needs, plan: &plan, space, dir, from: From::Start }, teardown, steer)
}

/// Shows the agent of a session that has none who does, behind a new sidecar: the old one has ended with its launcher, or
/// does so now.
fn again(
    needs: &Needs<'_>,
    choices: &Choices,
    claim: &Claim,
    teardown: &mut Teardown<'_>,
    steer: &Steer,
) -> anyhow::Result<u8> {
    let Needs { docker, signals, .. } = needs;
    teardown.lives_on = true;
    let first = (needs.plan)(choices)?;
    let space = Space::of(&first, needs.host, needs.min_free);
    space.check()?;
    prepare::prepare(&first)?;
    let heeding = &docker.heeding(signals);
    if let Some(sidecar) = &first.sidecar {
        heeding.gone_within(&remove_containers(std::slice::from_ref(&sidecar.name)), TEARDOWN)?;
        signals.check()?;
    }
    let made = Made::all_but_the_sidecar();
    let plan =
        up::up(&Needs { docker: heeding, ..*needs }, choices.clone(), claim, made, &mut teardown.sidecar)?;
    signals.check()?;
    if let Some(sidecar) = &teardown.sidecar {
        sidecar.wait_until_in_effect()?;
    }
    teardown.watcher = Some(Watcher::start(&claim.dir, docker)?);
    teardown.lives_on = false;
    let dir = &claim.dir;
    follow(Following { needs, plan: &plan, space, dir, from: From::Now }, teardown, steer)
}
