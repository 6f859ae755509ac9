//! Which calls are made, and what becomes of a session when one of them is refused, hangs or is late.

use regex::Regex;

use super::{OWN, each, every_call, gone, is_teardown, without_a_missing_container, world};
use crate::world::{World, call::Outcome};

#[test]
fn an_open_session_costs_two_calls() {
    let world = World::fake();
    world.run_pi(&["-p", "x"]).is(0, "", "");
    assert_eq!(world.docker().kinds(), ["create-agent", "start-agent"]);
    world.assert_nothing_left();
}

#[test]
fn a_restricted_session_costs_seven_calls() {
    let world = world();
    world.docker().rule("start-agent", "exits 0");
    world.run_pi(&["--proxy", "-p", "x"]).is(0, "", "");
    let mut kinds = world.docker().kinds();
    // What does not need each other is done side by side: the proxy starts while the agent's container is created.
    kinds[..2].sort();
    kinds[2..6].sort();
    let up =
        ["create-proxy", "network-create", "create-agent", "network-connect", "start-agent", "start-proxy"];
    // Its containers remove themselves.
    let down = ["network-rm"];
    assert_eq!(kinds, [&up[..], &down].concat());
    world.assert_nothing_left();
}

#[test]
fn an_open_session_with_a_key_costs_one_call_more() {
    let world = world();
    world.docker().rule("start-agent", "exits 0");
    world.pi(&["-p", "x"]).env("ANTHROPIC_API_KEY", "sk-ant-made-up").run().is(0, "", "");
    let mut kinds = world.docker().kinds();
    kinds.sort();
    let all = [
        "create-agent", "create-proxy", "network-connect", "network-connect", "network-create", "network-rm",
        "start-agent", "start-proxy",
    ];
    assert_eq!(kinds, all);
    world.assert_nothing_left();
}

#[test]
fn no_client_of_a_session_spreads_over_processors() {
    let world = world();
    world.docker().rule("start-agent", "exits 0");
    world.run_pi(&["--proxy", "-p", "x"]).is(0, "", "");
    for call in world.docker().calls() {
        let env = world.docker().env(call.n);
        assert!(env.contains("GOMAXPROCS='1'") || env.contains("GOMAXPROCS=1"), "{call:?}: {env}");
    }
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
        let outcome = world.pi(words).env("PI_BOX_DEADLINE", "1.5").run();
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

const LEFT: &str = "pi: warning: something of this session is left";

const REFUSAL: &str = "Error response from daemon: boom";

#[track_caller]
fn one_sentence(err: &str, what: &str) {
    let sentence = Regex::new(r"\Api: error: [^\n]+\n(pi: hint: [^\n]+\n)?\z").unwrap();
    assert!(sentence.is_match(err), "{what}: {err}");
}

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
    // Of an engine that hangs nothing more is asked, and the second process goes on.
    let err = match err.split_once(LEFT) {
        Some(("", hint)) if rule.starts_with("hang") => {
            gone(world);
            hint.split_once('\n').and_then(|(_, rest)| rest.split_once('\n')).map_or("", |(_, rest)| rest)
        }
        _ => err,
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
    if rule.starts_with("hang") { gone(world) } else { world.assert_nothing_left() }
}

#[test]
fn an_engine_with_another_clock_is_asked_in_its_own_time() {
    for clock in ["2020-01-01T00:00:00.000000000Z", "2039-12-31T23:59:59.000000000Z"] {
        let world = World::fake();
        world.docker().rule("info", &format!("echo {clock}; finish 0"));
        world.docker().rule("start-agent", "exits 7");
        let begun = std::time::Instant::now();
        world.run_pi(&["-p", "x"]).is(7, "", "");
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{clock}: {:?}", begun.elapsed());
        let events = world.docker().called("events");
        assert!(events.words.windows(2).any(|pair| pair == ["--until", clock]), "{events:?}");
    }
}
