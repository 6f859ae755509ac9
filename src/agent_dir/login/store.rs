//! The live `auth.json`: read as the agent reads it, and changed under the agent's own lock.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::super::{
    entry::LOGINS,
    fd::{Dir, Kind, Made, PRIVATE_DIR, PRIVATE_FILE},
    lock::AgentLock,
    notice::in_agent_dir,
};
use crate::{host::Owner, report::Hinted};

/// By the names of their providers.
pub(crate) type Logins = Map<String, Value>;

/// A file of logins is a few kilobytes.
const LARGEST: u64 = 1 << 20;

/// An agent that renews a token holds the lock meanwhile. One that was killed leaves it for half a minute.
const PATIENCE: Duration = Duration::from_secs(40);

/// What stands there; nothing where there is no file.
///
/// # Errors
/// It cannot be read, or is not what the agent writes.
pub(crate) fn read(live: &Path) -> anyhow::Result<Logins> {
    match Dir::open(live) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Logins::new()),
        other => read_in(&other.with_context(|| format!("could not open `{}`", live.display()))?, live),
    }
}

fn read_in(dir: &Dir, live: &Path) -> anyhow::Result<Logins> {
    let shown = in_agent_dir(live, LOGINS);
    let bytes = dir.read(LOGINS.as_ref(), LARGEST).with_context(|| format!("could not read `{shown}`"))?;
    let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Ok(Logins::new());
    }
    // What the parser says may quote a secret.
    match serde_json::from_str(text) {
        Ok(Value::Object(logins)) => Ok(logins),
        Ok(_) => bail!("could not read `{shown}`: it is not an object"),
        Err(error) => bail!("could not read `{shown}`: line {} is not JSON", error.line()),
    }
}

/// The live logins under the agent's lock: nobody else changes or renews one meanwhile.
#[derive(Debug)]
pub(crate) struct Held {
    live: PathBuf,
    dir: Dir,
    lock: AgentLock,
}

impl Held {
    /// # Errors
    /// An agent holds them for too long, or something else than a file is there.
    pub(crate) fn take(live: &Path) -> anyhow::Result<Self> {
        let could = || format!("could not lock `{}`", in_agent_dir(live, LOGINS));
        let dir = Dir::ensure(live, Made::ours(PRIVATE_DIR)).with_context(could)?;
        if !matches!(dir.kind(LOGINS.as_ref()).with_context(could)?, None | Some(Kind::File)) {
            return Err(Hinted::error(
                format!("{}: it is not an ordinary file", could()),
                "put the file itself there, or remove it",
            ));
        }
        let lock = AgentLock::take(&dir, LOGINS, PATIENCE).with_context(could)?;
        Ok(Self { live: live.to_owned(), dir, lock })
    }

    /// # Errors
    /// They cannot be read, or are not what the agent writes.
    pub(crate) fn read(&self) -> anyhow::Result<Logins> {
        read_in(&self.dir, &self.live)
    }

    /// A reader finds the old ones or the new ones.
    ///
    /// # Errors
    /// As the system has it; they are as they were then.
    pub(crate) fn write(&self, logins: &Logins) -> anyhow::Result<()> {
        let could = || format!("could not change `{}`", in_agent_dir(&self.live, LOGINS));
        let text = serde_json::to_string_pretty(logins)?;
        let made = Made { mode: PRIVATE_FILE, owner: owner(&self.dir).with_context(could)? };
        self.dir.write_lasting(LOGINS.as_ref(), text.as_bytes(), made).with_context(could)
    }

    /// Shows to others that this is not left over; to be called every few seconds.
    pub(crate) fn hold_on(&self) {
        self.lock.touch();
    }
}

/// Changes the logins, and writes them where that made a difference.
///
/// # Errors
/// They cannot be read or written, or `change` says so; they are as they were then.
pub(crate) fn change<T>(
    live: &Path,
    change: impl FnOnce(&mut Logins) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let held = Held::take(live)?;
    let before = held.read()?;
    let mut logins = before.clone();
    let outcome = change(&mut logins)?;
    if logins != before {
        held.write(&logins)?;
    }
    Ok(outcome)
}

