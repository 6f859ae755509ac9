//! Renders HAProxy's configuration for a broker. The only module that knows HAProxy's language.
//!
//! The configuration contains no secret: those are in a map file, where each is data up to the end of its line, and
//! can be exchanged while HAProxy runs. It loads in 2.6 (Debian 12) and 3.0 (Debian 13).

mod endpoint;
mod github;

use std::{ffi::OsString, net::SocketAddrV4, os::unix::ffi::OsStringExt as _};

use super::{Broker, base::Host, route::Route};
use crate::{broker::provider::Provider, secret::Secret};

/// Where things are in the sidecar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) listen: SocketAddrV4,
    /// A directory that only HAProxy's user can read: an absolute path of letters, digits, `/` and `-`.
    pub(crate) directory: &'a str,
    /// The certificates of those who may vouch for a provider, as one file.
    pub(crate) authorities: &'a str,
}

/// What the sidecar's supervisor gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) config: String,
    /// Secret, whole.
    pub(crate) keys: Secret,
}

#[cfg(test)]
pub(crate) const CONFIG: &str = "haproxy.cfg";
pub(crate) const KEYS: &str = "keys.map";
pub(crate) const SOCKET: &str = "admin.sock";

/// The largest request; conversations with pictures come to some tens of megabytes.
const LARGEST: u64 = 128 << 20;

/// How a line of the log begins. What follows is route, method, host, status, bytes, milliseconds and how it ended;
/// `--` at the end means that the provider answered, so the status is the provider's own.
pub(crate) const LOG: &str = "broker";

/// Besides the carriers: what proxies and frameworks read as another address, method, path or user.
const REMOVED: &[&str] = &[
    "cookie", "forwarded", "from", "proxy-authorization", "te", "via", "x-amz-security-token",
    "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto",
    "x-forwarded-server", "x-goog-user-project", "x-host", "x-http-method", "x-http-method-override",
    "x-method-override", "x-original-host", "x-original-url", "x-real-ip", "x-rewrite-url",
];

impl Files {
    pub(crate) fn new(broker: &Broker, place: &Place<'_>) -> Self {
        let mut lines = head(place);
        lines.extend(frontend(place.listen, &broker.routes));
        for route in &broker.routes {
            for (at, endpoint) in route.endpoints.iter().enumerate() {
                let relay = broker.relay(endpoint);
                lines.push(String::new());
                lines.extend(endpoint::backend(
                    route,
                    endpoint,
                    &backend_name(route, at),
                    place,
                    relay.as_ref(),
                ));
            }
        }
        if let Some(github) = &broker.github {
            lines.extend(github::frontend(place));
            lines.extend(github::backends(github, place, &|endpoint| broker.relay(endpoint)));
        }
        lines.push(String::new());
        Self { config: lines.join("\n"), keys: keys(broker) }
    }
}

/// One line for each secret: its name in the map, and the secret.
pub(super) fn keys(broker: &Broker) -> Secret {
    let mut map = Vec::new();
    let token = broker.github.iter().map(|github| (github::KEY.to_owned(), &github.token));
    for (name, secret) in broker.routes.iter().flat_map(secrets).chain(token) {
        map.extend_from_slice(name.as_bytes());
        map.push(b' ');
        map.extend_from_slice(secret.bytes());
        map.push(b'\n');
    }
    Secret::new(OsString::from_vec(map))
}

fn secrets(route: &Route) -> Vec<(String, &Secret)> {
    let Route { secret, fixed, swaps, .. } = route;
    let fixed = fixed.iter().map(|(header, secret)| (fixed_name(route, header), secret));
    let swaps = swaps.iter().enumerate().map(|(at, swap)| (swap_name(route, at), &swap.secret));
    [(key_name(route), secret)].into_iter().chain(fixed).chain(swaps).collect()
}

fn key_name(route: &Route) -> String {
    route.name.clone()
}

fn fixed_name(route: &Route, header: &str) -> String {
    format!("{}/{header}", route.name)
}

fn swap_name(route: &Route, at: usize) -> String {
    format!("{}/{at}", route.name)
}

fn backend_name(route: &Route, at: usize) -> String {
    format!("{}.{at}", route.name)
}

