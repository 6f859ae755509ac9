//! What an allowlist says: parse it, match against it, render it for the proxy.
//!
//! The language, one entry a line: `example.com` is that name on port 443, `*.example.com` is the domain itself and all
//! below it, `host:PORT` is that port and no other, plain HTTP is allowed by an explicit `:80` only, `#` begins a comment.
//! A [`Lan`] exception is a private address (or a name for one) with a port; it comes from the config's `lan`, from
//! `--allow`, or is `host.docker.internal:PORT` anywhere.
//!
//! Matching and rendering are two readings of the same entries. A property test holds them against each other and
//! against a third, independent one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The name by which containers reach the machine they run on.
pub(crate) const HOST_NAME: &str = "host.docker.internal";

/// Above this many rules tinyproxy, which tries them one after the other, becomes noticeably slow.
const MANY: usize = 2000;

/// The default allowlist, written where a user has none yet.
pub(crate) const DEFAULT: &str = include_str!("../assets/allowed_domains.txt");

/// Where an entry may come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A whole allowlist file; `name` is how messages call it.
    File { name: &'a str, text: &'a [u8] },
    /// One `--allow`, or one word of `pi allow`.
    Option(&'a str),
    /// One element of the config's `lan`.
    Lan(&'a str),
}

/// Where an entry did come from.
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

/// One destination, or a family of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    host: Host,
    port: u16,
    lan: bool,
    origin: Origin,
}

/// Names are lower-case ASCII, of checked labels, without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Name(String),
    AndBelow(String),
    Address(IpAddr),
}

impl Entry {
    /// What a user types to `--allow` and `pi allow`.
    pub(crate) fn parse(text: &str) -> Result<Entry, Problem> {
        match option(text) {
            Ok(entry) => Ok(entry),
            Err(reason) => Err(Problem { origin: Origin::Option, text: printable(text), reason }),
        }
    }

    /// Whether reaching it needs a route of its own, which a sidecar gets at its start and never later.
    pub(crate) fn is_lan(&self) -> bool {
        self.lan
    }

    /// Whether its text means the same in an allowlist file; if not, its place is `lan` in the config.
    pub(crate) fn fits_a_file(&self) -> bool {
        let host_itself = self.host == Host::Name(HOST_NAME.to_owned());
        !self.lan || host_itself
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    fn admits(&self, host: &str, port: u16) -> bool {
        self.port == port
            && match &self.host {
                Host::Name(name) => name.eq_ignore_ascii_case(host),
                Host::AndBelow(name) => is_below(host, name),
                // Another spelling of the same address is refused, as the proxy refuses it: it compares text.
                Host::Address(address) => bracketed(*address).eq_ignore_ascii_case(host),
            }
    }

    /// Whether every destination of `other` is one of this entry.
    fn covers(&self, other: &Entry) -> bool {
        self.port == other.port
            && match (&self.host, &other.host) {
                (Host::AndBelow(mine), Host::Name(its) | Host::AndBelow(its)) => is_below(its, mine),
                (mine, its) => mine == its,
            }
            // A wildcard gives no route into the local network and no plain HTTP on odd ports.
            && (self.lan || !other.lan)
    }

    /// Extended regular expressions for the proxy, each of them anchored.
    fn rules(&self) -> Vec<String> {
        let host = match &self.host {
            Host::Name(name) => escaped(name),
            Host::AndBelow(name) => format!(r"([-a-z0-9_]+\.)*{}", escaped(name)),
            Host::Address(address) => escaped(&bracketed(*address)),
        };
        let port = self.port;
        let mut rules = vec![format!("^{host}:{port}$")];
        if port == 80 {
            rules.push(format!("^http://{host}(:80)?/"));
        } else if self.lan {
            // What listens in a local network, a model server say, mostly speaks plain HTTP on a port of its own.
            rules.push(format!("^http://{host}:{port}/"));
        }
        rules
    }
}

/// The entry as one would write it.
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

/// An entry that was refused, in the words for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    origin: Origin,
    text: String,
    reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { origin, text, reason } = self;
        write!(f, "{origin}: `{text}`: {reason}")
    }
}

impl std::error::Error for Problem {}

