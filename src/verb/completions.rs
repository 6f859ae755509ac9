//! `pi completions SHELL`.

use clap_complete::Shell;

use crate::{cli::Cli, report};

/// Prints completions for a shell.
pub(crate) fn run(shell: Shell) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::grammar(), "pi", &mut script);
    report::data(String::from_utf8_lossy(&script)).map(|()| 0)
}
