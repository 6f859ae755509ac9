//! What is killed, and that nothing of the agent's work is lost by it.

use std::process::Stdio;

use rustix::process::Signal;

use super::{Apart, read};
use crate::world::{
    disk::SmallDisk,
    files::{make_dir, write},
    wait::{until, until_true},
};

const SCRIPT: &str = "git commit --quiet --allow-empty --message committed; echo uncommitted >>a; \
                      echo new >\"$(echo ~/.pi/agent/sessions/*)/new.jsonl\"; echo done; cat >/dev/null";

#[test]
fn a_killed_launcher_loses_neither_work_nor_transcripts_of_another_engine() {
    let apart = Apart::new();
    let world = &apart.world;
    let repo = world.repo();
    let transcripts = world
        .agent_dir()
        .join("sessions")
        .join(format!("-{}--", repo.display().to_string().replace('/', "-")));
    for with_watcher in [false, true] {
        let running = apart.shell(&[], SCRIPT).stdin(Stdio::piped()).start();
        until_true("the agent's work", || running.out().contains("done"));
        if with_watcher {
            for watcher in world.watchers() {
                rustix::process::kill_process(watcher, Signal::KILL).unwrap();
            }
        }
        running.signal_group(Signal::KILL);
        running.wait();
        if with_watcher {
            // What is left is found by anything that looks for it.
            assert!(apart.left().len() >= 2, "{:?}", apart.left());
            world.run_pi(&["clean"]).has_code(0);
        }
        until("the end of the session", || {
            let left = (world.sessions(), world.watchers().len());
            if left.0.is_empty() && left.1 == 0 { Ok(()) } else { Err(format!("{left:?}")) }
        });
        assert_eq!(read(transcripts.join("new.jsonl")), "new\n");
        std::fs::remove_file(transcripts.join("new.jsonl")).unwrap();
        world.run_pi(&["diff"]).has_code(0);
        let log = world.git(repo, &["log", "--format=%s", "pi/copy"]);
        assert!(log.starts_with("wip\ncommitted\n"), "{log}");
    }
    apart.end();
}

#[test]
fn what_does_not_fit_on_a_full_disk_stays_on_the_other_engine_until_there_is_room() {
    let apart = Apart::new();
    let world = &apart.world;
    world.configure("min_free = \"0\"\n");
    let live = world.agent_dir().join("sessions");
    make_dir(&live);
    let Some(_disk) = SmallDisk::make(&live, 4, world) else { return };
    write(live.join("filler"), vec![b'x'; 3 << 20]);
    let script = "head -c 2M /dev/zero >\"$(echo ~/.pi/agent/sessions/*)/new.jsonl\"";
    let said = apart.shell(&[], script).run();
    said.says(0, "No space left on device");
    said.says(
        0,
        "nothing is lost: make room on the disk of that file, and the next `pi`, or `pi clean`, goes on",
    );
    // The watcher may be at it.
    until("the full disk to be told once more", || {
        let said = world.run_pi(&["clean"]);
        let is_told = said.code == Some(125) && said.err.contains("No space left on device");
        if is_told { Ok(()) } else { Err(said) }
    });
    assert_ne!(apart.left(), [""; 0]);
    std::fs::remove_file(live.join("filler")).unwrap();
    world.run_pi(&["clean"]).has_code(0);
    let transcripts = live.join(format!("-{}--", world.repo().display().to_string().replace('/', "-")));
    assert_eq!(std::fs::metadata(transcripts.join("new.jsonl")).unwrap().len(), 2 << 20);
    until_true("the end of the watcher", || world.watchers().is_empty());
    apart.end();
}
