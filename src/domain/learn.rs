//! What a session that learns may reach: every public name on port 443.

/// The rule for the proxy's filter. A name has at least two parts, and the last one begins with a letter, so an address
/// in any spelling is none. The top-level domain `invalid` stays refused: gate and sidecar try the rules with names there.
pub(super) const RULE: &str = concat!(
    r"^([-a-z0-9_]+\.)+(",
    "[a-hj-z][-a-z0-9]*|i([-a-mo-z0-9][-a-z0-9]*)?|in([-a-uw-z0-9][-a-z0-9]*)?|inv([-b-z0-9][-a-z0-9]*)?",
    "|inva([-a-km-z0-9][-a-z0-9]*)?|inval([-a-hj-z0-9][-a-z0-9]*)?|invali([-a-ce-z0-9][-a-z0-9]*)?",
    "|invalid[-a-z0-9]+",
    "):443$"
);

/// Whether [`RULE`] admits `HOST:PORT`.
pub(crate) fn admits(destination: &str) -> bool {
    let Some(host) = destination.to_ascii_lowercase().strip_suffix(":443").map(str::to_owned) else {
        return false;
    };
    let plain = |label: &str, also: &str| {
        !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    host.rsplit_once('.').is_some_and(|(below, top)| {
        below.split('.').all(|label| plain(label, "-_"))
            && plain(top, "-")
            && top.starts_with(|c: char| c.is_ascii_lowercase())
            && top != "invalid"
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn names_pass_and_addresses_and_made_up_names_do_not() {
        for good in [
            "example.com:443", "a.b-c.Example.co.uk:443", "x.xn--p1ai:443", "x.invalids:443", "x.in:443",
            "x.i:443",
        ] {
            assert!(admits(good), "{good}");
        }
        for bad in [
            "example.com:80", "example.com", "localhost:443", "127.0.0.1:443", "127.0.0.0x1:443",
            "2130706433:443", "[::1]:443", "qwrshbhrsmdamlkcgedf.invalid:443", "example.com.:443",
            ".com:443", "a..com:443", "example.com:443/x", "x@example.com:443",
        ] {
            assert!(!admits(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_rule_and_the_reading_agree(
            name in r"([-a-z0-9_.@\[/]{0,6}\.){0,3}(inv|inval|invalid|invali|com|[-a-z0-9_.]{0,8})(d|x|)(:443|:80|)"
        ) {
            // tinyproxy compares without regard to case, and its expressions are POSIX's, whose longest match is the same
            // where both ends are tied.
            let rule = Regex::new(RULE).unwrap();
            prop_assert_eq!(rule.is_match(&name), admits(&name), "{}", name);
        }
    }
}
