//! `pi build`: builds images without running them.

use crate::{
    image::build::Effort,
    launcher::Launcher,
    purpose::{Program, Purpose},
    report,
};

/// Builds this repository's image and the sidecar's, or all images.
pub(crate) fn run(launcher: &Launcher, all: bool) -> anyhow::Result<u8> {
    let prepared = launcher.prepare(Program { purpose: Purpose::Shell, words: vec![] })?;
    let docker = launcher.docker(&prepared)?;
    if all || launcher.options.build {
        launcher.build_everything(&prepared, &docker)?;
    } else {
        let builder = launcher.builder(&prepared, &docker);
        builder.ensure(&prepared.image, Effort::Missing)?;
        builder.ensure(&prepared.proxy, Effort::Missing)?;
    }
    report::note(format_args!("ready: `{}` and `{}`", prepared.image.tag(), prepared.proxy.tag()));
    Ok(0)
}
