//! Patterns that name files of repositories: those of `hide` and of `copy_ignored`.

use anyhow::bail;

use crate::report::Hinted;

/// Patterns in their order, as in a `.gitignore`: the last one that matches decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Patterns(Vec<Pattern>);

/// `.env*` matches names anywhere, `config/*.key` paths from the repository's root, `private/` directories only, and
/// `!.env.example` takes back what an earlier pattern names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// The names of a path, with `*` and `?`; `**` is any number of directories.
    names: Vec<String>,
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
                format!("`{shown}` is a path of your home, and patterns name files of repositories"),
                "write a name such as `.env*`, or a path from the repository's root such as `config/*.key`",
            ));
        }
        let is_directory = rest.ends_with('/');
        let rest = rest.trim_end_matches('/');
        let is_path = rest.contains('/');
        let names: Vec<String> = rest.trim_start_matches('/').split('/').map(str::to_owned).collect();
        let is_odd = |name: &String| matches!(name.as_str(), "" | "." | "..");
        // Other programs give these a meaning, which they do not have here.
        if names.iter().any(is_odd) || rest.contains(|c: char| c.is_control() || "[]{}\\".contains(c)) {
            bail!("`{shown}` is not a pattern of file names, which are letters, `*` and `?` as in `.env*`");
        }
        Ok(Self { names, takes_back, is_path, is_directory })
    }

    fn matches(&self, path: &[&[u8]], is_directory: bool) -> bool {
        let path = if self.is_path { path } else { &path[path.len().saturating_sub(1)..] };
        (is_directory || !self.is_directory) && names_match(&self.names, path)
    }
}

impl Patterns {
    pub(crate) fn new(patterns: Vec<Pattern>) -> Self {
        Self(patterns)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether they name a file or directory. `path` begins at the repository's root.
    pub(crate) fn name(&self, path: &[u8], is_directory: bool) -> bool {
        let path: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let last = self.0.iter().rev().find(|pattern| pattern.matches(&path, is_directory));
        last.is_some_and(|pattern| !pattern.takes_back)
    }

    /// Whether they name a file, or a directory above it.
    pub(crate) fn cover(&self, path: &[u8]) -> bool {
        let above = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
        !self.is_empty() && (self.name(path, false) || above.into_iter().any(|dir| self.name(dir, true)))
    }
}

fn names_match(patterns: &[String], names: &[&[u8]]) -> bool {
    match (patterns, names) {
        ([], []) => true,
        ([any, rest @ ..], _) if any == "**" => (0..=names.len()).any(|n| names_match(rest, &names[n..])),
        ([pattern, patterns @ ..], [name, names @ ..]) => {
            name_matches(pattern.as_bytes(), name) && names_match(patterns, names)
        }
        _ => false,
    }
}

/// Goes back to the last `*` alone: what an earlier one could match, the last one can, too.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut back = None;
    while seen < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                back = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((star, from)) = back else { return false };
                back = Some((star, from + 1));
                (at, seen) = (star + 1, from + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hide(patterns: &[&str]) -> Patterns {
        Patterns::new(patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect())
    }

    #[test]
    fn a_pattern_matches_as_in_a_gitignore() {
        let env = hide(&[".env*", "!.env.example", "/top.key", "config/**/*.pem", "private/"]);
        for path in
            [".env", ".env.local", "a/b/.env", "top.key", "config/x.pem", "config/a/b/x.pem", ".envrc"]
        {
            assert!(env.name(path.as_bytes(), false), "{path}");
        }
        for path in [".env.example", "a/.env.example", "a/top.key", "x.pem", "private", "env", "x.env"] {
            assert!(!env.name(path.as_bytes(), false), "{path}");
        }
        assert!(env.name(b"a/private", true));
        assert!(env.name(b"a/.env.\xff", false), "a name that is not UTF-8");
        assert!(!hide(&[]).name(b".env", false));
        let odd = hide(&["a*b*c", "?x", "**/deep/*"]);
        for path in ["abc", "abbc", "aXbXbXc", "1x", "deep/a", "a/deep/b"] {
            assert!(odd.name(path.as_bytes(), false), "{path}");
        }
        for path in ["ab", "abcd", "x", "deep", "deep/a/b", "11x"] {
            assert!(!odd.name(path.as_bytes(), false), "{path}");
        }
    }

    #[test]
    fn a_directory_covers_what_is_below_it() {
        let patterns = hide(&["private/", "*.key"]);
        for path in ["private/a", "a/private/b/c", "x.key", "x.key/y"] {
            assert!(patterns.cover(path.as_bytes()), "{path}");
        }
        for path in ["private", "a/b"] {
            assert!(!patterns.cover(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for text in ["", "/", "!", "a/../b", "./a", "a//b", "[a]", "{a,b}", "a\\*", "~/.env", "a\nb"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
        for text in ["*.key", "**/a", "!a/", "/a b"] {
            assert!(Pattern::parse(text).is_ok(), "{text:?}");
        }
    }
}
