//! Subagents and house rules, with the real agent and the scripted model.

mod ends;
mod house;
mod remote;

use serde_json::json;

use crate::world::{World, files::make_dir};

/// A repository with one commit, and settings of subagents.
fn world(settings: &str) -> World {
    let world = World::with_model();
    world.configure(settings);
    world.git(world.repo(), &["commit", "--quiet", "--allow-empty", "--message", "first"]);
    world
}

/// What the model is to be told: subagents by name, each with a shell script.
fn tasks(scripts: &[(&str, &str)]) -> String {
    let tasks: Vec<_> =
        scripts.iter().map(|(name, script)| json!([name, format!("run: {script}")])).collect();
    json!(tasks).to_string()
}

/// The words that have the model start them.
fn words(tasks: &str) -> [&str; 4] {
    ["-p", "--model", "demo/spawn", tasks]
}

/// What a command of the user's says, which is no answer of the agent's.
fn command(world: &World, words: &str) -> String {
    let said = world.run_pi(&["-p", "--model", "demo/spawn", words]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{said:#?}");
    said.err
}

/// What was said of each subagent, in the order of the tasks.
fn reports(out: &str) -> Vec<&str> {
    out.split("\n====\n").collect()
}

/// The branches with the subjects of their commits, newest first.
fn branches(world: &World) -> String {
    let names = world.git(world.repo(), &["for-each-ref", "--format=%(refname:short)", "refs/heads/"]);
    names.lines().fold(String::new(), |all, name| {
        let subjects = world.git(world.repo(), &["log", "--format=%s", name]);
        all + &format!("{name}: {}\n", subjects.trim_end().replace('\n', ", "))
    })
}

/// The names of worktrees in the repository's directory.
fn trees(world: &World) -> Vec<String> {
    let list = world.git(world.repo(), &["worktree", "list", "--porcelain"]);
    let below = format!("worktree {}/.worktrees/", world.repo().display());
    let mut names: Vec<_> =
        list.lines().filter_map(|line| line.strip_prefix(&below)).map(str::to_owned).collect();
    names.sort();
    names
}

/// Asserts that nothing of it is seen in the main work tree.
#[track_caller]
fn assert_clean(world: &World) {
    assert_eq!(world.git(world.repo(), &["status", "--short"]), "");
    assert_eq!(world.git(world.repo(), &["symbolic-ref", "--short", "HEAD"]), "main\n");
}

/// Makes a directory and returns its path as text.
fn directory(world: &World, name: &str) -> String {
    let path = world.root().join(name);
    make_dir(&path);
    path.display().to_string()
}
