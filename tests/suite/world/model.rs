//! What the tests ask of the engine themselves, and the scripted model.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    thread,
};

use super::{files::PROGRAMS, wait::PATIENCE};

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
        Self { address, _held: held }
    }
}
