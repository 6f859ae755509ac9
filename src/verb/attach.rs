//! `pi attach`: comes back to a session on another engine that has lost its launcher.

use crate::{
    host::Terminal,
    launcher::Launcher,
    plan::Streams,
    record::{self, WayBack},
    report::{self, Hinted, one_line},
    session,
};

/// Shows the agent again, until it ends.
pub(crate) fn run(launcher: &Launcher, name: Option<&str>) -> anyhow::Result<u8> {
    let Some((dead, record)) = record::lost_named(&launcher.host, name)? else {
        return Err(nothing(launcher, name));
    };
    let back = WayBack::load(&dead.dir).map_err(|error| {
        let typed = report::quote(&record.name);
        Hinted::error(
            format!("{error:#}"),
            format!("`pi stop {typed}` ends the session and brings its work in"),
        )
    })?;
    let (mut again, program) = launcher.again(&record, &back)?;
    if Streams::of(again.host.terminal.stdin, again.host.terminal.stdout) != Streams::Tty {
        // Then the agent is only shown: its input was lost with the launcher, or is a terminal that there is none of here.
        again.host.terminal = Terminal { stdin: true, stdout: false, stderr: false };
    }
    let prepared = again.prepare(program)?;
    let docker = again.docker(&prepared)?;
    if !docker.heeding(&again.signals).runs(&record.id.agent())? {
        session::take_down(&dead, &docker, &launcher.host)?;
        drop(dead);
        session::copy::bring_in_all(&docker, &launcher.host, &|copy| copy.engine == record.engine);
        return Err(Hinted::error(
            format!("the agent of the session `{}` has ended", record.name),
            "its work is here now: `pi diff` shows it",
        ));
    }
    report::note(format_args!(
        "this is the session `{}` on `{}` again",
        record.name,
        one_line(&record.engine)
    ));
    again.come_back(&prepared, dead, &record, &back)
}

/// Why there is nothing to come back to.
fn nothing(launcher: &Launcher, name: Option<&str>) -> anyhow::Error {
    let live = record::live(&launcher.host).unwrap_or_default();
    let is_meant = |name: &str| live.iter().any(|session| session.record.name == name);
    match name {
        Some(name) if is_meant(name) => Hinted::error(
            format!("the session `{name}` has its launcher: it is shown where it was started"),
            format!("`pi shell --session {name}` opens a shell in it"),
        ),
        Some(name) => Hinted::error(
            format!("no session `{name}` has lost its launcher"),
            "`pi ps` lists those that have, and `pi ps --all` copies with their work",
        ),
        None => Hinted::error(
            "no session has lost its launcher",
            "only one on another engine (`--on`) lives on without it: `pi ps` lists all",
        ),
    }
}
