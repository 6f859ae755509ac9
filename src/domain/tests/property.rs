//! Compares the matcher and the filter with a comparison of labels, on random lists and names.

use proptest::prelude::*;

use super::{compiled, file};
use crate::domain::{Allowlist, Entry, Source};

/// A wildcard or not, the labels of the name, and the port.
type Line = (bool, Vec<String>, u16);

/// The third reading, independent of the others: it compares labels from the right.
fn oracle(lines: &[Line], host: &str, port: u16) -> bool {
    let labels: Vec<String> = host.split('.').map(str::to_ascii_lowercase).collect();
    lines.iter().any(|(wildcard, name, its_port)| {
        let mut asked = labels.iter().rev();
        let same = name.iter().rev().all(|label| asked.next() == Some(label));
        let mut more = asked.peekable();
        let fits = match more.peek() {
            None => true,
            Some(_) if !wildcard => false,
            Some(_) => more.all(|label| {
                !label.is_empty()
                    && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
            }),
        };
        *its_port == port && same && fits
    })
}

const NAMES_A_CASE: usize = 64;

/// `PI_TEST_CASES=1000000 cargo test --release domain` tries a million names.
fn cases() -> u32 {
    let names =
        std::env::var("PI_TEST_CASES").ok().and_then(|names| names.parse::<usize>().ok()).unwrap_or(16_384);
    u32::try_from(names.div_ceil(NAMES_A_CASE)).unwrap()
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab]{1,2}", 1 => "[a-z0-9_]([-a-z0-9_]{0,8}[a-z0-9])?", 1 => Just("co".to_owned())]
}

fn line() -> impl Strategy<Value = Line> {
    let name = prop::collection::vec(label(), 1..3);
    let last = prop_oneof![Just("ab"), Just("test"), Just("example")];
    (any::<bool>(), name, last, prop_oneof![4 => Just(443), 1 => Just(80), 1 => Just(8443)]).prop_map(
        |(wildcard, mut name, last, port)| {
            name.push(last.to_owned());
            (wildcard, name, port)
        },
    )
}

/// Names to try, mostly near misses: listed names with a few changes.
fn names(lines: &[Line]) -> impl Strategy<Value = Vec<(String, u16)>> + use<> {
    let known: Vec<String> = lines.iter().map(|(_, name, _)| name.join(".")).collect();
    let change = (0..6u8, any::<prop::sample::Index>(), prop_oneof!["[ab.]", "[-A-Z0-9_.]", "\\PC", "(?s)."]);
    let changed =
        (prop::sample::select(known), prop::collection::vec(change, 0..4)).prop_map(|(name, changes)| {
            let mut name: Vec<char> = name.chars().collect();
            for (kind, at, text) in changes {
                let odd = text.chars().next().unwrap_or('.');
                match kind {
                    0 => name.splice(0..0, [odd, '.']).for_each(drop),
                    1 => name.insert(at.index(name.len() + 1), odd),
                    2 if !name.is_empty() => {
                        let at = at.index(name.len());
                        name[at] = odd;
                    }
                    3 if !name.is_empty() => drop(name.remove(at.index(name.len()))),
                    4 => name = name.iter().flat_map(|c| c.to_uppercase()).collect(),
                    _ => name.push(odd),
                }
            }
            name.into_iter().collect::<String>()
        });
    let host = prop_oneof![8 => changed, 1 => "[ab.]{0,8}(ab|test|example)", 1 => "\\PC{0,12}"];
    let port = prop_oneof![4 => Just(443), 1 => Just(80), 1 => Just(8443), 1 => any::<u16>()];
    prop::collection::vec((host, port), NAMES_A_CASE)
}

fn lists() -> impl Strategy<Value = (Vec<Line>, Vec<(String, u16)>)> {
    prop::collection::vec(line(), 1..6).prop_flat_map(|lines| {
        let names = names(&lines);
        (Just(lines), names)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matcher_and_filter_allow_what_a_comparison_of_labels_allows_and_nothing_else((lines, names) in lists()) {
        let written = |(wildcard, name, port): &Line| {
            let star = if *wildcard { "*." } else { "" };
            format!("{star}{}:{port}\n", name.join("."))
        };
        let text = lines.iter().map(written).collect::<Vec<_>>().concat();
        let Ok(list) = file(&text) else {
            // A label that begins or ends badly, or a public suffix. Other tests cover those.
            return Err(TestCaseError::reject("not a list"));
        };
        let filter = compiled(&list.filter());
        for (host, port) in names {
            let expected = oracle(&lines, &host, port);
            prop_assert_eq!(list.matching(&host, port).is_some(), expected, "matcher: {:?}", (&text, &host, port));
            prop_assert_eq!(filter.is_match(&format!("{host}:{port}")), expected, "filter: {:?}", (&text, &host, port));
            let plain = filter.is_match(&format!("http://{host}:{port}/x")) || (port == 80 && filter.is_match(&format!("http://{host}/")));
            // A slash or colon ends the host early, so the request would be for another host.
            if !host.contains(['/', ':']) {
                prop_assert_eq!(plain, expected && port == 80, "plain: {:?}", (&text, &host, port));
            }
        }
    }

    #[test]
    fn no_text_whatever_makes_a_rule_that_the_proxy_would_read_otherwise(text in prop_oneof!["(?s).{0,60}", "[-a-z0-9*.:#/ \\[\\]\n]{0,60}"]) {
        for source in [Source::File { name: "list", text: text.as_bytes() }, Source::Option(&text), Source::Lan(&text)] {
            match Allowlist::read(&[source]) {
                Ok(list) => for rule in list.filter().lines() {
                    prop_assert!(rule.len() < 510 && rule.bytes().all(|b| b.is_ascii_graphic() && b != b'#'), "{rule:?}");
                    prop_assert!(rule.starts_with('^') && (rule.ends_with('$') || rule.ends_with('/')), "{rule:?}");
                    compiled(rule);
                    // An entry means the same when its shown form is parsed again.
                    for entry in list.entries() {
                        prop_assert_eq!(&Entry::parse(&entry.to_string()).unwrap().host, &entry.host);
                    }
                },
                Err(problems) => prop_assert!(!problems.to_string().chars().any(|c| c != '\n' && c.is_control())),
            }
        }
    }
}
