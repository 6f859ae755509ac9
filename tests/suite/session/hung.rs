//! Engines that hang: nobody waits for one that is not his, and a signal ends every wait.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{OWN, at_work, gone, kill_watchers, world};
use crate::world::{
    World,
    files::write,
    wait::{until, until_true},
};

/// Another engine, whose docker hangs until [`wakes`].
fn hangs(world: &World) -> String {
    let other = format!("unix://{}/other.sock", world.root().display());
    let asleep = asleep(world);
    write(&asleep, "");
    let rule = format!("case $DOCKER_HOST in {other}) [ -e {} ] && exec sleep 60;; esac", asleep.display());
    world.docker().rule("all", &rule);
    other
}

fn asleep(world: &World) -> PathBuf {
    world.root().join("asleep")
}

fn wakes(world: &World) {
    fs::remove_file(asleep(world)).unwrap();
}

/// What launchers that were killed on that engine have left.
fn dead(world: &World, engine: &str, ids: &[&str]) {
    for id in ids {
        let dir = world.state().join("sessions").join(id);
        write(dir.join("lock"), "");
        let record = serde_json::json!({
            "id": id, "name": "gone", "engine": engine, "repository": world.repo(), "directory": world.repo(),
            "image": "i", "network": "open", "started": 0, "allowlist": null,
        });
        write(dir.join("session.json"), record.to_string());
    }
}

const DEAD: [&str; 3] = ["aaaabbbbccccdddd", "aaaabbbbccccddde", "aaaabbbbccccdddf"];

/// How long a machine that does other things may take for what should take a moment. An engine that hangs is waited for
/// longer.
const MOMENTS: Duration = Duration::from_secs(20);

#[test]
fn a_session_does_not_wait_for_another_engine_that_hangs() {
    let world = world();
    let other = hangs(&world);
    dead(&world, &other, &DEAD);
    // One has commits of this very repository.
    write(world.state().join("sessions").join(DEAD[0]).join("git/hatch.json"), "{}");
    world.docker().rule("start-agent", &format!("late 1.5; exits {OWN}"));
    let begun = Instant::now();
    let outcome = world.run_pi(&["-p", "x"]);
    assert_eq!(outcome.code, Some(OWN), "{outcome:#?}");
    assert!(begun.elapsed() < MOMENTS, "{:?}", begun.elapsed());
    // The control: that engine was asked.
    let asked = |id: &str| world.docker().calls().iter().any(|call| call.words.concat().contains(id));
    assert!(DEAD.iter().any(|id| asked(id)), "{:?}", world.docker().kinds());
    assert_eq!(world.sessions().len(), 3);
}

#[test]
fn a_signal_ends_every_wait_for_an_engine() {
    // What hangs, and the words that wait for it.
    for (hanging, words) in [
        ("create-agent", &["-p", "x"][..]),
        ("network-create", &["--proxy", "-p", "x"]),
        ("network-connect", &["--proxy", "-p", "x"]),
        ("image-inspect", &["build"]),
        ("info", &["doctor"]),
        ("ps", &["clean"]),
        ("volume-ls", &["clean", "--caches"]),
    ] {
        let world = world();
        world.docker().rule(hanging, "hang");
        if words[0] == "clean" {
            dead(&world, &world.docker().address(), &DEAD[..1]);
        }
        let pi = world.pi(words).start();
        world.docker().called(hanging);
        let begun = Instant::now();
        pi.signal(Signal::INT);
        let outcome = pi.wait();
        assert_eq!(outcome.code, Some(130), "{hanging}: {outcome:#?}");
        assert!(begun.elapsed() < MOMENTS, "{hanging}: {:?}", begun.elapsed());
        assert!(!outcome.err.contains("pi: error"), "{hanging}: {outcome:#?}");
        world.docker().behave();
        world.run_pi(&["clean"]);
        gone(&world);
    }
}

