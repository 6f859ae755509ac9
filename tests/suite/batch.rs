//! `pi batch`: a file's tasks, each a session on a copy of its own.

use std::{fs, path::PathBuf};

use rustix::process::Signal;

use crate::world::{
    World,
    call::Outcome,
    files::{children, write},
    model::context,
    terminal::Terminal,
    wait::{until, until_true},
};

/// A world with a repository that has a commit.
fn world() -> World {
    let world = World::with_model();
    write(world.repo().join("a"), "one\n");
    world.git(world.repo(), &["add", "."]);
    world.git(world.repo(), &["commit", "--quiet", "--message", "first"]);
    world
}

fn tasks(world: &World, text: &str) -> PathBuf {
    let path = world.root().join("tasks");
    write(&path, text);
    path
}

/// The words of a batch whose agents do what a script of the model's does.
fn words<'a>(file: &'a str, model: &'a str, jobs: &'a str) -> Vec<&'a str> {
    vec!["batch", "--jobs", jobs, file, "--", "--model", model]
}

fn batch(world: &World, model: &str) -> Outcome {
    let file = world.root().join("tasks");
    world.run_pi(&words(file.to_str().unwrap(), model, "2"))
}

/// The states in the table, by the tasks' names.
fn states(outcome: &Outcome) -> Vec<(String, String, String, String)> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (log, rest) = words.split_last().unwrap();
        assert!(*log == "-" || log.contains("/batches/"), "{line}");
        let (branch, count) = (rest[rest.len() - 1], rest[rest.len() - 2]);
        let state = rest[1..rest.len() - 2].join(" ");
        (rest[0].to_owned(), state, count.to_owned(), branch.to_owned())
    };
    outcome.out.lines().skip(1).map(row).collect()
}

fn row(name: &str, state: &str, count: &str, branch: &str) -> (String, String, String, String) {
    (name.into(), state.into(), count.into(), branch.into())
}

/// What a task's log has.
fn log(world: &World, name: &str) -> String {
    let logs =
        children(&world.state().join("batches")).into_iter().map(|dir| dir.join(format!("{name}.log")));
    logs.map(|log| fs::read_to_string(log).unwrap()).collect()
}

/// Drops the copies, and looks that nothing else is left.
fn end(world: &World, copies: &[&str]) {
    for name in copies {
        world.run_pi(&["drop", name]).has_code(0);
    }
    world.assert_nothing_left();
}

#[test]
fn each_task_of_a_file_becomes_a_branch_and_only_what_is_not_done_is_done_again() {
    let world = world();
    tasks(
        &world,
        "# what is to be done\n\n--clone=one run: echo 1 >one\n--lang base --memory 2g --clone=two run: cat a; echo 2 >>a\n--clone=three @missing\n",
    );
    let first = batch(&world, "demo/bash");
    first.has_code(1);
    let expected = [
        row("one", "done", "1", "pi/one"),
        row("two", "done", "1", "pi/two"),
        row("three", "failed 1", "-", "-"),
    ];
    assert_eq!(states(&first), expected, "{first:?}");
    for said in [
        "pi: `one` begins: run: echo 1 >one\n",
        "pi: `one` is done after ",
        ": 1 commit on `pi/one`\n",
        "pi: `three` failed after ",
        "pi: the same command goes on with what is not done\n",
    ] {
        assert!(first.err.contains(said), "no {said:?}: {first:?}");
    }
    assert_eq!(world.git(world.repo(), &["show", "pi/one:one"]), "1\n");
    assert_eq!(world.git(world.repo(), &["show", "pi/two:a"]), "one\n2\n");
    assert!(log(&world, "two").contains("pi: begins: run: cat a; echo 2 >>a\n"), "{}", log(&world, "two"));
    assert!(log(&world, "three").contains("missing"), "{}", log(&world, "three"));
    // What failed was changed, one task is new, and the order is another.
    tasks(
        &world,
        "run: echo 4 >four\n--clone=three run: echo 3 >three\n--clone=one run: echo 1 >one\n--lang base --memory 2g --clone=two run: cat a; echo 2 >>a\n",
    );
    let second = batch(&world, "demo/bash");
    second.has_code(0);
    let name = states(&second)[0].0.clone();
    assert!(name.starts_with("run-echo-4-four-") && name.len() == 20, "{name}");
    let expected = [
        row(&name, "done", "1", &format!("pi/{name}")),
        row("three", "done", "1", "pi/three"),
        row("one", "done", "1", "pi/one"),
        row("two", "done", "1", "pi/two"),
    ];
    assert_eq!(states(&second), expected, "{second:?}");
    assert_eq!(second.err.matches(" begins: ").count(), 2, "{second:?}");
    // Nothing is left to do, and no engine is asked.
    let file = world.root().join("tasks");
    let third = words(file.to_str().unwrap(), "demo/bash", "2");
    let third = world.pi(&third).env("DOCKER_HOST", "unix:///nowhere.sock").run();
    third.is(0, &second.out, "");
    end(&world, &["one", "two", "three", &name]);
}

