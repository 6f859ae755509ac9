//! What stands in for the files that a session must not see.

use std::{fs, path::Path};

use anyhow::Context as _;

use crate::{
    agent_dir::laid::Laid, facts::Hidden, files::Identity, files::set_mode, inside::Access, plan::shadow,
};

/// Makes an empty file and an empty directory in the session's own directory, to be mounted over what is hidden.
///
/// # Errors
/// They could not be made.
pub(super) fn lay_shadows(hidden: &[Hidden], state: &Path) -> anyhow::Result<Vec<Laid>> {
    let mut laid = Vec::new();
    for Hidden { path, is_directory } in hidden {
        let source = shadow(state, *is_directory);
        let made = match (source.exists(), source.parent()) {
            (false, Some(parent)) => fs::create_dir_all(parent)
                .and_then(|()| set_mode(parent, 0o755))
                .and_then(|()| {
                    if *is_directory {
                        fs::create_dir(&source)
                    } else {
                        fs::File::create_new(&source).map(drop)
                    }
                })
                .and_then(|()| set_mode(&source, if *is_directory { 0o555 } else { 0o444 })),
            _ => Ok(()),
        };
        let failed = || format!("could not make `{}`", source.display());
        made.with_context(failed)?;
        let identity = Identity::at(&source).with_context(failed)?;
        laid.push(Laid { source, target: path.clone(), access: Access::ReadOnly, identity });
    }
    Ok(laid)
}
