//! Finds the key or value at a position in a settings file.

use std::{
    fmt::{self, Display},
    ops::Range,
};

use toml::de::{DeTable, DeValue};

use super::DEFAULTS;

/// The hint if there is no key to suggest.
pub(super) const A_SETTING: &str =
    "write settings like `lang = \"go\"` and lists like `[\"a\", \"b\"]`; the README explains each key";

/// The place of a mistake in a settings file.
pub(super) enum Place {
    Key(Key),
    Value(Key),
    Nowhere,
}

/// A key of the settings, with its section.
pub(super) struct Key {
    section: Option<String>,
    name: String,
}

impl Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Place {
    /// Finds the key or value at `span`, in the part of the file that can be parsed.
    pub(super) fn of(text: &str, span: &Range<usize>) -> Self {
        let (document, _) = DeTable::parse_recoverable(text);
        Self::within(document.get_ref(), None, span).unwrap_or(Self::Nowhere)
    }

    fn within(table: &DeTable<'_>, section: Option<&str>, span: &Range<usize>) -> Option<Self> {
        table.iter().find_map(|(key, value)| {
            let name = key.get_ref().to_string();
            let found = || Key { section: section.map(str::to_owned), name: name.clone() };
            if key.span().contains(&span.start) {
                return Some(Self::Key(found()));
            }
            match value.get_ref() {
                DeValue::Table(table) if section.is_none() && SECTIONS.contains(&name.as_str()) => {
                    Self::within(table, Some(&name), span)
                }
                _ if value.span().contains(&span.start) => Some(Self::Value(found())),
                _ => None,
            }
        })
    }
}

/// All sections.
const SECTIONS: [&str; 2] = ["images", "subagents"];

impl Key {
    /// A hint at the key that the user may have meant by this unknown one.
    pub(super) fn nearest(&self) -> Option<String> {
        let (defaults, _) = DeTable::parse_recoverable(DEFAULTS);
        let top = defaults.get_ref();
        let table = |section: &str| top.get(section).and_then(|table| table.get_ref().as_table());
        let here = match &self.section {
            Some(section) => table(section)?,
            None => top,
        };
        let knows =
            |section: &&&str| table(section).is_some_and(|table| table.contains_key(self.name.as_str()));
        match (&self.section, SECTIONS.iter().find(knows)) {
            (Some(section), None) if top.contains_key(self.name.as_str()) => {
                return Some(format!("`{self}` belongs above the section `[{section}]`"));
            }
            (_, Some(section)) => return Some(format!("`{self}` belongs in the section `[{section}]`")),
            _ => {}
        }
        here.keys()
            .map(|key| (strsim::jaro_winkler(key.get_ref(), &self.name), key))
            .filter(|(likeness, _)| *likeness > 0.85)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, key)| format!("did you mean `{}`?", key.get_ref()))
    }
}

/// The number of the line on which `span` begins.
pub(super) fn line_of(text: &str, span: &Range<usize>) -> usize {
    1 + text[..span.start.min(text.len())].matches('\n').count()
}
