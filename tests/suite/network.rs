//! The restricted network, tried on a real engine: with a small internet on this machine, by an agent that means ill, and
//! each defence once more without it.

mod attempts;
mod matrix;
mod script;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use self::{
    attempts::{Case, Seen, Session, addresses, at, cases, prepare, wanting},
    matrix::Matrix,
    script::{Script, weak_sidecar},
};
use crate::world::{
    World,
    call::Outcome,
    files::{write, write_program},
    internet::{DNS, RESOLVER, internet},
    model::docker,
    wait::{until, until_true},
};

const AGENT_CASES: &str = include_str!("../network/agent.cases");
const PROXY_CASES: &str = include_str!("../network/proxy.cases");
const ALLOWLIST: &str = include_str!("../network/allowlist");

/// A world with settings and an allowlist; returns the option that names the latter.
fn restricted(settings: &str, allowlist: &str) -> (World, String) {
    let world = World::real();
    internet();
    configure(&world, settings);
    let file = world.root().join("allowlist");
    write(&file, allowlist);
    (world, format!("--allowed-domains={}", file.display()))
}

/// Gives a world settings beside the internet's resolver.
fn configure(world: &World, more: &str) {
    world.configure(&format!("{DNS}\n{more}"));
}

fn ends_well(world: &World, session: Session<'_>, err: &str) {
    let outcome = session.end();
    outcome.is(0, "", err);
    world.assert_nothing_left();
}

/// Names near to the listed ones and far from them, the same ones for the same seed.
fn random_targets(seed: u64, count: usize) -> Vec<String> {
    const LABELS: [&str; 8] = ["allowed", "wild", "evil", "a", "b-c", "xn--80ak6aa92e", "odd", "plain"];
    const ENDS: [&str; 6] = [
        "allowed.test",
        "wild.allowed.test",
        "odd.allowed.test",
        "plain.allowed.test",
        "evil.test",
        "allowed.test.evil.test",
    ];
    let mut state = seed;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % n
    };
    (0..count)
        .map(|_| {
            let mut labels: Vec<&str> = (0..below(3)).map(|_| LABELS[below(LABELS.len())]).collect();
            labels.push(ENDS[below(ENDS.len())]);
            let glue = if below(8) == 0 { "" } else { "." };
            let name = labels.join(glue);
            let name = if below(6) == 0 { name.to_uppercase() } else { name };
            format!("{name}:{}", [443, 443, 80, 8443, 22][below(5)])
        })
        .collect()
}

#[test]
fn the_matcher_and_the_proxy_agree_on_random_names() {
    let (world, list) = restricted("", ALLOWLIST);
    let seed = std::env::var("PI_TEST_SEED").ok().map_or(1, |text| text.parse().unwrap());
    let count = std::env::var("PI_TEST_CASES").ok().map_or(400, |text| text.parse().unwrap());
    let targets = random_targets(seed, count);
    let words: Vec<&str> = [&*list, "check"].into_iter().chain(targets.iter().map(String::as_str)).collect();
    let said = world.pi(&words).run();
    let verdicts: Vec<bool> = said.out.lines().map(|line| line.starts_with("allowed ")).collect();
    assert_eq!(verdicts.len(), targets.len(), "{said:?}");
    assert!(verdicts.contains(&true) && verdicts.contains(&false));

    let session = Session::start(&world, &[&list]);
    let cases: Vec<Case> = targets
        .iter()
        .enumerate()
        .map(|(n, target)| Case {
            name: n.to_string(),
            control: "-".to_owned(),
            expected: String::new(),
            how: format!("head CONNECT {target} HTTP/1.1"),
        })
        .collect();
    let results = session.attempt(&cases);
    for (n, (target, allowed)) in targets.iter().zip(verdicts).enumerate() {
        // An allowed name that nobody has is looked up, in vain.
        let outcome = &results[&n.to_string()].outcome;
        assert_eq!(!outcome.starts_with("403"), allowed, "seed {seed}: {target}: {outcome}");
    }
    let outcome = session.end();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    world.assert_nothing_left();
}

// ---- what goes past the proxy ----

