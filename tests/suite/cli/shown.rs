//! What the dry run and `--verbose` show of a session, and what they never do.

use crate::world::{
    World,
    files::{children, write},
};

const SECRET: &str = "hunter2-do-not-show";

/// What a provider's key, a token and a variable of the user's own are named.
const SECRETS: [&str; 4] = ["ANTHROPIC_API_KEY", "PI_GH_TOKEN", "MINE", "HTTPS_PROXY"];

#[test]
fn a_secret_is_seen_by_docker_alone() {
    for words in [&["--env", "MINE", "-p", "x"][..], &["--proxy", "--env", "MINE", "-p", "x"]] {
        let world = World::fake();
        write(world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
        world.configure("keys = \"env\"\n");
        let secretly = |first: &[&str]| {
            let mut pi = world.pi(&[first, words].concat());
            for name in SECRETS {
                let value = if name == "HTTPS_PROXY" {
                    format!("http://u:{SECRET}@p.example:3128")
                } else {
                    SECRET.into()
                };
                pi = pi.env(name, value);
            }
            pi
        };
        for form in ["--dry-run", "--dry-run=json", "--verbose"] {
            let outcome = secretly(&[form]).run();
            outcome.has_code(0);
            assert!(!outcome.out.contains(SECRET) && !outcome.err.contains(SECRET), "{form}: {outcome:#?}");
        }
        let calls = world.docker().calls();
        assert!(calls.iter().all(|call| !call.words.concat().contains(SECRET)), "{calls:#?}");
        let create = world.docker().called("create-agent");
        let env = world.docker().env(create.n);
        for name in ["ANTHROPIC_API_KEY", "MINE"] {
            let named = create.words.iter().any(|word| word == name);
            assert!(named, "{name}: {create:?}");
            let line = format!("{name}='{SECRET}'");
            assert!(env.lines().any(|env| env.ends_with(&line)), "{name}: {env}");
        }
        assert!(create.words.iter().all(|word| !word.starts_with("GH_TOKEN")), "{create:?}");
        world.assert_nothing_left();
    }
}

#[test]
fn a_dry_run_asks_and_leaves_nothing() {
    let world = World::fake();
    for words in [&["--dry-run"][..], &["--dry-run=json"], &["--proxy", "--dry-run"], &["shell", "--dry-run"]]
    {
        let outcome = world.run_pi(words);
        outcome.has_code(0);
        assert_eq!(outcome.err, "", "{words:?}");
    }
    assert_eq!(world.docker().kinds(), [""; 0]);
    assert_eq!(children(&world.state()), [world.state().join("images.json")]);
    assert!(!world.agent_dir().exists());
}

#[test]
fn the_script_of_a_dry_run_does_what_a_run_does() {
    for words in [&["-p", "it's \"x\""][..], &["--no-network", "-p", "x"], &["--proxy", "-p", "x"]] {
        let world = World::fake();
        // A script lays out no git directory of the agent's own.
        world.configure("git = \"shared\"\n");
        write(world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
        // A first session makes the directories that every other one finds.
        world.run_pi(&["-p", "x"]).has_code(0);
        let before = calls(&world).len();
        let script = world.run_pi(&[&["--dry-run"], words].concat());
        world.docker().rule("start-agent", "exits 7");
        world.script(&script.out).run().is(7, "", "");
        world.assert_nothing_left();
        let scripted = calls(&world)[before..].to_vec();
        world.run_pi(words).has_code(7);
        let real = calls(&world)[before + scripted.len()..].to_vec();
        // Of the teardown the launcher leaves out what it has seen to be gone, and it asks how the agent ended.
        let up = |calls: &[Vec<String>]| {
            let mut up: Vec<Vec<String>> = calls
                .iter()
                .filter(|words| !matches!(words[0].as_str(), "rm" | "events" | "info"))
                .filter(|words| !(words[0] == "network" || words[0] == "volume") || words[1] != "rm")
                .cloned()
                .collect();
            up.sort();
            up
        };
        assert_eq!(up(&scripted), up(&real), "{words:?}");
        world.assert_nothing_left();
    }
}

#[test]
fn a_script_lets_nobody_write_the_repositorys_git_directory() {
    let world = World::fake();
    let dir = world.repo().join(".git").display().to_string();
    let script = world.run_pi(&["--dry-run", "-p", "x"]).out;
    assert!(script.contains(&format!("type=bind,source={dir},target={dir},readonly")), "{script}");
    assert!(script.contains("# Git is read-only here"), "{script}");
    world.script(&script).run().has_code(0);
    world.assert_nothing_left();
}

/// The calls, with what differs from one session to the next made the same.
fn calls(world: &World) -> Vec<Vec<String>> {
    let id = regex::Regex::new(r"\b[a-z2-7]{16}\b").unwrap();
    let address = regex::Regex::new(r"10\.201\.\d+\.\d+").unwrap();
    // The files of the session's own, which a dry run has not made.
    let file = regex::Regex::new(r"(\d+:\d+|-:-):/").unwrap();
    let calls = world.docker().calls().into_iter().map(|call| call.words);
    calls
        .map(|words| {
            words
                .iter()
                .map(|word| {
                    let text = id.replace_all(word, "ID");
                    file.replace_all(&address.replace_all(&text, "ADDRESS"), "FILE:/").into_owned()
                })
                .collect()
        })
        .collect()
}

#[test]
fn verbose_shows_each_command_before_it_runs() {
    let world = World::fake();
    let outcome = world.run_pi(&["--verbose", "-p", "x"]);
    outcome.has_code(0);
    assert_eq!(outcome.out, "");
    let shown: Vec<&str> = outcome.err.lines().filter(|line| line.starts_with("+ docker ")).collect();
    assert_eq!(shown.len(), world.docker().kinds().len(), "{outcome:#?}");
}
