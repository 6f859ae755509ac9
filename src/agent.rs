//! The agent's command line and environment, which only this module knows.
//!
//! The tables describe the agent from 0.87 to 1.5. An older agent reports a flag that it does not know by itself.

pub(crate) mod login;
mod variable;

use std::{ffi::OsStr, iter, sync::LazyLock};

pub(crate) use self::variable::{CREDENTIAL_PATHS, PASS, SECRETS, SETTINGS, unfit};

/// How many words follow a flag as its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    /// The flag stands alone.
    None,
    /// The next word is the value, even if it looks like a flag.
    One,
    /// The next word is the value unless it begins with `-` or `@`.
    Optional,
}

/// One flag of the agent, under all its names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    /// The long name first. The agent knows neither `--name=value` nor `-xy` for `-x -y`.
    names: Vec<&'static str>,
    pub(crate) arity: Arity,
}

impl Flag {
    /// Reads a line of [`HELP`].
    fn read(line: &'static str) -> Self {
        let names: Vec<_> = line.split([' ', ',']).filter(|word| word.starts_with('-')).collect();
        let arity = match line.find(['<', '[']).map(|at| &line[at..=at]) {
            Some("<") => Arity::One,
            Some(_) => Arity::Optional,
            // The help shows no value here, but the next word is always the prompt.
            None if names[0] == "--print" => Arity::Optional,
            None => Arity::None,
        };
        Self { names, arity }
    }
}

/// Every flag of the agent. Flags of extensions are missing: they need `--`.
static FLAGS: LazyLock<Vec<Flag>> = LazyLock::new(|| HELP.lines().map(Flag::read).collect());

/// The left column of the options in the help of the agent's 1.5.2.
const HELP: &str = "\
--provider <name>
--model <pattern>
--api-key <key>
--system-prompt <text>
--append-system-prompt <text>
--mode <mode>
--print, -p
--continue, -c
--resume, -r
--session <path|id>
--session-id <id>
--fork <path|id>
--session-dir <dir>
--no-session
--name, -n <name>
--models <patterns>
--no-tools, -nt
--no-builtin-tools, -nbt
--tools, -t <tools>
--exclude-tools, -xt <tools>
--thinking <level>
--extension, -e <path>
--no-extensions, -ne
--no-mcp
--skill <path>
--no-skills, -ns
--prompt-template <path>
--no-prompt-templates, -np
--theme <path>
--use-theme <name[/name]>
--no-themes
--no-context-files, -nc
--export <file> [output]
--list-models [search]
--verbose
--tui-mode <mode>
--approve, -a
--no-approve, -na
--offline
--help, -h
--version, -v";

/// The agent's own commands, of all versions. A command must be the very first word: after a flag it is a prompt.
pub(crate) const COMMANDS: &[&str] =
    &["install", "remove", "uninstall", "update", "list", "config", "auth", "mcp"];

/// The commands of the agent of this version. The image is proven to have the version of the settings when it is built, and
/// a test compares this with what the agent says there. So no start has to ask.
pub(crate) fn commands(version: &str) -> impl Iterator<Item = &'static str> {
    // A version without numbers, such as a tag, is newer.
    let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    let is_old = matches!(numbers[..], [0, minor, ..] if minor < 99);
    COMMANDS.iter().copied().filter(move |name| !(is_old && *name == "mcp"))
}

/// The command of a newer agent that these few words most likely mean: to this one they would be a prompt.
pub(crate) fn newer_command<'a>(args: &'a [String], version: &str) -> Option<&'a str> {
    let ([first] | [first, _]) = args else { return None };
    let is_newer = COMMANDS.contains(&first.as_str()) && !commands(version).any(|name| name == first);
    is_newer.then_some(first)
}

/// With these flags the agent answers a question and ends, without a session.
const ANSWERED: &[&str] = &["--help", "--version", "--list-models", "--export"];

/// The agent's flag of this name. Like the agent, it does not take `--model=x` for a flag.
pub(crate) fn flag(arg: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.names.contains(&arg))
}

