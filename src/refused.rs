//! Refused destinations, from tinyproxy's log.
//!
//! The log repeats bytes that the agent chose, and users see them on a terminal. So a line counts only if its whole
//! form is right. A destination may have letters, digits and `. _ : [ ] -`; any other becomes [`ODD`].

mod proposal;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    domain::{Entry, learn},
    report::{self, quote},
};

pub(crate) use self::proposal::proposal;

/// Stands for a destination that is not safe to show.
pub(crate) const ODD: &str = "<non-printable>";

/// Stands for all destinations after the first [`DISTINCT`] ones.
pub(crate) const OTHERS: &str = "<others>";

/// This limit keeps an agent from filling the launcher's memory with new names.
const DISTINCT: usize = 1000;

/// The longest host and port: 253, a colon and five digits; an address in brackets is shorter.
const LONGEST: usize = 260;

/// tinyproxy cuts its lines at about 800 bytes, so it has not written a longer one.
const LONGEST_LINE: usize = 4096;

/// The agent itself asks these hosts for news about itself and models, so users need not hear of them. It would also
/// fetch tools from GitHub, but the image has them: a refused GitHub is part of a task.
const UNASKED: [&str; 2] = ["pi.dev:443", "radius.pi.dev:443"];

/// How often a destination was refused, and when first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) times: u64,
    /// Seconds since 1970, by the launcher's clock: the log has no year and no time zone.
    pub(crate) first: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    counts: BTreeMap<String, Count>,
}

impl Refused {
    /// Counts one line of the log, with or without its line end. It returns a destination that was refused for the
    /// first time, for the caller to save.
    pub(crate) fn line(&mut self, line: &[u8], now: SystemTime) -> Option<&str> {
        let destination = destination(line).filter(|destination| !is_made_up(destination))?;
        self.count(destination, now)
    }

    /// Counts a destination, and returns it if it is the first time.
    fn count(&mut self, destination: String, now: SystemTime) -> Option<&str> {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let full = self.counts.len() >= DISTINCT && !self.counts.contains_key(&destination);
        let key = if full { OTHERS.to_owned() } else { destination };
        let count = self.counts.entry(key.clone()).or_insert(Count { times: 0, first: seconds });
        count.times = count.times.saturating_add(1);
        if count.times > 1 {
            return None;
        }
        self.counts.get_key_value(&key).map(|(key, _)| key.as_str())
    }

    /// Counts a request in the log of a session that learns, if the rules for learning admit it.
    pub(crate) fn learn(&mut self, line: &[u8], now: SystemTime) {
        if let Some(destination) = requested(line).filter(|destination| learn::admits(destination)) {
            self.count(destination, now);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Every destination, in the order of their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, Count)> {
        self.counts.iter().map(|(destination, count)| (destination.as_str(), *count))
    }

    /// The destinations to mention at the exit, without those that the agent asks for by itself; the most frequent
    /// first.
    pub(crate) fn asked(&self) -> Vec<(&str, Count)> {
        let mut asked: Vec<_> = self.all().filter(|(destination, _)| !is_unasked(destination)).collect();
        asked.sort_by_key(|(_, count)| std::cmp::Reverse(count.times));
        asked
    }

    /// Text for [`Refused::restore`], with lines of `FIRST TIMES DESTINATION`.
    pub(crate) fn save(&self) -> String {
        let line =
            |(destination, Count { times, first }): (&str, Count)| format!("{first} {times} {destination}\n");
        self.all().map(line).collect::<Vec<_>>().concat()
    }

    /// Reads saved text, with the same rules: others may have changed it.
    pub(crate) fn restore(text: &str) -> Refused {
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(first), Some(times), Some(destination)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (Ok(first), Ok(times)) = (first.parse(), times.parse()) else { continue };
            let known = destination == ODD || destination == OTHERS || is_safe(destination.as_bytes());
            if known && counts.len() <= DISTINCT {
                counts.insert(destination.to_owned(), Count { times, first });
            }
        }
        Refused { counts }
    }
}

/// Whether the agent asks for this by itself, and not for a task.
pub(crate) fn is_unasked(destination: &str) -> bool {
    UNASKED.contains(&destination)
}

/// Whether it is one of the random names that gate and sidecar use to test the rules. They end in `.invalid`, a
/// top-level domain that does not exist.
fn is_made_up(destination: &str) -> bool {
    destination.strip_suffix(":443").is_some_and(|host| {
        host.strip_suffix(".invalid")
            .is_some_and(|name| name.len() == 20 && name.bytes().all(|b| b.is_ascii_lowercase()))
    })
}

/// How to allow a refused destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// With this word for `pi allow`, while the session runs.
    Live(String),
    /// With this value of `pi --allow`, in a new session: it needs a route from the start.
    AtStart(String),
}

/// How to allow a destination. There is no suggestion for an unprintable one, and none for an address where a cloud
/// gives a machine its secrets.
pub(crate) fn suggestion(destination: &str) -> Option<Way> {
    let (host, _) = destination.rsplit_once(':')?;
    if is_of_a_cloud(host) {
        return None;
    }
    let entry = Entry::parse(destination).ok()?;
    Some(if entry.is_lan() { Way::AtStart(entry.to_string()) } else { Way::Live(entry.to_string()) })
}

