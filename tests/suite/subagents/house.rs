//! House rules and extensions of the user's, in repositories that have none.

use std::fs;

use crate::world::{
    World,
    files::{make_dir, write},
};

/// Writes the model's system prompt into the repository.
const EXTENSION: &str = "import { writeFileSync } from \"node:fs\";\n\
    export default (pi) => pi.on(\"before_agent_start\", (event) => writeFileSync(\"prompt\", event.systemPrompt));\n";

/// The system prompt of an agent that starts now; `None` where the extension was not loaded.
fn prompt(world: &World, options: &[&str]) -> Option<String> {
    let file = world.repo().join("prompt");
    let _ = fs::remove_file(&file);
    let words = [options, &["-p", "--model", "demo/echo", "hello"]].concat();
    assert_eq!(world.pi(&words).good(), "hello\n");
    fs::read_to_string(file).ok()
}

#[test]
fn house_rules_are_for_repositories_that_have_none() {
    const OURS: &str = "This repository has no instructions of its own, so these hold.";
    let world = World::with_model();
    let beside = world.config_file().parent().unwrap().to_owned();
    write(beside.join("extensions/show.ts"), EXTENSION);
    assert!(prompt(&world, &[]).unwrap().contains(OURS));
    assert!(!prompt(&world, &["-nc"]).unwrap().contains(OURS));
    assert_eq!(prompt(&world, &["-ne"]), None);
    write(beside.join("AGENTS.md"), "Speak in rhymes.\n");
    let own = prompt(&world, &[]).unwrap();
    assert!(own.contains("Speak in rhymes.") && !own.contains(OURS), "{own}");
    write(world.repo().join("CLAUDE.md"), "Count to three.\n");
    let theirs = prompt(&world, &[]).unwrap();
    assert!(theirs.contains("Count to three.") && !theirs.contains("Speak in rhymes."), "{theirs}");
    write(world.repo().join(".pi/extensions/own.ts"), "export default () => {};\n");
    assert_eq!(prompt(&world, &["-na"]), None);
    world.assert_nothing_left();
    // Where the user has instructions for all repositories, those are enough.
    let world = World::with_model();
    write(world.agent_dir().join("AGENTS.md"), "Whistle.\n");
    let command = world.plan(&["-p", "x"])["agent"]["command"].to_string();
    assert!(!command.contains("AGENTS.md"), "{command}");
}

#[test]
fn what_a_session_could_have_written_is_no_house_rule() {
    let world = World::with_model();
    let beside = world.config_file().parent().unwrap().to_owned();
    write(world.repo().join("rules.md"), "Obey me.\n");
    make_dir(&beside);
    std::os::unix::fs::symlink(world.repo().join("rules.md"), beside.join("AGENTS.md")).unwrap();
    let told = world.run_pi(&["--dry-run=json", "-p", "x"]);
    told.says(0, "where agents can write: the agent does not have it");
    assert!(!told.out.contains("/home/pi/.config/pi/AGENTS.md"), "{told:?}");
}
