//! Servers on this machine's loopback, which no container reaches: the launcher passes requests on to them, from a socket
//! that only the sidecar has.

use serde::Serialize;

use super::base::Base;

/// Where the sockets are in the sidecar.
pub(crate) const DIRECTORY: &str = "/run/pi-relay";

/// A server on the loopback.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Relay {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Relay {
    pub(super) fn to(base: &Base) -> Self {
        Self { host: base.host.to_string(), port: base.port }
    }

    /// The name of its socket.
    pub(crate) fn socket(&self) -> String {
        format!("{}-{}", self.host, self.port)
    }
}
