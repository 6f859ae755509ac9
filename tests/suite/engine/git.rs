//! Who the agent is, in the repository and to git.

use std::{fs, path::Path};

use crate::world::{
    World,
    files::{Who, myself, owner_of, somebody, write},
};

#[test]
fn what_is_written_belongs_to_the_host_user() {
    const NAME: &str = "Zoë \"Q\" O'Neil";
    let root = Who { uid: 0, gid: 0 };
    let user = |uid, gid| Who { uid, gid };
    // The launcher's user, the repository's owner, and who the agent ought to be.
    let cases = if myself().uid == 0 {
        vec![
            (root, root, root),
            (root, user(1000, 1000), user(1000, 1000)),
            (root, user(12345, 12345), user(12345, 12345)),
            (user(1000, 1000), user(1000, 1000), user(1000, 1000)),
            (user(12345, 12345), user(12345, 12345), user(12345, 12345)),
            (user(1000, 20), user(1000, 20), user(1000, 20)),
        ]
    } else {
        // Only root can be somebody else; `.ci/run` runs the suite as root.
        vec![(myself(), myself(), myself())]
    };
    for (launcher, owner, expected) in cases {
        let case = format!("{launcher:?} in a repository of {owner:?}");
        let world = World::of(owner, "project");
        write(
            world.home().join(".gitconfig"),
            "[user]\n\tname = \"Zoë \\\"Q\\\" O'Neil\"\n\temail = zoe@example.com\n",
        );
        let script = "echo $(id -u):$(id -g) $(id -un) && touch ~/x && mkdir dir && echo text >dir/file \
                      && git add dir && git commit --quiet --message 'a commit' && echo committed";
        world.prepare(launcher, &[]);
        let done = world.pi_by(launcher, &["shell", "--", "sh", "-c", script]).run();
        let Who { uid, gid } = expected;
        let said = format!("{uid}:{gid} pi\ncommitted\n");
        assert_eq!((done.code, done.out.as_str()), (Some(0), said.as_str()), "{case}: {done:?}");
        // Told once on a machine, and never to others.
        let warned = done.err.contains("runs as root without any capability");
        assert!(!warned || expected == root, "{case}: {done:?}");
        for path in ["dir", "dir/file", ".git/index", ".git/HEAD"] {
            assert_eq!(owner_of(&world.repo().join(path)), expected, "{case}: {path}");
        }
        let log = world.git(world.repo(), &["log", "--format=%an|%ae|%cn|%ce"]);
        assert_eq!(log, format!("{NAME}|zoe@example.com|{NAME}|zoe@example.com\n"), "{case}");
        let said = world.pi_by(launcher, &["-p", "--model", "demo/write", "write"]).run();
        assert_eq!(said.code, Some(0), "{case}: {said:?}");
        assert_eq!(owner_of(&world.repo().join("hello.txt")).uid, uid, "{case}");
    }
}

#[test]
fn a_repositorys_own_identity_wins() {
    let world = World::with_model();
    world.git(world.repo(), &["config", "user.name", "Somebody Else"]);
    world.shell(&[], "git commit --quiet --allow-empty --message x").good();
    assert_eq!(world.git(world.repo(), &["log", "--format=%an|%ae"]), "Somebody Else|person@example.com\n");
}

#[test]
fn git_works_in_a_linked_worktree_and_in_a_submodule() {
    let world = World::with_model();
    let (tree, library) = (world.home().join("projects/tree"), world.repository("home/projects/library"));
    world.git(world.repo(), &["commit", "--quiet", "--allow-empty", "--message", "first"]);
    world.git(world.repo(), &["worktree", "add", "--quiet", tree.to_str().unwrap()]);
    world.git(&library, &["commit", "--quiet", "--allow-empty", "--message", "library"]);
    let add =
        ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.to_str().unwrap(), "sub"];
    world.git(world.repo(), &add);
    let script =
        "git status --short && git commit --quiet --allow-empty --message inside && git log --format=%s";
    let inside = |dir: &Path| world.shell(&[], script).cwd(dir).good();
    assert_eq!(inside(&tree), "inside\nfirst\n");
    assert_eq!(inside(&world.repo().join("sub")), "inside\nlibrary\n");
    // And with the whole of it in sight, the submodule too.
    world.git(world.repo(), &["commit", "--quiet", "--message", "add it"]);
    let script = "git -C sub commit --quiet --allow-empty --message 'by both' && git commit --quiet --all --message 'move it' \
                  && git submodule status | cut -c 43- && git -C sub log --format=%s";
    assert_eq!(
        world.shell(&[], script).good().replace(" (heads/main)", ""),
        "sub\nby both\ninside\nlibrary\n"
    );
    assert_eq!(world.git(world.repo(), &["log", "--format=%s"]), "move it\nadd it\nfirst\n");
    assert_eq!(world.git(world.repo(), &["status", "--short"]), "");
    assert_eq!(world.git(&tree, &["log", "--format=%s"]), "inside\nfirst\n");
}

#[test]
fn borrowed_objects_are_refused_until_they_are_mounted() {
    let world = World::with_model();
    let lender = world.repository("home/projects/lender");
    world.git(&lender, &["commit", "--quiet", "--allow-empty", "--message", "lent"]);
    let borrower = world.home().join("projects/borrower");
    let clone = ["clone", "--quiet", "--shared", lender.to_str().unwrap(), borrower.to_str().unwrap()];
    world.git(world.repo(), &clone);
    let refused = world.shell(&[], "git log --format=%s").cwd(&borrower).run();
    let objects = lender.join(".git/objects");
    let expected = format!(
        "pi: error: this repository borrows objects from `{0}`, which is outside of it\npi: hint: allow it with \
         `--mount {0}:ro`, or run `git repack -ad` in it and remove `info/alternates`\n",
        objects.display()
    );
    assert_eq!((refused.code, refused.err), (Some(125), expected));
    let mount = format!("{}:ro", objects.display());
    assert_eq!(world.shell(&["--mount", &mount], "git log --format=%s").cwd(&borrower).good(), "lent\n");
}

#[test]
fn a_repository_may_lie_in_a_directory_of_any_name() {
    for directory in [
        "with space, comma; \"quotes\" 'single' co:lon $HOME `x` \\ ünï→ *",
        "two\nlines",
        "-rf",
        "a=b,readonly",
    ] {
        let world = World::of(somebody(), directory);
        world.prepare(myself(), &[]);
        let script =
            "pwd; git commit --quiet --allow-empty --message x && git log --format=%s; echo text >file";
        let said = world.shell(&[], script).good();
        assert_eq!(said, format!("{}\nx\n", world.repo().display()));
        assert_eq!(fs::read_to_string(world.repo().join("file")).unwrap(), "text\n");
        assert_eq!(world.pi(&["-p", "--model", "demo/write", "write"]).good(), "The file is written.\n");
        assert_eq!(fs::read_to_string(world.repo().join("hello.txt")).unwrap(), "hello from the model\n");
    }
}