#[test]
fn an_agent_reaches_nothing_but_its_proxy() {
    let (world, list) = restricted("", ALLOWLIST);
    let (neighbour, neighbour_list) = restricted("", ALLOWLIST);
    let all = cases(AGENT_CASES);

    prepare(&neighbour);
    let listener = neighbour.pi(&[&neighbour_list, "shell", "--", "node", "internet.mjs", "agent"]);
    let listener = listener.start();
    until_true("the other agent", || listener.out().contains("ready "));
    let other = neighbour.session().file_name().unwrap().to_str().unwrap().to_owned();
    let other_network = format!("pi-{other}");
    let other_sidecar = addresses(&format!("pi-{other}-proxy"));
    let others = |session: &mut Session<'_>| {
        for (name, address) in [
            ("other_agent", addresses(&other_network)[&other_network]),
            ("other_sidecar", other_sidecar[&other_network]),
            ("other_outer", other_sidecar["bridge"]),
        ] {
            session.names.insert(name.to_owned(), address.to_string());
        }
    };

    let mut session = Session::start(&world, &[&list]);
    others(&mut session);
    let results = session.attempt(&all);
    let heard = listener.out();
    assert!(!heard.contains("hit "), "{heard}");
    let slow = &results["a look-up"];
    assert!(slow.milliseconds <= 2500, "a look-up took {} ms to fail", slow.milliseconds);
    ends_well(&world, session, "");

    // An ordinary internal network, on which old and new engines have an address, and IPv6 on the link.
    let (link_world, link_list) = restricted("", ALLOWLIST);
    let mut link = Session::changed(&link_world, &[&link_list], |script| {
        script.without_gate();
        script.replace("--opt=com.docker.network.bridge.inhibit_ipv4=true ", "");
        script.replace("--opt=com.docker.network.bridge.gateway_mode_ipv4=isolated ", "");
        script.replace("--opt=com.docker.network.bridge.gateway_mode_ipv6=isolated ", "");
        script.replace("--subnet 10.", "--ipv6 --subnet fd77:77::/64 --subnet 10.");
    });
    others(&mut link);
    let mut controls = BTreeMap::new();
    controls.insert("plain".to_owned(), link.attempt(&wanting(&all, "plain")));
    // An IPv6 address serves only after the kernel has asked the link whether somebody else has it.
    let mut six = link.attempt(&wanting(&all, "six"));
    for _ in 0..5 {
        if six.values().all(|seen| seen.outcome != "timeout") {
            break;
        }
        six = link.attempt(&wanting(&all, "six"));
    }
    controls.insert("six".to_owned(), six);
    link.end();

    // Docker's default bridge, with the capabilities that docker gives, and without our seccomp profile.
    let (outside, outside_list) = restricted("", ALLOWLIST);
    let mut loose = Session::changed(&outside, &[&outside_list], |script| {
        script.without_gate();
        let network = format!("--network pi-{}", script.id);
        script.container("agent", &network, "--network bridge");
        let create =
            script.text.lines().find(|line| line.contains("--label pi.role=agent")).unwrap().to_owned();
        let words: Vec<&str> = create.split(' ').collect();
        let ip = words[words.iter().position(|word| *word == "--ip").unwrap() + 1];
        script.container("agent", &format!("--ip {ip} "), "");
        script.container("agent", "--dns=0.0.0.0", &format!("--dns={RESOLVER}"));
        script.container("agent", "--sysctl 'net.ipv4.ping_group_range=1 0' ", "");
        script.container("agent", "--cap-drop=ALL ", "--cap-add=NET_ADMIN --cap-add=NET_RAW ");
        script.container("agent", "--user 1000:1000", "--user 0:0");
        let seccomp = words.iter().find(|word| word.starts_with("--security-opt=seccomp=")).unwrap();
        script.container("agent", seccomp, "--security-opt=seccomp=unconfined");
    });
    others(&mut loose);
    for name in ["bridge", "caps", "seccomp"] {
        controls.insert(name.to_owned(), loose.attempt(&wanting(&all, name)));
    }
    docker(&["network", "connect", &other_network, &format!("pi-{}", loose.id)]);
    let joined: Vec<Case> = wanting(&all, "joined")
        .into_iter()
        .map(|case| Case { how: case.how.replace(" device", ""), ..case })
        .collect();
    let mut joined = loose.attempt(&joined);
    for result in joined.values_mut() {
        let token = result.token.clone();
        result
            .arrivals
            .extend(listener.out().lines().filter(|line| line.contains(&token)).map(str::to_owned));
    }
    controls.insert("joined".to_owned(), joined);
    loose.end();

    listener.signal(Signal::TERM);
    assert_eq!(listener.wait().code, Some(143));
    Matrix::of(&all, &results, &controls).settle("past the proxy");
}

// ---- what the proxy lets through ----

/// Entries for all the names that are to be let through and to lead nowhere.
fn leading_nowhere(session: &Session<'_>, all: &[Case]) -> String {
    let mut entries = String::new();
    for case in all.iter().filter(|case| case.expected == "500" || case.expected.starts_with("200")) {
        let how = session.named(&case.how);
        let target = how.split(' ').nth(2).unwrap();
        let target = target
            .strip_prefix("http://")
            .map_or(target.to_owned(), |rest| format!("{}:80", rest.trim_end_matches('/')));
        if ["a-", "both-", "mapped-"].iter().any(|own| target.starts_with(own)) {
            entries.push_str(&target);
            entries.push('\n');
        }
    }
    entries
}

const LAN: &str = "lan = [\"10.77.77.8:8080\", \"a-192-168-177-8.test:8443\"]";

