//! Tests of single entries, lists and targets.

mod property;

use regex::{RegexSet, RegexSetBuilder};

use super::{
    name::is_invisible,
    upstream::{Upstream, conf},
    *,
};

fn file(text: &str) -> Result<Allowlist, Problems> {
    bytes(text.as_bytes())
}

fn bytes(text: &[u8]) -> Result<Allowlist, Problems> {
    Allowlist::read(&[Source::File { name: "list", text }])
}

fn shown(list: &Allowlist) -> Vec<String> {
    list.entries().iter().map(ToString::to_string).collect()
}

fn reason(line: &str) -> String {
    let problems = file(line).expect_err(line).to_string();
    let prefix = "list:1: `";
    assert!(problems.starts_with(prefix), "{problems}");
    problems.rsplit_once("`: ").map_or_else(|| problems.clone(), |(_, reason)| reason.to_owned())
}

/// The rules as tinyproxy compiles them: extended, case-insensitive, on bytes.
fn compiled(filter: &str) -> RegexSet {
    RegexSetBuilder::new(filter.lines()).case_insensitive(true).unicode(false).build().unwrap()
}

#[test]
fn each_form_of_entry_is_read_and_shown_in_its_plain_form() {
    let list = file(
        "\u{feff}# a comment\r\n\r\n Example.COM \r\nexample.net. # why\n*.Example.org\t#x\n\
         files.example:8443\nplain.example:80\nbücher.example\n*.bücher.example\nа.example\nsome_host.example",
    )
    .unwrap();
    assert_eq!(
        shown(&list),
        [
            "example.com", "example.net", "*.example.org", "files.example:8443", "plain.example:80",
            "xn--bcher-kva.example", "*.xn--bcher-kva.example", "xn--80a.example", "some_host.example",
        ]
    );
    assert_eq!(list.warnings(), [] as [&str; 0]);
    assert_eq!(list.entries()[3].origin().to_string(), "list:6");
}

#[test]
fn every_bad_line_is_named_at_once_with_its_number_and_reason() {
    let problems = file("ok.example\nhttp://a.example\n\n*.com\n10.0.0.1\n").unwrap_err().to_string();
    assert_eq!(
        problems,
        "list:2: `http://a.example`: it has a scheme; write the host alone, with `:PORT` if it is not 443\n\
         list:4: `*.com`: a whole top-level domain is too wide\n\
         list:5: `10.0.0.1`: an address cannot be listed here; put `IP:PORT` under `lan` in the \
         configuration or pass it to `--allow`"
    );
}

