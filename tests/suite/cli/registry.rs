//! A registry of the user's own, as far as a docker that is a script has one; `tests/on registry` has a real one.

use crate::world::{World, call::Outcome};

const REGISTRY: &str = "registry.host.example:5000/team";

/// A world with a registry and without images.
fn world() -> World {
    let world = World::fake();
    world.configure(&format!("[images]\nregistry = \"{REGISTRY}\"\n"));
    world.forget_images();
    world
}

/// The last words of all calls of this kind, but for those of base images.
fn names(world: &World, kind: &str) -> Vec<String> {
    let calls = world.docker().calls().into_iter().filter(|call| call.kind() == kind);
    let names = calls.filter_map(|call| call.words.into_iter().next_back());
    names.filter(|name| kind == "build" || name.contains("/pi-")).collect()
}

/// How often it says that it does this with an image.
fn said(outcome: &Outcome, what: &str) -> usize {
    outcome.err.lines().filter(|line| line.starts_with(&format!("pi: {what} the image `pi-"))).count()
}

#[test]
fn what_one_engine_has_built_is_pulled_by_the_next() {
    let world = world();
    let first = world.run_pi(&["build"]);
    first.has_code(0);
    assert_eq!(
        (said(&first, "building"), said(&first, "pushing"), said(&first, "pulling")),
        (3, 3, 0),
        "{first:#?}"
    );
    let pushed = names(&world, "push");
    assert!(pushed.iter().all(|name| name.starts_with(REGISTRY) && name.ends_with("-amd64")), "{pushed:?}");
    let pulled = names(&world, "pull");
    assert_eq!(pulled.len(), 3, "from the top: {pulled:?}");
    assert!(pulled[0].starts_with(&format!("{REGISTRY}/pi-agent:base-")), "{pulled:?}");
    let labels = |name: &str| {
        let builds = world.docker().calls().into_iter().filter(|call| call.kind() == "build");
        builds.flat_map(|call| call.words).filter(|word| word.starts_with(name)).count()
    };
    assert_eq!((labels("pi.digest="), labels("pi.user=")), (3, 0), "an image of everybody's is no user's");

    // Another engine.
    world.forget_images();
    let second = world.run_pi(&["-p", "x"]);
    second.has_code(0);
    assert_eq!(
        (said(&second, "building"), said(&second, "pushing"), said(&second, "pulling")),
        (0, 0, 1),
        "{second:#?}"
    );
    assert_eq!(names(&world, "build").len(), 3);
    let left = world.run_pi(&["-p", "x"]);
    left.is(0, "", "");

    // A colleague with another image on the same layer.
    world.forget_images();
    world.configure(&format!("packages = [\"vim\"]\n[images]\nregistry = \"{REGISTRY}\"\n"));
    let third = world.run_pi(&["-p", "x"]);
    third.has_code(0);
    assert_eq!(
        (said(&third, "building"), said(&third, "pushing"), said(&third, "pulling")),
        (1, 1, 1),
        "{third:#?}"
    );
    world.assert_nothing_left();
}

#[test]
fn a_renewal_builds_and_pushes_and_pulls_nothing_of_ours() {
    let world = world();
    world.run_pi(&["build"]).has_code(0);
    let asked = names(&world, "pull").len();
    let renewed = world.run_pi(&["--build", "build"]);
    renewed.has_code(0);
    assert_eq!((said(&renewed, "building"), said(&renewed, "pushing"), said(&renewed, "pulling")), (3, 3, 0));
    assert_eq!(names(&world, "pull").len(), asked);
    assert_eq!(names(&world, "push").len(), 6);
}

