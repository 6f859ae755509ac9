//! `pi doctor`: the state of everything that a session needs, and what to do about what is not fine.

mod asked;
mod engine;
mod machine;
mod prove;
mod repository;

use serde::Serialize;

use crate::{
    config::{self, Config, InForce},
    docker::Docker,
    facts,
    host::Owner,
    launcher::Launcher,
    report::{self, Finding, Hinted},
    workspace::Workspace,
    written::Written,
};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Fine,
    /// Good to know; sessions work.
    Note,
    /// No session works, or not as it should.
    Wrong,
}

/// One line of the diagnosis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Line {
    subject: &'static str,
    state: State,
    what: String,
    /// What to do next.
    next: Option<String>,
}

impl Line {
    fn fine(subject: &'static str, what: impl Into<String>) -> Self {
        Self { subject, state: State::Fine, what: what.into(), next: None }
    }

    fn note(subject: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { subject, state: State::Note, what: what.into(), next: Some(next.into()) }
    }

    fn wrong(subject: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { subject, state: State::Wrong, what: what.into(), next: Some(next.into()) }
    }

    fn found(subject: &'static str, finding: &Finding) -> Self {
        Self { subject, state: State::Note, what: finding.what.clone(), next: finding.hint.clone() }
    }

    /// An error, with its own hint or this one.
    fn failed(subject: &'static str, error: &anyhow::Error, next: &str) -> Self {
        let hint = error.chain().find_map(|cause| cause.downcast_ref::<Hinted>()?.hint());
        Self::wrong(subject, format!("{error:#}"), hint.unwrap_or(next))
    }
}

/// The whole diagnosis, for `--json`.
#[derive(Serialize)]
struct Diagnosis {
    launcher: &'static str,
    lines: Vec<Line>,
    settings: Vec<InForce>,
}

/// Looks at everything. The exit status is 1 if something is wrong.
pub(crate) fn run(launcher: &Launcher, json: bool, proves: bool, asks: bool) -> anyhow::Result<u8> {
    if proves {
        return prove::run(launcher);
    }
    let mut lines = machine::look(launcher);
    let workspace = Workspace::find(&launcher.host);
    let root = workspace.as_ref().ok().map(|workspace| workspace.root.clone());
    let mut settings = Vec::new();
    match launcher.config() {
        Err(error) => lines.push(Line::failed("settings", &error, "correct that file")),
        Ok(config) => {
            match config::in_force(&launcher.options, &launcher.host, root.as_deref()) {
                Ok(all) => {
                    lines.extend(told(&all, launcher));
                    settings = all;
                }
                Err(error) => lines.push(Line::failed("settings", &error, "correct that file")),
            }
            lines.push(limits(&config));
            lines.extend(on_the_engine(launcher, &config, workspace.as_ref().ok()));
            lines.extend(repository::look(launcher, &config, workspace));
            if asks {
                lines.extend(asked::look(launcher));
            }
        }
    }
    launcher.signals.check()?;
    let wrong = lines.iter().filter(|line| line.state == State::Wrong).count();
    if json {
        let launcher = env!("CARGO_PKG_VERSION");
        report::data(report::json(&Diagnosis { launcher, lines, settings })?)?;
    } else {
        report::data(table(&lines))?;
        if wrong == 0 {
            report::note("sessions can run here");
        }
    }
    Ok(u8::from(wrong > 0))
}

fn on_the_engine(launcher: &Launcher, config: &Config, workspace: Option<&Workspace>) -> Vec<Line> {
    let host = &launcher.host;
    let written = Written::load(host).and_around(host);
    let own = Owner { uid: host.uid, gid: host.gid };
    let who = workspace.map_or(own, |workspace| facts::who(host, workspace).0);
    match Docker::find(&config.docker, host, &written) {
        Ok(docker) => engine::look(launcher, config, who, &docker.heeding(&launcher.signals)),
        Err(error) => vec![Line::failed("engine", &error, "start Docker Engine 20.10 or newer")],
    }
}

/// The settings that are not defaults.
fn told(all: &[InForce], launcher: &Launcher) -> Vec<Line> {
    let path = Config::path(&launcher.options, &launcher.host);
    let mut lines: Vec<Line> = all
        .iter()
        .filter_map(|setting| {
            let from = setting.from.as_ref()?;
            let value = setting.value.split_whitespace().collect::<Vec<_>>().join(" ");
            Some(Line::fine("settings", format!("{} = {value} ({from})", setting.key)))
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::fine("settings", format!("all defaults; `{}` can change them", path.display())));
    }
    lines
}

/// What a session may use.
fn limits(config: &Config) -> Line {
    let limits = &config.limits;
    let or_none = |limit: Option<String>| limit.unwrap_or_else(|| "no limit".to_owned());
    Line::fine(
        "limits",
        format!(
            "memory {}, of which home {} MiB and /tmp {} MiB; processors {}; processes {}; {} stay free on disks",
            or_none(limits.memory.clone()),
            config.disk.home >> 20,
            config.disk.tmp >> 20,
            or_none(limits.cpus.map(|cpus| cpus.to_string())),
            or_none(limits.pids.map(|pids| pids.to_string())),
            config.min_free,
        ),
    )
}

/// The lines as text: a mark, the subject where it changes, and what to do below.
fn table(lines: &[Line]) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    let mut before = "";
    for line in lines {
        let mark = match line.state {
            State::Fine => "ok",
            State::Note => "note",
            State::Wrong => "BAD",
        };
        let subject = if line.subject == before { "" } else { line.subject };
        before = line.subject;
        let _ = writeln!(text, "{subject:<10}  {mark:<4}  {}", report::one_line(&line.what));
        if let Some(next) = &line.next {
            let _ = writeln!(text, "{:<10}        {}", "", report::one_line(next));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_that_is_not_fine_says_what_to_do() {
        let lines = [
            Line::fine("engine", "Docker 28.5.2"),
            Line::note("engine", "it is old", "renew it"),
            Line::failed("images", &Hinted::error("no\u{1b}[31m", "do this"), "never"),
        ];
        assert_eq!(
            table(&lines),
            "engine      ok    Docker 28.5.2\n            note  it is old\n                  renew it\n\
             images      BAD   no\u{fffd}[31m\n                  do this\n"
        );
    }
}
