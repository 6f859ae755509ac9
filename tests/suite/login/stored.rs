//! What of a session that logs in comes into the live file, and what does not; docker is a script.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};

use super::{logins, text};
use crate::world::{World, fake::shell, files::write, terminal::Terminal, wait::until_true};

const OTHERS: &str =
    r#"{"mine":{"type":"api_key","key":"!op read mine"},"xai":{"type":"api_key","key":"old"}}"#;

/// Runs `pi login WORDS` in a terminal; its agent leaves `left` and stays. Returns what the terminal shows.
fn login(world: &World, words: &str, left: &str) -> String {
    let own = world.root().join("state/pi/*/sessions/*/agent/auth.json");
    let rule = format!("for own in {}; do printf %s {} >\"$own\"; done; stays", own.display(), shell(left));
    world.docker().rule("start-agent", &rule);
    let terminal = Terminal::open(world);
    terminal.line(&format!("clear; pi login {words}; echo \"code=$?\""));
    terminal.wait("the end of the login", |screen| screen.contains("code=") && !screen.contains("code=$"))
}

fn one_line(screen: &str) -> String {
    screen.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_login_that_comes_ends_its_session_and_is_merged() {
    let world = World::fake();
    write(logins(&world), OTHERS);
    let made =
        json!({"type": "oauth", "access": "tok-1", "refresh": "ref-1", "expires": 1_790_000_000_000_i64});
    let screen = login(&world, "anthropic", &json!({"anthropic": made}).to_string());
    assert!(one_line(&screen).contains("pi: logged in to Claude Pro or Max (`anthropic`)"), "{screen}");
    assert!(screen.contains("code=0") && !screen.contains("tok-1"), "{screen}");
    let now: Value = serde_json::from_str(&text(&world)).unwrap();
    let mut expected: Value = serde_json::from_str(OTHERS).unwrap();
    expected["anthropic"] = made;
    assert_eq!(now, expected);
    assert_eq!(fs::metadata(logins(&world)).unwrap().permissions().mode() & 0o777, 0o600);
    // Nothing of the user's was in the container: no repository, no other login, no key.
    let create = world.docker().called("create-agent");
    assert!(!create.words.iter().any(|word| word.contains(world.repo().to_str().unwrap())), "{create:?}");
    assert!(create.words.iter().any(|word| word == "127.0.0.1:53692:53692"), "{create:?}");
    assert!(create.words.iter().any(|word| word == "PI_OAUTH_CALLBACK_HOST=0.0.0.0"), "{create:?}");
    world.assert_nothing_left();
}

#[test]
fn a_first_login_makes_the_file() {
    let world = World::fake();
    let screen = login(&world, "", r#"{"groq":{"type":"api_key","key":"gsk-1"}}"#);
    assert!(
        one_line(&screen).contains("pi: the key for `groq` is stored") && screen.contains("code=0"),
        "{screen}"
    );
    assert_eq!(serde_json::from_str::<Value>(&text(&world)).unwrap()["groq"]["key"], "gsk-1");
    world.assert_nothing_left();
}

#[test]
fn what_is_no_login_is_refused_and_nothing_is_changed() {
    let world = World::fake();
    write(logins(&world), OTHERS);
    for (left, why) in [
        (r#"{"xai":{"type":"api_key","key":"!id"}}"#, "begins like a command"),
        (
            r#"{"xai":{"type":"api_key","key":"a"},"groq":{"type":"api_key","key":"b"}}"#,
            "2 entries instead of one",
        ),
        (
            r#"{"github-copilot":{"type":"oauth","access":"a;proxy-ep=evil.example","refresh":"r","expires":1}}"#,
            "its token leads to",
        ),
    ] {
        let screen = login(&world, "--timeout 30s", left);
        assert!(one_line(&screen).contains(why) && screen.contains("code=1"), "{why}: {screen}");
        assert_eq!(text(&world), OTHERS);
    }
    // Nor is what never came.
    let screen = login(&world, "--timeout 1s", "{}");
    assert!(one_line(&screen).contains("no login came within 1 s, so nothing was changed"), "{screen}");
    assert!(screen.contains("code=125"), "{screen}");
    assert_eq!(text(&world), OTHERS);
    world.assert_nothing_left();
}

#[test]
fn an_agent_that_ends_without_a_login_changes_nothing() {
    let world = World::fake();
    world.docker().rule("start-agent", "exits 0");
    let terminal = Terminal::open(&world);
    terminal.line("clear; pi login; echo \"code=$?\"");
    let screen = terminal.wait("the end", |screen| screen.contains("code=1"));
    assert!(one_line(&screen).contains("no login was made, so nothing was changed"), "{screen}");
    drop(terminal);
    world.assert_nothing_left();
}

#[test]
fn keys_are_stored_listed_and_removed_without_an_engine() {
    let world = World::fake();
    write(logins(&world), OTHERS);
    let key = |input: &str| world.pi(&["login", "groq", "--key"]).input(input).run();
    key("  gsk-1\n").is(0, "", "pi: the key for `groq` is stored; sessions use it from now on\n");
    for bad in ["", "!id", "a${HOME}", "a b", "a\nb"] {
        key(bad).says(125, "that is no key: ");
    }
    let list = world.pi(&["login", "--list"]).env("XAI_API_KEY", "hunter2").run();
    list.says(0, "keys in the environment: XAI_API_KEY");
    for line in [
        "anthropic            browser, or paste               -",
        "groq                 key                             key",
        "mine                 key                             key from a command",
        "xai                  device code                     key",
    ] {
        assert!(list.out.lines().any(|found| found == line), "{line}: {list:#?}");
    }
    assert!(!format!("{list:?}").contains("hunter2") && !list.out.contains("gsk-1"));
    let gone = "pi: logged out of `groq`: sessions that begin from now on do without\n";
    world.run_pi(&["logout", "groq"]).is(0, "", gone);
    world.run_pi(&["logout", "groq"]).says(125, "there is no login and no key of `groq`");
    assert_eq!(
        serde_json::from_str::<Value>(&text(&world)).unwrap(),
        serde_json::from_str::<Value>(OTHERS).unwrap()
    );
    assert!(world.docker().calls().is_empty());
}

#[test]
fn what_cannot_be_done_says_what_can() {
    let world = World::fake();
    world.run_pi(&["login", "anthropic"]).says(125, "`pi login` needs a terminal");
    world.run_pi(&["login", "claude"]).says(2, "did you mean `anthropic`?");
    world.run_pi(&["login", "--key"]).says(2, "PROVIDER");
    world.run_pi(&["login", "openai-codex", "--key"]).says(125, "takes no key");
    world.run_pi(&["login", "--timeout", "2h"]).says(2, "from `1s` to `60m`");
    world.run_pi(&["--dry-run", "login"]).says(2, "has no effect");
    write(logins(&world), "{\"a\": hunter2");
    for words in [&["login", "--list"][..], &["logout", "a"]] {
        let outcome = world.run_pi(words);
        outcome.says(125, "could not read");
        assert!(!outcome.err.contains("hunter2"), "{outcome:?}");
    }
    assert!(world.docker().calls().is_empty());
}

#[test]
fn a_newcomer_is_told_in_one_line_and_asked_once_for_each_project() {
    const LINE: &str = "no model provider has a key or a login: `pi login` makes one, or set a key such as \
                        `ANTHROPIC_API_KEY`";
    let world = World::fake();
    let pi = |words: &[&str]| world.pi(words).env_remove("LLAMA_BASE_URL");
    // Without a terminal nothing is asked, and it is told each time.
    for _ in 0..2 {
        pi(&["-p", "x"]).run().is(0, "", &format!("pi: warning: {LINE}\n"));
    }
    for words in [&["--version"][..], &["shell", "--", "true"], &["--dry-run", "-p", "x"]] {
        assert!(!pi(words).run().err.contains(LINE), "{words:?}");
    }
    pi(&["-p", "x"]).env("GROQ_API_KEY", "k").run().is(0, "", "");
    pi(&["--api-key", "k", "-p", "x"]).run().is(0, "", "");
    let terminal = Terminal::open(&world);
    let asked = |answer: &str, code: u8| {
        terminal.line("clear; env -u LLAMA_BASE_URL pi; echo \"code=$?\"");
        let screen = terminal.wait("the question", |screen| screen.contains("[y/N]"));
        // A terminal breaks lines where it likes.
        let joined = |text: &str| text.split_whitespace().collect::<String>();
        assert!(joined(&screen).contains(&joined(&format!("pi: {LINE}; start the agent"))), "{screen}");
        terminal.line(answer);
        terminal.wait("the end", |screen| screen.contains(&format!("code={code}")));
    };
    let starts = || world.docker().kinds().iter().filter(|kind| *kind == "start-agent").count();
    let before = starts();
    asked("n", 1);
    assert_eq!(starts(), before);
    asked("y", 0);
    assert_eq!(starts(), before + 1);
    // The answer is remembered, for this project.
    terminal.line("clear; env -u LLAMA_BASE_URL pi; echo \"code=$?\"");
    terminal.wait("the end", |screen| screen.contains("code=0") && !screen.contains("[y/N]"));
    pi(&["-p", "x"]).run().is(0, "", "");
    let other = world.repository("other");
    pi(&["-p", "x"]).cwd(&other).run().is(0, "", &format!("pi: warning: {LINE}\n"));
    drop(terminal);
    world.assert_nothing_left();
}

#[test]
fn a_login_that_has_expired_for_good_is_told_in_one_line() {
    let world = World::fake();
    let said = "pi: warning: the login of `anthropic` has expired and could not be renewed: `pi login anthropic` makes a \
                new one\n";
    // Without anything to renew it with, and with an agent that does not renew it.
    for refresh in ["", "r"] {
        let login = json!({"type": "oauth", "access": "t", "refresh": refresh, "expires": 1});
        write(logins(&world), json!({"anthropic": login}).to_string());
        world.run_pi(&["-p", "x"]).is(0, "", said);
    }
}

#[test]
fn the_last_sessions_end_removes_logins_where_the_settings_say_so() {
    let world = World::fake();
    let login = json!({"type": "oauth", "access": "t", "refresh": "r", "expires": 9_000_000_000_000_i64});
    let both = json!({"groq": {"type": "api_key", "key": "k"}, "anthropic": login});
    let put = || write(logins(&world), both.to_string());
    let left = || serde_json::from_str::<Value>(&text(&world)).unwrap();
    put();
    world.configure("wipe_auth = true");
    // Another session still needs them.
    world.docker().rule("start-agent", "once || return 0; stays");
    let other = world.pi(&["-p", "x"]).start();
    until_true("the other session", || world.root().join("docker/rules/start-agent.done").exists());
    world.run_pi(&["-p", "x"]).is(0, "", "");
    assert_eq!(left(), both);
    other.signal(rustix::process::Signal::TERM);
    let ended = other.wait();
    assert_eq!(ended.code, Some(143));
    assert_eq!(ended.err, "pi: removed 1 login from `auth.json`, as `wipe_auth` says\n");
    assert_eq!(left(), json!({"groq": {"type": "api_key", "key": "k"}}));
    put();
    world.configure("wipe_auth = \"all\"");
    world.run_pi(&["shell", "--", "true"]).says(0, "removed 2 entries");
    assert_eq!(left(), json!({}));
    put();
    world.configure("");
    world.run_pi(&["-p", "x"]).is(0, "", "");
    assert_eq!(left(), both);
    world.configure("wipe_auth = \"some\"");
    world.run_pi(&["-p", "x"]).says(125, "expected `true`, `false` or \"all\"");
}
