//! `pi blocked`: lists the destinations that the proxy refused.

use std::fs;

use serde::Serialize;

use crate::{
    control::{self, Request},
    launcher::Launcher,
    record,
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

/// Lists the refused destinations of a running session, or of the last one.
pub(crate) fn run(launcher: &Launcher, session: Option<&str>, json: bool) -> anyhow::Result<u8> {
    let host = &launcher.host;
    let saved = match record::restricted(host, session)? {
        Some(session) => control::ask(&session, &Request::Blocked, &launcher.signals, None)?.tell()?,
        None => fs::read_to_string(host.last_refused()).unwrap_or_default(),
    };
    let refused = Refused::restore(&saved);
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
