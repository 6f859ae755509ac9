//! What is told or refused at the start, with an engine that is a script, and what is named at the end.

use std::{fs, os::unix::net::UnixListener};

use super::{Steps, git, world};
use crate::world::{
    World,
    files::{myself, own, write, write_program},
};

#[test]
fn a_socket_in_the_work_tree_is_named_and_ends_a_restricted_start() {
    let world = World::fake();
    write(world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
    let socket = world.repo().join("tmp/s.sock");
    write(world.repo().join("tmp/.keep"), "");
    let _listener = UnixListener::bind(&socket).unwrap();
    for words in [&["--proxy", "-p", "x"][..], &["--no-network", "-p", "x"]] {
        let said = format!("the agent could leave its network by a socket: `{}`", socket.display());
        world.run_pi(words).says(125, &said);
    }
    let said = format!("pi: warning: the agent can talk to what listens on `{}`\n", socket.display());
    world.run_pi(&["-p", "x"]).is(0, "", &said);
    fs::remove_file(&socket).unwrap();
    // One that was asked for by its name is meant; what a directory brings along is not.
    let outside = world.root().join("run");
    write(outside.join(".keep"), "");
    let _listener = UnixListener::bind(outside.join("s.sock")).unwrap();
    let mount = |path: &str| format!("{}:/srv/run", outside.join(path).display());
    world
        .run_pi(&["--no-network", "--mount", &mount(""), "-p", "x"])
        .says(125, "leave its network by a socket");
    world.run_pi(&["--no-network", "--mount", &mount("s.sock"), "-p", "x"]).is(0, "", "");
    world.assert_nothing_left();
}

#[test]
fn a_mount_by_which_the_git_directory_could_be_written_is_refused() {
    let world = World::fake();
    let (repo, dir) = (world.repo().display().to_string(), world.repo().join(".git").display().to_string());
    write(world.repo().join("README"), "");
    let parent = world.root().join("parent");
    fs::create_dir_all(&parent).unwrap();
    let with = |mount: &str| world.run_pi(&["--mount", mount, "-p", "x"]);
    for mount in [format!("{dir}/objects"), format!("{repo}:/srv/x"), format!("{dir}:/srv/x")] {
        with(&mount).says(125, "it is or holds this repository's git directory");
    }
    with(&format!("{}:{dir}", parent.display())).says(2, "the session has what belongs to git at that place");
    with(&format!("{dir}/objects:/srv/x:ro")).is(0, "", "");
    // Another repository, of which the user may not have thought.
    let other = world.repository("other");
    with(&other.display().to_string()).says(0, "what it writes there can run on this machine");
    world.assert_nothing_left();
}

#[test]
fn programs_that_a_repository_names_are_told_once() {
    let world = World::fake();
    let hook = world.repo().join(".git/hooks/pre-commit");
    write(hook.parent().unwrap().join(".keep"), "");
    write_program(&hook, "#!/bin/sh\n");
    own(&hook, myself());
    let said =
        format!("git on this machine runs programs that `{}` names: hook pre-commit", world.repo().display());
    world.run_pi(&["-p", "x"]).says(0, &said);
    world.run_pi(&["-p", "x"]).is(0, "", "");
    // Another state of it is told anew.
    write(world.repo().join(".git/config"), "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = ./x\n");
    world.run_pi(&["-p", "x"]).says(0, "core.fsmonitor = ./x");
    world.assert_nothing_left();
}

#[test]
fn what_the_user_or_the_repository_wants_read_only_is_and_says_why() {
    let world = world();
    let script = "git log --format=%s | wc -l; git commit --quiet --allow-empty -m x 2>&1 | grep -c 'Read-only'; \
                  git config remote.o.url";
    git(&world, &["config", "remote.o.url", "https://me:token@example.com/x"]);
    world.configure("git = \"read-only\"\n");
    assert_eq!(world.shell(&[], script).good(), "2\n1\nhttps://example.com/x\n");
    world.configure("");
    write(world.repo().join(".gitattributes"), "*.bin filter=lfs\n");
    git(&world, &["add", ".gitattributes"]);
    let outcome = world.shell(&[], script).run();
    outcome.says(0, "the agent can read this repository's history, but not commit: it uses Git LFS");
    assert_eq!(outcome.out, "2\n1\nhttps://example.com/x\n");
    world.assert_nothing_left();
}

#[test]
fn the_end_names_what_commonly_runs_here_in_few_lines() {
    let world = world();
    write(world.repo().join("Makefile"), "all:\n");
    let agent = Steps::begin(&world, &[]);
    agent.step(
        "echo x: >>Makefile; mkdir -p .vscode; echo {} >.vscode/tasks.json; echo x >ordinary; git init -q n",
    );
    // While it runs, and when it has ended.
    let risky = || -> Vec<String> {
        let said = world.run_pi(&["diff", "--risky"]);
        said.has_code(0);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        said.out.lines().skip(1).map(words).collect()
    };
    assert_eq!(risky(), ["new runs repo .vscode/tasks.json", "changed runs repo Makefile"]);
    let ended = agent.end();
    ended.has_code(0);
    let said = "pi: warning: the agent left repositories in the work tree; git would run what they say, so they were renamed:\n  \
                `n/.git` → .git.pi-quarantine\npi: hint: rename one back when you have looked at its `config` and `hooks`\n\
                pi: warning: new or changed, and commonly run on this machine (`pi diff --risky`): `.vscode/tasks.json`, `Makefile`\n";
    assert_eq!(ended.err, said);
    assert!(world.repo().join("n/.git.pi-quarantine").is_dir());
    let with_age = risky();
    assert!(with_age.len() == 2 && with_age[1].starts_with("changed ") && !with_age[1].contains("runs"));
    // More than a notice names.
    let many = "for n in $(seq 200); do mkdir -p many/$n; echo >many/$n/Makefile; done; rm Makefile";
    let said = world.shell(&[], many).run();
    assert!(said.code == Some(0) && said.err.lines().count() == 1, "{said:?}");
    assert!(said.err.ends_with(" and 188 more\n") && said.err.contains("`pi diff --risky`"), "{said:?}");
    let all = risky();
    assert_eq!(all.len(), 201);
    assert!(all[0].starts_with("new ") && all[200].ends_with(" repo .vscode/tasks.json"), "{all:?}");
    world.assert_nothing_left();
}
