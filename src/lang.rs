//! The variants of the image, and how a project's files choose one.

use std::{fs, path::Path};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::files::read_small;

/// A language that a user may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lang {
    Base,
    Go,
    Php,
    #[serde(rename = "php8.4")]
    #[value(name = "php8.4")]
    Php84,
    #[serde(rename = "php8.5")]
    #[value(name = "php8.5")]
    Php85,
    Auto,
}

/// A variant of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    Base,
    Go,
    #[serde(rename = "php8.4")]
    Php84,
    #[serde(rename = "php8.5")]
    Php85,
}

impl Variant {
    pub(crate) const ALL: [Self; 4] = [Self::Base, Self::Go, Self::Php84, Self::Php85];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Go => "go",
            Self::Php84 => "php8.4",
            Self::Php85 => "php8.5",
        }
    }
}

impl Lang {
    /// The variant for a project. For `auto`, also the file that chose it.
    pub(crate) fn variant(self, cwd: &Path, root: &Path) -> (Variant, Option<&'static str>) {
        match self {
            Self::Base => (Variant::Base, None),
            Self::Go => (Variant::Go, None),
            Self::Php | Self::Php85 => (Variant::Php85, None),
            Self::Php84 => (Variant::Php84, None),
            Self::Auto => [cwd, root].iter().find_map(|dir| detect(dir)).unwrap_or((Variant::Base, None)),
        }
    }
}

fn detect(dir: &Path) -> Option<(Variant, Option<&'static str>)> {
    if dir.join("go.mod").is_file() {
        return Some((Variant::Go, Some("go.mod")));
    }
    let composer = dir.join("composer.json");
    fs::metadata(&composer).ok().filter(fs::Metadata::is_file)?;
    let constraint = composer_constraint(&composer);
    let variant = match constraint {
        Some(text) if !admits(&text, 5) && admits(&text, 4) => Variant::Php84,
        _ => Variant::Php85,
    };
    Some((variant, Some("composer.json")))
}

fn composer_constraint(path: &Path) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(&read_small(path).ok()??).ok()?;
    json.get("require")?.get("php")?.as_str().map(str::to_owned)
}

/// Whether a simple composer constraint admits a version of PHP 8.`minor`.
fn admits(constraint: &str, minor: u32) -> bool {
    constraint
        .split('|')
        .filter(|part| !part.trim().is_empty())
        .any(|part| part.replace(',', " ").split_whitespace().all(|term| term_admits(term, minor)))
}

fn term_admits(term: &str, minor: u32) -> bool {
    let at = term.find(|c: char| c.is_ascii_digit() || c == '*').unwrap_or(term.len());
    let (operator, version) = term.split_at(at);
    let parts: Vec<Option<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    let given = parts.iter().take_while(|part| part.is_some()).count();
    let [want_major, want_minor] = [0, 1].map(|i| parts.get(i).copied().flatten().unwrap_or(0));
    let this = (8, minor);
    let that = (want_major, want_minor);
    match operator.trim_start_matches('v') {
        _ if given == 0 => true,
        ">=" => this >= that,
        ">" if given > 2 => this >= that,
        ">" => this > that,
        "<=" => this <= that,
        // `<8.5.3` admits 8.5.2, but `<8.5` admits no 8.5.
        "<" if given > 2 && parts[2] != Some(0) => this <= that,
        "<" => this < that,
        "~" if given > 2 => this == that,
        "^" | "~" => this.0 == that.0 && this >= that,
        "!=" => true,
        _ if given == 1 => this.0 == that.0,
        _ => this == that,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_php_that_the_project_admits_is_taken() {
        for (constraint, wants) in [
            ("^8.2", 5),
            (">=8.1", 5),
            ("~8.4.0", 4),
            ("8.4.*", 4),
            (">=8.2 <8.5", 4),
            ("^8.4 || ^9.0", 5),
            ("8.4", 4),
            ("*", 5),
            ("<8.5.0", 4),
            ("^7.4", 5),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("composer.json"), format!(r#"{{"require":{{"php":"{constraint}"}}}}"#))
                .unwrap();
            let want = if wants == 5 { Variant::Php85 } else { Variant::Php84 };
            assert_eq!(
                Lang::Auto.variant(dir.path(), dir.path()),
                (want, Some("composer.json")),
                "{constraint}"
            );
        }
    }

    #[test]
    fn go_wins_over_php_and_the_nearer_directory_over_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("web");
        fs::create_dir(&below).unwrap();
        fs::write(dir.path().join("go.mod"), "module x").unwrap();
        fs::write(below.join("composer.json"), "{}").unwrap();
        assert_eq!(Lang::Auto.variant(dir.path(), dir.path()).0, Variant::Go);
        assert_eq!(Lang::Auto.variant(&below, dir.path()).0, Variant::Php85);
    }
}
