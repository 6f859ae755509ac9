//! The variants of the image, and how a project's files choose one.

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    files::{is_plain_file, read_plain},
    report::{Finding, short},
};

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

    /// The language that has this variant and no other.
    pub(crate) fn lang(self) -> Lang {
        match self {
            Self::Base => Lang::Base,
            Self::Go => Lang::Go,
            Self::Php84 => Lang::Php84,
            Self::Php85 => Lang::Php85,
        }
    }

    /// The language of a project whose caches are worth keeping; none for a directory that is no project.
    pub(crate) fn caches(self, cwd: &Path, root: &Path) -> Option<&'static str> {
        let has_packages = || [cwd, root].iter().any(|dir| is_plain_file(&dir.join("package.json")));
        match self {
            Self::Base if !has_packages() => None,
            _ => Some(self.name()),
        }
    }
}

impl Lang {
    /// The variant for a project.
    pub(crate) fn variant(self, cwd: &Path, root: &Path) -> Choice {
        let chosen = |variant| Choice { variant, by: None, finding: None };
        match self {
            Self::Base => chosen(Variant::Base),
            Self::Go => chosen(Variant::Go),
            Self::Php | Self::Php85 => chosen(Variant::Php85),
            Self::Php84 => chosen(Variant::Php84),
            Self::Auto => [cwd, root].iter().find_map(|dir| detect(dir)).unwrap_or(chosen(Variant::Base)),
        }
    }
}

/// A chosen variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) variant: Variant,
    /// For `auto`, the file that chose it.
    pub(crate) by: Option<&'static str>,
    /// Why the variant may be another than the project needs.
    pub(crate) finding: Option<Finding>,
}

/// Agents can write these files, so no link is followed: it would tell whether a file of the host exists.
fn detect(dir: &Path) -> Option<Choice> {
    if is_plain_file(&dir.join("go.mod")) {
        return Some(Choice { variant: Variant::Go, by: Some("go.mod"), finding: None });
    }
    let composer = dir.join("composer.json");
    if !is_plain_file(&composer) {
        return None;
    }
    let choose = "`--lang php8.4` and `--lang php8.5` choose another image";
    let (variant, finding) = match composer_constraint(&composer) {
        Err(why) => {
            let what = format!("`{}`: {why}; using PHP 8.5", composer.display());
            (Variant::Php85, Some(Finding::hinted(what, choose)))
        }
        Ok(Some(text)) if !admits(&text, 5) && admits(&text, 4) => (Variant::Php84, None),
        Ok(Some(text)) if !admits(&text, 5) => {
            let what = format!(
                "`composer.json` asks for PHP `{}`, and there are images with 8.4 and 8.5 only; using 8.5",
                short(&text)
            );
            (Variant::Php85, Some(Finding::hinted(what, choose)))
        }
        Ok(_) => (Variant::Php85, None),
    };
    Some(Choice { variant, by: Some("composer.json"), finding })
}

/// What the project asks for, or why that is not known.
fn composer_constraint(path: &Path) -> Result<Option<String>, String> {
    let text = read_plain(path).map_err(|error| short(&error.to_string()))?;
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| format!("it is no JSON: {}", short(&error.to_string())))?;
    match json.get("require").and_then(|require| require.get("php")) {
        None => Ok(None),
        Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err("`require.php` is no text".to_owned()),
    }
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
    use std::fs;

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
            let choice = Lang::Auto.variant(dir.path(), dir.path());
            assert_eq!((choice.variant, choice.by), (want, Some("composer.json")), "{constraint}");
            assert_eq!(choice.finding.is_some(), constraint == "^7.4", "{constraint}");
        }
    }

    #[test]
    fn a_broken_or_hostile_composer_file_is_told_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let composer = dir.path().join("composer.json");
        let told = |text: &str| {
            fs::write(&composer, text).unwrap();
            let choice = Lang::Auto.variant(dir.path(), dir.path());
            assert_eq!(choice.variant, Variant::Php85);
            let what = choice.finding.unwrap().what;
            assert!(what.len() < 600 && !what.contains('\n'), "{what}");
            what
        };
        assert!(told("{\"require\":").contains("it is no JSON"));
        assert!(told("{\"require\":{\"php\":8}}").contains("is no text"));
        told(&format!("{{\"require\":{{\"php\":\"{}\"}}}}", "^7.4\\n ".repeat(20_000)));
        told(&"[".repeat(500_000));
        told(&" ".repeat(2 << 20));
    }

    #[test]
    fn a_link_chooses_no_image() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["go.mod", "composer.json", "package.json"] {
            std::os::unix::fs::symlink("/etc/passwd", dir.path().join(name)).unwrap();
        }
        let choice = Lang::Auto.variant(dir.path(), dir.path());
        assert_eq!(choice, Choice { variant: Variant::Base, by: None, finding: None });
        assert_eq!(choice.variant.caches(dir.path(), dir.path()), None);
    }

    #[test]
    fn only_a_project_of_a_language_keeps_caches() {
        let dir = tempfile::tempdir().unwrap();
        let caches = |variant: Variant| variant.caches(dir.path(), dir.path());
        assert_eq!((caches(Variant::Base), caches(Variant::Go)), (None, Some("go")));
        fs::write(dir.path().join("package.json"), "{}").unwrap();
        assert_eq!(caches(Variant::Base), Some("base"));
    }

    #[test]
    fn go_wins_over_php_and_the_nearer_directory_over_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("web");
        fs::create_dir(&below).unwrap();
        fs::write(dir.path().join("go.mod"), "module x").unwrap();
        fs::write(below.join("composer.json"), "{}").unwrap();
        assert_eq!(Lang::Auto.variant(dir.path(), dir.path()).variant, Variant::Go);
        assert_eq!(Lang::Auto.variant(&below, dir.path()).variant, Variant::Php85);
    }
}
