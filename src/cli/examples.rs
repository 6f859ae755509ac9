//! What help begins with.

use std::fmt::Write as _;

use clap::Command;

/// What is typed, and what it does.
type Example = (&'static str, &'static str);

/// Examples of a verb, or of the launcher itself, which has no name here.
fn of(verb: &str) -> &'static [Example] {
    match verb {
        "" => &[
            ("pi", "the agent, in this repository"),
            ("pi -p \"why does the build fail\"", "one question, one answer"),
            ("pi --proxy --allow api.example.com", "only the hosts that you list"),
            ("pi --clone", "on a copy; then `pi diff` and `pi apply`"),
            ("pi login", "log in to a model provider"),
            ("pi doctor", "what is missing, and what to do about it"),
        ],
        "shell" => &[
            ("pi shell", "look around where the agent would be"),
            ("pi --proxy shell -- npm test", "run a command there, restricted"),
            ("pi shell --session NAME", "enter a running session"),
        ],
        "build" => &[
            ("pi --lang go build", "the image with Go, if it is missing"),
            ("pi --build build --all", "renew the images of all variants"),
            ("pi build --check", "is there a newer agent?"),
            ("pi build --sbom >sbom.json", "what is in the images"),
        ],
        "login" => &[
            ("pi login anthropic", "in the browser"),
            ("pi login --key openai", "store a key"),
            ("pi login --list", "show what is there"),
        ],
        "logout" => &[("pi logout anthropic", "remove that login")],
        "open" => &[("pi open", "look at the addresses one by one")],
        "demo" => &[("pi demo", "a scripted agent tries the walls")],
        "doctor" => &[
            ("pi doctor", "what is missing, and what to do about it"),
            ("pi doctor --prove", "attack throw-away sessions on this machine"),
            ("pi doctor --ask", "ask each provider whether it takes your key"),
        ],
        "allow" => &[
            ("pi allow api.example.com", "in the session of this repository"),
            ("pi allow --save example.com", "and in the file that it uses"),
        ],
        "blocked" => {
            &[("pi blocked", "what was refused"), ("pi blocked --save", "put it into the allowlist")]
        }
        "check" => &[("pi check https://api.example.com", "allowed or not, and by which line")],
        "ps" => &[("pi ps", "the running sessions"), ("pi ps --all", "and copies, and subagents")],
        "logs" => &[("pi logs", "of the session here, or the last one"), ("pi logs --follow", "go on")],
        "attach" => &[
            ("pi attach", "the only one, when the line to its engine is back"),
            ("pi attach NAME", "one of several, which `pi ps` lists"),
        ],
        "stop" => &[("pi stop NAME", "one session"), ("pi stop --all", "every session")],
        "diff" => &[
            ("pi diff", "what the agent has changed in its copy"),
            ("pi diff --risky", "what it has left that runs on this machine"),
        ],
        "batch" => &[
            ("pi batch tasks", "a session on a copy for each line"),
            ("pi --proxy batch tasks --jobs 2", "restricted, two at a time"),
        ],
        "apply" => &[("pi apply", "what `pi diff` has shown last")],
        "drop" => &[("pi drop copy", "the branch `pi/copy` stays")],
        "clean" => &[
            ("pi clean", "what dead sessions have left"),
            ("pi --dry-run clean", "only say what there is"),
            ("pi clean --caches --older-than 30d", "and caches that nobody uses"),
        ],
        "models" => &[
            ("pi models ollama enable", "use Ollama's models"),
            ("pi models add-server http://localhost:1234", "use another server"),
            ("pi models status", "which are in use, and answer"),
        ],
        "completions" => &[("source <(pi completions bash)", "in `~/.bashrc`")],
        "man" => &[("pi man | man -l -", "read it")],
        _ => &[],
    }
}

/// The lines of the examples of a verb, or of the launcher itself.
pub(crate) fn lines(verb: &str) -> String {
    let all = of(verb);
    let width = all.iter().map(|(typed, _)| typed.len()).max().unwrap_or_default();
    all.iter().fold(String::new(), |mut text, (typed, does)| {
        let _ = writeln!(text, "  {typed:<width$}  {does}");
        text
    })
}

/// The grammar with its examples.
pub(super) fn shown(grammar: Command) -> Command {
    let names: Vec<String> = grammar.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    names
        .iter()
        .fold(first(grammar, ""), |grammar, name| grammar.mut_subcommand(name, |verb| first(verb, name)))
}

fn first(command: Command, name: &str) -> Command {
    let examples = lines(name);
    if examples.is_empty() {
        return command;
    }
    command.help_template(format!(
        "{{about-with-newline}}\nExamples:\n{examples}\n{{usage-heading}} {{usage}}\n\n{{all-args}}{{after-help}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_verb_begins_with_examples_that_are_typed_right() {
        let grammar = Cli::grammar();
        let verbs = grammar.get_subcommands().filter(|verb| !verb.is_hide_set()).map(Command::get_name);
        for verb in verbs.chain([""]) {
            assert!(!of(verb).is_empty(), "{verb}");
            for line in lines(verb).lines() {
                assert!(line.len() < 80 && !line.contains(['{', '}']), "{line}");
            }
            for (typed, _) in of(verb) {
                let typed = typed.trim_start_matches("source <(").split([')', '|', '>']).next().unwrap();
                let words = typed.replace("\"why does the build fail\"", "why");
                let words = words.split_whitespace().skip(1).map(Into::into);
                assert!(Cli::parse(words).is_ok(), "{typed}");
            }
        }
    }
}
