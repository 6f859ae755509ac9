//! One endpoint of a route as a backend: which requests pass, what is put into them, where they go.

use super::{KEYS, Place, deny, fixed_name, is_in_hosts, key_name, swap_name};
use crate::{
    broker::{
        api::{Carrier, Rule},
        base::{Host, Scheme},
        relay::{self, Relay},
        route::{Endpoint, Reach, Route},
    },
    domain::HOST_NAME,
};

/// Addresses on which no provider of the internet listens.
const NOT_PUBLIC: &str = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 \
    192.168.0.0/16 198.18.0.0/15 224.0.0.0/3";

/// What all requests of an endpoint begin with.
pub(super) fn prefix(route: &Route, endpoint: &Endpoint) -> String {
    format!("{}{}/", own(route, endpoint), endpoint.base.path)
}

/// What the provider does not see of the path.
fn own(route: &Route, endpoint: &Endpoint) -> String {
    format!("/{}/{}", route.name, endpoint.base.authority())
}

pub(super) fn backend(
    route: &Route,
    endpoint: &Endpoint,
    name: &str,
    place: &Place<'_>,
    relay: Option<&Relay>,
) -> Vec<String> {
    let key = format!("str({}),map({}/{KEYS})", key_name(route), place.directory);
    let mut lines = vec![
        format!("backend {name}"),
        format!("    http-request set-var(txn.route) str('{}')", route.name),
        format!("    http-request set-var(txn.host) str('{}')", endpoint.base.authority()),
        deny(
            421,
            &format!("there is no key for {} now", route.name),
            &format!("unless {{ {key} -m found }}"),
        ),
    ];
    lines.extend(placeholders(route));
    lines.extend(requests(route, endpoint));
    lines.extend(headers(route, endpoint, &key, place));
    lines.extend(path(route, endpoint));
    lines.extend(server(endpoint, place, relay));
    lines
}

/// Refuses who does not have the session's placeholder, and notes in which headers it stands.
fn placeholders(route: &Route) -> Vec<String> {
    let mut lines = Vec::new();
    let mut given = Vec::new();
    for carrier in &route.carriers {
        let variable = variable(*carrier);
        lines.push(format!(
            "    http-request set-var({variable}) bool(true) if {{ req.fhdr({}) -m str '{}{}' }}",
            carrier.header(),
            carrier.scheme(),
            route.placeholder,
        ));
        given.push(format!("{{ var({variable}) -m bool }}"));
    }
    lines.push(deny(
        403,
        "this is not the placeholder of this session",
        &format!("unless {}", given.join(" or ")),
    ));
    for (at, swap) in route.swaps.iter().enumerate() {
        lines.push(format!(
            "    http-request set-var(txn.swap{at}) bool(true) if {{ req.fhdr({}) -m str '{}' }}",
            swap.header, swap.placeholder,
        ));
    }
    lines
}

fn variable(carrier: Carrier) -> String {
    format!("txn.{}", carrier.header().replace('-', "_"))
}

/// Refuses every request that the agent does not make.
fn requests(route: &Route, endpoint: &Endpoint) -> Vec<String> {
    let mut lines = Vec::new();
    let before = format!("{}{}", own(route, endpoint), endpoint.base.path);
    for rule in endpoint.apis.iter().flat_map(|api| api.rules()) {
        let Rule { method, tail, websocket } = rule;
        let path = if tail.contains('{') {
            format!("{{ pathq -m reg '^{}{}$' }}", quoted(&before), pattern(tail))
        } else {
            format!("{{ pathq -m str '{before}{tail}' }}")
        };
        let upgrade = if *websocket {
            "{ req.fhdr(upgrade) -i -m str websocket }"
        } else {
            "!{ req.hdr(upgrade) -m found }"
        };
        lines.push(format!(
            "    http-request set-var(txn.known) bool(true) if {{ method {} }} {path} {upgrade}",
            method.name()
        ));
    }
    let text = format!("the broker passes no such request to {}", endpoint.base.authority());
    lines.push(deny(403, &text, "unless { var(txn.known) -m bool }"));
    lines
}

/// A part of a path, as a regular expression for itself.
pub(super) fn quoted(text: &str) -> String {
    text.chars().flat_map(|c| c.is_ascii_punctuation().then_some('\\').into_iter().chain([c])).collect()
}

