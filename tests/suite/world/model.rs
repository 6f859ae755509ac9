//! What the tests ask of the engine themselves, and the scripted model.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, LazyLock, Mutex},
    thread,
};

use super::{
    files::PROGRAMS,
    wait::{PATIENCE, until_true},
};

/// Runs docker itself and returns what it printed.
#[track_caller]
pub(crate) fn docker(args: &[&str]) -> String {
    let mut docker = Command::new("timeout");
    docker.arg(PATIENCE.as_secs().to_string()).arg("docker").args(args).stdin(Stdio::null());
    let shared = PROGRAMS.read().unwrap();
    let said = docker.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(shared);
    let said = said.wait_with_output().unwrap();
    assert!(said.status.success(), "docker {args:?}: {said:?}");
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// Makes a context in docker's settings at this place, with the engine at this address.
#[track_caller]
pub(crate) fn context(settings: &Path, name: &str, address: &str) {
    let (settings, host) = (settings.to_str().unwrap(), format!("host={address}"));
    docker(&["--config", settings, "context", "create", name, "--docker", &host]);
}

/// A file of the project.
pub(crate) fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The settings of this machine.
pub(crate) fn settings() -> String {
    fs::read_to_string(home_of_tests("XDG_CONFIG_HOME", ".config").join("pi/setup.toml"))
        .expect("there is no ~/.config/pi/setup.toml: run `tests/setup` first, it makes this machine ready")
}

/// A directory of whoever runs the tests.
pub(super) fn home_of_tests(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable)
        .map_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(default), PathBuf::from)
}

/// A container of this test program's own, in which node runs, and what it has printed. It ends with its standard input,
/// and so with the program, however that ends.
pub(crate) struct Held {
    pub(crate) name: String,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Held {
    /// Starts one, with these options, with files of this machine at these places, and with these words for node.
    pub(crate) fn start(
        role: &str,
        image: &str,
        options: &[&str],
        mounts: &[(&Path, &str)],
        words: &[&str],
    ) -> Self {
        let name = format!("pi-e2e-{role}-{}", std::process::id());
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--interactive", "--init", "--log-driver=none", "--entrypoint=node"]);
        command.args(["--name", &name, &format!("--label=pi.e2e={role}")]).args(options);
        for (from, to) in mounts {
            command.arg("--mount").arg(format!("type=bind,source={},target={to}", from.display()));
        }
        command.arg(image).args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let shared = PROGRAMS.read().unwrap();
        let mut child = command.spawn().unwrap();
        drop(shared);
        let log = Arc::<Mutex<String>>::default();
        let (lines, written) = (BufReader::new(child.stdout.take().unwrap()), log.clone());
        // Nobody may let its pipe fill up.
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let _ = writeln!(written.lock().unwrap(), "{line}");
            }
        });
        Self { name, child, log }
    }

    /// The same, once it has printed this.
    pub(crate) fn that_says(self, word: &str) -> Self {
        until_true(&self.name, || self.log().contains(word));
        self
    }

    /// All that it has printed.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Writes a line to it.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Its address on docker's own network.
    pub(crate) fn address(&self) -> String {
        let format = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
        docker(&["inspect", "--format", format, &self.name])
    }
}

/// The scripted model.
pub(crate) struct Model {
    pub(crate) address: String,
    _held: Held,
}

/// One for all tests of a program.
pub(crate) fn model() -> &'static Model {
    static MODEL: LazyLock<Model> = LazyLock::new(Model::start);
    &MODEL
}

impl Model {
    fn start() -> Self {
        let image = settings()
            .lines()
            .find_map(|line| line.strip_prefix("base = "))
            .map_or("mcr.microsoft.com/devcontainers/typescript-node:24-trixie".to_owned(), |value| {
                value.trim_matches('"').to_owned()
            });
        let options = ["--network=bridge", "--cap-drop=ALL", "--user=65534:65534"];
        let program = "process.stdin.resume().on('end', () => process.exit()); import('/demo/model.mjs');";
        let demo = source("assets/demo");
        let held = Held::start("model", &image, &options, &[(&demo, "/demo")], &["-e", program]);
        let held = held.that_says("listening ");
        Self { address: held.address(), _held: held }
    }
}
