//! What a sidecar is told on its stdin when it starts.

use serde::Serialize;

use super::{LONGEST_FILE, Rendered, words};
use crate::{host::Host, report::Hinted, secret::Secret};

/// Everything that a new sidecar is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Told {
    /// This machine's own addresses, public ones too: no name may lead to them.
    pub(crate) closed: String,
    /// The agent's ports that this machine may reach, `ADDRESS PORT` a line.
    pub(crate) published: String,
    /// The allowlist, in a restricted session.
    pub(crate) rules: Option<Rendered>,
    /// The broker, in a session with keys.
    pub(crate) broker: Option<Brokered>,
}

/// A broker as its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Brokered {
    pub(crate) config: String,
    pub(crate) keys: Secret,
    /// The user's certificates, besides those of the system.
    pub(crate) authorities: String,
    /// Addresses that the user wrote down, which may be private: one `HOST PORT` a line.
    pub(crate) lan: String,
}

impl Brokered {
    /// The keys, as a running sidecar reads them.
    pub(crate) fn new_keys(keys: &Secret) -> Vec<u8> {
        words(&[("keys.map", keys.bytes())], "keys")
    }
}

impl Told {
    /// # Errors
    /// A file is longer than the sidecar takes.
    pub(crate) fn new(
        rules: Option<Rendered>,
        published: String,
        broker: Option<Brokered>,
        host: &Host,
    ) -> anyhow::Result<Self> {
        let closed = host.addresses.iter().map(|address| address.to_string() + "\n").collect();
        let told = Self { closed, published, rules, broker };
        match told.programs().iter().find(|(_, text)| text.len() > LONGEST_FILE) {
            None => Ok(told),
            Some((name, _)) => Err(Hinted::error(
                format!("the sidecar takes no `{name}` of more than 2 MiB"),
                "shorten the files of certificates that the settings and `NODE_EXTRA_CA_CERTS` name",
            )),
        }
    }

    /// Everything, as the sidecar reads it.
    pub(crate) fn first_words(&self) -> Vec<u8> {
        [words(&self.routes(), "routes"), words(&self.programs(), "apply")].concat()
    }

    /// The files from which routes are laid.
    fn routes(&self) -> Vec<(&'static str, &[u8])> {
        let lan = self.rules.iter().map(|rules| ("lan", rules.lan.as_bytes()));
        let broker = self.broker.iter().map(|broker| ("broker.lan", broker.lan.as_bytes()));
        let own = [("closed", self.closed.as_bytes()), ("published", self.published.as_bytes())];
        lan.chain(own).chain(broker).collect()
    }

    /// The files of the programs that the sidecar runs.
    fn programs(&self) -> Vec<(&'static str, &[u8])> {
        let mut files: Vec<_> = self.rules.iter().flat_map(Rendered::rules).collect();
        if let Some(Brokered { config, keys, authorities, lan: _ }) = &self.broker {
            files.extend([
                ("broker.cfg", config.as_bytes()),
                ("keys.map", keys.bytes()),
                ("ca.pem", authorities.as_bytes()),
            ]);
        }
        files
    }
}
