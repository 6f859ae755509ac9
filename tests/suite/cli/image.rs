//! Images, and the caches beside them.

use std::fs;

use crate::world::{World, fake::shell, files::write, terminal::Terminal, wait::until};

#[test]
fn an_image_is_built_when_there_is_none_and_the_session_goes_on() {
    let world = World::fake();
    world.forget_images();
    world.docker().rule("build", "echo Step 1; say Step 2");
    let outcome = world.run_pi(&["-p", "x"]);
    outcome.has_code(0);
    assert_eq!(outcome.out, "", "docker's progress is no data");
    for said in ["pi: building the image `pi-layer:base-", "`pi-agent:base-"] {
        assert!(outcome.err.contains(said), "{said}: {}", outcome.err);
    }
    assert!(!outcome.err.contains("Step"), "without a terminal nobody watches: {}", outcome.err);
    let kinds = world.docker().kinds();
    let builds = kinds.iter().filter(|kind| *kind == "build").count();
    let creates = kinds.iter().filter(|kind| *kind == "create-agent").count();
    assert_eq!((builds, creates), (2, 1), "{kinds:?}");
    world.assert_nothing_left();
}

#[test]
fn on_a_terminal_a_build_is_a_line_with_its_step() {
    let world = World::fake();
    world.forget_images();
    world.docker().rule("build", "echo 'Step 3/7 : RUN sh install'; late 3");
    let terminal = Terminal::open(&world);
    terminal.line("TERM=xterm pi build; echo $?");
    terminal.wait("the step", |screen| screen.contains("] 2/7 ") && screen.contains("RUN sh install"));
    let screen = terminal.wait("the end", |screen| screen.contains("\n0\n"));
    assert!(!screen.contains("2/7"), "the line is gone when the build is done: {screen}");
    assert!(screen.contains("pi: building the image `pi-layer:base-"), "{screen}");
    world.assert_nothing_left();
}

