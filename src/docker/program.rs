//! The docker program: where it is, which engine it talks to, and what has become known of that.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::Cmd;
use crate::{
    host::Host,
    report::{self, Hinted, Travel},
    signals::{Flag, Signals},
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
    pub(super) deadline: Duration,
    /// Whether the terminal obeys codes.
    pub(super) draws: bool,
    /// A session's lock.
    pub(super) lock: Option<Arc<File>>,
    pub(super) known: Arc<Known>,
    /// The signals that end a wait for the engine.
    pub(super) heeds: Option<Flag>,
    /// Whether nobody waits for what it does.
    pub(super) aside: bool,
    /// Whether somebody looks at stderr.
    watched: bool,
}

/// What has become known of an engine.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Whether it may have got a command yet.
    pub(super) heard: AtomicBool,
    /// Whether it has not answered a command in time, and may still carry it out.
    pub(super) late: AtomicBool,
    /// Whether it has not answered the last command in time.
    pub(super) hangs: AtomicBool,
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
            known: Arc::default(),
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
        Self { address: address.to_owned(), known: Arc::default(), ..self.clone() }
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
        Self { known: Arc::default(), lock: None, ..self.aside() }
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
        self.known = Arc::default();
        self
    }

    /// Whether the engine has not answered the last command in time. Then nobody asks it again and again.
    pub(crate) fn hangs(&self) -> bool {
        self.known.hangs.load(Ordering::SeqCst)
    }

    /// Whether the engine may still create something after the teardown.
    pub(crate) fn was_late(&self) -> bool {
        self.known.late.load(Ordering::SeqCst)
    }

    /// Whether there may be something to take down.
    pub(crate) fn was_heard(&self) -> bool {
        self.known.heard.load(Ordering::SeqCst)
    }

    /// How long the engine may take to answer.
    pub(crate) fn patience(&self) -> Duration {
        self.deadline
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
}

/// How long an engine may take to answer, unless `PI_BOX_DEADLINE` (in seconds) says otherwise.
const DEADLINE: Duration = Duration::from_secs(60);
