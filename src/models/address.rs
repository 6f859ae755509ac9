//! Addresses of model servers.

use std::fmt::{self, Display};

use anyhow::bail;
use serde::{Deserialize, Serialize};

use crate::broker::base::{Host, plain_port};

/// `http://HOST:PORT/PATH`. The host is a name or an IPv4 address, and all parts are of harmless characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Empty, or `/` and segments, without a slash at its end.
    pub(crate) path: String,
}

/// Ollama's own port.
const OLLAMA: u16 = 11434;

impl Address {
    /// Where Ollama listens, from `HOST[:PORT]`.
    ///
    /// # Errors
    /// It is no such address.
    pub(crate) fn ollama(text: &str) -> anyhow::Result<Self> {
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if text.contains('/') {
            bail!("`{}` is not `HOST` or `HOST:PORT`", text.escape_debug());
        }
        let (host, port) = authority(text, OLLAMA)?;
        Ok(Self { host, port, path: "/v1".to_owned() })
    }

    /// Where another server listens, from `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// It is no such address.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let shown = text.escape_debug();
        if text.starts_with("https://") {
            bail!("`{shown}` has TLS; write its entry into `models.json` yourself, with its key");
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        if rest.contains("://") {
            bail!("`{shown}` is not an address that begins with `http://`");
        }
        let (before, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = authority(before, 80)?;
        let path = path.trim_end_matches('/');
        let is_segment = |text: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
            !text.is_empty() && !text.contains("..") && text != "." && text.bytes().all(fits)
        };
        if !path.split('/').skip(1).all(is_segment) {
            bail!("the path of `{shown}` has more than letters, digits and `-_.~`");
        }
        let path = if path.is_empty() { "/v1" } else { path };
        Ok(Self { host, port, path: path.to_owned() })
    }

    /// `http://HOST:PORT`.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

fn authority(text: &str, default: u16) -> anyhow::Result<(String, u16)> {
    let shown = text.escape_debug();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, plain_port(port)),
        None => (text, Some(default)),
    };
    let Some(port) = port else { bail!("the port of `{shown}` is not a number from 1 to 65535") };
    // A server that listens on all addresses listens on this one, too.
    let host = if host == "0.0.0.0" { "127.0.0.1" } else { host };
    match Host::plain(host) {
        Some(host) => Ok((host.to_string(), port)),
        None => bail!("the host of `{shown}` is neither a name nor an IPv4 address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_what_is_usual() {
        let ollama = |text: &str| Address::ollama(text).unwrap().to_string();
        assert_eq!(ollama("127.0.0.1"), "http://127.0.0.1:11434/v1");
        assert_eq!(ollama("Box.lan:1234"), "http://box.lan:1234/v1");
        assert_eq!(ollama("http://0.0.0.0:11434/"), "http://127.0.0.1:11434/v1");
        let other = |text: &str| Address::parse(text).unwrap().to_string();
        assert_eq!(other("localhost:1234"), "http://localhost:1234/v1");
        assert_eq!(other("http://10.0.0.7:8000/v1/"), "http://10.0.0.7:8000/v1");
        assert_eq!(other("http://10.0.0.7/api/v3"), "http://10.0.0.7:80/api/v3");
    }

    #[test]
    fn what_another_program_could_read_otherwise_is_refused() {
        for text in [
            "", "https://box", "ftp://box", "http://me:word@box", "http://box:0", "http://box:+1",
            "http://box:65536", "http://127.1", "http://0x7f000001", "http://[::1]:80", "http://a..b",
            "http://box/a/../b", "http://box/a//b", "http://box/v1?x", "http://box/%2e", "http://b x/", "-a",
            "http://box\n/",
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
        assert!(Address::ollama("box/v1").is_err());
    }
}
