//! What a session needs on the host before its containers.

use std::fs;

use anyhow::Context as _;

use crate::{
    files::{replace, set_mode},
    plan::{File, Plan},
};

/// Writes the files that the plan names.
pub(super) fn prepare(plan: &Plan) -> anyhow::Result<()> {
    for file in &plan.files {
        // Read inside containers by users without a name; what is above is private.
        if let Some(parent) = file.path.parent().filter(|parent| *parent != plan.state) {
            fs::create_dir_all(parent)
                .and_then(|()| set_mode(parent, 0o755))
                .with_context(|| format!("could not write `{}`", file.path.display()))?;
        }
        write_file(file)?;
    }
    Ok(())
}

/// Writes one file, whose directory exists.
pub(crate) fn write_file(File { path, text }: &File) -> anyhow::Result<()> {
    replace(path, text.bytes()).with_context(|| format!("could not write `{}`", path.display()))
}
