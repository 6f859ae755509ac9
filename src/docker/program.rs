//! The docker program as a subprocess: with a deadline, on the launcher's own streams, or with the caller's pipes.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use shared_child::SharedChild;

use super::{Cmd, Shown, failure::Failure};
use crate::{
    host::Host,
    report::{self, Hinted, Interrupted, Travel},
    signals::{Flag, Signals},
    terminal::Kept,
    written::Written,
};

/// The docker program, bound to one engine.
#[derive(Debug, Clone)]
pub(crate) struct Docker {
    program: PathBuf,
    /// The `PATH` on which it finds its helpers.
    path: OsString,
    address: String,
    /// The directories with certificates of engines, by the engine's address.
    certificates: BTreeMap<String, PathBuf>,
    deadline: Duration,
    /// Whether the terminal obeys codes.
    draws: bool,
    /// A session's lock.
    lock: Option<Arc<File>>,
    /// Whether the engine may have got a command yet.
    heard: Arc<AtomicBool>,
    /// Whether the engine has not answered a command in time, and may still carry it out.
    late: Arc<AtomicBool>,
    /// Whether the engine has not answered the last command in time.
    hangs: Arc<AtomicBool>,
    /// The signals that end a wait for the engine.
    heeds: Option<Flag>,
    /// Whether nobody waits for what it does.
    aside: bool,
    /// Whether somebody looks at stderr.
    watched: bool,
}

/// How the wait for a command ended.
enum Waited {
    Ended(ExitStatus),
    Late,
    Interrupted(Interrupted),
}

impl Docker {
    /// Finds the program. It fails if there is none, or if sessions cannot use its engine.
    pub(crate) fn find(name: &str, host: &Host, written: &Written) -> anyhow::Result<Self> {
        host.engine.check()?;
        let astray = |path: &Path| match written.follow(path) {
            Err(astray) => Some(astray.to_string()),
            Ok(real) => written
                .holds(&real)
                .map(|dir| format!("it is in `{}`, where agents can write", dir.display())),
        };
        let settings = host.docker_settings();
        if let Some(why) = astray(&settings) {
            return Err(Hinted::error(
                format!("docker's settings `{}` cannot be trusted: {why}", settings.display()),
                "they name programs that docker runs on this machine; keep them in `~/.docker`, and unset `DOCKER_CONFIG`",
            ));
        }
        for path in host.certificates.values() {
            if let Some(why) = astray(path) {
                return Err(Hinted::error(
                    format!("the certificates in `{}` cannot be trusted: {why}", path.display()),
                    "they say which engine docker talks to; keep them elsewhere, such as in `~/.docker`",
                ));
            }
        }
        let program = written.program(name, host).ok_or_else(|| {
            let path = host.env.get(OsStr::new("PATH"));
            match which::which_in(name, path, "/") {
                Ok(program) => Hinted::error(
                    format!("`pi` does not run `{}`: agents can write there", program.display()),
                    "put the directory of the real one on the `PATH`, or set `docker` to its path in the settings",
                ),
                Err(_) => Hinted::error(
                    format!("there is no program `{name}` on the `PATH`"),
                    "install Docker Engine 20.10 or newer: docs.docker.com/engine/install",
                ),
            }
        })?;
        let seconds = |text: &str| text.parse().ok().filter(|seconds| (0.001..1e6_f32).contains(seconds));
        let deadline = match host.var("PI_BOX_DEADLINE") {
            None => DEADLINE,
            Some(text) => Duration::from_secs_f32(seconds(text).ok_or_else(|| {
                Hinted::usage_hinted(
                    format!(
                        "`PI_BOX_DEADLINE` is `{}`, which is not a number of seconds",
                        report::one_line(text)
                    ),
                    "set it to a number such as 60, or unset it",
                )
            })?),
        };
        Ok(Self {
            program,
            path: written.search_path(host),
            address: host.engine.address.clone(),
            certificates: host.certificates.clone(),
            deadline,
            draws: host.var("TERM").is_some_and(|name| name != "dumb"),
            lock: None,
            heard: Arc::default(),
            late: Arc::default(),
            hangs: Arc::default(),
            heeds: None,
            aside: false,
            watched: host.draws_on_stderr(),
        })
    }

    /// The same program, bound to another engine.
    pub(crate) fn at(&self, address: &str) -> Self {
        if address == self.address {
            return self.clone();
        }
        Self {
            address: address.to_owned(),
            heard: Arc::default(),
            late: Arc::default(),
            hangs: Arc::default(),
            ..self.clone()
        }
    }