/// All refused entries, in the order in which they were written; one a line when shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Allowlist {
    entries: Vec<Entry>,
    warnings: Vec<String>,
}

impl Allowlist {
    /// Reads all sources to their end, so that one attempt shows every bad line.
    pub(crate) fn read(sources: &[Source]) -> Result<Allowlist, Problems> {
        let mut list = Allowlist::default();
        let mut problems = Vec::new();
        let mut bare_host = None;
        for source in sources {
            match *source {
                Source::File { name, text } => {
                    for (number, line) in lines(text) {
                        let origin = Origin::File { name: name.to_owned(), line: number };
                        let parsed = std::str::from_utf8(line)
                            .map_err(|_| "it is not valid UTF-8".to_owned())
                            .and_then(|line| uncommented(line).map(file_entry).transpose());
                        match parsed {
                            Ok(None) => {}
                            Ok(Some(entry)) => list.entries.push(Entry { origin, ..entry }),
                            Err(reason) => {
                                let text = printable(String::from_utf8_lossy(line).trim());
                                problems.push(Problem { origin, text, reason });
                            }
                        }
                    }
                }
                Source::Option(text) | Source::Lan(text) => {
                    let (origin, parsed) = match source {
                        Source::Lan(_) => (Origin::Lan, lan(text)),
                        _ => (Origin::Option, option(text)),
                    };
                    match parsed {
                        Ok(entry) => list.entries.push(entry),
                        Err(reason) => problems.push(Problem { origin, text: printable(text), reason }),
                    }
                }
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        for entry in &list.entries {
            if entry.lan && entry.port == 443 && entry.origin != Origin::Lan && entry.is_host() {
                bare_host.get_or_insert(&entry.origin);
            }
        }
        if let Some(origin) = bare_host {
            list.warnings.push(format!(
                "{origin}: `{HOST_NAME}` means port 443 of this machine; write `{HOST_NAME}:PORT` for another port"
            ));
        }
        let rules = list.merged().len();
        if rules == 0 {
            list.warnings.push("the allowlist is empty: everything will be refused".to_owned());
        } else if rules > MANY {
            list.warnings.push(format!(
                "the allowlist has {rules} entries: above {MANY} each request waits noticeably for its decision"
            ));
        }
        Ok(list)
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What a user should hear once, before a session starts.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The first entry that lets a tunnel to this host and port through. The host is compared as a client sends it: a
    /// trailing dot or an address spelled another way is something else, to the proxy as well.
    #[cfg(test)]
    pub(crate) fn matching(&self, host: &str, port: u16) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.admits(host, port))
    }

    /// The first entry that lets this through, in the way in which it would be asked for.
    pub(crate) fn permits(&self, target: &Target) -> Option<&Entry> {
        let Target { host, port, plain } = target;
        self.entries.iter().find(|entry| entry.admits(host, *port) && (!plain || entry.lan || *port == 80))
    }

    /// The filter file of the proxy. Entries which another one covers are left out.
    pub(crate) fn filter(&self) -> String {
        let rules: BTreeSet<String> = self.merged().into_iter().flat_map(Entry::rules).collect();
        rules.into_iter().map(|rule| rule + "\n").collect()
    }

    /// The file of exceptions from the closed address ranges: `HOST PORT`, one a line.
    pub(crate) fn lan(&self) -> String {
        let exceptions: BTreeSet<String> = self
            .entries
            .iter()
            .filter(|entry| entry.lan)
            .filter_map(|entry| match &entry.host {
                Host::Name(name) => Some(format!("{name} {}\n", entry.port)),
                Host::Address(address) => Some(format!("{address} {}\n", entry.port)),
                Host::AndBelow(_) => None,
            })
            .collect();
        exceptions.into_iter().collect()
    }

    fn merged(&self) -> Vec<&Entry> {
        // Shorter names first: what covers a name is never longer than it. Each host is then looked up by its own
        // suffixes, so that long lists do not cost the square of their length.
        let mut kept: BTreeMap<(&str, u16), Vec<&Entry>> = BTreeMap::new();
        let mut order: Vec<&Entry> = self.entries.iter().collect();
        order.sort_by_key(|entry| (entry.text().len(), !entry.lan, !matches!(entry.host, Host::AndBelow(_))));
        let mut merged = Vec::new();
        for entry in order {
            let covered = suffixes(entry.text())
                .filter_map(|suffix| kept.get(&(suffix, entry.port)))
                .flatten()
                .any(|other| other.covers(entry));
            if !covered {
                kept.entry((entry.text(), entry.port)).or_default().push(entry);
                merged.push(entry);
            }
        }
        merged
    }
}

impl Entry {
    fn is_host(&self) -> bool {
        self.text() == HOST_NAME
    }

