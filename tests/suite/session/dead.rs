//! Sessions that died at another time, on another engine or on another machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::Signal;

use super::{OWN, at_work, gone, kill_watchers, world};
use crate::world::{fake::shell, files::write, wait::until};

const DEAD: &str = "aaaabbbbccccdddd";

/// A session that died at another time, with another engine or on another machine; returns its directory.
fn dead(state: &Path, engine: &str) -> PathBuf {
    let dir = state.join("sessions").join(DEAD);
    write(dir.join("lock"), "");
    let record = serde_json::json!({
        "id": DEAD, "name": "gone", "engine": engine, "repository": "/r", "directory": "/r", "image": "i",
        "network": "open", "started": 0, "allowlist": null,
        "login": dir.join("auth.json"),
    });
    write(dir.join("session.json"), record.to_string());
    dir
}

#[test]
fn a_dead_session_is_looked_for_on_its_own_engine_and_no_other() {
    let world = world();
    let other = format!("unix://{}/other.sock", world.root().display());
    dead(&world.state(), &other);
    world.run_pi(&["-p", "x"]).is(OWN, "", "");
    // A session waits a second for another engine, and the next one goes on with what is left.
    until("the dead session's end", || {
        if world.sessions().is_empty() {
            return Ok(());
        }
        world.run_pi(&["-p", "x"]).is(OWN, "", "");
        Err(world.sessions())
    });
    let calls = world.docker().calls();
    let about_it = |words: &[String]| words.iter().any(|word| word.contains(DEAD));
    for call in &calls {
        let engine = if about_it(&call.words) { &other } else { &world.docker().address() };
        let line = format!("DOCKER_HOST='{engine}'");
        assert!(world.docker().env(call.n).lines().any(|env| env.ends_with(&line)), "{call:?}");
    }
    let kinds: Vec<_> =
        calls.iter().filter(|call| about_it(&call.words)).map(crate::world::fake::Call::kind).collect();
    assert!(["rm", "network-rm", "ps"].iter().all(|kind| kinds.iter().any(|k| k == kind)), "{kinds:?}");
    world.assert_nothing_left();
}

#[test]
fn a_dead_session_whose_engine_does_not_answer_is_kept_for_later() {
    let world = world();
    let other = format!("unix://{}/other.sock", world.root().display());
    let dir = dead(&world.state(), &other);
    let words = "Cannot connect to the Docker daemon at unix:///other.sock. Is the docker daemon running?";
    world.docker().rule("all", &format!("case $DOCKER_HOST in {other}) refuse {};; esac", shell(words)));
    let outcome = world.run_pi(&["-p", "x"]);
    outcome.is(
        OWN,
        "",
        &format!(
            "pi: warning: could not remove what the dead session `{DEAD}` left: the engine at \
             `unix:///other.sock` does not answer\n"
        ),
    );
    assert_eq!(world.sessions(), [dir]);
}

#[test]
fn a_session_of_another_machine_that_shares_the_home_is_not_touched() {
    let world = world();
    let foreign = dead(&world.states().join("ffffffffffff"), &world.docker().address());
    world.run_pi(&["-p", "x"]).is(OWN, "", "");
    world.run_pi(&["--quiet", "clean"]).is(0, "", "");
    assert_eq!(world.sessions(), [foreign]);
    for call in world.docker().calls() {
        assert!(!call.words.concat().contains(DEAD), "{call:?}");
    }
}

#[test]
fn what_carries_our_label_and_has_no_record_is_removed_by_clean_only() {
    let world = world();
    for object in ["containers/pi-", "networks/pi-", "volumes/pi-"] {
        let home = if object.starts_with("volumes") { "-home" } else { "" };
        world.docker().has(&format!("{object}{DEAD}{home}"));
    }
    world.run_pi(&["-p", "x"]).is(OWN, "", "");
    assert_eq!(world.docker().objects().len(), 3);
    world.run_pi(&["clean", "--dry-run"]).is(
        0,
        &format!("would remove leftovers of the unknown session `{DEAD}`\n"),
        "",
    );
    assert_eq!(world.docker().objects().len(), 3);
    world.run_pi(&["clean"]).is(0, &format!("removed leftovers of the unknown session `{DEAD}`\n"), "");
    world.assert_nothing_left();
}

#[test]
fn what_cannot_be_removed_is_told_of_and_left_for_the_next_start() {
    let world = world();
    world.docker().rule("network-rm", "refuse Error response from daemon: it has active endpoints");
    let outcome = world.run_pi(&["--proxy", "-p", "x"]);
    let said = "pi: warning: something of this session is left: could not remove the session's network: it has active \
                endpoints\npi: hint: a second process removes it when the engine answers; the next `pi` and `pi clean` \
                do, too\n";
    outcome.is(OWN, "", said);
    assert_eq!(world.sessions().len(), 1);
    // The second process goes on trying, and succeeds without anybody's help.
    world.docker().behave();
    gone(&world);
}

#[test]
fn a_session_whose_record_is_lost_is_found_by_its_directory() {
    for lost in ["empty", "gone"] {
        let world = world();
        let pi = at_work(&world, &["--proxy", "-p", "x"]);
        let record = world.session().join("session.json");
        if lost == "empty" {
            fs::write(&record, "").unwrap();
        } else {
            fs::remove_file(&record).unwrap();
        }
        kill_watchers(&world);
        pi.signal(Signal::KILL);
        pi.wait();
        assert!(!world.docker().objects().is_empty(), "{lost}: the control");
        world.docker().rule("start-agent", "exits 0");
        world.run_pi(&["-p", "x"]).has_code(0);
        gone(&world);
    }
}
