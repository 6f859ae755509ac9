//! Every kind of repository: the agent commits in it and the host has the commit, or it is read-only with a reason.

use super::*;

/// The agent commits a file that was there and one that was not; the host follows.
#[track_caller]
fn works(world: &World) {
    let session = world.session("works");
    assert_eq!(session.run(&["status", "--porcelain"]), world.host(&["status", "--porcelain"]));
    session.commit("a", "works");
    let commit = session.commit("new", "agent");
    let taken = session.end();
    assert!(taken.aside.is_empty() && taken.is_whole(), "{taken:?}");
    assert_eq!(world.host(&["rev-parse", "HEAD"]), commit);
    assert_eq!(world.host(&["status", "--porcelain"]), "");
    assert_eq!(world.host(&["show", "HEAD:new"]), "agent");
}

fn clone(world: &World, args: &[&str]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let base = fs::canonicalize(dir.path()).unwrap();
    let url = format!("file://{}", world.root.display());
    world.host(&["config", "uploadpack.allowFilter", "true"]);
    run(command(&base), &[&["clone", "--quiet"], args, &[&url, "repo"]].concat());
    World::at(dir, base.join("repo"), base.join("repo/.git"))
}

#[test]
fn an_ordinary_one() {
    works(&World::new());
}

#[test]
fn one_without_a_commit() {
    let world = World::empty(&[]);
    let session = world.session("s");
    let commit = session.commit("a", "agent");
    assert_eq!(session.end().updated, ["refs/heads/main"]);
    assert_eq!(world.host(&["rev-parse", "main"]), commit);
    assert_eq!(world.status(), "## main");
}

#[test]
fn one_with_a_detached_head() {
    let world = World::new();
    world.host(&["checkout", "--quiet", "--detach"]);
    works(&world);
    assert_eq!(world.status(), "## HEAD (no branch)");
}

#[test]
fn a_linked_work_tree() {
    let world = World::new();
    world.host(&["branch", "other"]);
    world.host(&["worktree", "add", "--quiet", "../linked", "-b", "linked"]);
    let main = world.host(&["rev-parse", "main"]);
    let World { dir, common, .. } = world;
    let root = fs::canonicalize(dir.path()).unwrap().join("linked");
    let world = World::at(dir, root, common);
    works(&world);
    assert_eq!(world.host(&["rev-parse", "main"]), main);
    // A branch that is in use in another work tree is not moved under it.
    let session = world.session("t");
    session.run(&["update-ref", "refs/heads/main", "linked"]);
    let taken = session.end();
    assert_eq!(taken.aside[0].reason, "it is in use in another work tree");
    assert_eq!(world.host(&["rev-parse", "main"]), main);
    let Decision::Private(private) = world.decide("u") else { panic!() };
    assert_eq!(private.guards.len(), 1);
    assert_eq!(private.guards[0].target, world.root.join(".git"));
    assert_eq!(private.store[0].target, world.common);
}

#[test]
fn a_submodule_and_the_repository_around_it() {
    let inner = World::new();
    let world = World::new();
    world.host(&["submodule", "--quiet", "add", inner.root.to_str().unwrap(), "lib/sub"]);
    world.host(&["commit", "--quiet", "-m", "sub"]);
    let session = world.session("s");
    assert_eq!(session.run(&["status", "--porcelain"]), "");
    let Decision::Private(private) = world.decide("d") else { panic!() };
    let guarded: Vec<_> =
        private.guards.iter().map(|bind| bind.target.strip_prefix(&world.root).unwrap()).collect();
    assert_eq!(guarded, ["lib", "lib/sub", "lib/sub/.git"].map(Path::new));
    // A commit in the submodule, and one around it that names it.
    let sub = world.root.join("lib/sub");
    let in_sub = |args: &[&str]| {
        let mut git = command(&sub);
        git.env("GIT_DIR", session.inside(&world.common).join("modules/lib/sub")).env("GIT_WORK_TREE", &sub);
        run(git, args)
    };
    fs::write(sub.join("a"), "agent").unwrap();
    assert_eq!(in_sub(&["status", "--porcelain"]), " M a");
    in_sub(&["commit", "--quiet", "-a", "-m", "agent"]);
    session.run(&[
        "update-index",
        "--cacheinfo",
        &format!("160000,{},lib/sub", in_sub(&["rev-parse", "HEAD"])),
    ]);
    session.run(&["commit", "--quiet", "-m", "agent"]);
    let taken = session.end();
    assert_eq!(taken.updated, ["refs/heads/main", "refs/heads/main"], "{taken:?}");
    assert_eq!(world.host(&["status", "--porcelain"]), "");
    assert_eq!(run(command(&sub), &["log", "-1", "--format=%s"]), "agent");
    // The submodule by itself.
    let World { dir, common, .. } = world;
    let world = World::at(dir, sub, common.join("modules/lib/sub"));
    works(&world);
}

#[test]
fn one_with_a_submodule_that_is_not_there() {
    let inner = World::new();
    let world = World::new();
    world.host(&["submodule", "--quiet", "add", inner.root.to_str().unwrap(), "sub"]);
    world.host(&["commit", "--quiet", "-m", "sub"]);
    let world = clone(&world, &[]);
    let Decision::Private(private) = world.decide("d") else { panic!() };
    assert_eq!(private.guards.len(), 1);
    assert_eq!(
        (&private.guards[0].target, private.guards[0].access),
        (&world.root.join("sub"), crate::config::Access::ReadOnly)
    );
    works(&world);
}

