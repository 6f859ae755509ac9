//! What a session promises, on a real engine, with the real agent and a scripted model. One test for each promise; one
//! container serves many questions about itself.

mod agent;
mod git;
mod held;
mod hide;
mod kernel;
mod languages;
mod options;
mod sandbox;
mod terminal;
mod verbs;

use std::collections::BTreeMap;

const ECHO: [&str; 3] = ["-p", "--model", "demo/echo"];

/// Lines of `name value`, as a map.
fn table(text: &str) -> BTreeMap<&str, &str> {
    text.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect()
}