#[test]
fn an_image_that_is_not_what_its_name_says_is_refused_and_stays_there() {
    for (architecture, labels, why) in [
        ("arm64", "", "it is for arm64, and the engine's machine is amd64"),
        ("amd64", "", "its label `pi.image` is `` in place of `base-"),
        ("amd64", "\"pi.image\":\"proxy\"", "its label `pi.image` is `proxy` in place of `base-"),
        ("amd64", "\"pi.image\":\"KIND\",\"pi.digest\":\"0\"", "its label `pi.digest` is `0` in place of `"),
    ] {
        let world = world();
        world.run_pi(&["build"]).has_code(0);
        let mut words = world.docker().calls().into_iter().flat_map(|call| call.words);
        let kind =
            words.find_map(|word| word.strip_prefix("pi.image=base-").map(|rest| format!("base-{rest}")));
        let labels = labels.replace("KIND", &kind.unwrap());
        world.forget_images();
        let pushed = names(&world, "push").len();
        let inspect = format!(
            "case $*/$last in *'json .'*/*/pi-agent:*) echo '{{\"Id\":\"sha256:x\",\"Architecture\":\"{architecture}\",\
             \"Config\":{{\"Labels\":{{{labels}}}}}}}'; finish 0;; esac"
        );
        world.docker().rule("image-inspect", &inspect);
        let outcome = world.run_pi(&["-p", "x"]);
        outcome.has_code(0);
        let refusal = format!("pi: warning: `{REGISTRY}/pi-agent:base-");
        let line = outcome
            .err
            .lines()
            .find(|line| line.starts_with(&refusal))
            .unwrap_or_else(|| panic!("{outcome:#?}"));
        assert!(line.contains(&format!("-amd64` is not what its name says, and not used: {why}")), "{line}");
        let hint = format!(
            "pi: hint: find out who pushes to `{REGISTRY}`; `pi --build build` replaces what is there\n"
        );
        assert!(outcome.err.contains(&hint), "{outcome:#?}");
        // The layer below is as it should be.
        assert_eq!((said(&outcome, "building"), said(&outcome, "pulling")), (1, 2), "{outcome:#?}");
        assert_eq!(names(&world, "push").len(), pushed);
        world.assert_nothing_left();
    }
}

#[test]
fn a_registry_that_does_not_do_its_part_is_told_once_and_the_session_starts() {
    let hosts = "pi: hint: log in with `docker login registry.host.example:5000`, with a login that may pull and push there";
    for (call, says, why, hint, pushes) in [
        (
            "pull",
            "refuse Error response from daemon: Get \"https://r/v2/\": dial tcp 192.0.2.1:5000: connect: connection refused",
            "could not pull `",
            "pi: hint: until it works, images are built here; see the registry, or `registry` under `[images]` in the settings",
            0,
        ),
        (
            "pull",
            "refuse Error response from daemon: Get \"https://r/v2/\": no basic auth credentials",
            "could not pull `",
            hosts,
            2,
        ),
        (
            "pull",
            "refuse Error response from daemon: Get \"https://r/v2/\": http: server gave HTTP response to HTTPS client",
            "could not pull `",
            "pi: hint: give it TLS, or name `registry.host.example:5000` under `insecure-registries` in the engine's `daemon.json`",
            0,
        ),
        ("push", "refuse denied: requested access to the resource is denied", "could not push `", hosts, 1),
    ] {
        let world = world();
        world.docker().rule(call, says);
        let outcome = world.run_pi(&["-p", "x"]);
        outcome.has_code(0);
        let warnings: Vec<&str> = outcome.err.lines().filter(|line| line.contains("warning: ")).collect();
        assert_eq!(warnings.len(), 1, "{outcome:#?}");
        assert!(
            warnings[0].contains(&format!("{why}{REGISTRY}/pi-agent:")) || warnings[0].contains("pi-layer:"),
            "{warnings:?}"
        );
        assert!(outcome.err.contains(hint), "{outcome:#?}");
        assert_eq!((said(&outcome, "building"), names(&world, "push").len()), (2, pushes), "{outcome:#?}");
        world.assert_nothing_left();
    }
}

#[test]
fn a_registry_that_hangs_is_given_up() {
    let world = world();
    world.docker().rule("pull", "hang");
    let outcome = world.pi(&["-p", "x"]).env("PI_BOX_DEADLINE", "5").run();
    outcome.says(0, "there was no answer within 5 s\n");
    assert_eq!(names(&world, "pull").len(), 1);
    assert_eq!(names(&world, "push").len(), 0);
    world.assert_nothing_left();
}

#[test]
fn images_without_a_label_of_the_users_are_cleaned_by_whoever_knows_them() {
    let world = world();
    let (old, foreign) = ("pi-agent:base-000000000000", "pi-agent:base-111111111111");
    world.knows([old.to_owned()]);
    world.docker().has_image(foreign);
    world.docker().rule(
        "image-ls",
        &format!("case $* in *pi.user*) ;; *pi-agent*) echo {old}; echo {foreign};; esac; finish 0"),
    );
    let removal = format!("would remove the image `{old}`\n");
    world.run_pi(&["clean", "--images", "--dry-run"]).is(0, &removal, "");
}
