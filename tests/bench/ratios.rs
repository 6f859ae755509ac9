//! What the launcher costs, as ratios measured in one run: whole processes, taking turns, medians after a warm-up.
//!
//! `cargo bench`, or `PI_BENCH_RUNS=31 cargo bench` for steadier figures. Needs what `tests/setup` makes ready.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const PI: &str = env!("CARGO_BIN_EXE_pi");

fn main() {
    // `cargo test --benches` only asks whether it starts.
    if !env::args().any(|arg| arg == "--bench") {
        return;
    }
    let world = World::new();
    let runs: usize = env::var("PI_BENCH_RUNS").ok().map_or(15, |text| text.parse().unwrap());
    println!("medians of {runs} runs, A and B taking turns\n");
    println!("{:<58} {:>9} {:>9} {:>7}", "A against B", "A", "B", "A/B");
    let docker = &|| {
        let mut docker = Command::new("docker");
        docker.arg("--version");
        docker
    };
    let row = |what: &str, a: &dyn Fn() -> Command, b: &dyn Fn() -> Command| {
        let (a, b) = alternate(runs, a, b);
        println!("{what:<58} {:>6.0} ms {:>6.0} ms {:>7.2}", ms(a), ms(b), a.as_secs_f64() / b.as_secs_f64());
    };
    let open = world.bare_run();
    row(
        "pi -- --version, against a bare docker run of the same",
        &|| world.pi(&["--", "--version"]),
        &|| shell(&open),
    );
    row(
        "pi --proxy -- --version, against its dry run as a script",
        &|| world.pi(&["--proxy", "--", "--version"]),
        &|| shell(&world.script(&["--proxy", "--", "--version"])),
    );
    row("pi --version, against docker --version", &|| world.pi(&["--version"]), docker);
    row("pi --dry-run, against docker --version", &|| world.pi(&["--dry-run"]), docker);
    row("pi ps (an idle sweep), against docker --version", &|| world.pi(&["ps"]), docker);
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn shell(script: &str) -> Command {
    let mut sh = Command::new("sh");
    sh.arg("-c").arg(script);
    sh
}

/// Medians of two commands that take turns, so that a machine which slows down slows both.
fn alternate(runs: usize, a: &dyn Fn() -> Command, b: &dyn Fn() -> Command) -> (Duration, Duration) {
    let time = |make: &dyn Fn() -> Command| {
        let mut command = make();
        let begun = Instant::now();
        let output = command.stdin(Stdio::null()).output().unwrap();
        let took = begun.elapsed();
        assert!(output.status.success(), "{command:?}: {output:?}");
        took
    };
    let mut times = (vec![], vec![]);
    for run in 0..=runs {
        let (one, other) = (time(a), time(b));
        if run > 0 {
            times.0.push(one);
            times.1.push(other);
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    (median(&mut times.0), median(&mut times.1))
}

/// A home and a repository of nobody's.
struct World {
    dir: tempfile::TempDir,
    config: PathBuf,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("repo/.git")).unwrap();
        let config = std::env::var_os("XDG_CONFIG_HOME")
            .map_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".config"), PathBuf::from);
        let world = Self { dir, config: config.join("pi/setup.toml") };
        let built = world.pi(&["build"]).output().unwrap();
        assert!(built.status.success(), "run `tests/setup` first: {built:?}");
        // Directories that a first session makes are not part of what is measured.
        for args in [&["--", "--version"] as &[&str], &["--proxy", "--", "--version"]] {
            assert!(world.pi(args).output().unwrap().status.success());
        }
        world
    }

    fn pi(&self, args: &[&str]) -> Command {
        let mut pi = Command::new(PI);
        pi.arg("--config").arg(&self.config).arg("--quiet").args(args);
        pi.current_dir(self.dir.path().join("repo")).env("HOME", self.dir.path());
        pi
    }

    /// The session as a script, one command after the other.
    fn script(&self, args: &[&str]) -> String {
        let args: Vec<&str> = std::iter::once("--dry-run").chain(args.iter().copied()).collect();
        String::from_utf8(self.pi(&args).stdin(Stdio::null()).output().unwrap().stdout).unwrap()
    }

    /// `docker run --rm` with the same image, flags and mounts.
    fn bare_run(&self) -> String {
        let script = self.script(&["--", "--version"]);
        let create = script.lines().find(|line| line.starts_with("docker create")).unwrap();
        let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/seccomp.json");
        let words: Vec<&str> = create.trim_end_matches(">/dev/null").split(' ').collect();
        let mut run = String::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word {
                "create" => run.push_str("run "),
                "--name" => drop(words.next()),
                _ if word.starts_with("--security-opt=seccomp=") => {
                    run += "--security-opt=seccomp=";
                    run += &profile.display().to_string();
                    run.push(' ');
                }
                _ => {
                    run.push_str(word);
                    run.push(' ');
                }
            }
        }
        run
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.pi(&["clean", "--caches"]).output();
    }
}
