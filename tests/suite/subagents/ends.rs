//! Subagents that do not finish, and one that tries its walls.

use std::{fs, io::Write as _};

use rustix::process::Signal;

use super::{assert_clean, branches, command, reports, tasks, trees, words, world};
use crate::world::{
    World,
    wait::{processes, until_true},
};

/// Tries to write what is not its own, and says what it could.
const INTRUDER: &str = "echo fine >own.txt; mkdir -p a b; echo x >a/x; mv a/x b/x; ln b/x b/y; git add .; \
    git commit -q -m own; \
    for path in ../crash/crash.txt ../new ../../tracked ../../.git/config ../../.git/hooks/post-commit ../../.git/x \
        /home/pi/.bashrc /home/pi/.pi/agent/x /home/pi/.pi/agent/extensions/x.js /tmp/x; do \
        (echo x >$path) 2>/dev/null && echo wrote $path; done; \
    ln ../../tracked stolen 2>/dev/null && echo linked; mv ../../tracked . 2>/dev/null && echo moved; \
    rm -rf ../crash/crash.txt ../../.git/refs 2>/dev/null; \
    git update-ref refs/heads/main HEAD; \
    git update-ref refs/heads/subagent/queued HEAD; git branch -D main >/dev/null 2>&1; \
    up=$(cut -d' ' -f4 /proc/$PPID/stat); for process in $up $(cut -d' ' -f4 /proc/$up/stat); do \
        kill -0 $process 2>/dev/null && echo reached $process; done; \
    git config a.b c && echo stopped";

