//! A client that is held, since the agent says too much.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::world::{
    World,
    files::children,
    wait::{until, until_true},
};

/// The processes that this one has started, and whether each is stopped.
fn children_of(parent: &str) -> Vec<(Pid, bool)> {
    let line = |path: &PathBuf| fs::read_to_string(path.join("stat")).ok();
    let fields = |line: String| line.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
    children(Path::new("/proc"))
        .iter()
        .filter_map(|path| {
            let pid = Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?)?;
            let rest = fields(line(path)?)?;
            let mut words = rest.split(' ');
            let (state, above) = (words.next()?, words.next()?);
            (above == parent).then_some((pid, state == "T"))
        })
        .collect()
}

#[test]
fn a_client_that_was_held_when_the_launcher_was_killed_ends_with_the_session() {
    let world = World::with_model();
    // The shell is of the same process group and lives on, so the kernel does not see to a stopped process in it.
    let script = format!(
        "'{}' shell --cpus 0.2 -- sh -c 'while :; do head -c 100M /dev/zero; done' >/dev/null 2>&1 & echo $! >pid; wait; exec sleep 300",
        env!("CARGO_BIN_EXE_pi")
    );
    let shell = world.script(&script).start();
    let pid = world.repo().join("pid");
    until_true("the launcher", || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
    let launcher = fs::read_to_string(&pid).unwrap().trim().to_owned();
    let held = until("a client that is held", || {
        let all = children_of(&launcher);
        all.iter().find(|(_, stopped)| *stopped).map(|(pid, _)| *pid).ok_or_else(|| format!("{all:?}"))
    });
    kill_process(Pid::from_raw(launcher.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    until_true("the end of the client", || test_kill_process(held).is_err());
    shell.signal(Signal::KILL);
    shell.wait();
    until_true("the end of the session", || world.sessions().is_empty() && world.watchers().is_empty());
    world.assert_nothing_left();
}