    /// The name alone; empty for an address, which nothing but itself covers.
    fn text(&self) -> &str {
        match &self.host {
            Host::Name(name) | Host::AndBelow(name) => name,
            Host::Address(_) => "",
        }
    }
}

/// What a user asks `pi check` about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Asked for by plain HTTP through the proxy, not by a tunnel.
    pub(crate) plain: bool,
}

impl Target {
    /// A URL or `HOST[:PORT]`; without a port it is 443, or what the scheme says.
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
            return Err("its scheme is not known here; write `HOST:PORT`".to_owned());
        };
        // A web socket is asked for by a tunnel whether it is encrypted or not.
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

/// A proxy that the machine itself must use to get out.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
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
                return Err(
                    "only a proxy that is itself spoken to by plain HTTP can be passed on to".to_owned()
                );
            }
            None => proxy,
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let (login, authority) = match rest.rsplit_once('@') {
            Some((login, authority)) => (Some(unescaped(login)), authority),
            None => (None, rest),
        };
        if login.as_deref().is_some_and(|login| !login.contains(':') || login.chars().any(unfit_for_conf)) {
            return Err("its user name and password cannot be passed on: it takes `USER:PASSWORD` without blanks, `@` and quotes".to_owned());
        }
        let (host, port) = split_port(authority)?;
        let host = match target_host(host)?.as_str() {
            // Inside the sidecar the machine's loopback is another one.
            "localhost" | "127.0.0.1" | "[::1]" => HOST_NAME.to_owned(),
            host => host.to_owned(),
        };
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

    /// The line that it needs among the exceptions, since such a proxy mostly has a private address.
    pub(crate) fn lan(&self) -> String {
        format!("{} {}\n", self.host.trim_matches(['[', ']']), self.port)
    }
}

/// The configuration of tinyproxy but for its port, its filter and what else a single run of it needs: the sidecar adds
/// those. `template` is `proxy/tinyproxy.conf`.
pub(crate) fn conf(template: &str, allowlist: &Allowlist, upstream: Option<&Upstream>) -> String {
    let mut lines = Vec::new();
    if let Some(Upstream { host, port, login, direct }) = upstream {
        let login = login.as_ref().map(|login| format!("{login}@")).unwrap_or_default();
        lines.push(format!("Upstream http {login}{host}:{port}\n"));
        let local = allowlist.entries.iter().filter(|entry| entry.lan).map(|entry| match &entry.host {
            Host::Name(name) | Host::AndBelow(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        });
        let direct: BTreeSet<String> = direct.iter().cloned().chain(local).collect();
        lines.extend(direct.into_iter().map(|name| format!("Upstream none \"{name}\"\n")));
    }
    template.replace("@UPSTREAM@\n", &lines.concat())
}

/// The lines of a file with their numbers, whatever ends them; a byte order mark is no part of the first.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    (1..).zip(text.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)))
}

/// A `#` begins a comment at the start of a line or after a blank; inside a word it is a mistake, told as one.
fn uncommented(line: &str) -> Option<&str> {
    let mut end = line.len();
    for (at, _) in line.match_indices('#') {
        if line[..at].chars().next_back().is_none_or(|c| c == ' ' || c == '\t') {
            end = at;
            break;
        }
    }
    let text = line[..end].trim_matches([' ', '\t']);
    if text.is_empty() { None } else { Some(text) }
}

