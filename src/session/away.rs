//! The agent's own directory of a session on an engine that mounts nothing of this machine: how it goes there as a stream,
//! and how what the agent may change of it comes back.

mod incoming;
mod outgoing;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{TEARDOWN, prepare::write_file};
use crate::{
    docker::{self, Created, Docker, Up, run_inside},
    files::{read_small, replace},
    host::{Host, Owner},
    inside::Access,
    plan::{Away, COPY, Carried, copier_file},
    record::SessionId,
    report::{self, Finding},
    written::real,
};

/// In the session's directory: there is a volume, and this is what is in it.
const NOTE: &str = "away.json";

/// How long the streams may take.
const LONG: Duration = Duration::from_secs(3600);

/// What has to be known to fetch what the agent has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    carried: Carried,
    /// The engine's time when everything was there, in seconds since 1970; `None` before that.
    sent: Option<u64>,
    places: Vec<Place>,
    /// Whose files the live ones are, where they are not ours.
    owner: Option<(u32, u32)>,
}

/// Where something belongs that comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// Below the agent's directory.
    inside: PathBuf,
    /// On this machine.
    here: PathBuf,
    is_directory: bool,
}

/// Sends the agent's directory into the session's volume.
///
/// # Errors
/// Something cannot be read or is too large, or the engine says no.
pub(super) fn send(
    away: &Away,
    owner: Option<Owner>,
    docker: &Docker,
    host: &Host,
    dir: &Path,
) -> anyhow::Result<()> {
    let places = away
        .sent
        .iter()
        .filter(|sent| sent.access == Access::ReadWrite)
        .map(|sent| Place {
            inside: sent.target.clone(),
            here: sent.source.clone(),
            is_directory: sent.source.is_dir(),
        })
        .collect();
    let carried = away.carried.clone();
    let mut note = Note { carried, sent: None, places, owner: owner.map(|owner| (owner.uid, owner.gid)) };
    note.save(dir)?;
    let up = open(&note.carried, docker, host, dir)?;
    let script = "tar -x -f - --no-same-owner --warning=no-timestamp -C \"$1\" && date +%s";
    let unpack = run_inside(up.name(), "send the agent's own directory", script, &[COPY]);
    let said = docker.feed(&unpack, LONG, &mut |out| outgoing::write(&away.sent, out))?;
    let now = said.trim().parse().context("the engine did not say what time it is")?;
    note.sent = Some(now);
    note.save(dir)
}

impl Note {
    fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(NOTE);
        let Some(text) = read_small(&path)? else { return Ok(None) };
        serde_json::from_str(&text).with_context(|| format!("could not read `{}`", path.display())).map(Some)
    }

    fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(NOTE);
        replace(&path, &serde_json::to_vec(self)?)
            .with_context(|| format!("could not write `{}`", path.display()))
    }
}

/// Starts the container with the volume in it.
fn open(carried: &Carried, docker: &Docker, host: &Host, dir: &Path) -> anyhow::Result<Up> {
    write_file(&copier_file(dir))?;
    let mut container = carried.carrier(dir, host);
    docker.gone_within(&docker::remove_containers(std::slice::from_ref(&container.name)), TEARDOWN)?;
    let mut made = docker.create(&container)?;
    if made == Created::NoImage {
        // One that was removed meanwhile.
        container.image = super::copy::any_image(docker, host)?;
        made = docker.create(&container)?;
    }
    anyhow::ensure!(made == Created::Yes, "there is no image for the agent's own directory");
    super::copy::check_volume(docker, &container)
        .and_then(|()| docker.hold_up(&container))
        .inspect_err(|_| docker.halt_now(&container.name))
}

/// Brings back what a session that is over has changed, and removes its volume. A session without one has nothing there.
///
/// # Errors
/// The engine does not answer, or the disk of this machine is full. Then nothing is lost: whoever takes the session down later does the same.
pub(super) fn fetch(docker: &Docker, host: &Host, dir: &Path) -> anyhow::Result<()> {
    let dir = real(dir);
    let Some(note) = Note::load(&dir)? else { return Ok(()) };
    let docker = docker.at(&note.carried.engine);
    let volume = note.carried.id.volume();
    if let (Some(since), true) = (note.sent, docker.has_volume(&volume)?) {
        let kept = match incoming::stream(&note, since, &docker, host, &dir)? {
            Some(stream) => incoming::keep(stream, &note),
            None => Err(incoming::too_much()),
        };
        match kept {
            // It stays there until there is room here.
            Err(error) if report::is_full(&error) => return Err(error),
            Err(error) => {
                Finding::plain(format!("could not keep all of what the session has set: {error:#}")).warn();
            }
            Ok(()) => {}
        }
    }
    remove(&docker, &note.carried.id)?;
    fs::remove_file(dir.join(NOTE))
        .with_context(|| format!("could not remove `{}`", dir.join(NOTE).display()))
}

/// Removes the volume of a session.
///
/// # Errors
/// The engine says no.
pub(crate) fn remove(docker: &Docker, id: &SessionId) -> anyhow::Result<()> {
    docker.gone_within(&docker::remove_volume(&id.volume()), TEARDOWN)
}
