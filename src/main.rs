//! `pi` starts the pi coding agent in a locked-down Docker container for the repository you stand in, and leaves
//! nothing behind.
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
//! Decide, then do. The launcher reads everything first. [`plan::Plan::new`] turns it into a value that names every
//! container, network, volume, mount and variable, and [`session::run`] carries that out. A dry run prints the same
//! value. The name, the addresses and the images can change later: they are inputs, and a change makes a new plan.
//! Teardown needs only the session's id, so one function serves the normal end, failures, signals, and leftovers of a
//! crash.
//!
//! # Where things are
//!
//! A module imports only from the floors below its own; `floors.rs` tests that.
//!
//! | floor | subjects of its modules |
//! |---|---|
//! | `main` | parse, run, report, exit code |
//! | `verb` | the launcher's own verbs, a module each |
//! | `launcher` | from options to a session |
//! | `session`, `image` | the life of a session; building images |
//! | `docker` | docker's flags, messages and outcomes |
//! | `plan` | everything that a session consists of, as a value |
//! | `facts`, `github` | the parts of the host that a session gets; its repositories on GitHub |
//! | `keys` | which keys are with the broker, and which inside |
//! | `models` | model servers of the user's own |
//! | `git` | the agent's own git directory, and what it leaves in a work tree |
//! | `written`, `control` | places where agents can write; requests from verbs to a session's launcher |
//! | `record`, `copies`, `egress` | a session's id, directory, lock and record; the same of a copy; the sources of an allowlist |
//! | `config` | layers of settings, and one resolver |
//! | `agent_dir`, `broker`, `cli`, `workspace`, `scratch` | a session's own agent directory; what keeps keys outside; the command line; the repository; scratch directories |
//! | `host`, `lang`, `purpose`, `refused`, `signals`, `terminal` | the machine and the process; languages; purposes of a session; refused destinations; signals; the terminal as it was |
//! | `agent`, `child`, `domain`, `files`, `inside`, `report`, `secret`, `url` | the agent's command line and logins; other programs as children; the allowlist's language; files that others may exchange; paths in the sandbox; stderr and stdout; secret values; addresses for a browser |
//!
//! # What always holds
//!
//! - `plan` does no input or output, and nobody changes a plan.
//! - Only `docker` knows docker's flags and words; only `host` reads the process's state.
//! - One function of `docker` creates every container, and cannot create an unhardened one.
//! - A secret is a [`secret::Secret`]: it never reaches an argv, a log, a dry run or a `Debug`.
//! - [`docker::down`] can name everything that `up` creates.
//! - An unsafe session does not start: `images/user/entry` checks the sandbox from inside before it runs the agent.
//! - Only `main` turns an error into an exit status.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod agent;
mod agent_dir;
mod broker;
mod child;
mod cli;
mod config;
mod control;
mod copies;
mod docker;
mod domain;
mod egress;
mod facts;
mod files;
#[cfg(test)]
mod floors;
mod git;
mod github;
mod host;
mod image;
mod inside;
mod keys;
mod lang;
mod launcher;
mod models;
mod plan;
mod purpose;
mod record;
mod refused;
mod report;
mod scratch;
mod secret;
mod session;
mod signals;
mod terminal;
mod url;
mod verb;
mod workspace;
mod written;

use std::{ffi::OsString, process::ExitCode};

use crate::{
    cli::{Action, Cli, Verb},
    launcher::Launcher,
};

fn main() -> ExitCode {
    let cwd = std::env::current_dir().ok();
    match verb::completions::answer(std::env::args_os(), cwd.as_deref()) {
        Ok(false) => report::exit(run(std::env::args_os().skip(1)).map_err(signals::rather_than)),
        answered => report::exit(answered.map(|_| 0)),
    }
}

