//! `pi blocked`, and the line at the end of a session: what the restricted network refused.

use std::fs;

use serde::Serialize;

use crate::{
    launcher::Launcher,
    refused::{self, Refused, Way},
    report,
    session::{LAST_REFUSED, REFUSED},
    verb::ps,
};

/// A refused destination as data.
#[derive(Serialize)]
struct Row<'a> {
    destination: &'a str,
    times: u64,
    first: String,
    /// What `pi allow` takes.
    allow: Option<String>,
    /// What `pi --allow` takes, where `pi allow` cannot help.
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

/// Shows what a running session, or the last one, was refused.
pub(crate) fn run(launcher: &Launcher, session: Option<&str>, json: bool) -> anyhow::Result<u8> {
    let host = &launcher.host;
    let path = match ps::restricted(host, session)? {
        Some(session) => session.dir.join(REFUSED),
        None => host.state_dir().join(LAST_REFUSED),
    };
    let refused = Refused::restore(&fs::read_to_string(path).unwrap_or_default());
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
    // One name of the greatest length is no reason to push what stands behind all others out of sight.
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

/// How many destinations the line at the end names.
const NAMED: usize = 3;

/// One line about what was refused, and how to allow it.
pub(crate) fn say_at_exit(refused: &Refused) {
    let asked = refused.asked();
    if asked.is_empty() {
        return;
    }
    let mut names: Vec<String> = asked
        .iter()
        .take(NAMED)
        .map(|(destination, count)| format!("{destination} ({}×)", count.times))
        .collect();
    if asked.len() > NAMED {
        names.push(format!("{} more, see `pi blocked`", asked.len() - NAMED));
    }
    let next = next(asked.iter().take(NAMED).map(|(destination, _)| *destination));
    report::note(format_args!("refused: {}{next}", names.join(", ")));
}

/// The commands by which these are allowed from now on.
fn next<'a>(destinations: impl Iterator<Item = &'a str>) -> String {
    let (mut live, mut at_start) = (String::new(), String::new());
    for way in destinations.filter_map(refused::suggestion) {
        match way {
            Way::Live(entry) => live = live + " " + &entry,
            Way::AtStart(entry) => at_start = at_start + " --allow " + &entry,
        }
    }
    match (live.as_str(), at_start.as_str()) {
        ("", "") => String::new(),
        (_, "") => format!("; allow with `pi allow --save{live}`"),
        ("", _) => format!("; allow in a new session with `pi{at_start}`"),
        _ => format!("; allow with `pi allow --save{live}`, in a new session with `pi{at_start}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_offered_in_the_way_in_which_it_can_be_allowed() {
        for (destinations, expected) in [
            (&["<others>"][..], ""),
            (&["a.test:443", "b.test:80"], "; allow with `pi allow --save a.test b.test:80`"),
            (
                &["host.docker.internal:11434", "10.0.0.7:80"],
                "; allow in a new session with `pi --allow host.docker.internal:11434 --allow 10.0.0.7:80`",
            ),
            (
                &["10.0.0.7:80", "a.test:443"],
                "; allow with `pi allow --save a.test`, in a new session with `pi --allow 10.0.0.7:80`",
            ),
        ] {
            assert_eq!(next(destinations.iter().copied()), expected);
        }
    }
}
