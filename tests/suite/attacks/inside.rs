//! Processes, memory, sockets, calls and files, tried from inside; one session for each kind of network.

use super::super::world::{World, files::write, wait::processes};

#[test]
fn whatever_the_agent_tries_the_walls_hold() {
    let world = World::with_model();
    write(world.repo().join("inside.pl"), include_str!("inside.pl"));
    let survivor = format!("9{}", std::process::id());
    let script = format!("setsid -f sleep {survivor}; exec perl inside.pl");
    let limits = ["--memory", "512m", "--pids", "256", "--disk", "64m"];
    for network in [&[][..], &["--no-network"]] {
        let outcome = world.shell(&[&limits, network].concat(), &script).run();
        let lines: Vec<&str> = outcome.out.lines().collect();
        let bad: Vec<&&str> =
            lines.iter().filter(|line| !(line.ends_with(" held") || line.ends_with(" works"))).collect();
        assert!(outcome.code == Some(0) && bad.is_empty(), "{bad:#?}\n{}", outcome.err);
        assert!(outcome.err.contains("pi: warning: the memory limit"), "{}", outcome.err);
        let counted = |how: &str| lines.iter().filter(|line| line.ends_with(how)).count();
        let least = match std::env::consts::ARCH {
            "x86_64" => 120,
            "aarch64" => 116,
            _ => 65,
        };
        assert!(
            counted(" held") >= least && counted(" works") >= 8,
            "{} held, {} work",
            counted(" held"),
            counted(" works")
        );
        // What was to outlive the session did not.
        let left = processes(|words| words.contains(&survivor));
        assert!(left.is_empty(), "{left:?}");
    }
    world.assert_nothing_left();
}
