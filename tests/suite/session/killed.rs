//! Launchers that are killed, and what others find of them.

use rustix::process::Signal;

use super::{KINDS, OWN, at_work, clients, each, every_call, gone, kill_watchers, world};
use crate::world::{call::Running, wait::until_true};

/// The launcher alone, and with all that it has started.
const KILLS: [fn(&Running); 2] = [|pi| pi.signal(Signal::KILL), |pi| pi.signal_group(Signal::KILL)];

#[test]
fn a_launcher_that_is_killed_is_survived_by_a_watcher_that_takes_the_session_down() {
    let cases = KINDS.iter().flat_map(|kind| KILLS.map(|kill| (*kind, kill))).collect();
    each(cases, |((_, words), kill)| {
        let world = world();
        let pi = at_work(&world, words);
        assert_eq!(world.watchers().len(), 1);
        kill(&pi);
        assert_eq!(pi.wait().signal, Some(9));
        gone(&world);
    });
}

#[test]
fn a_launcher_that_is_killed_at_whichever_call_leaves_nothing_for_long() {
    let cases = every_call().into_iter().flat_map(|case| KILLS.map(|kill| (case.clone(), kill)));
    each(cases.collect(), |((_, words, kind), kill)| {
        let world = world();
        world.docker().rule(&kind, &format!("late 0.2; exits {OWN}"));
        let pi = world.pi(words).start();
        world.docker().called(&kind);
        kill(&pi);
        pi.wait();
        gone(&world);
    });
}

#[test]
fn a_session_whose_watcher_was_killed_too_is_taken_down_by_the_next_start() {
    each(KINDS.to_vec(), |(name, words)| {
        let world = world();
        let pi = at_work(&world, words);
        kill_watchers(&world);
        pi.signal_group(Signal::KILL);
        pi.wait();
        until_true("the end of the clients", || clients(&world).is_empty() || name != "open");
        assert_eq!(world.sessions().len(), 1);
        assert_ne!(world.docker().objects(), [""; 0]);
        let agent = world.docker().calls()[0].words.clone();
        world.docker().rule("start-agent", "exits 3");
        world.run_pi(&["-p", "y"]).is(3, "", "");
        assert_ne!(agent, world.docker().calls().last().unwrap().words);
        gone(&world);
    });
}

#[test]
fn a_start_that_finds_only_live_sessions_leaves_them_alone() {
    let world = world();
    let first = at_work(&world, &["--proxy", "-p", "x"]);
    let before = world.docker().objects();
    world.docker().rule("start-agent", "exits 3");
    world.run_pi(&["-p", "y"]).is(3, "", "");
    assert_eq!(world.docker().objects(), before);
    assert_eq!(world.sessions().len(), 1);
    first.signal(Signal::TERM);
    first.wait().has_code(143);
    world.assert_nothing_left();
}
