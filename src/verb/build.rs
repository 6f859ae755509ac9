//! `pi build`: builds images without running them.

use crate::{
    image::build::Effort,
    launcher::Launcher,
    purpose::{Program, Purpose},
    report,
};

/// Builds this repository's image and the sidecar's, or all images, and may list what is in them; or asks whether there is a
/// newer agent.
pub(crate) fn run(launcher: &Launcher, all: bool, sbom: bool, check: bool) -> anyhow::Result<u8> {
    let launcher = &launcher.on()?;
    let prepared = launcher.prepare(Program { purpose: Purpose::Shell, words: vec![] })?;
    if check {
        return launcher.check_for_newer(&prepared);
    }
    let docker = launcher.docker(&prepared)?.heeding(&launcher.signals);
    let effort = if launcher.options.build { Effort::Renew } else { Effort::Missing };
    launcher.build(&prepared, &docker, all, effort)?;
    if sbom {
        return report::data(launcher.sbom(&prepared, &docker, all)?).map(|()| 0);
    }
    report::note(format_args!("ready: `{}` and `{}`", prepared.image.tag(), prepared.proxy.tag()));
    Ok(0)
}