#[test]
fn a_build_that_fails_shows_its_last_lines_and_the_log() {
    for (said, status, message, hint) in [
        (
            "E: Unable to locate package nope",
            1,
            "could not build the image `pi-layer:base-",
            "the whole log is in `",
        ),
        (
            "failed to resolve source metadata for x: no such host",
            1,
            "could not pull the base image `",
            "check the network, or name a mirror under `[images]` in `~/.config/pi/config.toml`",
        ),
        (
            "write /x: no space left on device",
            1,
            "could not build the image `pi-layer:base-",
            "make room on that disk; `pi clean --images --caches`",
        ),
    ] {
        let world = World::fake();
        world.forget_images();
        world.docker().rule("build", &format!("say {}; exit {status}", shell(said)));
        let outcome = world.run_pi(&["--quiet", "-p", "x"]);
        assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{outcome:#?}");
        assert!(outcome.err.starts_with(&format!("pi: error: {message}")), "{}", outcome.err);
        assert!(outcome.err.contains(&format!("pi: hint: {hint}")), "{}", outcome.err);
        if let Some(log) = outcome.err.split("log is in `").nth(1).and_then(|rest| rest.split('`').next()) {
            assert_eq!(fs::read_to_string(log).unwrap(), format!("{said}\n"));
            assert!(outcome.err.contains(said), "{}", outcome.err);
        }
        world.assert_nothing_left();
    }
}

#[test]
fn where_a_changed_image_cannot_be_built_the_previous_one_is_named_and_used_on_demand() {
    let world = World::fake();
    world.forget_images();
    world.run_pi(&["build"]).has_code(0);
    let builds = world.docker().calls().into_iter().filter(|call| call.kind() == "build");
    let words = builds.map(|call| call.words).find(|words| words.iter().any(|word| word.starts_with("UID=")));
    let label = words.unwrap().into_iter().find(|word| word.starts_with("pi.image=")).unwrap();
    let kind = label.strip_prefix("pi.image=").unwrap();

    let old = "pi-agent:base-000000000000";
    world.docker().rule("image-ls", &format!("echo pi-agent:go-000000000000; echo {old}; finish 0"));
    let labelled = format!("case $* in *Labels*) echo {}; finish 0;; esac", shell(kind));
    world.docker().rule("image-inspect", &labelled);
    world.forget_images();
    world.knows([old.to_owned()]);
    world.docker().rule("build", "say no network; exit 1");

    let outcome = world.run_pi(&["-p", "x"]);
    outcome.has_code(125);
    let offer = format!("(`PI_BOX_PREVIOUS_IMAGE=1` would use the previous one, `{old}`)");
    assert!(outcome.err.contains(&offer), "{}", outcome.err);
    let outcome = world.pi(&["-p", "x"]).env("PI_BOX_PREVIOUS_IMAGE", "1").run();
    outcome.has_code(0);
    let loudly = format!("pi: warning: using the previous image `{old}`, as `PI_BOX_PREVIOUS_IMAGE` says\n");
    assert!(outcome.err.contains(&loudly), "{}", outcome.err);
    world.assert_nothing_left();
}

#[test]
fn a_base_image_that_cannot_be_pulled_is_an_error_only_where_there_is_no_local_one() {
    let world = World::fake();
    world.docker().rule("pull", "refuse Error response from daemon: no such host");
    let bases = "case $last in *pi-*) ;; *) echo sha256:x; finish 0;; esac";
    world.docker().rule("image-inspect", bases);
    let outcome = world.run_pi(&["--build", "build", "--all"]);
    outcome.says(0, "pi: warning: could not pull `");
    world.docker().rule("image-inspect", "refuse Error: No such image: x");
    let outcome = world.run_pi(&["--quiet", "--build", "build"]);
    assert_eq!(outcome.code, Some(125), "{outcome:#?}");
    let errors: Vec<&str> = outcome.err.lines().filter(|line| line.starts_with("pi: ")).collect();
    // The agent's and the sidecar's, each with a hint, and both by name.
    assert_eq!(errors.len(), 5, "{errors:#?}");
    assert!(errors[0].starts_with("pi: error: could not pull the base image `"), "{errors:#?}");
    assert!(errors[0].ends_with("`, and there is no local one"), "{errors:#?}");
}

#[test]
fn a_cache_is_named_by_its_repository_and_one_in_use_is_a_failure() {
    let world = World::fake();
    world.docker().rule(
        "volume-ls",
        "case $* in *pi.repo*) printf 'pi-cache-1\\t/src/project\\n';; *pi.role*) printf 'pi-cache-1\\tcache\\n';; \
         esac; finish 0",
    );
    world.docker().rule("volume-rm", "refuse Error response from daemon: volume is in use");
    world.docker().rule("system", "echo pi-cache-1 3MB; finish 0");
    let cache = "the cache `pi-cache-1` of `/src/project` (3MB)";
    world.run_pi(&["clean", "--dry-run", "--caches"]).is(0, &format!("would remove {cache}\n"), "");
    let outcome = world.run_pi(&["clean", "--caches"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{outcome:?}");
    assert!(outcome.err.starts_with(&format!("pi: error: could not remove {cache}: ")), "{}", outcome.err);
}

#[test]
fn a_renewal_repeats_every_step_of_what_is_asked_for_and_of_nothing_else() {
    let world = World::fake();
    world.run_pi(&["-p", "x"]).has_code(0);
    assert!(world.docker().kinds().iter().all(|kind| kind != "build"));
    let outcome = world.run_pi(&["--build", "-p", "x"]);
    outcome.says(0, "pi: renewed the image `pi-agent:base-");
    let builds =
        || world.docker().calls().into_iter().filter(|call| call.kind() == "build").collect::<Vec<_>>();
    let tags: Vec<String> = builds().iter().map(|call| tag(&call.words)).collect();
    assert!(
        tags.len() == 2 && tags[0].starts_with("pi-layer:base-") && tags[1].starts_with("pi-agent:base-")
    );
    assert!(builds().iter().all(|call| call.words.iter().any(|word| word == "--no-cache")), "{tags:?}");
    // A layer that several images have is renewed once.
    world.run_pi(&["--build", "build", "--all"]).has_code(0);
    let again: Vec<String> = builds()[2..].iter().map(|call| tag(&call.words)).collect();
    assert_eq!(again.iter().filter(|tag| tag.starts_with("pi-layer:base-")).count(), 1, "{again:?}");
    assert_eq!(again.len(), 9, "{again:?}");
    world.assert_nothing_left();
}

fn tag(words: &[String]) -> String {
    let at = words.iter().position(|word| word == "--tag").unwrap();
    words[at + 1].clone()
}

#[test]
fn a_renewal_that_fails_ends_no_session_and_keeps_no_other_image_from_being_built() {
    let world = World::fake();
    world
        .docker()
        .rule("build", "case $* in *pi-layer:php8.5*|*pi-agent:base*) say no network; exit 1;; esac");
    let outcome = world.run_pi(&["--build", "-p", "x"]);
    outcome.says(0, "pi: warning: could not build the image `pi-agent:base-");
    outcome.says(0, "pi: warning: the session has the image `pi-agent:base-");
    let outcome = world.run_pi(&["--build", "build", "--all"]);
    outcome.says(125, "pi: error: could not build `pi-agent:base-");
    assert!(
        outcome.err.contains("`, `pi-agent:php8.5-")
            && outcome.err.contains("renewed the image `pi-agent:go-")
    );
    world.assert_nothing_left();
}

#[test]
fn the_agents_own_update_is_explained() {
    let world = World::fake();
    for words in
        [&["update"][..], &["update", "self"], &["update", "pi"], &["update", "--all"], &["update", "-na"]]
    {
        world.run_pi(words).says(2, "pi: hint: `pi --build` renews the image");
    }
    for words in [&["update", "--extensions"][..], &["update", "npm:x"], &["update", "--help"]] {
        world.run_pi(words).has_code(0);
    }
}

#[test]
fn what_npm_has_said_is_told_once_a_day_and_without_asking() {
    let world = World::fake();
    let said = |told: u64| {
        let text = serde_json::json!({
            "package": "@earendil-works/pi-coding-agent", "wanted": "0.87.1", "installed": "0.87.1",
            "latest": "0.99.0", "admitted": "0.87.1", "told": told, "asked": 9_000_000_000u64,
        });
        write(world.state().join("newest-agent.json"), text.to_string());
    };
    said(0);
    let line = "pi: there is a newer agent, 0.99.0 (the image has 0.87.1): to have it, set `agent_version` under \
                `[images]`, which is \"0.87.1\"\n";
    world.run_pi(&["-p", "x"]).is(0, "", line);
    world.run_pi(&["-p", "x"]).is(0, "", "");
    write(world.state().join("newest-agent.json"), "{");
    world.run_pi(&["-p", "x"]).is(0, "", "");
    assert!(world.docker().kinds().iter().all(|kind| kind == "create-agent" || kind == "start-agent"));
}

/// Has an engine answer for npm where `pi` asks, in a container of its own; other sessions stay.
fn npm_answers(world: &World) {
    let answer = "installed 0.87.1\\nnewest 0.99.0\\nadmitted 0.87.1\\n";
    let create = format!(
        "for word; do case $word in type=bind,source=*/ask-*/repository,*) place=${{word#type=bind,source=}}; \
         printf '{answer}' >\"${{place%%,*}}/answer\"; : >\"$me/asks-$name\";; esac; done"
    );
    world.docker().rule("create-agent", &create);
    world.docker().rule("start-agent", "if [ -e \"$me/asks-$name\" ]; then exits 0; else stays; fi");
}

/// What is known of the newest agent, and was learned long ago.
fn long_ago(world: &World) -> std::path::PathBuf {
    let file = world.state().join("newest-agent.json");
    let mut last: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_ne!(last["asked"], 0);
    last["asked"] = 0.into();
    write(&file, last.to_string());
    file
}

const ASKS: &str = "pi: once a week, an open session asks npm's registry whether there is a newer agent; `check_agent = false` \
                    under `[images]` in the settings prevents that\n";

#[test]
fn an_open_session_asks_once_a_week_for_a_newer_agent_and_the_next_one_tells() {
    let world = World::fake();
    // Not in the first week.
    world.run_pi(&["-p", "x"]).is(0, "", "");
    let file = long_ago(&world);
    npm_answers(&world);
    let pi = world.pi(&["-p", "x"]).start();
    until("the answer", || {
        let text = fs::read_to_string(&file).unwrap();
        if text.contains("0.99.0") { Ok(()) } else { Err((text, world.docker().kinds())) }
    });
    pi.signal(rustix::process::Signal::TERM);
    let outcome = pi.wait();
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(143), ASKS));
    let asked = || world.docker().kinds().iter().filter(|kind| *kind == "create-agent").count();
    assert_eq!(asked(), 3);
    world.docker().behave();
    let said = world.run_pi(&["-p", "x"]);
    assert!(said.err.starts_with("pi: there is a newer agent, 0.99.0 (the image has 0.87.1): "), "{said:?}");
    world.run_pi(&["-p", "x"]).is(0, "", "");
    assert_eq!(asked(), 5);
    world.assert_nothing_left();
}

#[test]
fn nobody_is_asked_from_a_restricted_session_or_against_the_settings() {
    let world = World::fake();
    write(world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
    world.run_pi(&["-p", "x"]).is(0, "", "");
    long_ago(&world);
    for words in [&["--proxy", "-p", "x"][..], &["--no-network", "-p", "x"], &["shell", "--", "true"]] {
        world.run_pi(words).is(0, "", "");
    }
    world.configure("[images]\ncheck_agent = false\n");
    world.run_pi(&["-p", "x"]).is(0, "", "");
    // The control.
    world.configure("");
    world.run_pi(&["-p", "x"]).is(0, "", ASKS);
    world.assert_nothing_left();
}

#[test]
fn a_build_that_fails_is_not_repeated_by_those_who_wait_for_it() {
    let world = World::fake();
    world.forget_images();
    world.docker().rule("build", "late 3; say no network; exit 1");
    let first = world.pi(&["-p", "x"]).start();
    world.docker().called("build");
    let waiting: Vec<_> = (0..3).map(|_| world.pi(&["-p", "x"]).start()).collect();
    first.wait().says(125, "could not build the image");
    for one in waiting {
        one.wait().says(125, "another `pi` has just failed to build the image");
    }
    assert_eq!(world.docker().kinds().iter().filter(|kind| *kind == "build").count(), 1);
    world.assert_nothing_left();
}
