//! What is counted rather than timed: docker's calls, and what the images add to those that they are built on.

use crate::{
    Effort, KEYED, PROXY, VERSION, figure,
    world::{World, complained, docker, keyed},
};

/// Counts the commands that a session has docker run.
pub(crate) fn calls(world: &World, _: &Effort) {
    let sessions = [
        ("`pi`", world.pi_that(&[&["--verbose"], &VERSION[..]].concat()), "2"),
        ("`pi` with a key", keyed(world.pi_that(&[&["--verbose"], &KEYED[..]].concat())), "8"),
        ("`pi --proxy`", world.pi_that(&[&["--verbose"], &PROXY[..]].concat()), "7"),
    ];
    for (name, mut pi, needed) in sessions {
        let count = complained(&mut pi).lines().filter(|line| line.starts_with("+ docker ")).count();
        figure(&format!("docker calls of {name}"), &count.to_string(), needed, needed);
    }
}

/// Sums up what our layers add.
pub(crate) fn layers(world: &World, _: &Effort) {
    let base = "the image that it is built on";
    for (lang, on, target) in [("base", "base", "180"), ("go", "go", "–"), ("php8.5", "base", "–")] {
        let plan = world.plan(&["--lang", lang, "--", "--version"]);
        let image = plan["record"]["image"].as_str().unwrap();
        let Some(on) = world.image_setting(on) else {
            println!("| layers of `{lang}` over its base | {base} | the settings do not name it | | | | |");
            continue;
        };
        let Some((whole, below)) = size(image).zip(size(&on)) else {
            println!(
                "| layers of `{lang}` over its base | {base} | not built here: `pi build --all` | | | | |"
            );
            continue;
        };
        let added = whole.saturating_sub(below) / 1_000_000;
        figure(&format!("layers of `{lang}` over `{on}`"), &format!("{added} MB"), target, "–");
    }
}

/// The size of an image that the engine has.
fn size(image: &str) -> Option<u64> {
    docker(&["image", "ls", "--no-trunc", "--quiet", image])
        .lines()
        .next()
        .map(|id| docker(&["image", "inspect", "--format={{.Size}}", id]).parse().unwrap())
}
