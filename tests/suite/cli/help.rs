//! What is answered without a session.

use crate::world::{World, call::Outcome, wait::until_true};

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
        assert!(script.out.contains("PI_BOX_COMPLETE"), "{shell}");
    }
    assert!(pi(&["man"]).out.starts_with(".ie"), "no manual page");
}

#[test]
fn help_and_versions_need_no_docker_and_no_home() {
    let world = World::fake();
    for words in [["--help"], ["--version"]] {
        world.pi(&words).env("PATH", world.root().join("empty")).run().has_code(0);
    }
}

#[test]
fn a_shell_that_completes_is_offered_verbs_languages_and_running_sessions() {
    let world = World::fake();
    let offered = |words: &[&str]| {
        let at = words.len().to_string();
        let asked = world.call(env!("CARGO_BIN_EXE_pi")).args(&[&["--", "pi"], words].concat());
        let asked =
            asked.env("PI_BOX_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", &at).env("_CLAP_IFS", "\n");
        let said = asked.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true").run();
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
        said.out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let verbs = offered(&[""]);
    for word in ["shell", "install", "--allowed-domains"] {
        assert!(verbs.iter().any(|offer| offer == word), "{word}: {verbs:?}");
    }
    assert!(verbs.iter().all(|word| word != "__watch"), "{verbs:?}");
    assert_eq!(offered(&["--lang", "php8"]), ["php8.4", "php8.5"]);
    assert_eq!(offered(&["stop", ""]).iter().filter(|word| !word.starts_with('-')).count(), 0);
    world.docker().rule("start-agent", "stays");
    let running = world.pi(&["--session-name", "here", "-p", "x"]).start();
    until_true("the session", || offered(&["stop", "h"]) == ["here"]);
    running.signal(rustix::process::Signal::TERM);
    running.wait();
    world.assert_nothing_left();
}
