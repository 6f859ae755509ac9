//! Base URLs: where a provider listens, as something that can be written into a configuration without quoting.

use std::{
    fmt::{self, Display},
    net::Ipv4Addr,
};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Base {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// Empty, or `/` and segments of harmless characters, without a slash at its end.
    pub(crate) path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    /// Lower-case labels of letters, digits, `-` and `_`.
    Name(String),
    Address(Ipv4Addr),
}

impl Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Base {
    /// Takes what a client would take for the same place, and refuses what it may read otherwise; the error says why.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            _ => return Err("its base URL begins with neither `https://` nor `http://`".to_owned()),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("its base URL contains a user name".to_owned());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => {
                let port = plain_port(port)
                    .ok_or_else(|| "the port of its base URL is not a number from 1 to 65535".to_owned())?;
                (host, port)
            }
            None => (authority, scheme.port()),
        };
        let host = Host::parse(host)?;
        if scheme == Scheme::Https && matches!(host, Host::Address(_)) {
            return Err("the certificate of a bare address cannot be checked; name the host".to_owned());
        }
        Ok(Self { scheme, host, port, path: clean_path(path)? })
    }

    /// `HOST`, and `:PORT` where it is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let Self { scheme, host, port, .. } = self;
        if *port == scheme.port() { host.to_string() } else { format!("{host}:{port}") }
    }

    /// A name for the machine itself, which means the container where the agent runs.
    pub(crate) fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Host::Address(address) => address.is_loopback() || address.is_unspecified(),
        }
    }
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('[') {
            return Err("its base URL has an IPv6 address for a host".to_owned());
        }
        Self::plain(text).ok_or_else(|| "its base URL has no plain host name".to_owned())
    }

    /// A name or an IPv4 address, if it is nothing that another program could take for something else.
    pub(crate) fn plain(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        let name = text.to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        // Clients read `127.1` and `0x7f000001` as addresses; no top-level domain begins with a digit.
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_name = name.len() <= 253
            && name.split('.').all(is_label)
            && !last.starts_with(|first: char| first.is_ascii_digit());
        is_name.then_some(Self::Name(name))
    }
}

/// A number from 1 to 65535 without a sign.
pub(crate) fn plain_port(text: &str) -> Option<u16> {
    let port = text.parse().ok().filter(|port| *port > 0)?;
    text.bytes().all(|b| b.is_ascii_digit()).then_some(port)
}

fn clean_path(path: &str) -> Result<String, String> {
    let path = path.trim_end_matches('/');
    let is_plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'@' | b'+' | b':');
    let is_segment = |segment: &str| !segment.is_empty() && !segment.contains("..") && segment != ".";
    let mut segments = path.split('/').skip(1);
    if path.bytes().all(|b| b == b'/' || is_plain(b)) && segments.all(is_segment) {
        return Ok(path.to_owned());
    }
    Err("the path of its base URL has more than letters, digits and `-._~@+:` in its segments".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_base_is_scheme_host_port_and_path() {
        let base = Base::parse("https://API.Example.com/v1/").unwrap();
        assert_eq!(
            (base.authority().as_str(), base.port, base.path.as_str()),
            ("api.example.com", 443, "/v1")
        );
        let base = Base::parse(" http://10.0.0.7:8080 ").unwrap();
        assert_eq!((base.authority().as_str(), base.path.as_str()), ("10.0.0.7:8080", ""));
        assert!(Base::parse("http://localhost:11434/v1").unwrap().is_loopback());
        assert!(Base::parse("http://127.0.0.2").unwrap().is_loopback());
    }

    #[test]
    fn what_clients_may_read_otherwise_is_refused() {
        for text in [
            "",
            "api.example.com",
            "ftp://api.example.com",
            "https://",
            "https:///v1",
            "https://me:word@api.example.com",
            "https://api.example.com:0",
            "https://api.example.com:+1",
            "https://api.example.com/v1?x=1",
            "https://api.example.com?x=1",
            "https://api.example.com/v1#x",
            "https://api.example.com/a/../b",
            "https://api.example.com/a//b",
            "https://api.example.com/a/./b",
            "https://api.example.com/%2e%2e",
            "https://api.example.com/a'b",
            "https://api.example.com/a b",
            "https://api.exa mple.com/",
            "https://api.example.com\\@evil.example/",
            "https://[fd00::1]/",
            "https://10.0.0.1/",
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://a..b/",
        ] {
            assert!(Base::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_can_be_written_between_single_quotes(text in "https?://\\PC{0,40}") {
            if let Ok(base) = Base::parse(&text) {
                let written = format!("{}{}", base.authority(), base.path);
                prop_assert!(written.bytes().all(|b| b.is_ascii_graphic() && !b"'\"\\$#%?,()".contains(&b)));
            }
        }
    }
}
