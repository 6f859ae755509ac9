//! The list: before a session, in a running one, and what it has refused.

use std::{collections::BTreeMap, fs, time::Duration};

use super::{ALLOWLIST, TUNNEL, attempts::Session, await_answer, restricted};
use crate::world::{
    files::write,
    wait::{until, until_true},
};

#[test]
fn a_bad_list_starts_nothing_and_names_every_bad_line() {
    let (world, list) = restricted("", "");
    let file = world.root().join("allowlist");
    let long = "a".repeat(600);
    let bad = [
        "good.example\nfor two.example", "a.example\\n.*", "a.example#x", &long, "[", "*", "..", "*.com",
        "*.co.uk", "a.*.example", "https://a.example", "a.example/path", "a.example:0", "a.example:65536",
        "a.example:0443", "a.example:x", "198.51.100.80", "0xc6336450", "3325256784", "[::1]:443",
        "user@a.example", "-a.example", "a.example\x1b[31m", "a b", "^.*$", "a.example|evil.example",
    ];
    for line in bad {
        write(&file, format!("# first\nallowed.test\n{line}\n"));
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
    let said = format!(
        "pi: warning: the allowlist is empty: everything will be refused\n\
         pi: refused: allowed.test:443 (1×); allow with `pi {} allow --save allowed.test`\n",
        list.replace('=', " ")
    );
    outcome.is(0, "", &said);
    world.assert_nothing_left();
}

#[test]
fn a_list_of_twenty_thousand_lines_works_is_remarked_on_and_can_be_changed() {
    let lines = (0..20_000).fold(String::new(), |all, n| all + &format!("host-{n}.example{}.com\n", n % 97));
    let (world, list) = restricted("", &format!("{lines}allowed.test\n"));
    let session = Session::start(&world, &[&list]);
    assert_eq!(session.one(TUNNEL).outcome, "200 198.51.100.80:443");
    assert_eq!(session.one("head CONNECT evil.test:443 HTTP/1.1").outcome, "403");
    // Old and new rules at once, while a tunnel keeps the old ones.
    write(world.repo().join("tunnel.pl"), TUNNEL_PROGRAM);
    session.one("shell setsid perl tunnel.pl >tunnel.out 2>&1 &");
    for name in ["evil.test", "nx.allowed.test"] {
        world.run_pi(&["allow", name]).has_code(0);
    }
    assert_eq!(session.one("head CONNECT evil.test:443 HTTP/1.1").outcome, "200 198.51.100.66:443");
    write(world.repo().join("stop"), "");
    let outcome = session.end();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.err.matches("pi: warning: the allowlist has 20001 entries").count(), 1, "{outcome:?}");
    assert!(!outcome.err.contains("restarted"), "{outcome:?}");
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

/// Sends lines through a tunnel and prints what comes back, until there is a file `stop`.
pub(super) const TUNNEL_PROGRAM: &str = r#"
use IO::Socket::INET;
$| = 1;
my ($proxy) = $ENV{HTTPS_PROXY} =~ m{//(.*)};
my $tunnel = IO::Socket::INET->new($proxy) or die;
syswrite $tunnel, "CONNECT allowed.test:443 HTTP/1.1\r\n\r\n";
sysread $tunnel, my $head, 4096;
for my $n (1 .. 3000) {
    exit if -e 'stop';
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
    assert!(
        outcome.err.contains("evil.test:443 (2×)") && outcome.err.contains(" allow --save evil.test "),
        "{outcome:?}"
    );
    // After the session too.
    assert_eq!(rows(&["blocked", "--json"]), expected);
    let saved = world.run_pi(&[&list, "blocked", "--save"]);
    assert_eq!(
        (saved.code, saved.out.as_str()),
        (Some(0), "+ allowed.test:22\n+ evil.test\n+ other.test:80\n")
    );
    let again = world.run_pi(&[&list, "blocked", "--save"]);
    assert_eq!((again.code, again.out.as_str()), (Some(0), ""), "{again:?}");
    world.run_pi(&[&list, "check", "evil.test"]).has_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_list_can_be_asked_what_it_admits() {
    let (world, list) = restricted("", ALLOWLIST);
    let good = world
        .run_pi(&[&list, "check", "https://allowed.test/x", "a.wild.allowed.test", "plain.allowed.test:80"]);
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.out.contains("allowlist:1)") && good.out.contains("allowlist:3)"), "{good:?}");
    let bad = world.run_pi(&[&list, "check", "allowed.test", "evil.test", "http://allowed.test/"]);
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert_eq!(bad.out.matches("refused ").count(), 2, "{bad:?}");
}

#[test]
fn a_session_that_learns_reaches_public_names_only_and_proposes_what_it_reached() {
    let (world, list) = restricted("", "allowed.test\n");
    let file = list.split_once('=').unwrap().1.to_owned();
    let script = "for to in evil.test:443 a.evil.test:443 evil.test:22 10.9.8.7:443 x.invalid:443; do \
                  curl -sS -o /dev/null --max-time 5 -p \"http://$to/\" 2>&1 | grep -o 'response [0-9]*' || echo passed; done";
    let learned = world.run_pi(&[&list, "--learn", "--save", "shell", "--", "bash", "-c", script]);
    learned.has_code(0);
    let answers: Vec<&str> = learned.out.lines().collect();
    assert_eq!(answers[2..], ["response 403"; 3], "{learned:?}");
    assert!(answers[..2].iter().all(|answer| *answer != "response 403"), "{learned:?}");
    assert!(learned.err.contains("pi: learning: "), "{learned:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, "allowed.test\na.evil.test\nevil.test\n", "{learned:?}");
    // Without a terminal and without `--save` nothing is written.
    let again = world.run_pi(&[
        &list,
        "--learn",
        "shell",
        "--",
        "bash",
        "-c",
        "curl -sS -p http://b.evil.test:443/; true",
    ]);
    assert!(again.err.contains("nothing was written"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    world.assert_nothing_left();
}
