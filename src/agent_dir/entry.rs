//! What each name in the agent's directory stands for. Only what is known to be code or text goes along as it is: what
//! nobody knows may be a login of an extension's.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use crate::report::Hinted;

/// What a session gets of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A copy of the session's own.
    Copied,
    /// Code and text: it can be read.
    Read,
    /// Packages: they can be read, and are exchanged as a whole when some are installed.
    Package,
    /// Logins: the files themselves, or nothing.
    Login,
    /// Transcripts: this project's only.
    Transcripts,
    /// Programs of another platform, caches, logs, locks, scratch files: nobody would miss them.
    Dropped,
    /// Something of an extension's or of the user's.
    Unknown,
}

pub(crate) const SETTINGS: &str = "settings.json";
pub(crate) const TRUST: &str = "trust.json";
pub(crate) const LOGINS: &str = "auth.json";
pub(crate) const OTHER_LOGINS: &str = "mcp-auth.json";
pub(crate) const MODELS: &str = "models.json";
pub(crate) const KEYS: &str = "keybindings.json";
pub(crate) const TRANSCRIPTS: &str = "sessions";
pub(crate) const PACKAGES: [&str; 2] = ["npm", "git"];

impl Role {
    pub(crate) fn of(name: &str) -> Self {
        match name {
            SETTINGS | TRUST | MODELS | KEYS => Self::Copied,
            // `oauth.json` is what the agent made its logins of.
            LOGINS | OTHER_LOGINS | "oauth.json" | "oauth.json.migrated" => Self::Login,
            TRANSCRIPTS => Self::Transcripts,
            "npm" | "git" => Self::Package,
            // `commands` is what older agents called `prompts`; `agents` and `mcp.json` are read by extensions.
            "extensions" | "skills" | "prompts" | "commands" | "themes" | "agents" | "mcp.json" => Self::Read,
            "bin" | "tools" | "tmp" | "models-store.json" | "crashes.json" | "pi-debug.log" => Self::Dropped,
            _ if name.starts_with('.') || name.starts_with("mcp.log") => Self::Dropped,
            // Agents of long ago kept transcripts beside their settings.
            _ if has_ending(name, "lock") || has_ending(name, "jsonl") => Self::Dropped,
            _ if has_ending(name, "md") => Self::Read,
            _ => Self::Unknown,
        }
    }
}

fn has_ending(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// The name of an entry that the user's settings let sessions write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Persist(String);

impl Persist {
    /// # Errors
    /// It is no single name, or stands for code, settings, logins or transcripts.
    pub(crate) fn parse(name: &str) -> anyhow::Result<Self> {
        let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_. ".contains(&b));
        if name.is_empty()
            || name.len() > 100
            || !is_plain
            || name.starts_with(['.', ' '])
            || name.ends_with(' ')
        {
            return Err(Hinted::usage_hinted(
                format!(
                    "`{name}` cannot be kept between sessions: it is not the name of an entry of `~/.pi/agent`"
                ),
                "`persist` takes names of letters, digits, `-`, `_` and `.`, without a directory before them",
            ));
        }
        // A file system may not tell large letters from small ones.
        let what = match Role::of(&name.to_ascii_lowercase()) {
            Role::Unknown => return Ok(Self(name.to_owned())),
            Role::Copied => "the agent's settings",
            Role::Read | Role::Package => "code or text that the agent follows",
            Role::Login => "logins",
            Role::Transcripts => "transcripts, of which a session has its own project's anyway",
            Role::Dropped => "nothing that is worth keeping",
        };
        Err(Hinted::usage_hinted(
            format!("`{name}` cannot be written by sessions: it holds {what}"),
            "remove it from `persist`; the agent's own set-up is changed with `pi install`, or on the host",
        ))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// What it becomes where there is nothing yet: a file where the name looks like one.
    pub(crate) fn is_directory_by_name(&self) -> bool {
        !self.0.contains('.')
    }
}

/// The directory in `sessions` in which the agent keeps the transcripts of what it did in `cwd`.
pub(crate) fn transcripts_of(cwd: &Path) -> OsString {
    let path = cwd.to_string_lossy();
    let path = path.strip_prefix(['/', '\\']).unwrap_or(&path);
    format!("--{}--", path.replace(['/', '\\', ':'], "-")).into()
}

/// The longest name that a file system takes.
const LONGEST: usize = 255;

/// Whether the agent could keep transcripts there at all.
pub(crate) fn fits(name: &OsStr) -> bool {
    name.len() <= LONGEST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn transcripts_are_where_the_agent_looks_for_them() {
        for (cwd, name) in [
            ("/workspace", "--workspace--"),
            ("/home/me/a b/c:d", "--home-me-a b-c-d--"),
            ("/a\\b", "--a-b--"),
            ("//a", "---a--"),
            ("/", "----"),
            ("/ä.b", "--ä.b--"),
        ] {
            assert_eq!(transcripts_of(Path::new(cwd)), name, "{cwd}");
        }
        assert!(!fits(&transcripts_of(Path::new(&format!("/{}", "a/".repeat(126))))));
    }

    #[test]
    fn nothing_that_is_code_settings_or_logins_can_be_persistent() {
        for name in [
            "settings.json", "auth.json", "AUTH.JSON", "mcp-auth.json", "oauth.json", "models.json",
            "trust.json", "keybindings.json", "sessions", "extensions", "Extensions", "npm", "git", "skills",
            "prompts", "themes", "agents", "mcp.json", "AGENTS.md", "notes.md", "CLAUDE.MD", "bin", "tools",
            "tmp", "settings.json.lock", "", ".", "..", ".hidden", "a/b", "/etc", "a\0b", "a\nb", "a,b",
            "a:b", " a", "x.jsonl",
        ] {
            assert!(Persist::parse(name).is_err(), "{name:?}");
        }
        for name in ["memory", "todo.json", "my-extension", "notes.db"] {
            assert_eq!(Persist::parse(name).unwrap().name(), name);
        }
    }

    proptest! {
        #[test]
        fn a_transcripts_directory_is_one_name(cwd in "/?[a-c/\\\\:.\u{e4}-]{0,40}") {
            let name = transcripts_of(Path::new(&cwd));
            prop_assert!(Path::new(&name).components().count() == 1);
            prop_assert!(!name.to_string_lossy().contains(['/', '\\', ':']));
        }
    }
}
