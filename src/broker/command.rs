//! Runs a `!command` of the user's outside, where nothing that a repository or an agent wrote has a say in it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt, io,
    os::unix::{ffi::OsStringExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use shared_child::SharedChild;

use crate::{child, secret::Secret};

/// The agent's own limit.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// No key is longer.
const LONGEST: u64 = 1 << 16;

/// What password managers and the like need to find the user, the session and the agent that holds the key.
const VARIABLES: &[&str] = &[
    "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "DISPLAY", "WAYLAND_DISPLAY",
    "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME",
    "XDG_SESSION_TYPE", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "GPG_TTY", "GNUPGHOME",
    "PASSWORD_STORE_DIR", "TMPDIR",
];

/// Where and with what commands run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    env: BTreeMap<OsString, OsString>,
    directory: PathBuf,
}

/// Why a command gave no value. It never contains what the command printed.
#[derive(Debug)]
pub(crate) enum Failure {
    Start(io::Error),
    Late(Duration),
    Status(ExitStatus),
    Silent,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => write!(f, "its command could not be started: {error}"),
            Self::Late(limit) => write!(f, "its command did not end within {} seconds", limit.as_secs()),
            Self::Status(status) => write!(f, "its command failed: {status}"),
            Self::Silent => f.write_str("its command printed nothing that can be a key"),
        }
    }
}

impl Setting {
    /// `path` names the directories where programs are looked for, `is_fit` those that no agent could write.
    pub(crate) fn new(
        env: &BTreeMap<OsString, OsString>,
        home: &Path,
        path: OsString,
        is_fit: impl Fn(&Path) -> bool,
    ) -> Self {
        // A tool that a repository's directory configures would be the repository's.
        let fit = |value: &OsStr| !Path::new(value).is_absolute() || is_fit(Path::new(value));
        let mut env: BTreeMap<OsString, OsString> = VARIABLES
            .iter()
            .filter_map(|name| env.get_key_value(OsStr::new(name)))
            .filter(|(_, value)| fit(value))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        env.insert("PATH".into(), path);
        Self { env, directory: home.to_owned() }
    }

    /// Runs the command with a shell, and takes what it prints without the white space around it.
    pub(crate) fn run(&self, command: &str, limit: Duration) -> Result<Secret, Failure> {
        let deadline = Instant::now() + limit;
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", command])
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // What it started ends with it.
            .process_group(0);
        let child = SharedChild::spawn(&mut shell).map_err(Failure::Start)?;
        let output = child::drain(child.take_stdout(), LONGEST);
        let status = child.wait_deadline(deadline).map_err(Failure::Start);
        let text = output.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        if !matches!((&status, &text), (Ok(Some(_)), Ok(_))) {
            child::kill_group(&child);
            let _ = child.wait();
        }
        match (status?, text) {
            (Some(status), _) if !status.success() => Err(Failure::Status(status)),
            // No key is made of a part.
            (Some(_), Ok((text, whole))) => trimmed(&text).filter(|_| whole).ok_or(Failure::Silent),
            _ => Err(Failure::Late(limit)),
        }
    }
}

fn trimmed(text: &[u8]) -> Option<Secret> {
    let text = text.trim_ascii();
    (!text.is_empty()).then(|| Secret::new(OsString::from_vec(text.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> Setting {
        let env = [("HOME", "/nowhere"), ("NODE_OPTIONS", "x"), ("TMPDIR", "/srv/repo/tmp"), ("TZ", "UTC")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        Setting::new(&env, Path::new("/"), "/usr/bin:/bin".into(), |path| !path.starts_with("/srv/repo"))
    }

    fn run(command: &str) -> Result<Vec<u8>, String> {
        setting()
            .run(command, Duration::from_millis(700))
            .map(|secret| secret.bytes().to_vec())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_command_gives_what_it_prints() {
        assert_eq!(run("printf ' a \"$\" key \\n\\n'"), Ok(b"a \"$\" key".to_vec()));
        assert_eq!(run("pwd; cat"), Ok(b"/".to_vec()));
    }

    #[test]
    fn only_harmless_variables_reach_a_command() {
        assert_eq!(
            run("env | cut -d= -f1 | grep -v '^_$\\|PWD\\|SHLVL' | sort | tr '\\n' ' '"),
            Ok(b"HOME PATH TZ".into())
        );
    }

    #[test]
    fn a_command_that_gives_nothing_says_why() {
        assert_eq!(run("echo secret; exit 3"), Err("its command failed: exit status: 3".to_owned()));
        assert_eq!(run("echo"), Err("its command printed nothing that can be a key".to_owned()));
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_all_that_it_started() {
        for command in ["sleep 60", "sleep 60 & echo key", "(trap '' TERM; sleep 60) & sleep 61"] {
            let start = Instant::now();
            assert_eq!(run(command), Err("its command did not end within 0 seconds".to_owned()), "{command}");
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    }
}