#[test]
fn the_proxy_passes_the_listed_and_nothing_else() {
    let mut all = cases(PROXY_CASES);
    let (world, list) = restricted(LAN, ALLOWLIST);
    let file = world.root().join("allowlist");
    // The names of the session's own addresses are only known when it runs: they are allowed then.
    let session = Session::start(&world, &[&list]);
    for case in &mut all {
        case.expected = session.named(&case.expected);
    }
    let entries = leading_nowhere(&session, &all);
    let flip = "flip-198-51-100-80-169-254-77-7.test";
    write(&file, &format!("{ALLOWLIST}{entries}{flip}\n"));
    let reread = world.run_pi(&["allow"]);
    reread.has_code(0);
    await_answer(&session, &format!("head CONNECT {flip}:443 HTTP/1.1"), |answer| answer != "403");

    let results = session.attempt(&all);
    // A name that changes its mind.
    for _ in 0..4 {
        let seen = session.one(&format!("head CONNECT {flip}:443 HTTP/1.1"));
        assert_eq!((seen.outcome.as_str(), seen.arrivals.len()), ("500", 0), "{seen:?}");
    }
    let outcome = session.end();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.err.bytes().all(|byte| byte == b'\n' || byte >= b' '), "{:?}", outcome.err);
    world.assert_nothing_left();

    let trusting = ("return $answer =~ /^HTTP\\/1\\.[01] 403/", "return 1");
    let ruled = ("set_rules('-4',", "no_rules('-4',");
    let ruled6 = ("set_rules('-6',", "no_rules('-6',");
    let unruled = ("sub set_rules {", "sub no_rules {}\nsub set_rules {");
    let unproven = ("and fail(\"$closed could be reached\")", "and 0");
    let open: (&str, &str) = ("FilterDefaultDeny Yes\n", "");
    let filter = ("Filter \\\"$filter\\\"", "");
    let mut controls = BTreeMap::new();
    for (name, changes, conf) in [
        ("open", vec![trusting, filter], Some(open)),
        ("routes", vec![trusting, filter, ruled, ruled6, unruled, unproven], Some(open)),
        ("naive", vec![], None),
    ] {
        let (world, list) = restricted(LAN, ALLOWLIST);
        let entry = weak_sidecar(&world, &changes);
        let session = Session::changed(&world, &[&list], |script| {
            script.without_gate();
            script.sidecar_runs(&entry);
            match conf {
                Some((from, to)) => script.replace(from, to),
                None => script.replace("^allowed\\.test:443$", "allowed.test"),
            }
        });
        await_answer(&session, "head CONNECT allowed.test:443 HTTP/1.1", |answer| answer.starts_with("200"));
        controls.insert(name.to_owned(), session.attempt(&wanting(&all, name)));
        session.end();
    }
    Matrix::of(&all, &results, &controls).settle("through the proxy");
}

/// Asks until the answer is as expected; at most a few seconds.
fn await_answer(session: &Session<'_>, how: &str, good: impl Fn(&str) -> bool) -> Duration {
    let begun = Instant::now();
    until(how, || {
        let seen = session.one(how);
        if good(&seen.outcome) { Ok(begun.elapsed()) } else { Err(seen) }
    })
}

const TUNNEL: &str = "head CONNECT allowed.test:443 HTTP/1.1";

#[test]
fn a_machine_behind_a_proxy_has_its_sessions_go_through_it() {
    let (world, list) = restricted(LAN, ALLOWLIST);
    let session = Session::start_with(&world, &[&list], |call| {
        call.env("HTTPS_PROXY", "http://someone:secret@10.77.77.90:3128")
    });
    let seen = session.one(TUNNEL);
    assert_eq!(seen.outcome, "200 198.51.100.80:443", "{seen:?}");
    let asked = internet().log();
    assert!(asked.contains("upstream allowed.test:443 someone:secret"), "{asked}");
    let refused = session.one("head CONNECT upstream-evil.test:443 HTTP/1.1");
    assert_eq!(refused.outcome, "403");
    assert!(!internet().log().contains("upstream-evil"));
    // What is in the local network is not asked of it.
    let near = session.one("head CONNECT 10.77.77.8:8080 HTTP/1.1");
    assert_eq!(near.outcome, "200 10.77.77.8:8080");
    assert!(!internet().log().contains("upstream 10.77.77.8"));
    // The proxy's own other ports are as closed as any.
    let beside = session.one("head CONNECT 10.77.77.90:443 HTTP/1.1");
    assert_eq!(beside.outcome, "403");
    let outcome = session.end();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(!outcome.err.contains("secret"), "{outcome:?}");
    world.assert_nothing_left();
}

#[test]
fn a_proxy_whose_name_nobody_knows_does_not_stop_a_session() {
    let (world, list) = restricted("", ALLOWLIST);
    let session =
        Session::start_with(&world, &[&list], |call| call.env("HTTPS_PROXY", "http://nx-proxy.test:3128"));
    let seen = session.one(TUNNEL);
    assert!(!seen.outcome.starts_with("200") && seen.arrivals.is_empty(), "{seen:?}");
    assert_eq!(session.end().code, Some(0));
    world.assert_nothing_left();
}

// ---- the list ----

#[test]
fn a_bad_list_starts_nothing_and_names_every_bad_line() {
    let (world, list) = restricted("", "");
    let file = world.root().join("allowlist");
    let long = "a".repeat(600);
    let bad = [
        "good.example\nfor two.example",
        "a.example\\n.*",
        "a.example#x",
        &long,
        "[",
        "*",
        "..",
        "*.com",
        "*.co.uk",
        "a.*.example",
        "https://a.example",
        "a.example/path",
        "a.example:0",
        "a.example:65536",
        "a.example:0443",
        "a.example:x",
        "198.51.100.80",
        "0xc6336450",
        "3325256784",
        "[::1]:443",
        "user@a.example",
        "-a.example",
        "a.example\x1b[31m",
        "a b",
        "^.*$",
        "a.example|evil.example",
    ];
    for line in bad {
        write(&file, &format!("# first\nallowed.test\n{line}\n"));
        let outcome = world.run_pi(&[&list, "shell", "--", "touch", "ran"]);
        assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{line}: {outcome:?}");
        let place = format!("{}:{}:", file.display(), 3 + line.matches('\n').count());
        assert!(outcome.err.contains(&place), "{line}: {outcome:?}");
        assert!(!outcome.err.contains(|c: char| c.is_control() && c != '\n'), "{outcome:?}");
    }
    assert!(!world.repo().join("ran").exists());
    fs::remove_file(&file).unwrap();
    let missing = world.run_pi(&[&list, "shell", "--", "touch", "ran"]);
    assert_eq!(missing.code, Some(125));
    assert!(missing.err.starts_with("pi: error: there is no allowlist"), "{missing:?}");
    world.assert_nothing_left();
}