fn file_entry(text: &str) -> Result<Entry, String> {
    let (host, port) = host_and_port(text)?;
    if is_address(host) {
        return Err("an address cannot be listed here, only a name; put `IP:PORT` under `lan` in the configuration or pass it by `--allow`".to_owned());
    }
    let host = pattern(host)?;
    let lan = host == Host::Name(HOST_NAME.to_owned());
    let port = port.map_or(Ok(443), port_number)?;
    Ok(Entry { host, port, lan, origin: Origin::Option })
}

fn option(text: &str) -> Result<Entry, String> {
    let text = text.trim();
    let (host, _) = host_and_port(text)?;
    let entry = if is_address(host) { lan(text) } else { file_entry(text) };
    entry.map(|entry| Entry { origin: Origin::Option, ..entry })
}

fn lan(text: &str) -> Result<Entry, String> {
    let text = text.trim();
    let (host, port) = host_and_port(text)?;
    let Some(port) = port else {
        return Err("it needs a port, as in `192.168.1.100:11434`".to_owned());
    };
    let port = port_number(port)?;
    let host = if is_address(host) { Host::Address(address(host)?) } else { pattern(host)? };
    if matches!(host, Host::AndBelow(_)) {
        return Err("an exception for the local network is one name or address, not a wildcard".to_owned());
    }
    Ok(Entry { host, port, lan: true, origin: Origin::Lan })
}

/// Splits what is at all shaped like an entry, and says of common mistakes what they are.
fn host_and_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("it contains a control character".to_owned());
    }
    if text.chars().any(char::is_whitespace) {
        return Err("there is more than one word; write one entry a line".to_owned());
    }
    if text.contains("://") {
        return Err("it has a scheme; write the host alone, with `:PORT` if it is not 443".to_owned());
    }
    if text.contains('/') {
        return Err("it has a path; only whole hosts can be allowed".to_owned());
    }
    if text.contains('#') {
        return Err("a comment needs a blank before its `#`".to_owned());
    }
    if text.contains('@') {
        return Err("it has a user name; write the host alone".to_owned());
    }
    split_port(text)
}

/// `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`; a bare IPv6 address is a host without a port.
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if text.starts_with('[') {
        let Some(end) = text.find(']') else {
            return Err("its `[` is never closed".to_owned());
        };
        return match text[end + 1..].strip_prefix(':') {
            Some(port) => Ok((&text[..=end], Some(port))),
            None if end + 1 == text.len() => Ok((text, None)),
            None => Err("after `]` only `:PORT` can follow".to_owned()),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    Ok(match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    })
}

fn port_number(text: &str) -> Result<u16, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    match text.parse::<u16>() {
        Ok(port) if plain => Ok(port),
        _ => Err("its port is not a number from 1 to 65535".to_owned()),
    }
}

/// Whether some resolver would take this for an address: a colon, or a last label that reads as a number. C's
/// `inet_aton`, which clients use, takes decimal, octal, hexadecimal and shortened forms; no top-level domain looks so.
fn is_address(host: &str) -> bool {
    if host.starts_with('*') {
        return false;
    }
    if host.contains(':') || host.starts_with('[') {
        return true;
    }
    let ascii = idna::domain_to_ascii(host).unwrap_or_else(|_| host.to_ascii_lowercase());
    let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
    let last = ascii.rsplit('.').next().unwrap_or(ascii);
    let hexadecimal =
        last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    hexadecimal || (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
}

fn address(host: &str) -> Result<IpAddr, String> {
    let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| "it is not an IPv6 address"),
        None if host.parse::<Ipv6Addr>().is_ok() => {
            Err("an IPv6 address stands in brackets, as in `[fd00::1]:443`")
        }
        None => host
            .parse::<Ipv4Addr>()
            .map(IpAddr::V4)
            .map_err(|_| "an address is written as four decimal numbers"),
    }?;
    if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return Err("write the IPv4 address itself".to_owned());
    }
    if address.is_loopback() {
        return Err(format!("loopback is the proxy's own; write `{HOST_NAME}:PORT` for this machine"));
    }
    if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err("no single machine has this address".to_owned());
    }
    Ok(address)
}

