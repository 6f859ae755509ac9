//! The patterns of `hide`, which name files that no session may see.

use anyhow::bail;

use crate::report::Hinted;

/// Patterns in their order, as in a `.gitignore`: the last one that matches decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hide(Vec<Pattern>);

/// `.env*` matches names anywhere, `config/*.key` paths from the repository's root, `private/` directories only, and
/// `!.env.example` takes back what an earlier pattern hides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    glob: String,
    takes_back: bool,
    /// It matches the whole path, and not the name alone.
    is_path: bool,
    /// It matches directories only.
    is_directory: bool,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let shown = text.escape_debug();
        let takes_back = text.starts_with('!');
        let rest = text.strip_prefix('!').unwrap_or(text);
        if rest.starts_with('~') {
            bail!(Hinted::error(
                format!("`{shown}` is a path of your home, and `hide` names files of repositories"),
                "write a name such as `.env*`, or a path from the repository's root such as `config/*.key`",
            ));
        }
        let is_directory = rest.ends_with('/');
        let rest = rest.trim_end_matches('/');
        let is_path = rest.contains('/');
        let glob = rest.trim_start_matches('/').to_owned();
        let is_odd = |part: &str| matches!(part, "" | "." | "..");
        if glob.split('/').any(is_odd) || glob.chars().any(char::is_control) || !is_balanced(&glob) {
            bail!("`{shown}` is not a pattern of file names such as `.env*`");
        }
        Ok(Self { glob, takes_back, is_path, is_directory })
    }

    fn matches(&self, path: &[u8], name: &[u8], is_directory: bool) -> bool {
        (is_directory || !self.is_directory)
            && fast_glob::glob_match(&self.glob, if self.is_path { path } else { name })
    }
}

impl Hide {
    pub(crate) fn new(patterns: Vec<Pattern>) -> Self {
        Self(patterns)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a file or directory is hidden. `path` begins at the repository's root.
    pub(crate) fn hides(&self, path: &[u8], is_directory: bool) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let last = self.0.iter().rev().find(|pattern| pattern.matches(path, name, is_directory));
        last.is_some_and(|pattern| !pattern.takes_back)
    }
}

/// A pattern with half a bracket would match nothing.
fn is_balanced(glob: &str) -> bool {
    let mut open = Vec::new();
    let mut chars = glob.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return false,
            '[' | '{' => open.push(c),
            ']' if open.pop() != Some('[') => return false,
            '}' if open.pop() != Some('{') => return false,
            _ => {}
        }
    }
    open.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hide(patterns: &[&str]) -> Hide {
        Hide::new(patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect())
    }

    #[test]
    fn a_pattern_matches_as_in_a_gitignore() {
        let env = hide(&[".env*", "!.env.example", "/top.key", "config/**/*.pem", "private/"]);
        for path in
            [".env", ".env.local", "a/b/.env", "top.key", "config/x.pem", "config/a/b/x.pem", ".envrc"]
        {
            assert!(env.hides(path.as_bytes(), false), "{path}");
        }
        for path in [".env.example", "a/.env.example", "a/top.key", "x.pem", "private", "env", "x.env"] {
            assert!(!env.hides(path.as_bytes(), false), "{path}");
        }
        assert!(env.hides(b"a/private", true));
        assert!(env.hides(b"a/.env.\xff", false), "a name that is not UTF-8");
        assert!(!hide(&[]).hides(b".env", false));
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for text in ["", "/", "!", "a/../b", "./a", "a//b", "[a", "{a,b", "a}", "a\\", "~/.env", "a\nb"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
        for text in ["[ab].key", "*.{pem,key}", "a\\[b", "!a/"] {
            assert!(Pattern::parse(text).is_ok(), "{text:?}");
        }
    }
}
