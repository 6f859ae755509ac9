//! What a session needs on the host before its containers.

use std::fs;

use anyhow::Context as _;

use crate::{
    files::{replace, set_mode},
    plan::{File, Plan},
};

/// Writes the files that the plan names.
pub(super) fn prepare(plan: &Plan) -> anyhow::Result<()> {
    for File { path, text } in &plan.files {
        // Read inside containers by users without a name; what is above is private.
        let made = match path.parent().filter(|parent| *parent != plan.state) {
            Some(parent) => fs::create_dir_all(parent).and_then(|()| set_mode(parent, 0o755)),
            None => Ok(()),
        };
        made.and_then(|()| replace(path, text.bytes()))
            .with_context(|| format!("could not write `{}`", path.display()))?;
    }
    Ok(())
}
