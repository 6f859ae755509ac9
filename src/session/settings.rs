//! The agent's own directories of a session: laid out before it, taken back after it.

use std::path::Path;

use super::hidden::lay_shadows;
use crate::{
    agent_dir::{
        fd::Dir,
        laid::{self, Laid, Place, lay},
        notice::Notice,
        settings::Scope,
        staged::{self, Stage},
        take_back::take_back,
        tree,
    },
    facts::Facts,
    git::{
        given::{DIRECTORY, Given},
        private::Bind,
    },
    host::Host,
    record::Record,
    report,
    written::real,
};

/// What was laid out, and the packages that are being changed.
#[derive(Debug)]
pub(crate) struct LaidOut {
    pub(crate) mounts: Vec<Laid>,
    pub(super) packages: Option<Stage>,
}

/// Lays out the agent's directories of a session with this name, and what hides files from it. Once for a session: doing it
/// again makes other files.
///
/// # Errors
/// Something could not be made, or packages are being changed by another.
pub(crate) fn lay_out(facts: &Facts, place: Place<'_>, git: &Given, name: &str) -> anyhow::Result<LaidOut> {
    let mut mounts = lay(&facts.layout, place)?;
    mounts.extend(lay_shadows(&facts.hidden, place.session)?);
    let packages = match facts.layout.scope {
        Scope::SetUp => Some(Stage::make(place.live, place.owner)?),
        Scope::Session | Scope::Login => None,
    };
    if let Some(packages) = &packages {
        mounts.extend(packages.mounts()?);
    }
    let of_git = git.lay_out(&place.session.join(DIRECTORY), name, place.owner)?;
    mounts.extend(of_git.into_iter().map(|(Bind { source, target, access }, identity)| Laid {
        source,
        // An absolute path, which stays as it is below any directory.
        target,
        access,
        identity,
    }));
    Ok(LaidOut { mounts, packages })
}

/// Takes back what the session has set, tells what is to be told, and removes what was laid out: the rest of the session's
/// directory is then gone in a moment, and nobody finds it without its lock.
///
/// # Errors
/// The change of a set-up command cannot be taken over, so that everything is as it was.
pub(super) fn keep(dir: &Path, host: &Host, packages: Option<Stage>) -> anyhow::Result<()> {
    let dir = real(dir);
    let is_set_up = packages.is_some();
    let kept = match take_back(&dir, &real(&host.state_dir()), packages) {
        Ok(notices) => {
            notices.iter().for_each(Notice::say);
            Ok(())
        }
        Err(error) if is_set_up => Err(error),
        Err(error) => {
            report::warn(format_args!("could not keep what the session has set: {error:#}"));
            Ok(())
        }
    };
    // What cannot be removed is told by whoever removes the rest.
    let _ = Dir::open(&dir).and_then(|dir| tree::remove(&dir, laid::DIRECTORY.as_ref()));
    kept
}

/// Takes back what a dead session has set. Packages that it was changing are as they were before.
pub(super) fn keep_of_dead(record: Option<&Record>, dir: &Path, host: &Host) {
    let _ = keep(dir, host, None);
    let swept = record.and_then(|record| Dir::open(&record.agent_dir).ok());
    if let Some(Err(error)) = swept.map(|live| staged::sweep(&live)) {
        report::warn(format_args!("could not remove what an interrupted change of packages left: {error:#}"));
    }
}