fn pattern(text: &str) -> Result<Host, String> {
    let Some(rest) = text.strip_prefix("*.") else {
        if text == "*" {
            return Err("everything cannot be allowed; leave out `--proxy` for that".to_owned());
        }
        if text.contains('*') {
            return Err("a wildcard is `*.` before a whole domain, nothing else".to_owned());
        }
        if let Some(name) = text.strip_prefix('.').and_then(|rest| name(rest).ok()) {
            return Err(format!("write `*.{name}` for a domain and all below it"));
        }
        return name(text).map(Host::Name);
    };
    if rest.contains('*') {
        return Err("a wildcard is `*.` before a whole domain, nothing else".to_owned());
    }
    if is_address(rest) {
        return Err("a wildcard stands before a domain, not before an address".to_owned());
    }
    let name = name(rest)?;
    if !name.contains('.') {
        return Err("a whole top-level domain is too wide".to_owned());
    }
    // Only suffixes under which registries sell names: `githubusercontent.com` is on the list too, but has one owner.
    let suffix = psl::suffix(name.as_bytes());
    if suffix
        .is_some_and(|suffix| suffix.typ() == Some(psl::Type::Icann) && suffix.as_bytes() == name.as_bytes())
    {
        return Err("it is a public suffix, under which anybody can own a domain".to_owned());
    }
    Ok(Host::AndBelow(name))
}

/// A name in the form in which it is looked up.
fn name(text: &str) -> Result<String, String> {
    let ascii = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii(text).map_err(|_| "it is not a valid international domain name".to_owned())?
    };
    let name = ascii.strip_suffix('.').unwrap_or(&ascii);
    if name.is_empty() {
        return Err("it has no host".to_owned());
    }
    if name.len() > 253 {
        return Err("a name has at most 253 characters".to_owned());
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("it has an empty label".to_owned());
        }
        if label.len() > 63 {
            return Err("between two dots there are at most 63 characters".to_owned());
        }
        if let Some(odd) = label.chars().find(|c| !is_of_a_name(*c)) {
            return Err(format!("`{}` cannot be part of a name", odd.escape_debug()));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label cannot begin or end with `-`".to_owned());
        }
    }
    // International digits and full stops turn into plain ones.
    if is_address(name) {
        return Err("an address cannot be listed here, only a name".to_owned());
    }
    Ok(name.to_owned())
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
}

/// As a client would send it: lower-case, punycode, but else untouched.
fn target_host(host: &str) -> Result<String, String> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| "it is not an IPv6 address".to_owned())?;
        return Ok(format!("[{address}]"));
    }
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    let ascii = if host.is_ascii() {
        host.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii(host).map_err(|_| "it is not a valid international domain name".to_owned())?
    };
    if ascii.is_empty() {
        return Err("it has no host".to_owned());
    }
    match ascii.chars().find(|c| !is_of_a_name(*c) && *c != '.') {
        Some(odd) => Err(format!("`{}` cannot be part of a host", odd.escape_debug())),
        None => Ok(ascii),
    }
}

fn is_below(host: &str, name: &str) -> bool {
    let host = host.to_ascii_lowercase();
    match host.strip_suffix(name) {
        Some("") => true,
        Some(rest) => rest.strip_suffix('.').is_some_and(|rest| {
            rest.split('.').all(|label| !label.is_empty() && label.chars().all(is_of_a_name))
        }),
        None => false,
    }
}

/// `a.b.c`, `b.c`, `c`.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |rest| rest.split_once('.').map(|(_, rest)| rest))
}

