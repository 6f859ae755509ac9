//! A session's id, and the names that derive from it.

use serde::{Deserialize, Serialize};

/// A session's id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SessionId(String);

impl SessionId {
    /// A new id: 80 random bits as 16 characters.
    pub(crate) fn random() -> anyhow::Result<Self> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| anyhow::anyhow!("could not get random numbers: {error}"))?;
        let letter = |byte: &u8| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte % 32)]);
        Ok(Self(bytes.iter().map(letter).collect()))
    }

    /// The id in this text, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let ok =
            text.len() == 16 && text.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b));
        ok.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The agent's container.
    pub(crate) fn agent(&self) -> String {
        format!("pi-{}", self.0)
    }

    /// The sidecar's container.
    pub(crate) fn sidecar(&self) -> String {
        format!("pi-{}-proxy", self.0)
    }

    /// The container of the demo's model.
    pub(crate) fn model(&self) -> String {
        format!("pi-{}-model", self.0)
    }

    /// The container that hands out the agent's commits.
    pub(crate) fn git(&self) -> String {
        format!("pi-{}-git", self.0)
    }

    /// The container that fills and empties the agent's own directory, where that is a volume.
    pub(crate) fn carrier(&self) -> String {
        format!("pi-{}-dir", self.0)
    }

    /// The volume with the agent's own directory, on an engine that cannot mount the one of this machine.
    pub(crate) fn volume(&self) -> String {
        format!("pi-{}", self.0)
    }

    /// The session's own network.
    pub(crate) fn network(&self) -> String {
        format!("pi-{}", self.0)
    }

    /// Every container that the session can have.
    pub(crate) fn containers(&self) -> Vec<String> {
        vec![self.agent(), self.sidecar(), self.model(), self.git(), self.carrier()]
    }
}
