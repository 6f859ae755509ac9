use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn line(named: &str) -> String {
    format!("NOTICE    Nov 21 19:40:22.528 [1]: Proxying refused on filtered url \"{named}\"\n")
}

fn one(named: &str) -> String {
    destination(line(named).as_bytes()).unwrap()
}

#[test]
fn refusals_are_counted_with_the_time_of_the_first() {
    let mut refused = Refused::default();
    assert_eq!(refused.line(line("b.example:443").as_bytes(), at(5)), Some("b.example:443"));
    assert_eq!(refused.line(line("B.example:443").as_bytes(), at(6)), None);
    assert_eq!(refused.line(line("a.example:22").as_bytes(), at(7)), Some("a.example:22"));
    assert_eq!(refused.line(line("pi.dev:443").as_bytes(), at(8)), Some("pi.dev:443"));
    let expected = [
        ("a.example:22", Count { times: 1, first: 7 }),
        ("b.example:443", Count { times: 2, first: 5 }),
        ("pi.dev:443", Count { times: 1, first: 8 }),
    ];
    assert_eq!(refused.all().collect::<Vec<_>>(), expected);
    assert_eq!(refused.asked(), [expected[1], expected[0]]);
    assert_eq!(Refused::restore(&refused.save()), refused);
}

#[test]
fn the_names_that_gate_and_sidecar_make_up_are_no_refusals() {
    let mut refused = Refused::default();
    assert_eq!(refused.line(line("qwrshbhrsmdamlkcgedf.invalid:443").as_bytes(), at(1)), None);
    assert!(refused.is_empty());
    assert_eq!(refused.line(line("other.invalid:443").as_bytes(), at(1)), Some("other.invalid:443"));
}

#[test]
fn of_a_plain_request_only_host_and_port_are_kept() {
    assert_eq!(one("http://a.example/secret?token=1"), "a.example:80");
    assert_eq!(one("HTTP://A.example:8080?x"), "a.example:8080");
    assert_eq!(one("http://user:password@a.example/"), ODD);
    assert_eq!(one("http://[fd00::1]/"), "[fd00::1]:80");
    assert_eq!(one("[fd00::1]:443"), "[fd00::1]:443");
    assert_eq!(one("a.example"), "a.example:443");
}

#[test]
fn what_is_odd_is_counted_but_not_shown() {
    for odd in ["a\u{1b}]0;x\u{7}:443", "a\"b:443", "a b:443", "", "bücher:443", "a\rb:443", &"a".repeat(261)]
    {
        assert_eq!(one(odd), ODD, "{odd:?}");
    }
    let cut = line("a.example:443").replace("\"\n", "");
    assert_eq!(destination(cut.as_bytes()).unwrap(), ODD);
}

