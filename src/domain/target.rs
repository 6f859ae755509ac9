//! A destination that a user asks `pi check` about.

use std::fmt;

use super::name::{port_number, split_port, target_host};

/// A destination as a client would request it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Requested by plain HTTP, not through a tunnel.
    pub(crate) plain: bool,
}

impl Target {
    /// Parses a URL or `HOST[:PORT]`. The default port is that of the scheme, or 443.
    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        let text = text.trim();
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("it contains blanks or control characters".to_owned());
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let authority = match &scheme {
            Some(_) => {
                let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
                let authority = &rest[..end];
                authority.rsplit_once('@').map_or(authority, |(_, host)| host)
            }
            None => rest,
        };
        let (host, port) = split_port(authority)?;
        let known = match scheme.as_deref() {
            None | Some("https" | "wss") => Some(443),
            Some("http" | "ws") => Some(80),
            Some("ssh" | "git+ssh" | "sftp") => Some(22),
            Some("git") => Some(9418),
            Some(_) => None,
        };
        let Some(port) = port.map(port_number).transpose()?.or(known) else {
            return Err("its scheme is unknown; write `HOST:PORT`".to_owned());
        };
        // Clients use a tunnel for every web socket, even without TLS.
        let plain = scheme.as_deref() == Some("http");
        Ok(Target { host: target_host(host)?, port, plain })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { host, port, plain } = self;
        write!(f, "{host}:{port}{}", if *plain { " (plain HTTP)" } else { "" })
    }
}
