//! Sessions on another engine that have lost their launcher: they live on, and somebody comes back to them.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::cut::Far;
use crate::world::{
    terminal::Terminal,
    wait::{processes, until, until_true},
};

/// The name of a copy that no other test has, by which a launcher is found among all processes.
fn copy(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

/// A terminal with a shell in a session on the other engine, at work on this copy.
fn shell<'a>(far: &'a Far, copy: &str, patience: &str) -> Terminal<'a> {
    let terminal = Terminal::open(&far.world);
    terminal.line(&format!("export DOCKER_CONFIG={} PI_BOX_CUT={patience}; clear", far.settings.display()));
    terminal
        .line(&format!("pi --on far --clone={copy} --session-name here --allow allowed.test shell -- sh"));
    terminal.insist(&["Enter"], "the shell inside", |screen| screen.lines().any(|line| line == "$"));
    // The words on the screen are not those that were typed.
    terminal.line("git commit --quiet --allow-empty --message committed; echo uncommitted >>a; echo do''ne");
    terminal.wait("the work", |screen| screen.lines().any(|line| line == "done"));
    terminal
}

/// What a request inside is answered, for the name that is not allowed.
fn asks(terminal: &Terminal<'_>, word: &str) {
    terminal.line(&format!(
        "curl -sS --max-time 20 -o /dev/null -w '{word}-%{{http_code}}\\n' http://refused.test/"
    ));
    let answer = format!("{word}-403");
    terminal.wait("the proxy's answer", |screen| screen.lines().any(|line| line == answer));
}

/// Ends the shell inside, and looks that the work has come and nothing is left.
fn ends(far: &Far, copy: &str, terminal: &Terminal<'_>) {
    terminal.line("echo after >>a; exit 7");
    terminal.wait("the prompt", |screen| screen.trim_end().ends_with("ready$"));
    terminal.line("echo status-$?");
    terminal.wait("the agent's status", |screen| screen.contains("status-7"));
    far.settled();
    far.has_come(copy, Some("after\n"));
    far.world.assert_nothing_left();
}

/// Stops the lost session, and looks that its work has come and nothing is left.
fn is_stopped(far: &Far, copy: &str) {
    far.pi(&["stop", "here"]).run().has_code(0);
    far.settled();
    assert!(far.containers("agent").is_empty());
    far.has_come(copy, None);
    far.world.assert_nothing_left();
}

/// Ends launcher and watcher as a machine does that loses its power, with all its connections.
fn goes_down(far: &Far, copy: &str) {
    let option = format!("--clone={copy}");
    let launchers = processes(|words| words.contains(&option) && words[0].ends_with("pi"));
    assert_eq!(launchers.len(), 1);
    for process in [far.world.watchers(), launchers].concat() {
        kill_process(process, Signal::KILL).unwrap();
    }
    far.line.lose();
    // The kernel frees a dead process's lock a moment after it was killed.
    until("a session without a launcher", || {
        let listed = far.pi(&["ps", "--json"]).run();
        if listed.out.contains("\"state\": \"lost\"") { Ok(()) } else { Err(listed) }
    });
}

#[test]
fn a_session_whose_machine_went_down_lives_on_and_is_come_back_to() {
    let far = Far::new();
    let copy = copy("goes-down");
    let clone = format!("--clone={copy}");
    let terminal = shell(&far, &copy, "600");
    asks(&terminal, "before");
    goes_down(&far, &copy);
    drop(terminal);
    until_true("the end of its sidecar", || far.containers("proxy").is_empty());
    // The next one leaves it alone, and says so.
    let next = far.pi(&["shell", "--", "true"]).run();
    next.says(0, "has lost its launcher, and its agent lives: `pi attach here` comes back to it");
    assert!(!far.containers("agent").is_empty());
    let listed = far.pi(&["ps", "--json"]).run();
    assert!(listed.out.contains("\"state\": \"lost\""), "{listed:?}");
    let examined = far.pi(&["doctor"]).run();
    assert!(examined.out.contains("the session `here` has lost its launcher"), "{examined:?}");
    far.pi(&["logs", "here"]).run().says(125, "the session `here` has lost its launcher");
    far.pi(&["attach", "other"]).run().says(125, "no session `other` has lost its launcher");
    // Nobody takes the copy from it, nor names a verb that would end it.
    for words in
        [vec!["diff"], vec!["drop", "--force", &copy], vec!["--on", "far", &clone, "shell", "--", "true"]]
    {
        let refused = far.pi(&words).run();
        refused.says(125, "the session `here`, which has lost its launcher, still works on the copy");
        assert!(
            refused.err.contains("`pi attach here` comes back to it") && !refused.err.contains("pi clean")
        );
    }

    let terminal = Terminal::open(&far.world);
    terminal.line(&format!("export DOCKER_CONFIG={}; clear; pi attach", far.settings.display()));
    terminal.wait("the session", |screen| screen.contains("this is the session `here`"));
    terminal.insist(&["Enter"], "the shell inside", |screen| screen.lines().any(|line| line == "$"));
    asks(&terminal, "again");
    far.pi(&["attach", "here"]).run().says(125, "has its launcher");
    far.pi(&["allow", "other.test"]).run().has_code(0);
    ends(&far, &copy, &terminal);
}

