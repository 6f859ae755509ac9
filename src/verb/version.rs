//! `pi --version`: the launcher's version and the agent's, without asking an engine.

use crate::{launcher::Launcher, report};

/// Prints the launcher's version, and the agent's from the settings.
pub(crate) fn run(launcher: &Launcher) -> anyhow::Result<u8> {
    let images = launcher.config()?.images;
    report::data(format_args!(
        "pi {} (launcher)\n{} {} (agent)\n",
        env!("CARGO_PKG_VERSION"),
        images.agent_package,
        images.agent_version
    ))?;
    Ok(0)
}
