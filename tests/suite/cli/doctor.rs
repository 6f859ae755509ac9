//! What `pi doctor` says where something is missing.

use serde_json::Value;

use crate::world::{World, call::Outcome, fake::shell, files::write};

/// The line about a subject that is not fine: what is wrong, and what to do.
fn wrong(outcome: &Outcome, subject: &str) -> (String, String) {
    outcome.has_code(1);
    let said: Value = serde_json::from_str(&outcome.out).unwrap();
    let lines = said["lines"].as_array().unwrap();
    let line = lines
        .iter()
        .find(|line| line["subject"] == subject && line["state"] == "wrong")
        .unwrap_or_else(|| panic!("nothing wrong with {subject}: {said:#}"));
    (line["what"].as_str().unwrap().to_owned(), line["next"].as_str().unwrap().to_owned())
}

#[test]
fn all_is_said_to_be_well_where_it_is() {
    let world = World::fake();
    let outcome = world.run_pi(&["doctor", "--json"]);
    outcome.has_code(0);
    let said: Value = serde_json::from_str(&outcome.out).unwrap();
    let of = |subject: &str| said["lines"].as_array().unwrap().iter().any(|line| line["subject"] == subject);
    for subject in ["launcher", "sessions", "settings", "engine", "images", "allowlist", "repository"] {
        assert!(of(subject), "{subject}: {said:#}");
    }
    world.assert_nothing_left();
}

#[test]
fn an_engine_that_does_not_answer_is_named() {
    let world = World::fake();
    world.docker().rule("info", "refuse 'Cannot connect to the Docker daemon at unix:///x. Is it running?'");
    let (what, next) = wrong(&world.run_pi(&["doctor", "--json"]), "engine");
    assert!(what.contains("the engine at `unix:///x` does not answer"), "{what}");
    assert!(next.starts_with("start it, or choose another one"), "{next}");
}

#[test]
fn podman_is_refused_where_it_would_build_and_where_one_asks() {
    let engine = r#"{"Client":{"ApiVersion":"1.41"},"Server":{"Components":[{"Name":"Podman Engine"}]}}"#;
    let program = r#"{"Client":{"APIVersion":"4.3.1","Version":"4.3.1"}}"#;
    for said in [engine, program] {
        let world = World::fake();
        world.docker().rule("version", &format!("echo {}; finish 0", shell(said)));
        let (what, next) = wrong(&world.run_pi(&["doctor", "--json"]), "engine");
        assert!(what.ends_with("is Podman, and `pi` needs Docker Engine"), "{what}");
        assert!(next.starts_with("install Docker Engine"), "{next}");
        let outcome = world.run_pi(&["--build", "build"]);
        assert!(outcome.err.contains("is Podman, and `pi` needs Docker Engine"), "{outcome:?}");
        let built = world.docker().calls().iter().any(|call| call.kind() == "build");
        assert!(!built, "it went on to build");
        world.assert_nothing_left();
    }
}

#[test]
fn an_engine_that_maps_users_is_refused_before_it_builds() {
    let world = World::fake();
    world
        .docker()
        .rule("info", r#"echo '{"ServerVersion":"28.5.2","SecurityOptions":["name=userns"]}'; finish 0"#);
    let (what, next) = wrong(&world.run_pi(&["doctor", "--json"]), "engine");
    assert!(what.contains("(userns-remap)"), "{what}");
    assert!(next.starts_with("use a rootless engine"), "{next}");
    let outcome = world.run_pi(&["--build", "build"]);
    assert!(outcome.err.contains("(userns-remap)"), "{outcome:?}");
    assert!(!world.docker().calls().iter().any(|call| call.kind() == "build"), "it went on to build");
    world.assert_nothing_left();
}

#[test]
fn settings_that_cannot_be_read_are_named_and_the_rest_is_still_looked_at() {
    let world = World::fake();
    write(world.config_file(), "lang = \"go\"\nproxi = true\n");
    let outcome = world.run_pi(&["doctor", "--json"]);
    let (what, next) = wrong(&outcome, "settings");
    assert!(what.contains(&format!("{}:2", world.config_file().display())), "{what}");
    assert_eq!(next, "did you mean `proxy`?");
    assert!(outcome.out.contains("\"machine\""), "{outcome:?}");
}

#[test]
fn a_setting_is_shown_with_the_line_it_stands_on() {
    let world = World::fake();
    write(world.config_file(), "# mine\nmemory = \"2g\"\n");
    let outcome = world.run_pi(&["doctor"]);
    let line = format!("memory = \"2g\" ({}:2)", world.config_file().display());
    assert!(outcome.out.contains(&line), "{outcome:?}");
}
