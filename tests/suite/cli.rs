//! What can be said on the command line, what is answered, and every refusal that needs no engine.

mod allowlist;
mod docker;
mod doctor;
mod help;
mod image;
mod place;
mod registry;
mod said;
mod sbom;
mod settings;
mod shown;
mod words;

use crate::world::{World, call::Outcome};

/// A usage error: status 2, nothing on stdout, nothing asked of docker.
#[track_caller]
fn misuse(words: &[&str], message: &str, hint: &str) {
    let world = World::fake();
    let outcome = world.run_pi(words);
    let hint = if hint.is_empty() { String::new() } else { format!("pi: hint: {hint}\n") };
    outcome.is(2, "", &format!("pi: error: {message}\n{hint}"));
    assert_eq!(world.docker().kinds(), [""; 0]);
    assert_eq!(world.sessions(), [""; 0].map(std::path::PathBuf::from));
}

/// A failure of the launcher's: status 125, nothing on stdout.
#[track_caller]
fn failure(outcome: &Outcome, message: &str, hint: &str) {
    let hint = if hint.is_empty() { String::new() } else { format!("pi: hint: {hint}\n") };
    outcome.is(125, "", &format!("pi: error: {message}\n{hint}"));
}
