//! Whole logins with the real agent.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use serde_json::Value;

use super::{PORTS, text};
use crate::world::{World, files::write_program, terminal::Terminal, wait::until};

/// The agent's dialog, by words that it shows whatever its version.
fn is_dialog(screen: &str, provider: &str) -> bool {
    screen.contains(&format!("Login to {provider}"))
}

#[test]
fn a_key_that_is_typed_into_the_agent_is_stored_and_the_session_ends() {
    let world = World::with_model();
    let terminal = Terminal::open(&world);
    terminal.line("pi login groq; echo \"code=$?\"");
    terminal.wait("the agent's dialog", |screen| is_dialog(screen, "Groq"));
    terminal.text("gsk-typed");
    terminal.keys(&["Enter"]);
    let screen = terminal.wait("the end of the login", |screen| screen.contains("code=0"));
    assert!(screen.contains("pi: the key for `groq` is stored"), "{screen}");
    let stored: Value = serde_json::from_str(&text(&world)).unwrap();
    assert_eq!(stored["groq"]["key"], "gsk-typed");
    // The terminal is as it was.
    terminal.line("clear; stty -a | grep -o ' echo '; echo \"again $((1+1))\"");
    terminal.wait("an ordinary terminal", |screen| screen.contains(" echo\nagain 2"));
    drop(terminal);
    world.assert_nothing_left();
}

/// What a browser would get.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}

#[test]
fn the_browsers_answer_reaches_the_agent_on_a_port_that_only_this_machine_has() {
    const PORT: u16 = 53692;
    let _ports = PORTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let world = World::with_model();
    let terminal = Terminal::open(&world);
    let opened = world.root().join("opened");
    let browser = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >>{}\n", opened.display());
    write_program(&world.root().join("browser/xdg-open"), browser);
    terminal.line(&format!(
        "PATH={}:$PATH pi login anthropic; echo \"code=$?\"",
        world.root().join("browser").display()
    ));
    terminal.wait("the agent's question", |screen| screen.contains("Sign in with an account"));
    terminal.insist(&["Enter"], "the agent's dialog", |screen| is_dialog(screen, "Anthropic"));
    let answer = until("the agent's answer", || get(PORT, "/callback?code=x&state=y").ok_or(()));
    assert!(answer.contains("State mismatch"), "{answer}");
    // The page that the agent wants to have opened is open on the host, as one word.
    let page = until("the page", || {
        let text = std::fs::read_to_string(&opened).unwrap_or_default();
        if text.ends_with('\n') { Ok(text) } else { Err(text) }
    });
    assert!(page.starts_with("https://claude.ai/oauth/authorize?") && page.lines().count() == 1, "{page}");
    let published = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{PORT:04X} ");
    let listeners: Vec<&str> =
        published.lines().filter(|line| line.contains(&port) && line.contains(" 0A ")).collect();
    assert!(listeners.iter().all(|line| line.contains(&format!(" 0100007F{port}"))), "{listeners:?}");
    world.run_pi(&["stop", "login"]).has_code(0);
    terminal.wait("the end", |screen| screen.contains("code=143"));
    assert!(["", "{}"].contains(&text(&world).trim()));
    assert!(get(PORT, "/").is_none());
    drop(terminal);
    world.assert_nothing_left();
}

#[test]
fn a_port_that_is_taken_leaves_another_way() {
    let _ports = PORTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let world = World::with_model();
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 1455)).unwrap();
    let terminal = Terminal::open(&world);
    terminal.line("pi login openai-codex; echo \"code=$?\"");
    let screen = terminal.wait("the agent's question", |screen| screen.contains("Device code login"));
    assert!(screen.contains("port 1455 of this machine is taken"), "{screen}");
    world.run_pi(&["stop", "login"]).has_code(0);
    terminal.wait("the end", |screen| screen.contains("code=143"));
    drop(terminal);
    world.assert_nothing_left();
}

#[test]
fn a_session_says_where_logins_are_made_when_there_is_no_model_and_when_one_is_to_be_made_there() {
    let world = World::with_model();
    std::fs::remove_file(world.agent_dir().join("models.json")).unwrap();
    let terminal = Terminal::open(&world);
    terminal.line("clear; pi; echo \"code=$?\"");
    terminal.wait("the question", |screen| screen.contains("[y/N]"));
    terminal.line("y");
    let joined = |screen: &str| screen.split_whitespace().collect::<Vec<_>>().join(" ");
    terminal.wait("where logins are made", |screen| {
        joined(screen).contains("There is no model yet. Logins are kept outside")
    });
    for typed in ["/login", "/login groq", "/logo"] {
        let before = joined(&terminal.screen()).matches("Logins are kept outside").count();
        terminal.text(typed);
        terminal.wait("what was typed", |screen| screen.contains(typed));
        terminal.keys(&["Enter"]);
        let screen = terminal
            .wait("the answer", |screen| joined(screen).matches("Logins are kept outside").count() > before);
        assert!(!screen.contains("Login to"), "{screen}");
    }
    terminal.keys(&["C-d"]);
    terminal.wait("the end", |screen| screen.contains("code=0"));
    drop(terminal);
    world.assert_nothing_left();
}
