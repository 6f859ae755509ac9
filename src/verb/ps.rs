//! `pi ps`: lists running sessions from their records, without asking an engine; on request copies, and the subagents of the
//! repository around the current directory.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::diff::short;
use crate::{
    copies::{self, Copy, Held},
    docker::{self, Docker},
    git::{
        command::Git,
        given::DIRECTORY,
        trees::{Subagent, subagents},
    },
    host::{Engine, seconds},
    launcher::{Launcher, cloning::repository},
    plan::state_hash,
    record::{self, Live, SessionId},
    report::{self, Finding, one_line},
    session::copy::Reach,
    workspace::Workspace,
    written::Written,
};

/// How long an engine may take to say which sessions it has.
const ANSWER: Duration = Duration::from_secs(20);

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
    state: State,
}

/// Whether a session has its launcher.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Running,
    /// It has none, and its agent may live.
    Lost,
}

/// A copy.
#[derive(Serialize)]
struct CopyRow {
    name: String,
    repository: PathBuf,
    engine: String,
    volume: String,
    branch: Option<String>,
    /// Seconds since 1970.
    made: u64,
    used: u64,
    /// In KiB, when its work was brought in last.
    size: Option<u64>,
    /// How many commits are only in the copy, as a number with `+` where something is uncommitted; `None` where that
    /// cannot be seen now.
    unfetched: Option<String>,
}

/// A subagent.
#[derive(Serialize)]
struct SubagentRow {
    name: String,
    branch: String,
    state: String,
    /// Seconds since 1970.
    since: u64,
    pull_request: Option<String>,
}

/// A session on an engine that no launcher of this machine's has any more.
#[derive(Serialize)]
struct Deserted {
    id: String,
    context: String,
    engine: String,
}

/// All that there is, for programs.
#[derive(Serialize)]
struct Everything<'a> {
    sessions: Vec<Row<'a>>,
    copies: Vec<CopyRow>,
    subagents: Vec<SubagentRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deserted: Option<Vec<Deserted>>,
}

/// Which engines are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engines {
    /// None: the records know.
    Known,
    /// Those of all docker contexts.
    All,
}

/// Lists the running sessions of this user on this machine. If all is asked for, also the copies, and the subagents of the
/// repository around the current directory.
pub(crate) fn run(launcher: &Launcher, all: bool, engines: Engines, json: bool) -> anyhow::Result<u8> {
    let named = launcher.options.on.as_deref().map(|name| launcher.host.on(name)).transpose()?;
    let mut live = record::live(&launcher.host)?;
    let mut lost = record::lost(&launcher.host);
    if let Some(host) = &named {
        let is_there = |session: &Live| session.record.engine == host.engine.address;
        live.retain(is_there);
        lost.retain(is_there);
    }
    let with_state = |state| move |session| (session, state);
    let rows: Vec<Row<'_>> = live
        .iter()
        .map(with_state(State::Running))
        .chain(lost.iter().map(with_state(State::Lost)))
        .map(|(Live { record, .. }, state)| Row {
            name: &record.name,
            id: record.id.as_str(),
            network: &record.network,
            image: &record.image,
            repository: &record.repository,
            directory: &record.directory,
            engine: &record.engine,
            started: record.started,
            state,
        })
        .collect();
    let copies = if all { copies(launcher)? } else { vec![] };
    let subagents = if all { subagents_here(launcher, &live) } else { vec![] };
    let deserted = (engines == Engines::All).then(|| deserted(launcher)).transpose()?;
    if json {
        let text = if all || deserted.is_some() {
            report::json(&Everything { sessions: rows, copies, subagents, deserted })?
        } else {
            report::json(&rows)?
        };
        return report::data(text).map(|()| 0);
    }
    let now = seconds(SystemTime::now());
    if rows.is_empty() {
        report::note("no session is running");
    } else {
        report::data(sessions_table(&rows, now, &launcher.here.engine.address))?;
    }
    for Live { record, .. } in &lost {
        Finding::hinted(
            format!("the session `{}` on `{}` has lost its launcher", record.name, one_line(&record.engine)),
            record::what_next(&record.name),
        )
        .warn();
    }
    if all && copies.is_empty() {
        report::note("there is no copy");
    } else if all {
        report::data(copies_table(&copies, now))?;
    }
    if !subagents.is_empty() {
        report::data(subagents_table(&subagents, now))?;
    }
    let is_told = |id: &str| lost.iter().any(|session| session.record.id.as_str() == id);
    for Deserted { id, context, .. } in deserted.into_iter().flatten().filter(|one| !is_told(&one.id)) {
        Finding::hinted(
            format!("the session `{id}` on `{}` has lost its launcher", one_line(&context)),
            "`pi clean --all-contexts` brings in its work and removes it",
        )
        .warn();
    }
    Ok(0)
}