/// A rule with its variable parts, as a regular expression.
fn pattern(tail: &str) -> String {
    let mut out = String::new();
    let mut rest = tail;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        out.push_str(&quoted(before));
        out.push_str(match name {
            "arn" => "([A-Za-z0-9._~-]|%3A|%2F)+",
            _ => "[A-Za-z0-9._~@-]+",
        });
        rest = after;
    }
    out + &quoted(rest)
}

/// Takes away what may carry an identity, and puts in what the provider is to see.
fn headers(route: &Route, endpoint: &Endpoint, key: &str, place: &Place<'_>) -> Vec<String> {
    let mut lines: Vec<String> = Carrier::ALL
        .iter()
        .map(|carrier| format!("    http-request del-header {}", carrier.header()))
        .collect();
    for carrier in &route.carriers {
        lines.push(format!(
            "    http-request set-header {} '{}%[{key}]' if {{ var({}) -m bool }}",
            carrier.header(),
            carrier.scheme(),
            variable(*carrier),
        ));
    }
    for (header, _) in &route.fixed {
        let name = fixed_name(route, header);
        lines.push(format!(
            "    http-request set-header {header} '%[str({name}),map({}/{KEYS})]'",
            place.directory
        ));
    }
    for (at, swap) in route.swaps.iter().enumerate() {
        let name = swap_name(route, at);
        lines.push(format!(
            "    http-request set-header {} '%[str({name}),map({}/{KEYS})]' if {{ var(txn.swap{at}) -m bool }}",
            swap.header, place.directory
        ));
    }
    lines.push(format!("    http-request set-header host {}", endpoint.base.authority()));
    lines
}

/// Makes the provider's own path of the broker's.
fn path(route: &Route, endpoint: &Endpoint) -> Vec<String> {
    let mut lines =
        vec![format!("    http-request replace-path '^{}(/.*)$' '\\1'", quoted(&own(route, endpoint)))];
    for (from, to) in endpoint.moves {
        let base = &endpoint.base.path;
        lines.push(format!("    http-request set-path '{base}{to}' if {{ path -m str '{base}{from}' }}"));
    }
    lines
}

/// Where the requests go. The launcher's socket leads to the server of that name and nowhere else, so no address is looked
/// at there; TLS is with the server itself in any case.
pub(super) fn server(endpoint: &Endpoint, place: &Place<'_>, relay: Option<&Relay>) -> Vec<String> {
    let base = &endpoint.base;
    let mut lines = Vec::new();
    let address = match (relay, &base.host) {
        (Some(relay), _) => format!("unix@{}/{}", relay::DIRECTORY, relay.socket()),
        _ if endpoint.reach == Reach::Machine => format!("{HOST_NAME}:{} init-addr libc,none", base.port),
        (None, Host::Address(address)) => format!("{address}:{}", base.port),
        (None, host) if is_in_hosts(host) => format!("{host}:{} init-addr libc,none", base.port),
        (None, Host::Name(name)) => {
            lines.extend(resolve(name, endpoint.reach));
            format!("0.0.0.0:{}", base.port)
        }
    };
    let tls = match base.scheme {
        Scheme::Http => String::new(),
        Scheme::Https => format!(
            " ssl verify required ca-file '{}' sni str('{host}') verifyhost '{host}' alpn http/1.1",
            place.authorities,
            host = base.host,
        ),
    };
    lines.push(format!("    server provider {address}{tls}"));
    lines
}

/// Looks the name up when it is needed: a name that nobody knows is in nobody else's way.
fn resolve(name: &str, reach: Reach) -> Vec<String> {
    let mut lines = vec![
        format!("    http-request do-resolve(txn.address,container,ipv4) str('{name}')"),
        deny(502, &format!("the name {name} cannot be resolved"), "unless { var(txn.address) -m found }"),
    ];
    if reach == Reach::Public {
        let text = format!("the name {name} leads to an address that is not on the internet");
        lines.push(deny(502, &text, &format!("if {{ var(txn.address) -m ip {NOT_PUBLIC} }}")));
    }
    lines.push("    http-request set-dst var(txn.address)".to_owned());
    lines
}
