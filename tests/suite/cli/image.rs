//! Images, and the caches beside them.

use std::fs;

use crate::world::{World, fake::shell};

#[test]
fn an_image_is_built_when_there_is_none_and_the_session_goes_on() {
    let world = World::fake();
    world.forget_images();
    world.docker().rule("build", "echo Step 1; say Step 2");
    let outcome = world.run_pi(&["-p", "x"]);
    outcome.has_code(0);
    assert_eq!(outcome.out, "", "docker's progress is no data");
    for said in ["pi: building the image `pi-layer:base-", "Step 1\n", "Step 2\n", "`pi-agent:base-"] {
        assert!(outcome.err.contains(said), "{said}: {}", outcome.err);
    }
    let kinds = world.docker().kinds();
    let builds = kinds.iter().filter(|kind| *kind == "build").count();
    let creates = kinds.iter().filter(|kind| *kind == "create-agent").count();
    assert_eq!((builds, creates), (2, 1), "{kinds:?}");
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
    let outcome = world.run_pi(&["build", "--all"]);
    outcome.says(0, "pi: warning: could not pull `");
    world.docker().rule("image-inspect", "refuse Error: No such image: x");
    let outcome = world.run_pi(&["--quiet", "build", "--all"]);
    assert_eq!(outcome.code, Some(125), "{outcome:#?}");
    let errors: Vec<&str> = outcome.err.lines().filter(|line| line.starts_with("pi: ")).collect();
    assert_eq!(errors.len(), 2, "{errors:#?}");
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
    let cache = "the cache `pi-cache-1` of `/src/project`";
    world.run_pi(&["clean", "--dry-run", "--caches"]).is(0, &format!("would remove {cache}\n"), "");
    let outcome = world.run_pi(&["clean", "--caches"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{outcome:?}");
    assert!(outcome.err.starts_with(&format!("pi: error: could not remove {cache}: ")), "{}", outcome.err);
}