fn escaped(name: &str) -> String {
    name.replace('.', r"\.").replace('[', r"\[")
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Undoes `%40` and its like in a user name or password.
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

/// What may be shown on a terminal, and not endlessly much of it.
fn printable(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String =
        text.chars()
            .take(SHOWN)
            .map(|c| {
                if c.is_control() || is_invisible(c) { c.escape_default().to_string() } else { c.to_string() }
            })
            .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Marks that reorder or hide text without being control characters.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::{RegexSet, RegexSetBuilder};

    use super::*;

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

    /// As tinyproxy compiles them: extended, not case-sensitive, bytes.
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
                "example.com",
                "example.net",
                "*.example.org",
                "files.example:8443",
                "plain.example:80",
                "xn--bcher-kva.example",
                "*.xn--bcher-kva.example",
                "xn--80a.example",
                "some_host.example",
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
             list:5: `10.0.0.1`: an address cannot be listed here, only a name; put `IP:PORT` under `lan` in the \
             configuration or pass it by `--allow`"
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
            ("*", "everything cannot be allowed"),
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
        assert_eq!(file(&lines(2000)).unwrap().warnings(), [] as [&str; 0]);
        let many = file(&lines(2001)).unwrap();
        assert!(many.warnings()[0].starts_with("the allowlist has 2001 entries"), "{:?}", many.warnings());
        let covered = file(&(lines(5000) + "*.some.example\n".repeat(3000).as_str())).unwrap();
        assert!(
            covered.warnings()[0].starts_with("the allowlist has 5001 entries"),
            "{:?}",
            covered.warnings()
        );
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
            ("127.0.0.1:80", "loopback is the proxy's own"),
            ("[::1]:80", "loopback is the proxy's own"),
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
        assert!(Entry::parse("10.0.0.7").unwrap_err().to_string().contains("it needs a port"));
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
                r"^([-a-z0-9_]+\.)*example\.com:443$",
                r"^([-a-z0-9_]+\.)*example\.com:80$",
                r"^http://([-a-z0-9_]+\.)*example\.com(:80)?/",
                r"^x\.example\.com:8080$",
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
            conf("A\n@UPSTREAM@\nB\n", &list, Some(&upstream)),
            "A\nUpstream http me:s/cret@proxy.corp:3128\nUpstream none \".corp.example\"\nUpstream none \".x\"\n\
             Upstream none \"host.docker.internal\"\nUpstream none \"localhost\"\nB\n"
        );
        assert_eq!(conf("A\n@UPSTREAM@\nB\n", &list, None), "A\nB\n");
        assert_eq!(upstream.lan(), "proxy.corp 3128\n");
        assert!(!format!("{upstream:?}").contains("cret"));
        assert_eq!(Upstream::parse("127.0.0.1:3128", "").unwrap().lan(), "host.docker.internal 3128\n");
        assert!(Upstream::parse("socks5://proxy:1080", "").is_err());
        assert!(Upstream::parse("http://me:a%0aPort 1@proxy:1080", "").is_err());
    }

    /// Whether it is a wildcard, the labels of its name, its port.
    type Line = (bool, Vec<String>, u16);

    /// The third reading, which shares nothing with the others: labels from the right, one by one.
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

    /// How many names the property test tries: `PI_TEST_CASES=1000000 cargo test --release domain` for a million.
    fn cases() -> u32 {
        let names = std::env::var("PI_TEST_CASES")
            .ok()
            .and_then(|names| names.parse::<usize>().ok())
            .unwrap_or(16_384);
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

    /// Mostly near misses: a listed name, and a few changes to its text.
    fn names(lines: &[Line]) -> impl Strategy<Value = Vec<(String, u16)>> + use<> {
        let known: Vec<String> = lines.iter().map(|(_, name, _)| name.join(".")).collect();
        let change =
            (0..6u8, any::<prop::sample::Index>(), prop_oneof!["[ab.]", "[-A-Z0-9_.]", "\\PC", "(?s)."]);
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
                // A label that begins or ends badly, or a public suffix: other tests say which those are.
                return Err(TestCaseError::reject("not a list"));
            };
            let filter = compiled(&list.filter());
            for (host, port) in names {
                let expected = oracle(&lines, &host, port);
                prop_assert_eq!(list.matching(&host, port).is_some(), expected, "matcher: {:?}", (&text, &host, port));
                prop_assert_eq!(filter.is_match(&format!("{host}:{port}")), expected, "filter: {:?}", (&text, &host, port));
                let plain = filter.is_match(&format!("http://{host}:{port}/x")) || (port == 80 && filter.is_match(&format!("http://{host}/")));
                // A slash within what stands for the host ends it, so it is not this host that is asked for.
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
                        // What is shown means the same when it is typed again.
                        for entry in list.entries() {
                            prop_assert_eq!(&Entry::parse(&entry.to_string()).unwrap().host, &entry.host);
                        }
                    },
                    Err(problems) => prop_assert!(!problems.to_string().chars().any(|c| c != '\n' && c.is_control())),
                }
            }
        }
    }
}