#[test]
fn a_signal_stops_what_runs_and_the_same_command_goes_on() {
    let world = world();
    let file = tasks(&world, "--clone=one a\n--clone=two b\n--clone=three c\n");
    for signal in [Signal::INT, Signal::TERM] {
        let running = world.pi(&words(file.to_str().unwrap(), "demo/slow", "2")).start();
        until("two sessions", || {
            let list = world.run_pi(&["ps"]).out;
            if list.lines().count() == 3 { Ok(()) } else { Err((list, running.err())) }
        });
        running.signal_group(signal);
        let outcome = running.wait();
        outcome.has_code(128 + signal.as_raw());
        let states: Vec<String> = states(&outcome).into_iter().map(|row| row.1).collect();
        assert_eq!(states, ["stopped", "stopped", "not begun"], "{outcome:?}");
        assert!(world.sessions().is_empty(), "{:?}", world.sessions());
    }
    let outcome = batch(&world, "demo/write");
    outcome.has_code(0);
    assert_eq!(world.git(world.repo(), &["show", "pi/three:hello.txt"]), "hello from the model\n");
    end(&world, &["one", "two", "three"]);
}

#[test]
fn a_killed_batch_loses_no_task_and_repeats_none() {
    let world = world();
    let file =
        tasks(&world, "--clone=one run: sleep 3; echo x >>counted\n--clone=two run: echo x >>counted\n");
    let words = words(file.to_str().unwrap(), "demo/bash", "1");
    let running = world.pi(&words).start();
    until_true("the first task", || world.run_pi(&["ps"]).out.contains("one"));
    running.signal(Signal::KILL);
    running.wait();
    let again = world.pi(&words).start();
    let other = world.run_pi(&words);
    let again = again.wait();
    // Whoever came first has the tasks, and nobody else meanwhile.
    let (first, second) = if other.code == Some(0) { (other, again) } else { (again, other) };
    first.has_code(0);
    second.says(125, "another `pi batch` has the tasks of");
    for name in ["one", "two"] {
        assert_eq!(world.git(world.repo(), &["show", &format!("pi/{name}:counted")]), "x\n");
        assert_eq!(log(&world, name).matches("pi: begins: ").count(), 1, "{}", log(&world, name));
    }
    end(&world, &["one", "two"]);
}

