//! `pi`, `pi shell` and `pi shell --session`: whatever runs inside, the sandbox is the same.

use std::ffi::OsString;

use crate::{
    cli::DryRun,
    docker::{self, Docker, Streams},
    launcher::Launcher,
    plan::{self, Program, session::SessionId},
    report::{self, FAILED},
    verb::ps,
    written::Written,
};

/// Runs the agent.
pub(crate) fn agent(launcher: &Launcher, args: &[OsString]) -> anyhow::Result<u8> {
    sandboxed(launcher, &Program::Agent(plan::words(args)?))
}

/// Runs a shell, or a command, where the agent would run.
pub(crate) fn shell(launcher: &Launcher, command: &[OsString]) -> anyhow::Result<u8> {
    sandboxed(launcher, &Program::Command(or_shell(command)?))
}

fn or_shell(command: &[OsString]) -> anyhow::Result<Vec<String>> {
    if command.is_empty() { Ok(vec!["/bin/bash".to_owned()]) } else { plan::words(command) }
}

fn sandboxed(launcher: &Launcher, program: &Program) -> anyhow::Result<u8> {
    let prepared = launcher.prepare()?;
    let Some(form) = launcher.options.dry_run else { return launcher.run(&prepared, program) };
    let plan = launcher.plan(&prepared, &SessionId::random()?, program, 0)?;
    let text = match form {
        DryRun::Script => plan.script(),
        DryRun::Json => return report::data(report::json(&plan)?).map(|()| 0),
    };
    // A terminal would obey what a path may hold; a file or a program gets it as it is.
    let text = if launcher.host.terminal.stdout { report::printable(&text) + "\n" } else { text };
    report::data(text).map(|()| 0)
}

/// Runs a shell, or a command, in a session that is running.
pub(crate) fn enter(launcher: &Launcher, name: &str, command: &[OsString]) -> anyhow::Result<u8> {
    let config = launcher.config()?;
    let session = ps::find(&launcher.host, name)?;
    let docker = Docker::find(&config.docker, &launcher.host, &Written::load(&launcher.host))?
        .at(&session.record.engine);
    let terminal = launcher.host.terminal;
    let streams = match (terminal.stdin, terminal.stdout) {
        (true, true) => Streams::Tty,
        (true, false) => Streams::Output,
        (false, _) => Streams::Pipe,
    };
    // The engine itself starts a program of the read-only system, and nothing that the agent could have put on a search
    // path: what follows runs inside, in a Landlock domain as the agent does.
    let mut command = or_shell(command)?;
    command.splice(0..0, ["/usr/local/lib/pi/entry", "--within"].map(str::to_owned));
    let exec = docker::exec(&session.record.id.agent(), streams, &session.record.directory, &command);
    let (status, complaint) = docker.attach(&exec, drop)?;
    report::progress(complaint.as_bytes());
    launcher.signals.check()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED))
}
