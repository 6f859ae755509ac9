//! Coming back to a session on another engine that has lost its launcher.

use std::ffi::OsString;

use super::{Launcher, Prepared};
use crate::{
    cli::{Action, Cli, Options, Verb},
    host::Host,
    plan::Choices,
    purpose::{Program, Purpose},
    record::{Dead, Record, WayBack},
    report::Hinted,
    session,
};

impl Launcher {
    /// The words by which another launcher comes back to this session; `None` where it cannot. The values of variables are
    /// not among them: the agent has them.
    pub(super) fn words(&self, prepared: &Prepared) -> Option<Vec<String>> {
        let Program { purpose, words } = &prepared.program;
        let verb: &[&str] = match purpose {
            Purpose::Work => &["--"],
            Purpose::Shell => &["shell", "--"],
            _ => return None,
        };
        if !self.host.engine.is_apart() {
            return None;
        }
        let mut all = Vec::new();
        let mut typed = self.options.typed.iter();
        while let Some(word) = typed.next() {
            match word.to_str()? {
                "--env" => drop(typed.next()),
                word if word.starts_with("--env=") => {}
                word => all.push(word.to_owned()),
            }
        }
        all.extend(verb.iter().copied().map(str::to_owned));
        all.extend(words.iter().cloned());
        Some(all)
    }

    /// The launcher that a dead session had, on its engine and in its directory, and the session's program.
    ///
    /// # Errors
    /// The session's own words cannot be understood any more.
    pub(crate) fn again(&self, record: &Record, back: &WayBack) -> anyhow::Result<(Self, Program)> {
        let Cli { options, action } = Cli::parse(back.words.iter().map(OsString::from))?;
        let host =
            Host { cwd: record.directory.clone(), random: back.random, ..self.host.back_at(&record.engine) };
        let Options { verbose, quiet, config, .. } = self.options.clone();
        let options = Options { verbose, quiet, config: config.or(options.config), build: false, ..options };
        let again = Self { options, host, signals: self.signals.share(), here: self.here.clone() };
        let text =
            |words: &[OsString]| words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let program = match &action {
            Action::Agent(words) => Program::agent(text(words), &again.config()?.images.agent_version),
            Action::Verb(Verb::Shell { session: None, command }) => {
                Program { purpose: Purpose::Shell, words: text(command) }
            }
            _ => {
                return Err(Hinted::error(
                    format!("nobody can come back to the session `{}`", record.name),
                    "`pi stop` ends it, and brings its work in",
                ));
            }
        };
        Ok((again, program))
    }

    /// Comes back to a session whose agent runs, and stays until it ends.
    ///
    /// # Errors
    /// As those of a session. One that cannot be shown lives on.
    pub(crate) fn come_back(
        &self,
        prepared: &Prepared,
        dead: Dead,
        record: &Record,
        back: &WayBack,
    ) -> anyhow::Result<u8> {
        let id = dead.id.clone();
        let choices = Choices {
            name: record.name.clone(),
            attempt: back.attempt,
            agent_image: back.agent_image.clone(),
            sidecar_image: back.sidecar_image.clone(),
            started: record.started,
            laid: None,
        };
        self.carry(prepared, None, &id, &choices, |needs| session::come_back(needs, dead, &choices))
    }
}
