//! `pi`, `pi shell` and `pi shell --session`: whatever runs inside, the sandbox is the same.

use std::ffi::OsString;

use anyhow::Context as _;

use crate::{
    cli::DryRun,
    control::{self, Request},
    docker::{self, Docker},
    inside,
    launcher::Launcher,
    plan::Streams,
    purpose::{Program, Purpose},
    record,
    report::{self, FAILED},
    written::Written,
};

/// Runs the agent.
pub(crate) fn agent(launcher: &Launcher, args: &[OsString]) -> anyhow::Result<u8> {
    let version = launcher.config()?.images.agent_version;
    sandboxed(launcher, Program::agent(text(args)?, &version))
}

/// Runs a shell, or a command, where the agent would run.
pub(crate) fn shell(launcher: &Launcher, command: &[OsString]) -> anyhow::Result<u8> {
    sandboxed(launcher, Program { purpose: Purpose::Shell, words: or_shell(command)? })
}

fn or_shell(command: &[OsString]) -> anyhow::Result<Vec<String>> {
    if command.is_empty() { Ok(vec!["/bin/bash".to_owned()]) } else { text(command) }
}

/// Words as text: a container's command is JSON.
fn text(words: &[OsString]) -> anyhow::Result<Vec<String>> {
    let text = |word: &OsString| {
        word.to_str().map(str::to_owned).with_context(|| format!("`{}` is not UTF-8", word.display()))
    };
    words.iter().map(text).collect()
}

fn sandboxed(launcher: &Launcher, program: Program) -> anyhow::Result<u8> {
    let prepared = launcher.prepare(program)?;
    let Some(form) = launcher.options.dry_run else { return launcher.run(&prepared) };
    let plan = launcher.dry_plan(&prepared)?;
    let text = match form {
        DryRun::Script => docker::script(&plan),
        DryRun::Json => return report::data(report::json(&plan)?).map(|()| 0),
    };
    // A terminal would obey what a path may hold; a file or a program gets it as it is.
    let text = if launcher.host.terminal.stdout { report::printable(&text) + "\n" } else { text };
    report::data(text).map(|()| 0)
}

/// Runs a shell, or a command, in a session that is running.
pub(crate) fn enter(launcher: &Launcher, name: &str, command: &[OsString]) -> anyhow::Result<u8> {
    let config = launcher.config()?;
    let session = record::find(&launcher.host, name)?;
    let docker = Docker::find(&config.docker, &launcher.host, &Written::load(&launcher.host))?
        .at(&session.record.engine);
    control::ask(&session, &Request::Ready, &launcher.signals, None)?.tell()?;
    docker.wait_until_runs(&session.record.id.agent(), || {
        anyhow::ensure!(!session.has_ended(), "the session `{name}` has ended");
        launcher.signals.check()
    })?;
    let terminal = launcher.host.terminal;
    let streams = Streams::of(terminal.stdin, terminal.stdout);
    // The engine itself starts a program of the read-only system, and nothing that the agent could have put on a search
    // path: what follows runs inside, in a Landlock domain as the agent does.
    let mut command = or_shell(command)?;
    command.splice(0..0, [inside::ENTRY, "--within"].map(str::to_owned));
    let exec = docker::exec(&session.record.id.agent(), streams, &session.record.directory, &command);
    let shown = docker.attach(&exec, false, |client| launcher.signals.foreground(&client))?;
    shown.tell();
    launcher.signals.check()?;
    Ok(shown.status().code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED))
}
