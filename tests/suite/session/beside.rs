//! Sessions beside each other: their names and addresses.

use rustix::process::Signal;

use super::{OWN, at_work, world};
use crate::world::{fake::shell, wait::until};

#[test]
fn no_two_sessions_that_live_have_one_name() {
    let world = world();
    let first = at_work(&world, &["-p", "x"]);
    let second = world.pi(&["-p", "x"]).start();
    let third = world.pi(&["--session-name", "mine", "-p", "x"]).start();
    let names = || {
        let listed = world.run_pi(&["ps", "--json"]);
        let all: Vec<serde_json::Value> = serde_json::from_str(&listed.out).unwrap();
        let mut names: Vec<String> = all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    until("three sessions", || if names().len() == 3 { Ok(()) } else { Err(names()) });
    assert_eq!(names(), ["mine", "repo", "repo-2"]);
    let refused = world.run_pi(&["--session-name", "mine", "-p", "x"]);
    refused.is(
        125,
        "",
        "pi: error: a session named `mine` is running\n\
         pi: hint: choose another name, or end that session with `pi stop`\n",
    );
    for pi in [first, second, third] {
        pi.signal(Signal::TERM);
        assert_eq!(pi.wait().code, Some(143));
    }
    world.assert_nothing_left();
}

#[test]
fn when_addresses_are_taken_others_are_tried() {
    let world = world();
    let said = "Error response from daemon: Pool overlaps with other one on this address space";
    world.docker().rule("network-create", &format!("once || return 0; refuse {}", shell(said)));
    world.run_pi(&["--proxy", "-p", "x"]).is(OWN, "", "");
    let subnets: Vec<String> =
        world.docker().calls().iter().filter_map(|call| after(&call.words, "--subnet")).collect();
    assert_eq!(subnets.len(), 2);
    assert_ne!(subnets[0], subnets[1]);
    let stem = |address: &str| {
        let parts: Vec<u32> = address.split(['.', '/']).take(4).map(|part| part.parse().unwrap()).collect();
        [parts[0], parts[1], parts[2], parts[3] / 8]
    };
    for call in world.docker().calls() {
        if let Some(address) = after(&call.words, "--ip") {
            assert_eq!(stem(&address), stem(&subnets[1]), "{call:?}");
        }
    }
    world.assert_nothing_left();
}

#[test]
fn when_all_addresses_are_taken_that_is_said() {
    let world = world();
    let said = "Error response from daemon: Pool overlaps with other one on this address space";
    world.docker().rule("network-create", &format!("refuse {}", shell(said)));
    world.run_pi(&["--proxy", "-p", "x"]).is(
        125,
        "",
        "pi: error: could not create the session's network: 16 ranges of addresses are all taken\n\
         pi: hint: remove unused networks with `docker network prune`\n",
    );
    let tried = world.docker().kinds().iter().filter(|kind| *kind == "network-create").count();
    assert_eq!(tried, 16);
    world.assert_nothing_left();
}

#[test]
fn ps_and_stop_know_a_running_session() {
    let world = world();
    world.run_pi(&["ps"]).is(0, "", "pi: no session is running\n");
    let pi = at_work(&world, &["--session-name", "mine", "-p", "x"]);
    let outcome = world.run_pi(&["ps", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(rows[0]["name"], "mine");
    assert_eq!(rows[0]["repository"], world.repo().to_str().unwrap());
    world.run_pi(&["stop", "other"]).is(
        125,
        "",
        "pi: error: no session `other` is running\npi: hint: `pi ps` lists them\n",
    );
    world.run_pi(&["stop", "mine"]).is(0, "", "");
    pi.wait().has_code(143);
    world.assert_nothing_left();
}

/// The word behind a flag.
fn after(words: &[String], flag: &str) -> Option<String> {
    let at = words.iter().position(|word| word == flag)?;
    words.get(at + 1).cloned()
}
