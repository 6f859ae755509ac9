//! What the launcher costs, as ratios measured in one run: whole processes, taking turns, medians after a warm-up.
//!
//! `cargo bench` prints a table in Markdown; `PI_BENCH_RUNS=31 cargo bench` makes its figures steadier, and
//! `cargo bench -- agent memory` measures only what these words name. Needs what `tests/setup` makes ready.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

mod inside;
mod memory;
mod time;
mod world;

use std::{env, fs, process::Command};

use crate::{
    time::{Timed, alternate, at_once, median},
    world::{World, shell},
};

/// A group of rows, and what measures it.
type Group = (&'static str, fn(&World, usize));

const GROUPS: [Group; 6] = [
    ("sessions", sessions),
    ("agent", inside::agent),
    ("launcher", launcher),
    ("together", together),
    ("memory", memory::rows),
    ("rules", inside::rules),
];

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    // `cargo test --benches` only asks whether it starts.
    if !words.iter().any(|word| word == "--bench") {
        return;
    }
    let runs = env::var("PI_BENCH_RUNS").ok().map_or(21, |text| text.parse().unwrap());
    let wanted = |group: &str| {
        let mut named = words.iter().filter(|word| !word.starts_with('-')).peekable();
        named.peek().is_none() || named.any(|word| word == group)
    };
    let world = World::new();
    println!("Medians of {runs} runs, taking turns. {}.\n", world.machine());
    println!("| measure | against | | | ratio |");
    println!("|---|---|--:|--:|--:|");
    for (name, measure) in GROUPS {
        if wanted(name) {
            measure(&world, runs);
        }
    }
}

/// A row of two figures and their ratio.
fn row(what: &str, against: &str, [a, b]: [f64; 2], unit: &str) {
    println!("| {what} | {against} | {a:.0} {unit} | {b:.0} {unit} | {:.2} |", a / b);
}

/// A row of one figure.
fn figure(what: &str, value: &str) {
    println!("| {what} | – | {value} | | |");
}

const VERSION: [&str; 2] = ["--", "--version"];

/// The same agent in a session that has the broker: asked directly for its version, the launcher sees that no key is needed.
const KEYED: [&str; 4] = ["shell", "--", "pi", "--version"];

const PROXY: [&str; 3] = ["--proxy", "--", "--version"];

fn sessions(world: &World, runs: usize) {
    let bare = world.bare_run(&VERSION);
    let commands: [&dyn Fn() -> Command; 5] = [
        &|| world.pi(&VERSION),
        &|| world.with_a_key(&KEYED),
        &|| shell(&bare),
        &|| world.pi(&PROXY),
        &|| shell(&world.script(&PROXY)),
    ];
    let [plain, keyed, bare, proxy, script] = alternate(runs, commands);
    let whole = |times: &Vec<Timed>| median(times.iter().map(|time| time.whole));
    let exit = |times: &Vec<Timed>| median(times.iter().map(|time| time.exit));
    let barest = "the barest `docker run --rm`, same image, flags and mounts";
    let steps = "its own dry run as a script, one step after the other";
    row("`pi -- --version`", barest, [whole(&plain), whole(&bare)], "ms");
    row("the same with a key and its broker", barest, [whole(&keyed), whole(&bare)], "ms");
    row("`pi --proxy -- --version`", steps, [whole(&proxy), whole(&script)], "ms");
    row("the same", barest, [whole(&proxy), whole(&bare)], "ms");
    row("agent's last word to the prompt, `pi`", barest, [exit(&plain), exit(&bare)], "ms");
    row("the same, `pi --proxy`", steps, [exit(&proxy), exit(&script)], "ms");
}

fn launcher(world: &World, runs: usize) {
    world.write_list(10_000);
    for n in 0..100_000 {
        let dir = world.repo().join(format!("many/{}", n / 1000));
        if n % 1000 == 0 {
            fs::create_dir_all(&dir).unwrap();
        }
        fs::write(dir.join(n.to_string()), "").unwrap();
    }
    let few = world.another_repository();
    let docker = &|| {
        let mut docker = Command::new("docker");
        docker.arg("--version");
        docker
    };
    let in_few = |words: &[&str]| {
        let mut pi = world.pi(words);
        pi.current_dir(&few);
        pi
    };
    let commands: [&dyn Fn() -> Command; 7] = [
        docker,
        &|| in_few(&["--version"]),
        &|| in_few(&["--dry-run"]),
        &|| in_few(&["ps"]),
        &|| in_few(&["check", "api.anthropic.com"]),
        &|| world.pi(&["--allowed-domains", "list", "check", "host7.example7.com"]),
        &|| world.pi(&["--dry-run"]),
    ];
    let names = [
        "`pi --version`", "`pi --dry-run`", "`pi ps`", "`pi check`", "`pi check`, 10 000 entries",
        "`pi --dry-run`, 100 000 files",
    ];
    let [docker, rest @ ..] =
        alternate(runs, commands).map(|times| median(times.iter().map(|time| time.whole)));
    for (name, time) in names.iter().zip::<[f64; 6]>(rest) {
        row(name, "`docker --version`", [time, docker], "ms");
    }
    fs::remove_dir_all(world.repo().join("many")).unwrap();
}

fn together(world: &World, runs: usize) {
    for words in [&VERSION as &[&str], &PROXY] {
        let [alone] = alternate(runs, [&|| world.pi(words) as Command]);
        let alone = median(alone.iter().map(|time| time.whole)) * 20.0;
        let at_once = median((0..3).map(|_| at_once(20, &|| world.pi(words))));
        let what = if words.len() == 2 { "20 `pi` at once" } else { "20 `pi --proxy` at once" };
        row(what, "20 one after the other", [at_once, alone], "ms");
    }
}