#[test]
fn an_empty_list_refuses_everything_and_says_so_before() {
    let (world, list) = restricted("", "# nothing yet\n");
    let session = Session::start(&world, &[&list]);
    assert_eq!(session.one(TUNNEL).outcome, "403");
    let outcome = session.end();
    outcome.is(
        0,
        "",
        "pi: warning: the allowlist is empty: everything will be refused\n\
         pi: refused: allowed.test:443 (1×); allow with `pi allow --save allowed.test`\n",
    );
    world.assert_nothing_left();
}

#[test]
fn a_list_of_two_thousand_lines_works_and_a_longer_one_is_remarked_on() {
    let lines = |n: usize| (0..n).fold(String::new(), |all, n| all + &format!("host-{n}.example.com\n"));
    let (world, list) = restricted("", &format!("{}allowed.test\n", lines(1999)));
    let session = Session::start(&world, &[&list]);
    assert_eq!(session.one(TUNNEL).outcome, "200 198.51.100.80:443");
    assert_eq!(session.one("head CONNECT evil.test:443 HTTP/1.1").outcome, "403");
    let outcome = session.end();
    assert_eq!(outcome.code, Some(0));
    assert!(!outcome.err.contains("warning"), "{outcome:?}");
    write(world.root().join("allowlist"), &lines(2001));
    let outcome = world.run_pi(&[&list, "shell", "--", "true"]);
    assert_eq!(outcome.code, Some(0));
    assert_eq!(outcome.err.matches("pi: warning: the allowlist has 2001 entries").count(), 1, "{outcome:?}");
    world.assert_nothing_left();
}

#[test]
fn a_running_session_is_allowed_more_and_its_tunnels_stay() {
    let (world, list) = restricted("", "allowed.test\n");
    let file = world.root().join("allowlist");
    let session = Session::start(&world, &[&list]);
    let more = "head CONNECT evil.test:443 HTTP/1.1";
    assert_eq!(session.one(more).outcome, "403");

    // A tunnel that says a line now and then, in the background of the agent.
    write(world.repo().join("tunnel.pl"), TUNNEL_PROGRAM);
    session.one("shell setsid perl tunnel.pl >tunnel.out 2>&1 &");
    let lines = || fs::read_to_string(world.repo().join("tunnel.out")).unwrap_or_default().lines().count();
    until_true("the tunnel", || lines() > 0);

    let told = world.run_pi(&["allow", "evil.test"]);
    told.has_code(0);
    let took = await_answer(&session, more, |answer| answer == "200 198.51.100.66:443");
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    let before = lines();
    until_true("more of the tunnel", || lines() > before + 2);

    // Several at once lose none of them.
    let names: Vec<String> = (0..6).map(|n| format!("n{n}.evil.test")).collect();
    let all: Vec<_> = names.iter().map(|name| world.pi(&["allow", name]).start()).collect();
    for one in all {
        one.wait().has_code(0);
    }
    for name in &names {
        let seen = session.one(&format!("head CONNECT {name}:443 HTTP/1.1"));
        assert_eq!(seen.outcome, "200 198.51.100.66:443", "{name}");
    }

    // A bad entry changes nothing, the good one beside it included.
    let bad = world.run_pi(&["allow", "other.test", "*"]);
    assert_eq!(bad.code, Some(2), "{bad:?}");
    assert_eq!(session.one("head CONNECT other.test:443 HTTP/1.1").outcome, "403");
    assert_eq!(session.one(more).outcome, "200 198.51.100.66:443");

    // The edited file is read again; what was allowed by word stays.
    write(&file, "third.test\n");
    world.run_pi(&["allow"]).has_code(0);
    await_answer(&session, "head CONNECT third.test:443 HTTP/1.1", |answer| answer.starts_with("200"));
    assert_eq!(session.one(TUNNEL).outcome, "403");
    assert_eq!(session.one(more).outcome, "200 198.51.100.66:443");
    write(&file, "fourth.test\nnot a line\n");
    let bad = world.run_pi(&["allow"]);
    assert_eq!(bad.code, Some(125), "{bad:?}");
    assert_eq!(session.one("head CONNECT fourth.test:443 HTTP/1.1").outcome, "403");
    assert_eq!(session.one("head CONNECT third.test:443 HTTP/1.1").outcome, "200 198.51.100.66:443");

    // Saved as well, in the file of the user's settings.
    write(&file, "third.test");
    let saved =
        world.run_pi(&["--allowed-domains", &file.display().to_string(), "allow", "--save", "fifth.test"]);
    saved.has_code(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "third.test\nfifth.test\n");
    await_answer(&session, "head CONNECT fifth.test:443 HTTP/1.1", |answer| answer.starts_with("200"));

    // An address of the local network needs routes, which are laid at the start.
    let lan = world.run_pi(&["allow", "10.77.77.8:8080"]);
    assert_eq!(lan.code, Some(125), "{lan:?}");
    let outcome = session.end();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    world.assert_nothing_left();
    let late = world.run_pi(&["allow", "evil.test"]);
    assert!(late.code == Some(125) && late.err.contains("no session with a restricted network"), "{late:?}");
}

