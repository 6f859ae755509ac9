//! What keeps the sidecar's programs apart and running, and what one that is broken can do to the launcher.

use std::{fs, process::Command};

use rustix::process::Signal;

use super::{TUNNEL, attempts::Session, list::TUNNEL_PROGRAM};
use crate::world::{
    World,
    files::write,
    model::docker,
    wait::{until, until_true},
};

const REACHED: &str = "200 198.51.100.80:443";

fn restricted() -> (World, String) {
    super::restricted("", "allowed.test\n")
}

/// The processes of a program in a container, oldest first.
pub(super) fn pids(container: &str, program: &str) -> Vec<u32> {
    let script = "for p in /proc/[0-9]*; do read -r name <$p/comm && [ \"$name\" = \"$0\" ] && echo ${p#/proc/}; done; :";
    let said = docker(&["exec", container, "sh", "-c", script, program]);
    let mut all: Vec<u32> = said.lines().map(|line| line.parse().unwrap()).collect();
    all.sort_unstable();
    all
}

pub(super) fn kill(container: &str, program: &str) {
    let all: Vec<String> = pids(container, program).iter().map(u32::to_string).collect();
    assert!(!all.is_empty(), "no {program}");
    docker(&["exec", container, "sh", "-c", &format!("kill -KILL {}", all.join(" "))]);
}

#[test]
fn a_program_that_dies_is_started_again_a_few_times_and_that_is_said() {
    let (world, list) = restricted();
    let session = Session::start(&world, &[&list]);
    let died = |count| {
        until_true("the launcher's word", || {
            session.running().err().matches("was restarted").count() == count
        });
        until("a tunnel", || {
            let seen = session.one(TUNNEL);
            if seen.outcome == REACHED { Ok(()) } else { Err(seen) }
        });
    };
    for (count, program) in ["haproxy", "tinyproxy", "haproxy", "tinyproxy", "haproxy"].iter().enumerate() {
        kill(&session.sidecar(), program);
        died(count + 1);
    }
    let said = session.running().err();
    let warning = "pi: warning: the proxy was restarted, its connections are lost: ";
    assert_eq!(
        said.matches(&format!("{warning}HAProxy died: it was ended by signal 9")).count(),
        3,
        "{said}"
    );
    assert_eq!(
        said.matches(&format!("{warning}tinyproxy died: it was ended by signal 9")).count(),
        2,
        "{said}"
    );
    // New rules go on from there.
    world.run_pi(&["allow", "evil.test"]).has_code(0);
    assert_eq!(session.one("head CONNECT evil.test:443 HTTP/1.1").outcome, "200 198.51.100.66:443");
    kill(&session.sidecar(), "tinyproxy");
    until_true("the end", || session.running().err().contains("the proxy has ended"));
    assert_eq!(session.end().code, Some(0));
    world.assert_nothing_left();
}

#[test]
fn tunnels_of_old_rules_stay_for_seven_changes() {
    let (world, list) = restricted();
    let session = Session::start(&world, &[&list]);
    let lines = |n: u32| fs::read_to_string(world.repo().join(format!("tunnel.{n}"))).unwrap_or_default();
    let moves = |n: u32| {
        let before = lines(n).len();
        until_true("more of a tunnel", || lines(n).len() > before);
    };
    write(world.repo().join("tunnel.pl"), TUNNEL_PROGRAM);
    for n in 0..8 {
        session.one(&format!("shell setsid perl tunnel.pl >tunnel.{n} 2>&1 &"));
        until_true("the tunnel", || !lines(n).is_empty());
        if n < 7 {
            world.run_pi(&["allow", &format!("n{n}.test")]).has_code(0);
        }
    }
    (0..8).for_each(moves);
    let said = session.running().err();
    assert!(!said.contains("connections"), "{said}");
    world.run_pi(&["allow", "n7.test"]).has_code(0);
    until_true("the warning", || {
        session.running().err().contains(
            "pi: warning: the proxy closed connections: the rules of 1 open connections were replaced long ago",
        )
    });
    (1..8).for_each(moves);
    until_true("the end of the first tunnel", || pids(&session.sidecar(), "tinyproxy").len() == 8);
    let first = lines(0);
    assert_eq!(session.one(TUNNEL).outcome, REACHED);
    assert_eq!(first, lines(0));
    write(world.repo().join("stop"), "");
    until_true("the end of the old ones", || pids(&session.sidecar(), "tinyproxy").len() == 1);
    assert_eq!(session.end().code, Some(0));
    world.assert_nothing_left();
}

/// Prints what it could do as this user.
const ATTACKER: &str = r#"
use Socket;
my ($supervisor, $front, $tinyproxy, $sidecar) = @ARGV;
for ([supervisor => $supervisor], [front => $front], [tinyproxy => $tinyproxy]) {
    my ($name, $pid) = @$_;
    print "signal $name\n" if kill 0, $pid;
    for my $file (qw(environ mem maps)) {
        open(my $in, '<', "/proc/$pid/$file") && print "read $name $file\n";
    }
    opendir(my $dir, "/proc/$pid/fd") && print "list $name fd\n";
}
opendir(my $dir, '/tmp/pi') && print "list files\n";
open(my $out, '>', '/tmp/pi/conf-9001') && print "write files\n";
socket(my $admin, AF_UNIX, SOCK_STREAM, 0);
connect($admin, pack_sockaddr_un('/tmp/pi/admin')) && print "admin\n";
for ("127.0.0.1 9000", "127.0.0.1 22", "$sidecar 8888", "198.51.100.80 443", "10.77.77.7 443") {
    my ($address, $port) = split;
    socket(my $socket, AF_INET, SOCK_STREAM, 0);
    print "connect $_\n" if connect($socket, pack_sockaddr_in($port, inet_aton($address))) || $!{ECONNREFUSED};
}
"#;

