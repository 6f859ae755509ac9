//! What an agent could leave behind for a later session, or for the launcher itself, and that it does not work. The engine
//! is a script.

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::world::{
    World,
    files::{own, write, write_program},
};
use serde_json::Value;

/// A program that leaves a mark when it runs.
fn plant(program: &Path, mark: &Path) {
    write_program(program, format!("#!/bin/sh\n: >'{}'\n", mark.display()));
}

fn mounts(plan: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = plan["agent"]["mounts"].as_array().unwrap();
    all.iter().map(|mount| (text(&mount["target"]), text(&mount["access"]).to_lowercase())).collect()
}

#[test]
fn programs_in_a_repository_are_not_run_whatever_the_path_says() {
    let world = World::fake();
    let (mark, bin) = (world.root().join("mark"), world.repo().join(".venv/bin"));
    for program in ["docker", "git"] {
        plant(&bin.join(program), &mark);
    }
    world.pi(&["-p", "x"]).path_first(&bin).run().has_code(0);
    // From elsewhere too, now that a session has had the repository.
    world.pi(&["-p", "x"]).path_first(&bin).cwd(&world.repository("other")).run().has_code(0);
    assert!(!mark.exists());
    world.assert_nothing_left();
}

#[test]
fn settings_that_a_session_may_have_changed_are_not_read() {
    let world = World::fake();
    write(world.repo().join("pi.toml"), "memory = \"3g\"\n");
    let named = |words: &[&str]| world.run_pi(&[&["--config", "pi.toml"], words].concat());
    let said = "where agents can write\npi: hint: check it";
    for words in [&["-p", "x"] as &[&str], &["clean"], &["check", "a.example"]] {
        named(words).says(125, said);
    }
    // A link into the repository, as one who keeps settings there has it: it serves everywhere else.
    let own = world.config_file();
    let dotfiles = world.repository("dotfiles");
    write(dotfiles.join("pi.toml"), "memory = \"3g\"\n");
    let _ = fs::remove_file(&own);
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    symlink(dotfiles.join("pi.toml"), &own).unwrap();
    world.run_pi(&["-p", "x"]).has_code(0);
    world.run_pi(&["check", "github.com"]).has_code(0);
    for words in [&["check", "github.com"] as &[&str], &["-p", "x"]] {
        world.pi(words).cwd(&dotfiles).run().says(125, said);
    }
    world.assert_nothing_left();
}

#[test]
fn docker_finds_none_of_its_helpers_in_a_repository() {
    let world = World::fake();
    let bin = world.repo().join("node_modules/.bin");
    fs::create_dir_all(&bin).unwrap();
    world.pi(&["-p", "x"]).path_first(&bin).run().has_code(0);
    let create = world.docker().called("create-agent");
    let env = world.docker().env(create.n);
    assert!(env.contains("PATH=") && !env.contains("node_modules"), "{env}");
    // Its settings name helpers too.
    let outcome = world.pi(&["-p", "x"]).env("DOCKER_CONFIG", world.repo().join(".dc")).run();
    outcome.says(125, "docker's settings `");
    world.assert_nothing_left();
}

#[test]
fn what_decides_about_sessions_cannot_lie_where_one_writes() {
    for (kind, linked) in [
        ("settings", "config"),
        ("records", "state"),
        ("scratch files", "home/.cache"),
        ("allowlist", "home/.agents"),
    ] {
        let world = World::fake();
        let place = world.root().join(linked);
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        // Nothing is there yet, so there is only a name to compare.
        symlink(world.repo().join("planted"), &place).unwrap();
        let outcome = world.run_pi(&["-p", "x"]);
        outcome.says(125, "cannot be writable for the agent: it holds ");
        assert!(outcome.err.contains(kind), "{kind}: {}", outcome.err);
    }
}

#[test]
fn a_mount_is_not_followed_through_a_link_that_an_agent_may_have_made() {
    let world = World::fake();
    let keys = world.home().join(".ssh");
    write(keys.join("id"), "secret");
    symlink("../home/.ssh", world.repo().join("data")).unwrap();
    let outcome = world.run_pi(&["--mount", "./data:/data", "-p", "x"]);
    outcome.says(125, "/data` is a link in `");
    // Nor in another session, now that one has had the repository.
    world.run_pi(&["-p", "x"]).has_code(0);
    let other = world.repository("other");
    let data = world.repo().join("data");
    let outcome =
        world.pi(&["--mount", &format!("{}:/data:ro", data.display()), "-p", "x"]).cwd(&other).run();
    outcome.has_code(125);
    world.configure("keys = \"env\"");
    let outcome =
        world.pi(&["-p", "x"]).env("GOOGLE_APPLICATION_CREDENTIALS", data.join("id")).cwd(&other).run();
    outcome.says(0, "the agent does not have what `GOOGLE_APPLICATION_CREDENTIALS` names");
    // A link of the user's own, outside of every repository, is the user's.
    let own = world.root().join("own");
    symlink(&keys, &own).unwrap();
    let plan = world.plan(&["--mount", &format!("{}:/data", own.display()), "-p", "x"]);
    assert!(mounts(&plan).iter().any(|(target, _)| target == "/data"));
    world.assert_nothing_left();
}