/// How many destinations the line at the exit names.
const NAMED: usize = 3;

/// Prints one line with the refused destinations and how to allow them. `list` is the allowlist that the user named, if
/// any.
pub(crate) fn say_at_exit(refused: &Refused, list: Option<&Path>) {
    let asked = refused.asked();
    if asked.is_empty() {
        return;
    }
    let mut names: Vec<String> = asked
        .iter()
        .take(NAMED)
        .map(|(destination, count)| format!("{destination} ({}×)", count.times))
        .collect();
    if asked.len() > NAMED {
        names.push(format!("{} more, see `pi blocked`", asked.len() - NAMED));
    }
    let next = next(list, asked.iter().take(NAMED).map(|(destination, _)| *destination));
    report::note(format_args!("refused: {}{next}", names.join(", ")));
}

/// The commands that allow these destinations.
fn next<'a>(list: Option<&Path>, destinations: impl Iterator<Item = &'a str>) -> String {
    let (mut live, mut at_start) = (String::new(), String::new());
    for way in destinations.filter_map(suggestion) {
        match way {
            Way::Live(entry) => live = live + " " + &entry,
            Way::AtStart(entry) => at_start = at_start + " --allow " + &entry,
        }
    }
    let list =
        list.map(|list| format!(" --allowed-domains {}", quote(&list.to_string_lossy()))).unwrap_or_default();
    match (live.as_str(), at_start.as_str()) {
        ("", "") => String::new(),
        (_, "") => format!("; allow with `pi{list} allow --save{live}`"),
        ("", _) => format!("; allow in a new session with `pi{list}{at_start}`"),
        _ => {
            format!("; allow with `pi{list} allow --save{live}`, in a new session with `pi{list}{at_start}`")
        }
    }
}

fn is_of_a_cloud(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(v4)) => v4.is_link_local() || v4 == Ipv4Addr::new(100, 100, 100, 200),
        Ok(IpAddr::V6(v6)) => v6.is_unicast_link_local() || v6.segments()[..2] == [0xfd00, 0xec2],
        Err(_) => false,
    }
}

/// Seconds since 1970 as `2025-11-21T19:40:22Z`.
pub(crate) fn utc(seconds: u64) -> impl fmt::Display {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Years begin in March here: then the leap day is the last day, and a formula gives the month.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads `NOTICE    Nov 21 19:40:22.528 [1]: Proxying refused on filtered url "evil.test:443"`, and no other line.
fn destination(line: &[u8]) -> Option<String> {
    let quoted = said(line, b"NOTICE ")?.strip_prefix(b"Proxying refused on filtered url \"")?;
    // A long request is cut off and has no closing quote.
    let named = quoted.strip_suffix(b"\"").unwrap_or(b"");
    Some(authority(named).unwrap_or_else(|| ODD.to_owned()))
}

/// Reads `CONNECT   Nov 21 19:40:19.143 [1]: Request (file descriptor 4): CONNECT example.com:443 HTTP/1.1`.
fn requested(line: &[u8]) -> Option<String> {
    let rest = said(line, b"CONNECT ")?.strip_prefix(b"Request (file descriptor ")?;
    let end = rest.iter().position(|&b| !b.is_ascii_digit())?;
    let rest = rest[end..].strip_prefix(b"): CONNECT ")?;
    let (named, version) = rest.split_at(rest.iter().position(|&b| b == b' ')?);
    version.starts_with(b" HTTP/1.").then(|| authority(named)).flatten()
}

/// What tinyproxy says in a line of this level.
fn said<'a>(line: &'a [u8], level: &[u8]) -> Option<&'a [u8]> {
    if line.len() > LONGEST_LINE {
        return None;
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // tinyproxy writes the words before the bracket; no client can put anything there.
    let rest = line.strip_prefix(level)?;
    let at = rest.iter().position(|&b| b == b'[')?;
    if !rest[..at].iter().all(|&b| b.is_ascii_alphanumeric() || b" :.".contains(&b)) {
        return None;
    }
    let rest = &rest[at + 1..];
    let end = rest.iter().position(|&b| !b.is_ascii_digit())?;
    rest[end..].strip_prefix(b"]: ")
}

/// `HOST:PORT` of a tunnel or of a plain request. Path and query are dropped: they may be secrets.
fn authority(named: &[u8]) -> Option<String> {
    let (named, port) = match named.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"http://") => {
            let rest = &named[7..];
            let end = rest.iter().position(|&b| b"/?#".contains(&b)).unwrap_or(rest.len());
            (&rest[..end], ":80")
        }
        _ => (named, ":443"),
    };
    if !is_safe(named) {
        return None;
    }
    let mut text = std::str::from_utf8(named).ok()?.to_ascii_lowercase();
    let after_address = text.rsplit_once(']').map_or(text.as_str(), |(_, rest)| rest);
    if !after_address.contains(':') {
        text.push_str(port);
    }
    Some(text)
}

fn is_safe(named: &[u8]) -> bool {
    !named.is_empty()
        && named.len() <= LONGEST
        && named.iter().all(|&b| b.is_ascii_alphanumeric() || b"._:[]-".contains(&b))
}

#[cfg(test)]
mod tests;