#[test]
fn neither_program_of_the_sidecar_can_do_more_than_its_task() {
    let (world, list) = restricted();
    let session = Session::start(&world, &[&list]);
    let sidecar = session.sidecar();
    let address = session.names["sidecar"].clone();
    let one = |program| pids(&sidecar, program)[0].to_string();
    let [supervisor, front, tinyproxy] = ["supervisor", "haproxy", "tinyproxy"].map(one);
    let can = |user: &str| {
        let command = ["exec", "--user", user, &sidecar, "perl", "-MErrno", "-e", ATTACKER];
        let said = docker(&[&command[..], &[&supervisor, &front, &tinyproxy, &address]].concat());
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all_of = |name: &str| {
        ["signal NAME", "read NAME environ", "read NAME mem", "read NAME maps", "list NAME fd"]
            .map(|what| what.replace("NAME", name))
    };
    assert_eq!(can("65533:65533"), [&all_of("front")[..], &["connect 127.0.0.1 9000".to_owned()]].concat());
    let out = ["connect 198.51.100.80 443".to_owned()];
    assert_eq!(can("65534:65534"), [&all_of("tinyproxy")[..], &out].concat());
    let status = |pid: &str| docker(&["exec", &sidecar, "cat", &format!("/proc/{pid}/status")]);
    for (pid, user, capabilities) in [
        (&supervisor, 0, "00000000000001e0"),
        (&front, 65533, "0000000000000000"),
        (&tinyproxy, 65534, "0000000000000000"),
    ] {
        let status = status(pid);
        assert!(status.contains(&format!("Uid:\t{user}\t{user}\t{user}\t{user}\n")), "{status}");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(status.contains(&format!("{set}:\t{capabilities}\n")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    }
    assert_eq!(session.end().code, Some(0));
    world.assert_nothing_left();
}

#[test]
fn a_password_in_the_rules_is_nowhere_but_in_tinyproxy() {
    let (world, list) = restricted();
    let upstream = "http://someone:hunter2@10.77.77.90:3128";
    let session = Session::start_with(&world, &[&list], |call| call.env("HTTPS_PROXY", upstream));
    assert_eq!(session.one(TUNNEL).outcome, REACHED);
    world.run_pi(&["allow", "evil.test"]).has_code(0);
    let found = Command::new("grep").arg("-rl").arg("hunter2").arg(world.root()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    let seen = docker(&["inspect", &session.sidecar()]);
    assert!(!seen.contains("hunter2"), "{seen}");
    assert_eq!(docker(&["inspect", "--format", "{{len .Mounts}}", &session.sidecar()]), "0");
    let left = docker(&["exec", &session.sidecar(), "ls", "/tmp/pi"]);
    assert_eq!(left, "admin");
    assert_eq!(session.end().code, Some(0));
    world.assert_nothing_left();
}

#[test]
fn what_a_broken_sidecar_says_is_bounded_in_memory_on_disk_and_on_the_terminal() {
    let world = World::fake();
    write(world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
    world.docker().rule("start-agent", "stays");
    world.docker().rule(
        "start-proxy",
        ": >\"$engine/gate\"; echo 'pi-proxy: ready'; head -c 40000000 /dev/zero >&2; head -c 40000000 /dev/zero; echo
        for word in 'warning: a' 'error: b' 'restarted: c' 'rules changed' 'rules kept: d' ready; do
            yes \"pi-proxy: $word\" | head -n 400000
        done
        echo 'the last line'",
    );
    let running = world.pi(&["--proxy", "-p", "x"]).start();
    let log = until("the log", || world.sessions().first().map(|dir| dir.join("proxy.log")).ok_or(()));
    until("the end of the words", || {
        let size = fs::metadata(&log).map_or(0, |meta| meta.len());
        assert!(size <= 5 << 20, "{size}");
        let text = fs::read(&log).unwrap_or_default();
        if text.windows(14).any(|part| part == b"the last line\n") { Ok(()) } else { Err(size) }
    });
    assert!(fs::read_to_string(&log).unwrap().starts_with("pi: older lines were left out here\n"));
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid().as_raw_nonzero())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 << 10, "{peak} kB");
    running.signal(Signal::TERM);
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(143), "{outcome:?}");
    let lines: Vec<&str> = outcome.err.lines().collect();
    assert_eq!(lines.len(), 21, "{lines:?}");
    assert!(lines[..20].iter().all(|line| *line == "pi: warning: a"));
    assert_eq!(lines[20], "pi: warning: the proxy has more warnings; `pi logs` shows them");
    world.assert_nothing_left();
}
