//! Verbs that have to do with the engines of all docker contexts. The other engine is this machine's, at another address.

use std::{os::unix::fs::symlink, path::PathBuf, process::Stdio};

use rustix::process::Signal;

use crate::world::{
    World,
    call::{Call, Running},
    files::write,
    model::context,
    wait::{until, until_true},
};

/// A world whose docker has the context `other`, and one whose engine does not answer.
struct Contexts {
    world: World,
    settings: PathBuf,
}

impl Contexts {
    fn new() -> Self {
        let world = World::with_model();
        write(world.repo().join("a"), "one\n");
        world.git(world.repo(), &["add", "."]);
        world.git(world.repo(), &["commit", "--quiet", "--message", "first"]);
        let socket = world.plan(&[])["record"]["engine"].as_str().unwrap().to_owned();
        let (settings, other) = (world.root().join("contexts"), world.root().join("other.sock"));
        symlink(socket.strip_prefix("unix://").unwrap(), &other).unwrap();
        let other = format!("unix://{}", other.display());
        for (name, address) in [("other", other.as_str()), ("gone", "unix:///nowhere.sock")] {
            context(&settings, name, address);
        }
        world.knows_on(&socket, &other);
        Self { world, settings }
    }

    fn pi(&self, words: &[&str]) -> Call<'_> {
        self.world.pi(words).env("DOCKER_CONFIG", &self.settings)
    }

    /// A session that works until its input ends, and then does this.
    fn session(&self, context: &str, then: &str) -> Running {
        let clone = format!("--clone={context}");
        let script = format!("echo more >>a; echo done; cat >/dev/null; {then}");
        let words = ["--on", context, &clone, "shell", "--", "sh", "-c", &script];
        let running = self.pi(&words).stdin(Stdio::piped()).start();
        until(
            "the agent's work",
            || if running.out().contains("done") { Ok(()) } else { Err(running.err()) },
        );
        running
    }
}

#[test]
fn a_session_without_a_launcher_is_found_on_whichever_engine_and_cleaned() {
    let contexts = Contexts::new();
    let world = &contexts.world;
    let running = contexts.session("other", "sleep 600");
    let all = ["ps", "--all-contexts"];
    let listed = contexts.pi(&all).run();
    assert!(listed.code == Some(0) && listed.out.contains("on unix:///"), "{listed:?}");
    assert!(!listed.err.contains("has lost its launcher"), "{listed:?}");
    assert!(listed.err.contains("`gone` does not say what is there"), "{listed:?}");
    let id = world.session().file_name().unwrap().to_str().unwrap().to_owned();
    for watcher in world.watchers() {
        rustix::process::kill_process(watcher, Signal::KILL).unwrap();
    }
    running.signal_group(Signal::KILL);
    running.wait();
    // The engine that docker uses does not answer either.
    let far = |words: &[&str]| contexts.pi(words).env("DOCKER_HOST", "unix:///nowhere2.sock").run();
    let listed = far(&all);
    listed.says(0, "the session `other` on `unix:///");
    listed.says(0, "has lost its launcher");
    assert_eq!(listed.err.matches("has lost its launcher").count(), 1, "{listed:?}");
    let json = far(&["ps", "--all-contexts", "--json"]);
    assert!(
        json.out.contains(&format!("\"id\": \"{id}\"")) && json.out.contains("\"context\": \"other\""),
        "{json:?}"
    );
    // What was written down of it is lost as well.
    std::fs::remove_dir_all(world.session()).unwrap();
    far(&all).says(0, &format!("the session `{id}` on `other` has lost its launcher"));
    let cleaned = far(&["clean", "--all-contexts"]);
    assert!(
        cleaned.out.contains(&format!("removed leftovers of the unknown session `{id}`\n")),
        "{cleaned:?}"
    );
    cleaned.says(125, "could not clean `gone`: ");
    assert!(!contexts.pi(&all).run().err.contains("has lost its launcher"));
    // Its work is in the copy.
    contexts.pi(&["diff", "other"]).run().has_code(0);
    assert_eq!(world.git(world.repo(), &["show", "pi/other:a"]), "one\nmore\n");
    contexts.pi(&["drop", "other"]).run().has_code(0);
    world.assert_nothing_left();
}

#[test]
fn the_sessions_of_one_engine_are_stopped_and_those_of_others_go_on() {
    let contexts = Contexts::new();
    let (there, here) = (contexts.session("other", ""), contexts.session("default", ""));
    contexts.pi(&["--on", "other", "stop", "--all"]).run().has_code(0);
    assert_eq!(there.wait().code, Some(143));
    let listed = contexts.world.run_pi(&["ps"]);
    assert!(listed.out.lines().count() == 2 && listed.out.contains("default"), "{listed:?}");
    contexts
        .pi(&["--on", "other", "stop", "default"])
        .run()
        .says(2, "`--on` has no effect on this `pi stop`");
    contexts.pi(&["stop", "--all-contexts"]).run().has_code(0);
    here.wait();
    until_true("the end", || contexts.world.sessions().is_empty());
    for name in ["other", "default"] {
        contexts.pi(&["drop", name]).run().has_code(0);
    }
    contexts.world.assert_nothing_left();
}
