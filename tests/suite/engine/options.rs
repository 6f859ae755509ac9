//! Options of a session.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use crate::world::{World, files::write, model::model, wait::until_true};

#[test]
fn mounts_are_as_writable_as_they_were_asked_to_be() {
    let world = World::with_model();
    let (data, file) = (world.root().join("data"), world.root().join("file, \"odd\""));
    write(data.join("in"), "in\n");
    write(&file, "file\n");
    let both = format!("{}:/data/ro:ro", data.display());
    let options = [
        "--mount",
        &both,
        "--mount",
        data.to_str().unwrap(),
        "--mount",
        &format!("{}:/data/file", file.display()),
    ];
    let script = format!(
        "cat /data/ro/in /data/file; (echo x >/data/ro/out) 2>/dev/null || echo refused; echo out >{}/out; echo more >>/data/file",
        data.display()
    );
    assert_eq!(world.shell(&options, &script).good(), "in\nfile\nrefused\n");
    assert_eq!(fs::read_to_string(data.join("out")).unwrap(), "out\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "file\nmore\n");
    for (mount, why) in [
        ("/no/such/thing", "could not mount `/no/such/thing`"),
        ("/var/run/docker.sock", "is or holds the engine's socket"),
        ("/var/run:/x", "is or holds the engine's socket"),
        ("/", "is or holds the engine's socket"),
    ] {
        let refused = world.shell(&["--mount", mount], "true").run();
        assert!(refused.code != Some(0) && refused.err.contains(why), "{mount}: {refused:?}");
    }
}

#[test]
fn a_published_port_is_reached_from_this_machine_only() {
    let world = World::with_model();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!(
        "require('http').createServer((q, a) => {{ a.end('hi'); a.on('finish', () => process.exit()) }}).listen({port}, () => require('fs').writeFileSync('up', ''))"
    );
    let running = world.pi(&["--publish", &port.to_string(), "shell", "--", "node", "-e", &server]).start();
    until_true("the server", || world.repo().join("up").exists());
    // Another address of this machine: the one from which it would talk to a container.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((model().address.as_str(), 9)).unwrap();
    let other = SocketAddr::new(socket.local_addr().unwrap().ip(), port);
    let refused = TcpStream::connect_timeout(&other, Duration::from_secs(2));
    assert!(refused.is_err(), "{other} answers");
    let curl = world.call("curl").args(&["--noproxy", "*", "-s", &format!("http://127.0.0.1:{port}/")]);
    assert_eq!(curl.limit(Duration::from_secs(20)).run().out, "hi");
    running.wait().is(0, "", "");
}

#[test]
fn limits_are_kept_and_the_memory_limit_says_so() {
    let world = World::with_model();
    let said = "pi: warning: the memory limit of 64 MiB was reached and a process was killed; `--memory` raises it\n";
    // A process of the agent's, and the agent itself.
    let script = "perl -e '$x = \"a\" x 300_000_000'; exit 3";
    let hungry = world.shell(&["--memory", "64m"], script).run();
    assert_eq!((hungry.code, hungry.out.as_str()), (Some(3), ""), "{hungry:?}");
    assert!(hungry.err.ends_with(said), "{hungry:?}");
    let direct = world.run_pi(&["--memory", "64m", "shell", "--", "perl", "-e", "$x = 'a' x 300_000_000"]);
    assert_eq!(direct.code, Some(137), "{direct:?}");
    assert!(direct.err.ends_with(said), "{direct:?}");
    let forks = "my $n = 0; while ($n < 100) { my $p = fork; last unless defined $p; if (!$p) { sleep 60; exit } $n++ } print $n < 30 ? 'few' : \"$n\"; kill 9, -getpgrp";
    let forked = world.run_pi(&["--pids", "20", "shell", "--", "perl", "-e", &format!("$| = 1; {forks}")]);
    assert_eq!((forked.code, forked.out.as_str()), (Some(137), "few"), "{forked:?}");
    let script = "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    assert!(world.shell(&["--cpus", "0.5"], script).good().starts_with("50000"));
    let script = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max";
    assert_eq!(world.shell(&["--pids", "0"], script).good(), "max\n");
}

#[test]
fn without_a_network_there_is_loopback_and_nothing_else() {
    let world = World::with_model();
    let script = format!(
        "ls /sys/class/net; curl --noproxy '*' -s -m 5 http://{}:8080/ ; echo $?; echo $PI_OFFLINE; getent hosts example.com || echo unknown",
        model().address
    );
    assert_eq!(world.shell(&["--no-network"], &script).good(), "lo\n7\n1\nunknown\n");
}

#[test]
fn an_unknown_runtime_is_an_error_with_the_next_step() {
    let world = World::with_model();
    let refused = world.shell(&["--runtime", "no-such-runtime"], "true").run();
    assert_eq!((refused.code, refused.out.as_str()), (Some(125), ""));
    let lines: Vec<&str> = refused.err.lines().collect();
    assert!(lines[0].starts_with("pi: error: ") && lines[0].contains("no-such-runtime"), "{refused:?}");
    assert_eq!(lines[1..], ["pi: hint: `docker info` lists the engine's runtimes"]);
}
