//! Addresses that a session wants to have opened; docker is a script, and so is the host's browser.

use std::{fs, path::PathBuf};

use rustix::process::Signal;

use crate::world::{
    World,
    fake::shell,
    files::write_program,
    terminal::Terminal,
    wait::{until, until_true},
};

const KNOWN: &str = "https://claude.ai/oauth/authorize?code=true&x=$(id)";
const OTHER: &str = "https://other.example/page?a=1&b=2";

/// A world whose agent asks for these addresses and stays.
fn world(lines: &[&str]) -> (World, PathBuf) {
    let world = World::fake();
    let opened = world.root().join("opened");
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$#\" \"$@\" >>{}\n", shell(opened.to_str().unwrap()));
    write_program(&world.docker().bin().join("xdg-open"), script);
    let own = world.root().join("state/pi/*/sessions/*/agent/.pi-open");
    let text = lines.join("\n") + "\n";
    let rule = format!(
        "for own in {}; do [ -e \"$own\" ] && printf %s {} >>\"$own\"; done; stays",
        own.display(),
        shell(&text)
    );
    world.docker().rule("start-agent", &rule);
    (world, opened)
}

#[test]
fn a_login_opens_its_pages_at_once_and_others_wait() {
    let long = format!("https://claude.ai/oauth/{}", "x".repeat(2000));
    let bad = ["file:///etc/passwd", "https://claude.ai/oauth/\u{1b}[0m", "--help", &long];
    let (world, opened) = world(&[&bad[..], &[OTHER, KNOWN, KNOWN]].concat());
    let terminal = Terminal::open(&world);
    terminal.line("clear; pi login anthropic; echo \"code=$?\"");
    let twice = format!("1\n{KNOWN}\n1\n{KNOWN}\n");
    let text = until("the pages", || match fs::read_to_string(&opened) {
        Ok(text) if text.len() >= twice.len() => Ok(text),
        other => Err(other),
    });
    assert_eq!(text, twice);
    world.pi(&["open"]).run().is(0, &format!("{OTHER}\n"), "");
    let nothing = "no session has asked for an address";
    world.run_pi(&["open", "--session", "login"]).says(0, nothing);
    world.run_pi(&["stop", "login"]).has_code(0);
    terminal.wait("the end", |screen| screen.contains("code=143"));
    assert_eq!(fs::read_to_string(&opened).unwrap(), twice);
    drop(terminal);
    world.assert_nothing_left();
}

#[test]
fn an_ordinary_session_asks_where_the_settings_let_it_and_the_user_decides() {
    let (world, opened) = world(&[KNOWN, OTHER]);
    world.configure("open_urls = \"ask\"");
    let pi = world.pi(&["-p", "x"]).start();
    world.docker().called("start-agent");
    let terminal = Terminal::open(&world);
    terminal.insist(&["pi open", "Enter"], "the question", |screen| screen.contains("claude.ai"));
    terminal.line("n");
    terminal
        .wait("the next question", |screen| screen.contains(OTHER) && screen.matches("[y/N]").count() == 2);
    assert!(!opened.exists());
    terminal.line("y");
    until_true("the page", || fs::read_to_string(&opened).is_ok_and(|text| text == format!("1\n{OTHER}\n")));
    drop(terminal);
    pi.signal(Signal::TERM);
    assert_eq!(pi.wait().code, Some(143));
    world.assert_nothing_left();
}

#[test]
fn a_session_can_only_show_an_address_by_default() {
    let (world, opened) = world(&[KNOWN]);
    let pi = world.pi(&["-p", "x"]).start();
    let create = world.docker().called("create-agent");
    assert!(!create.words.iter().any(|word| word.contains(".pi-open")), "{create:?}");
    world.docker().called("start-agent");
    world.run_pi(&["open"]).says(0, "no session has asked for an address");
    pi.signal(Signal::TERM);
    assert_eq!(pi.wait().code, Some(143));
    assert!(!opened.exists());
    world.assert_nothing_left();
}
