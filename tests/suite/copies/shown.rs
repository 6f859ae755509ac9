//! What a terminal shows while a copy is on its way.

use crate::world::{
    World,
    files::{myself, write, write_program},
    terminal::Terminal,
};

#[test]
fn what_is_on_its_way_is_a_line_with_bytes_and_time_on_a_terminal_and_nothing_elsewhere() {
    let world = World::with_model();
    let repo = world.repo();
    world.prepare(myself(), &[]);
    write(repo.join("large"), "0123456789abcdef".repeat(20_000));
    world.git(repo, &["add", "."]);
    world.git(repo, &["commit", "--quiet", "--message", "large"]);
    // A line to the engine that stands still for a while.
    let docker = which::which("docker").unwrap();
    let wrapper = world.root().join("slow-docker");
    let script = format!(
        "#!/bin/sh\ncase $* in\n*'tar -x'*'$3'*) {{ head -c 1000; sleep 3; cat; }} | {0} \"$@\" ;;\n*) exec {0} \"$@\" ;;\n\
         esac\n",
        docker.display()
    );
    write_program(&wrapper, script);
    world.configure(&format!("docker = \"{}\"\n", wrapper.display()));
    let words = ["--clone", "shell", "--", "ls", "-s", "--block-size=1", "large"];

    let terminal = Terminal::open(&world);
    terminal.line(&format!("pi {}; echo $?", words.join(" ")));
    terminal.wait("bytes and time", |screen| {
        let line = screen.lines().find(|line| line.starts_with("pi: copy the repository: "));
        line.is_some_and(|line| line.contains(" KiB, ") && line.ends_with(" s"))
    });
    let screen = terminal.wait("the end", |screen| screen.contains("\n0\n"));
    assert!(screen.contains("large\n"), "{screen}");
    assert!(!screen.contains("copy the repository"), "the line is gone: {screen}");
    terminal.line("exit");

    world.run_pi(&["drop", "copy", "--force"]).has_code(0);
    let outcome = world.run_pi(&words);
    outcome.has_code(0);
    assert!(!outcome.err.contains("copy the repository"), "{outcome:?}");
    world.run_pi(&["drop", "copy", "--force"]).has_code(0);
}
