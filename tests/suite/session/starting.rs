//! Verbs on a session that is starting, running or over.

use rustix::process::Signal;

use super::world;
use crate::world::{
    World,
    call::Running,
    files::write,
    wait::{until, until_true},
};

/// A restricted session whose containers are a second in coming; its launcher listens already.
fn starting(world: &World) -> Running {
    write(world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
    world.docker().rule("create-agent", "late 1");
    world.docker().rule("start-agent", "stays");
    let pi = world.pi(&["--proxy", "-p", "x"]).start();
    until("the control socket", || {
        let sessions = world.sessions();
        if sessions.iter().any(|dir| dir.join("control").exists()) { Ok(()) } else { Err(sessions) }
    });
    pi
}

fn end(world: &World, pi: Running) {
    pi.signal(Signal::TERM);
    assert_eq!(pi.wait().code, Some(143));
    world.assert_nothing_left();
}

#[test]
fn what_is_asked_of_a_session_that_is_starting_waits_for_it() {
    for (words, out, err) in [
        (&["allow", "a.test"][..], "", "pi: `repo` may reach a.test\n"),
        (&["allow"], "", "pi: `repo` has read its allowlist again\n"),
        (&["blocked", "--json"], "[]\n", ""),
        (&["shell", "--session", "repo", "--", "true"], "", ""),
    ] {
        let world = world();
        let pi = starting(&world);
        let outcome = world.run_pi(words);
        // On a busy machine it takes longer, and then the wait is told.
        let told = outcome.err.trim_start_matches("pi: waiting for the session `repo`\n");
        assert_eq!((outcome.code, outcome.out.as_str(), told), (Some(0), out, err), "{words:?}");
        end(&world, pi);
    }
}

#[test]
fn a_session_that_is_starting_is_stopped_at_once() {
    let world = world();
    let pi = starting(&world);
    world.run_pi(&["stop", "repo"]).is(0, "", "");
    assert_eq!(pi.wait().code, Some(143));
    world.assert_nothing_left();
}

#[test]
fn the_log_is_there_while_a_session_runs_and_afterwards() {
    let world = world();
    world.run_pi(&["logs"]).says(125, "none has left a log");
    let pi = starting(&world);
    let follows = world.pi(&["logs", "--follow"]).start();
    until_true("the log", || follows.out().contains("pi-proxy: ready\n"));
    assert!(world.run_pi(&["logs", "repo"]).out.starts_with("pi-proxy: ready\n"));
    end(&world, pi);
    // Its follower ends with it.
    let followed = follows.wait();
    assert_eq!(followed.code, Some(0), "{followed:?}");
    world.run_pi(&["logs"]).is(0, &followed.out, "");
}

#[test]
fn what_is_saved_goes_to_the_list_that_the_session_uses() {
    let world = world();
    let list = world.root().join("my list.txt");
    write(&list, "example.com\n");
    world.docker().rule("start-agent", "stays");
    let named = list.to_str().unwrap();
    let pi = world.pi(&["--allowed-domains", named, "-p", "x"]).start();
    until_true("the session", || !world.sessions().is_empty());
    let said = format!("pi: `{named}` has a.test\npi: `repo` may reach a.test\n");
    world.run_pi(&["allow", "--save", "a.test"]).is(0, "", &said);
    assert_eq!(std::fs::read_to_string(&list).unwrap(), "example.com\na.test\n");
    let usual = std::fs::read_to_string(world.home().join(".agents/proxy_allowed_domains.txt")).unwrap();
    assert!(!usual.contains("a.test"), "{usual}");
    end(&world, pi);
}