#[test]
fn what_is_not_a_host_is_refused_with_the_reason() {
    let long_label = format!("{}.example", "a".repeat(64));
    let long_name = format!("{}example", "a.".repeat(124));
    for (line, expected) in [
        ("a.example/path", "it has a path"),
        ("a.example b.example", "more than one word"),
        ("a.example\u{a0}b", "more than one word"),
        ("a.example#x", "a comment needs a blank"),
        ("user@a.example", "it has a user name"),
        ("a.example\u{1b}[31m", "a control character"),
        ("a.example\rb.example", "a control character"),
        ("a.example\0", "a control character"),
        ("a.example\u{85}", "a control character"),
        ("*", "no entry allows everything"),
        ("a.*.example", "a wildcard is `*.`"),
        ("*.*.example", "a wildcard is `*.`"),
        ("*a.example", "a wildcard is `*.`"),
        ("a*.example:443", "a wildcard is `*.`"),
        (".a.example", "write `*.a.example`"),
        ("*.", "it has no host"),
        ("*.example", "a whole top-level domain"),
        ("*.co.uk", "it is a public suffix"),
        ("*.公司.cn", "it is a public suffix"),
        ("*.xn--55qx5d.cn", "it is a public suffix"),
        ("*.github.io", "it is a public suffix"),
        ("*.vercel.app:8443", "it is a public suffix"),
        ("*.herokuapp.com", "it is a public suffix"),
        ("*.workers.dev", "it is a public suffix"),
        ("*.s3.amazonaws.com", "it is a public suffix"),
        ("*.us-east-1.elb.amazonaws.com", "it is a public suffix"),
        ("*.amazonaws.com", "below it are public suffixes"),
        ("*.windows.net", "below it are public suffixes"),
        ("*.compute-1.amazonaws.com", "below it are public suffixes"),
        ("*.fastly.net", "below it are public suffixes"),
        ("*.nip.io", "below it are public suffixes"),
        ("*.10.0.0.1", "not before an address"),
        ("..", "it has an empty label"),
        (".", "it has no host"),
        ("a..example", "it has an empty label"),
        ("a.example..", "it has an empty label"),
        ("-a.example", "a label cannot begin or end"),
        ("a-.example", "a label cannot begin or end"),
        ("a.example:", "its port is not a number"),
        ("a.example:0", "its port is not a number"),
        ("a.example:0443", "its port is not a number"),
        ("a.example:+443", "its port is not a number"),
        ("a.example:65536", "its port is not a number"),
        ("a.example:443x", "its port is not a number"),
        (":443", "it has no host"),
        ("a[.example", "`[` cannot be part"),
        ("a$|.example", "`$` cannot be part"),
        ("a\\.example", "cannot be part"),
        ("a%2eexample", "`%` cannot be part"),
        ("^a.example", "`^` cannot be part"),
        ("(a).example", "`(` cannot be part"),
        ("a\u{200b}.example\u{202e}", "it is not a valid international domain name"),
        ("127.0.0.1", "an address cannot be listed"),
        ("127.0.0.1:80", "an address cannot be listed"),
        ("127.1", "an address cannot be listed"),
        ("2130706433", "an address cannot be listed"),
        ("0x7f000001", "an address cannot be listed"),
        ("0x7f.1:443", "an address cannot be listed"),
        ("017700000001", "an address cannot be listed"),
        ("127.0.0.0x", "an address cannot be listed"),
        ("127.0.0.1.", "an address cannot be listed"),
        ("1.2.3.4.5", "an address cannot be listed"),
        ("１２７。０。０。１", "an address cannot be listed"),
        ("[::1]:443", "an address cannot be listed"),
        ("::1", "an address cannot be listed"),
        ("fe80::1%eth0", "an address cannot be listed"),
        (&long_label, "at most 63 characters"),
        (&long_name, "at most 253 characters"),
    ] {
        let reason = reason(line);
        assert!(reason.contains(expected), "{line:?}: {reason}");
    }
}

#[test]
fn a_message_about_a_hostile_line_holds_no_byte_that_a_terminal_would_obey() {
    for text in [&b"a\x1b]0;x\x07.example"[..], b"\xff\xfe", b"\xe2\x80\xaeexample", b"a\xc2\x9b31m"] {
        let message = bytes(text).unwrap_err().to_string();
        assert!(!message.chars().any(|c| c.is_control() || is_invisible(c)), "{message:?}");
    }
    let message = file(&"x".repeat(100_000)).unwrap_err().to_string();
    assert!(message.len() < 300, "{message}");
}

#[test]
fn a_file_of_the_old_form_loads_unchanged_and_warns_once_of_the_bare_host() {
    let list = file(
        "# Allowed domains for the pi agent proxy.\n# One entry per line.\n\n# GitHub\ngithub.com\n\
         raw.githubusercontent.com\n*.githubusercontent.com\n*.github.com\n*.atlassian.net\n\n\
         # Services running on host\nhost.docker.internal\nhost.docker.internal\n",
    )
    .unwrap();
    assert_eq!(
        list.warnings(),
        [
            "list:12: `host.docker.internal` means port 443 of this machine; write `host.docker.internal:PORT` for \
          another port"
        ]
    );
    assert_eq!(list.lan(), "host.docker.internal 443\n");
}