    /// The same program. A signal ends each wait for the engine: at once where it was asked something, and a moment
    /// later where it makes something. What tidies up is waited for all the same.
    pub(crate) fn heeding(&self, signals: &Signals) -> Self {
        Self { heeds: Some(signals.flag()), ..self.clone() }
    }

    /// The same program, for something beside a session: the terminal is the agent's, and nobody waits.
    pub(crate) fn aside(&self) -> Self {
        Self { aside: true, watched: false, ..self.clone() }
    }

    /// The same, and what it finds out about the engine is of no account for others.
    pub(crate) fn unheeded(&self) -> Self {
        Self {
            heard: Arc::default(),
            late: Arc::default(),
            hangs: Arc::default(),
            lock: None,
            ..self.aside()
        }
    }

    /// The same program, with a deadline of at most this.
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = self.deadline.min(deadline);
        self
    }

    /// The same program, whose clients hold a session's lock while they run. A client that outlives the launcher may
    /// still create something, so nobody takes the session down before it ends.
    pub(crate) fn holding(mut self, lock: Arc<File>) -> Self {
        self.lock = Some(lock);
        self.heard = Arc::default();
        self.late = Arc::default();
        self.hangs = Arc::default();
        self
    }

    /// Whether the engine has not answered the last command in time. Then nobody asks it again and again.
    pub(crate) fn hangs(&self) -> bool {
        self.hangs.load(Ordering::SeqCst)
    }

    /// Whether the engine may still create something after the teardown.
    pub(crate) fn was_late(&self) -> bool {
        self.late.load(Ordering::SeqCst)
    }

    /// Whether there may be something to take down.
    pub(crate) fn was_heard(&self) -> bool {
        self.heard.load(Ordering::SeqCst)
    }

    /// The program's path.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The engine's address, as docker takes it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The words, the first an absolute path, and the environment by which another program runs a command in a container, on
    /// its own streams.
    pub(crate) fn door(&self, name: &str, host: &Host) -> (Vec<OsString>, Vec<(OsString, OsString)>) {
        let words = ["exec", "--interactive", name].map(OsString::from);
        // `SSH_AUTH_SOCK` is for the ssh that docker starts.
        let passed = ["HOME", "DOCKER_CONFIG", "SSH_AUTH_SOCK"].map(OsString::from);
        let own = passed.into_iter().filter_map(|name| Some((name.clone(), host.env.get(&name)?.clone())));
        let env = own.chain(self.way());
        (std::iter::once(self.program.clone().into()).chain(words).collect(), env.collect())
    }

    /// The variables by which docker reaches the engine.
    fn way(&self) -> Vec<(OsString, OsString)> {
        let mut way = vec![("DOCKER_HOST".into(), self.address.clone().into())];
        if let Some(directory) = self.certificates.get(&self.address) {
            way.push(("DOCKER_TLS_VERIFY".into(), "1".into()));
            way.push(("DOCKER_CERT_PATH".into(), directory.into()));
        }
        way
    }

    pub(super) fn command(&self, cmd: &Cmd) -> Command {
        report::trace(cmd);
        let mut command = Command::new(&self.program);
        command.args(&cmd.args).env("PATH", &self.path);
        for name in ["DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            command.env_remove(name);
        }
        command.envs(self.way());
        // Docker would print tips between the agent's last line and the prompt.
        command.env("DOCKER_CLI_HINTS", "false");
        // A client that asks and waits is quicker on one processor, and holds less memory.
        command.env("GOMAXPROCS", "1");
        for (name, secret) in &cmd.secrets {
            command.env(name, secret.expose());
        }
        command
    }

    /// Something on its way, which a terminal shows.
    pub(crate) fn travel(&self, what: &str) -> Travel {
        Travel::begin(what, self.watched)
    }

    /// Runs a command to its end and returns its output. The error says what failed, and docker's message.
    pub(crate) fn run(&self, cmd: &Cmd) -> anyhow::Result<String> {
        self.try_run(cmd).map_err(|failure| failure.explain(&cmd.purpose))
    }

    /// Runs a command to its end, within the deadline.
    pub(crate) fn try_run(&self, cmd: &Cmd) -> Result<String, Failure> {
        self.try_run_within(cmd, self.deadline)
    }

    /// Runs a command to its end, within a deadline of its own.
    pub(crate) fn try_run_within(&self, cmd: &Cmd, deadline: Duration) -> Result<String, Failure> {
        let outcome = self.run_once(cmd, deadline);
        if !outcome.as_ref().is_err_and(Failure::is_unheard) {
            self.heard.store(true, Ordering::SeqCst);
        }
        outcome
    }

    fn run_once(&self, cmd: &Cmd, deadline: Duration) -> Result<String, Failure> {
        // An engine that hangs is asked once more, but not for long.
        let deadline = if self.hangs() { deadline.min(ONCE_MORE) } else { deadline };
        let mut command = self.command(cmd);
        // It gets a process group of its own, so that a Ctrl-C does not end it half-way.
        let lock = self.lock.as_deref().map(File::try_clone).transpose().map_err(Failure::NotStarted)?;
        command.stdin(lock.map_or_else(Stdio::null, Stdio::from));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // `PI_BOX_DEADLINE` may be shorter than the caller's deadline.
        let deadline = deadline.min(self.deadline);
        let child = SharedChild::spawn(&mut command).map_err(Failure::NotStarted)?;
        let stdout = drain(child.take_stdout());
        let stderr = drain(child.take_stderr());
        let begun = Instant::now();
        let waited = self.wait(&child, cmd, begun, deadline).map_err(Failure::NotStarted)?;
        let status = match waited {
            Waited::Ended(status) => status,
            Waited::Late | Waited::Interrupted(_) => {
                // The program may be a script, whose child would hold the session's lock. So the whole group must end.
                if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.kill();
                let _ = child.wait();
                if cmd.makes_something() {
                    self.late.store(true, Ordering::SeqCst);
                }
                if begun.elapsed() >= ONCE_MORE.min(deadline) {
                    self.hangs.store(true, Ordering::SeqCst);
                }
                return Err(match waited {
                    Waited::Interrupted(signal) => Failure::Interrupted(signal),
                    _ => Failure::Late(deadline),
                });
            }
        };
        self.hangs.store(false, Ordering::SeqCst);
        // The program has ended, but its helpers may still hold the pipes.
        let stdout = stdout.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        let stderr = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        if status.success() {
            // Docker warns about a limit that this kernel does not know, for example. The user should know that.
            for line in String::from_utf8_lossy(&stderr).lines() {
                if let Some(warning) = line.trim().strip_prefix("WARNING: ") {
                    report::warn(format_args!("docker says: {warning}"));
                }
            }
            Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned())
        } else {
            Err(Failure::Refused {
                code: status.code(),
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            })
        }
    }

    /// Waits for a command's end, which has begun at this moment.
    fn wait(&self, child: &SharedChild, cmd: &Cmd, begun: Instant, deadline: Duration) -> io::Result<Waited> {
        let grace = self.heeds.as_ref().zip(cmd.grace());
        let mut told = false;
        let mut signalled = None;
        loop {
            let left = deadline.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(Waited::Late);
            }
            let until_told = if told { left } else { SAY_SO.saturating_sub(begun.elapsed()) };
            let pause = left.min(until_told).max(Duration::from_millis(1));
            let pause = if grace.is_some() { pause.min(OFTEN) } else { pause };
            if let Some(status) = child.wait_timeout(pause)? {
                return Ok(Waited::Ended(status));
            }
            if !told && begun.elapsed() >= SAY_SO {
                told = true;
                if self.aside {
                    continue;
                }
                report::note(format_args!("docker has not answered yet; still waiting to {}", cmd.purpose));
            }
            if let Some((flag, grace)) = grace
                && let Err(signal) = flag.check()
                && signalled.get_or_insert_with(Instant::now).elapsed() >= grace
            {
                return Ok(Waited::Interrupted(signal));
            }
        }
    }

    /// Runs a command on the launcher's own streams, without a deadline. If its output on stderr begins with a
    /// complaint of docker's, that is returned instead of shown.
    ///
    /// The command stays in the launcher's process group, so that it can read the terminal.
    pub(crate) fn attach(
        &self,
        cmd: &Cmd,
        silent: bool,
        running: impl FnOnce(Arc<SharedChild>),
    ) -> anyhow::Result<Shown> {
        let terminal = if silent { None } else { Kept::now(self.draws) };
        let mut command = self.command(cmd);
        command.stderr(Stdio::piped());
        if silent {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        let child = Arc::new(
            SharedChild::spawn(&mut command)
                .with_context(|| format!("could not {}: could not run docker", cmd.purpose))?,
        );
        running(child.clone());
        let complaint = child.take_stderr().map(complaint).unwrap_or_default();
        let status =
            child.wait().with_context(|| format!("could not {}: lost the docker program", cmd.purpose))?;
        if let Some(terminal) = terminal {
            terminal.restore();
        }
        Ok(Shown::new(status, complaint))
    }

    /// Starts a command whose stdin and stdout the caller holds.
    pub(super) fn hold(&self, cmd: &Cmd) -> anyhow::Result<SharedChild> {
        let mut command = self.command(cmd);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        SharedChild::spawn(&mut command)
            .with_context(|| format!("could not {}: could not run docker", cmd.purpose))
    }

    /// Runs a long command in the foreground, where a Ctrl-C ends it, for at most `patience`. Its output goes to
    /// `sink`.
    pub(crate) fn foreground(
        &self,
        cmd: &Cmd,
        patience: Option<Duration>,
        running: impl FnOnce(Arc<SharedChild>),
        sink: impl Fn(&[u8]) + Send + Sync,
    ) -> anyhow::Result<ExitStatus> {
        let mut command = self.command(cmd);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // One that builds or pulls has work of its own.
        command.env_remove("GOMAXPROCS");
        let child = Arc::new(
            SharedChild::spawn(&mut command)
                .with_context(|| format!("could not {}: could not run docker", cmd.purpose))?,
        );
        running(child.clone());
        thread::scope(|scope| {
            if let Some(stdout) = child.take_stdout() {
                scope.spawn(|| copy(stdout, &sink));
            }
            if let Some(stderr) = child.take_stderr() {
                scope.spawn(|| copy(stderr, &sink));
            }
            let lost = || format!("could not {}: lost the docker program", cmd.purpose);
            let Some(patience) = patience else { return child.wait().with_context(lost) };
            if let Some(status) = child.wait_timeout(patience).with_context(lost)? {
                return Ok(status);
            }
            let _ = child.kill();
            let _ = child.wait();
            bail!("could not {}: it did not end within {} minutes", cmd.purpose, patience.as_secs() / 60)
        })
    }
}

