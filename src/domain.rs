//! The allowlist: parses it, matches against it, and renders it for the proxy.
//!
//! A list has one entry a line. `example.com` is that name on port 443. `*.example.com` is the domain and everything
//! below it. `host:PORT` is that port and no other. Plain HTTP needs an explicit `:80`. `#` begins a comment.
//!
//! An exception for the local network is a private address or a name, with a port. It comes from the config's `lan` or
//! from `--allow`. `host.docker.internal:PORT` is one in every list.
//!
//! Matching and rendering read the same entries. A property test compares both with a third, independent reading.

mod entry;
pub(crate) mod learn;
mod name;
mod target;
pub(crate) mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub(crate) use self::{entry::Entry, name::is_open_to_all, target::Target};
use self::{
    entry::{Origin, Rule},
    name::{Host, printable, suffixes},
};

/// Containers reach the machine they run on by this name.
pub(crate) const HOST_NAME: &str = "host.docker.internal";

/// With more rules than this tinyproxy becomes slow: it tries one after the other.
const MANY: usize = 10_000;

/// tinyproxy reads 511 bytes a line; the tail of a longer one would be a rule of its own.
const LONGEST_RULE: usize = 500;

/// The default allowlist, for users without one.
pub(crate) const DEFAULT: &str = include_str!("../assets/allowed_domains.txt");