#[test]
fn the_default_file_loads_without_a_warning() {
    let list = file(DEFAULT).unwrap();
    assert_eq!(list.warnings(), [] as [&str; 0]);
    for host in ["api.anthropic.com", "github.com", "codeload.github.com", "chatgpt.com"] {
        assert!(list.matching(host, 443).is_some(), "{host}");
    }
    assert_eq!(list.lan(), "");
}

#[test]
fn an_empty_list_and_an_endless_one_are_told() {
    let empty = file("# nothing\n\n").unwrap();
    assert_eq!(empty.warnings(), ["the allowlist is empty: everything will be refused"]);
    assert_eq!(empty.filter(), "");
    let lines = |count: usize| (0..count).map(|n| format!("h{n}.example\n")).collect::<Vec<_>>().concat();
    assert_eq!(file(&lines(10_000)).unwrap().warnings(), [] as [&str; 0]);
    let many = file(&lines(10_001)).unwrap();
    assert!(many.warnings()[0].starts_with("the allowlist has 10001 entries"), "{:?}", many.warnings());
    let covered = file(&(lines(15_000) + "*.some.example\n".repeat(3000).as_str())).unwrap();
    assert!(covered.warnings()[0].starts_with("the allowlist has 15001 entries"), "{:?}", covered.warnings());
}

#[test]
fn an_exception_for_the_local_network_names_one_place_and_its_port() {
    let list = Allowlist::read(&[
        Source::Lan("192.168.1.100:11434"),
        Source::Lan("git.corp:443"),
        Source::Option("10.0.0.7:8080"),
        Source::Option("[fd00:0::7]:80"),
        Source::File { name: "list", text: b"host.docker.internal:11434\nexample.com\n" },
    ])
    .unwrap();
    assert_eq!(
        list.lan(),
        "10.0.0.7 8080\n192.168.1.100 11434\nfd00::7 80\ngit.corp 443\nhost.docker.internal 11434\n"
    );
    let filter = list.filter();
    assert!(filter.contains("^192\\.168\\.1\\.100:11434$\n"), "{filter}");
    assert!(filter.contains("^http://192\\.168\\.1\\.100:11434/\n"), "{filter}");
    assert!(filter.contains("^http://\\[fd00::7](:80)?/\n"), "{filter}");
    assert!(!filter.contains("http://example"), "{filter}");
    assert_eq!(list.matching("[fd00::7]", 80).unwrap().to_string(), "[fd00::7]:80");
    assert_eq!(
        list.matching("192.168.1.100", 11434).unwrap().origin().to_string(),
        "`lan` in the configuration"
    );
    assert_eq!(list.matching("192.168.1.100", 443), None);

    for (text, expected) in [
        ("192.168.1.100", "it needs a port"),
        ("git.corp", "it needs a port"),
        ("192.168.001.100:1", "four decimal numbers"),
        ("0x7f.1:80", "four decimal numbers"),
        ("fd00::7", "it needs a port"),
        ("127.0.0.1:80", "loopback means the proxy itself"),
        ("[::1]:80", "loopback means the proxy itself"),
        ("0.0.0.0:80", "no single machine"),
        ("224.0.0.1:80", "no single machine"),
        ("255.255.255.255:80", "no single machine"),
        ("[::ffff:10.0.0.1]:80", "write the IPv4 address itself"),
        ("[fe80::1%eth0]:80", "it is not an IPv6 address"),
        ("[fd00::7:80", "never closed"),
        ("10.0.0.0/8:80", "it has a path"),
        ("*.corp.example:443", "not a wildcard"),
    ] {
        let message = Allowlist::read(&[Source::Lan(text)]).unwrap_err().to_string();
        assert!(
            message.starts_with("`lan` in the configuration: `") && message.contains(expected),
            "{text}: {message}"
        );
    }
    assert!(Entry::parse("10.0.0.7").unwrap_err().contains("it needs a port"));
    assert!(!Entry::parse("10.0.0.7:80").unwrap().fits_a_file());
    assert!(Entry::parse("host.docker.internal:80").unwrap().fits_a_file());
    assert!(Entry::parse("host.docker.internal:80").unwrap().is_lan());
}

