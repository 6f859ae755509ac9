//! What is told of an agent's commits at the end: only what did not take its own place.

use std::collections::BTreeMap;

use crate::{
    git::takeover::{Aside, Taken},
    report::{Finding, one_line},
};

/// How many lines a notice has at most.
const LINES: usize = 8;

/// What all passes of a session have said, as it stands after the last one.
#[derive(Debug, Default)]
pub(super) struct CameOver {
    aside: BTreeMap<String, Aside>,
    deleted: Vec<String>,
    refused: Vec<(String, String)>,
    more: bool,
    /// Why it is worth another try.
    pub(super) later: Option<String>,
}

impl CameOver {
    /// Adds what another pass has said.
    pub(super) fn add(&mut self, taken: Taken) {
        let Taken { updated, tags, head: _, aside, deleted, refused, more, later } = taken;
        for name in updated.iter().chain(&tags) {
            self.aside.remove(name);
        }
        self.aside.extend(aside.into_iter().map(|aside| (aside.name.clone(), aside)));
        self.deleted = deleted;
        self.refused = refused;
        self.more = more;
        self.later = later;
    }

    /// Why something is in the agent's git directory alone, in a line for each, where there is something.
    pub(super) fn kept(&self) -> Option<String> {
        let refused = self.refused.iter().take(LINES);
        let mut lines: Vec<String> =
            refused.map(|(name, why)| format!("`{}`: {}", short(name), one_line(why))).collect();
        let hidden = self.refused.len().saturating_sub(lines.len());
        if hidden > 0 || self.more {
            lines
                .push(format!("and {} more", if self.more { "many".to_owned() } else { hidden.to_string() }));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// Tells it.
    pub(super) fn tell(&self) {
        for finding in self.findings() {
            finding.warn();
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let aside: Vec<&Aside> = self.aside.values().collect();
        for Aside { name, kept, reason } in aside.iter().take(LINES) {
            let name = if name == "HEAD" {
                "a commit of the agent's".to_owned()
            } else {
                format!("the agent's `{}`", short(name))
            };
            findings.push(Finding::plain(format!("{name} is kept as `{kept}`: {reason}")));
        }
        if aside.len() > LINES {
            let rest = aside.len() - LINES;
            findings.push(Finding::plain(format!(
                "{rest} more are kept: `git for-each-ref refs/heads/pi refs/tags/pi`"
            )));
        }
        if let Some(last) = findings.last_mut() {
            let Aside { kept, .. } = aside[0];
            last.hint = Some(format!("`git merge {kept}` brings it in"));
        }
        if !self.deleted.is_empty() {
            let names: Vec<String> =
                self.deleted.iter().take(LINES).map(|name| format!("`{}`", short(name))).collect();
            let more = if self.deleted.len() > LINES { " and others" } else { "" };
            findings.push(Finding::plain(format!(
                "the agent deleted {}{more}; they are still here",
                names.join(", ")
            )));
        }
        findings
    }
}

fn short(name: &str) -> String {
    let short = ["refs/heads/", "refs/tags/", "refs/"].iter().find_map(|prefix| name.strip_prefix(prefix));
    one_line(short.unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aside(name: &str, reason: &str) -> Aside {
        Aside { name: name.into(), kept: format!("pi/s/{}", short(name)), reason: reason.into() }
    }

    #[test]
    fn what_has_taken_its_place_later_is_not_told() {
        let mut came = CameOver::default();
        let both = vec![aside("refs/heads/a", "x"), aside("refs/heads/b", "you have moved it meanwhile")];
        came.add(Taken {
            aside: both,
            refused: vec![("refs/heads/c".into(), "late".into())],
            ..Taken::default()
        });
        assert_eq!(came.kept().as_deref(), Some("`c`: late"));
        came.add(Taken {
            updated: vec!["refs/heads/a".into()],
            deleted: vec!["refs/heads/old".into()],
            ..Taken::default()
        });
        assert_eq!(came.kept(), None);
        let told: Vec<_> = came.findings().into_iter().map(|finding| finding.what).collect();
        assert_eq!(
            told,
            [
                "the agent's `b` is kept as `pi/s/b`: you have moved it meanwhile",
                "the agent deleted `old`; they are still here"
            ]
        );
    }

    #[test]
    fn a_notice_stays_short() {
        let mut came = CameOver::default();
        let many = (0..100).map(|n| aside(&format!("refs/heads/b{n:03}"), "x")).collect();
        let refused = (0..100).map(|n| (format!("refs/heads/c{n}"), "y".to_owned())).collect();
        came.add(Taken { aside: many, refused, ..Taken::default() });
        assert_eq!(came.findings().len(), LINES + 1);
        assert_eq!(came.kept().unwrap().lines().count(), LINES + 1);
    }
}
