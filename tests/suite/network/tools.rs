//! What works all the same.

use std::collections::BTreeMap;

use super::{
    ALLOWLIST,
    attempts::{Case, Seen, Session, at, prepare},
    configure, restricted,
};
use crate::world::{World, files::write, internet::internet};

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
    let all: Vec<Case> = TOOLS.iter().map(|(name, how)| Case::bare(name, how)).collect();
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
    let models = include_str!("../../../assets/demo/models.json")
        .replace("{{BASE_URL}}", "http://10.77.77.7:11434/v1");
    write(world.agent_dir().join("models.json"), &models);
    let ask = |prompt: &str| world.run_pi(&[&list, "--model", "demo/bash", "-p", prompt]);
    let good = ask("run: curl -sS -o /dev/null -w '%{http_connect}' -k https://allowed.test/");
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.out.contains("200"), "{good:?}");
    let bad = ask("run: curl -sS -o /dev/null -w '%{http_connect}' -k https://evil.test/");
    assert_eq!(bad.code, Some(0), "{bad:?}");
    assert!(bad.out.contains("403"), "{bad:?}");
    let said = format!(
        "pi: refused: evil.test:443 (1×); allow with `pi {} allow --save evil.test`",
        list.replace('=', " ")
    );
    assert!(bad.err.contains(&said), "{bad:?}");
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
