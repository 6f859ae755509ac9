//! The launcher's other verbs, and a launcher in an odd place.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::ECHO;
use rustix::process::Signal;

use crate::world::{
    World,
    files::somebody,
    wait::{processes, until_true},
};

#[test]
fn a_running_session_is_listed_entered_and_stopped_by_its_name() {
    let world = World::with_model();
    let running = world.shell(&["--session-name", "here"], "touch up; sleep 600").start();
    until_true("the session", || world.repo().join("up").exists());
    let listed: serde_json::Value = serde_json::from_str(&world.pi(&["ps", "--json"]).good()).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!((&listed[0]["name"], &listed[0]["network"]), (&"here".into(), &"open".into()));
    assert_eq!(listed[0]["repository"], world.repo().to_str().unwrap());
    let shown = world.pi(&["ps"]).good();
    assert!(shown.starts_with("NAME") && shown.contains(world.repo().to_str().unwrap()), "{shown}");
    let script = "echo $(id -u) $PWD; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; env | grep PI_BOX_ | grep -v ^PI_BOX_WITHIN=; exit 9";
    let entered = world.run_pi(&["shell", "--session", "here", "--", "sh", "-c", script]);
    let none = "0000000000000000";
    let expected = format!(
        "{} {}\nCapEff:\t{none}\nCapBnd:\t{none}\nNoNewPrivs:\t1\n",
        world.owner().uid,
        world.repo().display()
    );
    entered.is(9, &expected, "");
    // What is started beside the agent reads files that the agent has written, so it is kept from the init as well.
    let enter = |script: &str| world.pi(&["shell", "--session", "here", "--", "perl", "-e", script]).good();
    let landlock: i32 = enter("print syscall(444, 0, 0, 1)").parse().unwrap();
    let environment = enter("print open(my $in, '<', '/proc/1/environ') ? 'read' : 'refused'");
    assert_eq!(environment, if landlock >= 2 { "refused" } else { "read" }, "Landlock {landlock}");
    // What is started there ends with whoever started it, however that ended; what it leaves by itself goes on.
    let beside = |n: u32| format!("77{n}{}", std::process::id());
    let runs = |n: u32| {
        !processes(|words| words.first().is_some_and(|word| word == "sleep") && words.contains(&beside(n)))
            .is_empty()
    };
    let start = |n: u32, script: &str| {
        let script = script.replace("SLEEP", &format!("sleep {}", beside(n)));
        let pi = world.pi(&["shell", "--session", "here", "--", "sh", "-c", &script]).start();
        until_true("what was started beside the agent", || runs(n));
        pi
    };
    for (n, end) in [(1, Signal::KILL), (2, Signal::HUP), (3, Signal::TERM)] {
        // One of them hears no closed terminal.
        let pi = start(n, if n == 1 { "trap '' HUP; SLEEP" } else { "setsid SLEEP & wait" });
        if n == 1 {
            pi.signal_group(end);
        } else {
            pi.signal(end);
        }
        pi.wait();
        until_true("its end", || !runs(n));
    }
    start(4, "SLEEP & sleep 0.2").wait().has_code(0);
    assert!(runs(4));
    let unknown = world.run_pi(&["stop", "elsewhere"]);
    assert_eq!(unknown.code, Some(125));
    assert_eq!(unknown.err, "pi: error: no session `elsewhere` is running\npi: hint: `pi ps` lists them\n");
    world.run_pi(&["stop", "here"]).has_code(0);
    let ended = running.wait();
    assert_eq!((ended.code, ended.err.as_str()), (Some(143), ""), "{ended:?}");
    assert_eq!(world.pi(&["ps", "--json"]).good(), "[]\n");
}

#[test]
fn a_launcher_inside_a_container_says_that_it_is_in_one() {
    let world = World::with_model();
    let engine = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let socket = Path::new(engine.strip_prefix("unix://").unwrap()).canonicalize().unwrap();
    let [dir, name] = [socket.parent().unwrap(), Path::new(socket.file_name().unwrap())];
    let client = which::which("docker").unwrap().canonicalize().unwrap();
    let image = world.image(&[]);
    // The socket under its own name, and as one of a directory that was mounted.
    for (source, target, address) in [
        (socket.as_path(), "/var/run/docker.sock".to_owned(), "/var/run/docker.sock".to_owned()),
        (dir, "/outer".to_owned(), format!("/outer/{}", name.display())),
    ] {
        let said = std::process::Command::new("docker")
            .args(["run", "--rm", "--network=none", "--user=0:0", "--entrypoint=/launcher", "--tmpfs=/srv/x"])
            .args(["--workdir=/srv/x", "--env=HOME=/root", &format!("--env=DOCKER_HOST=unix://{address}")])
            .arg(format!("--mount=type=bind,source={},target={target}", source.display()))
            .arg(format!("--mount=type=bind,source={},target=/launcher,readonly", env!("CARGO_BIN_EXE_pi")))
            .arg(format!("--mount=type=bind,source={},target=/usr/bin/docker,readonly", client.display()))
            .args([&image, "shell", "--", "true"])
            .output()
            .unwrap();
        let err = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(125), "{err}");
        let sentence = "pi: error: `pi` runs inside a container, but the engine runs outside and would mount the outer machine's \
                        paths\npi: hint: start `pi` on the machine where the engine runs, or give the engine no file with \
                        `--on CONTEXT`\n";
        assert_eq!(err, sentence);
    }
}