#[test]
fn on_a_terminal_ctrl_c_asks_what_to_do_with_the_tasks_that_run() {
    let world = world();
    let file =
        tasks(&world, "--clone=one run: while [ ! -e go ]; do sleep 0.1; done\n--clone=two run: true\n");
    let command = format!("pi batch --jobs 1 {} -- --model demo/bash; echo \"ended $?\"", file.display());
    let terminal = Terminal::open(&world);
    terminal.line(&command);
    let runs = |screen: &str| screen.contains("1 running, 1 waiting, 0 done, 0 failed");
    terminal.wait("the live table", |screen| runs(screen) && screen.contains("pi: one "));
    let question = |screen: &str| screen.contains("1 task is running: [w]ait for what runs");
    terminal.keys(&["C-c"]);
    terminal.wait("the question", question);
    terminal.line("g");
    terminal.wait("the table again", |screen| runs(screen.rsplit("[w/s/G]").next().unwrap()));
    terminal.keys(&["C-c"]);
    terminal.wait("the second question", |screen| screen.matches("1 task is running").count() == 2);
    terminal.line("w");
    until("the agent's wait", || {
        let entered = world.run_pi(&["shell", "--session", "one", "--", "touch", "go"]);
        if entered.code == Some(0) { Ok(()) } else { Err(entered) }
    });
    let screen = terminal.wait("the end", |screen| screen.contains("ended 1"));
    assert!(screen.contains("pi: `one` is done after"), "{screen}");
    assert!(screen.lines().any(|line| line.starts_with("two") && line.contains("not begun")), "{screen}");
    // The other answer, to the other task.
    terminal.line("clear");
    let slow = tasks(&world, "--clone=one run: sleep 60\n");
    terminal.line(&format!("pi batch {} -- --model demo/bash; echo \"ended $?\"", slow.display()));
    terminal.wait("the live table", |screen| screen.contains("1 running, 0 waiting, 0 done, 0 failed"));
    terminal.keys(&["C-c"]);
    terminal.wait("the question", question);
    terminal.line("s");
    terminal.wait("the end", |screen| screen.contains("ended 130"));
    drop(terminal);
    end(&world, &["one"]);
}

#[test]
fn several_engines_share_the_tasks_and_one_that_does_not_answer_gets_none() {
    let world = world();
    let settings = world.root().join("contexts");
    let socket = world.plan(&[])["record"]["engine"].as_str().unwrap().to_owned();
    for (name, address) in [("near", socket.as_str()), ("far", &socket), ("gone", "unix:///nowhere.sock")] {
        context(&settings, name, address);
    }
    let file =
        tasks(&world, "--clone=one run: sleep 2; echo 1 >one\n--clone=two run: sleep 2; echo 2 >two\n");
    let words =
        [&["--on", "near,gone,far"], words(file.to_str().unwrap(), "demo/bash", "1").as_slice()].concat();
    let outcome = world.pi(&words).env("DOCKER_CONFIG", &settings).run();
    outcome.has_code(0);
    for said in ["pi: warning: `gone` is left out: ", "begins on `near`: ", "begins on `far`: "] {
        assert!(outcome.err.contains(said), "no {said:?}: {outcome:?}");
    }
    assert_eq!(states(&outcome), [row("one", "done", "1", "pi/one"), row("two", "done", "1", "pi/two")]);
    // One session goes to one of them, and later to where its copy is.
    let single = |engines: &str| {
        let words = ["--on", engines, "shell", "--", "true"];
        world.pi(&words).env("DOCKER_CONFIG", &settings).run()
    };
    let first = single("gone,near");
    first.says(0, "pi: the session is on `near`, which has most left\n");
    assert!(first.err.contains("pi: warning: `gone` is left out: "), "{first:?}");
    let second = single("gone,near");
    assert!(second.code == Some(0) && !second.err.contains("most left"), "{second:?}");
    end(&world, &["one", "two", "copy"]);
}

#[test]
fn what_is_no_batch_is_refused_before_anything_begins() {
    let world = world();
    let file = tasks(&world, "fine\n--clone=a..b not\n");
    let file = file.to_str().unwrap();
    world.run_pi(&["batch", file]).says(2, "line 2: a copy's name has up to 64 letters");
    tasks(&world, "--no-network --allow=x.test not\n");
    world.run_pi(&["batch", file]).says(2, "line 1: ");
    write(world.repo().join("tasks"), "--allow=x.test not\n");
    world.run_pi(&["batch", "tasks"]).says(2, "where agents can write");
    world.run_pi(&["batch", "missing"]).says(125, "could not read `missing`");
    world.run_pi(&["--clone", "batch", file]).says(2, "`--clone` has no effect on this `pi batch`");
    world.run_pi(&["batch", "--jobs", "0", file]).has_code(2);
    assert!(world.run_pi(&["ps", "--all", "--json"]).out.contains("\"copies\": []"));
    world.assert_nothing_left();
}
