//! The agent's `trust.json`: whether a project's own settings and extensions are loaded.
//!
//! What is decided inside holds inside. An agent can write the file itself, and for the agent on the host, to trust a
//! project is to run its code: so the decisions of sessions are kept among the launcher's own files, for sessions.

use std::{collections::BTreeMap, path::Path};

use super::{
    notice::{Notice, shown},
    settings,
};

/// By the path for which it was made.
pub(crate) type Decisions = BTreeMap<String, bool>;

/// How many a session may add.
const MANY: usize = 50;

/// Reads what the agent or this launcher wrote. Whatever is no decision is passed over.
///
/// # Errors
/// It is no table.
pub(crate) fn parse(text: &str) -> Result<Decisions, String> {
    let all = settings::parse(text)?;
    Ok(all.into_iter().filter_map(|(path, value)| Some((path, value.as_bool()?))).collect())
}

pub(crate) fn text(decisions: &Decisions) -> String {
    serde_json::to_string_pretty(decisions).unwrap_or_default() + "\n"
}

/// What a session gets: the decisions for its repository and for what is above it, of the host's and of former
/// sessions'. Where the user distrusts a project on the host, sessions do too. No path of another project is among them.
pub(crate) fn for_session(host: &Decisions, sessions: &Decisions, root: &Path) -> Decisions {
    let concerns = |path: &str| root.starts_with(path) || is_of(root, path);
    let of_host = || host.iter().filter(|(path, _)| concerns(path));
    let mut all: Decisions = of_host().map(|(path, trusted)| (path.clone(), *trusted)).collect();
    let of_sessions = sessions.iter().filter(|(path, _)| is_of(root, path));
    all.extend(of_sessions.map(|(path, trusted)| (path.clone(), *trusted)));
    all.extend(of_host().filter(|(_, trusted)| !**trusted).map(|(path, _)| (path.clone(), false)));
    all
}

/// Whether a decision is for this repository or something in it.
fn is_of(root: &Path, path: &str) -> bool {
    Path::new(path).starts_with(root) && !path.split('/').any(|part| part == ".." || part == ".")
}

/// Brings what a session has decided for its own repository into what former ones have; and what is told.
pub(crate) fn merge(
    before: &str,
    after: &str,
    sessions: &Decisions,
    root: &Path,
) -> (Option<Decisions>, Vec<Notice>) {
    // An agent that is killed while it writes leaves an empty file.
    if after.trim().is_empty() {
        return (None, vec![]);
    }
    let (Ok(before), Ok(after)) = (parse(before), parse(after)) else { return (None, vec![]) };
    let mut merged = sessions.clone();
    let mut notices = Vec::new();
    for path in before.keys().filter(|path| !after.contains_key(*path) && is_of(root, path)) {
        merged.remove(path);
    }
    let changed = after.iter().filter(|(path, trusted)| before.get(*path) != Some(*trusted));
    for (path, trusted) in changed.take(MANY) {
        if is_of(root, path) && path.len() < 4096 {
            merged.insert(path.clone(), *trusted);
        } else if notices.is_empty() {
            notices.push(Notice::new(
                format!(
                    "the session's decision to trust `{}` was not kept: it is not this repository",
                    shown(path)
                ),
                "choose \"Trust\" for the folder itself, which is kept; or decide on the host",
            ));
        }
    }
    ((merged != *sessions).then_some(merged), notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(all: &[(&str, bool)]) -> Decisions {
        all.iter().map(|(path, trusted)| ((*path).to_owned(), *trusted)).collect()
    }

    #[test]
    fn a_session_sees_what_concerns_it_and_the_hosts_distrust_wins() {
        let host = decisions(&[("/", true), ("/w", true), ("/w/a", false), ("/w/ab", true), ("/w/b", true)]);
        let sessions = decisions(&[("/w/a", true), ("/w/a/sub", true), ("/w/b", true), ("/w", false)]);
        let seen = for_session(&host, &sessions, Path::new("/w/a"));
        assert_eq!(seen, decisions(&[("/", true), ("/w", true), ("/w/a", false), ("/w/a/sub", true)]));
    }

    #[test]
    fn only_decisions_for_this_repository_come_back() {
        let root = Path::new("/w/a");
        let known = decisions(&[("/w/b", true), ("/w/a/old", true)]);
        let before = r#"{"/w/a/old":true,"/":false}"#;
        let after =
            r#"{"/w/a":true,"/w":true,"/w/a/../b":true,"/w/ab":true,"/w/a/x":null,"/w/b":false,"a":true}"#;
        let (merged, notices) = merge(before, after, &known, root);
        assert_eq!(merged, Some(decisions(&[("/w/a", true), ("/w/b", true)])));
        assert_eq!(notices.len(), 1);
        assert_eq!(merge(after, after, &known, root), (None, vec![]));
        for broken in ["", " \n", "[]", "{", "17", &"[".repeat(100_000)] {
            assert!(merge(before, broken, &known, root).0.is_none(), "{broken:.20}");
        }
    }
}
