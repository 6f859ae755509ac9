//! What is answered without a session.

use crate::world::{World, call::Outcome};

/// Runs `pi` with these words in a world of its own.
fn pi(words: &[&str]) -> Outcome {
    World::fake().run_pi(words)
}

#[test]
fn versions_and_help_are_data() {
    let version = pi(&["--version"]);
    assert_eq!((version.code, version.err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = version.out.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], format!("pi {} (launcher)", env!("CARGO_PKG_VERSION")));
    assert!(lines[1].ends_with("(agent)"), "{version:?}");
    for words in [&["--help"][..], &["-h"], &["shell", "--help"], &["clean", "--help"]] {
        let help = pi(words);
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "{words:?}");
        assert!(help.out.contains("Usage:"), "{words:?}: {}", help.out);
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = pi(&["completions", shell]);
        assert_eq!((script.code, script.err.as_str()), (Some(0), ""), "{shell}");
        assert!(script.out.contains("allowed-domains"), "{shell}");
        assert!(!script.out.contains("__watch"), "{shell} completes a verb that is not for people");
    }
}

#[test]
fn help_and_versions_need_no_docker_and_no_home() {
    let world = World::fake();
    for words in [["--help"], ["--version"]] {
        world.pi(&words).env("PATH", world.root().join("empty")).run().has_code(0);
    }
}
