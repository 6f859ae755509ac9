//! Sessions that are ended at any moment, and many at once, on the real engine: nothing may be left.
//!
//! A long storm: `PI_TEST_STORM=200 PI_TEST_SEED=1 cargo test --release --test suite storm:: -- --nocapture`.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use crate::world::{
    World,
    call::{Outcome, Running},
    files::write,
    model::docker,
    wait::{processes, until, until_true},
};
use rustix::process::Signal;

/// These tests compare all that the engine has before and after, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

/// How a run of the storm ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    Launcher(Signal),
    Group(Signal),
    Twice(Signal),
}

const FAULTS: [Fault; 10] = [
    Fault::Nothing,
    Fault::Launcher(Signal::TERM),
    Fault::Launcher(Signal::HUP),
    Fault::Launcher(Signal::INT),
    Fault::Launcher(Signal::QUIT),
    Fault::Launcher(Signal::KILL),
    Fault::Group(Signal::INT),
    Fault::Group(Signal::HUP),
    Fault::Group(Signal::KILL),
    Fault::Twice(Signal::TERM),
];

/// A small generator of our own, so that a seed means the same storm on every machine.
struct Dice(AtomicU64);

impl Dice {
    fn below(&self, n: u64) -> u64 {
        let step = |x: u64| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |x| Some(step(x))).unwrap();
        (step(before) >> 33) % n
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// All that the engine has, but for what other tests have: that carries the label of another state directory, or none of
/// a launcher's.
fn engine_has(world: &World) -> BTreeSet<String> {
    let ours = world.label();
    let mut found = BTreeSet::new();
    for (kind, name) in [("container", "{{.Names}}"), ("network", "{{.Name}}"), ("volume", "{{.Name}}")] {
        let format = format!("{name}\t{{{{.Label \"pi.state\"}}}}{{{{.Label \"pi.e2e\"}}}}");
        let all: &[&str] = if kind == "container" { &["--all"] } else { &[] };
        let text = docker(&[&[kind, "ls", "--format", &format], all].concat());
        found.extend(
            text.lines()
                .map(|line| line.split_once('\t').unwrap_or((line, "")))
                .filter(|(_, whose)| whose.is_empty() || *whose == ours)
                .map(|(name, _)| format!("{kind} {name}")),
        );
    }
    // A cache outlives its session on purpose; the world removes its own at its end.
    found.retain(|object| !object.starts_with("volume pi-cache-"));
    found
}

fn assert_engine_is_as(before: &BTreeSet<String>, world: &World) {
    until("the engine to be as it was", || {
        let left: Vec<String> = engine_has(world).difference(before).cloned().collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_storm_of_signals_leaves_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("PI_TEST_SEED", u64::from(now.subsec_nanos()));
    let runs = usize::try_from(number("PI_TEST_STORM", 24)).unwrap();
    println!("storm: seed {seed}, {runs} runs, three at a time");
    let world = World::real();
    write(world.repo().join("notes.txt"), "whole\n");
    let login = r#"{"groq":{"type":"api_key","key":"k"}}"#;
    write(world.agent_dir().join("auth.json"), login);
    // Once without weather, so that no run of the storm is spent on building an image.
    world.run_pi(&["--proxy", "shell", "--", "true"]).has_code(0);
    let before = engine_has(&world);
    let dice = Dice(AtomicU64::new(seed));
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::SeqCst) < runs {
                    let fault = one_run(&world, &dice);
                    faults.lock().unwrap().push(fault);
                }
            });
        }
    });
    let killed = faults.lock().unwrap().iter().filter(|fault| is_kill(**fault)).count();
    world.run_pi(&["clean"]).has_code(0);
    // A watcher of a killed launcher may be at the same work.
    assert_engine_is_as(&before, &world);
    until_true("every watcher to end", || world.watchers().is_empty());
    world.assert_nothing_left();
    assert_eq!(fs::read_to_string(world.repo().join("notes.txt")).unwrap(), "whole\n");
    assert_eq!(fs::read_to_string(world.agent_dir().join("auth.json")).unwrap(), login);
    println!("storm: {runs} runs, {killed} of them killed, nothing left");
}

