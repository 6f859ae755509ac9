//! Signals, at any moment.

use std::fs;

use rustix::process::Signal;

use super::{KINDS, OWN, at_work, each, every_call, is_teardown, without_a_missing_container, world};
use crate::world::{files::write, wait::until_true};

const SIGNALS: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::TERM, Signal::QUIT];

#[test]
fn whichever_signal_comes_at_whichever_call_everything_comes_down() {
    let cases = every_call()
        .into_iter()
        .filter(|(_, _, kind)| !is_teardown(kind) && !["events", "info"].contains(&kind.as_str()));
    let cases = cases.flat_map(|case| SIGNALS.map(|signal| (case.clone(), signal)));
    each(cases.collect(), |((name, words, kind), signal)| {
        let world = world();
        world.docker().rule(&kind, "late 0.4");
        // While it is shown, the agent works on.
        world.docker().rule("start-agent", "stays");
        let pi = world.pi(words).start();
        world.docker().called(&kind);
        pi.signal(signal);
        let outcome = pi.wait();
        let expected = (Some(128 + signal.as_raw()), "", "");
        // The signal may have come just before docker was asked to show the agent, which is gone by then.
        let err = without_a_missing_container(&outcome.err);
        let seen = (outcome.code, outcome.out.as_str(), err);
        assert_eq!(seen, expected, "{name}, {kind}, {signal:?}");
        world.assert_nothing_left();
    });
}

#[test]
fn a_signal_in_the_teardown_does_not_interrupt_it() {
    let cases = every_call().into_iter().filter(|(name, _, kind)| is_teardown(kind) && *name != "demo");
    let cases = cases.flat_map(|case| SIGNALS.map(|signal| (case.clone(), signal)));
    each(cases.collect(), |((name, words, kind), signal)| {
        let world = world();
        world.docker().rule(&kind, "late 0.4");
        let pi = world.pi(words).start();
        world.docker().called(&kind);
        pi.signal_group(signal);
        pi.signal(signal);
        let outcome = pi.wait();
        assert_eq!(outcome.code, Some(OWN), "{name}, {kind}, {signal:?}: {outcome:#?}");
        world.assert_nothing_left();
    });
}

#[test]
fn a_second_signal_changes_nothing() {
    each(KINDS.to_vec(), |(name, words)| {
        let world = world();
        for kind in ["rm", "network-rm", "stop-agent"] {
            world.docker().rule(kind, "late 0.2");
        }
        let pi = at_work(&world, words);
        pi.signal(Signal::TERM);
        for kind in ["stop-agent", "rm", "network-rm"] {
            world.docker().called(kind);
            pi.signal(Signal::INT);
            pi.signal(Signal::HUP);
        }
        let outcome = pi.wait();
        assert_eq!((outcome.code, outcome.err.as_str()), (Some(143), ""), "{name}");
        world.assert_nothing_left();
    });
}

#[test]
fn a_signal_to_the_whole_terminal_ends_the_session() {
    let cases = KINDS.iter().flat_map(|kind| SIGNALS.map(|signal| (*kind, signal))).collect();
    each(cases, |((name, words), signal)| {
        let world = world();
        let pi = at_work(&world, words);
        pi.signal_group(signal);
        let outcome = pi.wait();
        assert_eq!(
            (outcome.code, outcome.err.as_str()),
            (Some(128 + signal.as_raw()), ""),
            "{name} {signal:?}"
        );
        world.assert_nothing_left();
    });
}

#[test]
fn waiting_for_another_build_ends_with_a_signal_and_with_that_build() {
    let world = world();
    let lock = world.state().join("build.lock");
    write(&lock, "");
    let held = fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let waits = || {
        let pi = world.pi(&["build"]).start();
        until_true("the wait", || pi.err().contains("another `pi` is building an image; waiting for it"));
        pi
    };
    let pi = waits();
    pi.signal(Signal::INT);
    assert_eq!(pi.wait().code, Some(130));
    let pi = waits();
    held.unlock().unwrap();
    assert_eq!(pi.wait().code, Some(0));
    world.assert_nothing_left();
}
