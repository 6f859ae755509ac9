//! What an agent tries by its git directory and by what it hands out, so that the host runs something or takes something
//! it should not. Each way by which git runs a program is shown to be real where the agent's own directory is used.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use super::*;

/// What a user does after a session, or while it runs.
const USUAL: [&[&str]; 14] = [
    &["status"],
    &["status", "--porcelain=2", "--branch"],
    &["describe", "--contains", "--all", "HEAD"],
    &["diff", "HEAD~1"],
    &["log", "-p", "-2"],
    &["branch", "-vv"],
    &["stash"],
    &["stash", "pop"],
    &["checkout", "--quiet", "-b", "mine"],
    &["commit", "--quiet", "--allow-empty", "-m", "mine"],
    &["rebase", "--quiet", "HEAD~1"],
    &["gc", "--quiet"],
    &["fetch", "--quiet", "."],
    &["checkout", "--quiet", "-"],
];

/// Settings that name a program, and a command that runs it. `%` stands for the program, `OWN` for the agent's
/// git directory.
const SETTINGS: [(&str, &str, &[&str]); 19] = [
    ("core.fsmonitor", "%", &["status"]),
    ("core.hooksPath", "%-hooks", &["commit", "--allow-empty", "-m", "x"]),
    ("core.editor", "%", &["commit", "--allow-empty"]),
    ("sequence.editor", "%", &["rebase", "-i", "--autostash", "HEAD~1"]),
    ("core.sshCommand", "%", &["fetch", "ssh://localhost/x"]),
    ("core.alternateRefsCommand", "%", &["push", "--quiet", "OWN", "HEAD:refs/heads/pushed"]),
    ("diff.external", "%", &["diff", "HEAD~1"]),
    ("diff.x.command", "%", &["diff", "HEAD~1"]),
    ("diff.x.textconv", "%", &["log", "-p"]),
    ("filter.x.clean", "%", &["add", "--renormalize", "b"]),
    ("filter.x.smudge", "%", &["checkout", "--", "b"]),
    ("filter.x.process", "%", &["add", "--renormalize", "b"]),
    ("gpg.program", "%", &["commit", "-S", "--allow-empty", "-m", "x"]),
    ("alias.st", "!%", &["st"]),
    ("credential.helper", "!%", &["credential", "fill"]),
    ("include.path", "%-config", &["status"]),
    ("remote.origin.uploadpack", "%", &["fetch", "origin"]),
    ("trailer.x.cmd", "%", &["commit", "--allow-empty", "-m", "x", "--trailer", "x=y"]),
    ("url.ext::% .insteadOf", "ssh", &["-c", "protocol.ext.allow=always", "fetch", "ssh://x"]),
];

/// Hooks, and a command that runs them.
const HOOKS: [(&str, &[&str]); 11] = [
    ("pre-commit", &["commit", "--allow-empty", "-m", "x"]),
    ("prepare-commit-msg", &["commit", "--allow-empty", "-m", "x"]),
    ("commit-msg", &["commit", "--allow-empty", "-m", "x"]),
    ("post-commit", &["commit", "--allow-empty", "-m", "x"]),
    ("post-checkout", &["checkout", "-b", "x"]),
    ("post-rewrite", &["commit", "--amend", "--allow-empty", "-m", "x"]),
    ("pre-rebase", &["rebase", "--autostash", "other"]),
    ("post-merge", &["merge", "other"]),
    ("post-index-change", &["add", "b"]),
    ("reference-transaction", &["branch", "new"]),
    ("pre-push", &["push", "OWN", "HEAD:refs/heads/pushed"]),
];

struct Trap {
    program: PathBuf,
    sprung: PathBuf,
}

impl Trap {
    fn new(world: &World) -> Self {
        let program = world.base().join("trap");
        let trap = Self { sprung: world.base().join("sprung"), program };
        trap.write(&trap.program);
        for (hook, _) in HOOKS {
            let dir = world.base().join("trap-hooks");
            fs::create_dir_all(&dir).unwrap();
            trap.write(&dir.join(hook));
        }
        let include = format!("[core]\n\tfsmonitor = {}\n", trap.program.display());
        fs::write(world.base().join("trap-config"), include).unwrap();
        trap
    }

