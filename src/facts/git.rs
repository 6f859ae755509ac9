//! Who the user is in commits.

use std::{thread, time::Duration};

use crate::{files::read_small, git::command::Git, host::Host, workspace::Workspace, written::Written};

/// How long git may take to read a few files.
const PATIENCE: Duration = Duration::from_secs(2);

/// The host user's name and address, asked from outside of any repository's influence: a repository's own settings
/// win inside the container, where git reads them itself.
pub(super) fn identity(
    host: &Host,
    workspace: &Workspace,
    written: &Written,
) -> anyhow::Result<Vec<(String, String)>> {
    let Some(git) = Git::find(host, written) else { return Ok(vec![]) };
    let text = workspace.git_config.as_deref().map(read_small).transpose()?.flatten();
    let (own, mut all) = thread::scope(|scope| {
        let own = text.map(|text| scope.spawn(|| user_settings(&git, host, Some(text))));
        let all = user_settings(&git, host, None);
        (own.map(|thread| thread.join().expect("asking git does not panic")).unwrap_or_default(), all)
    });
    all.retain(|(key, _)| !own.iter().any(|(set, _)| set == key));
    Ok(all)
}

/// Name and address from the user's own settings, or from the text of a config.
fn user_settings(git: &Git, host: &Host, text: Option<String>) -> Vec<(String, String)> {
    let mut call = git.outside(host).patience(PATIENCE).args(["config", "--null"]);
    if let Some(text) = text {
        // Without `--includes`: what a repository says must not make us read elsewhere.
        call = call.args(["--no-includes", "--file", "-"]).stdin(text.into_bytes());
    }
    // What the user's own settings include may be a pipe by now, and then git does not end.
    let said = call.args(["--get-regexp", r"^user\.(name|email)$"]).text().unwrap_or_default();
    let mut found: Vec<(String, String)> = Vec::new();
    for entry in said.split_terminator('\0') {
        if let Some((key, value)) = entry.split_once('\n') {
            // The last one wins, as it does for git.
            found.retain(|(known, _)| known != key);
            found.push((key.to_owned(), value.to_owned()));
        }
    }
    found
}
