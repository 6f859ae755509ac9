//! The life of a session: claim, up, attach, down.

mod claim;
mod login;
mod sidecar;
mod signals;
mod teardown;
mod watcher;

use std::{
    fs,
    io::{self, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
        process::ExitStatusExt as _,
    },
    path::Path,
    process::ExitStatus,
    sync::Mutex,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use self::{
    claim::Claim,
    login::back_up,
    sidecar::Sidecar,
    teardown::{Extent, Teardown},
    watcher::Watcher,
};
pub(crate) use self::{
    claim::{Naming, directory_lock, sessions_dir},
    login::{forget_login, mend_login},
    sidecar::{LAST_REFUSED, PROXY_LOG, REFUSED},
    signals::Signals,
    teardown::take_down_dead,
    watcher::watch,
};
use crate::{
    docker::{self, Cmd, Docker, Failure},
    host::{Host, Owner},
    plan::{Directory, File, Keep, Plan},
    report::{self, FAILED, Interrupted},
};

/// How long one call of a teardown may take.
const TEARDOWN: Duration = Duration::from_secs(30);

pub(crate) fn private_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("could not create `{}`", path.display()))
}

/// The effects that a session needs besides docker's.
pub(crate) struct Needs<'a> {
    pub(crate) host: &'a Host,
    pub(crate) docker: &'a Docker,
    pub(crate) signals: &'a Signals,
    /// Plans again on other addresses, for when the engine finds the first ones taken.
    pub(crate) replan: &'a dyn Fn(u32) -> anyhow::Result<Plan>,
    /// Makes the agent's image exist and names it.
    pub(crate) agent_image: &'a (dyn Fn() -> anyhow::Result<String> + Sync),
    /// Makes the sidecar's image exist and names it.
    pub(crate) sidecar_image: &'a (dyn Fn() -> anyhow::Result<String> + Sync),
    pub(crate) naming: Naming,
    /// Keeps what the agent prints on stdout, instead of printing it.
    pub(crate) capture: Option<&'a Mutex<Vec<u8>>>,
}

/// How many subnets are tried.
const SUBNET_ATTEMPTS: u32 = 16;

/// Runs a session from claim to teardown and returns the agent's exit status.
///
/// # Errors
/// Any step failed, or a signal came; everything is taken down all the same.
pub(crate) fn run(needs: &Needs<'_>, mut plan: Plan) -> anyhow::Result<u8> {
    let claim = Claim::take(needs.host, &mut plan, needs.naming)?;
    let docker = needs.docker.clone().holding(claim.lock.clone());
    let needs = &Needs { docker: &docker, ..*needs };
    let mut teardown = Teardown {
        docker: needs.docker,
        host: needs.host,
        id: plan.record.id.clone(),
        dir: claim.dir.clone(),
        login: plan.record.login.clone(),
        extent: Extent::Everything,
        watcher: None,
        sidecar: None,
        done: false,
    };
    let outcome = live(needs, &mut plan, &claim, &mut teardown);
    teardown.finish();
    drop(claim);
    outcome
}

fn live(
    needs: &Needs<'_>,
    plan: &mut Plan,
    claim: &Claim,
    teardown: &mut Teardown<'_>,
) -> anyhow::Result<u8> {
    let Needs { docker, signals, .. } = needs;
    prepare(plan)?;
    back_up(&plan.record.login, &claim.dir)?;
    teardown.watcher = Watcher::start(&claim.dir, docker)?;
    up(needs, plan, claim)?;
    if let (Some(network), Some(sidecar), Some(address)) =
        (&plan.network, &plan.sidecar, plan.sidecar_address)
    {
        signals.check()?;
        docker.run(&network.connect(&sidecar.name, address))?;
        signals.check()?;
        teardown.sidecar = Some(Sidecar::start(docker, sidecar, &plan.agent.name, &claim.dir)?);
    }
    if let Some(model) = &plan.model {
        docker.run(&model.create())?;
        signals.check()?;
        docker.run(&model.start())?;
    }
    signals.stops(docker, &plan.agent.name)?;
    let attach = plan.agent.attach();
    let (status, complaint) = match needs.capture {
        Some(into) => {
            (docker.attach_capturing(&attach, |client| signals.shows(client), into)?, String::new())
        }
        None => docker.attach(&attach, |client| signals.shows(client))?,
    };
    let outcome = judge(docker, signals, plan, status, complaint);
    if let Some(sidecar) = &teardown.sidecar
        && let Some(said) = sidecar.failed_before_ready()
    {
        signals.check()?;
        anyhow::bail!("the proxy could not be started, so the agent was not: {said}");
    }
    if outcome.is_ok() && status.code().is_some() {
        // The engine has removed the agent's container before its client returned.
        teardown.extent = Extent::WithoutAgent { companions: plan.sidecar.is_some() || plan.model.is_some() };
    }
    outcome
}

