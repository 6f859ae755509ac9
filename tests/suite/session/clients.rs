//! Docker programs and a sidecar that fail while the agent is at work.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{KINDS, at_work, each, gone, without_a_missing_container, world};
use crate::world::{
    World,
    files::write_program,
    wait::{processes, until},
};

#[test]
fn a_docker_that_is_a_script_ends_with_all_that_it_started() {
    let world = world();
    let script = world.root().join("wrapper");
    write_program(&script, "#!/bin/sh\nsleep 1000\n");
    world.configure(&format!("docker = \"{}\"\n", script.display()));
    let outcome = world.pi(&["-p", "x"]).env("PI_BOX_DEADLINE", "0.5").run();
    outcome.says(125, "docker did not answer within 0.5 s");
    // Whoever holds a session's lock is taken for its launcher.
    world.run_pi(&["ps"]).is(0, "", "pi: no session is running\n");
    write_program(&script, "#!/bin/sh\nexit 0\n");
    world.run_pi(&["clean"]).has_code(0);
    gone(&world);
}

#[test]
fn a_client_that_hangs_while_the_agent_is_shown_does_not_keep_the_launcher_from_ending() {
    let world = world();
    world.docker().rule("start-agent", "hang");
    let pi = world.pi(&["-p", "x"]).env("PI_BOX_DEADLINE", "1.5").start();
    world.docker().called("start-agent");
    let begun = Instant::now();
    pi.signal(Signal::TERM);
    let outcome = pi.wait();
    assert_eq!(outcome.code, Some(143), "{outcome:#?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    world.assert_nothing_left();
}

#[test]
fn a_client_that_is_killed_while_the_agent_is_shown_ends_the_session() {
    each(KINDS.to_vec(), |(name, words)| {
        let world = world();
        let pi = at_work(&world, words);
        kill_process(client(&world, "start", false), Signal::KILL).unwrap();
        let outcome = pi.wait();
        assert_eq!(outcome.code, Some(125), "{name}: {outcome:#?}");
        assert_eq!(
            outcome.err,
            "pi: error: the docker program that showed the agent was killed by signal 9; the session is over\n",
            "{name}"
        );
        world.assert_nothing_left();
    });
}

#[test]
fn an_agent_that_disappears_with_its_engine_is_told_from_one_that_ended() {
    let world = world();
    world.docker().rule("start-agent", "record \"$name\" start; refuse 'error during connect: EOF'");
    let outcome = world.run_pi(&["-p", "x"]);
    outcome.is(
        125,
        "",
        "error during connect: EOF\npi: error: lost the engine while the agent was running; the session is over\n",
    );
    world.assert_nothing_left();
}

#[test]
fn a_proxy_that_ends_by_itself_is_told_of() {
    let world = world();
    world.docker().rule("start-proxy", "ends");
    let pi = at_work(&world, &["--proxy", "-p", "x"]);
    until("the warning", || if pi.err().is_empty() { Err(()) } else { Ok(()) });
    pi.signal(Signal::TERM);
    pi.wait().is(143, "", "pi: warning: the proxy has ended: nothing can leave this session any more\n");
    world.assert_nothing_left();
}

#[test]
fn a_proxy_that_does_not_start_keeps_the_agent_from_starting() {
    let world = world();
    world.docker().rule("start-proxy", "echo 'pi-proxy: error: no route'; exit 1");
    let outcome = world.run_pi(&["--proxy", "-p", "x"]);
    outcome.has_code(125);
    assert_eq!(
        without_a_missing_container(&outcome.err),
        "pi: error: the proxy could not be started, so the agent was not: no route\n"
    );
    world.assert_nothing_left();
}

/// The client that shows the agent, or holds the proxy.
fn client(world: &World, verb: &str, proxy: bool) -> Pid {
    let program = world.docker().bin().join("docker");
    until("a client", || {
        let found = processes(|words| {
            words.iter().any(|word| Path::new(word) == program)
                && words.iter().any(|word| word == verb)
                && words.iter().any(|word| word.starts_with("pi-") && word.ends_with("-proxy") == proxy)
        });
        found.first().copied().ok_or(())
    })
}
