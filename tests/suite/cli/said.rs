//! What is said where something of the machine, the home or the repository is not as it should be, and what to do then.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use super::misuse;
use crate::world::{
    World,
    call::Call,
    files::{Who, myself, own, somebody, write},
    wait::until,
};

#[test]
fn what_is_no_repository_says_why_and_what_to_do() {
    let world = World::fake();
    let bare = world.home().join("bare.git");
    for part in ["objects", "refs"] {
        fs::create_dir_all(bare.join(part)).unwrap();
    }
    write(bare.join("HEAD"), "ref: refs/heads/main\n");
    let shown = bare.display();
    let said = format!(
        "pi: warning: `{shown}` is a bare repository, which has no files to work on; the session has `{shown}`\n\
         pi: hint: work in a clone: `git clone {shown} DIRECTORY`\n"
    );
    own(&bare, somebody());
    world.pi(&["-p", "x"]).cwd(&bare).run().is(0, "", &said);
    if myself().uid != 0 {
        return;
    }
    let theirs = world.repository("theirs");
    own(&theirs.join(".git"), Who { uid: 4321, gid: 4321 });
    let outcome = world.pi(&["-p", "x"]).cwd(&theirs).run();
    outcome.says(0, "is in a repository of the user with the number 4321, so git would not trust it either");
    outcome.says(0, "pi: hint: work in a clone of your own\n");
}

#[test]
fn a_repository_that_the_agent_cannot_write_is_told() {
    let world = World::fake();
    let shown = world.repo().display().to_string();
    world.run_pi(&["-p", "x"]).is(0, "", "");
    fs::set_permissions(world.repo(), fs::Permissions::from_mode(0o555)).unwrap();
    let outcome = world.run_pi(&["-p", "x"]);
    fs::set_permissions(world.repo(), fs::Permissions::from_mode(0o755)).unwrap();
    let who = somebody().uid;
    let said = format!(
        "pi: warning: `{shown}` cannot be written by the user with the number {who}, as whom the agent runs\n\
         pi: hint: `ls -ld {shown}` shows whose it is; work in a clone of your own\n"
    );
    assert!(outcome.err.contains(&said), "{outcome:#?}");
}

/// `pi` with its records on a file system of its own, mounted with these options. Only root can do that.
fn on<'a>(world: &'a World, options: &str, words: &[&str]) -> Call<'a> {
    let script = "mount -t tmpfs -o \"$1\" none \"$2\" && shift 2 && exec \"$@\"";
    let state = world.root().join("state");
    world
        .call("unshare")
        .args(&["--mount", "sh", "-c", script, "sh", options, state.to_str().unwrap()])
        .args(&[env!("CARGO_BIN_EXE_pi")])
        .args(words)
}

#[test]
fn a_home_that_is_full_or_cannot_be_written_says_what_to_do() {
    if myself().uid != 0 {
        return;
    }
    let world = World::fake();
    // The control: with room it works, as far as there are images.
    let built = on(&world, "size=1m", &["build"]).run();
    built.has_code(0);
    let full = on(&world, "size=4k,nr_inodes=3", &["build"]).run();
    full.says(125, "No space left on device");
    full.says(125, "pi: hint: make room on the disk of that file; `df -h` shows how full it is\n");
    let closed = on(&world, "ro", &["build"]).run();
    closed.says(125, "Read-only file system");
    closed.says(
        125,
        "pi: hint: you must be able to write there: `ls -ld` shows whose it is, and `df` whether it can be",
    );
    for outcome in [full, closed] {
        assert!(!outcome.err.contains("docker system prune"), "{outcome:#?}");
    }
}

#[test]
fn a_home_of_somebody_elses_says_what_to_do() {
    if myself().uid != 0 {
        return;
    }
    let world = World::fake();
    let state = world.root().join("roots");
    fs::create_dir(&state).unwrap();
    let outcome = world.pi_by(somebody(), &["-p", "x"]).env("XDG_STATE_HOME", &state).run();
    outcome.says(125, "Permission denied");
    outcome.says(125, "pi: hint: you must be able to write there");
}

#[test]
fn values_that_are_no_numbers_are_named_with_the_option() {
    misuse(
        &["--cpus", "abc"],
        "invalid value 'abc' for '--cpus <N>': write a number of processors, such as 2 or 0.5",
        "see `pi --help`",
    );
    let size =
        |text: &str| format!("`{text}` is not a size: write a number and one of b, k, m, g, as in `512m`");
    misuse(&["--memory", "-1"], &size("-1"), "");
    misuse(&["--disk", "-1"], &size("-1"), "");
}

#[test]
fn an_option_that_is_given_twice_counts_as_it_was_given_last() {
    let world = World::fake();
    let twice = world.plan(&["--lang", "go", "--memory", "1g", "--lang", "php8.4", "--memory", "2g"]);
    assert!(twice["agent"]["image"].as_str().unwrap().starts_with("pi-agent:php8.4-"), "{twice}");
    assert_eq!(twice["agent"]["limits"]["memory"], "2g");
}

#[test]
fn that_the_agent_is_root_is_told_once() {
    if myself().uid != 0 {
        return;
    }
    let world = World::fake();
    let roots = world.repository("roots");
    own(&roots, myself());
    let run = || world.pi(&["-p", "x"]).cwd(&roots).run();
    run().says(0, "the agent runs as root without any capability");
    run().is(0, "", "");
}

#[test]
fn cleaning_says_so_when_there_is_nothing() {
    World::fake().run_pi(&["clean"]).is(0, "", "pi: there is nothing to remove\n");
}

#[test]
fn an_input_that_never_ends_is_told_of() {
    let world = World::fake();
    world.docker().rule("start-agent", "stays");
    let said = "pi: the agent waits for the end of its input, which is a pipe that somebody holds open; `</dev/null` \
                gives it none\n";
    let (reader, writer) = std::io::pipe().unwrap();
    let waits = world.pi(&["-p", "x"]).stdin(reader).start();
    // Beside it, one that has no input, and one that does not wait for it.
    let (reader, _kept) = std::io::pipe().unwrap();
    let others = [world.pi(&["-p", "x"]).start(), world.pi(&["shell"]).stdin(reader).start()];
    let begun = Instant::now();
    until("the word", || if waits.err() == said { Ok(()) } else { Err(waits.err()) });
    assert!(begun.elapsed() > Duration::from_secs(5));
    drop(writer);
    for pi in others.into_iter().chain([waits]) {
        let is_first = pi.err() == said;
        pi.signal(rustix::process::Signal::TERM);
        let outcome = pi.wait();
        assert!(is_first || outcome.err.is_empty(), "{outcome:#?}");
    }
    world.assert_nothing_left();
}