const TUNNEL_PROGRAM: &str = r#"
use IO::Socket::INET;
$| = 1;
my ($proxy) = $ENV{HTTPS_PROXY} =~ m{//(.*)};
my $tunnel = IO::Socket::INET->new($proxy) or die;
syswrite $tunnel, "CONNECT allowed.test:443 HTTP/1.1\r\n\r\n";
sysread $tunnel, my $head, 4096;
for my $n (1 .. 3000) {
    syswrite $tunnel, "line $n\n" or exit;
    sysread $tunnel, my $line, 4096 or exit;
    print $line;
    select undef, undef, undef, 0.02;
}
"#;

#[test]
fn what_was_refused_is_told_and_nothing_else_reaches_the_terminal() {
    let (world, list) = restricted("", "allowed.test\n");
    let session = Session::start(&world, &[&list]);
    for how in [
        "head CONNECT evil.test:443 HTTP/1.1",
        "head CONNECT EVIL.test:443 HTTP/1.1",
        "head GET http://other.test/secret?token=hidden HTTP/1.1",
        "head CONNECT \\e]0;owned\\x07.test:443 HTTP/1.1",
        "head CONNECT a\\x9b31m.test:443 HTTP/1.1",
        "head CONNECT evil\".test:443 HTTP/1.1",
        "head CONNECT evil.test\" NOTICE [1]: Proxying:443 HTTP/1.1",
        "head CONNECT \\xe2\\x80\\xaemoc.evil.test:443 HTTP/1.1",
        "head CONNECT {x*3000}.test:443 HTTP/1.1",
        "head CONNECT allowed.test:22 HTTP/1.1",
        "head CONNECT pi.dev:443 HTTP/1.1",
        TUNNEL,
    ] {
        session.one(how);
    }
    let safe = |text: &str| {
        assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text:?}");
    };
    let rows = |args: &[&str]| -> BTreeMap<String, u64> {
        let said = world.pi(args).run();
        said.has_code(0);
        safe(&said.out);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&said.out).unwrap();
        rows.iter()
            .map(|row| (row["destination"].as_str().unwrap().to_owned(), row["times"].as_u64().unwrap()))
            .collect()
    };
    let expected: BTreeMap<String, u64> = [
        ("<non-printable>", 5),
        ("allowed.test:22", 1),
        ("evil.test:443", 2),
        ("other.test:80", 1),
        ("pi.dev:443", 1),
    ]
    .map(|(name, times)| (name.to_owned(), times))
    .into();
    until("the refusals", || {
        let seen = rows(&["blocked", "--json"]);
        if seen == expected { Ok(()) } else { Err(seen) }
    });
    let table = world.run_pi(&["blocked"]);
    safe(&table.out);
    assert!(table.out.contains("evil.test:443") && !table.out.contains("hidden"), "{table:?}");
    let outcome = session.end();
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(0), ""), "{outcome:?}");
    safe(&outcome.err.replace('×', "x").replace('…', "..."));
    assert_eq!(outcome.err.lines().count(), 1, "{outcome:?}");
    assert!(outcome.err.starts_with("pi: refused: "), "{outcome:?}");
    assert!(!outcome.err.contains("pi.dev") && !outcome.err.contains("hidden"), "{outcome:?}");
    assert!(outcome.err.contains("evil.test:443 (2×)") && outcome.err.contains("pi allow"), "{outcome:?}");
    // After the session too.
    assert_eq!(rows(&["blocked", "--json"]), expected);
    world.assert_nothing_left();
}

#[test]
fn a_list_can_be_asked_what_it_admits() {
    let (world, list) = restricted("", ALLOWLIST);
    let good = world.run_pi(&[
        &list,
        "check",
        "https://allowed.test/x",
        "a.wild.allowed.test",
        "plain.allowed.test:80",
    ]);
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.out.contains("allowlist:1)") && good.out.contains("allowlist:3)"), "{good:?}");
    let bad = world.run_pi(&[&list, "check", "allowed.test", "evil.test", "http://allowed.test/"]);
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert_eq!(bad.out.matches("refused ").count(), 2, "{bad:?}");
}

// ---- faults ----

#[test]
fn when_the_sidecar_dies_there_is_no_way_out_and_it_is_said() {
    let (world, list) = restricted("", ALLOWLIST);
    let session = Session::start(&world, &[&list]);
    assert_eq!(session.one(TUNNEL).outcome, "200 198.51.100.80:443");
    docker(&["kill", &session.sidecar()]);
    until_true("the launcher's word", || {
        session
            .running()
            .err()
            .contains("pi: warning: the proxy has ended: nothing can leave this session any more")
    });
    let direct = session.one("tcp 198.51.100.80 443");
    let through = session.one(TUNNEL);
    assert!(direct.arrivals.is_empty() && through.arrivals.is_empty(), "{direct:?} {through:?}");
    assert!(!through.outcome.starts_with("200"), "{through:?}");
    // The engine has a status of the sidecar's too.
    let outcome = session.end_with("4");
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert_eq!(outcome.err.lines().count(), 1, "{outcome:?}");
    world.assert_nothing_left();
}

#[test]
fn when_the_launcher_is_killed_the_way_out_is_gone_within_a_second() {
    let (world, list) = restricted("", ALLOWLIST);
    let session = Session::start(&world, &[&list]);
    assert_eq!(session.one(TUNNEL).outcome, "200 198.51.100.80:443");
    // Its network namespace ends with its processes; what the engine notes down of that may take it longer.
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &session.sidecar()]);
    let process = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
    assert!(process.exists(), "{}", process.display());
    session.running().signal(Signal::KILL);
    let begun = Instant::now();
    until_true("the sidecar's end", || !process.exists());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    let mut session = session;
    assert_eq!(session.running.take().unwrap().wait().signal, Some(9));
    let label = format!("label=pi.session={}", session.id);
    until("the end of everything else", || {
        let containers = docker(&["ps", "--all", "--filter", &label]).lines().count() - 1;
        match (containers, world.sessions(), world.watchers()) {
            (0, sessions, watchers) if sessions.is_empty() && watchers.is_empty() => Ok(()),
            seen => Err(seen),
        }
    });
    world.assert_nothing_left();
}

