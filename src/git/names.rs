//! Names of branches, tags and objects. Those that come from an agent are chosen by an adversary.

use std::collections::BTreeSet;

/// The longest name of a reference that is taken as it is.
const LONGEST: usize = 200;

/// Whether this is the name of an object: SHA-1 or SHA-256, in lower case.
pub(super) fn is_oid(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of no object, as long as this one.
pub(super) fn zero(like: &str) -> String {
    "0".repeat(like.len())
}

/// Whether git takes this as the name of a reference; what `git check-ref-format` says.
pub(super) fn is_ref(name: &str) -> bool {
    let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let fit = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.strip_suffix(".lock").is_none()
            && !part.contains("..")
    };
    name.contains('/')
        && name.len() <= 4 * LONGEST
        && !name.contains(odd)
        && !name.contains("@{")
        && !name.ends_with('.')
        && name.split('/').all(fit)
}

/// What a name could be mistaken for on the host: short names of branches, tags and remote ones, as git resolves them.
#[derive(Debug, Default)]
pub(super) struct Taken {
    short: BTreeSet<String>,
    folded: BTreeSet<String>,
}

impl Taken {
    pub(super) fn of<'a>(refs: impl Iterator<Item = &'a str>) -> Self {
        let mut taken = Self::default();
        for name in refs {
            taken.folded.insert(name.to_lowercase());
            taken.short.extend(short(name).map(str::to_owned));
            // `origin` means `refs/remotes/origin/HEAD`.
            if let Some(remote) = name.strip_prefix("refs/remotes/").and_then(|name| name.split('/').next()) {
                taken.short.insert(remote.to_owned());
            }
        }
        taken
    }

    /// Whether the new reference `name` can be given that name on the host: nobody could take it for another one, and no
    /// program for an option.
    pub(super) fn leaves(&self, name: &str) -> bool {
        let Some(short) = short(name) else { return false };
        let parts = || short.split('/');
        let is_plain = |part: &str| {
            part.len() <= 100
                && !part.starts_with('-')
                && part.chars().all(|c| c.is_alphanumeric() || "-_.+#@=,()!%&".contains(c))
        };
        let is_number = short.len() >= 4 && short.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_own = name.starts_with("refs/heads/pi/") || name.starts_with("refs/tags/pi/");
        let is_special = parts().next().is_some_and(|first| {
            matches!(first, "refs" | "heads" | "tags" | "remotes" | "pi") || first.ends_with("HEAD")
        });
        name.len() <= LONGEST
            && parts().count() <= 16
            && parts().all(is_plain)
            && !is_number
            && !is_own
            && !is_special
            && !self.short.contains(short)
            && !self.folded.contains(&name.to_lowercase())
    }
}

/// A name of which everything odd is gone, to keep something under.
pub(super) fn tame(name: &str) -> String {
    let name = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/")).unwrap_or(name);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let part = |part: &str| {
        let part: String = part
            .chars()
            .take(60)
            .enumerate()
            .map(|(n, c)| if n > 0 && c == '.' { '.' } else { plain(c) })
            .collect();
        part.replace("..", "__")
            .trim_end_matches('.')
            .replace(".lock", "_lock")
            .trim_start_matches('-')
            .to_owned()
    };
    let parts: Vec<String> = name.split('/').take(8).map(part).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "work".to_owned() } else { parts.join("/") }
}

fn short(name: &str) -> Option<&str> {
    ["refs/heads/", "refs/tags/", "refs/remotes/", "refs/notes/"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_git_takes_is_a_reference() {
        for name in
            ["refs/heads/main", "refs/tags/v1.0", "refs/heads/a/b-c_d", "refs/heads/é", "refs/heads/@"]
        {
            assert!(is_ref(name), "{name}");
        }
        for name in [
            "main", "refs/heads/", "refs//x", "refs/heads/a..b", "refs/heads/a b", "refs/heads/a.lock",
            "refs/heads/.a", "refs/heads/a.", "refs/heads/a\n", "refs/heads/a:b", "refs/heads/a@{b",
            "refs/heads/../x", "refs/heads/*", "refs/heads/\u{1b}[0m", "refs/x.lock/y",
        ] {
            assert!(!is_ref(name), "{name}");
        }
    }

    #[test]
    fn a_new_name_that_could_be_mistaken_is_not_given() {
        let taken = Taken::of(
            ["refs/heads/main", "refs/tags/v1", "refs/remotes/origin/HEAD", "refs/remotes/origin/dev"]
                .into_iter(),
        );
        for name in [
            "refs/heads/fix", "refs/heads/feature/x-1", "refs/tags/v2.0", "refs/heads/größe",
            "refs/heads/a%b",
        ] {
            assert!(taken.leaves(name), "{name}");
        }
        for name in [
            "refs/tags/main", "refs/heads/v1", "refs/heads/origin/dev", "refs/heads/origin",
            "refs/heads/HEAD", "refs/heads/FETCH_HEAD", "refs/heads/refs/heads/main", "refs/heads/-x",
            "refs/heads/a/-x", "refs/heads/pi/x", "refs/heads/deadbeef", "refs/heads/MAIN", "refs/heads/a;b",
            "refs/heads/$(x)", "refs/heads/`x`", "refs/heads/a\u{202e}b", "refs/heads/pi",
        ] {
            assert!(!taken.leaves(name), "{name}");
        }
    }

    #[test]
    fn what_is_kept_has_a_name_that_git_takes() {
        for (name, kept) in [
            ("refs/heads/feature/x", "feature/x"),
            ("refs/tags/main", "tags/main"),
            ("refs/heads/-x/$(y)", "x/__y_"),
            ("refs/heads/a.lock/b.", "a_lock/b"),
            ("refs/heads/é", "_"),
            ("HEAD", "HEAD"),
        ] {
            assert_eq!(tame(name), kept);
            assert!(is_ref(&format!("refs/heads/pi/{kept}")));
        }
    }
}
