//! `pi ps`: lists running sessions from their records, without asking an engine.

use std::{path::Path, time::SystemTime};

use serde::Serialize;

use crate::{
    host::seconds,
    launcher::Launcher,
    record::{self, Live},
    report,
};

/// A session.
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
    let (live, _) = record::all(&launcher.host)?;
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
        return report::data(report::json(&rows)?).map(|()| 0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_people_say_them() {
        assert_eq!([5, 65, 3661, 90000].map(age), ["5s", "1m", "1h01m", "1d01h"]);
    }
}