fn is_kill(fault: Fault) -> bool {
    matches!(fault, Fault::Launcher(Signal::KILL) | Fault::Group(Signal::KILL))
}

/// Whether this process ignores SIGHUP, SIGINT or SIGQUIT, as what a shell starts in the background does, or `nohup`.
fn ignores_the_keyboard() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(ignored.trim(), 16).is_ok_and(|mask| mask & 0b111 != 0)
}

fn one_run(world: &World, dice: &Dice) -> Fault {
    let network: &[&str] =
        [&["--proxy"] as &[&str], &[], &["--no-network"]][usize::try_from(dice.below(3)).unwrap()];
    let script = ["exit 3", "sleep 2; exit 3", "sleep 30"][usize::try_from(dice.below(3)).unwrap()];
    let fault = FAULTS[usize::try_from(dice.below(FAULTS.len() as u64)).unwrap()];
    let moment = Duration::from_millis(dice.below(3000));
    // A launcher that inherits this does not hear these before it listens.
    let moment = if ignores_the_keyboard() { moment.max(Duration::from_millis(500)) } else { moment };
    // A run that nobody ends must end by itself.
    let script = if fault == Fault::Nothing { "exit 3" } else { script };
    let args: Vec<&str> = network.iter().copied().chain(["shell", "--", "sh", "-c", script]).collect();
    let running = world.pi(&args).start();
    if fault != Fault::Nothing {
        thread::sleep(moment);
    }
    // The process may have ended before its signal; it is not waited for yet, so its number is still its own.
    match fault {
        Fault::Nothing => {}
        Fault::Launcher(signal) => running.signal(signal),
        Fault::Group(signal) => running.signal_group(signal),
        Fault::Twice(signal) => {
            running.signal(signal);
            thread::sleep(Duration::from_millis(dice.below(300)));
            running.signal(signal);
        }
    }
    let outcome = running.wait();
    let what = format!("{fault:?} at {moment:?} in {args:?}: {outcome:#?}");
    let Outcome { code, signal, .. } = outcome;
    match fault {
        Fault::Nothing => assert_eq!(code, Some(3), "{what}"),
        _ if is_kill(fault) => assert!(code == Some(3) || signal == Some(9), "{what}"),
        Fault::Launcher(sent) | Fault::Group(sent) | Fault::Twice(sent) => {
            let sent = sent.as_raw();
            // A launcher that has not yet begun to listen dies of the signal, and has made nothing.
            assert!([Some(3), Some(128 + sent)].contains(&code) || signal == Some(sent), "{what}");
        }
    }
    fault
}

#[test]
fn many_sessions_at_once_do_not_disturb_each_other() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let many = usize::try_from(number("PI_TEST_SESSIONS", 16)).unwrap();
    let world = World::real();
    world.run_pi(&["--proxy", "shell", "--", "true"]).has_code(0);
    let before = engine_has(&world);
    let mut sessions: Vec<_> = (0..many)
        .map(|n| {
            let network: &[&str] = if n % 2 == 0 { &["--proxy"] } else { &[] };
            let name = format!("--session-name=many-{n}");
            let args: Vec<&str> = network
                .iter()
                .copied()
                .chain([&*name, "shell", "--", "sh", "-c", "echo up; read line; echo $line"])
                .collect();
            let (reader, writer) = std::io::pipe().unwrap();
            (world.pi(&args).stdin(reader).start(), writer)
        })
        .collect();
    for (session, _) in &sessions {
        until("every session to be up", || {
            if session.out().contains("up\n") { Ok(()) } else { Err((session.out(), session.err())) }
        });
    }
    let listed = world.run_pi(&["ps", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), many, "{listed:#?}");
    for (n, (session, mut writer)) in sessions.drain(..).enumerate() {
        writeln!(writer, "line {n}").unwrap();
        drop(writer);
        let outcome = session.wait();
        assert_eq!((outcome.code, &*outcome.out), (Some(0), &*format!("up\nline {n}\n")), "{}", outcome.err);
    }
    assert_engine_is_as(&before, &world);
    world.assert_nothing_left();
    println!("{many} sessions at once, nothing left");
}

