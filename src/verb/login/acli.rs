//! `pi login acli`: Atlassian's command line tool logs in, in a session that alone may write `~/.config/acli`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use rustix::fs::Mode;

use crate::{
    agent_dir::fd::{Dir, Made, PRIVATE_DIR},
    host::{Host, Owner},
    launcher::{Launcher, Prepared},
    report::{self, Hinted},
};

/// Below the user's home.
const DIRECTORY: &str = ".config/acli";

fn directory(host: &Host) -> PathBuf {
    host.home.join(DIRECTORY)
}

/// # Errors
/// The settings do not want it in the image.
pub(super) fn check(launcher: &Launcher) -> anyhow::Result<()> {
    if launcher.config()?.images.acli.is_some() {
        return Ok(());
    }
    Err(Hinted::error(
        "acli is not in the image, since the settings do not ask for it",
        "set `acli = true` under `[images]` in `~/.config/pi/config.toml`",
    ))
}

/// Makes the directory of its login, where there is none.
///
/// # Errors
/// As the system has it; a link has the place of a directory above.
pub(super) fn make_directory(host: &Host, owner: Owner) -> anyhow::Result<()> {
    let path = directory(host);
    let could = || format!("could not create `{}`", path.display());
    let home = fs::canonicalize(&host.home).with_context(could)?;
    let open = Made { mode: Mode::from_raw_mode(0o755), owner: None };
    let own = Made { mode: PRIVATE_DIR, owner: (host.uid == 0 && owner.uid != 0).then_some(owner) };
    if path.is_dir() {
        return Ok(());
    }
    let config = Dir::ensure(&home.join(".config"), open).with_context(could)?;
    config.ensure_dir("acli".as_ref(), own).map(drop).with_context(could)
}

/// Runs the session, which ends when acli does.
pub(super) fn run(launcher: &Launcher, prepared: &Prepared) -> anyhow::Result<u8> {
    let before = written(&launcher.host);
    let code = launcher.run(prepared)?;
    if code == 0 && written(&launcher.host) != before {
        report::note("logged in to Atlassian: sessions have the login read-only from now on");
        return Ok(0);
    }
    report::note("no login was made");
    Ok(code.max(1))
}

/// What is there, by name, size and time.
fn written(host: &Host) -> Vec<(PathBuf, u64, Option<std::time::SystemTime>)> {
    let mut found = Vec::new();
    let mut pending = vec![directory(host)];
    while let Some(dir) = pending.pop().filter(|_| found.len() < MANY) {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten().take(MANY) {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => pending.push(entry.path()),
                Ok(meta) => found.push((entry.path(), meta.len(), meta.modified().ok())),
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

/// How many files of it are looked at.
const MANY: usize = 1000;

/// The login is acli's own, with whatever else is in its directory.
pub(super) fn forget(launcher: &Launcher) -> anyhow::Result<u8> {
    let path = directory(&launcher.host);
    let path = path.display();
    Err(Hinted::error(
        format!("the login of acli is in `{path}`, with its other settings"),
        format!(
            "`rm -r {path}` removes it here; at Atlassian, your account's connected apps remove it for good"
        ),
    ))
}

/// How it stands in the list of logins.
pub(super) fn state(host: &Host) -> &'static str {
    if written(host).is_empty() { "-" } else { "logged in, as far as its files say" }
}
