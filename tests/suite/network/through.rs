//! What the proxy lets through.

use std::collections::BTreeMap;

use super::{
    ALLOWLIST, TUNNEL,
    attempts::{Case, Session, cases, wanting},
    await_answer,
    matrix::Matrix,
    restricted,
    script::weak_sidecar,
};
use crate::world::{files::write, internet::internet};

/// Names near to the listed ones and far from them, the same ones for the same seed.
fn random_targets(seed: u64, count: usize) -> Vec<String> {
    const LABELS: [&str; 8] = ["allowed", "wild", "evil", "a", "b-c", "xn--80ak6aa92e", "odd", "plain"];
    const ENDS: [&str; 6] = [
        "allowed.test", "wild.allowed.test", "odd.allowed.test", "plain.allowed.test", "evil.test",
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
    let how = |target: &String| format!("head CONNECT {target} HTTP/1.1");
    let numbered = targets.iter().enumerate();
    let cases: Vec<Case> = numbered.map(|(n, target)| Case::bare(&n.to_string(), &how(target))).collect();
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

const PROXY_CASES: &str = include_str!("../../network/proxy.cases");

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
    write(&file, format!("{ALLOWLIST}{entries}{flip}\n"));
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

    let trusting = ("return is_refusal($answer)", "return 1");
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
                None => script.replace("^(allowed|nx\\.allowed)\\.test:443$", "allowed.test"),
            }
        });
        await_answer(&session, "head CONNECT allowed.test:443 HTTP/1.1", |answer| answer.starts_with("200"));
        controls.insert(name.to_owned(), session.attempt(&wanting(&all, name)));
        session.end();
    }
    Matrix::of(&all, &results, &controls).settle("through the proxy");
}

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
