//! Who the user is in commits.

use std::thread;

use crate::{
    git::{command::Git, config::Config},
    host::Host,
    workspace::Workspace,
    written::Written,
};

/// The host user's name and address, asked from outside of any repository's influence: a repository's own settings
/// win inside the container, where git reads them itself.
pub(super) fn identity(
    host: &Host,
    workspace: &Workspace,
    written: &Written,
) -> anyhow::Result<Vec<(String, String)>> {
    let Some(git) = Git::find(host, written) else { return Ok(vec![]) };
    let (own, user) = thread::scope(|scope| {
        let user = scope.spawn(|| Config::of_user(&git, host));
        let own = workspace.git_config.as_ref().map(|file| Config::read(&git, file)).transpose();
        (own, user.join().expect("asking git does not panic"))
    });
    let own = own?.unwrap_or_default();
    let names = ["user.name", "user.email"].into_iter().filter(|name| own.value(name).is_none());
    Ok(names.filter_map(|name| Some((name.to_owned(), user.value(name)?.to_owned()))).collect())
}
