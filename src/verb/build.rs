//! `pi build`: builds images without running them.

use crate::{
    image::build::Effort,
    launcher::Launcher,
    purpose::{Program, Purpose},
    report,
};

/// Builds this repository's image and the sidecar's, or all images; or asks whether there is a newer agent.
pub(crate) fn run(launcher: &Launcher, all: bool, check: bool) -> anyhow::Result<u8> {
    let prepared = launcher.prepare(Program { purpose: Purpose::Shell, words: vec![] })?;
    if check {
        return launcher.check_for_newer(&prepared);
    }
    let docker = launcher.docker(&prepared)?.heeding(&launcher.signals);
    let effort = if launcher.options.build { Effort::Renew } else { Effort::Missing };
    launcher.build(&prepared, &docker, all, effort)?;
    report::note(format_args!("ready: `{}` and `{}`", prepared.image.tag(), prepared.proxy.tag()));
    Ok(0)
}
