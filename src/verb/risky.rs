//! `pi diff --risky`: the files that commonly run on this machine, and that agents have made or changed.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{copy::At, ps::age};
use crate::{
    git::{
        copy::{back::changes, commonly_runs},
        given::{DIRECTORY, seen_before},
        left::{Left, noted},
        scan::Change,
    },
    host::{Host, seconds},
    launcher::Launcher,
    record,
    report::{self, shown_path},
    workspace::Workspace,
};

/// Lists those in the work tree, or in the copy of this name.
pub(crate) fn run(launcher: &Launcher, name: Option<&str>) -> anyhow::Result<u8> {
    let Some(name) = name else { return in_work_tree(&launcher.host) };
    let at = At::find(launcher, Some(name))?;
    let held = at.bring_in(launcher)?;
    let (branch, base) = at.result(held.as_ref())?;
    let all = changes(&at.git, &at.repository, &base, &branch)?;
    let risky: Vec<(Change, PathBuf)> = all.into_iter().filter(|(_, path)| commonly_runs(path)).collect();
    if risky.is_empty() {
        report::note(format_args!(
            "nothing that commonly runs on this machine has changed in the copy `{name}`"
        ));
        return Ok(0);
    }
    let mut text = format!("{:<8} FILE\n", "CHANGE");
    for (change, path) in risky {
        let _ = writeln!(text, "{:<8} {}", word(change), shown_path(&path));
    }
    report::data(text).map(|()| 0)
}

fn in_work_tree(host: &Host) -> anyhow::Result<u8> {
    let root = Workspace::find(host)?.root;
    let (live, _) = record::all(host)?;
    let mut all = Vec::new();
    for session in live.into_iter().filter(|session| session.record.repository == root) {
        let Some((seen, top)) = seen_before(&session.dir.join(DIRECTORY)) else { continue };
        all.extend(seen.news(&root, top)?.into_iter().map(|risky| Left {
            path: risky.path.into_os_string(),
            change: risky.change,
            session: session.record.name.clone(),
            ended: None,
        }));
    }
    // What a session has that runs was left by another before it, if at all.
    let running = all.len();
    for left in noted(host, &root) {
        if !all[..running].iter().any(|other| other.path == left.path) {
            all.push(left);
        }
    }
    if all.is_empty() {
        report::note(
            "no session has left anything here in the last 30 days that commonly runs on this machine",
        );
        return Ok(0);
    }
    report::data(table(&all, seconds(SystemTime::now()))).map(|()| 0)
}

fn table(all: &[Left], now: u64) -> String {
    let mut text = format!("{:<8} {:>8}  {:<20}  FILE\n", "CHANGE", "AGE", "SESSION");
    for Left { path, change, session, ended } in all {
        let age = ended.map_or("runs".to_owned(), |ended| age(now.saturating_sub(ended)));
        let _ =
            writeln!(text, "{:<8} {age:>8}  {session:<20}  {}", word(*change), shown_path(Path::new(path)));
    }
    text
}

fn word(change: Change) -> &'static str {
    match change {
        Change::New => "new",
        Change::Changed => "changed",
    }
}