/// First starts at once, each thirty in a home of their own that no session has seen:
/// `PI_TEST_STARTS=1000 cargo test --release --test suite storm::first_starts -- --nocapture`.
#[test]
fn first_starts_at_once_do_not_disturb_each_other() {
    let many = usize::try_from(number("PI_TEST_STARTS", 30)).unwrap();
    let (mut started, mut failed) = (0, Vec::new());
    while started < many {
        let world = World::fake();
        write(world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
        world.docker().rule("start-agent", "exits 7");
        let batch = (many - started).min(30);
        let sessions: Vec<_> = (0..batch)
            .map(|n| world.pi(if n % 2 == 0 { &["-p", "x"] } else { &["--proxy", "-p", "x"] }).start())
            .collect();
        let outcomes = sessions.into_iter().map(Running::wait);
        failed.extend(outcomes.filter(|one| (one.code, one.err.as_str()) != (Some(7), "")));
        world.assert_nothing_left();
        started += batch;
    }
    println!("{started} first starts, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn many_networks_do_not_exhaust_the_pools() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::real();
    // Networks as sessions make them: their own small subnets. The engine's own pools hold about thirty.
    let plans: Vec<serde_json::Value> =
        (0..40).map(|_| world.plan(&["--proxy"])["network"].clone()).collect();
    let mut made = Vec::new();
    for plan in &plans {
        let name = plan["name"].as_str().unwrap();
        let mut create = Command::new("docker");
        create.args(["network", "create", "--internal", "--subnet", plan["subnet"].as_str().unwrap()]);
        create.args(["--opt=com.docker.network.bridge.inhibit_ipv4=true", name]);
        let output = create.output().unwrap();
        if output.status.success() {
            made.push(name);
        } else {
            // Two of them may have chosen the same of 8192 subnets; a session would choose again.
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("overlaps"), "{said}");
        }
    }
    let one_more = world.run_pi(&["--proxy", "shell", "--", "echo", "still room"]);
    let removed = Command::new("docker").args(["network", "rm"]).args(&made).output().unwrap();
    assert!(removed.status.success(), "{removed:?}");
    assert!(made.len() > 35, "{}", made.len());
    assert_eq!((one_more.code, &*one_more.out), (Some(0), "still room\n"), "{}", one_more.err);
    world.assert_nothing_left();
}

/// What a session must not use up: files and mounts that the engine holds, and what the launcher keeps on the disk.
fn used(world: &World) -> [usize; 3] {
    let state: usize = world.sessions().len() + files_below(&world.states());
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_or(0, |text| text.lines().count());
    // Only root sees what the engine's process holds.
    let engine = processes(|words| words.first().is_some_and(|word| word.ends_with("dockerd")));
    let held = engine.iter().filter_map(|pid| {
        fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).ok().map(Iterator::count)
    });
    [state, mounts, held.sum()]
}

fn files_below(dir: &std::path::Path) -> usize {
    let children = crate::world::files::children(dir);
    children.iter().map(|path| 1 + if path.is_dir() { files_below(path) } else { 0 }).sum()
}

/// A day's worth: `PI_TEST_DAY=2000 cargo test --release --test suite storm::a_day -- --nocapture`.
#[test]
fn a_days_sessions_use_nothing_up() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let many = number("PI_TEST_DAY", 6);
    let world = World::real();
    let session = |n: u64| {
        let network: &[&str] =
            [&["--proxy"] as &[&str], &[], &["--no-network"]][usize::try_from(n % 3).unwrap()];
        world
            .run_pi(&[network, &["shell", "--", "sh", "-c", "touch ~/x /tmp/x; exit 3"]].concat())
            .has_code(3);
    };
    (0..3).for_each(session);
    let (before, [state, mounts, held]) = (engine_has(&world), used(&world));
    (0..many).for_each(session);
    assert_engine_is_as(&before, &world);
    let after = used(&world);
    println!(
        "{many} sessions: files of state, mounts and descriptors were {state} {mounts} {held}, are {after:?}"
    );
    assert_eq!(after[0], state);
    // Other tests have sessions at the same time.
    assert!(after[1] <= mounts + 20 && after[2] <= held + 200, "{after:?}, before {mounts} {held}");
    world.assert_nothing_left();
}
