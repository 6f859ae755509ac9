//! Logins that end while sessions run, with the real agent and a provider whose refresh tokens are good once.

use std::{
    fs, thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{logins, text};
use crate::{
    keys::provider::{Provider, with_provider},
    world::{World, call::Call, files::write, wait::until},
};

const TURN: &str = "pi -p --model anthropic/claude-sonnet-4-5 --no-session hello";

/// A world with a login that ends in so many seconds.
fn world(who: &str, seconds: u64) -> (World, &'static Provider) {
    let (world, provider) = with_provider("");
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds;
    let login = json!({
        "type": "oauth", "access": format!("sk-ant-oat01-{who}-0"), "refresh": format!("r-{who}-0"), "expires": end * 1000,
    });
    write(logins(&world), json!({"anthropic": login, "groq": {"type": "api_key", "key": "k"}}).to_string());
    // No broker asks an address of this machine for a host that the agent knows; the user may name one.
    let models = json!({"providers": {"anthropic": {"baseUrl": "https://llm.test"}}});
    write(world.agent_dir().join("models.json"), models.to_string());
    (world, provider)
}

fn shell<'a>(world: &'a World, script: &str) -> Call<'a> {
    world.shell(&[], script).env("NODE_EXTRA_CA_CERTS", world.root().join("ca.pem"))
}

fn keys_of_turns(provider: &Provider, who: &str) -> Vec<String> {
    let all = |n: u32| {
        let key = format!("sk-ant-oat01-{who}-{n}");
        let requests = provider.requests(&key);
        requests
            .into_iter()
            .filter(|one| one.contains("/v1/messages"))
            .map(move |_| key.clone())
            .collect::<Vec<_>>()
    };
    (0..4).flat_map(all).collect()
}

fn stored(world: &World) -> Value {
    serde_json::from_str(&text(world)).unwrap()
}

#[test]
fn a_login_that_has_ended_is_renewed_before_a_session() {
    let (world, provider) = world("before", 0);
    let outcome = world
        .pi(&["-p", "--model", "anthropic/claude-sonnet-4-5", "hello"])
        .env("NODE_EXTRA_CA_CERTS", world.root().join("ca.pem"))
        .run();
    outcome.is(0, "the model has answered\n", "");
    assert_eq!(provider.of_logins("before"), ["renewed before 1"]);
    assert_eq!(keys_of_turns(provider, "before"), ["sk-ant-oat01-before-1"]);
    assert_eq!(stored(&world)["anthropic"]["refresh"], "r-before-1");
    assert_eq!(stored(&world)["groq"]["key"], "k");
    world.assert_nothing_left();
}

#[test]
fn two_sessions_whose_login_ends_both_go_on_and_it_is_renewed_once() {
    // It is renewed ten minutes before it ends, so while both run.
    let (world, provider) = world("beside", 600 + 12);
    let script = |name: &str| format!("{TURN}; touch {name}; until [ -e go ]; do sleep 0.1; done; {TURN}");
    let sessions = thread::scope(|scope| {
        let both = ["one", "two"].map(|name| scope.spawn(|| shell(&world, &script(name)).run()));
        until("both sessions and the renewed login", || {
            let ready = ["one", "two"].iter().all(|name| world.repo().join(name).exists());
            let renewed = stored(&world)["anthropic"]["refresh"] == "r-beside-1";
            if ready && renewed { Ok(()) } else { Err((ready, renewed, provider.of_logins("beside"))) }
        });
        // The second one to notice reads what the first has written.
        thread::sleep(Duration::from_secs(2));
        fs::write(world.repo().join("go"), "").unwrap();
        both.map(|one| one.join().unwrap())
    });
    for session in sessions {
        session.is(0, "the model has answered\nthe model has answered\n", "");
    }
    assert_eq!(provider.of_logins("beside"), ["renewed beside 1"]);
    let [old, new] = ["0", "1"].map(|n| format!("sk-ant-oat01-beside-{n}"));
    // On a busy machine the first turns may come after it was renewed.
    let turns = keys_of_turns(provider, "beside");
    assert!(turns.len() == 4 && turns[2..].iter().all(|key| *key == new), "{turns:?}");
    assert!(turns[..2].iter().all(|key| *key == old || *key == new), "{turns:?}");
    world.assert_nothing_left();
}

#[test]
fn a_login_that_was_revoked_is_told_and_the_session_goes_on() {
    let (world, provider) = world("gone", 600 + 6);
    // Somebody else has used the refresh token.
    let other = text(&world).replace("r-gone-0", "r-gone-7");
    write(logins(&world), &other);
    let pi = shell(&world, "until [ -e go ]; do sleep 0.1; done; echo goes on").start();
    let said = until("the refusal", || match provider.of_logins("gone") {
        none if none.is_empty() => Err(pi.err()),
        some => Ok(some),
    });
    assert_eq!(said[0], "refused gone");
    until("the warning", || if pi.err().contains("`anthropic`") { Ok(()) } else { Err(pi.err()) });
    fs::write(world.repo().join("go"), "").unwrap();
    let said =
        "pi: warning: the login of `anthropic` could not be renewed; `pi login anthropic` makes a new one\n";
    pi.wait().is(0, "goes on\n", said);
    assert_eq!(text(&world), other);
    world.assert_nothing_left();
}