fn head(place: &Place<'_>) -> Vec<String> {
    let Place { directory, .. } = place;
    [
        "global",
        "    log stdout format raw local0 info",
        &format!("    stats socket '{directory}/{SOCKET}' mode 600 level admin"),
        "    maxconn 256",
        "    nbthread 1",
        "    hard-stop-after 10s",
        "    tune.bufsize 32768",
        "    ssl-default-server-options ssl-min-ver TLSv1.2",
        // Of HAProxy's own client, which nothing here uses; it would read all of the system's certificates at each start.
        "    httpclient.ssl.verify none",
        "",
        "resolvers container",
        "    parse-resolv-conf",
        "    accepted_payload_size 8192",
        "    resolve_retries 3",
        "    timeout resolve 1s",
        "    timeout retry 1s",
        "    hold valid 10s",
        "    hold nx 1s",
        "    hold other 1s",
        "    hold refused 1s",
        "    hold timeout 1s",
        "",
        "defaults",
        "    mode http",
        "    log global",
        &format!("    log-format '{LOG} %[var(txn.route)] %HM %[var(txn.host)] %ST %B %Ta %ts'"),
        "    option dontlognull",
        // When the agent gives up, the provider stops too.
        "    option abortonclose",
        // Else two chunks of an answer travel together, the first of them late.
        "    option http-no-delay",
        "    timeout connect 10s",
        "    timeout http-request 30s",
        "    timeout http-keep-alive 10m",
        // A model may think for very long before it says anything.
        "    timeout client 1h",
        "    timeout server 1h",
        "    timeout tunnel 4h",
        "    timeout client-fin 30s",
        "    timeout queue 30s",
        &error(400, "the request is malformed"),
        &error(408, "the request did not arrive in time"),
        &error(500, "the broker failed"),
        &error(502, "the answer of the provider is malformed"),
        &error(503, "the provider could not be reached, or its certificate is not valid"),
        &error(504, "the provider did not answer in time"),
        "",
    ]
    .map(str::to_owned)
    .into()
}

fn error(status: u16, text: &str) -> String {
    format!("    http-error status {status} content-type text/plain string 'pi: {text}'")
}

/// A refusal with a text that tells the user whose it is.
fn deny(status: u16, text: &str, condition: &str) -> String {
    let line = format!(
        "    http-request deny status {status} content-type text/plain string 'pi: {text}' {condition}"
    );
    line.trim_end().to_owned()
}

fn frontend(listen: SocketAddrV4, routes: &[Route]) -> Vec<String> {
    let mut lines = vec![
        "frontend agent".to_owned(),
        format!("    bind {listen} proto h1"),
        deny(400, "the request names no path", "unless { url_beg / }"),
        deny(403, "no provider is asked in this way", "unless { method POST GET }"),
        deny(
            400,
            "the path is odd",
            "if { path -m sub .. // ';' '\\' } or { path -m sub -i %2e %5c %25 %00 }",
        ),
        deny(400, "the path is odd", &format!("if {{ path -m sub -i %2f }} !{{ {} }}", slashes())),
        deny(411, "the request has no length", "if { req.hdr_cnt(transfer-encoding) gt 0 }"),
        deny(413, "the request is too large", &format!("if {{ req.body_size gt {LARGEST} }}")),
    ];
    lines.extend(REMOVED.iter().map(|name| format!("    http-request del-header {name}")));
    for route in routes {
        for (at, endpoint) in route.endpoints.iter().enumerate() {
            let prefix = endpoint::prefix(route, endpoint);
            lines.push(format!("    use_backend {} if {{ path_beg '{prefix}' }}", backend_name(route, at)));
        }
    }
    lines.extend([
        "    default_backend none".to_owned(),
        String::new(),
        "backend none".to_owned(),
        deny(421, "there is no key for this address", ""),
    ]);
    lines
}

/// The only paths with an encoded slash: the models of Bedrock, whose names may be ARNs.
fn slashes() -> String {
    let bedrock = Provider::named("amazon-bedrock").map_or("amazon-bedrock", |known| known.id);
    format!("path_beg '/{bedrock}/'")
}

/// Whether the name is one that the resolver does not know: docker writes it into the container's hosts file.
fn is_in_hosts(host: &Host) -> bool {
    matches!(host, Host::Name(name) if name == crate::domain::HOST_NAME)
}