/// Creates the network and the containers, side by side where they do not need each other.
fn up(needs: &Needs<'_>, plan: &mut Plan, claim: &Claim) -> anyhow::Result<()> {
    let Needs { docker, signals, .. } = needs;
    signals.check()?;
    let sidecar = plan.sidecar.clone();
    let (sidecar_made, agent_made) = thread::scope(|scope| {
        let sidecar = sidecar.as_ref().map(|sidecar| scope.spawn(|| docker.try_run(&sidecar.create())));
        let agent = networked(needs, plan, claim).map(|()| docker.try_run(&plan.agent.create()));
        (sidecar.map(|thread| thread.join().expect("creating a container does not panic")), agent)
    });
    let agent_made = agent_made?;
    if let (Some(made), Some(sidecar)) = (sidecar_made, plan.sidecar.as_mut()) {
        settle(
            needs,
            made,
            &sidecar.create(),
            |tag| {
                sidecar.image = tag;
                sidecar.create()
            },
            needs.sidecar_image,
        )?;
    }
    let agent = &mut plan.agent;
    settle(
        needs,
        agent_made,
        &agent.create(),
        |tag| {
            agent.image = tag;
            agent.create()
        },
        needs.agent_image,
    )?;
    signals.check()
}

/// Where a container could not be created for want of its image, makes the image and creates the container again.
fn settle(
    needs: &Needs<'_>,
    made: Result<String, Failure>,
    create: &Cmd,
    with_image: impl FnOnce(String) -> Cmd,
    image: &(dyn Fn() -> anyhow::Result<String> + Sync),
) -> anyhow::Result<()> {
    needs.signals.check()?;
    match made {
        Ok(_) => Ok(()),
        Err(failure) if failure.stderr().contains("No such image") => {
            let tag = image()?;
            needs.signals.check()?;
            needs.docker.run(&with_image(tag)).map(drop)
        }
        Err(failure) => Err(failure.explain(&create.purpose)),
    }
}

/// Creates the session's network, where it has one; when its addresses are taken, others are planned.
fn networked(needs: &Needs<'_>, plan: &mut Plan, claim: &Claim) -> anyhow::Result<()> {
    for attempt in 1.. {
        let Some(network) = &plan.network else { return Ok(()) };
        let create = network.create();
        match needs.docker.try_run(&create) {
            Ok(_) => return Ok(()),
            Err(failure) if is_overlap(&failure) && attempt < SUBNET_ATTEMPTS => {
                needs.signals.check()?;
                let images =
                    (plan.agent.image.clone(), plan.sidecar.as_ref().map(|sidecar| sidecar.image.clone()));
                let name = std::mem::take(&mut plan.record.name);
                *plan = (needs.replan)(attempt)?;
                plan.record.name = name;
                plan.agent.image = images.0;
                if let (Some(sidecar), Some(image)) = (plan.sidecar.as_mut(), images.1) {
                    sidecar.image = image;
                }
                prepare(plan)?;
                claim.write(&plan.record)?;
            }
            Err(failure) => return Err(failure.explain(&create.purpose)),
        }
    }
    unreachable!("the last attempt returns")
}

fn is_overlap(failure: &Failure) -> bool {
    let said = failure.stderr().to_ascii_lowercase();
    said.contains("overlaps") || said.contains("conflicts with network")
}

/// Makes the directories and files that the plan names.
fn prepare(plan: &Plan) -> anyhow::Result<()> {
    for Directory { path, owner } in &plan.directories {
        if !path.is_dir() {
            make_directory(path, *owner)?;
        }
    }
    for File { path, text, keep, owner } in &plan.files {
        let written = match keep {
            Keep::Session => {
                // Read inside containers by users without a name; what is above is private.
                if let Some(parent) = path.parent().filter(|parent| *parent != plan.state) {
                    fs::create_dir_all(parent).and_then(|()| set_mode(parent, 0o755))
                } else {
                    Ok(())
                }
                .and_then(|()| replace_bytes(path, text.bytes()))
            }
            Keep::Existing => {
                match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                    Ok(mut file) => {
                        chown(path, *owner)?;
                        // An empty file, as a full disk leaves one, would be taken for the user's own.
                        file.write_all(text.bytes()).inspect_err(|_| drop(fs::remove_file(path)))
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    Err(error) => Err(error),
                }
            }
        };
        written.with_context(|| format!("could not write `{}`", path.display()))?;
    }
    Ok(())
}

