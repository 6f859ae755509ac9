//! The private memory of a session whose agent does nothing.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    Effort, figure,
    world::{World, docker},
};

pub(crate) fn rows(world: &World, _: &Effort) {
    let bare = of_a_container(world);
    let all = [
        ("`pi`", &[] as &[&str], KeyIs::Nowhere, "9 MiB", bare),
        ("`pi --proxy`", &["--proxy"], KeyIs::Nowhere, "25 MiB", 2 * bare),
        ("`pi` with a key", &[], KeyIs::Set, "30 MiB", 2 * bare),
        ("`pi --proxy` with a key", &["--proxy"], KeyIs::Set, "30 MiB", 2 * bare),
    ];
    for (name, words, key, target, floor) in all {
        let kib = of_a_session(world, words, key);
        figure(
            &format!("private memory of an idle session, {name}"),
            &mebibytes(kib),
            target,
            &mebibytes(floor),
        );
    }
}

pub(crate) fn mebibytes(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

/// The floor: what one idle container costs, with nothing in it, by the barest `docker run`. It is the client, the engine's
/// shim and docker's init. A session with a sidecar has two.
fn of_a_container(world: &World) -> u64 {
    let image = world.plan(&["--", "--version"])["agent"]["image"].as_str().unwrap().to_owned();
    let name = format!("pi-bench-{}", std::process::id());
    let mut run = Command::new("docker");
    run.args(["run", "--rm", "--init", "--interactive", "--network=none", "--name", &name]);
    run.args(["--entrypoint=sh", &image, "-c", "echo up; exec cat"]);
    idle(run, |client, parents| {
        let init = docker(&["inspect", "--format={{.State.Pid}}", &name]).parse().unwrap();
        private(client) + private(parents[&init]) + private(init)
    })
}

/// What is measured of a command that has printed `up`, and ends with its input.
fn idle<T>(mut command: Command, measure: impl FnOnce(u32, &BTreeMap<u32, u32>) -> T) -> T {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "up\n");
    thread::sleep(Duration::from_secs(2));
    let measured = measure(child.id(), &parents());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    measured
}

/// Whether there is a key, for which a session has a broker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyIs {
    Set,
    Nowhere,
}

/// In KiB, of everything but the agent itself: the launcher and its watcher, docker's clients, the engine's shims, and what
/// runs in the containers.
fn of_a_session(world: &World, words: &[&str], key: KeyIs) -> u64 {
    let words = [words, &["shell", "--", "sh", "-c", "echo up; cat"]].concat();
    let pi = if key == KeyIs::Set { world.with_a_key(&words) } else { world.pi(&words) };
    idle(pi, of_processes)
}

fn of_processes(launcher: u32, parents: &BTreeMap<u32, u32>) -> u64 {
    let mut all = below(parents, launcher);
    let clients: Vec<String> = all.iter().map(|pid| words_of(*pid)).collect();
    for name in clients.iter().filter_map(|words| words.split('\0').find(|word| word.starts_with("pi-"))) {
        let Ok(init) = docker(&["inspect", "--format={{.State.Pid}}", name]).parse::<u32>() else { continue };
        all.push(parents[&init]);
        all.extend(below(parents, init));
    }
    // Whatever the gate started is the agent's.
    let gates: Vec<u32> =
        all.iter().copied().filter(|pid| words_of(*pid).contains("/usr/local/lib/pi/entry")).collect();
    let agents: Vec<u32> =
        gates.iter().flat_map(|gate| below(parents, *gate)).filter(|pid| !gates.contains(pid)).collect();
    all.retain(|pid| !agents.contains(pid));
    all.sort_unstable();
    all.dedup();
    all.iter().map(|pid| private(*pid)).sum()
}

/// The parent of every process.
fn parents() -> BTreeMap<u32, u32> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter_map(|pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}

/// A process and its descendants.
fn below(parents: &BTreeMap<u32, u32>, top: u32) -> Vec<u32> {
    let mut found = vec![top];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, its)| **its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

fn words_of(pid: u32) -> String {
    fs::read(format!("/proc/{pid}/cmdline"))
        .map(|words| String::from_utf8_lossy(&words).into_owned())
        .unwrap_or_default()
}

/// In KiB. Clean pages are not counted: they are programs' files, which the kernel can drop and read again.
fn private(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with("Private_Dirty:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}
