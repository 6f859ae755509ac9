//! The one way in which the launcher runs the host's git.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use shared_child::SharedChild;

use super::repository::Repository;
use crate::{
    child::{self, drain},
    host::Host,
    report,
    written::Written,
};

/// How long a command may take that only reads or moves names.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much a command may print. A list of 100 000 files is a tenth of this.
const OUTPUT: u64 = 128 << 20;

/// How much of what git complains of is kept.
const COMPLAINT: u64 = 64 << 10;

/// Settings of every command, which win over the repository's own.
const SETTINGS: [&str; 14] = [
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.untrackedCache=keep", "fetch.fsckObjects=true",
    "transfer.fsckObjects=true", "fetch.recurseSubmodules=false", "fetch.writeCommitGraph=false",
    "submodule.recurse=false", "gc.auto=0", "maintenance.auto=false", "log.showSignature=false",
    "protocol.allow=never",
    // What has come over is on the disk before the agent's own is removed.
    "core.fsync=all", "core.fsyncMethod=batch",
];

/// The program, and where it finds its own parts.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    program: PathBuf,
    path: OsString,
}

impl Git {
    /// The program on the `PATH` that no agent can have put there.
    pub(crate) fn find(host: &Host, written: &Written) -> Option<Self> {
        Some(Self { program: written.program("git", host)?, path: written.search_path(host) })
    }

    /// A command in a repository of the user's.
    pub(crate) fn within(&self, repository: &Repository) -> Call {
        let mut call = self.call();
        call.command.env("GIT_DIR", &repository.git_dir).env("GIT_WORK_TREE", &repository.work_tree);
        call
    }

    /// A command in a bare git directory of the launcher's own.
    pub(super) fn at(&self, git_dir: &Path) -> Call {
        let mut call = self.call();
        call.command.env("GIT_DIR", git_dir);
        call
    }

    /// A command about the user's own settings, which finds no repository.
    pub(super) fn outside(&self, host: &Host) -> Call {
        // With a git directory that is none, none can be found around `/`.
        let mut call = self.call().env("GIT_DIR", "/dev/null");
        call.command.env_remove("GIT_CONFIG_NOSYSTEM").env_remove("GIT_CONFIG_GLOBAL");
        for name in ["HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"] {
            if let Some(value) = host.env.get(OsStr::new(name)) {
                call.command.env(name, value);
            }
        }
        call
    }

    fn call(&self) -> Call {
        let mut command = Command::new(&self.program);
        command.env_clear().current_dir("/").env("PATH", &self.path).env("LC_ALL", "C");
        // What a repository allows by `protocol.NAME.allow` wins over `protocol.allow`; nothing wins over this.
        command.env("GIT_ALLOW_PROTOCOL", "none");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "/bin/false");
        command.env("GIT_NO_REPLACE_OBJECTS", "1").env("GIT_NO_LAZY_FETCH", "1");
        command.env("GIT_OPTIONAL_LOCKS", "0");
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        Call { command, patience: PATIENCE, output: OUTPUT, stdin: None, file_size: None }
    }
}

/// A command that has not been run yet.
#[derive(Debug)]
pub(crate) struct Call {
    command: Command,
    patience: Duration,
    output: u64,
    stdin: Option<Vec<u8>>,
    file_size: Option<u64>,
}

