//! A login that was made in a session of its own: looked over, and brought into the live `auth.json`.
//!
//! Such a session begins with an empty `auth.json` of its own. What stands there at its end is all that it can give.

pub(crate) mod entry;
pub(crate) mod store;

use std::{path::Path, time::Duration};

use serde_json::Value;

use super::{
    entry::LOGINS,
    fd::{Dir, Made, PRIVATE_FILE},
    laid::{self, DIRECTORY},
    notice::Notice,
};
use crate::secret::Secret;
use entry::Credential;
use store::Logins;

/// Larger than any login.
pub(crate) const LARGEST: u64 = 64 << 10;

/// A token that ends sooner is renewed.
pub(crate) const SOON: Duration = Duration::from_secs(600);

/// A token that is good for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) access: Secret,
    /// Milliseconds since 1970.
    pub(crate) expires: i64,
}

impl Token {
    /// The token of a login.
    pub(crate) fn of(entry: &Value) -> Option<Self> {
        let access = entry.get("access").and_then(Value::as_str)?;
        #[expect(clippy::cast_possible_truncation, reason = "beyond it is never")]
        let expires = entry.get("expires").and_then(Value::as_f64)? as i64;
        Some(Self { access: Secret::new(access.into()), expires })
    }
}

/// What a session with an `auth.json` of its own begins with.
pub(crate) const EMPTY: &str = "{}\n";

/// The credential in a session's own `auth.json` now; `None` while there is none, or one that is being written.
///
/// # Errors
/// It is not what a login leaves.
pub(crate) fn made(session: &Path) -> anyhow::Result<Option<(String, Credential)>> {
    let text = Dir::open(&session.join(DIRECTORY))?.read(LOGINS.as_ref(), LARGEST)?.unwrap_or_default();
    entry::only_one(&String::from_utf8_lossy(&text))
}

/// Takes everything out of a session's own `auth.json`, not looked over.
pub(crate) fn take_out(session: &Path) -> anyhow::Result<Logins> {
    let dir = Dir::open(&session.join(DIRECTORY))?;
    let text = dir.read(LOGINS.as_ref(), LARGEST)?.unwrap_or_default();
    dir.write(LOGINS.as_ref(), EMPTY.as_bytes(), Made::ours(PRIVATE_FILE))?;
    Ok(serde_json::from_slice(&text).unwrap_or_default())
}

/// Brings what a session's own `auth.json` has into the live one. It is taken away there, so this happens once.
///
/// # Errors
/// It is not what a login leaves, or the live one cannot be changed; it is as it was then.
pub(super) fn take_back(note: &laid::Note, own: &Dir) -> anyhow::Result<Vec<Notice>> {
    let text = own.read(LOGINS.as_ref(), LARGEST)?.unwrap_or_default();
    own.write(LOGINS.as_ref(), EMPTY.as_bytes(), Made::ours(PRIVATE_FILE))?;
    let Some((provider, credential)) = entry::only_one(&String::from_utf8_lossy(&text))? else {
        return Ok(vec![]);
    };
    let said = credential.said(&provider);
    let new = store::change(note.live(), |logins: &mut Logins| {
        // One that was killed while it renewed a login left what somebody else may have renewed since.
        let is_old = logins.get(&provider).is_some_and(|live| credential.is_older_than(live));
        if !is_old {
            logins.insert(provider.clone(), credential.into());
        }
        Ok(!is_old)
    })?;
    Ok(if new { vec![Notice::good(said)] } else { vec![] })
}
