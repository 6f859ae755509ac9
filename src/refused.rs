//! What the proxy refused: reads the log of tinyproxy, which repeats what the agent sent.
//!
//! The agent chooses these bytes and a person will see them on a terminal. So a line counts only if its whole shape is
//! right, and of what the agent named only letters, digits and `. _ : [ ] -` survive; all else becomes [`ODD`].

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    domain::Entry,
    report::{self, quote},
};

/// Stands for a destination that is not safe to show.
pub(crate) const ODD: &str = "<non-printable>";

/// Stands for all destinations after the first [`DISTINCT`].
pub(crate) const OTHERS: &str = "<others>";

/// An agent that asks for ever new names must not fill the launcher's memory.
const DISTINCT: usize = 1000;

/// The longest host and port: 253, a colon and five digits; an address in brackets is shorter.
const LONGEST: usize = 260;

/// tinyproxy cuts its lines at about 800 bytes. What is longer was not written by it.
const LONGEST_LINE: usize = 4096;

/// Where the agent goes unasked, for news of itself and of models: no news for a user. The tools for which it would
/// ask GitHub are in the image, so a refused GitHub is somebody's wish.
const UNASKED: [&str; 2] = ["pi.dev:443", "radius.pi.dev:443"];

/// How often one destination was refused, and when for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) times: u64,
    /// Seconds since 1970, by the launcher's clock: the line's own has no year and no zone.
    pub(crate) first: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    counts: BTreeMap<String, Count>,
}

impl Refused {
    /// Takes one line of the log, without or with its end. Returns the destination if it is the first time that this
    /// one was refused, so that a caller can write it down.
    pub(crate) fn line(&mut self, line: &[u8], now: SystemTime) -> Option<&str> {
        let destination = destination(line).filter(|destination| !is_made_up(destination))?;
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let full = self.counts.len() >= DISTINCT && !self.counts.contains_key(&destination);
        let key = if full { OTHERS.to_owned() } else { destination };
        let count = self.counts.entry(key.clone()).or_insert(Count { times: 0, first: seconds });
        count.times = count.times.saturating_add(1);
        if count.times > 1 {
            return None;
        }
        self.counts.get_key_value(&key).map(|(key, _)| key.as_str())
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Every destination, in the order of their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, Count)> {
        self.counts.iter().map(|(destination, count)| (destination.as_str(), *count))
    }

    /// What the agent was refused on somebody's behalf, for the line at the exit; most often refused first.
    pub(crate) fn asked(&self) -> Vec<(&str, Count)> {
        let mut asked: Vec<_> = self.all().filter(|(destination, _)| !is_unasked(destination)).collect();
        asked.sort_by_key(|(_, count)| std::cmp::Reverse(count.times));
        asked
    }

    /// For a file: what [`Refused::restore`] reads. A line is `FIRST TIMES DESTINATION`.
    pub(crate) fn save(&self) -> String {
        let line =
            |(destination, Count { times, first }): (&str, Count)| format!("{first} {times} {destination}\n");
        self.all().map(line).collect::<Vec<_>>().concat()
    }

    /// Reads a saved file; what another hand may have put there is held to the same rules.
    pub(crate) fn restore(text: &str) -> Refused {
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(first), Some(times), Some(destination)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (Ok(first), Ok(times)) = (first.parse(), times.parse()) else { continue };
            let known = destination == ODD || destination == OTHERS || is_safe(destination.as_bytes());
            if known && counts.len() <= DISTINCT {
                counts.insert(destination.to_owned(), Count { times, first });
            }
        }
        Refused { counts }
    }
}

/// Whether the agent asks for this by itself and not for a task.
pub(crate) fn is_unasked(destination: &str) -> bool {
    UNASKED.contains(&destination)
}

/// Whether it is one of the names by which gate and sidecar find out that the rules hold: the top-level domain
/// `invalid` exists nowhere, so nobody misses it here.
fn is_made_up(destination: &str) -> bool {
    destination.strip_suffix(":443").is_some_and(|host| {
        host.strip_suffix(".invalid")
            .is_some_and(|name| name.len() == 20 && name.bytes().all(|b| b.is_ascii_lowercase()))
    })
}

/// How a refused destination can be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// By this word to `pi allow`, while the session runs.
    Live(String),
    /// By this value of `pi --allow`, for a session to come: it needs a route, which is laid at the start.
    AtStart(String),
}

/// What to type to have it allowed, if there is anything: not for what cannot be shown, and not for the addresses where
/// a cloud tells a machine its own secrets.
pub(crate) fn suggestion(destination: &str) -> Option<Way> {
    let (host, _) = destination.rsplit_once(':')?;
    if is_of_a_cloud(host) {
        return None;
    }
    let entry = Entry::parse(destination).ok()?;
    Some(if entry.is_lan() { Way::AtStart(entry.to_string()) } else { Way::Live(entry.to_string()) })
}

/// How many destinations the line at the end names.
const NAMED: usize = 3;

