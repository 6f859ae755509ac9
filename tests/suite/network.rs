//! The restricted network, tried on a real engine: with a small internet on this machine, by an agent that means ill, and
//! each defence once more without it.

mod attempts;
mod faults;
mod gate;
mod github;
mod list;
mod matrix;
mod past;
mod publish;
mod script;
mod sidecar;
mod through;
mod tools;

use std::time::{Duration, Instant};

use self::attempts::Session;
use crate::world::{
    World,
    files::write,
    internet::{DNS, internet},
    wait::until,
};

const ALLOWLIST: &str = include_str!("../network/allowlist");

/// A world with settings and an allowlist; returns the option that names the latter.
fn restricted(settings: &str, allowlist: &str) -> (World, String) {
    let world = World::real();
    internet();
    configure(&world, settings);
    let file = world.root().join("allowlist");
    write(&file, allowlist);
    (world, format!("--allowed-domains={}", file.display()))
}

/// Gives a world settings beside the internet's resolver.
fn configure(world: &World, more: &str) {
    world.configure(&format!("{DNS}\n{more}"));
}

/// Asks until the answer is as expected; at most a few seconds.
fn await_answer(session: &Session<'_>, how: &str, good: impl Fn(&str) -> bool) -> Duration {
    let begun = Instant::now();
    until(how, || {
        let seen = session.one(how);
        if good(&seen.outcome) { Ok(begun.elapsed()) } else { Err(seen) }
    })
}

const TUNNEL: &str = "head CONNECT allowed.test:443 HTTP/1.1";
