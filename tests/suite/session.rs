//! The life of a session, with an engine that is a script: which calls are made, and what is left when one of them
//! fails, hangs or is late, when a signal comes, and when the launcher itself is killed.

mod beside;
mod calls;
mod clients;
mod dead;
mod hung;
mod killed;
mod signals;
mod starting;

use std::{fs, path::Path, sync::Mutex, thread, time::Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{
    World,
    call::Running,
    files::{children, write},
    wait::{PATIENCE, processes, until, until_true},
};

/// The agent's own status in these tests; no status of docker's or of the launcher's.
const OWN: i32 = 7;

/// The kinds of session, and the words that begin one.
const KINDS: [(&str, &[&str]); 4] = [
    ("open", &["-p", "x"]),
    ("none", &["--no-network", "-p", "x"]),
    ("proxy", &["--proxy", "-p", "x"]),
    ("demo", &["--quiet", "demo"]),
];

/// A world in which the agent ends with a status of its own.
fn world() -> World {
    let world = World::fake();
    write(world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
    world.docker().rule("start-agent", &format!("exits {OWN}"));
    world
}

/// Does the same for every case, a few at a time: most of the time is spent waiting.
fn each<T: Send>(cases: Vec<T>, test: impl Fn(T) + Sync) {
    let cases = Mutex::new(cases.into_iter());
    let next = || cases.lock().unwrap().next();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(case) = next() {
                        test(case);
                    }
                })
            })
            .collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// The calls of an undisturbed session.
fn calls(words: &[&str]) -> Vec<String> {
    let world = world();
    world.run_pi(words);
    world.assert_nothing_left();
    world.docker().kinds()
}

/// Every call of every kind of session: the session's name and words, and the call's kind; none comes twice in one.
fn every_call() -> Vec<(&'static str, &'static [&'static str], String)> {
    KINDS
        .iter()
        .flat_map(|(name, words)| calls(words).into_iter().map(|kind| (*name, *words, kind)))
        .collect()
}

fn is_teardown(kind: &str) -> bool {
    matches!(kind, "rm" | "network-rm")
}

fn without_a_missing_container(err: &str) -> &str {
    match err.split_once('\n') {
        Some((first, rest)) if first.starts_with("Error response from daemon: No such container: pi-") => {
            rest
        }
        _ => err,
    }
}

/// Starts a session whose agent stays, and waits until it is at work.
fn at_work(world: &World, words: &[&str]) -> Running {
    world.docker().rule("start-agent", "stays");
    let pi = world.pi(words).start();
    world.docker().called("start-agent");
    if words.contains(&"--proxy") {
        // The agent begins once the proxy has been seen to refuse.
        until_true("the gate", || world.root().join("docker/engine/gate").exists());
    }
    until_true("the agent's start", || {
        children(&world.root().join("docker/engine/events")).iter().any(|path| {
            let is_beside = |name: &str| ["-proxy", "-model", "-git"].iter().any(|end| name.ends_with(end));
            path.to_str().is_some_and(|name| !is_beside(name))
                && fs::read_to_string(path).is_ok_and(|events| events.contains("start"))
        })
    });
    pi
}

fn kill_watchers(world: &World) {
    for watcher in world.watchers() {
        kill_process(watcher, Signal::KILL).unwrap();
    }
}

/// Waits until nothing of this world's sessions is left, no process either.
#[track_caller]
fn gone(world: &World) {
    let begun = Instant::now();
    until("the end of all that a killed launcher left", || {
        let files: Vec<_> = world.sessions().into_iter().chain(children(&world.root().join("tmp"))).collect();
        let seen = (world.docker().objects(), files, world.watchers(), clients(world));
        if seen == (vec![], vec![], vec![], vec![]) { Ok(()) } else { Err((seen, world.docker().kinds())) }
    });
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
}

/// The fake's processes that are running now.
fn clients(world: &World) -> Vec<Pid> {
    let program = world.docker().bin().join("docker");
    processes(|words| words.iter().any(|word| Path::new(word) == program))
}
