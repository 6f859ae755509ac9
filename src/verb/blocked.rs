//! `pi blocked`: lists the destinations that the proxy refused.

use std::fs;

use anyhow::Context as _;
use serde::Serialize;

use super::allow;
use crate::{
    control::{self, Request},
    egress::Sources,
    launcher::Launcher,
    record::{self, Live},
    refused::{self, Refused, Way},
    report,
};

/// A refused destination.
#[derive(Serialize)]
struct Row<'a> {
    destination: &'a str,
    times: u64,
    first: String,
    /// The argument for `pi allow`.
    allow: Option<String>,
    /// The argument for `pi --allow`, if `pi allow` cannot help.
    allow_at_start: Option<String>,
}

impl Row<'_> {
    fn command(&self) -> String {
        match (&self.allow, &self.allow_at_start) {
            (Some(entry), _) => format!("pi allow {entry}"),
            (None, Some(entry)) => format!("pi --allow {entry}"),
            (None, None) => String::new(),
        }
    }
}

/// Lists the refused destinations of a running session, or of the last one. With `save`, it writes them into the list
/// that the session uses.
pub(crate) fn run(launcher: &Launcher, name: Option<&str>, json: bool, save: bool) -> anyhow::Result<u8> {
    let host = &launcher.host;
    let session = record::restricted(host, name)?;
    let saved = match &session {
        Some(session) => control::ask(session, &Request::Blocked, &launcher.signals, None)?.tell()?,
        None => fs::read_to_string(host.last_refused()).unwrap_or_default(),
    };
    let refused = Refused::restore(&saved);
    if save {
        return write_down(launcher, session.as_ref(), &refused);
    }
    let rows: Vec<Row<'_>> = refused
        .all()
        .map(|(destination, count)| {
            let (allow, allow_at_start) = match refused::suggestion(destination) {
                Some(Way::Live(entry)) => (Some(entry), None),
                Some(Way::AtStart(entry)) => (None, Some(entry)),
                None => (None, None),
            };
            let first = refused::utc(count.first).to_string();
            Row { destination, times: count.times, first, allow, allow_at_start }
        })
        .collect();
    if json {
        return report::data(report::json(&rows)?).map(|()| 0);
    }
    if rows.is_empty() {
        report::note("nothing was refused");
        return Ok(0);
    }
    // One long name must not push the last column of all rows out of sight.
    let width = rows.iter().map(|row| row.destination.len()).max().unwrap_or_default().clamp(11, 40);
    let mut table = format!("{:>6}  {:<20}  {:<width$}  {}\n", "TIMES", "FIRST", "DESTINATION", "ALLOW WITH");
    for row in rows {
        use std::fmt::Write as _;
        let line =
            format!("{:>6}  {:<20}  {:<width$}  {}", row.times, row.first, row.destination, row.command());
        let _ = writeln!(table, "{}", line.trim_end());
    }
    report::data(table).map(|()| 0)
}

/// Adds what was refused to the session's allowlist, shows the new lines, and lets a running session read them.
fn write_down(launcher: &Launcher, session: Option<&Live>, refused: &Refused) -> anyhow::Result<u8> {
    let (lines, at_start) = refused::proposal(refused.all().map(|(destination, _)| destination));
    let config = launcher.config()?;
    let of_config = Sources::of(&config);
    let file = session.and_then(|session| session.record.allowlist.clone());
    let mut sources = Sources { file: file.unwrap_or_else(|| of_config.file.clone()), ..of_config };
    let new = if lines.is_empty() {
        vec![]
    } else {
        sources.provide_file(&config)?;
        sources.read(false).context("nothing was changed")?;
        allow::append(&sources.file, &lines, &launcher.host)?
    };
    report::data(new.iter().fold(String::new(), |text, line| text + "+ " + line + "\n"))?;
    let path = sources.file.display();
    match new.len() {
        0 => report::note(format_args!("nothing to add to `{path}`")),
        1 => report::note(format_args!("`{path}` has 1 new line")),
        n => report::note(format_args!("`{path}` has {n} new lines")),
    }
    if !at_start.is_empty() {
        report::note(format_args!(
            "addresses of your own network need a new session: `pi --allow {}`",
            at_start.join(" --allow ")
        ));
    }
    if let Some(session) = session.filter(|_| !new.is_empty()) {
        control::ask(session, &Request::Allow(vec![]), &launcher.signals, None)?.tell()?;
    }
    Ok(0)
}
