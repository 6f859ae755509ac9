//! Repositories of every kind, in real sessions: the agent commits and this machine has the commit, or it says why not.

use std::{path::Path, thread};

use super::world;
use crate::world::{World, files::write};

const ROUND_TRIP: &str = "git status --porcelain; git fsck --no-progress 2>/dev/null; echo more >>a; echo new >new; git add a new && \
                          git commit --quiet --message agent && git rev-parse HEAD; git log --format=%s | tail -n 1";

/// The agent changes a file and makes one; all of it is here afterwards.
fn works(world: &World, dir: &Path, kind: &str) {
    let done = world.shell(&[], ROUND_TRIP).cwd(dir).run();
    let head = world.git(dir, &["rev-parse", "HEAD"]);
    let first = match kind {
        "unborn" => "agent",
        "shallow" => "user: b 1",
        _ => "user: a 1",
    };
    assert_eq!(
        (done.code, done.out.as_str()),
        (Some(0), format!("{head}{first}\n").as_str()),
        "{kind}: {done:?}"
    );
    assert_eq!(done.err, "", "{kind}");
    assert_eq!(world.git(dir, &["status", "--porcelain"]), "", "{kind}");
    assert_eq!(world.git(dir, &["show", "HEAD:new"]), "new\n", "{kind}");
    world.git(dir, &["fsck", "--strict"]);
}

/// The agent sees the history and cannot commit, and the user is told why.
fn is_read_only(world: &World, dir: &Path, why: &str) {
    let script =
        "git log --format=%s | tail -n 1; git commit --quiet --allow-empty -m x 2>&1 | grep -c 'Read-only'";
    let done = world.shell(&[], script).cwd(dir).run();
    let said = format!("the agent can read this repository's history, but not commit: {why}");
    assert_eq!((done.code, done.out.as_str()), (Some(0), "user: a 1\n1\n"), "{why}: {done:?}");
    assert!(done.err.contains(&said) && done.err.lines().count() == 1, "{why}: {done:?}");
}

#[test]
fn the_agent_can_commit_in_each_kind_or_is_told_why_not() {
    let world = world();
    let main = world.repo().to_owned();
    let projects = world.home().join("projects");
    let at = |name: &str| projects.join(name);
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    let url = format!("file://{}", main.display());
    world.git(&main, &["config", "uploadpack.allowFilter", "true"]);
    for (name, how) in [
        ("shallow", &["--depth=1"][..]),
        ("partial", &["--filter=blob:none"]),
        ("detached", &[]),
        ("sparse", &[]),
        ("rebased", &[]),
        ("large", &[]),
    ] {
        world.git(&main, &[&["clone", "--quiet"], how, &[&url, &path(name)]].concat());
    }
    let git = |name: &str, words: &[&str]| world.git(&at(name), words);
    git("detached", &["checkout", "--quiet", "--detach"]);
    write(at("sparse").join("out/x"), "x");
    git("sparse", &["add", "."]);
    git("sparse", &["commit", "--quiet", "--message", "out"]);
    git("sparse", &["sparse-checkout", "set", "in"]);
    assert!(!at("sparse").join("out").exists());
    world.git(&main, &["init", "--quiet", &path("unborn")]);
    world.git(&main, &["init", "--quiet", "--object-format=sha256", &path("sha256")]);
    let mut kinds = vec!["shallow", "partial", "detached", "sparse", "unborn", "sha256"];
    // Git has it since 2.45.
    let reftable = ["init", "--quiet", "--ref-format=reftable", &path("reftable")];
    if world.as_owner("git").args(&reftable).run().code == Some(0) {
        kinds.push("reftable");
    }
    for name in ["sha256", "reftable"].into_iter().filter(|name| kinds.contains(name)) {
        for file in ["a", "b"] {
            write(at(name).join(file), "1");
            git(name, &["add", "."]);
            git(name, &["commit", "--quiet", "--message", &format!("user: {file} 1")]);
        }
    }
    // A rebase that the user has begun, and one of Git LFS.
    git("rebased", &["checkout", "--quiet", "-b", "side", "HEAD~1"]);
    write(at("rebased").join("b"), "conflict");
    git("rebased", &["add", "b"]);
    git("rebased", &["commit", "--quiet", "--message", "side"]);
    let rebase = world.as_owner("git").args(&["rebase", "main"]).cwd(&at("rebased")).run();
    assert_ne!(rebase.code, Some(0));
    let half_done = git("rebased", &["status", "--porcelain", "--branch"]);
    write(at("large").join(".gitattributes"), "*.bin filter=lfs\n");
    git("large", &["add", "."]);
    git("large", &["commit", "--quiet", "--message", "large files"]);
    thread::scope(|scope| {
        for kind in kinds {
            let (world, dir) = (&world, at(kind));
            scope.spawn(move || works(world, &dir, kind));
        }
        scope.spawn(|| {
            is_read_only(&world, &at("rebased"), "a rebase is half-done in it; finish or abort it first");
        });
        scope.spawn(|| is_read_only(&world, &at("large"), "it uses Git LFS"));
    });
    assert_eq!(git("rebased", &["status", "--porcelain", "--branch"]), half_done);
    git("rebased", &["rebase", "--abort"]);
    assert_eq!(
        git("detached", &["rev-parse", "--abbrev-ref", "HEAD"]),
        "HEAD
"
    );
    assert!(!at("sparse").join("out").exists());
    assert_eq!(git("sparse", &["show", "HEAD:out/x"]), "x");
    world.assert_nothing_left();
}
