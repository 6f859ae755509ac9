//! The agent in a terminal.

use std::fs;

use crate::world::{World, files::write, terminal::Terminal};

/// Starts the agent in a terminal and waits until it takes input.
fn agent_in<'a>(world: &'a World, words: &str) -> Terminal<'a> {
    let terminal = Terminal::open(world);
    terminal.line(&format!("pi --model demo/echo {words}"));
    terminal.wait("the agent's status line", |screen| screen.contains("/128k"));
    terminal
}

/// Ends the agent as a person would, and waits for the shell.
fn leave(terminal: &Terminal<'_>) {
    // Two of them in short order, which a busy machine may fail to deliver.
    terminal.insist(&["C-c", "C-c"], "the shell's prompt", |screen| screen.trim_end().ends_with("ready$"));
}

#[test]
fn the_agents_terminal_is_a_real_one() {
    let world = World::with_model();
    let terminal = agent_in(&world, "");
    assert!(terminal.colours().contains("\u{1b}[38;"), "no colours: {:?}", terminal.colours());
    terminal.text("typed words");
    terminal.wait("what was typed", |screen| screen.contains("typed words"));
    // An agent which is still starting gives the words back.
    terminal.insist(&["Enter"], "the answer", |screen| screen.matches("typed words").count() == 2);
    // Ctrl-P is the agent's key for the next model, and docker's for detaching.
    terminal.keys(&["C-p"]);
    terminal.wait("the next model", |screen| screen.contains("slow"));
    // Ctrl-Z would put the agent to sleep with nobody to wake it.
    terminal.keys(&["C-z"]);
    terminal
        .insist(&["a", "w", "a", "k", "e"], "what was typed after Ctrl-Z", |screen| screen.contains("awake"));
    // A wider terminal is drawn on to its edge.
    let rule = |screen: &str| screen.lines().map(|line| line.matches('─').count()).max().unwrap_or(0);
    assert_eq!(rule(&terminal.screen()), 100);
    terminal.resize(70, 24);
    terminal.wait("a narrower frame", |screen| rule(screen) == 70);
    leave(&terminal);
    // Raw mode is over: what is typed is echoed and lines end.
    terminal.line("stty -a | grep -o ' -\\?icanon\\| -\\?echo\\b' | xargs; echo status $?");
    terminal.wait("a terminal as it was", |screen| screen.contains("icanon echo"));
    let modes = "#{cursor_flag} #{alternate_on} #{mouse_any_flag} #{keypad_cursor_flag}";
    assert_eq!(terminal.ask(modes), "1 0 0 0\n", "cursor, alternate screen, mouse, cursor keys");
}

#[test]
fn a_paste_of_two_lines_is_one_input() {
    let world = World::with_model();
    let terminal = agent_in(&world, "");
    terminal.paste("line one\nline two");
    terminal.wait("both lines", |screen| screen.contains("line one") && screen.contains("line two"));
    // One question, one answer, in both of which the lines stand one below the other.
    let screen = terminal.insist(&["Enter"], "the answer", |screen| screen.matches("line two").count() == 2);
    assert_eq!(screen.matches("line one").count(), 2, "{screen}");
    let sessions = world.home().join(".pi/agent/sessions");
    let file = fs::read_dir(sessions).unwrap().next().unwrap().unwrap().path();
    let file = fs::read_dir(file).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(file).unwrap();
    assert_eq!(text.matches("\"role\":\"user\"").count(), 1, "{text}");
    leave(&terminal);
}

#[test]
fn a_prompt_on_the_command_line_is_answered_in_the_terminal() {
    let world = World::with_model();
    let terminal = agent_in(&world, "'a first question'");
    // Once as it was typed to the shell, once as the question, once as the answer.
    terminal.wait("the answer", |screen| screen.matches("a first question").count() == 3);
    leave(&terminal);
}

#[test]
fn in_a_terminal_the_output_may_go_elsewhere_and_a_shell_follows_its_size() {
    let world = World::with_model();
    let terminal = Terminal::open(&world);
    // An open stdin would keep the agent waiting for ever.
    terminal.line("pi -p --model demo/echo 'to a file' >out; echo status $?");
    terminal.wait("the end", |screen| screen.contains("status 0"));
    assert_eq!(fs::read_to_string(world.repo().join("out")).unwrap(), "to a file\n");
    // Docker's client tells the size a moment after the start.
    let sized = "until [ \"$(stty size)\" != \"0 0\" ]; do sleep 0.01; done";
    terminal.line(&format!(
        "clear; pi shell -- sh -c '{sized}; stty size; read x; stty size; test -t 0 && test -t 1 && echo both'"
    ));
    terminal.wait("the size", |screen| screen.contains("30 100"));
    terminal.resize(80, 25);
    // The new size travels by a signal, so it is asked for until it has arrived.
    terminal.keys(&["Enter"]);
    terminal.wait("the end", |screen| screen.contains("both") && screen.trim_end().ends_with("ready$"));
    terminal.line(
        "clear; pi shell -- sh -c 'until [ \"$(stty size)\" = \"26 90\" ]; do sleep 0.1; done; echo arrived'",
    );
    terminal.resize(90, 26);
    terminal.wait("the new size", |screen| {
        screen.lines().any(|line| line.trim() == "arrived") && screen.trim_end().ends_with("ready$")
    });
}

/// Turns everything on, asks the terminal questions whose answers nobody reads, and is killed.
const DIES: &str = r"printf '\033[?1049h\033[?1003h\033[?1006h\033[?2004h\033[?1h\033=\033[?25l\033[>1u\033[4h\033[2;5r\033[31m'
stty raw -echo; printf '\033[c\033[>c\033[6n\033[c'; kill -9 $$";

#[test]
fn a_killed_agent_leaves_the_terminal_as_it_was() {
    let world = World::with_model();
    write(world.repo().join("dies"), DIES);
    let terminal = Terminal::open(&world);
    let modes = "#{cursor_flag} #{alternate_on} #{mouse_any_flag} #{keypad_cursor_flag} #{keypad_flag} #{insert_flag} \
                 #{scroll_region_upper}-#{scroll_region_lower}";
    let before = terminal.ask(modes);
    terminal.line("sh dies; echo end; exec sh -i");
    // The control: without `pi`, they stay on.
    terminal.wait("the modes", |_| terminal.ask(modes) != before);
    drop(terminal);
    let terminal = Terminal::open(&world);
    terminal.line("echo above; pi shell -- sh dies; echo status $?");
    let screen = terminal
        .wait("the end", |screen| screen.contains("status 137") && screen.trim_end().ends_with("ready$"));
    assert_eq!(terminal.ask(modes), before, "{screen}");
    assert!(screen.contains("above") && !screen.contains(";1c") && !screen.contains("0n"), "{screen}");
    // What is typed is echoed, and a paste is not marked as one.
    terminal.paste("echo pasted");
    terminal.keys(&["Enter"]);
    let screen = terminal.wait("a paste", |screen| screen.matches("pasted").count() == 2);
    assert!(!screen.contains("200~"), "{screen}");
}
