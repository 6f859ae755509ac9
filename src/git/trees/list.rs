//! Which subagents there are: by what is known of their worktrees, on the host and in sessions that run, and by branches.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{MANY, NOTE, NOTE_SIZE, inside, is_name};
use crate::{
    agent_dir::fd::Dir,
    git::{command::Git, repository::Repository},
    report::short,
};

/// A subagent that has a worktree or a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subagent {
    pub(crate) name: String,
    pub(crate) branch: String,
    /// In a word or a few: text of an agent's, in one line.
    pub(crate) state: String,
    /// When it began, in seconds since 1970; of one that has no worktree any more, when it committed last.
    pub(crate) since: u64,
    pub(crate) pr: Option<String>,
}

/// Those of a repository. `running` has the directories for git of its sessions that run.
pub(crate) fn subagents(git: &Git, repository: &Repository, running: &[PathBuf]) -> Vec<Subagent> {
    let mut all = BTreeMap::new();
    for branch in branches(git, repository) {
        all.insert(branch.name.clone(), branch);
    }
    // What a session that runs knows is newer than what the host was told.
    all.extend(noted(&repository.common, false));
    for dir in running {
        all.extend(inside(dir).map(|common| noted(&common, true)).unwrap_or_default());
    }
    all.into_values().collect()
}

fn branch(name: &str) -> String {
    format!("subagent/{name}")
}

fn branches(git: &Git, repository: &Repository) -> Vec<Subagent> {
    let format = "--format=%(refname:lstrip=3) %(committerdate:unix)";
    let count = format!("--count={MANY}");
    let list = git
        .within(repository)
        .args(["for-each-ref", &count, "--sort=-committerdate", format, "refs/heads/subagent/"])
        .text();
    let one = |line: &str| {
        let (name, time) = line.split_once(' ')?;
        Some(Subagent {
            branch: short(&branch(name)),
            state: "finished, no worktree".to_owned(),
            since: time.parse().unwrap_or_default(),
            pr: None,
            name: short(name),
        })
    };
    list.unwrap_or_default().lines().filter_map(one).collect()
}

/// What is written in a git directory that an agent may have written.
fn noted(common: &Path, is_running: bool) -> BTreeMap<String, Subagent> {
    let worktrees = Dir::open(common).and_then(|common| common.dir("worktrees".as_ref()));
    let Ok(worktrees) = worktrees else { return BTreeMap::new() };
    let names = worktrees.names(MANY).unwrap_or_default();
    let read = |name| worktrees.dir(name).ok()?.read(NOTE.as_ref(), NOTE_SIZE).ok()?;
    names
        .iter()
        .filter_map(|name| parse(&read(name)?, is_running))
        .map(|one| (one.name.clone(), one))
        .collect()
}

fn parse(note: &[u8], is_running: bool) -> Option<Subagent> {
    let note: Value = serde_json::from_slice(note).ok()?;
    let text = |key: &str| note.get(key).and_then(Value::as_str).map(short);
    let name = text("task").filter(|name| is_name(name))?;
    let state = match text("state") {
        // Its session was killed.
        Some(state) if state == "running" && !is_running => "interrupted".to_owned(),
        Some(state) => state,
        None => "unknown".to_owned(),
    };
    let begun = note.get("begun").and_then(Value::as_u64).unwrap_or_default();
    Some(Subagent { branch: branch(&name), state, since: begun / 1000, pr: text("pr"), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_an_adversary_writes_it() {
        let read = |text: &str| parse(text.as_bytes(), true);
        let good = r#"{"task": "fix-1", "begun": 1700000000123, "state": "timed out", "pr": "https://x/1"}"#;
        assert_eq!(
            read(good),
            Some(Subagent {
                name: "fix-1".into(),
                branch: "subagent/fix-1".into(),
                state: "timed out".into(),
                since: 1_700_000_000,
                pr: Some("https://x/1".into()),
            })
        );
        for bad in ["", "[]", "7", "{}", r#"{"task": "../x"}"#, r#"{"task": "a b"}"#, r#"{"task": ["a"]}"#] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let odd = format!(
            r#"{{"task": "a", "begun": -1, "state": "\u001b[2Jx\ny", "pr": "{}"}}"#,
            "p".repeat(9999)
        );
        let odd = read(&odd).unwrap();
        assert_eq!((odd.state.as_str(), odd.since), ("\u{fffd}[2Jx\u{fffd}y", 0));
        assert!(odd.pr.unwrap().chars().count() < 300);
        let running = r#"{"task": "a", "state": "running"}"#;
        let state = |is_running| parse(running.as_bytes(), is_running).unwrap().state;
        assert_eq!([state(true), state(false)], ["running", "interrupted"]);
    }
}
