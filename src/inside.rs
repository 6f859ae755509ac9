//! Paths inside the agent's container.

use std::path::Path;

use serde::Serialize;

/// Whether the agent can write to a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// The agent's home.
pub(crate) const HOME: &str = "/home/pi";

/// The agent's own directory.
pub(crate) const AGENT_DIR: &str = "/home/pi/.pi/agent";

/// The caches of languages, which outlive a session. The gate links them into the home.
pub(crate) const CACHE: &str = "/var/cache/pi";

/// What a container prints that only waits for commands, when it is up.
pub(crate) const UP: &str = "up";

/// The gate, which is the first program after the container's init.
pub(crate) const ENTRY: &str = "/usr/local/lib/pi/entry";

/// House rules for repositories without any: the image's, and the user's.
pub(crate) const OUR_RULES: &str = "/usr/local/lib/pi/AGENTS.md";
pub(crate) const RULES: &str = "/home/pi/.config/pi/AGENTS.md";

/// Extensions of the user's for such repositories.
pub(crate) const EXTENSIONS: &str = "/home/pi/.config/pi/extensions";

/// The extension that says where logins are made.
pub(crate) const OUTSIDE: &str = "/usr/local/lib/pi/outside.js";

/// The extension that starts subagents.
pub(crate) const SUBAGENTS: &str = "/usr/local/lib/pi/extensions/subagents/index.js";

/// Whether a mount at `target` would hide or replace a part of the sandbox.
pub(crate) fn is_reserved(target: &Path) -> bool {
    HELD.iter().any(|held| Path::new(held).starts_with(target))
        || CLOSED.iter().any(|closed| target.starts_with(closed))
}

/// No mount may be at or above these.
const HELD: [&str; 17] = [
    "/bin", "/sbin", "/lib", "/lib64", "/etc", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/local/bin",
    "/usr/local/lib", "/usr/local/share/pi", HOME, AGENT_DIR, "/tmp", "/run", "/proc", "/sys",
];

/// No mount may be at or below these.
const CLOSED: [&str; 22] = [
    "/proc", "/sys", "/dev", "/bin", "/sbin", "/lib", "/lib64", "/usr/bin", "/usr/sbin", "/usr/lib",
    "/usr/share/perl", "/usr/share/perl5", "/usr/local/lib/pi", "/usr/local/share/pi",
    "/usr/local/share/perl", // Agents have written everything there, links too.
    CACHE, "/home/pi/.pi/agent/sessions", "/etc/perl", "/etc/ld.so.preload", "/etc/ld.so.conf",
    "/etc/ld.so.conf.d", "/etc/ld.so.cache",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_sandbox_consists_of_cannot_be_hidden() {
        for target in [
            "/", "/usr", "/usr/local", "/usr/local/lib/pi/x", "/proc/self", "/home", "/home/pi", "/etc",
            AGENT_DIR,
        ]
        .into_iter()
        .chain(["/var/cache/pi/x", "/home/pi/.pi/agent/sessions/x"])
        {
            assert!(is_reserved(Path::new(target)), "{target}");
        }
        for target in
            ["/home/pi/project", "/home/pi/.pi/agent/themes", "/tmp/x", "/opt", "/srv/a", "/etc/foo.conf"]
        {
            assert!(!is_reserved(Path::new(target)), "{target}");
        }
    }
}