/// Text with entries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A whole allowlist file; messages call it `name`.
    File { name: &'a str, text: &'a [u8] },
    /// One `--allow`, or one word of `pi allow`.
    Option(&'a str),
    /// One element of the config's `lan`.
    Lan(&'a str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    origin: Origin,
    text: String,
    reason: String,
}

/// All refused entries in the order of the sources, shown one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Whether the user typed all of them, so that there is no file to edit.
    pub(crate) fn are_of_the_command_line(&self) -> bool {
        self.0.iter().all(|problem| problem.origin == Origin::Option)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |Problem { origin, text, reason }: &Problem| format!("{origin}: `{text}`: {reason}");
        f.write_str(&self.0.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Problems {}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Allowlist {
    entries: Vec<Entry>,
    /// Whether every public name is admitted, to learn which ones are needed.
    learns: bool,
}

impl Allowlist {
    /// Reads all sources. The error has every bad entry, not only the first.
    pub(crate) fn read(sources: &[Source]) -> Result<Allowlist, Problems> {
        let mut entries = Vec::new();
        let mut problems = Vec::new();
        let mut take = |origin, text: &str, parsed: Result<Option<Entry>, String>| match parsed {
            Ok(entry) => entries.extend(entry.map(|entry| Entry { origin, ..entry })),
            Err(reason) => problems.push(Problem { origin, text: printable(text), reason }),
        };
        for source in sources {
            match *source {
                Source::File { name, text } => {
                    for (line, bytes) in lines(text) {
                        let parsed = std::str::from_utf8(bytes)
                            .map_err(|_| "it is not valid UTF-8".to_owned())
                            .and_then(|line| uncommented(line).map(Entry::of_file).transpose());
                        let origin = Origin::File { name: name.to_owned(), line };
                        take(origin, String::from_utf8_lossy(bytes).trim(), parsed);
                    }
                }
                Source::Option(text) => take(Origin::Option, text, Entry::parse(text).map(Some)),
                Source::Lan(text) => take(Origin::Lan, text, Entry::of_lan(text).map(Some)),
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        Ok(Allowlist { entries, learns: false })
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the user should know before a session starts.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let is_bare_host = |entry: &&Entry| {
            entry.lan && entry.name() == HOST_NAME && entry.port == 443 && entry.origin != Origin::Lan
        };
        if let Some(entry) = self.entries.iter().find(is_bare_host) {
            doubts.push(format!(
                "{}: `{HOST_NAME}` means port 443 of this machine; write `{HOST_NAME}:PORT` for another port",
                entry.origin
            ));
        }
        let rules = self.merged().len();
        if rules == 0 {
            doubts.push("the allowlist is empty: everything will be refused".to_owned());
        } else if rules > MANY {
            doubts.push(format!(
                "the allowlist has {rules} entries; more than {MANY} slow down every request noticeably"
            ));
        }
        doubts
    }

    /// The first entry that admits a tunnel to this host and port. Like the proxy, it compares the text that a client
    /// sends: a trailing dot or another spelling of an address does not match.
    #[cfg(test)]
    pub(crate) fn matching(&self, host: &str, port: u16) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.admits(host, port))
    }

    /// Whether an entry admits a tunnel to this host and port.
    pub(crate) fn permits_tunnel(&self, host: &str, port: u16) -> bool {
        self.entries.iter().any(|entry| entry.admits(host, port))
    }

    /// The first entry that admits this request.
    pub(crate) fn permits(&self, target: &Target) -> Option<&Entry> {
        let Target { host, port, plain } = target;
        self.entries.iter().find(|entry| entry.admits(host, *port) && (!plain || entry.lan || *port == 80))
    }

    /// The new entries of this list, and the entries of `before` that it no longer admits.
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

    /// The proxy's filter file, without entries that another one covers.
    pub(crate) fn filter(&self) -> String {
        let mut groups: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for Rule { before, host, behind } in self.merged().into_iter().flat_map(Entry::rules) {
            groups.entry((before, behind)).or_default().insert(host);
        }
        let learning = if self.learns { format!("{}\n", learn::RULE) } else { String::new() };
        groups.iter().map(|((before, behind), hosts)| joined(before, hosts, behind)).collect::<String>()
            + &learning
    }

    /// The same list with every public name besides.
    pub(crate) fn learning(self) -> Self {
        Self { learns: true, ..self }
    }

    /// The exceptions from the closed address ranges, one `HOST PORT` a line.
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
        // Shorter names first: an entry never covers a shorter name. Each name is looked up by its suffixes, so the
        // time does not grow with the square of the list's length.
        let mut kept: BTreeMap<(&str, u16), Vec<&Entry>> = BTreeMap::new();
        let mut order: Vec<&Entry> = self.entries.iter().collect();
        order.sort_by_key(|entry| (entry.name().len(), !entry.lan, !matches!(entry.host, Host::AndBelow(_))));
        let mut merged = Vec::new();
        for entry in order {
            let covered = suffixes(entry.name())
                .filter_map(|suffix| kept.get(&(suffix, entry.port)))
                .flatten()
                .any(|other| other.covers(entry));
            if !covered {
                kept.entry((entry.name(), entry.port)).or_default().push(entry);
                merged.push(entry);
            }
        }
        merged
    }
}

/// As few lines as hold a rule for each host: the proxy tries one line after the other, and each costs it memory.
fn joined(before: &str, hosts: &BTreeSet<String>, behind: &str) -> String {
    let mut lines = String::new();
    let mut line: Vec<&str> = vec![];
    let mut room = LONGEST_RULE;
    let mut end = |line: &mut Vec<&str>| {
        let hosts = line.join("|");
        let hosts = if line.len() > 1 { format!("({hosts})") } else { hosts };
        lines += &[before, &hosts, behind, "\n"].concat();
        line.clear();
    };
    for host in hosts {
        if host.len() + 1 > room && !line.is_empty() {
            end(&mut line);
            room = LONGEST_RULE;
        }
        if line.is_empty() {
            room = room.saturating_sub(before.len() + behind.len() + 2);
        }
        line.push(host);
        room = room.saturating_sub(host.len() + 1);
    }
    end(&mut line);
    lines
}

/// The lines of a file with their numbers, without line ends and without a byte order mark.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    (1..).zip(text.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)))
}

/// The line without its comment. A comment begins with `#` at the start of the line or after a blank; a `#` inside a
/// word stays, and is refused later.
fn uncommented(line: &str) -> Option<&str> {
    let begins = |at: &usize| line[..*at].is_empty() || line[..*at].ends_with([' ', '\t']);
    let end = line.match_indices('#').map(|(at, _)| at).find(begins).unwrap_or(line.len());
    Some(line[..end].trim_matches([' ', '\t'])).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
