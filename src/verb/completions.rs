//! `pi completions SHELL`: a script for a shell, which asks `pi` itself for the words that fit.

use std::{ffi::OsString, path::Path};

use anyhow::Context as _;
use clap::Command;
use clap_complete::{
    ArgValueCandidates, CompleteEnv, CompletionCandidate, Shell,
    env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh},
};

use crate::{
    agent,
    cli::{Cli, Options},
    config::Config,
    host::Host,
    record::{self, Live},
    report,
};

/// With this variable, `pi` answers a shell's question instead of doing anything.
const VARIABLE: &str = "PI_BOX_COMPLETE";

/// Prints completions for a shell.
pub(crate) fn run(shell: Shell) -> anyhow::Result<u8> {
    report::data(script(shell)?).map(|()| 0)
}

fn script(shell: Shell) -> anyhow::Result<String> {
    let writer: &dyn EnvCompleter = match shell {
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::PowerShell => &Powershell,
        Shell::Zsh => &Zsh,
        _ => &Bash,
    };
    let mut script = Vec::new();
    writer
        .write_registration(VARIABLE, "pi", "pi", "pi", &mut script)
        .context("could not write completions")?;
    String::from_utf8(script).context("could not write completions")
}

/// Answers a shell's question for words. False if none asked.
///
/// # Errors
/// The shell asks what cannot be understood.
pub(crate) fn answer(args: impl Iterator<Item = OsString>, cwd: Option<&Path>) -> anyhow::Result<bool> {
    Ok(CompleteEnv::with_factory(grammar).var(VARIABLE).bin("pi").completer("pi").try_complete(args, cwd)?)
}

/// The grammar, with the own commands of the agent that the settings name, and with the running sessions where one is to be named.
fn grammar() -> Command {
    let config = Host::read().and_then(|host| Config::load(&Options::default(), &host, None));
    let version = config.map(|config| config.images.agent_version).unwrap_or_default();
    let own = agent::commands(&version).map(|name| Command::new(name).about("The agent's own command"));
    let verbs = ["shell", "allow", "blocked", "logs", "stop"];
    let lost = ArgValueCandidates::new(lost);
    let grammar =
        Cli::grammar().mut_subcommand("attach", |verb| verb.mut_arg("session", |arg| arg.add(lost)));
    verbs.iter().fold(grammar.subcommands(own), |grammar, verb| {
        grammar.mut_subcommand(verb, |verb| {
            verb.mut_arg("session", |arg| arg.add(ArgValueCandidates::new(sessions)))
        })
    })
}

fn sessions() -> Vec<CompletionCandidate> {
    candidates(Host::read().and_then(|host| record::live(&host)).unwrap_or_default())
}

fn lost() -> Vec<CompletionCandidate> {
    candidates(Host::read().map(|host| record::lost(&host)).unwrap_or_default())
}

fn candidates(sessions: Vec<Live>) -> Vec<CompletionCandidate> {
    sessions
        .into_iter()
        .map(|session| {
            let of = report::one_line(&session.record.repository.to_string_lossy());
            CompletionCandidate::new(session.record.name).help(Some(of.into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_scripts_in_assets_are_the_ones_that_are_printed() {
        for (shell, file) in [(Shell::Bash, "pi.bash"), (Shell::Zsh, "_pi"), (Shell::Fish, "pi.fish")] {
            let path = format!("{}/assets/completions/{file}", env!("CARGO_MANIFEST_DIR"));
            assert_eq!(fs::read_to_string(&path).unwrap(), script(shell).unwrap(), "renew {path}");
        }
    }

    #[test]
    fn every_verb_that_takes_a_session_offers_them() {
        grammar().debug_assert();
    }
}