#[test]
fn nothing_is_mounted_over_what_a_link_in_the_repository_leads_to() {
    let world = World::fake();
    let data = world.root().join("data");
    fs::create_dir_all(&data).unwrap();
    symlink("/usr/local/lib/pi", world.repo().join("data")).unwrap();
    for below in ["data", "data/deeper"] {
        let target = world.repo().join(below);
        let outcome =
            world.run_pi(&["--mount", &format!("{}:{}", data.display(), target.display()), "-p", "x"]);
        outcome.says(2, "is a link, and could lead anywhere in the sandbox");
    }
}

#[test]
fn a_link_out_of_the_agents_directory_is_replaced_by_the_mount_that_the_warning_names() {
    let world = World::fake();
    let themes = world.root().join("themes");
    fs::create_dir_all(&themes).unwrap();
    fs::create_dir_all(world.agent_dir()).unwrap();
    symlink(&themes, world.agent_dir().join("themes")).unwrap();
    own(&world.home(), world.owner());
    let outcome = world.run_pi(&["-p", "x"]);
    outcome.has_code(0);
    let settings = outcome.err.split('`').find(|part| part.starts_with("mounts = ")).unwrap();
    world.configure(&format!("{settings}\n"));
    let target = "/home/pi/.pi/agent/themes".to_owned();
    let mounted =
        |words: &[&str]| mounts(&world.plan(words)).contains(&(target.clone(), "read-only".to_owned()));
    assert!(mounted(&["-p", "x"]));
    assert!(mounted(&["install", "npm:x"]));
    // What sessions write there may be a link inside.
    fs::create_dir_all(world.agent_dir().join("memory")).unwrap();
    symlink("/usr/local/lib/pi", world.agent_dir().join("memory/x")).unwrap();
    world.configure(&format!(
        "persist = [\"memory\"]\nmounts = [\"{}:/home/pi/.pi/agent/memory/x\"]\n",
        themes.display()
    ));
    let outcome = world.run_pi(&["-p", "x"]);
    outcome.says(2, "is a link, and could lead anywhere in the sandbox");
    world.assert_nothing_left();
}

#[test]
fn what_changes_the_agents_set_up_runs_without_the_repository() {
    let world = World::fake();
    let repo = world.repo().to_str().unwrap().to_owned();
    let of = |words: &[&str]| {
        let plan = world.plan(words);
        let access = mounts(&plan).into_iter().find(|(target, _)| *target == repo).map(|(_, access)| access);
        let whole = mounts(&plan).contains(&("/home/pi/.pi/agent/npm".to_owned(), "read-write".to_owned()));
        let last = plan["agent"]["command"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
        (access, whole, last)
    };
    let write = || Some("read-write".to_owned());
    assert_eq!(of(&["install", "npm:x"]), (None, true, "npm:x".to_owned()));
    assert_eq!(of(&["update", "--extensions"]), (None, true, "--extensions".to_owned()));
    let from_here = (Some("read-only".to_owned()), true, "--no-approve".to_owned());
    assert_eq!(of(&["install", "./x"]), from_here);
    assert_eq!(of(&["install", "-l", "npm:x"]), (write(), false, "npm:x".to_owned()));
    assert_eq!(of(&["list"]), (write(), false, "list".to_owned()));
    // The pinned release has no such command, so this is a prompt.
    assert_eq!(of(&["mcp", "add", "x"]), (write(), false, "x".to_owned()));
}

#[test]
fn lines_are_added_to_no_file_that_an_agent_has_chosen() {
    let world = World::fake();
    let profile = world.home().join(".bashrc");
    write(&profile, "# mine\n");
    let list = world.repo().join("allowed");
    symlink(&profile, &list).unwrap();
    let outcome = world.run_pi(&["--allowed-domains", "allowed", "allow", "--save", "api.example.com"]);
    outcome.says(125, "/allowed` is a link in `");
    assert_eq!(fs::read_to_string(&profile).unwrap(), "# mine\n");
    // The user's own link, where no agent writes, is followed.
    let lists = world.root().join("lists");
    write(lists.join("real"), "a.example");
    symlink("real", lists.join("link")).unwrap();
    let link = lists.join("link");
    world.run_pi(&["--allowed-domains", link.to_str().unwrap(), "allow", "--save", "b.example"]).has_code(0);
    assert_eq!(fs::read_to_string(lists.join("real")).unwrap(), "a.example\nb.example\n");
    assert!(link.is_symlink());
}

fn pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
}

#[test]
fn a_pipe_in_place_of_a_list_or_of_settings_is_not_waited_for() {
    let world = World::fake();
    pipe(&world.repo().join("list"));
    pipe(&world.root().join("settings"));
    for words in [
        &["--allowed-domains", "list", "-p", "x"][..],
        &["--allowed-domains", "list", "check", "a.example"],
        &["--config", "../settings", "ps"],
        &["--config", "../settings", "check", "a.example"],
    ] {
        let outcome = world.run_pi(words);
        if words.last() != Some(&"ps") {
            outcome.says(125, "it is not a regular file of at most 1 MiB");
        }
    }
}

#[test]
fn settings_of_git_that_wait_for_ever_are_not_waited_for() {
    let world = World::fake();
    let pipe_path = world.repo().join("pipe");
    pipe(&pipe_path);
    write(world.home().join(".gitconfig"), format!("[include]\n\tpath = {}\n", pipe_path.display()));
    world.run_pi(&["-p", "x"]).has_code(0);
    world.assert_nothing_left();
}
