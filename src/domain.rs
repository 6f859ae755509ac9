//! What an allowlist says: parse it, match against it, render it for the proxy.
//!
//! The language, one entry a line: `example.com` is that name on port 443, `*.example.com` is the domain itself and all
//! below it, `host:PORT` is that port and no other, plain HTTP is allowed by an explicit `:80` only, `#` begins a comment.
//! A [`Lan`](Source::Lan) exception is a private address (or a name for one) with a port; it comes from the config's `lan`, from
//! `--allow`, or is `host.docker.internal:PORT` anywhere.
//!
//! Matching and rendering are two readings of the same entries. A property test holds them against each other and
//! against a third, independent one.

mod name;
pub(crate) mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use self::name::{
    Host, address, bracketed, escaped, host_and_port, is_address, is_below, pattern, port_number, printable,
    split_port, suffixes, target_host,
};

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

impl Entry {
    /// What a user types to `--allow` and `pi allow`; an error is the reason alone.
    pub(crate) fn parse(text: &str) -> Result<Entry, String> {
        option(text)
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

impl Problems {
    /// Whether no file is to be edited, only another command to be typed.
    pub(crate) fn are_of_the_command_line(&self) -> bool {
        self.0.iter().all(|problem| problem.origin == Origin::Option)
    }
}

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

    /// What this list has and `before` had not, and what is no longer admitted, each as one would write it.
    pub(crate) fn difference<'a>(&'a self, before: &'a Allowlist) -> (Vec<&'a Entry>, Vec<&'a Entry>) {
        let written = |list: &'a Allowlist| -> BTreeMap<String, &'a Entry> {
            list.merged().into_iter().map(|entry| (entry.to_string(), entry)).collect()
        };
        let (now, then) = (written(self), written(before));
        let came =
            now.iter().filter(|(text, _)| !then.contains_key(*text)).map(|(_, entry)| *entry).collect();
        let gone = then
            .iter()
            .filter(|(text, entry)| !now.contains_key(*text) && !now.values().any(|new| new.covers(entry)))
            .map(|(_, entry)| *entry)
            .collect();
        (came, gone)
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

#[cfg(test)]
mod tests;
