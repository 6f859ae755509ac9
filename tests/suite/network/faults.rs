//! Ends of the sidecar and of the launcher.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{ALLOWLIST, TUNNEL, attempts::Session, restricted};
use crate::world::{
    model::docker,
    wait::{until, until_true},
};

#[test]
fn when_the_sidecar_dies_there_is_no_way_out_and_it_is_said() {
    let (world, list) = restricted("", ALLOWLIST);
    let session = Session::start(&world, &[&list]);
    assert_eq!(session.one(TUNNEL).outcome, "200 198.51.100.80:443");
    docker(&["kill", &session.sidecar()]);
    until_true("the launcher's word", || {
        session
            .running()
            .err()
            .contains("pi: warning: the proxy has ended: nothing can leave this session any more")
    });
    let direct = session.one("tcp 198.51.100.80 443");
    let through = session.one(TUNNEL);
    assert!(direct.arrivals.is_empty() && through.arrivals.is_empty(), "{direct:?} {through:?}");
    assert!(!through.outcome.starts_with("200"), "{through:?}");
    // The engine has a status of the sidecar's too.
    let outcome = session.end_with("4");
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert_eq!(outcome.err.lines().count(), 1, "{outcome:?}");
    world.assert_nothing_left();
}

#[test]
fn the_sidecar_ends_with_the_agents_container_before_the_launcher_can_know_of_it() {
    let (world, list) = restricted("", ALLOWLIST);
    let session = Session::start(&world, &[&list]);
    session.running().signal(Signal::STOP);
    docker(&["kill", &format!("pi-{}", session.id)]);
    let label = format!("label=pi.session={}", session.id);
    until("the end of both containers", || match docker(&["ps", "--all", "--quiet", "--filter", &label]) {
        none if none.is_empty() => Ok(()),
        left => Err(left),
    });
    session.running().signal(Signal::CONT);
    let mut session = session;
    session.running.take().unwrap().wait().is(137, "", "");
    world.assert_nothing_left();
}

#[test]
fn when_the_launcher_is_killed_the_way_out_is_gone_within_a_second() {
    let (world, list) = restricted("", ALLOWLIST);
    let session = Session::start(&world, &[&list]);
    assert_eq!(session.one(TUNNEL).outcome, "200 198.51.100.80:443");
    // Its network namespace ends with its processes; what the engine notes down of that may take it longer.
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &session.sidecar()]);
    let process = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
    assert!(process.exists(), "{}", process.display());
    session.running().signal(Signal::KILL);
    let begun = Instant::now();
    until_true("the sidecar's end", || !process.exists());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    let mut session = session;
    assert_eq!(session.running.take().unwrap().wait().signal, Some(9));
    let label = format!("label=pi.session={}", session.id);
    until("the end of everything else", || {
        let containers = docker(&["ps", "--all", "--filter", &label]).lines().count() - 1;
        match (containers, world.sessions(), world.watchers()) {
            (0, sessions, watchers) if sessions.is_empty() && watchers.is_empty() => Ok(()),
            seen => Err(seen),
        }
    });
    world.assert_nothing_left();
}
