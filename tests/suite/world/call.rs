//! A program that a test runs, `pi` most of all, and what becomes of it.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{
    World,
    files::PROGRAMS,
    wait::{PATIENCE, until_within},
};

/// What the launcher says once on a machine whose kernel does not look where datagrams come from.
const ABOUT_KERNEL: &str = "pi: warning: rp_filter is 0 on this machine: ";

/// A call of a program that has not been made: in the repository, without input, and with nothing of the environment of
/// whoever runs the tests.
pub(crate) struct Call<'a> {
    world: &'a World,
    command: Command,
    input: Option<String>,
    limit: Duration,
}

impl<'a> Call<'a> {
    pub(super) fn new(world: &'a World, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null()).current_dir(world.repo());
        Self { world, command, input: None, limit: PATIENCE }
    }

    pub(crate) fn args(mut self, words: &[impl AsRef<OsStr>]) -> Self {
        self.command.args(words);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Puts a directory before all others on the `PATH`.
    pub(crate) fn path_first(mut self, dir: &Path) -> Self {
        let path = self.command.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap();
        let path = [dir.as_os_str(), path].join(OsStr::new(":"));
        self.command.env("PATH", path);
        self
    }

    pub(crate) fn cwd(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Gives it a text, through a pipe.
    pub(crate) fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self.stdin(Stdio::piped())
    }

    /// How long it may take.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts it in a process group of its own; what it prints goes to files.
    pub(crate) fn start(mut self) -> Running {
        let [out, err] = self.world.new_files(["out", "err"]);
        self.command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let shared = PROGRAMS.read().unwrap();
        let spawned = self.command.process_group(0).spawn();
        drop(shared);
        let mut child = spawned.unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        if let Some(text) = self.input {
            // Who does not read its input may have ended already.
            let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        }
        Running { child, out, err, limit: self.limit }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Outcome {
        self.start().wait()
    }

    /// Runs it to its good end, in which it says nothing on stderr, and returns what it printed.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        let outcome = self.run();
        assert!(outcome.code == Some(0) && outcome.err.is_empty(), "{outcome:?}");
        outcome.out
    }
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out: String,
    /// Without the one line that depends on the kernel's settings.
    pub(crate) err: String,
    /// That line.
    pub(crate) about_kernel: Option<String>,
}

impl Outcome {
    /// Asserts the whole outcome.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, out: &str, err: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (Some(code), out, err));
    }

    /// Asserts the exit status, and shows what was said where it is another.
    #[track_caller]
    pub(crate) fn has_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{self:#?}");
    }

    /// The same, and that something was said on stderr.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, words: &str) {
        assert!(self.code == Some(code) && self.err.contains(words), "no `{words}`: {self:#?}");
    }
}

/// A program that runs beside the test.
pub(crate) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    limit: Duration,
}

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Sends a signal to its whole process group, as a terminal does.
    pub(crate) fn signal_group(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).unwrap();
    }

    /// What it has printed on stdout so far.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap()).into_owned()
    }

    /// What it has printed on stderr so far.
    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }

    /// Closes its stdin, which is a pipe, and waits for its end.
    #[track_caller]
    pub(crate) fn release(mut self) -> Outcome {
        drop(self.child.stdin.take());
        self.wait()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Outcome {
        let status = until_within(self.limit, "the end of a program", || {
            self.child.try_wait().unwrap().ok_or_else(|| format!("{}{}", self.out(), self.err()))
        });
        let (about_kernel, err): (Vec<_>, Vec<_>) = self
            .err()
            .split_inclusive('\n')
            .map(str::to_owned)
            .partition(|line| line.starts_with(ABOUT_KERNEL));
        Outcome {
            code: status.code(),
            signal: status.signal(),
            out: self.out(),
            err: err.concat(),
            about_kernel: about_kernel.into_iter().next(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed half-way must not leave it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
