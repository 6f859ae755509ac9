//! Hostile names and small files in a repository, for the launcher to read. The engine is a script.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use crate::world::{World, files::write};

/// What somebody may leave where a small file is expected, and how it is made.
type Shape = (&'static str, fn(&Path));

const SHAPES: [Shape; 9] = [
    ("link to a file", |path| symlink("/etc/passwd", path).unwrap()),
    ("link to nothing", |path| symlink("/nowhere/at/all", path).unwrap()),
    ("link to itself", |path| symlink(path, path).unwrap()),
    ("endless device", |path| symlink("/dev/zero", path).unwrap()),
    ("pipe", |path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }),
    ("directory", |path| fs::create_dir(path).unwrap()),
    ("two mebibytes", |path| write(path, "#".repeat(2 << 20))),
    ("not text", |path| write(path, b"lang = \"\xff\xfe\"\n")),
    ("deep", |path| write(path, "[".repeat(500_000))),
];

const FILES: [&str; 4] = [".pi/sandbox.toml", "go.mod", "composer.json", "package.json"];

#[test]
fn no_small_file_of_a_repository_hangs_the_launcher_or_makes_it_talk() {
    for file in FILES {
        for (shape, make) in SHAPES {
            let world = World::fake();
            let path = world.repo().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            make(&path);
            let begun = Instant::now();
            let outcome = world.run_pi(&["--dry-run=json"]);
            let case = format!("{file}, {shape}: {:?} {}", outcome.code, outcome.err);
            assert!(begun.elapsed() < Duration::from_secs(20), "{case}");
            // One of the repository's own settings stops it; a project's file only chooses an image.
            assert_eq!(outcome.code, Some(if file.starts_with(".pi") { 125 } else { 0 }), "{case}");
            assert!(outcome.err.lines().count() <= 3 && outcome.err.len() < 1500, "{case}");
            assert!(!outcome.err.contains("root:"), "{case}");
            let plan = serde_json::from_str::<serde_json::Value>(&outcome.out).unwrap_or_default();
            let is_link = shape.contains("link") || shape == "endless device";
            if is_link && !file.starts_with(".pi") {
                assert!(plan["record"]["image"].as_str().unwrap().starts_with("pi-agent:base-"), "{case}");
            }
        }
    }
}

#[test]
fn a_directory_of_settings_that_is_a_link_is_not_followed() {
    let world = World::fake();
    write(world.root().join("elsewhere/sandbox.toml"), "lang = \"go\"\n");
    symlink(world.root().join("elsewhere"), world.repo().join(".pi")).unwrap();
    world.run_pi(&["-p", "x"]).says(125, "/.pi` is a link, and a repository's settings are no link\n");
}

#[test]
fn no_value_of_a_repository_reaches_the_terminal_as_it_is() {
    for text in [
        format!("lang = \"{}\"\n", "a".repeat(560_000)),
        "lang = \"\\u001b]0;title\\u0007\"\n".to_owned(),
        format!("{} = 1\n", "k".repeat(300_000)),
        "\"\\u001b[2J\" = 1\n".to_owned(),
        format!("lang = [{}]\n", "\"x\",".repeat(100_000)),
    ] {
        let world = World::fake();
        write(world.repo().join(".pi/sandbox.toml"), &text);
        let outcome = world.run_pi(&["-p", "x"]);
        let start: String = text.chars().take(30).collect();
        assert_eq!(outcome.code, Some(125), "{start}");
        assert!(outcome.err.len() < 1500 && !outcome.err.contains('\u{1b}'), "{start}: {}", outcome.err);
        assert_eq!(outcome.err.lines().count(), 2, "{start}: {}", outcome.err);
    }
}

#[test]
fn a_repository_may_have_any_name() {
    for name in [
        "a b", "a,b", "a:b", "a\"b", "a'b", "$(touch x)", "`id`", "-rf", "a\nb", "\u{1b}[2J", "ü", "a=b",
        "{{.ID}}", "*",
    ] {
        let world = World::fake();
        let repo = world.repository(name);
        let outcome = world.pi(&["-p", "x"]).cwd(&repo).run();
        assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{name:?}");
        let create = world.docker().called("create-agent");
        let at = create.words.iter().position(|word| word == "--workdir").unwrap() + 1;
        assert_eq!(Path::new(&create.words[at]), repo, "{name:?}");
        world.assert_nothing_left();
    }
}
