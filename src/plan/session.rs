//! What a session is called, and what is written down about it: enough to show it, and to take it down.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::egress::Sources;

/// A session's identity; every name derives from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SessionId(String);

impl SessionId {
    /// A new one: 80 random bits as 16 characters.
    pub(crate) fn random() -> anyhow::Result<Self> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| anyhow::anyhow!("could not get random numbers: {error}"))?;
        Ok(Self(
            bytes
                .iter()
                .map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte % 32)]))
                .collect(),
        ))
    }

    /// An id that was written down, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let ok =
            text.len() == 16 && text.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b));
        ok.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn agent(&self) -> String {
        format!("pi-{}", self.0)
    }

    pub(crate) fn sidecar(&self) -> String {
        format!("pi-{}-proxy", self.0)
    }

    pub(crate) fn model(&self) -> String {
        format!("pi-{}-model", self.0)
    }

    pub(crate) fn network(&self) -> String {
        format!("pi-{}", self.0)
    }

    pub(crate) fn home(&self) -> String {
        format!("pi-{}-home", self.0)
    }

    /// Every container that a session of this id can have.
    pub(crate) fn containers(&self) -> Vec<String> {
        vec![self.agent(), self.sidecar(), self.model()]
    }
}

/// What teardown needs to know, and what `pi ps` shows; it lies beside the session's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: SessionId,
    pub(crate) name: String,
    /// The engine's address, as docker takes it.
    pub(crate) engine: String,
    pub(crate) repository: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) image: String,
    /// `open`, `proxy`, `none` or `demo`.
    pub(crate) network: String,
    /// Seconds since 1970.
    pub(crate) started: u64,
    /// Where the allowlist comes from, in a restricted session.
    pub(crate) allowlist: Option<Sources>,
    /// The login file, whose backup lies beside the record.
    pub(crate) login: PathBuf,
}
