//! Subagents that finish: what becomes of their work.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::{assert_clean, branches, directory, reports, tasks, trees, words, world};
use crate::world::{
    World,
    files::write,
    model::{Held, docker, source},
};

/// The remote of a repository, in a container of this test's own.
fn remote(world: &World, socket: &str) -> Held {
    fs::set_permissions(socket, fs::Permissions::from_mode(0o777)).unwrap();
    let files = source("tests/subagents");
    let mounts = [(files.as_path(), "/remote"), (Path::new(socket), "/socket")];
    Held::start("remote", &world.image(&[]), &["--network=bridge"], &mounts, &["/remote/remote.mjs"])
        .that_says("listening\n")
}

fn ask(remote: &Held, words: &[&str]) -> String {
    docker(&[&["exec", &remote.name, "curl", "-fsS"], words].concat())
}

#[test]
fn two_at_once_are_pushed_and_get_their_pull_requests() {
    let world = world("");
    let socket = directory(&world, "socket");
    let remote = remote(&world, &socket);
    world.git(world.repo(), &["remote", "add", "origin", "git@github.com:owner/repo.git"]);
    // What leads to the stand-ins, in files of the agent's home.
    let gitconfig = world.root().join("gitconfig");
    let url = format!("http://{}:8080/git/", remote.address());
    write(&gitconfig, format!("[url \"{url}\"]\n\tinsteadOf = git@github.com:\n"));
    let gh = world.root().join("gh.yml");
    write(&gh, "version: 1\nhttp_unix_socket: /socket/gh\n");
    let mounts = [
        format!("{}:/home/pi/.gitconfig:ro", gitconfig.display()),
        format!("{}:/home/pi/.config/gh/config.yml:ro", gh.display()),
        format!("{socket}:/socket:ro"),
    ];
    // Each waits until the other works.
    let script = |own: &str, other: &str| {
        format!(
            "echo {own} >{own}.txt; git add .; git commit --quiet -m 'Add {own}'; n=0; \
             until [ -e ../{other}/{other}.txt ]; do sleep 0.05; n=$((n+1)); [ $n -lt 400 ] || exit 1; done; \
             echo saw {other}; sleep 0.2"
        )
    };
    let (one, two) = (script("one", "two"), script("two", "one"));
    let tasks = tasks(&[("one", &one), ("two", &two)]);
    // The launcher's own way to GitHub would take the place of the stand-ins.
    let mut options = vec!["--env", "GH_TOKEN=token"];
    options.extend(mounts.iter().flat_map(|mount| ["--mount", mount.as_str()]));
    let said = world.pi(&[&options[..], &words(&tasks)].concat()).run();
    assert_eq!(said.code, Some(0), "{said:#?}");
    let reports = reports(&said.out);
    for (report, own, other) in [(reports[0], "one", "two"), (reports[1], "two", "one")] {
        assert!(report.starts_with(&format!("The subagent `{own}` has finished.\n")), "{said:#?}");
        for expected in [
            "Pull request: https://github.com/owner/repo/pull/",
            &format!("Branch: subagent/{own}, pushed to origin\n"),
            &format!(" Add {own}\nFiles:\n  A {own}.txt\n"),
            &format!("It says:\nsaw {other}"),
        ] {
            assert!(report.contains(expected), "no {expected:?}: {said:#?}");
        }
    }
    let pushed = ask(&remote, &["http://localhost:8080/branches"]);
    assert_eq!(pushed, "subagent/one Add one\nsubagent/two Add two");
    let pulls = ask(&remote, &["--unix-socket", "/socket/gh", "http://localhost/pulls"]);
    let mut pulls: Vec<serde_json::Value> = serde_json::from_str(&pulls).unwrap();
    pulls.sort_by_key(|pull| pull["head"].to_string());
    for (pull, own) in pulls.iter().zip(["one", "two"]) {
        assert_eq!((&pull["title"], &pull["base"]), (&format!("Add {own}").into(), &"main".into()), "{pull}");
        assert_eq!(pull["head"], format!("subagent/{own}"));
    }
    assert_eq!(pulls.len(), 2);
    // Nothing but their branches is left.
    assert_eq!(branches(&world), "main: first\nsubagent/one: Add one, first\nsubagent/two: Add two, first\n");
    assert_eq!(trees(&world), [""; 0]);
    assert!(!world.repo().join(".worktrees").exists());
    assert_clean(&world);
    world.assert_nothing_left();
}

#[test]
fn a_name_is_checked_a_taken_one_gets_a_number_and_no_more_wait_than_may() {
    let world = world("[subagents]\nat_once = 1\nqueued = 1\n");
    world.git(world.repo(), &["branch", "subagent/Same"]);
    let same = ("same", "true");
    // All in one turn.
    let tasks = tasks(&[same, same, ("more", "true"), ("../up", "true"), ("-x", "true"), ("", "true")]);
    let said = world.pi(&words(&tasks)).good();
    let reports = reports(&said);
    let mut names: Vec<_> = reports[..2].iter().map(|report| report.lines().next().unwrap()).collect();
    names.sort_unstable();
    let finished = |name: &str| format!("The subagent `{name}` (`same` was taken) has finished.");
    assert_eq!(names, ["same-2", "same-3"].map(finished));
    assert_eq!(reports[2], "2 subagents run or wait, which is the limit; wait for some to end");
    for report in &reports[3..] {
        assert!(report.starts_with("`task` is no name"), "{said}");
    }
    let expected = "main: first\nsubagent/Same: first\nsubagent/same-2: first\nsubagent/same-3: first\n";
    assert_eq!(branches(&world), expected);
    assert!(!world.repo().join(".worktrees").exists());
    assert_clean(&world);
}

#[test]
fn without_the_setting_there_are_none() {
    let world = world("subagents = false\n");
    let said = world.pi(&words(&tasks(&[("one", "true")]))).good();
    assert!(said.contains("spawn_subagent not found"), "{said}");
    let world = self::world("");
    let plan = world.plan(&["-ne", "-p", "x"]);
    let command = plan["agent"]["command"].to_string();
    assert!(!command.contains("--extension"), "{command}");
    let plan = world.plan(&["shell", "--", "true"]);
    assert!(plan["agent"]["env"].get("PI_BOX_SUBAGENTS").is_none(), "{plan}");
}
