//! Where a session may be, and what may be mounted.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
};

use super::{failure, misuse};
use crate::world::{World, files::write};

#[test]
fn what_is_not_a_workspace_is_refused() {
    let world = World::fake();
    let next = "change into a repository or a project's own directory and try again";
    for (dir, why) in [
        (world.home(), "it is your home directory, with your keys and all your other projects"),
        (world.root().to_owned(), "it holds your home directory"),
        ("/".into(), "it holds your home directory"),
        ("/etc".into(), "it is a directory of the system"),
        ("/proc/self".into(), "it belongs to the kernel"),
    ] {
        let outcome = world.pi(&["-p", "x"]).cwd(&dir).run();
        let shown = fs::canonicalize(&dir).unwrap();
        if shown.starts_with("/proc") {
            assert!(outcome.err.contains(why), "{outcome:?}");
        } else {
            failure(&outcome, &format!("`{}` cannot be the workspace: {why}", shown.display()), next);
        }
    }
    assert_eq!(world.docker().kinds(), [""; 0]);
}

#[test]
fn a_directory_without_a_repository_works_with_a_warning() {
    let world = World::fake();
    let plain = world.home().join("plain");
    write(plain.join("a.txt"), "");
    world.pi(&["-p", "x"]).cwd(&plain).run().is(
        0,
        "",
        &format!(
            "pi: warning: `{}`: it is not in a git repository; the session has this directory and no undo\npi: hint: `git init` makes it a repository\n",
            plain.display()
        ),
    );
}

#[test]
fn a_repository_that_is_the_home_gives_the_current_directory_only() {
    let world = World::fake();
    let below = world.home().join("below");
    write(world.home().join(".git/HEAD"), "ref: refs/heads/main\n");
    write(below.join("a.txt"), "");
    let plan = world.pi(&["--dry-run=json"]).cwd(&below).run();
    let data: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
    assert_eq!(data["record"]["repository"], below.to_str().unwrap());
    assert!(plan.err.contains("is not used as a whole: it is your home directory"), "{plan:?}");
}

#[test]
fn a_mount_must_exist_and_hold_no_engine() {
    let world = World::fake();
    let missing = world.root().join("missing");
    failure(
        &world.run_pi(&["--mount", missing.to_str().unwrap()]),
        &format!("could not mount `{}`: there is no such file or directory", missing.display()),
        "a mount's source must exist; create it, or correct `--mount` or `mounts` in the config",
    );
    let run = world.root().join("run");
    fs::create_dir(&run).unwrap();
    let socket = run.join("docker.sock");
    let _engine = UnixListener::bind(&socket).unwrap();
    symlink(&run, world.root().join("link")).unwrap();
    for source in ["run", "run/docker.sock", "link"] {
        let source = world.root().join(source);
        let mount = format!("{}:/mnt/x", source.display());
        let address = format!("unix://{}", socket.display());
        let outcome = world.pi(&["--mount", &mount]).env("DOCKER_HOST", address).run();
        failure(
            &outcome,
            &format!(
                "`{}` is or holds the engine's socket `{}`",
                fs::canonicalize(&source).unwrap().display(),
                socket.display()
            ),
            "with that, the agent would be root on this machine; mount a smaller directory",
        );
    }
    for target in ["/usr", "/proc/x", "/home/pi", "/"] {
        misuse(
            &["--mount", &format!("/opt:{target}")],
            &format!("`{target}` cannot be mounted there: it would hide what the sandbox consists of"),
            "name another place with `--mount SRC:DST`, or work in another directory",
        );
    }
    assert_eq!(world.docker().kinds(), [""; 0]);
}

#[test]
fn paths_of_every_kind_become_one_mount() {
    let world = World::fake();
    for name in ["a b", "a,b", "a\"b", "a'b", "a:b", "äß", "a\nb", "$(a)", "-a"] {
        let repo = world.repository(name);
        world.pi(&["-p", "x"]).cwd(&repo).run().is(0, "", "");
        let calls = world.docker().calls();
        let create = calls.iter().rfind(|call| call.kind() == "create-agent").unwrap();
        let at = create.words.iter().position(|word| word == "--workdir").unwrap();
        assert_eq!(create.words[at + 1], repo.to_str().unwrap());
    }
}
