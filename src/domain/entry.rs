//! An entry of an allowlist: how it is written, what it matches, and its rules for the proxy.

use std::fmt;

use super::{
    HOST_NAME,
    name::{
        Host, address, bracketed, escaped, host_and_port, is_address, is_below, pattern, port_number,
        printable,
    },
};

/// Where an entry came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    File { name: String, line: usize },
    Option,
    Lan,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { name, line } => write!(f, "{}:{line}", printable(name)),
            Origin::Option => f.write_str("`--allow`"),
            Origin::Lan => f.write_str("`lan` in the configuration"),
        }
    }
}

/// One destination, or a domain with everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) lan: bool,
    pub(super) origin: Origin,
}

impl Entry {
    /// Parses a value of `--allow` or a word of `pi allow`. The error is the reason alone.
    pub(crate) fn parse(text: &str) -> Result<Entry, String> {
        let text = text.trim();
        let (host, _) = host_and_port(text)?;
        let entry = if is_address(host) { Self::of_lan(text) } else { Self::of_file(text) };
        entry.map(|entry| Entry { origin: Origin::Option, ..entry })
    }

    /// Parses a line of an allowlist file, without its comment.
    pub(super) fn of_file(text: &str) -> Result<Entry, String> {
        let (host, port) = host_and_port(text)?;
        if is_address(host) {
            return Err("an address cannot be listed here; put `IP:PORT` under `lan` in the configuration or pass it to `--allow`".to_owned());
        }
        let host = pattern(host)?;
        let lan = host == Host::Name(HOST_NAME.to_owned());
        let port = port.map_or(Ok(443), port_number)?;
        Ok(Entry { host, port, lan, origin: Origin::Option })
    }

    /// Parses an element of the config's `lan`.
    pub(super) fn of_lan(text: &str) -> Result<Entry, String> {
        let (host, port) = host_and_port(text.trim())?;
        let Some(port) = port else {
            return Err("it needs a port, as in `192.168.1.100:11434`".to_owned());
        };
        let port = port_number(port)?;
        let host = if is_address(host) { Host::Address(address(host)?) } else { pattern(host)? };
        if matches!(host, Host::AndBelow(_)) {
            return Err("an entry of `lan` is one name or address, not a wildcard".to_owned());
        }
        Ok(Entry { host, port, lan: true, origin: Origin::Lan })
    }

    /// Whether it needs a route of its own. A sidecar gets its routes when it starts, and never later.
    pub(crate) fn is_lan(&self) -> bool {
        self.lan
    }

    /// Whether it can be written into an allowlist file. If not, it belongs into `lan` in the config.
    pub(crate) fn fits_a_file(&self) -> bool {
        !self.lan || self.name() == HOST_NAME
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn admits(&self, host: &str, port: u16) -> bool {
        self.port == port
            && match &self.host {
                Host::Name(name) => name.eq_ignore_ascii_case(host),
                Host::AndBelow(name) => is_below(host, name),
                // The proxy compares text, so it refuses another spelling of the same address.
                Host::Address(address) => bracketed(*address).eq_ignore_ascii_case(host),
            }
    }

    /// Whether this entry admits every destination of `other`.
    pub(super) fn covers(&self, other: &Entry) -> bool {
        self.port == other.port
            && match (&self.host, &other.host) {
                (Host::AndBelow(mine), Host::Name(its) | Host::AndBelow(its)) => is_below(its, mine),
                (mine, its) => mine == its,
            }
            // Only an entry for the local network gives a route there and plain HTTP on other ports than 80.
            && (self.lan || !other.lan)
    }

    /// Its rules for the proxy.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let below = if matches!(self.host, Host::AndBelow(_)) { r"([-a-z0-9_]+\.)*" } else { "" };
        let (host, top) = match &self.host {
            Host::Name(name) | Host::AndBelow(name) => match name.rsplit_once('.') {
                Some((host, top)) => (escaped(host), format!(r"\.{top}")),
                None => (escaped(name), String::new()),
            },
            Host::Address(address) => (escaped(&bracketed(*address)), String::new()),
        };
        let port = self.port;
        let rule = |scheme: &str, after: &str| Rule {
            before: format!("^{scheme}{below}"),
            host: host.clone(),
            behind: format!("{top}{after}"),
        };
        let mut rules = vec![rule("", &format!(":{port}$"))];
        if port == 80 {
            rules.push(rule("http://", "(:80)?/"));
        } else if self.lan {
            // Servers in a local network, such as model servers, mostly speak plain HTTP on a port of their own.
            rules.push(rule("http://", &format!(":{port}/")));
        }
        rules
    }

    /// The name; empty for an address, which only the same address covers.
    pub(super) fn name(&self) -> &str {
        match &self.host {
            Host::Name(name) | Host::AndBelow(name) => name,
            Host::Address(_) => "",
        }
    }
}

/// An anchored extended regular expression for the proxy, in three parts. Rules that differ in the host alone can be one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub(super) before: String,
    /// Without its last label.
    pub(super) host: String,
    pub(super) behind: String,
}

/// The entry as a user would write it.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { host, port, lan, origin: _ } = self;
        match host {
            Host::Name(name) => f.write_str(name)?,
            Host::AndBelow(name) => write!(f, "*.{name}")?,
            Host::Address(address) => f.write_str(&bracketed(*address))?,
        }
        if *port != 443 || *lan {
            write!(f, ":{port}")?;
        }
        Ok(())
    }
}
