//! `pi` starts the pi coding agent in a locked-down Docker container for the repository you stand in, and leaves nothing
//! behind.
//!
//! # How it flows
//!
//! ```text
//! argv ──────────► cli::Cli ─────┐
//! files ─────────► config::Config │
//! process ───────► host::Host     ├──► plan::Plan ──► session::run: claim, up, attach, down
//! repository ────► workspace      │      (pure)              │
//! home ──────────► facts::Facts ──┘                          └──► docker::Docker, a subprocess each time
//! ```
//!
//! Decide, then do: everything that is read is read first, [`plan::Plan::new`] turns it into a value that names every
//! container, network, volume, mount and variable, and [`session::run`] carries that out. The dry run prints the same
//! value. Teardown needs the session's id and nothing else, so one function serves the normal end, every failure, every
//! signal, and what is found after a crash.
//!
//! # Where things are
//!
//! | module | knows |
//! |---|---|
//! | [`cli`], [`agent`] | what can be said, to the launcher and to the agent |
//! | [`config`] | what was meant: layers of settings, one resolver |
//! | [`host`], [`workspace`], [`facts`], [`files`], [`written`] | what is so: the process, the repository, what of the home goes along; files that others may exchange; where agents could write |
//! | [`domain`], [`egress`], [`refused`] | the allowlist's language, what the sidecar gets, what it refused |
//! | [`image`] | variants, build contexts, tags, how an image comes to exist |
//! | [`plan`] | what a session consists of |
//! | [`docker`] | docker's flags, and how its program is run |
//! | [`session`], [`sweep`], [`scratch`] | the life of a session, and what those that ended badly have left |
//! | [`launcher`], `verb` | the way from options to a session, and the launcher's own verbs |
//! | [`report`] | what is said on stderr, and the exit status |
//!
//! # What always holds
//!
//! - `plan` does no input or output.
//! - Only `docker` knows docker's flags; only `host` reads the process's state.
//! - Every container is born in [`docker::Container::create`], and there is no way to ask it for an unhardened one.
//! - A secret is a [`docker::Secret`]: it never reaches an argv, a log, a dry run or a `Debug`.
//! - Whatever `up` makes, [`plan::down`] can name.
//! - A session that could not be proven safe does not start: `images/user/entry` looks from inside before it lets the
//!   agent run.
//! - `main` alone turns an error into a code.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod agent;
#[cfg_attr(not(test), expect(dead_code, reason = "the launcher does not ask for it yet"))]
mod broker;
mod cli;
mod config;
mod docker;
mod domain;
mod egress;
mod facts;
mod files;
mod host;
mod image;
mod launcher;
mod plan;
mod refused;
mod report;
mod scratch;
mod session;
mod sweep;
mod verb;
mod workspace;
mod written;

use std::{ffi::OsString, process::ExitCode};

use crate::{
    cli::{Action, Cli, Verb},
    host::Host,
    launcher::Launcher,
    session::Signals,
};

fn main() -> ExitCode {
    report::exit(run(std::env::args_os().skip(1)))
}

fn run(args: impl Iterator<Item = OsString>) -> anyhow::Result<u8> {
    let Cli { options, action } = Cli::parse(args)?;
    report::set_verbosity(options.verbose, options.quiet);
    match action {
        Action::Help(text) => return report::data(text).map(|()| 0),
        Action::Verb(Verb::Completions { shell }) => return verb::completions::run(shell),
        _ => {}
    }
    let host = Host::read()?;
    let signals = Signals::watch()?;
    let launcher = Launcher { options, host, signals };
    match action {
        Action::Help(_) | Action::Verb(Verb::Completions { .. }) => Ok(0),
        Action::Version => verb::version::run(&launcher),
        Action::Agent(args) => verb::run::agent(&launcher, &args),
        Action::Verb(Verb::Shell { session: None, command }) => verb::run::shell(&launcher, &command),
        Action::Verb(Verb::Shell { session: Some(name), command }) => {
            verb::run::enter(&launcher, &name, &command)
        }
        Action::Verb(Verb::Build { all }) => verb::build::run(&launcher, all),
        Action::Verb(Verb::Demo) => verb::demo::run(&launcher),
        Action::Verb(Verb::Allow { entries, session, save }) => {
            verb::allow::run(&launcher, &entries, session.as_deref(), save)
        }
        Action::Verb(Verb::Blocked { session, json }) => {
            verb::blocked::run(&launcher, session.as_deref(), json)
        }
        Action::Verb(Verb::Check { targets }) => verb::check::run(&launcher, &targets),
        Action::Verb(Verb::Ps { json }) => verb::ps::run(&launcher, json),
        Action::Verb(Verb::Logs { session }) => verb::ps::logs(&launcher, &session),
        Action::Verb(Verb::Stop { session, all: _ }) => verb::stop::run(&launcher, session.as_deref()),
        Action::Verb(Verb::Clean { images, caches }) => verb::clean::run(&launcher, images, caches),
        Action::Watch(directory) => verb::watch::run(&launcher, &directory),
    }
}
