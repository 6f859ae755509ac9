//! Addresses that a session wants to have opened on the host: read strictly, since a program of the host gets them.

/// The longest address.
const LONGEST: usize = 2000;

/// An `https` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    text: String,
    host: String,
    path: String,
}

impl Url {
    /// # Errors
    /// Why it is not to be opened.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("it is longer than 2000 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && !b"\"'<>\\`^{|}".contains(&b)) {
            return Err("it has a character that no address has");
        }
        let rest = text.strip_prefix("https://").ok_or("it does not begin with `https://`")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("it has a user's name in it");
        }
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let labels = host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
        });
        if !labels || !host.contains('.') || host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err("it does not name a host");
        }
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err("its port is no number");
        }
        let host = host.to_ascii_lowercase();
        let host = port.filter(|port| *port != "443").map_or(host.clone(), |port| format!("{host}:{port}"));
        let path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
        Ok(Self { text: text.to_owned(), host, path })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a page of this host whose path begins like this.
    pub(crate) fn is_at(&self, host: &str, path: &str) -> bool {
        let path_of = self.path.to_ascii_lowercase();
        // A browser would go up.
        let goes_up = path_of.contains("/.") || path_of.contains("%2e") || path_of.contains("%2f");
        self.host == host && self.path.starts_with(path) && !goes_up
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_ordinary_address_is_read() {
        let url = Url::parse("https://Claude.ai:443/oauth/authorize?code=true&x=a%20b#c").unwrap();
        assert!(url.is_at("claude.ai", "/oauth/"));
        assert!(!url.is_at("claude.ai", "/login") && !url.is_at("ai", "/oauth/"));
        assert_eq!(url.as_str(), "https://Claude.ai:443/oauth/authorize?code=true&x=a%20b#c");
    }

    #[test]
    fn what_a_program_could_take_for_something_else_is_refused() {
        for text in [
            "", "http://claude.ai/", "file:///etc/passwd", "HTTPS://claude.ai/", "javascript:alert(1)",
            "--help", "https://", "https:///x", "https://claude.ai\n/x", "https://claude.ai/\u{1b}[31m",
            "https://claude.ai/a b", "https://claude.ai/\"x", "https://claude.ai/`id`",
            "https://me@claude.ai/", "https://claude.ai@evil.test/", "https://localhost/",
            "https://127.0.0.1/", "https://[::1]/", "https://claude.ai:x/", "https://a..b/", "https://-a.b/",
            "https://\u{e4}.test/", "https://claude.ai\\@evil.test/", "https://a.test:99999/",
        ] {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
        assert!(Url::parse(&format!("https://a.test/{}", "x".repeat(2000))).is_err());
    }

    #[test]
    fn a_page_is_not_another_one_of_its_host() {
        for text in [
            "https://claude.ai/oauth/../x", "https://claude.ai/oauth/%2e%2e/x",
            "https://claude.ai.evil.test/oauth/", "https://claude.ai:8443/oauth/",
            "https://claude.ai/x?/oauth/", "https://evil.test/#claude.ai/oauth/",
        ] {
            assert!(!Url::parse(text).unwrap().is_at("claude.ai", "/oauth/"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_one_plain_word_of_https(text in "(https://)?[ -~\u{e4}\n]{0,40}") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert!(url.as_str().starts_with("https://"));
                prop_assert!(url.as_str().bytes().all(|b| b.is_ascii_graphic()));
                prop_assert_eq!(url.as_str(), text);
            }
        }
    }
}
