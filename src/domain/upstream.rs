//! The proxy that the machine itself uses, and the sidecar's configuration for it.

use std::{collections::BTreeSet, fmt};

use super::{
    Allowlist, HOST_NAME,
    name::{Host, is_below, port_number, split_port, target_host},
};

/// A proxy that the machine itself must use to get out.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// As the machine itself names it.
    host: String,
    port: u16,
    login: Option<String>,
    direct: Vec<String>,
}

// The login is a password.
impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({}:{})", self.host, self.port)
    }
}

impl Upstream {
    /// From the machine's own `https_proxy` and `no_proxy`.
    pub(crate) fn parse(proxy: &str, no_proxy: &str) -> Result<Upstream, String> {
        let rest = match proxy.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => {
                return Err("the sidecar can use only a proxy with an `http://` address".to_owned());
            }
            None => proxy,
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let (login, authority) = match rest.rsplit_once('@') {
            Some((login, authority)) => (Some(unescaped(login)), authority),
            None => (None, rest),
        };
        if login.as_deref().is_some_and(|login| !login.contains(':') || login.chars().any(unfit_for_conf)) {
            return Err("its login must be `USER:PASSWORD` without blanks, `@`, `#` and quotes".to_owned());
        }
        let (host, port) = split_port(authority)?;
        let host = target_host(host)?;
        let port = port.map_or(Ok(80), port_number)?;
        let direct = no_proxy
            .split([',', ' '])
            .map(|name| name.trim().trim_start_matches('*').to_ascii_lowercase())
            .filter(|name| {
                name.bytes().any(|b| b != b'.')
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b))
            })
            .collect();
        Ok(Upstream { host, port, login, direct })
    }

    /// Its exception from the closed address ranges: such a proxy mostly has a private address.
    pub(crate) fn lan(&self) -> String {
        format!("{} {}\n", self.host_for_sidecar().trim_matches(['[', ']']), self.port)
    }

    /// The sidecar has a loopback of its own.
    fn host_for_sidecar(&self) -> &str {
        if ["localhost", "127.0.0.1", "[::1]"].contains(&self.host.as_str()) { HOST_NAME } else { &self.host }
    }

    /// Where this machine itself finds it.
    pub(crate) fn address(&self) -> (&str, u16) {
        (self.host.trim_matches(['[', ']']), self.port)
    }

    /// `USER:PASSWORD`.
    pub(crate) fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// Whether this machine asks it for this name, which is in lower case.
    pub(crate) fn serves(&self, name: &str) -> bool {
        !self.direct.iter().any(|direct| is_below(name, direct.trim_start_matches('.')))
    }
}

/// The configuration of tinyproxy from `template`, which is `proxy/tinyproxy.conf`. The sidecar adds the port, the
/// filter and other details of a single run.
/// It is not asked for the names in `closed` either, which lead nowhere in the sidecar.
pub(crate) fn conf(
    template: &str,
    allowlist: &Allowlist,
    upstream: Option<&Upstream>,
    closed: &BTreeSet<String>,
) -> String {
    let mut lines = Vec::new();
    if let Some(upstream @ Upstream { host: _, port, login, direct }) = upstream {
        let host = upstream.host_for_sidecar();
        let login = login.as_ref().map(|login| format!("{login}@")).unwrap_or_default();
        lines.push(format!("Upstream http {login}{host}:{port}\n"));
        let local = allowlist.entries.iter().filter(|entry| entry.lan).map(|entry| match &entry.host {
            Host::Name(name) | Host::AndBelow(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        });
        let direct: BTreeSet<String> = direct.iter().chain(closed).cloned().chain(local).collect();
        lines.extend(direct.into_iter().map(|name| format!("Upstream none \"{name}\"\n")));
    }
    let conf = template.replace("@UPSTREAM@\n", &lines.concat());
    // Each request is told then, not only a refused one.
    if allowlist.learns { conf.replace("LogLevel Notice\n", "LogLevel Connect\n") } else { conf }
}

/// Decodes `%40` and the like in a user name or password.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) if first == b'%' => {
                bytes.push(code);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn unfit_for_conf(c: char) -> bool {
    !c.is_ascii_graphic() || matches!(c, '"' | '@' | '#')
}