// ---- the gate ----

/// `docker`, with something done to what it is told.
fn tampering(world: &World, body: &str) -> PathBuf {
    let path = world.root().join("tampering-docker");
    // Words are kept apart by the shell's own arrays.
    let text = format!(
        "#!/bin/bash\nset -u\nrole=\ncase \" $* \" in *' pi.role=agent '*) role=agent ;; *' pi.role=proxy '*) role=proxy ;; esac\n\
         without() {{ local word kept=(); for word in \"${{words[@]}}\"; do [[ $word == $1 ]] || kept+=(\"$word\"); done; words=(\"${{kept[@]}}\"); }}\n\
         words=(\"$@\")\n{body}\nexec docker \"${{words[@]}}\"\n"
    );
    write_program(&path, &text);
    path
}

/// What is done to docker's words, and what the refusal must speak of.
const TAMPERED: [(&str, &str, &str); 18] = [
    (
        "a sidecar that does nothing",
        "[ \"$role\" = proxy ] && words=(create --entrypoint sleep \"${words[@]:1}\" 1000)",
        "its proxy did not come up",
    ),
    (
        "a network on which the machine has an address",
        "[ \"$1 ${2-}\" = 'network create' ] && { without '--opt=*'; }",
        "its network has a router|could be reached",
    ),
    (
        "a network with a way out",
        "[ \"$1 ${2-}\" = 'network create' ] && { without '--opt=*'; without --internal; }",
        "its network has a router|could be reached",
    ),
    (
        "a second network",
        "[ \"$1\" = start ] && [[ $* != *-proxy ]] && docker network connect bridge \"${@: -1}\"",
        "it is on 2 networks instead of one",
    ),
    (
        "IPv6 on the link",
        "[ \"$1 ${2-}\" = 'network create' ] && words=(network create --ipv6 --subnet fd77:78::/64 \"${words[@]:2}\")",
        "its network has IPv6",
    ),
    ("a capability", "[ \"$role\" = agent ] && without --cap-drop=ALL", "a capability is left"),
    (
        "new privileges",
        "[ \"$role\" = agent ] && without --security-opt=no-new-privileges",
        "a program could gain privileges",
    ),
    (
        "no seccomp",
        "[ \"$role\" = agent ] && { without '--security-opt=seccomp=*'; words=(create --security-opt=seccomp=unconfined \"${words[@]:1}\"); }",
        "system calls are not filtered",
    ),
    ("no init", "[ \"$role\" = agent ] && without --init", "`--init` is missing"),
    (
        "no filter",
        "[ \"$1\" = start ] && [[ $* == *-proxy ]] && rm -f \"$HOME\"/.local/state/pi/*/sessions/*/proxy/filter",
        "the proxy could not be started",
    ),
    (
        "a broken filter",
        "[ \"$1\" = start ] && [[ $* == *-proxy ]] && echo '[' >>\"$(echo \"$HOME\"/.local/state/pi/*/sessions/*/proxy/filter)\"",
        "the proxy could not be started",
    ),
    (
        "no denial by default",
        "[ \"$1\" = start ] && [[ $* == *-proxy ]] && sed -i /FilterDefaultDeny/d \"$HOME\"/.local/state/pi/*/sessions/*/proxy/tinyproxy.conf",
        "the proxy could not be started",
    ),
    (
        "a broken configuration",
        "[ \"$1\" = start ] && [[ $* == *-proxy ]] && echo Nonsense >>\"$(echo \"$HOME\"/.local/state/pi/*/sessions/*/proxy/tinyproxy.conf)\"",
        "the proxy could not be started",
    ),
    (
        "a filter that admits everything",
        "[ \"$1\" = start ] && [[ $* == *-proxy ]] && echo . >\"$(echo \"$HOME\"/.local/state/pi/*/sessions/*/proxy/filter)\"",
        "the proxy could not be started",
    ),
    (
        "a sidecar that cannot lay routes",
        "[ \"$role\" = proxy ] && without --cap-add=NET_ADMIN",
        "the proxy could not be started",
    ),
    (
        "a sidecar that is nowhere",
        "[ \"$1 ${2-}\" = 'network connect' ] && exit 0",
        "the proxy could not be started",
    ),
    (
        "a sidecar that does not start",
        "[ \"$1\" = start ] && [[ $* == *-proxy ]] && { echo 'no such luck' >&2; exit 1; }",
        "the proxy could not be started",
    ),
    (
        "a sidecar that is not created",
        "[ \"$role\" = proxy ] && { echo 'no space left on device' >&2; exit 1; }",
        "the proxy's container",
    ),
];