/// Makes a directory that is its owner's from the first moment at which another session can see it.
fn make_directory(path: &Path, owner: Option<Owner>) -> anyhow::Result<()> {
    let (Some(_), Some(parent), Some(name)) = (owner, path.parent(), path.file_name()) else {
        return private_dir(path);
    };
    private_dir(parent)?;
    let next = parent.join(format!(".{}.next-{}", name.display(), std::process::id()));
    private_dir(&next)?;
    chown(&next, owner)?;
    match renameat_with(CWD, &next, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Another session was first.
        Err(_) if path.is_dir() => {
            fs::remove_dir(&next).with_context(|| format!("could not remove `{}`", next.display()))
        }
        Err(error) => Err(error).with_context(|| format!("could not create `{}`", path.display())),
    }
}

/// Writes a file of the session's by name, so that a reader sees the old one or the new one and nothing between.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    replace_bytes(path, text.as_bytes())
}

/// The same for what is not text.
pub(crate) fn replace_bytes(path: &Path, text: &[u8]) -> io::Result<()> {
    // Of its own for each process: several sessions may end at once.
    let next = path.with_extension(format!("next-{}", std::process::id()));
    let written = fs::write(&next, text).and_then(|()| set_mode(&next, 0o644));
    written.and_then(|()| fs::rename(&next, path)).inspect_err(|_| drop(fs::remove_file(&next)))
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn chown(path: &Path, owner: Option<Owner>) -> anyhow::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))
        .with_context(|| format!("could not give `{}` to user {}", path.display(), owner.uid))
}

/// The exit status of the agent, or why there is none.
///
/// Docker's client ends with the agent's own status, and with statuses of its own; the engine's events tell them apart.
fn judge(
    docker: &Docker,
    signals: &Signals,
    plan: &Plan,
    status: ExitStatus,
    complaint: String,
) -> anyhow::Result<u8> {
    signals.check()?;
    // What a terminal sends goes to its whole process group, and the client may be the first to notice.
    if let Some(signal @ (SIGHUP | SIGINT | SIGQUIT | SIGTERM)) = status.signal() {
        return Err(Interrupted(u8::try_from(signal).unwrap_or(FAILED)).into());
    }
    let code = status.code();
    if code == Some(0) {
        report::progress(complaint.as_bytes());
        return Ok(0);
    }
    let agent = &plan.agent;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The clock may have been set back since.
    let since = plan.record.started.min(now.as_secs()).saturating_sub(60).to_string();
    let mut said: Vec<String> = Vec::new();
    // An engine's clock may be a little ahead, so a silent one is asked once more.
    for until in [now, now + Duration::from_secs(1)] {
        let until = format!("{}.{:09}", until.as_secs(), until.subsec_nanos());
        let events = docker.try_run(&docker::events(&agent.name, &since, &until)).map_err(|failure| {
            signals.check().err().unwrap_or_else(|| {
                failure.explain("learn how the agent ended").context("lost the engine; the session is over")
            })
        })?;
        let own = events.lines().filter_map(|line| line.strip_prefix(&*agent.name)?.strip_prefix(' '));
        said = own.map(str::to_owned).collect();
        // Not `exec_die`, which is the end of a command that was run beside the agent.
        if said.iter().any(|line| line.starts_with("die ")) {
            break;
        }
    }
    signals.check()?;
    let died = said.iter().rev().find_map(|line| line.strip_prefix("die ")?.trim().parse::<u8>().ok());
    let started = said.iter().any(|line| line.starts_with("start"));
    if died.is_some() {
        report::progress(complaint.as_bytes());
    } else if !complaint.is_empty() {
        let doing = if started { "show the agent any longer" } else { "start the agent's container" };
        return Err(Failure::Refused { code, stderr: complaint }.explain(doing));
    }
    match (died, code) {
        (Some(own), Some(_)) => Ok(own),
        (Some(_) | None, None) => anyhow::bail!(
            "the docker program that showed the agent was killed by signal {}; the session is over",
            status.signal().unwrap_or_default()
        ),
        (None, Some(_)) if started => {
            anyhow::bail!("lost the engine while the agent was running; the session is over")
        }
        (None, Some(code)) => {
            anyhow::bail!("docker could not start the agent's container (its own status was {code})")
        }
    }
}

/// Whole seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
