//! Ports of a restricted session's agent that this machine reaches.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::{
    ALLOWLIST, TUNNEL,
    attempts::{Case, Session, cases},
    matrix::Matrix,
    past::AGENT_CASES,
    restricted,
    sidecar::kill,
};
use crate::world::{
    World,
    files::write,
    model::{docker, model},
    wait::until,
};

/// A port of the loopback that nobody listens on now.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Answers each request with a word and with who asks.
const SERVER: &str = "
const [word, ...ports] = process.argv.slice(2);
for (const port of ports) require('http').createServer((q, a) => a.end(word + ' ' + q.socket.localPort)).listen(port);
";

fn curl(world: &World, address: &str) -> (Option<i32>, String) {
    let words = ["--noproxy", "*", "-s", "-m", "5", address];
    let said = world.call("curl").args(&words).limit(Duration::from_secs(20)).run();
    (said.code, said.out)
}

fn session<'a>(world: &'a World, list: &str, publish: &[String]) -> Session<'a> {
    write(world.repo().join("server.js"), SERVER);
    let options: Vec<&str> = publish.iter().flat_map(|port| ["--publish", port.as_str()]).collect();
    let session = Session::start(world, &[&[list], options.as_slice()].concat());
    assert_eq!(
        session.one("shell setsid node server.js hello 3000 8888 80 >server.log 2>&1 &").outcome,
        "ok"
    );
    session
}

#[test]
fn this_machine_reaches_published_ports_of_a_restricted_session() {
    let (world, list) = restricted("", ALLOWLIST);
    let [one, two, three] = [free(), free(), free()];
    let publish = [(one, 3000), (two, 8888), (three, 80)];
    let publish = publish.map(|(host, agent)| format!("{host}:{agent}"));
    let session = session(&world, &list, &publish);
    for (port, said) in [(one, "hello 3000"), (two, "hello 8888"), (three, "hello 80")] {
        let address = format!("http://127.0.0.1:{port}/");
        until("the server", || {
            let seen = curl(&world, &address);
            if seen == (Some(0), said.to_owned()) { Ok(()) } else { Err(seen) }
        });
        // Nobody else's machine does: it is on no other address of this one.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((model().address.as_str(), 9)).unwrap();
        let other = SocketAddr::new(socket.local_addr().unwrap().ip(), port);
        assert!(TcpStream::connect_timeout(&other, Duration::from_secs(2)).is_err(), "{other} answers");
    }
    // Other containers share the network on which this machine asks.
    let outer = session.names["own_outer"].clone();
    let ask = format!(
        "fetch('http://{outer}:8900', {{signal: AbortSignal.timeout(2000)}}).then(() => console.log('in'), () => console.log('out'))"
    );
    assert_eq!(docker(&["exec", &victim(), "node", "-e", &ask]), "out");
    // A front that died passes on again.
    kill(&session.sidecar(), "haproxy");
    until("the server again", || {
        let seen = curl(&world, &format!("http://127.0.0.1:{one}/"));
        if seen.1 == "hello 3000" { Ok(()) } else { Err(seen) }
    });
    session.end().has_code(0);
    assert!(curl(&world, &format!("http://127.0.0.1:{one}/")).0 == Some(7));
    world.assert_nothing_left();
}

/// A container on docker's default bridge.
fn victim() -> String {
    format!("pi-e2e-victim-{}", std::process::id())
}

#[test]
fn an_agent_with_published_ports_gains_no_way_out() {
    let (world, list) = restricted("", ALLOWLIST);
    let port = free();
    let session = session(&world, &list, &[format!("{port}:3000")]);
    let case = |name: &str, expected: &str, how: &str| Case {
        control: "none: nothing changes".to_owned(),
        expected: expected.to_owned(),
        ..Case::bare(name, how)
    };
    let mut all: Vec<Case> = cases(AGENT_CASES)
        .into_iter()
        .filter(|case| !case.how.contains("{other"))
        .map(|case| Case { control: "none: nothing changes".to_owned(), ..case })
        .collect();
    all.extend([
        case("where the sidecar hears this machine", "closed/refused", "tcp {own_outer} 8900"),
        case("the same, bound to the device", "closed/refused", "tcp {own_outer} 8900 device"),
        case("the same, on its own network", "refused", "tcp {sidecar} 8900"),
        case("its own port, by docker's bridge", "closed", &format!("tcp {{bridge}} {port}")),
        case("its own port, by the gateway", "closed", &format!("tcp {{gateway}} {port}")),
        case("its own port, bound to the device", "closed", &format!("tcp {{bridge}} {port} device")),
    ]);
    let results = session.attempt(&all);
    Matrix::of(&all, &results, &std::collections::BTreeMap::new())
        .settle("past the proxy, with a port published");
    assert_eq!(session.one(TUNNEL).outcome, "200 198.51.100.80:443");
    session.end().has_code(0);
    world.assert_nothing_left();
}

/// Prints what it could reach as the front's user.
const FRONT: &str = r#"
use Socket;
my ($agent, $machine, $outer) = @ARGV;
for ("$agent 3000", "$agent 22", "$machine 22", "$machine 18999", "$outer 8900", "198.51.100.80 443") {
    my ($address, $port) = split;
    socket(my $socket, AF_INET, SOCK_STREAM, 0);
    print "connect $_\n" if connect($socket, pack_sockaddr_in($port, inet_aton($address))) || $!{ECONNREFUSED};
}
for (INADDR_ANY, inet_aton($outer)) {
    socket(my $socket, AF_INET, SOCK_STREAM, 0);
    setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1);
    print "bind\n" if bind($socket, pack_sockaddr_in(8900, $_));
}
"#;

#[test]
fn a_broken_front_reaches_the_published_ports_alone() {
    let (world, list) = restricted("", ALLOWLIST);
    let session = session(&world, &list, &[format!("{}:3000", free())]);
    let names = ["agent", "bridge", "own_outer"].map(|name| session.names[name].clone());
    let command = ["exec", "--user", "65533:65533", &session.sidecar(), "perl", "-MErrno", "-e", FRONT];
    let said = docker(&[&command[..], &names.each_ref().map(String::as_str)].concat());
    assert_eq!(said, format!("connect {} 3000", names[0]));
    // The kernel knows each listener as its user's, so one that HAProxy turned around leads nowhere either.
    let listeners = docker(&["exec", &session.sidecar(), "cat", "/proc/net/tcp"]);
    let users: Vec<(&str, &str)> = listeners
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(3) == Some(&"0A"))
        .map(|words| (words[1].rsplit(':').next().unwrap(), words[7]))
        .filter(|(port, _)| ["22B8", "22C4"].contains(port))
        .collect();
    assert_eq!(users.len(), 2, "{listeners}");
    assert!(users.iter().all(|(_, user)| *user == "65533"), "{listeners}");
    session.end().has_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_published_port_that_is_taken_is_one_sentence_and_starts_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let said = format!(
        "pi: error: port {port} of this machine is taken, so it cannot be published\n\
         pi: hint: choose another one, as in `--publish OTHER:3000`, or stop the program that uses it\n"
    );
    let (world, list) = restricted("", ALLOWLIST);
    for options in [&[&*list][..], &["--no-proxy"]] {
        let publish = format!("{port}:3000");
        let words = [options, &["--publish", &publish, "shell", "--", "touch", "ran"]].concat();
        world.run_pi(&words).is(125, "", &said);
        assert!(!world.repo().join("ran").exists());
        world.assert_nothing_left();
    }
}