#[test]
fn a_line_that_is_not_the_refusal_itself_is_not_taken_for_one() {
    let refusal = line("evil.example:443");
    for other in [
        format!("CONNECT   Nov 21 19:40:22.528 [1]: Request (file descriptor 4): {refusal}"),
        format!(
            "CONNECT   Nov 21 19:40:22.528 [1]: Request (file descriptor 4): GET x [1]: {}",
            &refusal[35..]
        ),
        refusal.replace("NOTICE", "notice"),
        refusal.replace("[1]", "[x]"),
        refusal.replace("url", "domain"),
        format!("{}{refusal}", "NOTICE    ".repeat(500)),
        String::new(),
        "NOTICE ".to_owned(),
    ] {
        assert_eq!(destination(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn ever_new_names_do_not_fill_the_memory() {
    let mut refused = Refused::default();
    for n in 0..3000 {
        refused.line(line(&format!("h{n}.example:443")).as_bytes(), at(1));
    }
    assert_eq!(refused.all().count(), DISTINCT + 1);
    assert_eq!(refused.all().find(|(name, _)| *name == OTHERS).unwrap().1.times, 2000);
    assert_eq!(Refused::restore(&refused.save()), refused);
}

#[test]
fn a_suggestion_is_what_pi_allow_takes_or_what_a_new_session_is_given() {
    let live = |text: &str| Some(Way::Live(text.to_owned()));
    assert_eq!(suggestion("a.example:443"), live("a.example"));
    assert_eq!(suggestion("a.example:8443"), live("a.example:8443"));
    for route in ["10.0.0.1:80", "[fd00::7]:443", "host.docker.internal:11434", "host.docker.internal:443"] {
        assert_eq!(suggestion(route), Some(Way::AtStart(route.to_owned())));
    }
    for nothing in [
        ODD, OTHERS, "[::1]:443", "a..b:443", "0x7f.1:443", "a.example:99999", "169.254.169.254:80",
        "100.100.100.200:80", "[fd00:ec2::254]:80", "[fe80::1]:80",
    ] {
        assert_eq!(suggestion(nothing), None, "{nothing}");
    }
}

#[test]
fn what_is_refused_is_offered_in_the_way_in_which_it_can_be_allowed() {
    for (destinations, expected) in [
        (&["<others>"][..], ""),
        (&["a.test:443", "b.test:80"], "; allow with `pi allow --save a.test b.test:80`"),
        (
            &["host.docker.internal:11434", "10.0.0.7:80"],
            "; allow in a new session with `pi --allow host.docker.internal:11434 --allow 10.0.0.7:80`",
        ),
        (
            &["10.0.0.7:80", "a.test:443"],
            "; allow with `pi allow --save a.test`, in a new session with `pi --allow 10.0.0.7:80`",
        ),
    ] {
        assert_eq!(next(None, destinations.iter().copied()), expected);
    }
    let list = Some(Path::new("/my list"));
    let expected = "; allow with `pi --allowed-domains '/my list' allow --save a.test`";
    assert_eq!(next(list, ["a.test:443"].into_iter()), expected);
}

#[test]
fn times_are_told_as_a_calendar_does() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_763_754_022, "2025-11-21T19:40:22Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (1_735_689_599, "2024-12-31T23:59:59Z"),
    ] {
        assert_eq!(utc(seconds).to_string(), expected);
    }
}

const LINES_A_CASE: usize = 16;

/// As in `domain`: `PI_TEST_CASES=1000000` for a million lines.
fn cases() -> u32 {
    let lines =
        std::env::var("PI_TEST_CASES").ok().and_then(|lines| lines.parse::<usize>().ok()).unwrap_or(16_384);
    u32::try_from(lines.div_ceil(LINES_A_CASE)).unwrap()
}

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(prop_oneof![3 => 32..127u8, 1 => any::<u8>()], 0..40);
    let named =
        bytes().prop_map(|named| [line("").trim_end_matches("\"\n").as_bytes(), &named, b"\"\n"].concat());
    prop_oneof![4 => named, 1 => bytes(), 1 => "[a-z.]{1,9}:[0-9]{1,5}".prop_map(|named| line(&named).into_bytes())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_logged_only_plain_letters_come_out(lines in prop::collection::vec(any_line(), LINES_A_CASE)) {
        let mut refused = Refused::default();
        for line in &lines {
            refused.line(line, at(1));
        }
        for (shown, _) in refused.all() {
            let plain = shown.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:[]-".contains(&b));
            prop_assert!(shown == ODD || (plain && shown.len() <= LONGEST + 4), "{shown:?}");
        }
        prop_assert_eq!(Refused::restore(&refused.save()), refused);
    }
}

#[test]
fn what_a_learning_session_reached_is_counted_and_what_it_was_refused_is_not() {
    let mut learned = Refused::default();
    let request =
        |what: &str| format!("CONNECT   Nov 21 19:40:19.143 [1]: Request (file descriptor 4): {what}\n");
    for what in [
        "CONNECT api.example.com:443 HTTP/1.1",
        "CONNECT API.example.com:443 HTTP/1.0",
        "CONNECT 10.0.0.1:443 HTTP/1.1",
        "CONNECT example.com:22 HTTP/1.1",
        "GET http://example.com/?secret HTTP/1.1",
        "CONNECT evil.test:443): CONNECT x HTTP/1.1",
        "CONNECT x.example.com:443 \u{1b} HTTP/1.1",
    ] {
        learned.learn(request(what).as_bytes(), at(3));
    }
    learned.learn(line("other.example:443").as_bytes(), at(4));
    assert_eq!(learned.all().collect::<Vec<_>>(), [("api.example.com:443", Count { times: 2, first: 3 })]);
}
