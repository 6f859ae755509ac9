//! Values that must never be seen: `Debug` and `Serialize` hide them.

use std::{
    ffi::{OsStr, OsString},
    fmt,
};

use serde::{Serialize, Serializer};

/// A value that must never be seen: not in an argv, not in a log, not in a dry run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(OsString);

impl Secret {
    pub(crate) fn new(value: OsString) -> Self {
        Self(value)
    }

    /// For the environment of a child, and for nothing else.
    pub(crate) fn expose(&self) -> &OsStr {
        &self.0
    }

    /// For writing it into a file that nobody else reads.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_encoded_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("[redacted]")
    }
}

/// What a variable of a container or a file for one holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Plain(String),
    Secret(Secret),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl Value {
    /// For writing it where nobody else reads, and for nothing else.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(text) => text.as_bytes(),
            Self::Secret(secret) => secret.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_no_face() {
        let secret = Value::Secret(Secret::new("hunter2".into()));
        assert_eq!(format!("{secret:?}"), "Secret([redacted])");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[redacted]\"");
    }
}
