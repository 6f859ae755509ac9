//! `pi blocked`, and the line at the end of a session: what the restricted network refused.

use std::fs;

use serde::Serialize;

use crate::{
    launcher::Launcher,
    refused::{self, Refused},
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
    allow: Option<String>,
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
        .map(|(destination, count)| Row {
            destination,
            times: count.times,
            first: refused::utc(count.first).to_string(),
            allow: refused::suggestion(destination),
        })
        .collect();
    if json {
        return report::data(serde_json::to_string_pretty(&rows)? + "\n").map(|()| 0);
    }
    if rows.is_empty() {
        report::note("nothing was refused");
        return Ok(0);
    }
    let mut table = format!("{:>6}  {:<20}  {}\n", "TIMES", "FIRST", "DESTINATION");
    for row in rows {
        use std::fmt::Write as _;
        let _ = writeln!(table, "{:>6}  {:<20}  {}", row.times, row.first, row.destination);
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
    let allow: Vec<String> =
        asked.iter().take(NAMED).filter_map(|(destination, _)| refused::suggestion(destination)).collect();
    let next = if allow.is_empty() {
        String::new()
    } else {
        format!("; allow with `pi allow --save {}`", allow.join(" "))
    };
    report::note(format_args!("refused: {}{next}", names.join(", ")));
}
