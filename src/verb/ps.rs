//! `pi ps` and `pi logs`: the sessions that are running, from their records; no engine is asked.

use std::{fs, path::Path, time::SystemTime};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    host::Host,
    launcher::Launcher,
    report::{self, Hinted},
    session::{PROXY_LOG, seconds},
    sweep::{self, Live},
};

/// A session as data.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    id: &'a str,
    network: &'a str,
    image: &'a str,
    repository: &'a Path,
    directory: &'a Path,
    engine: &'a str,
    /// Seconds since 1970.
    started: u64,
}

/// Lists the running sessions of this user on this machine.
pub(crate) fn run(launcher: &Launcher, json: bool) -> anyhow::Result<u8> {
    let (live, _) = sweep::sessions(&launcher.host)?;
    let rows: Vec<Row<'_>> = live
        .iter()
        .map(|Live { record, .. }| Row {
            name: &record.name,
            id: record.id.as_str(),
            network: &record.network,
            image: &record.image,
            repository: &record.repository,
            directory: &record.directory,
            engine: &record.engine,
            started: record.started,
        })
        .collect();
    if json {
        return report::data(serde_json::to_string_pretty(&rows)? + "\n").map(|()| 0);
    }
    if rows.is_empty() {
        report::note("no session is running");
        return Ok(0);
    }
    let now = seconds(SystemTime::now());
    let mut table = format!("{:<20} {:<16} {:<8} {:>8}  {}\n", "NAME", "ID", "NETWORK", "AGE", "REPOSITORY");
    for row in rows {
        use std::fmt::Write as _;
        let _ = writeln!(
            table,
            "{:<20} {:<16} {:<8} {:>8}  {}",
            row.name,
            row.id,
            row.network,
            age(now.saturating_sub(row.started)),
            report::one_line(&row.repository.to_string_lossy())
        );
    }
    report::data(table).map(|()| 0)
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// Shows what a session's proxy has logged, without anything that a terminal would obey.
pub(crate) fn logs(launcher: &Launcher, name: &str) -> anyhow::Result<u8> {
    let session = find(&launcher.host, name)?;
    if session.record.allowlist.is_none() {
        report::note("this session has no proxy, and so no log");
        return Ok(0);
    }
    let path = session.dir.join(PROXY_LOG);
    let text = fs::read(&path).with_context(|| format!("could not read `{}`", path.display()))?;
    report::data(report::printable(&String::from_utf8_lossy(&text)) + "\n").map(|()| 0)
}

/// The running session of this name, or whose id begins so.
///
/// # Errors
/// There is none, or several.
pub(crate) fn find(host: &Host, name: &str) -> anyhow::Result<Live> {
    let (live, _) = sweep::sessions(host)?;
    let mut exact: Vec<_> = live.iter().filter(|session| session.record.name == name).collect();
    if exact.is_empty() && name.len() >= 4 {
        exact = live.iter().filter(|session| session.record.id.as_str().starts_with(name)).collect();
    }
    match exact.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Hinted::error(format!("no session `{name}` is running"), "`pi ps` lists them")),
        several => Err(Hinted::error(
            format!("{} sessions are named `{name}`", several.len()),
            format!("say which by id, as in `{}`; `pi ps` lists them", several[0].record.id.as_str()),
        )),
    }
}

/// The running session that a verb is about: the one of this name, or the only restricted one, here or at all.
///
/// # Errors
/// It is not clear which.
pub(crate) fn restricted(host: &Host, name: Option<&str>) -> anyhow::Result<Option<Live>> {
    if let Some(name) = name {
        let session = find(host, name)?;
        if session.record.allowlist.is_none() {
            anyhow::bail!("the session `{name}` has no restricted network");
        }
        return Ok(Some(session));
    }
    let (live, _) = sweep::sessions(host)?;
    let all: Vec<Live> = live.into_iter().filter(|session| session.record.allowlist.is_some()).collect();
    let here: Vec<&Live> =
        all.iter().filter(|session| host.cwd.starts_with(&session.record.repository)).collect();
    match (here.as_slice(), all.as_slice()) {
        ([one], _) => Ok(Some((*one).clone())),
        ([], [one]) => Ok(Some(one.clone())),
        ([], []) => Ok(None),
        _ => Err(Hinted::error(
            format!("{} restricted sessions are running", all.len()),
            format!("say which with `--session {}`; `pi ps` lists them", all[0].record.id.as_str()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_people_say_them() {
        assert_eq!([5, 65, 3661, 90000].map(age), ["5s", "1m", "1h01m", "1d01h"]);
    }
}
