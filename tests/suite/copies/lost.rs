//! What is killed at any moment, and that nothing of the agent's work is lost by it.

use std::process::Stdio;

use rustix::process::Signal;

use super::world;
use crate::world::{
    World,
    call::Running,
    files::write,
    model::docker,
    wait::{until, until_true},
};

/// Waits until the copy's agent has done its work, and returns its container.
fn at_work(world: &World, running: &Running) -> String {
    until_true("the agent's work", || running.out().contains("done"));
    let plan = world.plan(&[]);
    let label = format!("label=pi.state={}", plan["agent"]["labels"]["pi.state"].as_str().unwrap());
    docker(&["ps", "--quiet", "--filter", &label, "--filter", "label=pi.role=agent"])
}

const SCRIPT: &str =
    "git commit --quiet --allow-empty --message committed; echo uncommitted >>a; echo done; cat >/dev/null";

#[test]
fn a_session_that_is_killed_in_any_way_loses_nothing() {
    let world = world();
    let kills: [fn(&World, &Running, &str); 3] = [
        // The launcher alone: its watcher brings the work in.
        |_, running, _| running.signal(Signal::KILL),
        // With its watcher: the next start does.
        |world, running, _| {
            for watcher in world.watchers() {
                rustix::process::kill_process(watcher, Signal::KILL).unwrap();
            }
            running.signal_group(Signal::KILL);
        },
        // The agent's container, as an engine ends that is killed itself.
        |_, _, id| drop(docker(&["kill", id])),
    ];
    for (n, kill) in kills.into_iter().enumerate() {
        let name = format!("--clone=k{n}");
        let running = world.shell(&[&name], SCRIPT).stdin(Stdio::piped()).start();
        let id = at_work(&world, &running);
        kill(&world, &running, &id);
        running.wait();
        if n == 1 {
            // Any other session of the same user.
            world.shell(&["--clone=other"], "true").run().has_code(0);
        }
        let branch = format!("pi/k{n}");
        until("the work", || {
            let list =
                world.git(world.repo(), &["for-each-ref", "--format=%(refname:short)", "refs/heads/pi"]);
            if list.lines().any(|line| line == branch) { Ok(()) } else { Err(list) }
        });
        assert_eq!(
            world.git(world.repo(), &["log", "--format=%s", &branch]),
            "wip\ncommitted\nfirst\n",
            "{n}"
        );
        assert_eq!(
            world.git(world.repo(), &["show", &format!("{branch}:a")]),
            "one\nmine\nuncommitted\n",
            "{n}"
        );
        until_true("the end of the session", || world.sessions().is_empty() && world.watchers().is_empty());
    }
    for name in ["k0", "k1", "k2", "other"] {
        world.run_pi(&["drop", name]).has_code(0);
    }
    world.assert_nothing_left();
}

#[test]
fn verbs_bring_in_what_a_killed_session_has_left_and_no_copy_is_dropped_before() {
    let world = world();
    let running = world.shell(&["--clone"], SCRIPT).stdin(Stdio::piped()).start();
    at_work(&world, &running);
    // Meanwhile, nobody gets the copy.
    world.run_pi(&["drop", "copy"]).says(125, "a session works on the copy `copy`");
    world.run_pi(&["diff"]).says(125, "a session works on the copy `copy`, and nothing has come of it yet");
    let listed = world.run_pi(&["ps", "--all"]);
    assert!(listed.out.contains(" ?  - "), "{listed:?}");
    for watcher in world.watchers() {
        rustix::process::kill_process(watcher, Signal::KILL).unwrap();
    }
    running.signal_group(Signal::KILL);
    running.wait();
    // The container of the dead session is still there: it is taken down first.
    world.run_pi(&["clean"]).has_code(0);
    let listed = world.run_pi(&["ps", "--all", "--json"]);
    assert!(listed.out.contains("\"unfetched\": \"1+\""), "{listed:?}");
    let shown = world.run_pi(&["diff"]);
    assert!(shown.code == Some(0) && shown.out.contains("+uncommitted\n"), "{shown:?}");
    // What cannot be brought in is not dropped: here the copy has lost its git directory.
    world
        .shell(&["--clone"], "echo more >>a; rm -rf .git")
        .run()
        .says(0, "could not make a commit of what is uncommitted");
    world.run_pi(&["drop", "copy"]).says(125, "so the copy `copy` was not removed");
    world.run_pi(&["drop", "--force", "copy"]).has_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_copy_that_was_interrupted_is_made_anew() {
    let world = world();
    // Enough to be interrupted in.
    for n in 0..3000 {
        write(world.repo().join(format!("many/{n}")), "x".repeat(3000));
    }
    let running = world.shell(&["--clone"], "true").start();
    until("the copy's container", || {
        let volumes = docker(&["ps", "--quiet", "--filter", "label=pi.role=copy"]);
        if volumes.is_empty() { Err("none") } else { Ok(()) }
    });
    running.signal_group(Signal::KILL);
    running.wait();
    let done = world.shell(&["--clone"], "ls many | wc -l; git status --porcelain | grep -c many").run();
    assert_eq!((done.code, done.out.as_str()), (Some(0), "3000\n1\n"), "{done:?}");
    until_true("the watcher's end", || world.watchers().is_empty());
    world.run_pi(&["drop", "copy"]).has_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_copy_whose_record_is_lost_stays_where_it_is() {
    let world = world();
    world.shell(&["--clone"], "echo precious >>a").run().has_code(0);
    let listed: serde_json::Value =
        serde_json::from_str(&world.run_pi(&["ps", "--all", "--json"]).out).unwrap();
    let volume = listed["copies"][0]["volume"].as_str().unwrap().to_owned();
    let record =
        world.state().join("copies").join(volume.strip_prefix("pi-copy-").unwrap()).join("copy.json");
    let whole = std::fs::read(&record).unwrap();
    for broken in [&b""[..], &whole[..whole.len() / 2]] {
        write(&record, broken);
        let refused = world.shell(&["--clone"], "cat a").run();
        refused.says(125, "its record is lost: what is in it stays there");
        assert!(refused.err.contains(&volume), "{refused:?}");
    }
    write(&record, &whole);
    let came = world.shell(&["--clone"], "cat a").run();
    assert!(came.code == Some(0) && came.out.ends_with("precious\n"), "{came:?}");
    world.run_pi(&["drop", "copy"]).has_code(0);
    world.assert_nothing_left();
}
