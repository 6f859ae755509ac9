//! Secret values: `Debug` and `Serialize` hide them.

use std::{
    ffi::{OsStr, OsString},
    fmt,
};

use serde::{Serialize, Serializer};

/// A value that must not appear in an argv, a log or a dry run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(OsString);

impl Secret {
    pub(crate) fn new(value: OsString) -> Self {
        Self(value)
    }

    /// The value, for a child's environment only.
    pub(crate) fn expose(&self) -> &OsStr {
        &self.0
    }

    /// The value, for a file that nobody else reads.
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

/// The value of a container's variable, or the text of a file for it.
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
    /// The value, for a file that nobody else reads.
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
