//! What is told about the agent's directory, and what was told before.

use std::{collections::BTreeSet, path::Path};

use crate::report::{self, Finding, shown_path};

/// A sentence, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) text: String,
    pub(crate) hint: Option<String>,
    /// What it is about, where it is told only once on this machine.
    pub(crate) once: Option<String>,
    /// Good news.
    good: bool,
}

impl Notice {
    pub(crate) fn new(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { text: text.into(), hint: Some(hint.into()), once: None, good: false }
    }

    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, once: None, good: false }
    }

    pub(crate) fn good(text: impl Into<String>) -> Self {
        Self { good: true, ..Self::plain(text) }
    }

    pub(crate) fn say(&self) {
        if self.good { report::note(&self.text) } else { self.finding().warn() }
    }

    pub(crate) fn finding(&self) -> Finding {
        match &self.hint {
            Some(hint) => Finding::hinted(&self.text, hint),
            None => Finding::plain(&self.text),
        }
    }

    pub(crate) fn once(self, about: impl Into<String>) -> Self {
        Self { once: Some(about.into()), ..self }
    }
}

/// The largest note of what was told; what comes after it is told again.
const MOST: usize = 64 << 10;

/// Those that are to be told, and the note of what was told once they were: one subject a line.
pub(crate) fn untold(notices: Vec<Notice>, told: &str) -> (Vec<Notice>, String) {
    let mut known: BTreeSet<String> = told.lines().map(str::to_owned).collect();
    let mut note = told.to_owned();
    let fresh = notices.into_iter().filter(|notice| {
        let Some(about) = &notice.once else { return true };
        let line = report::one_line(about);
        if !known.insert(line.clone()) {
            return false;
        }
        if note.len() + line.len() < MOST {
            note.push_str(&line);
            note.push('\n');
        }
        true
    });
    (fresh.collect(), note)
}

/// What a session may have written, as a part of a sentence.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown: String = text.chars().take(MOST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    report::one_line(&shown)
}

/// The first of many names, each in backticks.
pub(crate) fn list(names: &[&str]) -> String {
    const MOST: usize = 5;
    let first: Vec<String> = names.iter().take(MOST).map(|name| format!("`{}`", shown(name))).collect();
    match names.len().checked_sub(MOST) {
        None | Some(0) => first.join(", "),
        Some(more) => format!("{} and {more} more", first.join(", ")),
    }
}

/// A path in the agent's directory, as the user knows it.
pub(crate) fn in_agent_dir(dir: &Path, name: &str) -> String {
    shown_path(&dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_once_is_not_told_again_and_the_rest_is() {
        let notices =
            || vec![Notice::plain("a").once("x\ny"), Notice::plain("b"), Notice::plain("c").once("x\ny")];
        let (first, note) = untold(notices(), "");
        assert_eq!(first.iter().map(|notice| notice.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(note.lines().count(), 1);
        let (second, again) = untold(notices(), &note);
        assert_eq!(second.iter().map(|notice| notice.text.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(again, note);
    }

    #[test]
    fn a_list_is_short_whatever_it_lists() {
        let long = "x".repeat(1000);
        let names: Vec<&str> = std::iter::repeat_n(long.as_str(), 1000).collect();
        let said = list(&names);
        assert!(said.len() < 400 && said.ends_with("and 995 more"), "{said}");
        assert_eq!(list(&["a\u{1b}b"]), "`a\u{fffd}b`");
    }
}