#[test]
fn covered_entries_are_merged_in_the_filter_but_a_check_names_the_line() {
    let list = file("a.b.example.com\nexample.com\n*.b.example.com\n*.example.com\n*.example.com:80\nx.example.com:8080\n").unwrap();
    assert_eq!(
        list.filter().lines().collect::<Vec<_>>(),
        [
            r"^x\.example\.com:8080$",
            r"^([-a-z0-9_]+\.)*example\.com:443$",
            r"^([-a-z0-9_]+\.)*example\.com:80$",
            r"^http://([-a-z0-9_]+\.)*example\.com(:80)?/",
        ]
    );
    assert_eq!(list.matching("A.b.Example.com", 443).unwrap().origin().to_string(), "list:1");
    assert_eq!(list.matching("c.b.example.com", 443).unwrap().origin().to_string(), "list:3");
    assert_eq!(list.matching("z.example.com", 443).unwrap().origin().to_string(), "list:4");
}

#[test]
fn a_rule_fits_the_buffer_of_the_proxy_and_holds_nothing_that_would_end_it() {
    // tinyproxy reads 511 bytes a line; the tail of a longer one would be a rule of its own.
    let longest = format!("*.{}aa:65535", "a.".repeat(125));
    let labels = format!("{0}.{0}.{0}.{1}:65535", "a".repeat(63), "a".repeat(61));
    for text in [longest, labels, "plain.example:80".to_owned()] {
        let filter = file(&text).unwrap().filter();
        assert!(filter.ends_with('\n'));
        for rule in filter.lines() {
            assert!(rule.len() + 1 < 511, "{} bytes", rule.len());
            assert!(rule.starts_with('^') && (rule.ends_with('$') || rule.ends_with('/')), "{rule}");
            assert!(rule.bytes().all(|b| b.is_ascii_graphic() && b != b'#'), "{rule}");
        }
    }
}

#[test]
fn hosts_share_rules_until_a_line_is_full() {
    let list = file("b.example.com\n*.c.org\na.com\nd.org\n*.e.org\n").unwrap();
    let rules = [r"^(a|b\.example)\.com:443$", r"^d\.org:443$", r"^([-a-z0-9_]+\.)*(c|e)\.org:443$"];
    assert_eq!(list.filter().lines().collect::<Vec<_>>(), rules);

    let name = |n: usize| format!("host{n}.{}.com", "x".repeat(n % 60 + 1));
    let text: String = (0..1000).map(|n| name(n) + "\n").collect();
    let list = file(&text).unwrap();
    let filter = list.filter();
    assert!(filter.lines().count() < 120 && filter.lines().all(|rule| rule.len() <= 500), "{filter}");
    let filter = compiled(&filter);
    for n in 0..1000 {
        assert!(filter.is_match(&format!("{}:443", name(n))) && !filter.is_match(&format!("{}:80", name(n))));
        assert!(
            !filter.is_match(&format!("x{}:443", name(n))) && !filter.is_match(&format!("{}m:443", name(n)))
        );
    }
}

#[test]
fn what_is_typed_to_check_is_read_as_a_client_would_send_it() {
    let target = |text: &str| Target::parse(text).map(|target| target.to_string());
    assert_eq!(target("https://User:x@Example.COM/a?b#c").unwrap(), "example.com:443");
    assert_eq!(target("http://example.com").unwrap(), "example.com:80 (plain HTTP)");
    assert_eq!(target("http://example.com:8080/").unwrap(), "example.com:8080 (plain HTTP)");
    assert_eq!(target("ws://example.com").unwrap(), "example.com:80");
    assert_eq!(target("example.com").unwrap(), "example.com:443");
    assert_eq!(target("bücher.example:8443").unwrap(), "xn--bcher-kva.example:8443");
    assert_eq!(target("ssh://git@example.com/x").unwrap(), "example.com:22");
    assert_eq!(target("[fd00:0::1]:80").unwrap(), "[fd00::1]:80");
    assert_eq!(target("example.com.").unwrap(), "example.com.:443");
    for bad in ["", "https://", "foo://x", "a b", "a\u{1b}", "example.com:0", "exa$mple.com", "[::1"] {
        assert!(target(bad).is_err(), "{bad}");
    }
}