/// Passes on a client's stderr. A complaint of docker's at the beginning is returned instead.
fn complaint(mut stderr: impl Read) -> String {
    let mut held = Vec::new();
    let mut holding = None;
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = stderr.read(&mut buffer) {
        let bytes = &buffer[..n];
        if *holding.get_or_insert_with(|| bytes.starts_with(b"Error response from daemon")) {
            held.extend_from_slice(bytes);
        } else {
            report::progress(bytes);
        }
        // Docker's complaints are shorter, so this text is the agent's.
        if held.len() > 4096 {
            report::progress(&held);
            held.clear();
            holding = Some(false);
        }
    }
    String::from_utf8_lossy(&held).into_owned()
}

fn copy(mut from: impl Read, sink: &dyn Fn(&[u8])) {
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        sink(&buffer[..n]);
    }
}

pub(super) fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // After an error, the bytes before it are still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = send.send(bytes);
    });
    receive
}

/// How long an engine that did not answer in time may take for what comes next.
const ONCE_MORE: Duration = Duration::from_secs(3);

/// How often to look for a signal.
const OFTEN: Duration = Duration::from_millis(30);

/// When to tell a waiting user what the launcher waits for.
const SAY_SO: Duration = Duration::from_secs(5);

/// How long an engine may take to answer, unless `PI_BOX_DEADLINE` (in seconds) says otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_ends_where_its_time_does() {
        let shell = Docker {
            program: "/bin/sh".into(),
            path: "/usr/bin:/bin".into(),
            certificates: BTreeMap::new(),
            address: String::new(),
            deadline: DEADLINE,
            draws: false,
            lock: None,
            heard: Arc::default(),
            late: Arc::default(),
            hangs: Arc::default(),
            heeds: None,
            aside: false,
            watched: false,
        };
        let run = |script: &str, patience: f32| {
            let patience = Some(Duration::from_secs_f32(patience));
            shell.foreground(&Cmd::new("pull the image `x`", &["-c", script]), patience, |_| {}, |_| {})
        };
        assert_eq!(run("exit 3", 60.0).unwrap().code(), Some(3));
        let error = run("exec sleep 600", 0.1).unwrap_err();
        assert_eq!(error.to_string(), "could not pull the image `x`: it did not end within 0 minutes");
    }
}
