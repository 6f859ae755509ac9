//! A world for tests on the real engine: a home, a repository, the real `pi`, the scripted model, and the proof that
//! nothing is left of them.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::PATIENCE;

/// After how long a key is pressed again of which nothing came.
const AGAIN: Duration = Duration::from_secs(2);

/// How long an image may take to build, PHP's and Go's included.
const BUILD: Duration = Duration::from_secs(540);

/// A user and a group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Who runs the tests.
pub(crate) fn myself() -> Who {
    Who { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
}

/// A home and a repository of a test's own. When it is dropped, nothing of its sessions may be left.
pub(crate) struct World {
    root: TempDir,
    pub(crate) home: PathBuf,
    pub(crate) repo: PathBuf,
    pub(crate) owner: Who,
}

impl World {
    /// A world with an empty repository, the scripted model and the image of the base variant.
    pub(crate) fn new(name: &str) -> Self {
        let world = Self::of(name, Self::somebody());
        world.prepare(myself(), &[]);
        world
    }

    /// Who a world belongs to unless a test says otherwise: a user like any other, also where root runs the tests.
    pub(crate) fn somebody() -> Who {
        match myself() {
            Who { uid: 0, .. } => Who { uid: 1000, gid: 1000 },
            user => user,
        }
    }

    /// The same, of this owner.
    pub(crate) fn of(name: &str, owner: Who) -> Self {
        Self::at(name, owner, "project".as_ref())
    }

    /// The same, with the repository in a directory of this name.
    pub(crate) fn at(name: &str, owner: Who, repository: &std::ffi::OsStr) -> Self {
        let root = tempfile::Builder::new().prefix(&format!("pi-e2e-{name}-")).tempdir().unwrap();
        // Other users of a test have to come by here.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let base = fs::canonicalize(root.path()).unwrap();
        let world =
            Self { home: base.join("home"), repo: base.join("home/projects").join(repository), root, owner };
        for dir in [world.home.clone(), world.home.join("work"), world.repo.clone()] {
            world.make_dir(&dir);
        }
        world.write(world.home.join(".config/pi/config.toml"), &settings());
        let models = fs::read_to_string(source("assets/demo/models.json")).unwrap();
        let models = models
            .replace("{{BASE_URL}}", &format!("http://{}:8080/v1", model().address))
            .replace("{ \"id\": \"slow\" }", "{ \"id\": \"slow\" }, { \"id\": \"unknown\" }");
        world.write(world.home.join(".pi/agent/models.json"), &models);
        world.write(
            world.home.join(".gitconfig"),
            "[user]\n\tname = Test Person\n\temail = person@example.com\n[init]\n\tdefaultBranch = main\n",
        );
        world.git(&world.repo, &["init", "--quiet"]);
        world
    }

    /// The directory that everything of this world is in.
    pub(crate) fn base(&self) -> &Path {
        self.home.parent().unwrap()
    }

    /// Makes a directory, and those above it, for the owner.
    pub(crate) fn make_dir(&self, dir: &Path) {
        let mut missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
        missing.reverse();
        for dir in missing {
            fs::create_dir(dir).unwrap();
            self.give(dir);
        }
    }

    /// Writes a file of the owner's.
    pub(crate) fn write(&self, path: impl AsRef<Path>, text: &str) {
        self.make_dir(path.as_ref().parent().unwrap());
        fs::write(&path, text).unwrap();
        self.give(path.as_ref());
    }

    fn give(&self, path: &Path) {
        if self.owner != myself() {
            std::os::unix::fs::lchown(path, Some(self.owner.uid), Some(self.owner.gid)).unwrap();
        }
    }

    /// Adds lines to the settings, before the tables.
    pub(crate) fn configure(&self, lines: &str) {
        let path = self.home.join(".config/pi/config.toml");
        self.write(&path, &format!("{lines}\n{}", fs::read_to_string(&path).unwrap()));
    }

    /// Runs the host's git as the owner and returns what it said.
    pub(crate) fn git(&self, dir: &Path, args: &[&str]) -> String {
        let mut git = self.as_owner("git".as_ref());
        git.arg("-C").arg(dir).args(args);
        let done = run(git, "", PATIENCE);
        assert_eq!(done.code, Some(0), "git {args:?}: {done:?}");
        done.out
    }

    /// A program that runs as the owner, with nothing of this process's environment.
    fn as_owner(&self, program: &std::ffi::OsStr) -> Command {
        let mut command = if self.owner == myself() {
            Command::new(program)
        } else {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={}", self.owner.uid))
                .arg(format!("--regid={}", self.owner.gid))
                .arg("--clear-groups")
                .arg(program);
            command
        };
        self.surround(&mut command);
        command
    }

    fn surround(&self, command: &mut Command) {
        command.env_clear().env("HOME", &self.home).env("TERM", "xterm-256color");
        for name in ["PATH", "DOCKER_HOST"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
    }

    /// `pi` in the repository, by whoever runs the tests, with nothing of this process's environment.
    pub(crate) fn pi(&self, args: &[&str]) -> Pi {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pi"));
        self.surround(&mut command);
        command.args(args).current_dir(&self.repo);
        Pi { command, stdin: String::new(), limit: PATIENCE }
    }

    /// The same by another user, who may use the engine's socket.
    pub(crate) fn pi_by(&self, who: Who, args: &[&str]) -> Pi {
        use std::os::unix::fs::MetadataExt as _;
        // The build directory may lie where only its owner can look.
        let program = self.base().join("pi");
        if !program.exists() {
            fs::copy(env!("CARGO_BIN_EXE_pi"), &program).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let engine =
            std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let socket = fs::metadata(engine.trim_start_matches("unix://")).unwrap();
        let mut command = Command::new("setpriv");
        self.surround(&mut command);
        command
            .arg(format!("--reuid={}", who.uid))
            .arg(format!("--regid={}", who.gid))
            .arg(format!("--groups={}", socket.gid()))
            .arg("--")
            .arg(program)
            .args(args)
            .current_dir(&self.repo);
        Pi { command, stdin: String::new(), limit: PATIENCE }
    }

    /// `pi shell -- sh -c SCRIPT`, with launcher options before it.
    pub(crate) fn shell(&self, options: &[&str], script: &str) -> Pi {
        let mut args = options.to_vec();
        args.extend(["shell", "--", "sh", "-c", script]);
        self.pi(&args)
    }

    /// Makes an image exist, so that what follows is a session alone; each one once in a test program.
    pub(crate) fn prepare(&self, launcher: Who, options: &[&str]) {
        static DONE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let what = format!("{launcher:?} {:?} {options:?}", self.owner);
        let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
        if !done.contains(&what) {
            let args = [options, &["shell", "--", "true"]].concat();
            let call = if launcher == myself() { self.pi(&args) } else { self.pi_by(launcher, &args) };
            let built = call.limit(BUILD).run();
            assert_eq!(built.code, Some(0), "the image was not built: {built:?}");
            done.insert(what);
        }
    }

    /// A shell script, by whoever runs the tests, in the repository and where nothing but `pi` was started.
    pub(crate) fn script(&self, path: &Path) -> Pi {
        let mut command = Command::new("sh");
        self.surround(&mut command);
        command.arg(path).current_dir(&self.repo);
        Pi { command, stdin: String::new(), limit: PATIENCE }
    }

    /// The plan of a session, as data.
    pub(crate) fn plan(&self, options: &[&str]) -> serde_json::Value {
        let mut args = vec!["--dry-run=json"];
        args.extend(options);
        args.extend(["shell", "--", "true"]);
        serde_json::from_str(&self.pi(&args).good()).unwrap()
    }

    /// Where the launcher keeps its state; there is at most one machine.
    fn state(&self) -> Option<PathBuf> {
        let machines = fs::read_dir(self.home.join(".local/state/pi")).ok()?;
        machines.map(|entry| entry.unwrap().path()).find(|path| path.is_dir())
    }

    fn label(&self) -> Option<String> {
        let state = self.state()?;
        let digest = Sha256::digest(state.as_os_str().as_bytes());
        let hex = digest.iter().take(6).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        Some(format!("pi.state={hex}"))
    }

    /// What is left of this world's sessions, a line each.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let Some(label) = self.label() else { return vec![] };
        let state = self.state().unwrap();
        let mut found = Vec::new();
        for kind in ["container", "network", "volume"] {
            found.extend(labelled(kind, &label).into_iter().map(|name| format!("{kind} {name}")));
        }
        for entry in fs::read_dir(state.join("sessions")).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            if name != ".lock" {
                found.push(format!("session directory {}", name.display()));
            }
        }
        let state = state.as_os_str().as_bytes();
        for entry in fs::read_dir("/proc").unwrap() {
            let Ok(line) = fs::read(entry.unwrap().path().join("cmdline")) else { continue };
            if line.windows(state.len()).any(|part| part == state) {
                found.push(format!("process {}", String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            // The test has failed already: what is left would only disturb others.
            let Some(label) = self.label() else { return };
            for (kind, remove) in [
                ("container", &["rm", "--force"][..]),
                ("network", &["network", "rm"]),
                ("volume", &["volume", "rm", "--force"]),
            ] {
                for name in labelled(kind, &label) {
                    let _ = Command::new("docker")
                        .args(remove)
                        .arg(name)
                        .stdout(Stdio::null())
                        .stderr(Stdio::null())
                        .status();
                }
            }
            return;
        }
        if self.state().is_some() {
            let cleaned = self.pi(&["clean", "--caches"]).run();
            assert_eq!(cleaned.code, Some(0), "{cleaned:?}");
            assert!(!cleaned.out.contains("session `"), "a session was left: {cleaned:?}");
            // The second process of a session ends just after the first.
            let mut left = self.leftovers();
            until(PATIENCE, || {
                left = self.leftovers();
                left.is_empty()
            });
            assert_eq!(left, Vec::<String>::new(), "left behind");
        }
    }
}

/// A call of `pi` that has not been made.
pub(crate) struct Pi {
    command: Command,
    stdin: String,
    limit: Duration,
}

impl Pi {
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn cwd(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn stdin(mut self, text: &str) -> Self {
        text.clone_into(&mut self.stdin);
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Done {
        run(self.command, &self.stdin, self.limit)
    }

    /// Runs it to its good end, in which it says nothing on stderr, and returns what it printed.
    pub(crate) fn good(self) -> String {
        let done = self.run();
        assert!(done.code == Some(0) && done.err.is_empty(), "{done:?}");
        done.out
    }

    /// Starts it; it is ended with the returned value.
    pub(crate) fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let streams = read_streams(&mut child);
        Running { child, streams }
    }
}

/// A `pi` that runs beside the test.
pub(crate) struct Running {
    pub(crate) child: Child,
    streams: [thread::JoinHandle<String>; 2],
}

impl Running {
    /// Waits for its end.
    pub(crate) fn end(self) -> Done {
        finish(self.child, self.streams, PATIENCE)
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// An end with this status and nothing on stderr.
    pub(crate) fn silent(code: i32, out: &str) -> Self {
        Self { code: Some(code), signal: None, out: out.to_owned(), err: String::new() }
    }
}

/// Runs a program to its end, which must come within `limit`.
pub(crate) fn run(mut command: Command, stdin: &str, limit: Duration) -> Done {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let streams = read_streams(&mut child);
    // Who does not read its input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    finish(child, streams, limit)
}

fn read_streams(child: &mut Child) -> [thread::JoinHandle<String>; 2] {
    fn read(mut from: impl std::io::Read + Send + 'static) -> thread::JoinHandle<String> {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    [read(child.stdout.take().unwrap()), read(child.stderr.take().unwrap())]
}

fn finish(mut child: Child, [out, err]: [thread::JoinHandle<String>; 2], limit: Duration) -> Done {
    drop(child.stdin.take());
    let mut status = None;
    let ended = until(limit, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if !ended {
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        if !until(Duration::from_secs(20), || child.try_wait().unwrap().is_some()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!(
            "it did not end within {limit:?}; stdout: {:?}; stderr: {:?}",
            out.join().unwrap(),
            err.join().unwrap()
        );
    }
    let status = status.unwrap();
    Done { code: status.code(), signal: status.signal(), out: out.join().unwrap(), err: err.join().unwrap() }
}

/// Asks again until it is so, or until the time is over; says whether it is so.
pub(crate) fn until(limit: Duration, mut so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if so() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// Containers, networks or volumes with this label.
fn labelled(kind: &str, label: &str) -> Vec<String> {
    let filter = format!("label={label}");
    let mut args = vec![kind, "ls", "--quiet", "--filter", &filter];
    if kind == "container" {
        args.push("--all");
    }
    docker(&args).lines().map(str::to_owned).collect()
}

/// Runs docker itself and returns what it printed.
pub(crate) fn docker(args: &[&str]) -> String {
    let mut command = Command::new("docker");
    command.args(args);
    let done = run(command, "", PATIENCE);
    assert_eq!(done.code, Some(0), "docker {args:?}: {done:?}");
    done.out
}

/// A file of the project.
pub(crate) fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The settings of this machine, which `tests/setup` has written.
fn settings() -> String {
    fs::read_to_string(source("target/setup/config.toml"))
        .expect("there is no target/setup/config.toml: run `tests/setup` first, it makes this machine ready")
}

/// The scripted model, in a container of this test program's own.
pub(crate) struct Model {
    pub(crate) address: String,
    /// The container lives as long as this pipe: it ends with the test program, however that ends.
    _held: Child,
}

/// One for all tests of a program.
pub(crate) fn model() -> &'static Model {
    static MODEL: LazyLock<Model> = LazyLock::new(Model::start);
    &MODEL
}

impl Model {
    fn start() -> Self {
        assert!(
            Command::new("docker").arg("version").output().is_ok_and(|said| said.status.success()),
            "no docker engine answers: run `tests/setup` first, it makes this machine ready"
        );
        let image = settings()
            .lines()
            .find_map(|line| line.strip_prefix("base = "))
            .map_or("mcr.microsoft.com/devcontainers/typescript-node:24-trixie".to_owned(), |value| {
                value.trim_matches('"').to_owned()
            });
        let name = format!("pi-e2e-model-{}", std::process::id());
        let program = "process.stdin.resume().on('end', () => process.exit()); import('/demo/model.mjs');";
        let mut held = Command::new("docker")
            .args(["run", "--rm", "--interactive", "--init", "--network=bridge", "--label=pi.e2e=model"])
            .args(["--cap-drop=ALL", "--user=65534:65534", "--name", &name])
            .arg("--mount")
            .arg(format!("type=bind,source={},target=/demo,readonly", source("assets/demo").display()))
            .args([&image, "node", "-e", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(held.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        assert!(first.starts_with("listening "), "the scripted model did not start: {first:?}");
        // It says a line for each turn; nobody may let its pipe fill up.
        thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let address =
            docker(&["inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", &name]);
        Self { address: address.trim().to_owned(), _held: held }
    }
}

/// A terminal with a shell in it, in the repository of a world.
pub(crate) struct Terminal<'a> {
    world: &'a World,
    socket: String,
}

impl<'a> Terminal<'a> {
    pub(crate) fn open(world: &'a World) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let socket = format!("pi-e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let terminal = Self { world, socket };
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
            "PS1='ready$ ' sh -i",
        ]);
        terminal.wait("the shell's prompt", |screen| screen.contains("ready$"));
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        self.world.surround(&mut command);
        let program = Path::new(env!("CARGO_BIN_EXE_pi")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        command
            .env("PATH", format!("{}:{path}", program.display()))
            .env("LANG", "C.UTF-8")
            // Where its socket goes.
            .env("TMUX_TMPDIR", self.world.base())
            .arg("-L")
            .arg(&self.socket)
            .args(args)
            .current_dir(&self.world.repo);
        let done = run(command, "", PATIENCE);
        assert_eq!(done.code, Some(0), "tmux {args:?}: {done:?}");
        done.out
    }

    /// Types text.
    pub(crate) fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Presses keys by name, such as `Enter` and `C-c`.
    pub(crate) fn keys(&self, keys: &[&str]) {
        let mut args = vec!["send-keys"];
        args.extend(keys);
        self.tmux(&args);
    }

    /// Presses keys until the screen shows what is expected: again after a while, as a person would.
    pub(crate) fn insist(&self, keys: &[&str], what: &str, shows: impl Fn(&str) -> bool) -> String {
        let mut pressed: Option<Instant> = None;
        self.wait(what, |screen| {
            let done = shows(screen);
            if !done && pressed.is_none_or(|then| then.elapsed() > AGAIN) {
                for key in keys {
                    self.keys(&[key]);
                }
                pressed = Some(Instant::now());
            }
            done
        })
    }

    /// Types a line to the shell.
    pub(crate) fn line(&self, line: &str) {
        self.text(line);
        self.keys(&["Enter"]);
    }

    /// Pastes, as a terminal does which was asked to tell pasting from typing.
    pub(crate) fn paste(&self, text: &str) {
        self.tmux(&["set-buffer", text]);
        self.tmux(&["paste-buffer", "-p"]);
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What tmux knows of the terminal, in its own format language.
    pub(crate) fn ask(&self, format: &str) -> String {
        self.tmux(&["display-message", "-p", format])
    }

    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen with what makes its colours.
    pub(crate) fn colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen shows what is expected, and returns it.
    pub(crate) fn wait(&self, what: &str, mut shows: impl FnMut(&str) -> bool) -> String {
        let mut screen = String::new();
        let seen = until(PATIENCE, || {
            screen = self.screen();
            shows(&screen)
        });
        assert!(seen, "{what} is not to be seen:\n{screen}");
        screen
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .env("TMUX_TMPDIR", self.world.base())
            .args(["-L", &self.socket, "kill-server"])
            .output();
    }
}