/// Removes the logins, and with `keys` the keys, too. Returns how many there were.
///
/// # Errors
/// As for [`change`].
pub(crate) fn wipe(live: &Path, keys: bool) -> anyhow::Result<usize> {
    let is_wiped = |entry: &Value| keys || entry.get("type").and_then(Value::as_str) == Some("oauth");
    // Nothing is made where there is nothing.
    if !read(live)?.values().any(is_wiped) {
        return Ok(0);
    }
    change(live, |logins| {
        let before = logins.len();
        logins.retain(|_, entry| !is_wiped(entry));
        Ok(before - logins.len())
    })
}

/// The directory's own, where that is not us.
fn owner(dir: &Dir) -> std::io::Result<Option<Owner>> {
    use std::os::unix::fs::MetadataExt as _;

    let meta = dir.metadata()?;
    let ours = rustix::process::geteuid().as_raw() == meta.uid();
    Ok((!ours).then_some(Owner { uid: meta.uid(), gid: meta.gid() }))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, thread};

    use serde_json::json;

    use super::*;

    fn live() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let live = fs::canonicalize(dir.path()).unwrap().join("agent");
        (dir, live)
    }

    fn put(live: &Path, name: &str) -> anyhow::Result<()> {
        change(live, |logins| {
            logins.insert(name.to_owned(), json!({"type": "api_key", "key": "k"}));
            Ok(())
        })
    }

    #[test]
    fn the_first_login_makes_a_private_file_and_the_next_keeps_what_is_there() {
        let (_dir, live) = live();
        assert!(read(&live).unwrap().is_empty());
        put(&live, "groq").unwrap();
        let path = live.join("auth.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "\u{feff}{\"b\":{\"key\":\"!op read b\"},\n\"a\":{}}").unwrap();
        put(&live, "groq").unwrap();
        let names: Vec<_> = read(&live).unwrap().keys().cloned().collect();
        assert_eq!(names, ["b", "a", "groq"]);
        assert!(fs::read_to_string(&path).unwrap().contains("!op read b"));
        assert!(!live.join("auth.json.lock").exists());
    }

    #[test]
    fn what_cannot_be_read_is_not_written_over_and_not_quoted() {
        let (_dir, live) = live();
        fs::create_dir(&live).unwrap();
        let path = live.join("auth.json");
        for text in ["{\"a\": hunter2", "[\"hunter2\"]"] {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", put(&live, "groq").unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::remove_file(&path).unwrap();
        fs::write(live.join("elsewhere"), "{}").unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(format!("{:#}", put(&live, "groq").unwrap_err()).contains("not an ordinary file"));
        assert_eq!(fs::read_to_string(live.join("elsewhere")).unwrap(), "{}");
    }

    #[test]
    fn logins_are_wiped_and_keys_only_where_that_is_wanted() {
        let (_dir, live) = live();
        assert_eq!(wipe(&live, true).unwrap(), 0);
        assert!(!live.exists());
        put(&live, "groq").unwrap();
        assert_eq!(wipe(&live, false).unwrap(), 0);
        change(&live, |logins| Ok(logins.insert("xai".to_owned(), json!({"type": "oauth"})))).unwrap();
        assert_eq!(wipe(&live, false).unwrap(), 1);
        assert_eq!(read(&live).unwrap().keys().collect::<Vec<_>>(), ["groq"]);
        assert_eq!(wipe(&live, true).unwrap(), 1);
        assert!(read(&live).unwrap().is_empty());
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let (_dir, live) = live();
        let names: Vec<String> = (0..16).map(|n| format!("p{n}")).collect();
        thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| put(&live, name).unwrap());
            }
        });
        assert_eq!(read(&live).unwrap().len(), 16);
    }
}