/// The subagents that `pi ps --all` lists, without their ages.
fn on_the_host(world: &World) -> Vec<String> {
    let said = world.run_pi(&["ps", "--all", "--json"]);
    said.has_code(0);
    let all: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let row = |one: &serde_json::Value| {
        let text = |key: &str| one[key].as_str().unwrap_or("-").to_owned();
        assert!(one["since"].as_u64().unwrap() > 1_600_000_000, "{one}");
        [text("name"), text("state"), text("branch"), text("pull_request")].join(" ")
    };
    all["subagents"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn each_bad_end_is_told_and_all_work_is_kept() {
    let world = world("[subagents]\nat_once = 2\n");
    fs::write(world.repo().join("tracked"), "whole\n").unwrap();
    world.git(world.repo(), &["add", "."]);
    world.git(world.repo(), &["commit", "--quiet", "--amend", "--message", "first"]);
    let tasks = tasks(&[
        ("crash", "echo crash >crash.txt; git add crash.txt; kill -9 $PPID; sleep 600"),
        ("intruder", INTRUDER),
        // It waits for a place.
        ("queued", "echo later >later.txt; git add .; git commit -q -m later"),
    ]);
    let said = world.pi(&words(&tasks)).run();
    assert_eq!(said.code, Some(0), "{said:#?}");
    let reports = reports(&said.out);
    for (report, begins) in reports.iter().zip([
        "The subagent `crash` was killed: signal 9.\nBranch: subagent/crash\n",
        "The subagent `intruder` has finished.\nBranch: subagent/intruder\n",
        "The subagent `queued` has finished.\nBranch: subagent/queued\n",
    ]) {
        assert!(report.starts_with(begins), "{begins}: {said:#?}");
    }
    assert!(reports[1].contains("\nIt says:\nstopped\n"), "{said:#?}");
    let more =
        "what it has made on other branches is on subagent-intruder/main, subagent-intruder/subagent/queued";
    assert!(reports[1].contains(more), "{said:#?}");
    let wip =
        |name: &str| format!("subagent/{name}: wip: what the subagent {name} had not committed, first\n");
    let expected = [
        "main: first\n",
        "subagent-intruder/main: own, first\n",
        "subagent-intruder/subagent/queued: own, first\n",
        &wip("crash"),
        "subagent/intruder: own, first\n",
        "subagent/queued: later, first\n",
    ];
    assert_eq!(branches(&world), expected.concat());
    assert_eq!(trees(&world), ["crash"]);
    assert_eq!(fs::read_to_string(world.repo().join("tracked")).unwrap(), "whole\n");
    assert_eq!(fs::read_to_string(world.repo().join(".worktrees/crash/crash.txt")).unwrap(), "crash\n");
    let config = fs::read_to_string(world.repo().join(".git/config")).unwrap();
    assert!(!config.contains("[a]"), "{config}");
    assert_clean(&world);
    // The user's own worktree beside them is nobody else's.
    world.git(world.repo(), &["worktree", "add", "--quiet", "--detach", ".worktrees/mine"]);
    fs::write(world.repo().join(".worktrees/crash/more"), "").unwrap();
    let expected_here = [
        "crash killed subagent/crash -",
        "intruder finished, no worktree subagent/intruder -",
        "queued finished, no worktree subagent/queued -",
    ];
    assert_eq!(on_the_host(&world), expected_here);
    let command = |words: &str| command(&world, words);
    let listed = command("/worktrees");
    assert!(listed.contains("subagent/crash     killed") && !listed.contains("mine"), "{listed}");
    assert!(listed.contains("subagent/queued    finished, no worktree"), "{listed}");
    assert_eq!(command("/cleanup-all"), "`crash` stays: it has uncommitted changes in 1 files: more\n");
    fs::remove_file(world.repo().join(".worktrees/crash/more")).unwrap();
    let removed = "emptied the worktree of `crash`, which goes when this session ends; its branch is `subagent/crash`\n";
    assert_eq!(command("/cleanup-worktree crash"), removed);
    assert_eq!(trees(&world), ["mine"]);
    assert_eq!(branches(&world), expected.concat());
    world.assert_nothing_left();
}

#[test]
fn one_that_takes_too_long_is_ended_and_its_work_is_kept() {
    let world = world("[subagents]\ntime_limit = \"15s\"\n");
    let tasks = tasks(&[("late", "echo late >late.txt; (setsid sleep 600 &); sleep 600")]);
    let said = world.pi(&words(&tasks)).good();
    assert!(said.starts_with("The subagent `late` ran out of time.\nBranch: subagent/late\n"), "{said}");
    let wip = "subagent/late: wip: what the subagent late had not committed, first\n";
    assert_eq!(branches(&world), format!("main: first\n{wip}"));
    assert!(command(&world, "/worktrees").contains("timed out"));
    assert_clean(&world);
}

#[test]
fn cancelling_ends_a_subagent_with_all_that_it_has_started() {
    let world = world("");
    // Processes of a container are seen from here, and this number is nobody else's.
    let sleep = format!("600.{}", std::process::id());
    let script = format!(
        "setsid sleep {sleep} & (sleep {sleep} &) ; trap '' TERM; sleep {sleep} & touch begun; wait; sleep {sleep}"
    );
    let (stdin, mut keys) = std::io::pipe().unwrap();
    let pi = world.pi(&["--mode", "rpc", "--model", "demo/spawn"]).stdin(stdin).start();
    let prompt = serde_json::json!({ "type": "prompt", "message": tasks(&[("one", &script)]) });
    writeln!(keys, "{prompt}").unwrap();
    until_true("a subagent at work", || world.repo().join(".worktrees/one/begun").exists());
    let left = || processes(|words| words.contains(&sleep));
    until_true("its processes", || left().len() == 3);
    writeln!(keys, "{{\"type\": \"abort\"}}").unwrap();
    until_true("the subagent's end", || pi.out().contains("The subagent `one` was cancelled."));
    assert_eq!(left(), []);
    // What it said on its way was seen while it worked.
    assert!(pi.out().contains("tool_execution_update"), "{}", pi.out());
    drop(keys);
    pi.wait().has_code(0);
    assert_eq!(
        branches(&world),
        "main: first\nsubagent/one: wip: what the subagent one had not committed, first\n"
    );
    assert_clean(&world);
    world.assert_nothing_left();
}

#[test]
fn a_launcher_that_is_killed_with_four_running_loses_nothing() {
    let world = world("");
    let names = ["a", "b", "c", "d"];
    let scripts = names.map(|name| (name, format!("echo {name} >{name}.txt; sleep 600")));
    let scripts: Vec<_> = scripts.iter().map(|(name, script)| (*name, script.as_str())).collect();
    let tasks = tasks(&scripts);
    let pi = world.pi(&words(&tasks)).start();
    let file = |name: &str| world.repo().join(format!(".worktrees/{name}/{name}.txt"));
    until_true("four at work", || names.iter().all(|name| file(name).exists()));
    assert_eq!(on_the_host(&world), names.map(|name| format!("{name} running subagent/{name} -")));
    until_true("them in `git worktree list`", || trees(&world) == names);
    pi.signal(Signal::KILL);
    pi.wait();
    until_true("the end of the session", || world.sessions().is_empty() && world.watchers().is_empty());
    world.assert_nothing_left();
    assert_clean(&world);
    assert_eq!(trees(&world), names);
    assert_eq!(on_the_host(&world), names.map(|name| format!("{name} interrupted subagent/{name} -")));
    // The next session saves what they have not.
    let listed = command(&world, "/worktrees");
    assert_eq!(listed.matches("interrupted").count(), 4, "{listed}");
    let all = names
        .map(|name| format!("subagent/{name}: wip: what the subagent {name} had not committed, first\n"));
    assert_eq!(branches(&world), format!("main: first\n{}", all.concat()));
    assert_clean(&world);
    world.assert_nothing_left();
}