#[test]
fn plain_http_needs_its_own_entry_or_the_local_network() {
    let list = file("a.example\na.example:8080\nb.example:80\nhost.docker.internal:11434\n").unwrap();
    for (text, expected) in [
        ("https://a.example/", Some("a.example")),
        ("http://a.example/", None),
        ("a.example:8080", Some("a.example:8080")),
        ("http://a.example:8080/", None),
        ("http://b.example/", Some("b.example:80")),
        ("https://b.example/", None),
        ("http://host.docker.internal:11434/v1", Some("host.docker.internal:11434")),
        ("a.example.", None),
    ] {
        let allowed = list.permits(&Target::parse(text).unwrap()).map(ToString::to_string);
        assert_eq!(allowed.as_deref(), expected, "{text}");
    }
}

#[test]
fn a_proxy_of_the_machine_is_passed_on_and_its_password_never_shown() {
    let list = file("example.com\nhost.docker.internal:11434\n").unwrap();
    let upstream =
        Upstream::parse("http://me:s%2Fcret@proxy.corp:3128/", "localhost,.corp.example, *.x,*").unwrap();
    assert_eq!(
        conf("A\n@UPSTREAM@\nB\n", &list, Some(&upstream), &["api.provider.example".to_owned()].into()),
        "A\nUpstream http me:s/cret@proxy.corp:3128\nUpstream none \".corp.example\"\nUpstream none \".x\"\n\
         Upstream none \"api.provider.example\"\nUpstream none \"host.docker.internal\"\nUpstream none \"localhost\"\nB\n"
    );
    assert_eq!(conf("A\n@UPSTREAM@\nB\n", &list, None, &BTreeSet::new()), "A\nB\n");
    assert_eq!(upstream.lan(), "proxy.corp 3128\n");
    assert_eq!((upstream.address(), upstream.login()), (("proxy.corp", 3128), Some("me:s/cret")));
    for (name, served) in [
        ("api.openai.com", true),
        ("corp.example", false),
        ("llm.corp.example", false),
        ("notcorp.example", true),
        ("localhost", false),
    ] {
        assert_eq!(upstream.serves(name), served, "{name}");
    }
    assert!(!format!("{upstream:?}").contains("cret"));
    let own = Upstream::parse("127.0.0.1:3128", "").unwrap();
    assert_eq!((own.lan().as_str(), own.address()), ("host.docker.internal 3128\n", ("127.0.0.1", 3128)));
    assert!(Upstream::parse("socks5://proxy:1080", "").is_err());
    assert!(Upstream::parse("http://me:a%0aPort 1@proxy:1080", "").is_err());
}

#[test]
fn the_difference_of_two_lists_is_told_in_their_own_language() {
    let before = file("kept.example\nwide.example\nold.example:8443\n*.narrow.example\n").unwrap();
    let now = file("# kept\nkept.example\n*.wide.example\nnew.example:80\na.narrow.example\n").unwrap();
    let (came, gone) = now.difference(&before);
    let written = |entries: Vec<&Entry>| entries.iter().map(ToString::to_string).collect::<Vec<_>>();
    // What a wider entry covers is admitted as before.
    assert_eq!(written(came), ["*.wide.example", "a.narrow.example", "new.example:80"]);
    assert_eq!(written(gone), ["*.narrow.example", "old.example:8443"]);
    let (came, gone) = now.difference(&now);
    assert_eq!((came.len(), gone.len()), (0, 0));
}

#[test]
fn what_the_default_file_suggests_in_its_comments_can_be_used() {
    let suggested: Vec<&str> = DEFAULT
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.contains('.') && !line.contains(' '))
        .collect();
    assert!(suggested.contains(&"*.atlassian.net") && suggested.len() > 4, "{suggested:?}");
    file(&suggested.join("\n")).unwrap();
}
