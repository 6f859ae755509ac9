//! `pi build --sbom`: what is in the images.

use serde_json::Value;

use crate::world::{World, fake::shell};

/// What an image says of itself.
const SAID: &str = "date\t2026-01-02T03:04:05Z\nos\tdebian\t13.1\ndeb\tdash\t0.5\tamd64\tdash\t0.5\n";

#[test]
fn each_image_is_read_in_a_container_that_has_nothing_but_the_image() {
    let world = World::fake();
    world.docker().rule("start-agent", &format!("printf %s {}; finish 0", shell(SAID)));
    let outcome = world.run_pi(&["build", "--sbom"]);
    outcome.has_code(0);
    assert_eq!(outcome.err, "");
    let bom: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let components = bom["components"].as_array().unwrap();
    let names = |kind: &str| {
        let of_kind = components.iter().filter(|part| part["type"] == kind);
        of_kind.map(|part| part["name"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names("container"), ["pi-agent", "pi-proxy"]);
    assert_eq!(names("library"), ["dash", "dash"]);

    let creates: Vec<_> =
        world.docker().calls().into_iter().filter(|call| call.kind() == "create-agent").collect();
    assert_eq!(creates.len(), 2);
    for create in creates {
        let has = |word: &str| create.words.iter().any(|own| own == word);
        for word in ["--network=none", "--cap-drop=ALL", "--read-only", "65534:65534", "--entrypoint=sh"] {
            assert!(has(word), "no `{word}`: {:?}", create.words);
        }
        for word in ["--mount", "--volume", "-v", "--interactive"] {
            assert!(!has(word), "`{word}`: {:?}", create.words);
        }
    }
    // No session can go past the gate of its image.
    world.docker().behave();
    world.run_pi(&["-p", "x"]).has_code(0);
    let last = world.docker().calls().into_iter().rfind(|call| call.kind() == "create-agent").unwrap();
    assert!(!last.words.iter().any(|word| word.starts_with("--entrypoint")), "{:?}", last.words);
}

#[test]
fn an_image_that_cannot_be_read_is_an_error_and_no_shorter_list() {
    for (rule, why) in [
        ("say dpkg-query: broken; finish 2", "could not start the container in which an image is read"),
        ("echo nonsense; finish 0", "could not read the image `pi-agent:base-"),
    ] {
        let world = World::fake();
        world.docker().rule("start-agent", rule);
        let outcome = world.run_pi(&["build", "--sbom"]);
        outcome.says(125, why);
        assert_eq!(outcome.out, "");
    }
    let world = World::fake();
    world.run_pi(&["build", "--sbom", "--check"]).says(2, "cannot be used with");
}