/// One line about what was refused, and how to allow it from now on; `list` is the allowlist's file, where the user
/// named another than the usual one.
pub(crate) fn say_at_exit(refused: &Refused, list: Option<&Path>) {
    let asked = refused.asked();
    if asked.is_empty() {
        return;
    }
    let mut names: Vec<String> = asked
        .iter()
        .take(NAMED)
        .map(|(destination, count)| format!("{destination} ({}×)", count.times))
        .collect();
    if asked.len() > NAMED {
        names.push(format!("{} more, see `pi blocked`", asked.len() - NAMED));
    }
    let next = next(list, asked.iter().take(NAMED).map(|(destination, _)| *destination));
    report::note(format_args!("refused: {}{next}", names.join(", ")));
}

/// The commands by which these are allowed from now on.
fn next<'a>(list: Option<&Path>, destinations: impl Iterator<Item = &'a str>) -> String {
    let (mut live, mut at_start) = (String::new(), String::new());
    for way in destinations.filter_map(suggestion) {
        match way {
            Way::Live(entry) => live = live + " " + &entry,
            Way::AtStart(entry) => at_start = at_start + " --allow " + &entry,
        }
    }
    let list =
        list.map(|list| format!(" --allowed-domains {}", quote(&list.to_string_lossy()))).unwrap_or_default();
    match (live.as_str(), at_start.as_str()) {
        ("", "") => String::new(),
        (_, "") => format!("; allow with `pi{list} allow --save{live}`"),
        ("", _) => format!("; allow in a new session with `pi{list}{at_start}`"),
        _ => {
            format!("; allow with `pi{list} allow --save{live}`, in a new session with `pi{list}{at_start}`")
        }
    }
}

fn is_of_a_cloud(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(v4)) => v4.is_link_local() || v4 == Ipv4Addr::new(100, 100, 100, 200),
        Ok(IpAddr::V6(v6)) => v6.is_unicast_link_local() || v6.segments()[..2] == [0xfd00, 0xec2],
        Err(_) => false,
    }
}

/// Seconds since 1970 as `2025-11-21T19:40:22Z`.
pub(crate) fn utc(seconds: u64) -> impl fmt::Display {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Years are counted from a March: then the leap day is the last of its year, and months have a formula.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `NOTICE    Nov 21 19:40:22.528 [1]: Proxying refused on filtered url "evil.test:443"`, and no other line.
fn destination(line: &[u8]) -> Option<String> {
    if line.len() > LONGEST_LINE {
        return None;
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // The words before the bracket are tinyproxy's own: no byte of a client stands before them.
    let rest = line.strip_prefix(b"NOTICE ")?;
    let at = rest.iter().position(|&b| b == b'[')?;
    if !rest[..at].iter().all(|&b| b.is_ascii_alphanumeric() || b" :.".contains(&b)) {
        return None;
    }
    let rest = &rest[at + 1..];
    let end = rest.iter().position(|&b| !b.is_ascii_digit())?;
    let quoted = rest[end..].strip_prefix(b"]: Proxying refused on filtered url \"")?;
    // A long request is cut off, and its closing quote with it.
    let named = quoted.strip_suffix(b"\"").unwrap_or(b"");
    Some(authority(named).unwrap_or_else(|| ODD.to_owned()))
}

/// `HOST:PORT` of a tunnel or of a plain request. Of the latter only the host is kept: path and query are the agent's
/// business and may be secrets.
fn authority(named: &[u8]) -> Option<String> {
    let (named, port) = match named.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"http://") => {
            let rest = &named[7..];
            let end = rest.iter().position(|&b| b"/?#".contains(&b)).unwrap_or(rest.len());
            (&rest[..end], ":80")
        }
        _ => (named, ":443"),
    };
    if !is_safe(named) {
        return None;
    }
    let mut text = std::str::from_utf8(named).ok()?.to_ascii_lowercase();
    let after_address = text.rsplit_once(']').map_or(text.as_str(), |(_, rest)| rest);
    if !after_address.contains(':') {
        text.push_str(port);
    }
    Some(text)
}

fn is_safe(named: &[u8]) -> bool {
    !named.is_empty()
        && named.len() <= LONGEST
        && named.iter().all(|&b| b.is_ascii_alphanumeric() || b"._:[]-".contains(&b))
}

#[cfg(test)]
mod tests {
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
        for odd in
            ["a\u{1b}]0;x\u{7}:443", "a\"b:443", "a b:443", "", "bücher:443", "a\rb:443", &"a".repeat(261)]
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
        for route in
            ["10.0.0.1:80", "[fd00::7]:443", "host.docker.internal:11434", "host.docker.internal:443"]
        {
            assert_eq!(suggestion(route), Some(Way::AtStart(route.to_owned())));
        }
        for nothing in [
            ODD,
            OTHERS,
            "[::1]:443",
            "a..b:443",
            "0x7f.1:443",
            "a.example:99999",
            "169.254.169.254:80",
            "100.100.100.200:80",
            "[fd00:ec2::254]:80",
            "[fe80::1]:80",
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
        let lines = std::env::var("PI_TEST_CASES")
            .ok()
            .and_then(|lines| lines.parse::<usize>().ok())
            .unwrap_or(16_384);
        u32::try_from(lines.div_ceil(LINES_A_CASE)).unwrap()
    }

    fn any_line() -> impl Strategy<Value = Vec<u8>> {
        let bytes = || prop::collection::vec(prop_oneof![3 => 32..127u8, 1 => any::<u8>()], 0..40);
        let named = bytes()
            .prop_map(|named| [line("").trim_end_matches("\"\n").as_bytes(), &named, b"\"\n"].concat());
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
}
