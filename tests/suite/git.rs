//! The agent's own git directory, on a real engine: what comes over and when, and what never runs on this machine. One
//! session answers many questions.

mod attempts;
mod kinds;
mod lost;
mod over;
mod told;

use std::fs;

use crate::world::{
    World,
    call::{Call, Running},
    files::write,
    wait::until_true,
};

/// A world with a repository of two commits, in which sessions have a git directory of their own.
fn world() -> World {
    let world = World::with_model();
    world.configure("git = \"private\"\n");
    for file in ["a", "b"] {
        commit(&world, file, "1");
    }
    world
}

/// Writes and commits a file as the user.
fn commit(world: &World, file: &str, text: &str) {
    write(world.repo().join(file), text);
    world.git(world.repo(), &["add", file]);
    world.git(world.repo(), &["commit", "--quiet", "--message", &format!("user: {file} {text}")]);
}

fn git(world: &World, words: &[&str]) -> String {
    world.git(world.repo(), words).trim_end().to_owned()
}

fn status(world: &World) -> String {
    git(world, &["status", "--porcelain", "--branch", "--", ":!.steps"])
}

/// A session that does what it is told, step by step.
struct Steps<'a> {
    world: &'a World,
    running: Running,
    /// How many there were.
    n: std::cell::Cell<usize>,
}

impl<'a> Steps<'a> {
    /// Steps come as files in the work tree, which git does not see.
    fn begin(world: &'a World, options: &[&str]) -> Self {
        Self::of(world, |script| world.shell(options, script))
    }

    fn of(world: &'a World, call: impl FnOnce(&str) -> Call<'a>) -> Self {
        write(world.repo().join(".git/info/exclude"), ".steps\n");
        write(world.repo().join(".steps/.keep"), "");
        let script = "cd .steps; n=1; while [ ! -e end ]; do if [ -e $n ]; then (cd ..; sh .steps/$n) >$n.out 2>&1; \
                      echo $? >$n.tmp; mv $n.tmp $n.done; n=$((n + 1)); else sleep 0.02; fi; done";
        Self { world, running: call(script).start(), n: std::cell::Cell::new(0) }
    }

    /// Runs a script inside, and returns its status and what it said.
    fn try_step(&self, script: &str) -> (i32, String) {
        let n = self.n.get() + 1;
        self.n.set(n);
        let steps = self.world.repo().join(".steps");
        write(steps.join("next"), script);
        fs::rename(steps.join("next"), steps.join(n.to_string())).unwrap();
        let done = steps.join(format!("{n}.done"));
        until_true(&format!("the end of `{script}`"), || done.exists());
        let text = |kind: &str| fs::read_to_string(steps.join(format!("{n}.{kind}"))).unwrap();
        (text("done").trim().parse().unwrap(), text("out").trim_end().to_owned())
    }

    #[track_caller]
    fn step(&self, script: &str) -> String {
        let (status, said) = self.try_step(script);
        assert_eq!(status, 0, "`{script}`: {said}");
        said
    }

    /// Lets it end, and returns what the launcher said.
    fn end(self) -> crate::world::call::Outcome {
        write(self.world.repo().join(".steps/end"), "");
        self.running.wait()
    }
}