impl Call {
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Some(bytes);
        self
    }

    pub(super) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(super) fn output(mut self, bytes: u64) -> Self {
        self.output = bytes;
        self
    }

    /// No file that the command writes may become larger.
    pub(super) fn file_size(mut self, bytes: u64) -> Self {
        self.file_size = Some(bytes);
        self
    }

    /// Lets this command, and no other, talk to a command that [`url`] names.
    pub(super) fn through(mut self, env: &[(OsString, OsString)]) -> Self {
        self.command.env("GIT_ALLOW_PROTOCOL", "ext").args(["-c", "protocol.ext.allow=always"]);
        self.command.envs(env.iter().map(|(name, value)| (name, value)));
        self
    }

    /// Runs the command to its end and returns what it printed.
    pub(crate) fn run(mut self) -> Result<Vec<u8>, Failure> {
        report::trace(format_args!("{}", Shown(&self.command)));
        let stdin = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        // In a process group of its own, or a Ctrl-C would end it half-way.
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = SharedChild::spawn(&mut self.command).map_err(Failure::NotStarted)?;
        if let Some(bytes) = self.file_size {
            bound_files(child.id(), bytes);
        }
        if let (Some(bytes), Some(mut pipe)) = (self.stdin, child.take_stdin()) {
            // Git may have seen enough before the end.
            thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        let begun = Instant::now();
        let stdout = drain(child.take_stdout(), self.output);
        let stderr = drain(child.take_stderr(), COMPLAINT);
        let rest = || self.patience.saturating_sub(begun.elapsed());
        let said = stdout.recv_timeout(self.patience);
        let ended = if said.as_ref().is_ok_and(|(_, whole)| *whole) {
            child.wait_timeout(rest()).map_err(Failure::NotStarted)?
        } else {
            None
        };
        // Also where it has ended: what it has started must not live on.
        child::kill_group(&child);
        let Some(status) = ended else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(if said.is_ok() { Failure::TooMuch } else { Failure::Late(self.patience) });
        };
        let (bytes, _) = said.unwrap_or_default();
        if status.success() {
            return Ok(bytes);
        }
        let (stderr, _) = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        Err(Failure::Refused {
            code: status.code(),
            stderr: report::one_line(String::from_utf8_lossy(&stderr).trim()),
        })
    }

    /// The same as text without its last line break.
    pub(crate) fn text(self) -> Result<String, Failure> {
        self.run().map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
    }

    /// Runs a command that moves something; false where git does not take what it was given.
    pub(super) fn moves(self) -> Result<bool, Failure> {
        match self.run() {
            Ok(_) => Ok(true),
            Err(failure @ Failure::Refused { .. }) if !failure.may_pass() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Runs a command that answers by its exit status, 0 or 1.
    pub(super) fn answers(self) -> Result<bool, Failure> {
        match self.run() {
            Ok(_) => Ok(true),
            Err(Failure::Refused { code: Some(1), .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

/// Why a command gave no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    NotStarted(io::Error),
    /// What git has brought could not be put among the repository's objects.
    NotMoved(io::Error),
    Late(Duration),
    TooMuch,
    Refused {
        code: Option<i32>,
        stderr: String,
    },
}

impl Failure {
    /// Whether the same command may succeed at another time: what it says of itself is about this machine, such as a full
    /// disk, and not about what it was given.
    pub(crate) fn may_pass(&self) -> bool {
        const FULL: [&str; 3] =
            ["No space left on device", "Disk quota exceeded", "unable to write new index file"];
        match self {
            Self::NotStarted(_) | Self::NotMoved(_) => true,
            Self::Late(_) | Self::TooMuch => false,
            Self::Refused { stderr, .. } => FULL.iter().any(|full| stderr.contains(full)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "could not run git: {error}"),
            Self::NotMoved(error) => write!(f, "could not write the repository's objects: {error}"),
            Self::Late(patience) => write!(f, "git did not end within {} s", patience.as_secs()),
            Self::TooMuch => write!(f, "git printed too much"),
            Self::Refused { code: None, stderr } if stderr.is_empty() => write!(f, "git was killed"),
            Self::Refused { code, stderr } if stderr.is_empty() => {
                write!(f, "git ended with status {}", code.unwrap_or_default())
            }
            Self::Refused { stderr, .. } => write!(f, "git says: {stderr}"),
        }
    }
}

impl std::error::Error for Failure {}

/// The address by which git talks to `command` over its stdin and stdout.
pub(super) fn url<'a>(command: impl IntoIterator<Item = &'a OsStr>) -> OsString {
    use std::os::unix::ffi::OsStringExt as _;
    let mut url = b"ext::".to_vec();
    for (n, word) in command.into_iter().enumerate() {
        if n > 0 {
            url.push(b' ');
        }
        for byte in word.as_encoded_bytes() {
            match byte {
                b' ' => url.extend(b"% "),
                b'%' => url.extend(b"%%"),
                byte => url.push(*byte),
            }
        }
    }
    OsString::from_vec(url)
}

#[cfg(target_os = "linux")]
fn bound_files(id: u32, bytes: u64) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = prlimit(Some(pid), Resource::Fsize, limit);
    }
}

#[cfg(not(target_os = "linux"))]
fn bound_files(_id: u32, _bytes: u64) {}

/// A command without the settings that all have.
struct Shown<'a>(&'a Command);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "git")?;
        self.0.get_args().skip(2 * SETTINGS.len()).try_for_each(|arg| write!(f, " {}", arg.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Call {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Call { command, patience: PATIENCE, output: 1000, stdin: None, file_size: None }
    }

    #[test]
    fn a_command_is_bounded_in_time_in_output_and_in_what_it_writes() {
        assert_eq!(shell("echo a; echo b").text().unwrap(), "a\nb");
        let late = shell("sleep 600 & exec sleep 600").patience(Duration::from_millis(100)).run();
        assert!(matches!(late, Err(Failure::Late(_))), "{late:?}");
        assert!(matches!(shell("exec yes").run(), Err(Failure::TooMuch)));
        let error = shell("echo no >&2; exit 3").run().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.may_pass()), ("git says: no", false));
        assert!(shell("echo 'fatal: x: No space left on device' >&2; exit 1").run().unwrap_err().may_pass());
        assert_eq!(shell("cat").stdin(b"in".to_vec()).text().unwrap(), "in");
        let dir = tempfile::tempdir().unwrap();
        let script = format!("sleep 0.2; exec head -c 9000 /dev/zero >{}/f", dir.path().display());
        assert!(shell(&script).file_size(4096).run().is_err());
        assert!(std::fs::metadata(dir.path().join("f")).unwrap().len() <= 4096);
    }

    #[test]
    fn words_survive_the_way_through_the_address() {
        let words = ["docker", "exec -i", "100%S", ""].map(OsStr::new);
        assert_eq!(url(words), "ext::docker exec% -i 100%%S ");
    }
}