#[test]
fn a_sandbox_that_is_not_as_it_should_be_starts_no_agent() {
    // They mostly wait, so a few at a time.
    let wrong: Vec<String> = thread::scope(|scope| {
        let some: Vec<_> = TAMPERED
            .chunks(TAMPERED.len().div_ceil(4))
            .map(|some| scope.spawn(|| some.iter().filter_map(started_all_the_same).collect::<Vec<_>>()))
            .collect();
        some.into_iter().flat_map(|some| some.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
    // And untampered, by the same way, it does.
    let (world, list) = restricted("", ALLOWLIST);
    let program = tampering(&world, "");
    configure(&world, &format!("docker = \"{}\"", program.display()));
    world.run_pi(&[&list, "shell", "--", "touch", "ran"]).is(0, "", "");
    assert!(world.repo().join("ran").exists());
}

/// What is wrong with how this was refused, if anything.
fn started_all_the_same(&(name, body, reason): &(&str, &str, &str)) -> Option<String> {
    let (world, list) = restricted("", ALLOWLIST);
    let program = tampering(&world, body);
    configure(&world, &format!("docker = \"{}\"", program.display()));
    let begun = Instant::now();
    let Outcome { code, out, err, .. } = world.run_pi(&[&list, "shell", "--", "touch", "ran"]);
    let took = begun.elapsed();
    let errors = err.lines().filter(|line| line.starts_with("pi: error: ")).count();
    let reasoned = reason.split('|').any(|reason| err.contains(reason));
    let ran = world.repo().join("ran").exists();
    configure(&world, "");
    world.assert_nothing_left();
    let good = code == Some(125) && out.is_empty() && errors == 1 && reasoned && !ran;
    (!good).then(|| format!("{name}: {code:?} after {took:?}, ran: {ran}: {out}{err}"))
}

#[test]
fn a_sidecar_without_an_image_starts_nothing() {
    let (world, list) = restricted("", ALLOWLIST);
    let settings = fs::read_to_string(world.config_file()).unwrap();
    let own = settings.lines().find(|line| line.starts_with("proxy = ")).unwrap_or("[images]").to_owned();
    // Nobody listens there.
    let nowhere = "proxy = \"localhost:1/nowhere:1\"";
    let nowhere = if own == "[images]" { format!("{own}\n{nowhere}") } else { nowhere.to_owned() };
    write(world.config_file(), &settings.replace(&own, &nowhere));
    let outcome = world.run_pi(&[&list, "shell", "--", "touch", "ran"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{outcome:?}");
    assert!(outcome.err.contains("could not build the image `pi-proxy:"), "{outcome:?}");
    assert!(!world.repo().join("ran").exists());
    configure(&world, "");
    world.assert_nothing_left();
}

#[test]
fn an_open_proxy_is_not_taken_for_a_sidecar() {
    let (world, list) = restricted("", ALLOWLIST);
    prepare(&world);
    let entry = weak_sidecar(
        &world,
        &[("return $answer =~ /^HTTP\\/1\\.[01] 403/", "return 1"), ("Filter \\\"$filter\\\"", "")],
    );
    let mut script = Script::of(&world, &[&list], &["shell", "--", "touch", "ran"]);
    script.sidecar_runs(&entry);
    script.replace("FilterDefaultDeny Yes\n", "");
    let outcome = script.start(&world).wait();
    let error = "pi: error: the sandbox is not safe, so nothing was started: its proxy did not refuse a made-up name\n";
    outcome.is(125, "", error);
    assert!(!world.repo().join("ran").exists());
    world.assert_nothing_left();
}

// ---- what works ----

/// A program, and what it must print.
const TOOLS: [(&str, &str); 8] = [
    ("curl", "shell curl -sS --cacert ca.pem https://allowed.test/"),
    ("curl, refused", "shell curl -sS --cacert ca.pem https://evil.test/ || test $? = 56"),
    ("git", "shell git -c http.sslCAInfo=ca.pem ls-remote https://allowed.test/repo.git"),
    ("npm", "shell npm --cafile=$PWD/ca.pem --registry=https://allowed.test/ view package version"),
    (
        "node's fetch",
        "shell NODE_USE_ENV_PROXY=1 NODE_EXTRA_CA_CERTS=$PWD/ca.pem node -e 'fetch(\"https://allowed.test/\").then(r => r.text()).then(t => process.stdout.write(t))'",
    ),
    (
        "openssl",
        "shell openssl s_client -proxy {sidecar}:8888 -connect allowed.test:443 -CAfile ca.pem -verify_return_error -brief </dev/null 2>&1 | grep 'CONNECTION ESTABLISHED'",
    ),
    (
        "the loopback",
        "shell perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalAddr => q(127.0.0.1), LocalPort => 5555) or die; if (!fork) { $c = $s->accept; sysread $c, $_, 999; syswrite $c, qq(HTTP/1.0 200 ok\\r\\n\\r\\nnear); exit } exec qw(curl -sS http://127.0.0.1:5555/)'",
    ),
    ("git, refused", "shell ! git -c http.sslCAInfo=ca.pem ls-remote https://evil.test/repo.git"),
];

#[test]
fn the_usual_programs_find_their_way_without_further_settings() {
    let (world, list) = restricted("", ALLOWLIST);
    let session = Session::start(&world, &[&list]);
    let all: Vec<Case> = TOOLS
        .iter()
        .map(|(name, how)| Case {
            name: (*name).to_owned(),
            control: "-".to_owned(),
            expected: "ok".to_owned(),
            how: (*how).to_owned(),
        })
        .collect();
    let results = session.attempt(&all);
    let outcomes: BTreeMap<&str, &str> =
        results.iter().map(|(name, Seen { outcome, .. })| (name.as_str(), outcome.as_str())).collect();
    let ones = "1".repeat(40);
    let expected: BTreeMap<&str, String> = [
        ("curl", "ok reached tls 198.51.100.80:443".to_owned()),
        ("curl, refused", "ok curl: (56) CONNECT tunnel failed, response 403".to_owned()),
        ("git", format!("ok {ones} refs/heads/main")),
        ("npm", "ok 1.2.3".to_owned()),
        ("node's fetch", "ok reached tls 198.51.100.80:443".to_owned()),
        ("openssl", "ok CONNECTION ESTABLISHED".to_owned()),
        ("the loopback", "ok near".to_owned()),
        ("git, refused", outcomes["git, refused"].to_owned()),
    ]
    .into();
    let seen: BTreeMap<&str, String> =
        outcomes.iter().map(|(name, said)| (*name, (*said).to_owned())).collect();
    assert_eq!(seen, expected);
    assert!(outcomes["git, refused"].contains("unable to access"), "{outcomes:?}");
    assert_eq!(session.stop().code, Some(143));
    world.assert_nothing_left();
}

/// A language's settings, what its package manager does with a package, and what that prints in the end. The registry
/// is named and its certificate trusted; nothing is said of a proxy.
const LANGUAGES: [(&str, &[&str], &str, &str); 3] = [
    (
        "",
        &["--lang=go"],
        "export GOPROXY=SITE/go GOSUMDB=off
        rm -f go.mod; go mod init here; go get example.test/words@v1.2.3
        cat $(go list -m -f '{{.Dir}}' example.test/words)/words.go | tail -n 1",
        "const Text = \"words of go\"",
    ),
    (
        "",
        &["--lang=php8.4"],
        "rm -f composer.json; composer init --quiet --name=here/here
        composer config repositories.packagist false
        composer config repositories.words composer SITE/composer
        composer require example/words:1.2.3
        php -r 'require \"vendor/autoload.php\"; echo words();'",
        "words of php",
    ),
    (
        "packages = [\"python3-pip\"]",
        &[],
        "pip install --target=. --index-url=SITE/python words
        python3 -c 'import words; print(words.text)'",
        "words of python",
    ),
];

#[test]
fn package_managers_fetch_what_is_listed_without_further_settings() {
    for (settings, options, script, expected) in LANGUAGES {
        let (world, list) = restricted(settings, ALLOWLIST);
        prepare(&world);
        let run = |from: &str| {
            let script = script.replace("SITE", from);
            let script = format!(
                "export SSL_CERT_FILE=$PWD/ca.pem REQUESTS_CA_BUNDLE=$PWD/ca.pem PIP_RETRIES=0; {script}"
            );
            world.pi(&[&[&*list], options, &["shell", "--", "sh", "-ec", &script]].concat()).run()
        };
        // What is not listed is refused to them, and told to the user.
        let bad = run("https://evil.test");
        assert_ne!(bad.code, Some(0), "{bad:?}");
        assert!(bad.err.contains("pi: refused: evil.test:443 ("), "{bad:?}");
        let good = run("https://allowed.test");
        assert_eq!(good.code, Some(0), "{good:?}");
        assert_eq!(good.out.lines().last(), Some(expected), "{good:?}");
        world.assert_nothing_left();
    }
}

#[test]
fn the_real_agent_reaches_a_model_in_the_local_network_and_is_refused_elsewhere() {
    let (world, list) = restricted("lan = [\"10.77.77.7:11434\"]", ALLOWLIST);
    let models =
        include_str!("../../assets/demo/models.json").replace("{{BASE_URL}}", "http://10.77.77.7:11434/v1");
    write(world.agent_dir().join("models.json"), &models);
    let ask = |prompt: &str| world.run_pi(&[&list, "--model", "demo/bash", "-p", prompt]);
    let good = ask("run: curl -sS -o /dev/null -w '%{http_connect}' -k https://allowed.test/");
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.out.contains("200"), "{good:?}");
    let bad = ask("run: curl -sS -o /dev/null -w '%{http_connect}' -k https://evil.test/");
    assert_eq!(bad.code, Some(0), "{bad:?}");
    assert!(bad.out.contains("403"), "{bad:?}");
    assert!(
        bad.err.contains("pi: refused: evil.test:443 (1×); allow with `pi allow --save evil.test`"),
        "{bad:?}"
    );
    world.assert_nothing_left();
    // Where the model is not listed, there is none.
    configure(&world, "");
    let none = ask("run: true");
    assert_ne!(none.code, Some(0), "{none:?}");
    world.assert_nothing_left();
}

#[test]
fn a_machine_that_does_not_check_where_datagrams_come_from_is_told_of_once() {
    let (world, list) = restricted("", ALLOWLIST);
    let run = |more: &[&str]| {
        let outcome = world.pi(&[&[&*list], more, &["shell", "--", "true"]].concat()).run();
        outcome.has_code(0);
        outcome
    };
    assert_eq!(run(&["--dry-run"]).about_kernel, None);
    assert_eq!(run(&[]).about_kernel.is_none(), internet().checks_sources);
    assert_eq!(run(&[]).about_kernel, None);
    assert_eq!(run(&["--verbose"]).err.contains("rp_filter is 0"), !internet().checks_sources);
    // The other networks have no such promise.
    let open = World::real();
    configure(&open, "");
    let outcome = open.run_pi(&["shell", "--", "true"]);
    assert_eq!((outcome.code, outcome.about_kernel), (Some(0), None));
    open.assert_nothing_left();
    world.assert_nothing_left();
}

#[test]
fn names_of_the_tests_lead_where_they_say() {
    assert_eq!(at("10.0.0.1"), "a-10-0-0-1");
}