#[test]
fn a_session_that_was_given_up_lives_on_until_somebody_stops_it() {
    let far = Far::new();
    let copy = copy("given-up");
    let terminal = shell(&far, &copy, "20");
    far.line.cut(true);
    terminal.wait("the end of the launcher's patience", |screen| {
        screen.contains("it lives on there: `pi attach here`") && screen.trim_end().ends_with("ready$")
    });
    assert!(!far.containers("agent").is_empty() && far.world.watchers().is_empty());
    far.line.cut(false);
    is_stopped(&far, &copy);
}

#[test]
fn a_launcher_whose_connections_are_lost_comes_back_by_itself() {
    let far = Far::new();
    let copy = copy("lost");
    let terminal = shell(&far, &copy, "600");
    for round in ["once", "twice"] {
        far.line.lose();
        terminal.line("clear");
        terminal.wait("the agent", |screen| screen.contains("the agent goes on, and here it is again"));
        until("a sidecar", || if far.containers("proxy").is_empty() { Err(()) } else { Ok(()) });
        terminal.insist(&["Enter"], "the shell inside", |screen| screen.lines().any(|line| line == "$"));
        asks(&terminal, round);
        terminal.line("clear");
    }
    ends(&far, &copy, &terminal);
}

#[test]
fn a_session_whose_line_is_lost_again_and_again_lives_on() {
    let far = Far::new();
    let copy = copy("again");
    let terminal = shell(&far, &copy, "600");
    let mut lost: Option<Instant> = None;
    until("the end of the launcher's patience", || {
        // Soon enough for a launcher that looks whether the agent runs, and shows it again.
        if lost.is_none_or(|then| then.elapsed() > Duration::from_secs(2)) {
            far.line.lose();
            lost = Some(Instant::now());
        }
        let screen = terminal.screen();
        if screen.contains("it lives on there: `pi attach here`") { Ok(()) } else { Err(screen) }
    });
    assert!(!far.containers("agent").is_empty());
    is_stopped(&far, &copy);
}

#[test]
fn an_agent_that_ends_meanwhile_loses_nothing() {
    let far = Far::new();
    let copy = copy("ends");
    let terminal = shell(&far, &copy, "600");
    terminal.line("sleep 8; echo after >>a; exit");
    goes_down(&far, &copy);
    until_true("the end of the agent", || far.containers("agent").is_empty());
    far.pi(&["attach"]).run().says(125, "the agent of the session `here` has ended");
    far.has_come(&copy, Some("after\n"));
    far.settled();
    far.world.assert_nothing_left();
}

#[test]
fn without_its_keys_a_session_is_not_come_back_to_and_lives_on() {
    let far = Far::new();
    let copy = copy("keys");
    let terminal = Terminal::open(&far.world);
    terminal.line(&format!("export DOCKER_CONFIG={} GROQ_API_KEY=gsk_secret; clear", far.settings.display()));
    terminal.line(&format!("pi --on far --clone={copy} --session-name here shell -- sh"));
    terminal.insist(&["Enter"], "the shell inside", |screen| screen.lines().any(|line| line == "$"));
    assert!(!far.containers("proxy").is_empty());
    goes_down(&far, &copy);
    drop(terminal);
    far.pi(&["attach"]).run().says(125, "the session `here` was started with keys, and now there are none");
    assert!(!far.containers("agent").is_empty());
    far.pi(&["stop", "here"]).run().has_code(0);
    far.pi(&["drop", &copy]).run().has_code(0);
    far.settled();
    far.world.assert_nothing_left();
}
