//! The world of a test: a home, a repository and a state directory of its own, and an engine, faked or real.

#![allow(dead_code, reason = "every test binary uses a part of it")]

pub(crate) mod fake;
pub(crate) mod net;
pub(crate) mod real;

use std::{
    fs,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use fake::Fake;

/// How long a test waits for anything before it says what it saw instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What the launcher says once on a machine whose kernel does not look where datagrams come from.
const ABOUT_KERNEL: &str = "pi: warning: rp_filter is 0 on this machine: ";

/// A user with a home and one repository, who has never started `pi` before.
pub(crate) struct World {
    root: PathBuf,
    docker: Engine,
    runs: AtomicU32,
    // Dropped last: everything above lies in it.
    _dir: TempDir,
}

enum Engine {
    Fake(Fake),
    /// With the settings that `tests/setup` wrote.
    Real {
        config: PathBuf,
    },
}

impl World {
    /// A world whose `docker` is a script that takes notes.
    pub(crate) fn fake() -> Self {
        Self::new(|root| Engine::Fake(Fake::install(root)))
    }

    /// A world on the real engine.
    pub(crate) fn real() -> Self {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/setup/config.toml");
        assert!(config.is_file(), "there is no `{}`: run `tests/setup` first", config.display());
        let engine = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
        assert!(
            engine.as_ref().is_ok_and(|output| output.status.success()),
            "these tests need a running engine (run `tests/setup`), and `docker version` says: {engine:?}"
        );
        Self::new(|_| Engine::Real { config })
    }

    fn new(docker: impl FnOnce(&Path) -> Engine) -> Self {
        let dir = tempfile::Builder::new().prefix("pi-test-").tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for part in ["home", "config", "state", "tmp", "runs"] {
            fs::create_dir(root.join(part)).unwrap();
        }
        let docker = docker(&root);
        let world = Self { root, docker, runs: AtomicU32::new(0), _dir: dir };
        world.repository("repo");
        world
    }

    /// Makes one more repository, as `git init` would lay it out.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        let repo = self.root.join(name);
        for part in [".git/objects", ".git/refs/heads"] {
            fs::create_dir_all(repo.join(part)).unwrap();
        }
        fs::write(repo.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        let config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n";
        fs::write(repo.join(".git/config"), config).unwrap();
        own(&repo);
        repo
    }

    /// The directory that holds all of this world.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.root.join("repo")
    }

    pub(crate) fn agent_dir(&self) -> PathBuf {
        self.home().join(".pi/agent")
    }

    /// The user's settings, where `pi` looks for them when it is not told.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.root.join("config/pi/config.toml")
    }

    /// Writes the user's settings.
    pub(crate) fn configure(&self, text: &str) {
        write(&self.config_file(), text);
    }

    /// The faked engine.
    pub(crate) fn docker(&self) -> &Fake {
        match &self.docker {
            Engine::Fake(fake) => fake,
            Engine::Real { .. } => panic!("this world has a real engine"),
        }
    }

    /// `pi`, standing in the repository, without a terminal and with nothing of the developer's environment.
    pub(crate) fn pi(&self, args: &[&str]) -> Command {
        self.pi_in(&self.repo(), args)
    }

    /// The same, standing elsewhere.
    pub(crate) fn pi_in(&self, dir: &Path, args: &[&str]) -> Command {
        let mut pi = Command::new(env!("CARGO_BIN_EXE_pi"));
        self.surround(&mut pi);
        if let Engine::Real { config } = &self.docker {
            pi.arg("--config").arg(config);
        }
        pi.args(args).current_dir(dir);
        pi
    }

    /// Gives any command this world's environment, and nothing else.
    pub(crate) fn surround(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        command
            .env_clear()
            .env("HOME", self.home())
            .env("XDG_CONFIG_HOME", self.root.join("config"))
            .env("XDG_STATE_HOME", self.root.join("state"))
            .env("TMPDIR", self.root.join("tmp"))
            .env("TERM", "xterm-256color")
            .stdin(Stdio::null());
        match &self.docker {
            Engine::Fake(fake) => {
                command.env("PATH", format!("{}:{path}", fake.bin().display()));
                command.env("DOCKER_HOST", fake.address());
            }
            Engine::Real { .. } => {
                command.env("PATH", path);
                if let Some(engine) = std::env::var_os("DOCKER_HOST") {
                    command.env("DOCKER_HOST", engine);
                }
            }
        }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, command: &mut Command) -> Outcome {
        self.start(command).wait()
    }

    /// Runs `pi` with these words to its end.
    pub(crate) fn run_pi(&self, args: &[&str]) -> Outcome {
        self.run(&mut self.pi(args))
    }

    /// Starts a command in a process group of its own; what it prints goes to files.
    pub(crate) fn start(&self, command: &mut Command) -> Running {
        let n = self.runs.fetch_add(1, Ordering::SeqCst);
        let [out, err] = ["out", "err"].map(|kind| self.root.join(format!("runs/{n}.{kind}")));
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let child = command.process_group(0).spawn().unwrap();
        Running { child, out, err }
    }

    /// The plan that `pi` would carry out with these words, as data.
    pub(crate) fn plan(&self, args: &[&str]) -> serde_json::Value {
        let words = [&["--dry-run=json", "--quiet"], args].concat();
        let Outcome { code, out, err, .. } = self.run_pi(&words);
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str(&out).unwrap()
    }

    /// What `pi` remembers on this machine.
    pub(crate) fn state(&self) -> PathBuf {
        let session = PathBuf::from(self.plan(&[])["state"].as_str().unwrap());
        session.parent().and_then(Path::parent).unwrap().to_owned()
    }

    /// The directories of sessions, dead or alive.
    pub(crate) fn sessions(&self) -> Vec<PathBuf> {
        let mut found: Vec<_> = children(&self.root.join("state/pi"))
            .iter()
            .flat_map(|machine| children(&machine.join("sessions")))
            .filter(|path| path.is_dir())
            .collect();
        found.sort();
        found
    }

    /// Waits until exactly one session has a directory, and returns it.
    pub(crate) fn session(&self) -> PathBuf {
        until("a session's directory", || match self.sessions().as_slice() {
            [one] => Ok(one.clone()),
            other => Err(other.to_vec()),
        })
    }

    /// Processes that keep watch over sessions of this world.
    pub(crate) fn watchers(&self) -> Vec<Pid> {
        let state = self.root.join("state");
        processes(|words| {
            words.iter().any(|word| word == "__watch")
                && words.iter().any(|word| Path::new(word).starts_with(&state))
        })
    }

    /// Asserts that no session of this world has left anything: object, directory, temporary file or process.
    pub(crate) fn assert_nothing_left(&self) {
        let left = || -> Vec<String> {
            let files = self.sessions().into_iter().chain(children(&self.root.join("tmp")));
            let mut left: Vec<String> = files.map(|path| path.display().to_string()).collect();
            left.extend(self.watchers().iter().map(|pid| format!("watcher {}", pid.as_raw_nonzero())));
            left.extend(match &self.docker {
                Engine::Fake(fake) => fake.objects(),
                Engine::Real { .. } => self.labelled(),
            });
            left
        };
        let found = left();
        assert!(found.is_empty(), "left: {found:#?}\nfake docker: {}", self.story());
    }

    fn story(&self) -> String {
        match &self.docker {
            Engine::Fake(fake) => format!("{:#?}", fake.kinds()),
            Engine::Real { .. } => "none".to_owned(),
        }
    }

    /// What the real engine has with this world's label, caches left out: they outlive sessions on purpose.
    fn labelled(&self) -> Vec<String> {
        let plan = self.plan(&[]);
        let label = format!("label=pi.state={}", plan["agent"]["labels"]["pi.state"].as_str().unwrap());
        let mut found = Vec::new();
        for (kind, name) in [("container", "{{.Names}}"), ("network", "{{.Name}}"), ("volume", "{{.Name}}")] {
            let mut list = Command::new("docker");
            list.args([kind, "ls", "--filter", &label, "--format", name]);
            if kind == "container" {
                list.arg("--all");
            }
            let Outcome { code, out, err, .. } = self.run(&mut list);
            assert_eq!(code, Some(0), "{err}");
            found.extend(
                out.lines()
                    .filter(|name| !name.starts_with("pi-cache-"))
                    .map(|name| format!("{kind} {name}")),
            );
        }
        found
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if matches!(self.docker, Engine::Real { .. }) {
            // The caches of this world, and whatever a failed test has not taken down.
            let Outcome { code, err, .. } = self.run_pi(&["clean", "--caches"]);
            assert!(code == Some(0) || thread::panicking(), "`pi clean --caches` failed: {err}");
        }
    }
}

