//! What comes over, and what stands.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};

use super::{Steps, commit, git, status, world};
use crate::world::{
    files::{owner_of, write},
    wait::{until, until_true},
};

#[test]
fn commits_come_over_while_the_session_runs_and_the_users_own_work_stands() {
    let world = world();
    write(world.repo().join("b"), "mine, not staged");
    write(world.repo().join("c"), "mine, staged");
    git(&world, &["add", "c"]);
    let agent = Steps::begin(&world, &[]);
    assert_eq!(agent.step("git status --porcelain --branch"), status(&world));
    assert_eq!(agent.step("git log --format=%s | wc -l"), "2");
    // Under load it may take longer than on a machine that has nothing else to do.
    let come_over = |branch: &str, said: &str| {
        let begun = Instant::now();
        until("a commit to come over", || {
            let log = git(&world, &["for-each-ref", "--format=%(subject)", &format!("refs/heads/{branch}")]);
            if log == said { Ok(()) } else { Err(log) }
        });
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    };
    agent.step("echo 2 >a; git commit --quiet --message agent a");
    come_over("main", "agent");
    assert_eq!(status(&world), "## main\n M b\nA  c");
    agent.step("git checkout --quiet -b feature/x; git commit --quiet --only --allow-empty -m x; git tag v1");
    come_over("feature/x", "x");
    until_true("HEAD to follow", || status(&world) == "## feature/x\n M b\nA  c");
    until_true("the tag", || git(&world, &["tag"]) == "v1");
    // A user who commits meanwhile.
    git(&world, &["commit", "--quiet", "--message", "user", "c"]);
    let users = git(&world, &["rev-parse", "HEAD"]);
    agent.step("git commit --quiet --only --allow-empty -m beside; git stash list");
    come_over("pi/repo/feature/x", "beside");
    assert_eq!(git(&world, &["rev-parse", "HEAD"]), users);
    assert_eq!(status(&world), "## feature/x\n M b");
    assert_eq!(fs::read_to_string(world.repo().join("b")).unwrap(), "mine, not staged");
    // The end brings what the last look has not seen.
    agent.step("git checkout --quiet -b last; git commit --quiet --only --allow-empty -m last");
    let ended = agent.end();
    let kept =
        "pi: warning: the agent's `feature/x` is kept as `pi/repo/feature/x`: you have moved it meanwhile\n";
    ended.says(0, kept);
    assert_eq!(git(&world, &["log", "-1", "--format=%s", "last"]), "last");
    git(&world, &["fsck", "--strict"]);
    assert_eq!(git(&world, &["for-each-ref", "refs/pi"]), "");
    for file in ["index", "HEAD", "logs/HEAD", "refs/heads/last", "refs/heads/pi/repo/feature/x"] {
        assert_eq!(owner_of(&world.repo().join(".git").join(file)), world.owner(), "{file}");
    }
    world.assert_nothing_left();
}

#[test]
fn what_a_killed_launcher_left_is_there_when_the_next_session_begins() {
    let world = world();
    let agent = Steps::begin(&world, &[]);
    agent.step("true");
    // Nobody is left who could take anything over.
    for watcher in world.watchers() {
        kill_process(watcher, Signal::KILL).unwrap();
    }
    agent.running.signal_group(Signal::KILL);
    // The container is the engine's, and works on.
    agent.step("echo 2 >a; git commit --quiet --message killed a; git checkout --quiet -b x; git tag t");
    assert_eq!(git(&world, &["log", "-1", "--format=%s"]), "user: b 1");
    assert_eq!(world.sessions().len(), 1);
    let said = world.shell(&[], "git log -1 --format=%s; git status --porcelain --branch -- a b").good();
    assert_eq!(said, "killed\n## x\n");
    assert_eq!(git(&world, &["tag"]), "t");
    assert_eq!(status(&world), "## x");
    world.assert_nothing_left();
}

#[test]
fn work_that_cannot_be_taken_over_is_kept_and_named() {
    let world = world();
    let agent = Steps::begin(&world, &[]);
    agent.step(
        "blob=$(echo x | git hash-object -w --stdin); tree=$(printf '100644 blob %s\\t.git\\n' $blob | git mktree); \
         git branch bad $(git commit-tree -m bad $tree); git commit --quiet --allow-empty --message good",
    );
    let ended = agent.end();
    ended.says(0, "some of the agent's work is kept in `");
    assert!(ended.err.contains("  `bad`: git says: "), "{ended:?}");
    assert_eq!(git(&world, &["log", "-1", "--format=%s"]), "good");
    assert_eq!(git(&world, &["branch", "--list", "bad", "pi/*"]), "");
    // It is no dead session: nobody takes it down.
    assert_eq!(world.shell(&[], "git log -1 --format=%s").good(), "good\n");
    let kept = world.session();
    assert!(kept.join("git/private/refs/heads/bad").exists());
    world
        .run_pi(&["clean"])
        .says(125, &format!("an agent's work is in `{}` and nowhere else", kept.display()));
    fs::remove_dir_all(&kept).unwrap();
    world.assert_nothing_left();
}

#[test]
fn a_second_session_keeps_its_work_beside_the_firsts() {
    let world = world();
    let one = Steps::begin(&world, &[]);
    one.step("true");
    assert_eq!(world.shell(&[], "git commit --quiet --allow-empty -m two").good(), "");
    one.step("git commit --quiet --allow-empty -m one");
    one.end().says(0, "the agent's `main` is kept as `pi/repo/main`: you have moved it meanwhile");
    assert_eq!(git(&world, &["log", "-1", "--format=%s"]), "two");
    commit(&world, "d", "1");
    world.assert_nothing_left();
}