    fn write(&self, path: &Path) {
        write_program(path, &format!("#!/bin/sh\ntouch {}\nexec timeout 2 cat\n", self.sprung.display()));
    }

    fn has_sprung(&self) -> bool {
        fs::remove_file(&self.sprung).is_ok()
    }
}

/// A world in which attributes ask for a driver `x`, and there is a branch to merge.
fn world() -> World {
    let world = World::new();
    world.host(&["checkout", "--quiet", "-b", "other"]);
    world.commit("other", "1");
    world.host(&["checkout", "--quiet", "main"]);
    world.commit(".gitattributes", "b diff=x filter=x\n");
    world.commit("b", "2");
    world
}

type Act<'a> = Box<dyn Fn(&Session<'_>, &Trap) + 'a>;

/// One thing that an agent sets in its git directory, undone by `unset`.
struct Attempt<'a> {
    what: &'a str,
    set: Act<'a>,
    unset: Act<'a>,
    control: &'a [&'a str],
}

/// The agent runs into each trap itself; with all of them set, the host runs into none, whatever is taken over and done.
fn only_inside(attempts: &[Attempt<'_>]) {
    let world = world();
    let trap = Trap::new(&world);
    let session = world.session("s");
    let start = session.run(&["rev-parse", "main"]);
    let own = session.inside(&world.common);
    // What `git credential` is asked; others do not read it.
    let question = world.base().join("question");
    fs::write(&question, "url=https://example.com/\n\n").unwrap();
    for Attempt { what, set, unset, control } in attempts {
        session.run(&["checkout", "--quiet", "--force", "-B", "main", &start]);
        world.write("b", "3");
        set(&session, &trap);
        let mut git = session.command();
        let put = |arg: &&str| arg.replace("OWN", own.to_str().unwrap());
        git.args(control.iter().map(put)).stdin(fs::File::open(&question).unwrap());
        let _ = git.output().unwrap();
        assert!(trap.has_sprung(), "{what}: the control did nothing");
        unset(&session, &trap);
        let _ = session.command().args(["rebase", "--abort"]).output().unwrap();
        session.run(&["status"]);
        assert!(!trap.has_sprung(), "{what}: it stays");
    }
    session.run(&["checkout", "--quiet", "--force", "-B", "main", &start]);
    session.commit("a", "new");
    for attempt in attempts {
        (attempt.set)(&session, &trap);
    }
    trap.has_sprung();
    let taken = session.pass(Moment::Running);
    session.end();
    assert!(!trap.has_sprung(), "by the takeover");
    assert!(taken.refused.is_empty() && taken.updated.contains(&"refs/heads/main".to_owned()), "{taken:?}");
    for usual in USUAL {
        let _ = command(&world.root).args(usual).output().unwrap();
        assert!(!trap.has_sprung(), "by {usual:?}");
    }
}

#[test]
fn no_setting_of_the_agents_runs_a_program_on_the_host() {
    let attempts = SETTINGS.map(|(name, value, control)| {
        let put = |text: &str, trap: &Trap| text.replace('%', trap.program.to_str().unwrap());
        Attempt {
            what: name,
            set: Box::new(move |session, trap| {
                if name == "remote.origin.uploadpack" {
                    session.run(&["config", "remote.origin.url", "."]);
                }
                session.run(&["config", &put(name, trap), &put(value, trap)]);
            }),
            unset: Box::new(move |session, trap| {
                session.run(&["config", "--unset-all", &put(name, trap)]);
            }),
            control,
        }
    });
    only_inside(&attempts);
}

#[test]
fn no_hook_of_the_agents_runs_on_the_host() {
    let place =
        |session: &Session<'_>, hook: &str| session.inside(&session.world.common).join("hooks").join(hook);
    let attempts = HOOKS.map(|(hook, control)| Attempt {
        what: hook,
        set: Box::new(move |session, trap| {
            fs::create_dir_all(place(session, "")).unwrap();
            trap.write(&place(session, hook));
        }),
        unset: Box::new(move |session, _| fs::remove_file(place(session, hook)).unwrap()),
        control,
    });
    only_inside(&attempts);
}

/// A tree of one entry under a blob or tree that is there.
fn tree(session: &Session<'_>, entry: &str) -> String {
    let mut mktree = session.command();
    mktree.args(["mktree", "--missing"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = mktree.spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), format!("{entry}\n").as_bytes()).unwrap();
    text(&child.wait_with_output().unwrap())
}

#[test]
fn objects_that_git_should_not_have_do_not_come_over_and_others_do() {
    let world = world();
    let session = world.session("s");
    let blob = |text: &str| {
        fs::write(session.dir.join("blob"), text).unwrap();
        session.run(&["hash-object", "-w", session.dir.join("blob").to_str().unwrap()])
    };
    let evil = blob("[core]\n\tfsmonitor = x\n");
    let modules = blob("[submodule \"a\"]\n\tpath = a\n\turl = -u./x\n");
    let inner = tree(&session, &format!("100644 blob {evil}\tconfig"));
    let trees = [
        ("git", format!("040000 tree {inner}\t.git")),
        ("case", format!("040000 tree {inner}\t.GIT")),
        ("hfs", format!("040000 tree {inner}\t.g\u{200c}it")),
        ("ntfs", format!("040000 tree {inner}\tgit~1")),
        ("dots", format!("040000 tree {inner}\t..")),
        ("modules", format!("100644 blob {modules}\t.gitmodules")),
        ("link", format!("120000 blob {evil}\t.gitmodules")),
    ];
    for (branch, entry) in &trees {
        let tree = tree(&session, entry);
        let commit = session.run(&["commit-tree", "-p", "main", "-m", "x", &tree]);
        session.run(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
    }
    let good = session.commit("a", "good");
    let taken = session.end();
    assert_eq!(taken.updated, ["refs/heads/main"], "{taken:?}");
    let refused: Vec<&str> =
        taken.refused.iter().map(|(name, _)| name.trim_start_matches("refs/heads/")).collect();
    let mut expected: Vec<&str> = trees.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(refused, expected);
    assert_eq!(world.host(&["rev-parse", "main"]), good);
    assert_eq!(world.host(&["for-each-ref", "refs/heads/pi", "refs/pi"]), "");
    let has =
        |oid: &str| command(&world.root).args(["cat-file", "-e", oid]).output().unwrap().status.success();
    assert!(!has(&inner));
    world.host(&["fsck", "--strict"]);
}

#[test]
fn a_new_submodule_does_not_reach_the_work_tree() {
    let world = world();
    let session = world.session("s");
    let head = session.run(&["rev-parse", "HEAD"]);
    session.run(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},sub")]);
    session.run(&["commit", "--quiet", "-m", "x"]);
    let taken = session.end();
    assert_eq!(taken.aside[0].reason, "it holds the new submodule `sub`");
    assert_eq!(world.host(&["ls-files", "--stage", "sub"]), "");
}

#[test]
fn names_that_could_be_mistaken_are_kept_beside() {
    let world = world();
    world.host(&["update-ref", "refs/remotes/origin/main", "main"]);
    let session = world.session("s");
    let commit = session.commit("a", "x");
    for name in [
        "refs/tags/main", "refs/tags/HEAD", "refs/heads/HEAD", "refs/heads/origin/main", "refs/heads/-x",
        "refs/heads/pi/other/main", "refs/heads/deadbeef", "refs/heads/refs/heads/main",
        "refs/heads/a\"$(x)", "refs/tags/--x", "refs/heads/MAIN",
    ] {
        session.run(&["update-ref", name, &commit]);
    }
    let taken = session.end();
    assert_eq!((taken.updated, taken.tags), (vec!["refs/heads/main".to_owned()], vec![]));
    assert_eq!(taken.aside.len(), 11);
    let names = world.host(&["for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags"]);
    for name in names.lines() {
        let is_own = name.starts_with("refs/heads/pi/s/") || name.starts_with("refs/tags/pi/s/");
        assert!(is_own || ["refs/heads/main", "refs/heads/other"].contains(&name), "{name}");
    }
}

#[test]
fn work_is_kept_where_names_are_in_each_others_way() {
    let world = world();
    let session = world.session("s");
    session.run(&["branch", "x/y"]);
    session.commit("a", "x");
    session.run(&["branch", "--force", "x/y"]);
    // On the host, a branch stands where a directory would have to be.
    world.host(&["branch", "x"]);
    world.host(&["branch", "pi"]);
    world.commit("b", "user");
    let kept: Vec<String> = session.end().aside.into_iter().map(|aside| aside.kept).collect();
    assert_eq!(kept, ["pi-s/x/y", "pi-s/main"]);
}

/// In the place of the agent's git, something that talks to the host as it likes.
#[track_caller]
fn hostile(script: &str) -> (anyhow::Result<Taken>, Duration) {
    let world = world();
    let session = world.session("s");
    session.commit("a", "x");
    let main = world.host(&["rev-parse", "main"]);
    fs::write(session.dir.join("inside"), format!("#!/bin/bash\n{script}\n")).unwrap();
    let begun = Instant::now();
    let outcome = session.try_pass(Moment::End);
    let took = begun.elapsed();
    assert_eq!(world.host(&["rev-parse", "main"]), main);
    assert_eq!(world.host(&["status", "--porcelain"]), " M a");
    world.host(&["fsck", "--strict"]);
    let store = fs::read_dir(session.dir.join("store-0/objects/pack")).unwrap().count();
    assert_eq!(store, 0, "something is left in the launcher's store");
    let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
    assert!(error.as_ref().is_none_or(|error| !error.contains('\u{1b}')), "{error:?}");
    (outcome, took)
}

#[test]
fn whatever_answers_for_the_agent_the_host_ends_and_says_so() {
    let packet = r#"packet() { printf '%04x%s' $((${#1} + 4)) "$1"; }"#;
    let zeros = "0".repeat(40);
    let ones = "1".repeat(40);
    for script in [
        "exit 1".to_owned(),
        "exec cat /dev/zero".to_owned(),
        "echo 'not git'; exec sleep 0.2".to_owned(),
        format!("{packet}\npacket '{ones} refs/heads/main\n'; printf 0000; exec sleep 0.2"),
        format!("{packet}\npacket '{zeros} capabilities^{{}}\n'; exec sleep 0.2"),
        format!("{packet}\npacket $'ERR \\e[2Jgone\n'; exec sleep 0.2"),
    ] {
        let (outcome, took) = hostile(&script);
        assert!(outcome.is_err() || !outcome.as_ref().unwrap().is_whole(), "{script}: {outcome:?}");
        assert!(took < Duration::from_secs(20), "{script}: {took:?}");
    }
}

#[test]
fn more_names_than_anybody_needs_come_over_in_parts() {
    let world = world();
    let session = world.session("s");
    let commit = session.commit("a", "x");
    let names: Vec<String> = (0..1200).map(|n| format!("create refs/heads/many/b{n} {commit}\n")).collect();
    let mut git = session.command();
    git.args(["update-ref", "--stdin"]).stdin(Stdio::piped());
    let mut child = git.spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), names.concat().as_bytes()).unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let mut passes = 0;
    loop {
        passes += 1;
        let taken = session.end();
        assert!(taken.refused.is_empty() && passes < 5);
        if !taken.more {
            break;
        }
    }
    assert_eq!(passes, 3);
    assert_eq!(world.host(&["for-each-ref", "refs/heads/many"]).lines().count(), 1200);
}
