//! Splits the command line into the launcher's words and the agent's.

use std::ffi::OsString;

use clap::CommandFactory as _;

use super::Parsed;
use crate::{agent, report::Hinted};

/// The command line in parts: clap parses all of them but `agent`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) options: Vec<OsString>,
    pub(super) verb: Option<String>,
    pub(super) verb_args: Vec<OsString>,
    pub(super) agent: Vec<OsString>,
    pub(super) version: bool,
}

impl Split {
    pub(super) fn of(args: Vec<OsString>) -> anyhow::Result<Self> {
        let grammar = Parsed::command();
        let mut split = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let text = arg.to_string_lossy().into_owned();
            if text == "--" {
                if split.verb.is_some() {
                    split.verb_args.push(arg);
                    split.verb_args.extend(args);
                } else {
                    split.agent.extend(args);
                }
                return Ok(split);
            }
            let verb = split.verb.as_deref().and_then(|verb| grammar.find_subcommand(verb));
            if let Some(option) = verb.and_then(|verb| option_of(verb, &text)) {
                split.verb_args.push(arg);
                if takes_next(option, &text) {
                    split.verb_args.extend(args.next());
                }
            } else if let Some(option) = option_of(&grammar, &text) {
                split.options.push(arg);
                if takes_next(option, &text) {
                    let value = args.next().ok_or_else(|| {
                        Hinted::usage_hinted(format!("`{text}` needs a value"), "see `pi --help`")
                    })?;
                    split.options.push(value);
                }
            } else if split.verb.is_some() || matches!(text.as_str(), "-h" | "--help") {
                split.verb_args.push(arg);
            } else if matches!(text.as_str(), "-v" | "-V" | "--version") {
                split.version = true;
            } else if grammar.find_subcommand(&text).is_some() {
                split.verb = Some(text);
            } else {
                split.agent = std::iter::once(arg).chain(args).collect();
                if let Some(verb) = asks_for_help(&split.agent, &grammar) {
                    split.agent.clear();
                    split.verb = verb;
                    split.verb_args.push("--help".into());
                    return Ok(split);
                }
                check_lone_word(&split.agent, &grammar)?;
                if !agent::COMMANDS.contains(&text.as_str()) {
                    check_agent_words(&split.agent, &grammar)?;
                }
                return Ok(split);
            }
        }
        Ok(split)
    }
}

/// The launcher's options at the beginning of a line, and the rest of it. `--` ends them.
pub(crate) fn leading_options(line: &str) -> (Vec<String>, &str) {
    let grammar = Parsed::command();
    let (mut options, mut rest) = (vec![], line.trim());
    loop {
        let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if word == "--" {
            return (options, behind.trim_start());
        }
        let Some(option) = option_of(&grammar, word) else { return (options, rest) };
        options.push(word.to_owned());
        rest = behind.trim_start();
        if takes_next(option, word) {
            let (value, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            options.push(value.to_owned());
            rest = behind.trim_start();
        }
    }
}

/// Whether the words are `help` or `help VERB`, and which verb that is.
#[expect(clippy::option_option, reason = "help is for one verb, for the launcher, or not wanted")]
fn asks_for_help(words: &[OsString], grammar: &clap::Command) -> Option<Option<String>> {
    match words {
        [help] if help == "help" => Some(None),
        [help, verb] if help == "help" => {
            let verb = verb.to_str().filter(|verb| grammar.find_subcommand(verb).is_some())?;
            Some(Some(verb.to_owned()))
        }
        _ => None,
    }
}

/// What people type to other programs, and what it is called here.
const ELSEWHERE: [(&str, &str); 8] = [
    ("version", "pi --version"),
    ("upgrade", "pi --build"),
    ("exec", "pi shell --session NAME -- COMMAND"),
    ("run", "pi PROMPT"),
    ("start", "pi"),
    ("attach", "pi shell --session NAME"),
    ("kill", "pi stop NAME"),
    ("log", "pi logs"),
];

/// Refuses a single word, or `help` and a word, that is no verb but close to one: as a prompt it would go to a paid model.
fn check_lone_word(words: &[OsString], grammar: &clap::Command) -> anyhow::Result<()> {
    let (word, asks) = match words {
        [word] => (word, false),
        [help, word] if help == "help" => (word, true),
        _ => return Ok(()),
    };
    let Some(word) = word.to_str().filter(|word| word.len() > 2 && !word.contains(char::is_whitespace))
    else {
        return Ok(());
    };
    if asks && agent::COMMANDS.contains(&word) {
        return Err(Hinted::usage_hinted(
            format!("`{word}` is the agent's own command"),
            format!("`pi {word} --help` shows its help"),
        ));
    }
    let own = grammar.get_subcommands().map(clap::Command::get_name).chain(agent::COMMANDS.iter().copied());
    let mut own = own.filter(|verb| *verb != word);
    let most = if word.len() < 5 { 1 } else { 2 };
    let meant = ELSEWHERE.iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| (*ours).to_owned());
    let meant = meant.or_else(|| {
        let near = own.find(|verb| verb.len() > 2 && strsim::osa_distance(word, verb) <= most)?;
        Some(format!("pi {near}"))
    });
    match meant {
        Some(meant) if !agent::COMMANDS.contains(&word) => Err(Hinted::usage_hinted(
            format!("`{word}` is no verb of `pi`"),
            format!(
                "did you mean `{meant}`? To say it to the agent, write `pi -- {}{word}`",
                if asks { "help " } else { "" }
            ),
        )),
        _ => Ok(()),
    }
}

