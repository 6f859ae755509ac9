//! The repositories of GitHub's that a repository's remotes lead to. Its config is read as text: the host's git would run
//! programs that it names.

use std::collections::BTreeSet;

use crate::{broker::github::Repository, files::read_small, workspace::Workspace};

/// Nobody has more, and each becomes a few rules.
const MOST: usize = 20;

/// # Errors
/// The repository's config cannot be read.
pub(super) fn remotes(workspace: &Workspace) -> anyhow::Result<BTreeSet<Repository>> {
    let Some(config) = &workspace.git_config else { return Ok(BTreeSet::new()) };
    Ok(of_config(&read_small(config)?.unwrap_or_default()))
}

/// Values with quotes, escapes or comments are left out: none of GitHub's addresses needs one.
fn of_config(text: &str) -> BTreeSet<Repository> {
    let mut in_remote = false;
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            let section = line.to_ascii_lowercase();
            in_remote = section.starts_with("[remote \"") && section.ends_with("\"]");
        } else if let Some((key, value)) = line.split_once('=').filter(|_| in_remote)
            && ["url", "pushurl"].contains(&key.trim().to_ascii_lowercase().as_str())
        {
            found.extend(Repository::of_remote(value.trim()));
        }
    }
    found.into_iter().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_on_github_are_found_and_nothing_else() {
        let text = "[core]\n\turl = https://github.com/not/this\n[remote \"origin\"]\n\turl = git@github.com:me/proj.git\n\
            \tfetch = +refs/heads/*:refs/remotes/origin/*\n[Remote \"up\"]\n\tURL=https://github.com/them/proj\n\
            \tpushurl = \"https://github.com/quoted/x\"\n[remote \"lab\"]\n\turl = https://gitlab.com/me/proj\n\
            [branch \"main\"]\n\tremote = origin\n\turl = https://github.com/no/branch\n[remote \"x\"] url = https://github.com/a/b\n";
        let found: Vec<String> = of_config(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["me/proj", "them/proj"]);
    }
}
