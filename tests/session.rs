//! The life of a session, with an engine that is a script: which calls are made, and what is left when one of them
//! fails, hangs or is late, when a signal comes, and when the launcher itself is killed.

mod common;

use std::{
    fs,
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use common::{Outcome, PATIENCE, Running, World, children, fake::shell, processes, until, until_true, write};
use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};

/// The agent's own status in these tests; no status of docker's or of the launcher's.
const OWN: i32 = 7;

/// The kinds of session, and the words that begin one.
const KINDS: [(&str, &[&str]); 4] = [
    ("open", &["-p", "x"]),
    ("none", &["--no-network", "-p", "x"]),
    ("proxy", &["--proxy", "-p", "x"]),
    ("demo", &["--quiet", "demo"]),
];

const SIGNALS: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::TERM, Signal::QUIT];

/// A world in which the agent ends with a status of its own.
fn world() -> World {
    let world = World::fake();
    write(&world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
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
    matches!(kind, "rm" | "network-rm" | "volume-rm")
}

#[track_caller]
fn one_sentence(err: &str, what: &str) {
    let sentence = Regex::new(r"\Api: error: [^\n]+\n(pi: hint: [^\n]+\n)?\z").unwrap();
    assert!(sentence.is_match(err), "{what}: {err}");
}

#[test]
fn an_open_session_costs_three_calls() {
    let world = World::fake();
    world.run_pi(&["-p", "x"]).is(0, "", "");
    assert_eq!(world.docker().kinds(), ["create-agent", "start-agent", "volume-rm"]);
    world.assert_nothing_left();
}

#[test]
fn a_restricted_session_costs_nine_calls() {
    let world = world();
    world.docker().rule("start-agent", "exits 0");
    world.run_pi(&["--proxy", "-p", "x"]).is(0, "", "");
    let mut kinds = world.docker().kinds();
    // What does not need each other is done side by side.
    kinds[..3].sort();
    kinds[4..6].sort();
    kinds[7..].sort();
    let expected = [
        ["create-agent", "create-proxy", "network-create"],
        ["network-connect", "start-agent", "start-proxy"],
        ["rm", "network-rm", "volume-rm"],
    ];
    assert_eq!(kinds, expected.concat());
    world.assert_nothing_left();
}

#[test]
fn the_agents_own_status_is_the_launchers() {
    each(vec![0, 1, 2, 42, 125, 126, 127, 130, 137, 255], |status| {
        let world = World::fake();
        world.docker().rule("start-agent", &format!("exits {status}"));
        world.run_pi(&["-p", "x"]).is(status, "", "");
        world.assert_nothing_left();
    });
}

#[test]
fn whichever_call_is_refused_everything_comes_down() {
    let rules = ["refuse", "refuse_after"];
    let cases = every_call().into_iter().flat_map(|case| rules.map(|rule| (case.clone(), rule))).collect();
    each(cases, |((name, words, kind), rule)| {
        let world = world();
        world.docker().rule(&kind, &format!("once || return 0; {rule} {REFUSAL}"));
        let outcome = world.run_pi(words);
        ends_well(&world, &outcome, name, &kind, rule);
    });
}

#[test]
fn whichever_call_hangs_everything_comes_down() {
    let rules = ["hang", "hang_after"];
    let cases = every_call().into_iter().flat_map(|case| rules.map(|rule| (case.clone(), rule)));
    // Showing the agent takes as long as the agent works: a client that hangs there is ended by a signal, below.
    let cases = cases.filter(|((_, _, kind), _)| kind != "start-agent").collect();
    each(cases, |((name, words, kind), rule)| {
        let world = world();
        world.docker().rule(&kind, &format!("once || return 0; {rule}"));
        let outcome = world.run(world.pi(words).env("PI_BOX_DEADLINE", "1.5"));
        ends_well(&world, &outcome, name, &kind, rule);
    });
}

#[test]
fn whichever_call_is_late_the_session_goes_on() {
    each(every_call(), |(name, words, kind)| {
        let world = world();
        world.docker().rule(&kind, &format!("late 0.2; exits {OWN}"));
        let outcome = world.run_pi(words);
        let own = if name == "demo" { 125 } else { OWN };
        assert_eq!(outcome.code, Some(own), "{name}, {kind}: {outcome:#?}");
        world.assert_nothing_left();
    });
}

const UNANSWERED: &str = "pi: warning: the engine left a command of this session without an answer, and may still carry it \
                          out\npi: hint: the next `pi`, or `pi clean`, looks whether something came of it\n";

const REFUSAL: &str = "Error response from daemon: boom";

/// A fault that a second attempt has mended is nobody's business; any other one is the launcher's.
#[track_caller]
fn ends_well(world: &World, outcome: &Outcome, name: &str, kind: &str, rule: &str) {
    let what = format!("{name}, {kind}: {rule}: {outcome:#?}");
    let said = match (kind, rule) {
        ("start-proxy", "refuse_after") => {
            "pi: warning: the proxy has ended: nothing can leave this session any more\n"
        }
        ("start-agent", _) if name == "demo" => &format!("{REFUSAL}\n"),
        _ => "",
    };
    // A proxy that cannot start takes the agent's container with it, perhaps before docker was asked to start that.
    let err = without_a_missing_container(&outcome.err);
    let err = err.strip_prefix(said).unwrap_or(err);
    // An engine that never answered may still make what it was asked for, so the session is not forgotten yet.
    let unanswered = rule.starts_with("hang") && kind.contains("create");
    let err = if unanswered {
        assert_eq!(world.sessions().len(), 1, "{what}");
        world.run_pi(&["clean"]).has_code(0);
        // The demonstration is asked to be quiet here.
        err.strip_prefix(UNANSWERED)
            .or(Some(err).filter(|_| name == "demo"))
            .unwrap_or_else(|| panic!("{what}"))
    } else {
        err
    };
    let mended = is_teardown(kind) || (kind == "start-proxy" && rule.ends_with("after"));
    if mended && name != "demo" {
        assert_eq!((outcome.code, err), (Some(OWN), ""), "{what}");
    } else {
        assert_eq!(outcome.code, Some(125), "{what}");
        // Where the proxy is not seen to refuse, the gate inside says so itself.
        if (kind, rule) != ("start-proxy", "hang") {
            one_sentence(err, &what);
        }
    }
    assert_eq!(outcome.out, "", "{what}");
    world.assert_nothing_left();
}

#[test]
fn whichever_signal_comes_at_whichever_call_everything_comes_down() {
    let cases = every_call().into_iter().filter(|(_, _, kind)| !is_teardown(kind) && kind != "events");
    let cases = cases.flat_map(|case| SIGNALS.map(|signal| (case.clone(), signal)));
    each(cases.collect(), |((name, words, kind), signal)| {
        let world = world();
        world.docker().rule(&kind, "late 0.4");
        // While it is shown, the agent works on.
        world.docker().rule("start-agent", "stays");
        let pi = world.start(&mut world.pi(words));
        world.docker().called(&kind);
        pi.signal(signal);
        let outcome = pi.wait();
        let expected = (Some(128 + signal.as_raw()), "", "");
        // The signal may have come just before docker was asked to show the agent, which is gone by then.
        let err = without_a_missing_container(&outcome.err);
        let seen = (outcome.code, outcome.out.as_str(), err);
        assert_eq!(seen, expected, "{name}, {kind}, {signal:?}");
        world.assert_nothing_left();
    });
}

#[test]
fn a_signal_in_the_teardown_does_not_interrupt_it() {
    let cases = every_call().into_iter().filter(|(name, _, kind)| is_teardown(kind) && *name != "demo");
    let cases = cases.flat_map(|case| SIGNALS.map(|signal| (case.clone(), signal)));
    each(cases.collect(), |((name, words, kind), signal)| {
        let world = world();
        world.docker().rule(&kind, "late 0.4");
        let pi = world.start(&mut world.pi(words));
        world.docker().called(&kind);
        pi.signal_group(signal);
        pi.signal(signal);
        let outcome = pi.wait();
        assert_eq!(outcome.code, Some(OWN), "{name}, {kind}, {signal:?}: {outcome:#?}");
        world.assert_nothing_left();
    });
}

#[test]
fn a_second_signal_changes_nothing() {
    each(KINDS.to_vec(), |(name, words)| {
        let world = world();
        world.docker().rule("start-agent", "stays");
        for kind in ["rm", "network-rm", "volume-rm", "stop-agent"] {
            world.docker().rule(kind, "late 0.2");
        }
        let pi = at_work(&world, words);
        pi.signal(Signal::TERM);
        for kind in ["stop-agent", "rm", "volume-rm"] {
            world.docker().called(kind);
            pi.signal(Signal::INT);
            pi.signal(Signal::HUP);
        }
        let outcome = pi.wait();
        assert_eq!((outcome.code, outcome.err.as_str()), (Some(143), ""), "{name}");
        world.assert_nothing_left();
    });
}

#[test]
fn a_signal_to_the_whole_terminal_ends_the_session() {
    let cases = KINDS.iter().flat_map(|kind| SIGNALS.map(|signal| (*kind, signal))).collect();
    each(cases, |((name, words), signal)| {
        let world = world();
        world.docker().rule("start-agent", "stays");
        let pi = at_work(&world, words);
        pi.signal_group(signal);
        let outcome = pi.wait();
        assert_eq!(
            (outcome.code, outcome.err.as_str()),
            (Some(128 + signal.as_raw()), ""),
            "{name} {signal:?}"
        );
        world.assert_nothing_left();
    });
}

#[test]
fn a_dead_session_whose_engine_is_gone_leaves_the_login_to_its_user() {
    let world = world();
    let login = world.agent_dir().join("auth.json");
    world.run_pi(&["-p", "x"]).has_code(OWN);
    let down = "case $DOCKER_HOST in *gone.sock) refuse 'Cannot connect to the Docker daemon.';; esac";
    world.docker().rule("all", down);
    // As a launcher leaves it that was killed, on an engine that was taken away.
    let dir = world.state().join("sessions/aaaabbbbccccdddd");
    let meta = fs::metadata(&login).unwrap();
    let (device, inode) =
        (std::os::unix::fs::MetadataExt::dev(&meta), std::os::unix::fs::MetadataExt::ino(&meta));
    write(&dir.join("lock"), "");
    let backup = serde_json::json!({ "device": device, "inode": inode, "text": "{}" });
    write(&dir.join("login.backup"), &backup.to_string());
    let record = serde_json::json!({
        "id": "aaaabbbbccccdddd", "name": "gone", "engine": format!("unix://{}", world.root().join("gone.sock").display()),
        "repository": world.repo(), "directory": world.repo(), "image": "x", "network": "open", "started": 1,
        "allowlist": null, "login": login,
    });
    write(&dir.join("session.json"), &record.to_string());
    let own = r#"{"anthropic":{"type":"api_key","key":"!op read op://x"}}"#;
    let command = |text: &str| text.contains("!op read");
    fs::write(&login, own).unwrap();
    world.run_pi(&["-p", "x"]).has_code(OWN);
    assert!(!command(&fs::read_to_string(&login).unwrap()), "what may be the dead session's is undone once");
    for _ in 0..2 {
        fs::write(&login, own).unwrap();
        world.run_pi(&["-p", "x"]).has_code(OWN);
        assert!(command(&fs::read_to_string(&login).unwrap()));
    }
    fs::remove_dir_all(&dir).unwrap();
    world.assert_nothing_left();
}

#[test]
fn no_two_sessions_that_live_have_one_name() {
    let world = world();
    world.docker().rule("start-agent", "stays");
    let first = at_work(&world, &["-p", "x"]);
    let second = world.start(&mut world.pi(&["-p", "x"]));
    let third = world.start(&mut world.pi(&["--session-name", "mine", "-p", "x"]));
    let names = || {
        let listed = world.run_pi(&["ps", "--json"]);
        let all: Vec<serde_json::Value> = serde_json::from_str(&listed.out).unwrap();
        let mut names: Vec<String> = all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    until("three sessions", || if names().len() == 3 { Ok(()) } else { Err(names()) });
    assert_eq!(names(), ["mine", "repo", "repo-2"]);
    let refused = world.run_pi(&["--session-name", "mine", "-p", "x"]);
    refused.is(
        125,
        "",
        "pi: error: a session named `mine` is running\n\
         pi: hint: choose another name, or end that session with `pi stop`\n",
    );
    for pi in [first, second, third] {
        pi.signal(Signal::TERM);
        assert_eq!(pi.wait().code, Some(143));
    }
    world.assert_nothing_left();
}

#[test]
fn a_docker_that_is_a_script_ends_with_all_that_it_started() {
    let world = world();
    let script = world.root().join("wrapper");
    write(&script, "#!/bin/sh\nsleep 1000\n");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.configure(&format!("docker = \"{}\"\n", script.display()));
    let outcome = world.run(world.pi(&["-p", "x"]).env("PI_BOX_DEADLINE", "0.5"));
    outcome.has_code(125);
    assert!(outcome.err.contains("docker did not answer within 0.5 s"), "{}", outcome.err);
    // Whoever holds a session's lock is taken for its launcher.
    world.run_pi(&["ps"]).is(0, "", "pi: no session is running\n");
    write(&script, "#!/bin/sh\nexit 0\n");
    world.run_pi(&["clean"]).has_code(0);
    world.assert_nothing_left();
}

#[test]
fn waiting_for_another_build_ends_with_a_signal_and_with_that_build() {
    let world = world();
    let lock = world.state().join("build.lock");
    write(&lock, "");
    let held = fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let waits = || {
        let pi = world.start(&mut world.pi(&["build"]));
        until_true("the wait", || pi.err().contains("another `pi` is building an image; waiting for it"));
        pi
    };
    let pi = waits();
    pi.signal(Signal::INT);
    assert_eq!(pi.wait().code, Some(130));
    let pi = waits();
    held.unlock().unwrap();
    assert_eq!(pi.wait().code, Some(0));
    world.assert_nothing_left();
}

#[test]
fn a_client_that_hangs_while_the_agent_is_shown_does_not_keep_the_launcher_from_ending() {
    let world = world();
    world.docker().rule("start-agent", "hang");
    let pi = world.start(world.pi(&["-p", "x"]).env("PI_BOX_DEADLINE", "1.5"));
    world.docker().called("start-agent");
    let begun = Instant::now();
    pi.signal(Signal::TERM);
    let outcome = pi.wait();
    assert_eq!(outcome.code, Some(143), "{outcome:#?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    world.assert_nothing_left();
}

#[test]
fn a_client_that_is_killed_while_the_agent_is_shown_ends_the_session() {
    each(KINDS.to_vec(), |(name, words)| {
        let world = world();
        world.docker().rule("start-agent", "stays");
        let pi = at_work(&world, words);
        kill_process(client(&world, "start", false), Signal::KILL).unwrap();
        let outcome = pi.wait();
        assert_eq!(outcome.code, Some(125), "{name}: {outcome:#?}");
        assert_eq!(
            outcome.err,
            "pi: error: the docker program that showed the agent was killed by signal 9; the session is over\n",
            "{name}"
        );
        world.assert_nothing_left();
    });
}

#[test]
fn an_agent_that_disappears_with_its_engine_is_told_from_one_that_ended() {
    let world = world();
    world.docker().rule("start-agent", "record \"$name\" start; refuse 'error during connect: EOF'");
    let outcome = world.run_pi(&["-p", "x"]);
    outcome.is(
        125,
        "",
        "error during connect: EOF\npi: error: lost the engine while the agent was running; the session is over\n",
    );
    world.assert_nothing_left();
}

#[test]
fn a_proxy_that_ends_by_itself_is_told_of() {
    let world = world();
    world.docker().rule("start-proxy", "ends");
    world.docker().rule("start-agent", "stays");
    let pi = at_work(&world, &["--proxy", "-p", "x"]);
    until("the warning", || if pi.err().is_empty() { Err(()) } else { Ok(()) });
    pi.signal(Signal::TERM);
    pi.wait().is(143, "", "pi: warning: the proxy has ended: nothing can leave this session any more\n");
    world.assert_nothing_left();
}

#[test]
fn a_proxy_that_does_not_start_keeps_the_agent_from_starting() {
    let world = world();
    world.docker().rule("start-proxy", "echo 'pi-proxy: error: no route'; exit 1");
    let outcome = world.run_pi(&["--proxy", "-p", "x"]);
    outcome.has_code(125);
    assert_eq!(
        without_a_missing_container(&outcome.err),
        "pi: error: the proxy could not be started, so the agent was not: no route\n"
    );
    world.assert_nothing_left();
}

fn without_a_missing_container(err: &str) -> &str {
    match err.split_once('\n') {
        Some((first, rest)) if first.starts_with("Error response from daemon: No such container: pi-") => {
            rest
        }
        _ => err,
    }
}

#[test]
fn a_launcher_that_is_killed_is_survived_by_a_watcher_that_takes_the_session_down() {
    let cases = KINDS.iter().flat_map(|kind| [false, true].map(|group| (*kind, group))).collect();
    each(cases, |((_, words), group)| {
        let world = world();
        world.docker().rule("start-agent", "stays");
        let pi = at_work(&world, words);
        assert_eq!(world.watchers().len(), 1);
        if group {
            pi.signal_group(Signal::KILL);
        } else {
            pi.signal(Signal::KILL);
        }
        assert_eq!(pi.wait().signal, Some(9));
        gone(&world);
    });
}

#[test]
fn a_launcher_that_is_killed_at_whichever_call_leaves_nothing_for_long() {
    let cases = every_call().into_iter().flat_map(|case| [false, true].map(|group| (case.clone(), group)));
    each(cases.collect(), |((_, words, kind), group)| {
        let world = world();
        world.docker().rule(&kind, &format!("late 0.2; exits {OWN}"));
        let pi = world.start(&mut world.pi(words));
        world.docker().called(&kind);
        if group {
            pi.signal_group(Signal::KILL);
        } else {
            pi.signal(Signal::KILL);
        }
        pi.wait();
        gone(&world);
    });
}

#[test]
fn a_session_whose_watcher_was_killed_too_is_taken_down_by_the_next_start() {
    each(KINDS.to_vec(), |(name, words)| {
        let world = world();
        world.docker().rule("start-agent", "stays");
        let pi = at_work(&world, words);
        for watcher in world.watchers() {
            kill_process(watcher, Signal::KILL).unwrap();
        }
        pi.signal_group(Signal::KILL);
        pi.wait();
        until_true("the end of the clients", || clients(&world).is_empty() || name != "open");
        assert_eq!(world.sessions().len(), 1);
        assert_ne!(world.docker().objects(), [""; 0]);
        let agent = world.docker().calls()[0].words.clone();
        world.docker().rule("start-agent", "exits 3");
        world.run_pi(&["-p", "y"]).is(3, "", "");
        assert_ne!(agent, world.docker().calls().last().unwrap().words);
        gone(&world);
    });
}

#[test]
fn a_start_that_finds_only_live_sessions_leaves_them_alone() {
    let world = world();
    world.docker().rule("start-agent", "stays");
    let first = at_work(&world, &["--proxy", "-p", "x"]);
    let before = world.docker().objects();
    world.docker().rule("start-agent", "exits 3");
    world.run_pi(&["-p", "y"]).is(3, "", "");
    assert_eq!(world.docker().objects(), before);
    assert_eq!(world.sessions().len(), 1);
    first.signal(Signal::TERM);
    first.wait().has_code(143);
    world.assert_nothing_left();
}

/// A session that died at another time, with another engine or on another machine.
fn dead(sessions: &Path, id: &str, engine: &str) {
    let dir = sessions.join(id);
    write(&dir.join("lock"), "");
    let record = serde_json::json!({
        "id": id, "name": "repo", "engine": engine, "repository": "/r", "directory": "/r", "image": "i",
        "network": "open", "started": 0, "allowlist": null, "login": dir.join("auth.json"),
    });
    write(&dir.join("session.json"), &record.to_string());
}

const DEAD: &str = "aaaabbbbccccdddd";

#[test]
fn a_dead_session_is_looked_for_on_its_own_engine_and_no_other() {
    let world = world();
    let other = format!("unix://{}/other.sock", world.root().display());
    dead(&world.state().join("sessions"), DEAD, &other);
    world.run_pi(&["-p", "x"]).is(OWN, "", "");
    let calls = world.docker().calls();
    let about_it = |words: &[String]| words.iter().any(|word| word.contains(DEAD));
    for call in &calls {
        let engine = if about_it(&call.words) { &other } else { &world.docker().address() };
        let line = format!("DOCKER_HOST='{engine}'");
        assert!(world.docker().env(call.n).lines().any(|env| env.ends_with(&line)), "{call:?}");
    }
    let kinds: Vec<_> =
        calls.iter().filter(|call| about_it(&call.words)).map(common::fake::Call::kind).collect();
    assert!(
        ["rm", "network-rm", "volume-rm"].iter().all(|kind| kinds.iter().any(|k| k == kind)),
        "{kinds:?}"
    );
    world.assert_nothing_left();
}

#[test]
fn a_dead_session_whose_engine_does_not_answer_is_kept_for_later() {
    let world = world();
    let other = format!("unix://{}/other.sock", world.root().display());
    let sessions = world.state().join("sessions");
    dead(&sessions, DEAD, &other);
    let words = "Cannot connect to the Docker daemon at unix:///other.sock. Is the docker daemon running?";
    world.docker().rule("all", &format!("case $DOCKER_HOST in {other}) refuse {};; esac", shell(words)));
    let outcome = world.run_pi(&["-p", "x"]);
    outcome.is(
        OWN,
        "",
        &format!(
            "pi: warning: could not remove what the dead session `{DEAD}` left: docker is installed but its engine \
             does not answer\n"
        ),
    );
    assert_eq!(world.sessions(), [sessions.join(DEAD)]);
}

#[test]
fn a_session_of_another_machine_that_shares_the_home_is_not_touched() {
    let world = world();
    let foreign = world.root().join("state/pi/ffffffffffff/sessions");
    dead(&foreign, DEAD, &world.docker().address());
    world.run_pi(&["-p", "x"]).is(OWN, "", "");
    world.run_pi(&["--quiet", "clean"]).is(0, "", "");
    assert_eq!(world.sessions(), [foreign.join(DEAD)]);
    for call in world.docker().calls() {
        assert!(!call.words.concat().contains(DEAD), "{call:?}");
    }
}

#[test]
fn what_carries_our_label_and_has_no_record_is_removed_by_clean_only() {
    let world = world();
    for object in ["containers/pi-", "networks/pi-", "volumes/pi-"] {
        let home = if object.starts_with("volumes") { "-home" } else { "" };
        world.docker().has(&format!("{object}{DEAD}{home}"));
    }
    world.run_pi(&["-p", "x"]).is(OWN, "", "");
    assert_eq!(world.docker().objects().len(), 3);
    world.run_pi(&["clean", "--dry-run"]).is(
        0,
        &format!("would remove leftovers of the unknown session `{DEAD}`\n"),
        "",
    );
    assert_eq!(world.docker().objects().len(), 3);
    world.run_pi(&["clean"]).is(0, &format!("removed leftovers of the unknown session `{DEAD}`\n"), "");
    world.assert_nothing_left();
}

#[test]
fn a_login_that_was_cut_short_is_restored() {
    let world = world();
    let login = world.agent_dir().join("auth.json");
    write(&login, "{\"key\":1}");
    let cut = format!("printf '{{\"ke' >{}; exits {OWN}", shell(login.to_str().unwrap()));
    world.docker().rule("start-agent", &cut);
    let login_path = login.display();
    world.run_pi(&["-p", "x"]).is(
        OWN,
        "",
        &format!("pi: warning: `{login_path}` was cut short; it is again as it was when the session began\n"),
    );
    assert_eq!(fs::read_to_string(&login).unwrap(), "{\"key\":1}");
    // One that the agent has changed as a whole stays.
    let changed = format!("printf '{{\"key\":2}}' >{}; exits {OWN}", shell(login.to_str().unwrap()));
    world.docker().rule("start-agent", &changed);
    world.run_pi(&["-p", "x"]).is(OWN, "", "");
    assert_eq!(fs::read_to_string(&login).unwrap(), "{\"key\":2}");
}

#[test]
fn a_login_that_was_cut_short_by_a_kill_is_restored_too() {
    let world = world();
    let login = world.agent_dir().join("auth.json");
    write(&login, "{\"key\":1}");
    world.docker().rule("start-agent", "stays");
    let pi = at_work(&world, &["-p", "x"]);
    fs::write(&login, "").unwrap();
    pi.signal_group(Signal::KILL);
    pi.wait();
    gone(&world);
    assert_eq!(fs::read_to_string(&login).unwrap(), "{\"key\":1}");
}

/// A login of the user's own, and what an agent makes of it: a token is rotated, a login is new, and two run a command.
const BEFORE: &str = r#"{"mine":{"key":"!op read mine"},"plain":{"refresh":"1"}}"#;
const AFTER: &str =
    r#"{"mine":{"key":"!op read mine; id"},"plain":{"refresh":"2"},"new":{"key":"k"},"worse":{"key":"!id"}}"#;
const MENDED: &str = r#"{"mine":{"key":"!op read mine"},"plain":{"refresh":"2"},"new":{"key":"k"}}"#;

#[track_caller]
fn holds(login: &Path, expected: &str) {
    let [found, expected] = [&fs::read_to_string(login).unwrap(), expected]
        .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
    assert_eq!(found, expected);
}

/// A login that the agent writes.
fn poisoned(world: &World) -> std::path::PathBuf {
    let login = world.agent_dir().join("auth.json");
    write(&login, BEFORE);
    let rule = format!("printf %s {} >{}; exits {OWN}", shell(AFTER), shell(login.to_str().unwrap()));
    world.docker().rule("start-agent", &rule);
    login
}

#[test]
fn a_command_that_a_session_puts_into_the_login_does_not_outlive_it() {
    let world = world();
    let login = poisoned(&world);
    let said = format!(
        "pi: warning: the session, or you beside it, put a command (`!op read mine; id`) for `mine` into `{0}`; that entry \
         is as it was before\n\
         pi: warning: the session, or you beside it, put a command (`!id`) for `worse` into `{0}`; that entry is removed\n",
        login.display()
    );
    world.run_pi(&["-p", "x"]).is(OWN, "", &said);
    holds(&login, MENDED);
    world.assert_nothing_left();
    // What the user writes between two sessions is the user's own.
    write(&login, AFTER);
    world.run_pi(&["-p", "x"]).is(OWN, "", "");
    holds(&login, AFTER);
}

#[test]
fn a_command_of_a_session_that_was_killed_does_not_outlive_it_either() {
    let world = world();
    let login = poisoned(&world);
    world.docker().rule("start-agent", "stays");
    let pi = at_work(&world, &["-p", "x"]);
    fs::write(&login, AFTER).unwrap();
    pi.signal_group(Signal::KILL);
    pi.wait();
    gone(&world);
    holds(&login, MENDED);
}

#[test]
fn the_next_session_does_not_see_the_command_of_a_dead_one() {
    let world = world();
    let login = poisoned(&world);
    world.docker().rule("start-agent", "stays");
    let pi = at_work(&world, &["-p", "x"]);
    fs::write(&login, AFTER).unwrap();
    for watcher in world.watchers() {
        kill_process(watcher, Signal::KILL).unwrap();
    }
    pi.signal_group(Signal::KILL);
    pi.wait();
    until_true("the end of the clients", || clients(&world).is_empty());
    let seen = world.root().join("seen");
    let [from, to] = [&login, &seen].map(|path| shell(path.to_str().unwrap()));
    // However long the engine takes to remove what is dead.
    world.docker().rule("rm", "late 0.5");
    world.docker().rule("start-agent", &format!("cat {from} >{to}; exits {OWN}"));
    world.run_pi(&["-p", "y"]).has_code(OWN);
    holds(&seen, MENDED);
    gone(&world);
}

#[test]
fn no_session_starts_on_a_command_that_came_while_another_one_runs() {
    let world = world();
    let login = poisoned(&world);
    world.docker().rule("start-agent", "stays");
    let first = at_work(&world, &["-p", "x"]);
    // The user's own command was there before, so a second session may run beside the first one.
    world.docker().rule("start-agent", &format!("exits {OWN}"));
    world.run_pi(&["-p", "y"]).is(OWN, "", "");
    fs::write(&login, AFTER).unwrap();
    let calls = world.docker().kinds().len();
    let said = format!(
        "pi: error: `{}` has got a command (`!op read mine; id`) for `mine` since the other sessions began: one of them \
         has put it there, or you have\n\
         pi: hint: `pi stop --all` ends the other sessions, which undoes it; if you wrote it yourself, do so again after that\n",
        login.display()
    );
    world.run_pi(&["-p", "y"]).is(125, "", &said);
    assert_eq!(world.docker().kinds().len(), calls);
    first.signal(Signal::TERM);
    first.wait().has_code(143);
    holds(&login, MENDED);
    world.run_pi(&["-p", "y"]).is(OWN, "", "");
    world.assert_nothing_left();
}

#[test]
fn when_addresses_are_taken_others_are_tried() {
    let world = world();
    let said = "Error response from daemon: Pool overlaps with other one on this address space";
    world.docker().rule("network-create", &format!("once || return 0; refuse {}", shell(said)));
    world.run_pi(&["--proxy", "-p", "x"]).is(OWN, "", "");
    let subnets: Vec<String> =
        world.docker().calls().iter().filter_map(|call| after(&call.words, "--subnet")).collect();
    assert_eq!(subnets.len(), 2);
    assert_ne!(subnets[0], subnets[1]);
    let stem = |address: &str| {
        let parts: Vec<u32> = address.split(['.', '/']).take(4).map(|part| part.parse().unwrap()).collect();
        [parts[0], parts[1], parts[2], parts[3] / 8]
    };
    for call in world.docker().calls() {
        if let Some(address) = after(&call.words, "--ip") {
            assert_eq!(stem(&address), stem(&subnets[1]), "{call:?}");
        }
    }
    world.assert_nothing_left();
}

#[test]
fn when_all_addresses_are_taken_that_is_said() {
    let world = world();
    let said = "Error response from daemon: Pool overlaps with other one on this address space";
    world.docker().rule("network-create", &format!("refuse {}", shell(said)));
    world.run_pi(&["--proxy", "-p", "x"]).is(
        125,
        "",
        "pi: error: could not create the session's network: Pool overlaps with other one on this address space\n",
    );
    let tried = world.docker().kinds().iter().filter(|kind| *kind == "network-create").count();
    assert_eq!(tried, 16);
    world.assert_nothing_left();
}

#[test]
fn what_cannot_be_removed_is_told_of_and_left_for_the_next_start() {
    let world = world();
    world.docker().rule("volume-rm", "refuse Error response from daemon: volume is in use");
    let outcome = world.run_pi(&["-p", "x"]);
    let id = world.session().file_name().unwrap().to_string_lossy().into_owned();
    let said = format!(
        "pi: warning: something of this session is left: could not remove the volume `pi-{id}-home`: volume is in use\n\
         pi: hint: `pi clean` removes it, and so does the next `pi`\n"
    );
    outcome.is(OWN, "", &said);
    assert_eq!(world.sessions().len(), 1);
    world.docker().behave();
    world.run_pi(&["-p", "x"]).is(0, "", "");
    world.assert_nothing_left();
}

#[test]
fn thirty_sessions_at_once_do_not_disturb_each_other() {
    let world = world();
    let started: Vec<Running> = (0..30)
        .map(|n| world.start(&mut world.pi(if n % 2 == 0 { &["-p", "x"] } else { &["--proxy", "-p", "x"] })))
        .collect();
    for pi in started {
        pi.wait().is(OWN, "", "");
    }
    world.assert_nothing_left();
}

#[test]
fn ps_and_stop_know_a_running_session() {
    let world = world();
    world.docker().rule("start-agent", "stays");
    world.run_pi(&["ps"]).is(0, "", "pi: no session is running\n");
    let pi = at_work(&world, &["--session-name", "mine", "-p", "x"]);
    let outcome = world.run_pi(&["ps", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(rows[0]["name"], "mine");
    assert_eq!(rows[0]["repository"], world.repo().to_str().unwrap());
    world.run_pi(&["stop", "other"]).is(
        125,
        "",
        "pi: error: no session `other` is running\npi: hint: `pi ps` lists them\n",
    );
    world.run_pi(&["stop", "mine"]).is(0, "", "");
    pi.wait().has_code(143);
    world.assert_nothing_left();
}

/// Starts a session and waits until its agent is at work.
fn at_work(world: &World, words: &[&str]) -> Running {
    let pi = world.start(&mut world.pi(words));
    world.docker().called("start-agent");
    if words.contains(&"--proxy") {
        // The agent begins once the proxy has been seen to refuse.
        until_true("the gate", || world.root().join("docker/engine/gate").exists());
    }
    until_true("the agent's start", || {
        children(&world.root().join("docker/engine/events")).iter().any(|path| {
            path.to_str().is_some_and(|name| !name.ends_with("-proxy") && !name.ends_with("-model"))
                && fs::read_to_string(path).is_ok_and(|events| events.contains("start"))
        })
    });
    pi
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

/// The client that shows the agent, or holds the proxy.
fn client(world: &World, verb: &str, proxy: bool) -> Pid {
    let program = world.docker().bin().join("docker");
    until("a client", || {
        let found = processes(|words| {
            words.iter().any(|word| Path::new(word) == program)
                && words.iter().any(|word| word == verb)
                && words.iter().any(|word| word.starts_with("pi-") && word.ends_with("-proxy") == proxy)
        });
        found.first().copied().ok_or(())
    })
}

/// The word behind a flag.
fn after(words: &[String], flag: &str) -> Option<String> {
    let at = words.iter().position(|word| word == flag)?;
    words.get(at + 1).cloned()
}
