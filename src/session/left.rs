//! The look at the work tree when a session has ended: what git would take for a repository is out of action, and what
//! commonly runs on this machine is named.

use std::path::{Path, PathBuf};

use crate::{
    git::{
        given::{DIRECTORY, seen_before},
        left::note,
        scan::{Disarmed, Left, Risky, disarm},
        trees::Trees,
    },
    host::Host,
    record::Record,
    report::{self, Finding, one_line},
};

/// How many lines a notice has besides its first and last.
const LINES: usize = 5;

/// Looks at the work tree `root` of the session with this directory, and tells what is there.
pub(super) fn look(state: &Path, root: &Path, host: &Host) {
    let Some((seen, top)) = seen_before(&state.join(DIRECTORY)) else { return };
    let links = Trees::left(&state.join(DIRECTORY)).map(|trees| trees.links()).unwrap_or_default();
    match disarm(root, top, &seen, &links) {
        Ok(left) => {
            findings(&left).iter().for_each(Finding::warn);
            let session = Record::load(state).map(|record| record.name).unwrap_or_default();
            if let Err(error) = note(host, root, &session, &left.risky) {
                report::warn(format_args!("could not keep the names of these files for later: {error:#}"));
            }
        }
        Err(error) => report::warn(format_args!(
            "could not look at what the agent left in `{}`: {error}",
            root.display()
        )),
    }
}

/// At most ten lines, whatever an agent has left.
fn findings(left: &Left) -> Vec<Finding> {
    let Left { disarmed, risky, unseen } = left;
    let mut findings = Vec::new();
    let (done, failed): (Vec<_>, Vec<_>) = disarmed.iter().partition(|one| one.now.is_ok());
    if !done.is_empty() {
        let lines = listed(done.iter().map(|Disarmed { path, now }| {
            let now = now.as_deref().unwrap_or(path);
            format!("{} → {}", shown(path), now.file_name().unwrap_or_default().display())
        }));
        findings.push(Finding::hinted(
            format!("the agent left repositories in the work tree; git would run what they say, so they were renamed:{lines}"),
            "rename one back when you have looked at its `config` and `hooks`",
        ));
    }
    if !failed.is_empty() {
        let paths = failed.iter().map(|one| shown(&one.path)).take(LINES).collect::<Vec<_>>().join(", ");
        findings.push(Finding::plain(format!(
            "do not run git in {paths}: it is the agent's, and could not be renamed"
        )));
    }
    if !risky.is_empty() {
        let paths = in_one_line(risky.iter().map(|Risky { path, .. }| path.as_path()));
        findings.push(Finding::plain(format!(
            "new or changed, and commonly run on this machine (`pi diff --risky`): {paths}"
        )));
    }
    if !unseen.is_empty() {
        let paths = in_one_line(unseen.iter().map(PathBuf::as_path));
        findings
            .push(Finding::plain(format!("too deep or too much to look at, so do not run git in {paths}")));
    }
    findings
}

fn listed(lines: impl ExactSizeIterator<Item = String>) -> String {
    let all = lines.len();
    // With the line that says how many more there are it is never longer than without.
    let most = if all > LINES { LINES - 1 } else { LINES };
    let text = lines.take(most).fold(String::new(), |text, line| text + "\n" + &line);
    if all > most { format!("{text}\nand {} more", all - most) } else { text }
}

fn in_one_line<'a>(mut paths: impl ExactSizeIterator<Item = &'a Path>) -> String {
    const PATHS: usize = 12;
    let first = paths.by_ref().take(PATHS).map(shown).collect::<Vec<_>>().join(", ");
    match paths.len() {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn shown(path: &Path) -> String {
    let text = one_line(&path.to_string_lossy());
    if text.is_empty() { "the directory itself".to_owned() } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scan::Change;

    #[test]
    fn a_notice_has_at_most_ten_lines() {
        let one = |n: usize, is_done: bool| Disarmed {
            path: format!("d{n}/.git").into(),
            now: if is_done { Ok(format!("d{n}/.git.pi-quarantine").into()) } else { Err("no".into()) },
        };
        let left = Left {
            disarmed: (0..100).map(|n| one(n, n % 2 == 0)).collect(),
            risky: (0..100)
                .map(|n| Risky { path: format!("{n}/Makefile\n").into(), change: Change::New })
                .collect(),
            unseen: vec!["x".into()],
        };
        let findings = findings(&left);
        let lines: usize =
            findings.iter().map(|one| one.what.lines().count() + usize::from(one.hint.is_some())).sum();
        assert_eq!((findings.len(), lines), (4, 10), "{findings:#?}");
        assert!(findings[2].what.ends_with("and 88 more"), "{findings:#?}");
    }
}
