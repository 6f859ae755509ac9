//! How names, addresses and ports are spelled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::HOST_NAME;

/// Names are lower-case ASCII without a trailing dot, and their labels are checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    Name(String),
    AndBelow(String),
    Address(IpAddr),
}

/// Splits an entry into host and port. The error names common mistakes.
pub(super) fn host_and_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("it contains a control character".to_owned());
    }
    if text.chars().any(char::is_whitespace) {
        return Err("it has more than one word; write one entry a line".to_owned());
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

/// Splits `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`. A bare IPv6 address is a host without a port.
pub(super) fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
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
    // One colon is before a port; most entries have none.
    if text.matches(':').count() > 1 && text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    Ok(match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    })
}

pub(super) fn port_number(text: &str) -> Result<u16, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    match text.parse::<u16>() {
        Ok(port) if plain => Ok(port),
        _ => Err("its port is not a number from 1 to 65535".to_owned()),
    }
}

/// Whether a resolver could take this for an address: it has a colon, or its last label is a number. Clients use C's
/// `inet_aton`, which takes decimal, octal, hexadecimal and shortened forms. No top-level domain is a number.
pub(super) fn is_address(host: &str) -> bool {
    if host.starts_with('*') {
        return false;
    }
    if host.contains(':') || host.starts_with('[') {
        return true;
    }
    // A list has thousands of names, nearly all of them plain.
    let ascii = if host.is_ascii() {
        host.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii(host).unwrap_or_else(|_| host.to_ascii_lowercase())
    };
    let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
    let last = ascii.rsplit('.').next().unwrap_or(ascii);
    let hexadecimal =
        last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    hexadecimal || (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) fn address(host: &str) -> Result<IpAddr, String> {
    let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| "it is not an IPv6 address"),
        None if host.parse::<Ipv6Addr>().is_ok() => {
            Err("write an IPv6 address in brackets, as in `[fd00::1]:443`")
        }
        None => host
            .parse::<Ipv4Addr>()
            .map(IpAddr::V4)
            .map_err(|_| "write an IPv4 address as four decimal numbers"),
    }?;
    if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return Err("write the IPv4 address itself".to_owned());
    }
    if address.is_loopback() {
        return Err(format!("loopback means the proxy itself; write `{HOST_NAME}:PORT` for this machine"));
    }
    if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err("no single machine has this address".to_owned());
    }
    Ok(address)
}

pub(super) fn pattern(text: &str) -> Result<Host, String> {
    let Some(rest) = text.strip_prefix("*.") else {
        if text == "*" {
            return Err("no entry allows everything; leave out `--proxy` for that".to_owned());
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
        return Err("a wildcard goes before a domain, not before an address".to_owned());
    }
    let name = name(rest)?;
    if !name.contains('.') {
        return Err("a whole top-level domain is too wide".to_owned());
    }
    // Registries sell names below `co.uk`, and companies hand out names below `github.io`.
    let is_suffix = psl::suffix(name.as_bytes())
        .is_some_and(|suffix| suffix.typ().is_some() && suffix.as_bytes() == name.as_bytes());
    if is_suffix && !OF_ONE_OWNER.contains(&name.as_str()) {
        return Err(
            "it is a public suffix, so anybody can own a name below it; list the names themselves".to_owned()
        );
    }
    if ABOVE_SUFFIXES.lines().chain(ALSO_ABOVE).any(|above| above == name) {
        return Err(
            "below it are public suffixes, so anybody can own a name there; list the names themselves"
                .to_owned(),
        );
    }
    Ok(Host::AndBelow(name))
}

/// Names with public suffixes below them, from the list of public suffixes.
const ABOVE_SUFFIXES: &str = include_str!("../../assets/public_suffix_parents.txt");

/// The same of hosting companies whose suffixes are newer, and names below which anybody's address is.
const ALSO_ABOVE: [&str; 16] = [
    "windows.net", "core.windows.net", "azure.com", "azure.net", "cloudapp.azure.com", "azure-api.net",
    "cloudflare.net", "nip.io", "sslip.io", "xip.io", "traefik.me", "localtest.me", "lvh.me", "vcap.me",
    "googleapis.cn", "oraclecloud.com",
];

/// Public suffixes for the sake of browsers' cookies only: one owner serves every name below, even if others write the
/// content.
const OF_ONE_OWNER: [&str; 1] = ["githubusercontent.com"];

/// The name as a resolver gets it: lower-case, punycode, no trailing dot.
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
            return Err("between two dots there can be at most 63 characters".to_owned());
        }
        if let Some(odd) = label.chars().find(|c| !is_of_a_name(*c)) {
            return Err(format!("`{}` cannot be part of a name", odd.escape_debug()));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label cannot begin or end with `-`".to_owned());
        }
    }
    // The conversion turns international digits and full stops into plain ones.
    if is_address(name) {
        return Err("an address cannot be listed here, only a name".to_owned());
    }
    Ok(name.to_owned())
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
}

/// The host as a client would send it: lower-case and punycode, but otherwise unchanged.
pub(super) fn target_host(host: &str) -> Result<String, String> {
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

pub(super) fn is_below(host: &str, name: &str) -> bool {
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
pub(super) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |rest| rest.split_once('.').map(|(_, rest)| rest))
}

pub(super) fn escaped(name: &str) -> String {
    name.replace('.', r"\.").replace('[', r"\[")
}

pub(super) fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// The text for a terminal: escaped, and cut after 80 characters.
pub(super) fn printable(text: &str) -> String {
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

/// Characters that reorder or hide text, but are not control characters.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Hosts that show what anybody writes to them, beside the public suffixes.
const OPEN_TO_ALL: [&str; 14] = [
    "archive.org", "bitbucket.org", "codeberg.org", "dpaste.com", "drive.google.com", "dropbox.com",
    "file.io", "gist.github.com", "gitlab.com", "huggingface.co", "pastebin.com", "storage.googleapis.com",
    "transfer.sh", "webhook.site",
];

/// Whether anybody may publish or receive at this host: a way out for data, and a way in for instructions.
pub(crate) fn is_open_to_all(host: &str) -> bool {
    let below = |name: &str| host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    let of_a_company =
        psl::suffix(host.as_bytes()).is_some_and(|suffix| suffix.typ() == Some(psl::Type::Private));
    of_a_company || OPEN_TO_ALL.into_iter().any(below)
}