#[test]
fn a_shell_in_a_session_of_an_engine_that_hangs_ends_with_a_signal() {
    for hanging in ["container-inspect", "exec-agent", "all"] {
        let world = world();
        let pi = at_work(&world, &["--session-name", "mine", "-p", "x"]);
        // One that does not even end when it is asked to.
        world.docker().rule(hanging, "trap '' TERM; while :; do sleep 0.1; done");
        let before = world.docker().calls().len();
        let entered = world.pi(&["shell", "--session", "mine", "--", "true"]).start();
        until_true("a call", || world.docker().calls().len() > before);
        let begun = Instant::now();
        entered.signal(Signal::TERM);
        let outcome = entered.wait();
        assert_eq!((outcome.code, outcome.err.as_str()), (Some(143), ""), "{hanging}");
        assert!(begun.elapsed() < MOMENTS, "{hanging}: {:?}", begun.elapsed());
        world.docker().behave();
        pi.signal(Signal::TERM);
        pi.wait().has_code(143);
        world.assert_nothing_left();
    }
}

#[test]
fn stopping_all_waits_for_no_engine_longer_than_for_one_and_stops_the_others_at_once() {
    let world = world();
    let first = at_work(&world, &["-p", "x"]);
    let other = hangs(&world);
    wakes(&world);
    let hung: Vec<_> = (0..2)
        .map(|_| {
            let pi = world.pi(&["-p", "x"]).env("DOCKER_HOST", &other).start();
            until_true("its start", || {
                world.docker().kinds().iter().filter(|kind| *kind == "start-agent").count() > 1
            });
            pi
        })
        .collect();
    until("all sessions", || {
        let started = world.docker().kinds().iter().filter(|kind| *kind == "start-agent").count();
        if started == 3 { Ok(()) } else { Err(started) }
    });
    write(asleep(&world), "");
    let begun = Instant::now();
    let stop = world.pi(&["stop", "--all"]).start();
    first.wait().has_code(143);
    assert!(begun.elapsed() < MOMENTS, "{:?}", begun.elapsed());
    // Each of the others gives up on its engine, says so, and leaves the rest to its watcher.
    for pi in hung {
        let outcome = pi.wait();
        outcome.says(143, "something of this session is left");
    }
    let outcome = stop.wait();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(30) + MOMENTS, "{:?}", begun.elapsed());
    wakes(&world);
    gone(&world);
}

#[test]
fn cleaning_waits_for_an_engine_that_hangs_once() {
    let world = world();
    let other = hangs(&world);
    dead(&world, &other, &DEAD);
    let begun = Instant::now();
    let outcome = world.pi(&["clean"]).env("PI_BOX_DEADLINE", "6").run();
    assert_eq!(outcome.code, Some(125), "{outcome:#?}");
    assert_eq!(outcome.err.matches("could not remove the session").count(), 3, "{outcome:#?}");
    assert!(outcome.err.contains(&format!("the engine at `{other}` does not answer")), "{outcome:#?}");
    assert!(begun.elapsed() < Duration::from_secs(12) + MOMENTS, "{:?}", begun.elapsed());
    assert_eq!(world.sessions().len(), 3);
}

#[test]
fn cleaning_right_after_a_launcher_was_killed_leaves_nothing_to_its_watcher() {
    for with_watcher in [true, false] {
        let world = world();
        let pi = at_work(&world, &["--proxy", "-p", "x"]);
        if !with_watcher {
            kill_watchers(&world);
        }
        pi.signal(Signal::KILL);
        pi.wait();
        world.run_pi(&["clean"]).has_code(0);
        assert_eq!((world.docker().objects(), world.sessions()), (vec![], vec![]), "{with_watcher}");
        gone(&world);
    }
}

#[test]
fn looking_at_dead_sessions_does_not_send_their_watcher_home() {
    let world = world();
    // Its record is locked by somebody who only looks when the launcher dies.
    let pi = at_work(&world, &["-p", "x"]);
    let cleaning = world.session().join("cleaning");
    let held = fs::File::create(&cleaning).unwrap();
    held.lock().unwrap();
    pi.signal(Signal::KILL);
    pi.wait();
    // Nothing shows that it has looked, which it does several times in this time.
    std::thread::sleep(Duration::from_millis(700));
    assert!(!world.watchers().is_empty());
    drop(held);
    gone(&world);
}