/// What became of a command.
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
}

/// A command that is running.
pub(crate) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
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
        fs::read_to_string(&self.out).unwrap()
    }

    /// What it has printed on stderr so far.
    pub(crate) fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Outcome {
        let status: ExitStatus = until("the end of a command", || {
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

/// Looks again and again until there is a value; says what was there instead when it takes too long.
#[track_caller]
pub(crate) fn until<T, E: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) => assert!(Instant::now() < end, "waited for {what} and saw {seen:#?}"),
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || if holds() { Ok(()) } else { Err(()) });
}

/// Processes whose words satisfy `wanted`.
pub(crate) fn processes(wanted: impl Fn(&[String]) -> bool) -> Vec<Pid> {
    children(Path::new("/proc"))
        .iter()
        .filter_map(|path| {
            let pid = Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?)?;
            let line = fs::read(path.join("cmdline")).ok()?;
            let words: Vec<String> = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            wanted(&words).then_some(pid)
        })
        .collect()
}

/// Writes a file and the directories above it, as the owner of the repository would.
pub(crate) fn write(path: &Path, text: &str) {
    let first = path.ancestors().take_while(|path| !path.exists()).last().unwrap_or(path).to_owned();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    own(&first);
}

/// What stands in a directory, sorted; nothing where there is none.
pub(crate) fn children(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// For a developer who is root: the repository belongs to a common user, as it would anywhere else.
pub(crate) fn own(path: &Path) {
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(path, Some(1000), Some(1000)).unwrap();
        if path.is_dir() && !path.is_symlink() {
            for child in children(path) {
                own(&child);
            }
        }
    }
}