#[test]
fn the_gate_refuses_a_mount_that_is_not_what_was_looked_at() {
    let world = World::with_model();
    let inode = fs::metadata(world.repo()).unwrap().ino();
    let planned = world.pi(&["--dry-run", "shell", "--", "echo", "it ran"]).good();
    // As if the directory had been exchanged after the launcher's look.
    let exchanged = planned.replace(&format!(":{inode}:"), &format!(":{}:", inode + 1));
    assert_ne!(exchanged, planned);
    let outcome = world.script(&exchanged).run();
    let said = format!(
        "pi: error: the sandbox is not safe, so nothing was started: what is mounted at `{}` is not what was there when \
         the session began\n",
        world.repo().display()
    );
    outcome.is(125, "", &said);
}

#[test]
fn the_gate_refuses_a_mount_that_nobody_asked_for() {
    let world = World::with_model();
    let planned = world.pi(&["--dry-run", "shell", "--", "echo", "it ran"]).good();
    world.script(&planned).run().is(0, "it ran\n", "");
    for target in ["/mnt", "/home/pi/.pi/agent/extensions", "/etc/ssl"] {
        let more =
            format!("docker create --mount=type=bind,source={},target={target} ", world.home().display());
        let outcome = world.script(&planned.replacen("docker create ", &more, 1)).run();
        let said = format!(
            "pi: error: the sandbox is not safe, so nothing was started: nobody has asked for what is mounted at \
             `{target}`\n"
        );
        outcome.is(125, "", &said);
    }
}

#[test]
fn the_script_of_a_dry_run_does_what_pi_does() {
    let world = World::with_model();
    for (words, stdin) in [
        (
            &[
                "-p",
                "--model",
                "demo/bash",
                "run: id -u; pwd; env | grep -c . ; echo $ANTHROPIC_API_KEY $GIT_CONFIG_COUNT",
            ][..],
            "",
        ),
        (&["-p", "--model", "demo/unknown", "x"], ""),
        (&ECHO, "from a pipe"),
        (&["--no-network", "shell", "--", "sh", "-c", "ls /sys/class/net; cat; exit 3"], "input\n"),
    ] {
        let call = |words: &[&str]| world.pi(words).input(stdin).env("ANTHROPIC_API_KEY", "sk-any").run();
        let direct = call(words);
        let planned = call(&[&["--dry-run"], words].concat());
        assert_eq!((planned.code, planned.err.as_str()), (Some(0), ""));
        let by_hand = world.script(&planned.out).env("ANTHROPIC_API_KEY", "sk-any").input(stdin).run();
        assert_eq!((by_hand.code, &by_hand.out), (direct.code, &direct.out), "{by_hand:?}\n{}", planned.out);
        // An agent names its session's file in some errors.
        assert_eq!(by_hand.err.is_empty(), direct.err.is_empty(), "{by_hand:?} {direct:?}");
    }
}

#[test]
fn the_demo_shows_every_wall() {
    let world = World::with_model();
    let done = world.pi_by(somebody(), &["demo"]).run();
    assert_eq!(done.code, Some(0), "{done:?}");
    let bad: Vec<&str> = done.out.lines().filter(|line| !line.starts_with("ok   ")).collect();
    assert_eq!(bad, Vec::<&str>::new(), "{}", done.out);
    assert_eq!(done.out.lines().count(), 17, "{}", done.out);
    assert_eq!(fs::read_dir(world.repo()).unwrap().count(), 1, "the user's repository was touched");
}

#[test]
fn the_doctor_finds_nothing_wrong_where_sessions_run() {
    let world = World::with_model();
    let seen = world.run_pi(&["doctor"]);
    assert_eq!((seen.code, seen.err.as_str()), (Some(0), "pi: sessions can run here\n"), "{seen:?}");
    let version = crate::world::model::docker(&["version", "--format", "{{.Server.Version}}"]);
    assert!(seen.out.contains(&format!("Docker {}", version.trim())), "{}", seen.out);
    assert!(seen.out.contains(&format!("`{}`", world.repo().display())), "{}", seen.out);
    world.assert_nothing_left();
}

#[test]
fn the_doctor_proves_that_every_wall_holds_and_that_no_key_is_inside() {
    let world = World::with_model();
    let key = "sk-ant-of-nobody-0123456789abcdef";
    let proved = world.pi(&["doctor", "--prove"]).env("ANTHROPIC_API_KEY", key).run();
    let bad: Vec<&str> = proved.out.lines().filter(|line| line.starts_with("BAD")).collect();
    assert_eq!((proved.code, bad), (Some(0), vec![]), "{proved:?}");
    for (network, attempts) in [("open", 16), ("proxy", 24), ("none", 23)] {
        let part = proved.out.split(&format!("{network}\n")).nth(1).unwrap();
        let rows = part.lines().take_while(|line| line.starts_with("ok ")).count();
        assert_eq!(rows, attempts, "{network}: {proved:?}");
    }
    assert!(proved.out.contains("values looked at"), "the keys were not looked for: {proved:?}");
    world.assert_nothing_left();
    // What gives the keys to the agent shows.
    world.configure("keys = \"env\"");
    let given = world.pi(&["doctor", "--prove"]).env("ANTHROPIC_API_KEY", key).run();
    assert_eq!(given.code, Some(1), "{given:?}");
    assert_eq!(given.out.matches("BAD  find one of your keys").count(), 3, "{given:?}");
    world.assert_nothing_left();
}
