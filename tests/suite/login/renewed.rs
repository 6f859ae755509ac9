//! Logins that end are renewed by the agent, in a session that has nothing else; docker is a script.

use std::fs;

use serde_json::{Value, json};

use super::{logins, text};
use crate::world::{World, call::Outcome, fake::shell, files::write};

/// A login that ends at this time, in milliseconds since 1970.
fn login(access: &str, expires: u64) -> Value {
    json!({"type": "oauth", "access": access, "refresh": format!("r-{access}"), "expires": expires})
}

const LATER: u64 = 9_000_000_000_000;

/// A session whose login has ended; the agent that is to renew it leaves `left`.
fn session(world: &World, left: &str) -> Outcome {
    let all = json!({"anthropic": login("old", 1), "xai": login("good", LATER), "groq": {"type": "api_key", "key": "k"}});
    write(logins(world), all.to_string());
    let own = world.root().join("state/pi/*/sessions/*/agent/auth.json");
    let seen = world.root().join("seen");
    let rule = format!(
        "once || return 0; for own in {}; do cat \"$own\" >{}; printf %s {} >\"$own\"; done; exits 1",
        own.display(),
        shell(seen.to_str().unwrap()),
        shell(left)
    );
    world.docker().rule("start-agent", &rule);
    world.run_pi(&["-p", "x"])
}

fn left(world: &World) -> Value {
    serde_json::from_str(&text(world)).unwrap()
}

#[test]
fn a_login_that_has_ended_is_renewed_before_the_session() {
    let world = World::fake();
    let new = login("new", LATER);
    session(&world, &json!({"anthropic": new}).to_string()).is(0, "", "");
    assert_eq!(left(&world)["anthropic"], new);
    assert_eq!(left(&world)["xai"], login("good", LATER));
    assert_eq!(left(&world)["groq"]["key"], "k");
    // The agent that did it had this login and nothing else.
    let seen = fs::read_to_string(world.root().join("seen")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&seen).unwrap(), json!({"anthropic": login("old", 1)}));
    let creates: Vec<_> =
        world.docker().calls().into_iter().filter(|call| call.kind() == "create-agent").collect();
    assert_eq!(creates.len(), 2);
    let words = creates[0].words.join(" ");
    assert!(words.contains("auth print-bearer-token") && words.ends_with(" sh anthropic"), "{words}");
    assert!(!words.contains(world.repo().to_str().unwrap()), "{words}");
    assert!(!world.agent_dir().join("auth.json.lock").exists());
    // It is good now.
    world.run_pi(&["-p", "x"]).is(0, "", "");
    let count = world.docker().kinds().iter().filter(|kind| *kind == "create-agent").count();
    assert_eq!(count, 3);
    world.assert_nothing_left();
}

#[test]
fn a_login_that_cannot_be_renewed_or_came_back_changed_stays_and_the_session_goes_on() {
    let world = World::fake();
    for left_there in [
        json!({"anthropic": login("old", 1)}).to_string(),
        String::new(),
        json!({"anthropic": {"type": "api_key", "key": "!id"}}).to_string(),
        json!({"groq": {"type": "api_key", "key": "mine"}}).to_string(),
    ] {
        assert_eq!(session(&world, &left_there).code, Some(0), "{left_there}");
        assert_eq!(left(&world)["anthropic"], login("old", 1), "{left_there}");
        assert_eq!(left(&world)["groq"]["key"], "k", "{left_there}");
        fs::remove_file(world.root().join("docker/rules/start-agent.done")).unwrap();
    }
    world.assert_nothing_left();
}