/// Sessions with a container on one of all engines, and without a launcher.
fn deserted(launcher: &Launcher) -> anyhow::Result<Vec<Deserted>> {
    let host = &launcher.host;
    let docker = Docker::find(&launcher.config()?.docker, host, &Written::load(host).and_around(host))?;
    let docker = docker.heeding(&launcher.signals).within(ANSWER);
    let label = format!("pi.state={}", state_hash(host));
    let ask = |engine: &Engine| {
        engine.check()?;
        docker.at(&engine.address).run(&docker::list("container", &label, "pi.session"))
    };
    let engines = host.engines();
    let answers: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = engines.iter().map(|(_, engine)| scope.spawn(|| ask(engine))).collect();
        asked.into_iter().map(|thread| thread.join().expect("asking does not panic")).collect()
    });
    launcher.signals.check()?;
    // What has begun meanwhile has one.
    let live = record::live(host)?;
    let mut all = vec![];
    for ((context, engine), answer) in engines.into_iter().zip(answers) {
        let listed = match answer {
            Ok(listed) => listed,
            Err(error) => {
                report::warn(format_args!("`{}` does not say what is there: {error:#}", one_line(&context)));
                continue;
            }
        };
        let ids = listed.lines().filter_map(|line| SessionId::parse(line.split_once('\t')?.1.trim()));
        let ids: BTreeSet<SessionId> = ids.collect();
        for id in ids.into_iter().filter(|id| !live.iter().any(|session| session.record.id == *id)) {
            let (context, engine) = (context.clone(), engine.address.clone());
            all.push(Deserted { id: id.as_str().to_owned(), context, engine });
        }
    }
    Ok(all)
}

/// The subagents of the repository around the current directory; there are none where there is no repository.
fn subagents_here(launcher: &Launcher, live: &[Live]) -> Vec<SubagentRow> {
    let host = &launcher.host;
    let Ok(workspace) = Workspace::find(host) else { return vec![] };
    let Ok(repository) = repository(&workspace) else { return vec![] };
    let written = Written::load(host).and(workspace.dirs()).and_around(host);
    let Some(git) = Git::find(host, &written) else { return vec![] };
    let is_here = |live: &&Live| live.record.repository == workspace.root;
    let dirs: Vec<PathBuf> = live.iter().filter(is_here).map(|live| live.dir.join(DIRECTORY)).collect();
    let row = |Subagent { name, branch, state, since, pr }| SubagentRow {
        name,
        branch,
        state,
        since,
        pull_request: pr,
    };
    subagents(&git, &repository, &dirs).into_iter().map(row).collect()
}

fn subagents_table(rows: &[SubagentRow], now: u64) -> String {
    let mut table =
        format!("{:<20} {:<22} {:>8}  {:<30}  PULL REQUEST\n", "SUBAGENT", "STATE", "AGE", "BRANCH");
    for row in rows {
        let _ = writeln!(
            table,
            "{:<20} {:<22} {:>8}  {:<30}  {}",
            row.name,
            row.state,
            age(now.saturating_sub(row.since)),
            row.branch,
            row.pull_request.as_deref().unwrap_or("-")
        );
    }
    table
}

/// The copies, each with what is only in it.
fn copies(launcher: &Launcher) -> anyhow::Result<Vec<CopyRow>> {
    let all = copies::all(&launcher.host);
    if all.is_empty() {
        return Ok(vec![]);
    }
    let host = &launcher.host;
    let written = Written::load(host).and_around(host);
    let docker = Docker::find(&launcher.config()?.docker, host, &written)?.heeding(&launcher.signals);
    let git = Git::find(host, &written);
    let row = |(dir, copy): (PathBuf, Copy)| {
        let unfetched = match (&git, copy.pending) {
            (_, false) => Some("0".to_owned()),
            (Some(git), true) => unfetched(&Reach { docker: &docker.at(&copy.engine), host, git }, &dir),
            (None, true) => None,
        };
        let branch = copy.result().map(|(name, _)| short(name).to_owned());
        let Copy { name, repository, engine, volume, made, used, size, .. } = copy;
        CopyRow { name, repository, engine, volume, branch, made, used, size, unfetched }
    };
    Ok(all.into_iter().map(row).collect())
}

/// What is only in a copy that no session works on now.
fn unfetched(reach: &Reach<'_>, dir: &Path) -> Option<String> {
    let mut held = Held::take(dir).ok().flatten()?;
    reach.count(&mut held).ok()
}

fn copies_table(rows: &[CopyRow], now: u64) -> String {
    let head = ["COPY", "AGE", "SIZE", "UNFETCHED", "BRANCH", "REPOSITORY"];
    let mut table = format!(
        "{:<20} {:>8} {:>8} {:>9}  {:<20}  {}\n",
        head[0], head[1], head[2], head[3], head[4], head[5]
    );
    for row in rows {
        let _ = writeln!(
            table,
            "{:<20} {:>8} {:>8} {:>9}  {:<20}  {}",
            row.name,
            age(now.saturating_sub(row.made)),
            row.size.map_or("?".to_owned(), size),
            row.unfetched.as_deref().unwrap_or("?"),
            row.branch.as_deref().unwrap_or("-"),
            report::one_line(&row.repository.to_string_lossy())
        );
    }
    table
}

fn size(kib: u64) -> String {
    match kib {
        0..1024 => format!("{kib}K"),
        1024..1_048_576 => format!("{}M", kib / 1024),
        _ => format!("{}G", kib / 1_048_576),
    }
}

/// `usual` is the engine that goes without saying.
fn sessions_table(rows: &[Row<'_>], now: u64, usual: &str) -> String {
    let mut table = format!("{:<20} {:<16} {:<8} {:>8}  {}\n", "NAME", "ID", "NETWORK", "AGE", "REPOSITORY");
    for row in rows {
        let mut at = String::new();
        if row.engine != usual {
            let _ = write!(at, "  on {}", report::one_line(row.engine));
        }
        if row.state == State::Lost {
            at += "  (lost)";
        }
        let _ = writeln!(
            table,
            "{:<20} {:<16} {:<8} {:>8}  {}{at}",
            row.name,
            row.id,
            row.network,
            age(now.saturating_sub(row.started)),
            report::one_line(&row.repository.to_string_lossy())
        );
    }
    table
}

pub(super) fn age(seconds: u64) -> String {
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
