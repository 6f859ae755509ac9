//! What the launcher costs, as ratios measured in one run: whole processes, taking turns, medians after a warm-up.
//!
//! `cargo bench` prints a table in Markdown, which takes about a quarter of an hour; `cargo bench -- short` only tries whether
//! everything can be measured. `PI_BENCH_RUNS=31 cargo bench` makes the figures steadier, and `cargo bench -- agent memory`
//! measures only what these words name. `PI_BENCH_OTHER='COMMAND'` and `PI_BENCH_OTHER_PROXIED='COMMAND'` have other launchers
//! take turns with `pi` and `pi --proxy`. Needs what `tests/setup` makes ready.
//!
//! The floor is the same figure of docker's own part: the same containers, networks and mounts by as few commands as that
//! takes, with nothing of ours in them. It takes turns with the rest.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

mod floor;
mod inside;
mod launcher;
mod memory;
mod sessions;
mod size;
mod time;
mod tunnels;
mod world;

use std::{env, process::ExitCode};

use crate::world::World;

/// How much is measured.
pub(crate) struct Effort {
    /// How often processes that take turns are run, besides once to warm up.
    runs: usize,
    /// The same of what takes some seconds.
    rounds: usize,
    /// How long connections are counted.
    seconds: f64,
    /// How many sessions run at once.
    sessions: u32,
}

/// A group of rows, and what measures it.
type Group = (&'static str, fn(&World, &Effort));

const GROUPS: [Group; 9] = [
    ("sessions", sessions::rows),
    ("agent", inside::agent),
    ("launcher", launcher::rows),
    ("calls", size::calls),
    ("together", sessions::together),
    ("memory", memory::rows),
    ("tunnels", tunnels::rows),
    ("rules", inside::rules),
    ("layers", size::layers),
];

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    // `cargo test --benches` only asks whether it starts.
    if !words.iter().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    let is_short = words.iter().any(|word| word == "short");
    let runs = env::var("PI_BENCH_RUNS").ok().map(|text| text.parse().unwrap());
    let effort = if is_short {
        Effort { runs: runs.unwrap_or(1), rounds: 1, seconds: 0.3, sessions: 3 }
    } else {
        Effort { runs: runs.unwrap_or(21), rounds: 5, seconds: 2.0, sessions: 20 }
    };
    let named: Vec<&String> =
        words.iter().filter(|word| !word.starts_with('-') && *word != "short").collect();
    if let Some(word) = named.iter().find(|word| GROUPS.iter().all(|(group, _)| *group != word.as_str())) {
        let groups = GROUPS.map(|(group, _)| group).join(", ");
        println!("There is nothing called `{word}` to measure. There is: {groups}.");
        return ExitCode::from(2);
    }
    let world = World::new();
    println!("Medians of {} runs, taking turns. {}.\n", effort.runs, world.machine());
    println!("| measure | against | | | ratio | target | floor |");
    println!("|---|---|--:|--:|--:|--:|--:|");
    for (name, measure) in GROUPS {
        if named.is_empty() || named.iter().any(|word| word.as_str() == name) {
            measure(&world, &effort);
        }
    }
    ExitCode::SUCCESS
}

/// A row of two figures and their ratio, with what it should be and what docker alone takes.
fn row(what: &str, against: &str, [a, b]: [f64; 2], unit: &str, target: &str, floor: Option<f64>) {
    let floor = floor.map_or("–".to_owned(), |floor| format!("{:.2}", floor / b));
    println!("| {what} | {against} | {a:.0} {unit} | {b:.0} {unit} | {:.2} | {target} | {floor} |", a / b);
}

/// A row of one figure.
fn figure(what: &str, value: &str, target: &str, floor: &str) {
    println!("| {what} | – | {value} | | | {target} | {floor} |");
}

const VERSION: [&str; 2] = ["--", "--version"];

/// The same agent in a session that has the broker: asked directly for its version, the launcher sees that no key is needed.
const KEYED: [&str; 4] = ["shell", "--", "pi", "--version"];

const PROXY: [&str; 3] = ["--proxy", "--", "--version"];
