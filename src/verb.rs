//! The launcher's own verbs, one module each.

pub(crate) mod allow;
pub(crate) mod apply;
pub(crate) mod attach;
mod attempts;
pub(crate) mod batch;
pub(crate) mod blocked;
pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod completions;
mod copy;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod drop;
mod learn;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod models;
pub(crate) mod open;
pub(crate) mod ps;
mod resume;
pub(crate) mod risky;
pub(crate) mod run;
pub(crate) mod stop;
pub(crate) mod version;
pub(crate) mod watch;

use crate::{cli::Options, host::Host, launcher::Launcher};

/// A launcher with other options, on a machine that differs.
fn another(launcher: &Launcher, options: Options, host: Host) -> Launcher {
    Launcher { options, host, signals: launcher.signals.share(), here: launcher.here.clone() }
}
