//! A home and a repository of nobody's, and what is run there.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PI: &str = env!("CARGO_BIN_EXE_pi");

pub(crate) struct World {
    dir: tempfile::TempDir,
    config: PathBuf,
}

/// A command without what this process has in its environment, such as keys.
fn clean(program: &str, home: &Path) -> Command {
    let kept = ["PATH", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"];
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home);
    command.envs(kept.into_iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command
}

/// The same command with a key of nobody's, for which a session has a broker.
pub(crate) fn keyed(mut command: Command) -> Command {
    command.env("ANTHROPIC_API_KEY", "sk-ant-made-up-and-of-no-use");
    command
}

/// A script for the shell.
pub(crate) fn shell(script: &str) -> Command {
    let mut sh = clean("sh", Path::new("/"));
    sh.arg("-c").arg(script);
    sh
}

/// What a command prints, if it ends well.
#[track_caller]
pub(crate) fn said(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What a command says on stderr, if it ends well.
#[track_caller]
pub(crate) fn complained(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Runs a script, whatever comes of it.
pub(crate) fn shell_quiet(script: &str) {
    let _ = shell(script).output();
}

/// What docker prints.
#[track_caller]
pub(crate) fn docker(args: &[&str]) -> String {
    let mut docker = Command::new("docker");
    docker.args(args);
    said(docker)
}

/// Makes the files that a session needs, once, and returns its script, in which they are named.
pub(crate) fn with_files(script: &str) -> String {
    // The launcher would take a session's directory without a launcher for what is left of one.
    let script = script.replace("/sessions/", "/bench/");
    let (before, _) = script.split_once("\ndocker ").unwrap();
    let mut is_of_the_end = false;
    let files: Vec<&str> = before
        .lines()
        .filter(|line| {
            // What would remove them at the end of the script.
            is_of_the_end |= *line == "down() {";
            let kept = !is_of_the_end && !line.starts_with("trap ");
            is_of_the_end &= *line != "}";
            kept
        })
        .collect();
    said(shell(&files.join("\n")));
    script
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = env::var_os("XDG_CONFIG_HOME")
            .map_or_else(|| Path::new(&env::var_os("HOME").unwrap()).join(".config"), PathBuf::from);
        let world = Self { dir, config: config.join("pi/setup.toml") };
        for repository in ["repo", "other"] {
            let mut git = clean("git", world.home());
            git.args(["init", "--quiet"]).arg(world.home().join(repository));
            said(git);
        }
        let built = world.pi(&["build"]).output().unwrap();
        assert!(built.status.success(), "run `tests/setup` first: {built:?}");
        // What a first session makes is not part of what is measured.
        for words in [&["--", "--version"] as &[&str], &["--proxy", "--", "--version"]] {
            said(world.pi(words));
        }
        world
    }

    fn home(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.home().join("repo")
    }

    /// One without many files.
    pub(crate) fn another_repository(&self) -> PathBuf {
        self.home().join("other")
    }

    pub(crate) fn pi(&self, words: &[&str]) -> Command {
        self.pi_that(&[&["--quiet"], words].concat())
    }

    /// The same, which says what it does.
    pub(crate) fn pi_that(&self, words: &[&str]) -> Command {
        let mut pi = clean(PI, self.home());
        pi.arg("--config").arg(&self.config).args(words).current_dir(self.repo());
        pi
    }

    pub(crate) fn with_a_key(&self, words: &[&str]) -> Command {
        keyed(self.pi(words))
    }

    /// What a dry run prints.
    fn planned(&self, how: &str, words: &[&str]) -> String {
        said(self.pi(&[&[how], words].concat()))
    }

    /// A session as a script, one command after the other.
    pub(crate) fn script(&self, words: &[&str]) -> String {
        self.planned("--dry-run", words)
    }

    /// The same of a session with a broker.
    pub(crate) fn keyed_script(&self, words: &[&str]) -> String {
        said(self.with_a_key(&[&["--dry-run"], words].concat()))
    }

    /// A session as data.
    pub(crate) fn plan(&self, words: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.planned("--dry-run=json", words)).unwrap()
    }

    /// An open session as one `docker run --rm`, with the same image, flags and mounts, and its files.
    pub(crate) fn bare_run(&self, words: &[&str]) -> String {
        let script = with_files(&self.script(words));
        let (_, rest) = script.split_once("\ndocker create --rm").unwrap();
        let line = rest.lines().next().unwrap().trim_end_matches(" >/dev/null");
        format!("exec docker run --rm{line}")
    }

    /// What the settings say of an image.
    pub(crate) fn image_setting(&self, name: &str) -> Option<String> {
        let settings: toml::Table = fs::read_to_string(&self.config).ok()?.parse().ok()?;
        Some(settings.get("images")?.get(name)?.as_str()?.to_owned())
    }

    /// Writes an allowlist of so many names into the repository.
    pub(crate) fn write_list(&self, entries: usize) {
        let lines: Vec<String> = (0..entries).map(|n| format!("host{n}.example{n}.com\n")).collect();
        fs::write(self.repo().join("list"), lines.concat()).unwrap();
    }

    /// The machine, the engine and the agent.
    pub(crate) fn machine(&self) -> String {
        let versions = said(self.pi(&["--version"]));
        let agent = versions.lines().find(|line| line.ends_with("(agent)")).unwrap_or_default();
        let engine =
            docker(&["version", "--format", "engine {{.Server.Version}}, client {{.Client.Version}}"]);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        format!("{processors} processors, Linux {}, {engine}, {agent}", kernel.trim())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.pi(&["clean", "--caches"]).output();
    }
}
