//! What a user sees of a session in an ordinary repository.

use super::{
    super::{programs::programs, repository::Head, takeover::Aside},
    *,
};

#[test]
fn all_is_as_it_was_when_the_agent_begins() {
    let world = World::new();
    world.write("a", "2");
    world.write("c", "new");
    world.write("b", "staged");
    world.host(&["add", "b"]);
    world.host(&["tag", "v1"]);
    world.host(&["stash", "list"]);
    let session = world.session("s");
    assert_eq!(session.run(&["status", "--porcelain", "--branch"]), world.status());
    assert_eq!(session.run(&["log", "--format=%H"]), world.host(&["log", "--format=%H"]));
    assert_eq!(session.run(&["for-each-ref"]), world.host(&["for-each-ref"]));
    assert_eq!(session.end(), Taken::default());
}

#[test]
fn commits_come_over_with_head_and_index_while_the_agent_works() {
    let world = World::new();
    world.write("b", "mine, not staged");
    world.write("c", "mine, staged");
    world.host(&["add", "c"]);
    let session = world.session("s");
    world.write("a", "2");
    session.run(&["commit", "--quiet", "-m", "agent", "a"]);
    let taken = session.pass(Moment::Running);
    assert_eq!(taken.updated, ["refs/heads/main"]);
    assert_eq!(world.status(), "## main\n M b\nA  c");
    assert_eq!(world.host(&["log", "-1", "--format=%s"]), "agent");
    assert_eq!(world.host(&["fsck", "--strict"]), "");
    // A new branch, a switch, a tag, an amended commit.
    session.run(&["checkout", "--quiet", "-b", "feature/x"]);
    session.run(&["commit", "--quiet", "--amend", "--only", "-m", "amended"]);
    session.run(&["tag", "-a", "-m", "t", "v2"]);
    let taken = session.pass(Moment::Running);
    assert_eq!(taken.updated, ["refs/heads/feature/x"]);
    assert_eq!(taken.tags, ["refs/tags/v2"]);
    assert_eq!(taken.head.as_deref(), Some("refs/heads/feature/x"));
    assert_eq!(world.status(), "## feature/x\n M b\nA  c");
    assert_eq!(session.end(), Taken::default());
    assert_eq!(world.host(&["for-each-ref", "refs/pi", "refs/heads/pi"]), "");
    let left: Vec<_> = fs::read_dir(&world.common)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("pi") && !name.contains("descri") || name.contains("lock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_the_user_does_meanwhile_stands_and_the_agents_work_beside_it() {
    let world = World::new();
    let session = world.session("s");
    let agents = session.commit("a", "agent");
    world.host(&["reset", "--quiet"]);
    world.commit("b", "user");
    let users = world.host(&["rev-parse", "HEAD"]);
    world.write("b", "staged");
    world.host(&["add", "b"]);
    let before = world.status();
    let taken = session.pass(Moment::Running);
    let aside = Aside {
        name: "refs/heads/main".into(),
        kept: "pi/s/main".into(),
        reason: "you have moved it meanwhile".into(),
    };
    assert_eq!(taken, Taken { aside: vec![aside], ..Taken::default() });
    assert_eq!(world.host(&["rev-parse", "main", "pi/s/main"]), format!("{users}\n{agents}"));
    assert_eq!(world.status(), before);
    // It is told once, and follows the agent.
    assert_eq!(session.pass(Moment::Running), Taken::default());
    let agents = session.commit("a", "agent again");
    assert_eq!(session.end().aside.len(), 1);
    assert_eq!(world.host(&["rev-parse", "main", "pi/s/main"]), format!("{users}\n{agents}"));
    assert_eq!(world.host(&["for-each-ref", "--format=%(refname)", "refs/heads/pi"]), "refs/heads/pi/s/main");
}

#[test]
fn an_index_that_says_something_else_keeps_head_and_branch() {
    let world = World::new();
    let session = world.session("s");
    let agents = session.commit("a", "agent");
    world.write("a", "user");
    world.host(&["add", "a"]);
    let before = world.status();
    let taken = session.pass(Moment::Running);
    assert_eq!(taken.aside[0].reason, "you have staged changes of files that it changes");
    assert_eq!(world.status(), before);
    assert_eq!(world.host(&["rev-parse", "pi/s/main"]), agents);
    // Once that is gone, the agent's next commit takes its place, and nothing is left beside it.
    world.host(&["reset", "--quiet", "a"]);
    let agents = session.commit("b", "agent");
    assert_eq!(session.end().updated, ["refs/heads/main"]);
    assert_eq!(world.host(&["rev-parse", "main"]), agents);
    assert_eq!(world.host(&["for-each-ref", "refs/heads/pi"]), "");
}

#[test]
fn a_second_session_keeps_its_work_beside_the_firsts() {
    let world = World::new();
    let (one, two) = (world.session("one"), world.session("two"));
    let first = one.commit("a", "one");
    assert_eq!(one.pass(Moment::Running).updated, ["refs/heads/main"]);
    let second = two.commit("b", "two");
    assert_eq!(two.pass(Moment::Running).aside[0].kept, "pi/two/main");
    assert_eq!(world.host(&["rev-parse", "main", "pi/two/main"]), format!("{first}\n{second}"));
}

#[test]
fn a_branch_that_the_user_is_on_and_the_agent_has_left_moves_with_the_switch() {
    let world = World::new();
    let session = world.session("s");
    let main = session.commit("a", "2");
    session.run(&["checkout", "--quiet", "-b", "next"]);
    let next = session.commit("b", "2");
    let taken = session.end();
    assert_eq!(taken.head.as_deref(), Some("refs/heads/next"));
    assert_eq!(world.host(&["rev-parse", "main", "HEAD"]), format!("{main}\n{next}"));
    assert_eq!(world.status(), "## next");
}

#[test]
fn a_user_who_switched_keeps_the_switch() {
    let world = World::new();
    world.host(&["branch", "other"]);
    let session = world.session("s");
    let agents = session.commit("a", "2");
    world.host(&["symbolic-ref", "HEAD", "refs/heads/other"]);
    let taken = session.end();
    assert_eq!(taken.updated, ["refs/heads/main"]);
    assert_eq!(world.host(&["rev-parse", "main"]), agents);
    assert_eq!(world.status(), "## other\n M a");
}

#[test]
fn a_rebase_of_the_agents_comes_over_when_it_is_done_and_its_commits_when_it_is_not() {
    let world = World::new();
    world.host(&["checkout", "--quiet", "-b", "side", "HEAD~1"]);
    world.commit("b", "conflict");
    world.host(&["checkout", "--quiet", "main"]);
    let session = world.session("s");
    session.commit("c", "1");
    let mut rebase = session.command();
    assert!(!rebase.args(["rebase", "side"]).output().unwrap().status.success());
    let taken = session.pass(Moment::Running);
    assert_eq!((taken.updated, taken.head, taken.aside), (vec!["refs/heads/main".to_owned()], None, vec![]));
    let detached = session.run(&["rev-parse", "HEAD"]);
    let taken = session.end();
    assert_eq!(taken.head, None);
    assert_eq!(world.host(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    assert_eq!(detached, world.host(&["rev-parse", "side"]));
    world.write("b", "solved");
    session.run(&["add", "b"]);
    run(
        {
            let mut git = session.command();
            git.env("GIT_EDITOR", "true");
            git
        },
        &["rebase", "--continue"],
    );
    assert_eq!(session.end().updated, ["refs/heads/main"]);
    assert_eq!(world.status(), "## main");
    assert_eq!(world.host(&["rev-parse", "main~1~1"]), detached);
}

#[test]
fn stashes_deletions_and_loose_commits_are_told() {
    let world = World::new();
    world.host(&["branch", "old"]);
    let session = world.session("s");
    session.run(&["branch", "-D", "old"]);
    world.write("a", "stashed");
    session.run(&["stash"]);
    session.run(&["checkout", "--quiet", "--detach"]);
    let loose = session.commit("c", "loose");
    let taken = session.end();
    assert_eq!(taken.deleted, ["refs/heads/old"]);
    assert_eq!(taken.aside[0].kept, "pi/s/stash");
    assert_eq!(taken.head.as_deref(), Some(&*loose));
    assert_eq!(world.host(&["rev-parse", "HEAD"]), loose);
    assert_eq!(world.status(), "## HEAD (no branch)");
    assert_eq!(world.host(&["show", "pi/s/stash:a"]), "stashed");
    assert_eq!(Takeover::open(&git(), &session.dir).unwrap().state().entries[0].head, Head::Detached(loose));
}

#[test]
fn a_change_is_seen_without_asking_git_and_nothing_else_is() {
    let world = World::new();
    let session = world.session("s");
    let seen = || Takeover::open(&git(), &session.dir).unwrap().fingerprint().unwrap();
    let before = seen();
    session.run(&["status"]);
    session.run(&["log"]);
    assert_eq!(seen(), before);
    session.commit("a", "2");
    let after = seen();
    assert_ne!(after, before);
    session.run(&["branch", "x"]);
    assert_ne!(seen(), after);
}

#[test]
fn what_a_killed_launcher_left_of_the_index_is_mended() {
    let world = World::new();
    let session = world.session("s");
    let commit = session.commit("a", "2");
    // Killed when it had the lock and before HEAD moved.
    fs::write(world.common.join("pi-index-lock"), format!("pi {commit}\n")).unwrap();
    fs::hard_link(world.common.join("pi-index-lock"), world.common.join("index.lock")).unwrap();
    fs::write(world.common.join("pi-index"), "half").unwrap();
    assert_eq!(session.pass(Moment::Running).updated, ["refs/heads/main"]);
    assert_eq!(world.status(), "## main");
    // Killed after that.
    let commit = session.commit("a", "3");
    let index = fs::read(session.inside(&world.common).join("index")).unwrap();
    fs::write(world.common.join("pi-index"), index).unwrap();
    fs::write(world.common.join("pi-index-lock"), format!("pi {commit}\n")).unwrap();
    fs::hard_link(world.common.join("pi-index-lock"), world.common.join("index.lock")).unwrap();
    run(
        command(&world.root),
        &[
            "fetch",
            "--quiet",
            "--no-write-fetch-head",
            session.inside(&world.common).to_str().unwrap(),
            "main",
        ],
    );
    world.host(&["update-ref", "refs/heads/main", &commit]);
    session.end();
    assert_eq!(world.status(), "## main");
    // The lock of another git is left alone.
    session.commit("a", "4");
    fs::write(world.common.join("index.lock"), "").unwrap();
    assert_eq!(session.end().aside[0].reason, "another git holds the index");
    assert!(world.common.join("index.lock").exists());
}

#[test]
fn what_this_machine_cannot_write_now_comes_over_when_it_can() {
    let world = World::new();
    let session = world.session("s");
    let commit = session.commit("a", "2");
    // As on a full disk, also for root.
    let (pack, away) = (world.common.join("objects/pack"), world.common.join("objects/away"));
    let close = |commit: &str| {
        for dir in [pack.clone(), world.common.join("objects").join(&commit[..2])] {
            let _ = fs::rename(&dir, &away);
            fs::write(dir, "").unwrap();
        }
    };
    close(&commit);
    for _ in 0..2 {
        let taken = session.end();
        assert!(
            taken
                .later
                .as_ref()
                .is_some_and(|why| why.starts_with("could not write the repository's objects: "))
        );
        assert!(!taken.is_whole() && taken.refused.len() == 1, "{taken:?}");
    }
    assert_eq!(world.status(), "## main\n M a");
    fs::remove_file(world.common.join("objects").join(&commit[..2])).unwrap();
    fs::remove_file(&pack).unwrap();
    fs::create_dir(&pack).unwrap();
    assert_eq!(session.end().updated, ["refs/heads/main"]);
    assert_eq!(world.status(), "## main");
    world.host(&["fsck", "--strict"]);
}

#[test]
fn hooks_and_settings_of_a_repository_are_named_before_it_is_used() {
    let world = World::new();
    let named = || programs(&git(), &Repository::at(&world.root, &world.common).unwrap()).unwrap();
    assert!(named().is_empty(), "{:?}", named());
    world.host(&["config", "core.fsmonitor", "./x\u{1b}[2J"]);
    let hook = world.common.join("hooks/pre-commit");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "").unwrap();
    assert_eq!(named().len(), 1);
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(named()[1], "hook pre-commit");
    assert!(!named()[0].contains('\u{1b}'));
}