/// The option that `text` names as `--name` or `--name=value`.
fn option_of<'a>(grammar: &'a clap::Command, text: &str) -> Option<&'a clap::Arg> {
    let name = text.strip_prefix("--")?.split('=').next()?;
    grammar.get_arguments().find(|arg| arg.get_long() == Some(name))
}

fn takes_next(option: &clap::Arg, text: &str) -> bool {
    option.get_action().takes_values() && !option.is_require_equals_set() && !text.contains('=')
}

/// Refuses unknown flags and options of the launcher among the words for the agent: `pi "fix it" --proxy` must not start
/// without the proxy.
fn check_agent_words(words: &[OsString], grammar: &clap::Command) -> anyhow::Result<()> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == "--" {
            return Ok(());
        }
        if text.len() < 2 || !text.starts_with('-') {
            continue;
        }
        match agent::flag(&text) {
            Some(flag) if flag.arity == agent::Arity::One && !text.contains('=') => {
                words.next();
            }
            Some(_) => {}
            None if option_of(grammar, &text).is_some() => {
                let option = text.split('=').next().unwrap_or(&text);
                return Err(Hinted::usage_hinted(
                    format!(
                        "`{option}` comes after the first word for the agent, so it would have no effect"
                    ),
                    format!("write `pi {option} …`, with the words for the agent last"),
                ));
            }
            None => return Err(unknown_flag(&text, grammar)),
        }
    }
    Ok(())
}

fn unknown_flag(text: &str, grammar: &clap::Command) -> anyhow::Error {
    let name = text.split('=').next().unwrap_or(text);
    let own: Vec<String> =
        grammar.get_arguments().filter_map(clap::Arg::get_long).map(|long| format!("--{long}")).collect();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let force = format!("to pass it to the agent anyway, write `pi -- {name}`");
    if let Some((flag, value)) = text.split_once('=')
        && agent::flag(flag).is_some()
    {
        return Hinted::usage_hinted(
            format!("the agent expects the value of `{flag}` as the next word"),
            format!("write `{flag} {value}`"),
        );
    }
    Hinted::usage_hinted(
        format!("neither the launcher nor the agent knows the flag `{name}`"),
        match agent::nearest(name, &own) {
            Some(near) => format!("did you mean `{near}`? {force}"),
            None => force,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(args: &[&str]) -> Split {
        Split::of(args.iter().map(OsString::from).collect()).unwrap()
    }

    #[test]
    fn flags_of_the_agent_need_no_dashes() {
        let line = split(&["--proxy", "--lang", "go", "-p", "--model", "--proxy", "fix it"]);
        assert_eq!(line.options, ["--proxy", "--lang", "go"]);
        assert_eq!(line.agent, ["-p", "--model", "--proxy", "fix it"]);
    }

    #[test]
    fn everything_after_the_dashes_is_the_agents() {
        assert_eq!(split(&["--", "--proxy", "--nonsense"]).agent, ["--proxy", "--nonsense"]);
        assert_eq!(split(&["-p", "--", "- a list"]).agent, ["-p", "--", "- a list"]);
    }

    #[test]
    fn shell_takes_options_on_both_sides() {
        let line = split(&["--proxy", "shell", "--lang", "go", "--", "go", "--version"]);
        assert_eq!(line.options, ["--proxy", "--lang", "go"]);
        assert_eq!(line.verb_args, ["--", "go", "--version"]);
    }

    #[test]
    fn a_command_of_the_agent_is_passed_verbatim() {
        assert_eq!(split(&["install", "npm:x", "--proxy"]).agent, ["install", "npm:x", "--proxy"]);
    }

    #[test]
    fn a_single_word_that_is_close_to_a_verb_is_no_prompt() {
        let parse = |args: &[&str]| Split::of(args.iter().map(OsString::from).collect());
        for (word, meant) in [("sehll", "pi shell"), ("version", "pi --version"), ("stopp", "pi stop")] {
            let error = parse(&[word]).unwrap_err();
            let hint = error.downcast_ref::<Hinted>().and_then(Hinted::hint).unwrap_or_default().to_owned();
            assert!(hint.starts_with(&format!("did you mean `{meant}`?")), "{word}: {hint}");
        }
        for words in [&["explain"][..], &["hi"], &["sehll the world"], &["sehll", "it"], &["list"]] {
            assert_eq!(split(words).agent, words, "{words:?}");
        }
        assert_eq!(split(&["--", "sehll"]).agent, ["sehll"]);
    }

    #[test]
    fn help_is_help() {
        assert_eq!(split(&["help"]).verb_args, ["--help"]);
        let of_verb = split(&["help", "allow"]);
        assert_eq!((of_verb.verb.as_deref(), of_verb.verb_args), (Some("allow"), vec!["--help".into()]));
        assert_eq!(split(&["help", "me"]).agent, ["help", "me"]);
    }
}
