//! `pi`, `pi shell` and `pi shell --session`: they use the same sandbox.

use std::{
    ffi::OsString,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;

use super::{learn, resume};
use crate::{
    agent,
    cli::DryRun,
    control::{self, Entered, Request},
    docker::{self, Docker},
    inside,
    launcher::Launcher,
    plan::Streams,
    purpose::{Program, Purpose},
    record::{self, Record, SessionId},
    report::{self, FAILED, Hinted},
    written::Written,
};

/// Runs the agent.
pub(crate) fn agent(launcher: &Launcher, args: &[OsString]) -> anyhow::Result<u8> {
    let version = launcher.config()?.images.agent_version;
    let words = text(args)?;
    if agent::updates_itself(&words) {
        return Err(Hinted::usage_hinted(
            "`pi update` cannot update the agent: it is a part of the image, and no session changes that",
            "`pi --build` renews the image with the newest agent that `agent_version` admits, and `pi build --check` asks \
             for one; `pi update --extensions` updates what is installed in `~/.pi/agent`",
        ));
    }
    if let Some(command) = agent::newer_command(&words, &version) {
        return Err(Hinted::usage_hinted(
            format!("the agent {version} has no command `{command}`; newer agents do"),
            format!(
                "`agent_version` under `[images]` in the settings chooses the agent; to say this to it, write `pi -p {}`",
                words.join(" ")
            ),
        ));
    }
    sandboxed(launcher, Program::agent(words, &version))
}

/// Runs a shell or a command in the agent's sandbox.
pub(crate) fn shell(launcher: &Launcher, command: &[OsString]) -> anyhow::Result<u8> {
    sandboxed(launcher, Program { purpose: Purpose::Shell, words: or_shell(command)? })
}

fn or_shell(command: &[OsString]) -> anyhow::Result<Vec<String>> {
    if command.is_empty() { Ok(vec!["/bin/bash".to_owned()]) } else { text(command) }
}

/// Words as UTF-8, since a container's command is JSON.
fn text(words: &[OsString]) -> anyhow::Result<Vec<String>> {
    let text = |word: &OsString| {
        word.to_str().map(str::to_owned).with_context(|| format!("`{}` is not UTF-8", word.display()))
    };
    words.iter().map(text).collect()
}

fn sandboxed(launcher: &Launcher, program: Program) -> anyhow::Result<u8> {
    // The agent's own set-up is of this machine, whatever the settings say.
    let is_on = program.purpose != Purpose::SetUp;
    let launcher = &if is_on { launcher.on()? } else { launcher.on_named()? };
    if program.purpose == Purpose::Work && launcher.options.dry_run.is_none() {
        launcher.renew_before()?;
    }
    let prepared = launcher.prepare(program)?;
    let Some(form) = launcher.options.dry_run else {
        if !launcher.may_begin(&prepared)? {
            return Ok(1);
        }
        let learns = prepared.config.learns;
        if learns {
            learn::say_so();
        }
        if prepared.program.purpose == Purpose::Work {
            tell_of_open_input(launcher, &prepared.program);
        }
        let begun = SystemTime::now();
        let code = launcher.run(&prepared)?;
        if prepared.program.purpose == Purpose::Work {
            resume::tell(launcher, &prepared, begun);
        }
        if learns {
            learn::propose(launcher)?;
        }
        return Ok(code);
    };
    let plan = launcher.dry_plan(&prepared)?;
    let text = match form {
        DryRun::Script => docker::script(&plan),
        DryRun::Json => return report::data(report::json(&plan)?).map(|()| 0),
    };
    // A path could control a terminal. A file or a program gets the text unchanged.
    let text = if launcher.host.terminal.stdout { report::printable(&text) + "\n" } else { text };
    report::data(text).map(|()| 0)
}

/// How long a pipe may stay open before it is told that the agent reads it to its end.
const SILENCE: Duration = Duration::from_secs(8);

/// An agent that prints its answer reads its input to the end first, and that may never come.
fn tell_of_open_input(launcher: &Launcher, program: &Program) {
    let prints =
        program.words.iter().take_while(|word| *word != "--").any(|word| word == "-p" || word == "--print");
    if !prints || launcher.host.terminal.stdin || !report::input_is_open() {
        return;
    }
    thread::spawn(|| {
        thread::sleep(SILENCE);
        if report::input_is_open() {
            report::note(
                "the agent waits for the end of its input, which is a pipe that somebody holds open; `</dev/null` gives it none",
            );
        }
    });
}

/// Runs a shell or a command in a running session.
pub(crate) fn enter(launcher: &Launcher, name: &str, command: &[OsString]) -> anyhow::Result<u8> {
    let config = launcher.config()?;
    let session = record::find(&launcher.host, name)?;
    let docker = Docker::find(&config.docker, &launcher.host, &Written::load(&launcher.host))?
        .at(&session.record.engine)
        .heeding(&launcher.signals);
    control::ask(&session, &Request::Ready, &launcher.signals, None)?.tell()?;
    docker.wait_until_runs(&session.record.id.agent(), || {
        anyhow::ensure!(!session.has_ended(), "the session `{name}` has ended");
        launcher.signals.check()
    })?;
    let terminal = launcher.host.terminal;
    let streams = Streams::of(terminal.stdin, terminal.stdout);
    // The engine starts a program of the read-only system, which the agent cannot replace. That program runs the
    // command in a Landlock domain like the agent's.
    let mut command = or_shell(command)?;
    command.splice(0..0, [inside::ENTRY, "--within"].map(str::to_owned));
    // If this process is killed, or its terminal closed, the session's launcher ends the command.
    let mark = SessionId::random()?;
    let entered = Entered::announce(&session, mark.as_str(), &launcher.signals)?;
    let Record { id, directory, .. } = &session.record;
    let exec = docker::exec(&id.agent(), streams, directory, mark.as_str(), &command);
    let shown = docker.attach(&exec, false, |client| launcher.signals.foreground(&client))?;
    shown.tell();
    launcher.signals.check()?;
    if shown.status().code().is_some() {
        entered.leave();
    }
    Ok(shown.status().code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED))
}