fn run(args: impl Iterator<Item = OsString>) -> anyhow::Result<u8> {
    let Cli { options, action } = Cli::parse(args)?;
    report::set_verbosity(options.verbose, options.quiet);
    let launcher = || Launcher::new(options);
    match action {
        Action::Help(text) => report::data(text).map(|()| 0),
        Action::Verb(Verb::Completions { shell }) => verb::completions::run(shell),
        Action::Verb(Verb::Man) => verb::man::run(),
        Action::Version => verb::version::run(&launcher()?),
        Action::Agent(args) => verb::run::agent(&launcher()?, &args),
        Action::Verb(Verb::Shell { session: None, command }) => verb::run::shell(&launcher()?, &command),
        Action::Verb(Verb::Shell { session: Some(name), command }) => {
            verb::run::enter(&launcher()?, &name, &command)
        }
        Action::Verb(Verb::Build { all, sbom, check }) => verb::build::run(&launcher()?, all, sbom, check),
        Action::Verb(Verb::Login { list: true, .. }) => verb::login::list(&launcher()?),
        Action::Verb(Verb::Login { provider: Some(provider), key: true, .. }) => {
            verb::login::store_key(&launcher()?, &provider)
        }
        Action::Verb(Verb::Login { provider, timeout, host_network, .. }) => {
            verb::login::run(&launcher()?, provider.as_deref(), timeout, host_network)
        }
        Action::Verb(Verb::Open { session }) => verb::open::run(&launcher()?, session.as_deref()),
        Action::Verb(Verb::Logout { provider }) => verb::login::forget(&launcher()?, &provider),
        Action::Verb(Verb::Demo) => verb::demo::run(&launcher()?),
        Action::Verb(Verb::Doctor { json, prove, ask }) => verb::doctor::run(&launcher()?, json, prove, ask),
        Action::Verb(Verb::Allow { entries, session, save }) => {
            verb::allow::run(&launcher()?, &entries, session.as_deref(), save)
        }
        Action::Verb(Verb::Blocked { session, json, save }) => {
            verb::blocked::run(&launcher()?, session.as_deref(), json, save)
        }
        Action::Verb(Verb::Check { targets }) => verb::check::run(&launcher()?, &targets),
        Action::Verb(Verb::Models { what }) => verb::models::run(&launcher()?, &what),
        Action::Verb(Verb::Ps { all, all_contexts, json }) => {
            let which = if all_contexts { verb::ps::Engines::All } else { verb::ps::Engines::Known };
            verb::ps::run(&launcher()?, all, which, json)
        }
        Action::Verb(Verb::Diff { name, risky: true }) => verb::risky::run(&launcher()?, name.as_deref()),
        Action::Verb(Verb::Diff { name, .. }) => verb::diff::run(&launcher()?, name.as_deref()),
        Action::Verb(Verb::Apply { name, commit }) => {
            verb::apply::run(&launcher()?, name.as_deref(), commit.as_deref())
        }
        Action::Verb(Verb::Drop { name, force }) => verb::drop::run(&launcher()?, &name, force),
        Action::Verb(Verb::Logs { session, follow }) => {
            verb::logs::run(&launcher()?, session.as_deref(), follow)
        }
        Action::Verb(Verb::Attach { session }) => verb::attach::run(&launcher()?, session.as_deref()),
        Action::Verb(Verb::Stop { session, all: _ }) => verb::stop::run(&launcher()?, session.as_deref()),
        Action::Verb(Verb::Clean { images, all_contexts, caches, older_than }) => {
            let caches = caches.then(|| older_than.unwrap_or_default());
            verb::clean::run(&launcher()?, verb::clean::What { images, caches, all_contexts })
        }
        Action::Verb(Verb::Batch { file, jobs, agent }) => {
            verb::batch::run(&launcher()?, &file, jobs, &agent)
        }
        Action::Task { outcome, mark, words } => verb::batch::note(
            &outcome,
            &mark,
            report::settle(run(words.into_iter()).map_err(signals::rather_than)),
        ),
        Action::Watch(directory) => verb::watch::run(&launcher()?, &directory),
    }
}