/// The flag of the agent or of `also` that the user most likely meant by `arg`.
///
/// Dashes and a value after `=` do not count. Names of one or two letters are never guessed: each is near to every
/// other.
pub(crate) fn nearest<'a>(arg: &str, also: &[&'a str]) -> Option<&'a str> {
    let meant = bare(arg).to_lowercase();
    let length = meant.chars().count();
    if length < 3 {
        return None;
    }
    let names = || FLAGS.iter().flat_map(|flag| &flag.names).chain(also).copied();
    names()
        .filter(|name| bare(name).len() >= 3)
        .map(|name| (strsim::osa_distance(&meant, bare(name)), name))
        .filter(|(distance, _)| *distance <= length.div_ceil(3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
        .or_else(|| names().find(|name| bare(name).starts_with(&meant)))
}

/// The command of the agent that `args` begin with, if this version knows it.
fn command<S: AsRef<OsStr>>(args: &[S], version: &str) -> Option<&'static str> {
    let first = args.first()?.as_ref();
    commands(version).find(|name| first == *name)
}

/// Whether `args` change the agent's own set-up. With `--local` they change a project's.
pub(crate) fn changes_its_setup(args: &[String], version: &str) -> bool {
    let changes = match command(args, version) {
        Some("install" | "remove" | "uninstall" | "update" | "config") => true,
        Some("mcp") => args.get(1).is_some_and(|word| word != "list"),
        _ => false,
    };
    changes && !args.iter().any(|arg| arg == "-l" || arg == "--local")
}

/// Whether `args` ask the agent to update itself, which is a part of the image.
pub(crate) fn updates_itself(args: &[String]) -> bool {
    let [command, words @ ..] = args else { return false };
    let is_own = |word: &String| matches!(word.as_str(), "self" | "pi" | "--self" | "--all" | "--force");
    let others = |word: &String| !matches!(word.as_str(), "-a" | "--approve" | "-na" | "--no-approve");
    command == "update" && (words.iter().any(is_own) || !words.iter().any(others))
}

/// Whether `args` install or remove something from a directory. Anything else is fetched.
pub(crate) fn names_a_path(args: &[String]) -> bool {
    const FETCHED: [&str; 6] = ["npm:", "git:", "http://", "https://", "ssh://", "builtin:"];
    let [command, sources @ ..] = args else { return false };
    let is_path =
        |word: &String| !word.starts_with('-') && !FETCHED.iter().any(|kind| word.starts_with(kind));
    matches!(command.as_str(), "install" | "remove" | "uninstall") && sources.iter().any(is_path)
}

/// Files with instructions for the model, of which the agent takes the first in each directory.
pub(crate) const INSTRUCTIONS: [&str; 5] =
    ["AGENTS.override.md", "AGENTS.md", "AGENTS.MD", "CLAUDE.md", "CLAUDE.MD"];

/// Where a project has extensions.
pub(crate) const PROJECT_EXTENSIONS: &str = ".pi/extensions";

/// Whether `args` have this flag, under any of its names.
pub(crate) fn has_flag<S: AsRef<OsStr>>(args: &[S], name: &str) -> bool {
    options(args).any(|flag| flag.names[0] == name)
}

/// Makes a set-up command ignore the repository's own settings and extensions.
pub(crate) const WITHOUT_PROJECT: &str = "--no-approve";

/// Whether `args` start a session, so that `--append-system-prompt` may stand before them.
pub(crate) fn runs_a_model<S: AsRef<OsStr>>(args: &[S], version: &str) -> bool {
    command(args, version).is_none() && !options(args).any(|flag| ANSWERED.contains(&flag.names[0]))
}

/// The flags in `args`, without their values, as the agent reads them.
///
/// A word that is not UTF-8 is never a flag, but it can be a value.
fn options<S: AsRef<OsStr>>(args: &[S]) -> impl Iterator<Item = &'static Flag> {
    let words = args.iter().map(|word| word.as_ref().to_str().unwrap_or_default());
    let mut words = words.peekable();
    iter::from_fn(move || {
        loop {
            let word = words.next()?;
            if word == "--" {
                return None;
            }
            if let Some(flag) = flag(word) {
                match flag.arity {
                    Arity::None => None,
                    Arity::One => words.next(),
                    Arity::Optional => words.next_if(|next| !next.starts_with(['-', '@'])),
                };
                return Some(flag);
            }
        }
    })
}

/// A flag's name without its dashes and without a value.
fn bare(name: &str) -> &str {
    let name = name.trim_start_matches('-');
    name.split_once('=').map_or(name, |(name, _)| name)
}

#[cfg(test)]
mod tests;