#[test]
fn a_shallow_one() {
    works(&clone(&World::new(), &["--depth", "1"]));
}

#[test]
fn a_partial_one() {
    works(&clone(&World::new(), &["--filter=blob:none"]));
    works(&clone(&World::new(), &["--filter=blob:none", "--no-checkout"]).checked_out());
}

#[test]
fn a_sparse_one() {
    for cone in ["--cone", "--no-cone"] {
        let world = World::new();
        world.commit("in/x", "1");
        world.commit("out/x", "1");
        world.host(&["sparse-checkout", "set", cone, "in"]);
        assert!(!world.root.join("out").exists());
        if cone == "--cone" {
            world.host(&["sparse-checkout", "reapply", "--sparse-index"]);
        }
        works(&world);
        assert!(!world.root.join("out").exists());
        assert_eq!(world.host(&["show", "HEAD:out/x"]), "1");
    }
}

#[test]
fn one_of_sha256() {
    works(&World::with(&["--object-format=sha256"]));
}

#[test]
fn one_with_reftable() {
    let dir = tempfile::tempdir().unwrap();
    let knows = command(dir.path()).args(["init", "--quiet", "--ref-format=reftable", "x"]).output().unwrap();
    if !knows.status.success() {
        return;
    }
    works(&World::with(&["--ref-format=reftable"]));
}

#[test]
fn one_that_borrows_objects() {
    let lender = World::new();
    let world = clone(&lender, &["--shared"]);
    fs::write(
        world.common.join("objects/info/alternates"),
        format!("{}\n", lender.common.join("objects").display()),
    )
    .unwrap();
    // And one that borrows from that.
    let second = clone(&world, &["--reference", world.root.to_str().unwrap()]);
    works(&world);
    works(&second);
    let Decision::Private(private) = second.decide("d") else { panic!() };
    let inside: Vec<_> = private.store[1..].iter().map(|bind| bind.target.to_str().unwrap()).collect();
    let objects = "/run/pi/objects";
    assert_eq!(
        inside,
        [
            format!("{objects}/0"),
            format!("{objects}/0/info/alternates"),
            format!("{objects}/1"),
            format!("{objects}/1/info/alternates"),
            format!("{objects}/2"),
        ]
    );
}

#[test]
fn one_with_a_split_index_and_one_of_version_4() {
    let world = World::new();
    world.host(&["update-index", "--split-index"]);
    world.commit("c", "1");
    works(&world);
    let world = World::new();
    world.host(&["update-index", "--index-version", "4"]);
    works(&world);
}

#[test]
fn one_with_a_config_for_each_work_tree() {
    let world = World::new();
    world.host(&["config", "extensions.worktreeConfig", "true"]);
    world.host(&["config", "--worktree", "core.abbrev", "12"]);
    works(&world);
}

#[test]
fn one_with_git_lfs_or_another_filter_is_read_only() {
    let world = World::new();
    world.commit("data/.gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    assert!(world.read_only().reason.starts_with("it uses Git LFS"));
    let world = World::new();
    world.commit(".gitattributes", "*.x filter=crypt\n");
    works(&world);
    world.host(&["config", "filter.crypt.clean", "cat"]);
    assert_eq!(world.read_only().reason, "it passes files through the filter `crypt`, which is not inside");
}

#[test]
fn one_in_which_something_is_half_done_is_read_only() {
    let world = World::new();
    world.host(&["checkout", "--quiet", "-b", "side", "HEAD~1"]);
    world.commit("b", "conflict");
    let fails = |args: &[&str]| assert!(!command(&world.root).args(args).output().unwrap().status.success());
    for (begin, what) in [("rebase", "a rebase"), ("merge", "a merge"), ("cherry-pick", "a cherry-pick")] {
        fails(&[begin, "main"]);
        assert_eq!(world.read_only().reason, format!("{what} is half-done in it; finish or abort it first"));
        world.host(&[begin, "--abort"]);
    }
    world.host(&["bisect", "start"]);
    assert!(world.read_only().reason.starts_with("a bisection"));
}

#[test]
fn one_of_a_format_that_nobody_knows_is_read_only_and_shows_no_login() {
    let world = World::new();
    world.host(&["config", "remote.origin.url", "https://me:token@example.com/x"]);
    fs::OpenOptions::new()
        .append(true)
        .open(world.common.join("config"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"[extensions]\n\tnoop-v2 = true\n"))
        .unwrap();
    let read_only = world.read_only();
    assert!(read_only.reason.contains("extensions.noop-v2"), "{}", read_only.reason);
    read_only.lay_out(&world.base().join("decision"), None).unwrap();
    assert_eq!(read_only.binds[1].target, world.common.join("config"));
    let shown = fs::read_to_string(&read_only.binds[1].source).unwrap();
    assert!(shown.contains("https://example.com/x") && !shown.contains("token"), "{shown}");
}

#[test]
fn one_whose_work_tree_is_elsewhere_is_read_only() {
    let world = World::new();
    world.host(&["config", "core.worktree", "../.."]);
    assert_eq!(world.read_only().reason, "its `core.worktree` leads elsewhere");
}

impl World {
    fn checked_out(self) -> Self {
        self.host(&["checkout", "--quiet", "main"]);
        self
    }
}
