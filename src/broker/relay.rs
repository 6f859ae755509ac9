//! Servers to which the launcher passes requests on, from a socket that only the sidecar has: those on this machine's
//! loopback, which no container reaches, and providers behind the proxy that this machine uses itself.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::base::Base;
use crate::host::hex;

/// Where the sockets are in the sidecar.
pub(crate) const DIRECTORY: &str = "/run/pi-relay";

/// A socket's path has about a hundred bytes at most.
const LONGEST: usize = 64;

/// A server, and the way there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Relay {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// The server is on this machine's loopback.
    Loopback,
    /// This machine's own proxy is asked for a tunnel. What goes through it is the broker's TLS.
    Proxy,
}

impl Relay {
    pub(super) fn to(base: &Base, way: Way) -> Self {
        Self { host: base.host.to_string(), port: base.port, way }
    }

    /// The name of its socket.
    pub(crate) fn socket(&self) -> String {
        let name = format!("{}-{}", self.host, self.port);
        if name.len() <= LONGEST { name } else { hex(&Sha256::digest(name))[..32].to_owned() }
    }
}
