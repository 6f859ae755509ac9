//! What comes back from a session: its settings key by key, its decisions about its own repository, and a word on what
//! does not.
//!
//! It needs the session's directory and nothing else, so the end of a session, its watcher and the next start do the
//! same; done twice, it is done once.

use std::{fs::File, io, path::Path, time::Duration};

use anyhow::Context as _;
use rustix::fs::Mode;
use serde_json::{Map, Value};

use super::{
    entry::{LOGINS, Persist, Role, SETTINGS, TRUST},
    fd::{Dir, Kind, Made, PRIVATE_DIR, PRIVATE_FILE, TEXT},
    laid::{self, Note, Own},
    live::LARGEST,
    lock::AgentLock,
    login,
    notice::{self, Notice, shown},
    settings::{self, Merged, Scope},
    staged::Stage,
    trust,
};
use crate::files::lock_within;

/// How long an agent of the host's may hold its settings.
const PATIENCE: Duration = Duration::from_secs(3);

/// In the launcher's state directory: what sessions have decided, what was told, and the lock on both.
const DECISIONS: &str = "trust.json";
const TOLD: &str = "told";
const LOCK: &str = "told.lock";

/// Takes back what a session has changed, and returns what is to be told. A session of which nothing was laid out, or
/// everything was taken back, gives nothing.
///
/// A set-up session has its packages with it; one whose launcher was killed has none, and nothing of it is taken.
///
/// # Errors
/// The session's note cannot be read, or the state directory not be written. The packages of a set-up session are not
/// what packages are, or were changed meanwhile; then nothing of it is taken.
pub(crate) fn take_back(
    session: &Path,
    state: &Path,
    packages: Option<Stage>,
) -> anyhow::Result<Vec<Notice>> {
    let Some((note, own)) = laid::find(session)? else { return Ok(vec![]) };
    let mut notices = Vec::new();
    match (note.scope(), packages) {
        (Scope::Session, _) => {
            notices.extend(said(settings_back(&note, &own)));
            notices.extend(said(trust_back(&note, &own, state)));
            notices.extend(said(logins_told(&own)));
            notices.extend(left_told(&note, &own));
            notices.extend(said(tidied(&note)));
        }
        (Scope::SetUp, Some(packages)) => match packages.swap_in() {
            Ok(()) => notices.extend(said(settings_back(&note, &own))),
            Err(error) => {
                own.done()?;
                return Err(error);
            }
        },
        (Scope::Login, _) => notices.extend(said(login::take_back(&note, own.dir()))),
        (Scope::SetUp, None) => notices.push(Notice::new(
            "the change of the agent's set-up was interrupted, so nothing of it was kept",
            "run the command again",
        )),
    }
    own.done()?;
    untold(notices, state)
}

/// The notices that were not told before, which are noted as told.
pub(crate) fn untold(notices: Vec<Notice>, state: &Path) -> anyhow::Result<Vec<Notice>> {
    if notices.iter().all(|notice| notice.once.is_none()) {
        return Ok(notices);
    }
    let (dir, _lock) = locked(state)?;
    let told = read(&dir, TOLD)?;
    let (fresh, note) = notice::untold(notices, &told);
    if note != told {
        write(&dir, TOLD, &note)?;
    }
    Ok(fresh)
}

/// Whether this was told, or decided, before.
pub(crate) fn is_told(about: &str, state: &Path) -> bool {
    let told = Dir::open(state).ok().and_then(|dir| read(&dir, TOLD).ok()).unwrap_or_default();
    let line = crate::report::one_line(about);
    told.lines().any(|known| known == line)
}

/// Notes that this was told, or decided.
pub(crate) fn tell(about: &str, state: &Path) -> anyhow::Result<()> {
    untold(vec![Notice::plain("").once(about)], state).map(drop)
}

/// What former sessions have decided about trust.
pub(crate) fn decisions(state: &Path) -> anyhow::Result<trust::Decisions> {
    let dir = match Dir::open(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(trust::Decisions::new()),
        other => other.with_context(|| format!("could not open `{}`", state.display()))?,
    };
    Ok(trust::parse(&read(&dir, DECISIONS)?).unwrap_or_default())
}

fn said(outcome: anyhow::Result<Vec<Notice>>) -> Vec<Notice> {
    outcome.unwrap_or_else(|error| vec![failed(&error)])
}

fn failed(error: &anyhow::Error) -> Notice {
    Notice::plain(format!("{error:#}"))
}

fn settings_back(note: &Note, own: &Own) -> anyhow::Result<Vec<Notice>> {
    let could = || "could not keep the settings of the session";
    let (before, after) = own.texts(SETTINGS, settings::LARGEST).with_context(could)?;
    if before == after {
        return Ok(vec![]);
    }
    let dir = Dir::open(note.live()).with_context(could)?;
    let _lock = AgentLock::take(&dir, SETTINGS, PATIENCE).with_context(could)?;
    let live = dir.read(SETTINGS.as_ref(), settings::LARGEST).with_context(could)?;
    let text = String::from_utf8_lossy(live.as_deref().unwrap_or_default()).into_owned();
    let Merged { text: merged, notices } = settings::merge(&before, &after, &text, note.scope());
    if let Some(mut merged) = merged {
        if text.ends_with('\n') {
            merged.push('\n');
        }
        let made = made_like(&dir, SETTINGS).with_context(could)?;
        dir.write_lasting(SETTINGS.as_ref(), merged.as_bytes(), made).with_context(could)?;
    }
    Ok(notices)
}

/// The mode and the owner of a file, or for a new one those that the agent would give it.
fn made_like(dir: &Dir, name: &str) -> io::Result<Made> {
    use std::os::unix::fs::MetadataExt as _;

    let exists = dir.kind(name.as_ref())? == Some(Kind::File);
    let meta = if exists { dir.file(name.as_ref())?.metadata()? } else { dir.metadata()? };
    let mode = if exists { mode_of(&dir.file(name.as_ref())?)? } else { TEXT };
    let ours = rustix::process::geteuid().as_raw() == meta.uid();
    let owner = (!ours).then_some(crate::host::Owner { uid: meta.uid(), gid: meta.gid() });
    Ok(Made { mode, owner })
}

fn mode_of(file: &File) -> io::Result<Mode> {
    Ok(Mode::from_raw_mode(rustix::fs::fstat(file)?.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO))
}

fn trust_back(note: &Note, own: &Own, state: &Path) -> anyhow::Result<Vec<Notice>> {
    let could = || "could not keep what the session decided about trust";
    let (before, after) = own.texts(TRUST, settings::LARGEST).with_context(could)?;
    if before == after {
        return Ok(vec![]);
    }
    let (dir, _lock) = locked(state)?;
    let known = trust::parse(&read(&dir, DECISIONS)?).unwrap_or_default();
    let (merged, notices) = trust::merge(&before, &after, &known, note.root());
    if let Some(merged) = merged {
        let text = trust::text(&merged);
        if text.len() as u64 <= settings::LARGEST {
            write(&dir, DECISIONS, &text)?;
        }
    }
    Ok(notices)
}

/// Names the logins that were made in the session: the file with them was the session's own.
fn logins_told(own: &Own) -> anyhow::Result<Vec<Notice>> {
    let (before, after) =
        own.texts(LOGINS, LARGEST).context("could not look at the logins of the session")?;
    if before == after {
        return Ok(vec![]);
    }
    let read = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let (before, after) = (read(&before), read(&after));
    let new = after.iter().filter(|(id, entry)| before.get(*id) != Some(*entry)).map(|(id, _)| id);
    let told = new.take(MANY).map(|id| {
        let id = shown(id);
        Notice::new(
            format!("the login for `{id}` that was made in the session is gone with it"),
            format!("`pi login {id}` makes one that stays"),
        )
    });
    Ok(told.collect())
}

/// How many names are told of.
const MANY: usize = 5;

fn left_told(note: &Note, own: &Own) -> Vec<Notice> {
    let missed = |name: String| {
        let about = format!("left {name}");
        let text = |what: &str| {
            format!("what the session put into `~/.pi/agent/{}` was not kept{what}", shown(&name))
        };
        match Role::of(&name) {
            _ if note.knows(&name) => None,
            Role::Unknown => {
                let persist = Persist::parse(&name).ok()?;
                let hint = format!("`persist = [\"{}\"]` in the config keeps it from now on", persist.name());
                Some(Notice::new(text(""), hint).once(about))
            }
            Role::Read | Role::Package => Some(
                Notice::new(
                    text(": it would be loaded by all sessions, and by the agent on the host"),
                    "have it put into the repository's `.pi`, or copy it from there after a look; packages come with \
                     `pi install`",
                )
                .once(about),
            ),
            Role::Copied | Role::Login | Role::Transcripts | Role::Dropped => None,
        }
    };
    own.left().into_iter().filter_map(missed).take(MANY).collect()
}

fn tidied(note: &Note) -> anyhow::Result<Vec<Notice>> {
    let Some(name) = note.transcripts() else { return Ok(vec![]) };
    let could = || "could not look at the transcripts of the session";
    let all = Dir::open(note.live()).and_then(|dir| dir.dir(super::entry::TRANSCRIPTS.as_ref()));
    let dir = match all.and_then(|all| all.dir(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other.with_context(could)?,
    };
    let removed = laid::tidy(&dir).with_context(could)?;
    let text =
        format!("removed {removed} links, pipes or sockets that the session put among its transcripts");
    Ok(if removed == 0 { vec![] } else { vec![Notice::plain(text)] })
}

fn locked(state: &Path) -> anyhow::Result<(Dir, File)> {
    let could = || format!("could not lock `{}`", state.join(LOCK).display());
    let dir = Dir::ensure(state, Made::ours(PRIVATE_DIR)).with_context(could)?;
    let lock = match dir.new_file(LOCK.as_ref(), Made::ours(PRIVATE_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => dir.file(LOCK.as_ref()),
        other => other,
    };
    let lock = lock.with_context(could)?;
    lock_within(&lock, PATIENCE, || Ok(())).with_context(could)?;
    Ok((dir, lock))
}

fn read(dir: &Dir, name: &str) -> anyhow::Result<String> {
    let bytes = dir.read(name.as_ref(), 1 << 20).with_context(|| format!("could not read `{name}`"))?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}

fn write(dir: &Dir, name: &str, text: &str) -> anyhow::Result<()> {
    let written = dir.write_lasting(name.as_ref(), text.as_bytes(), Made::ours(PRIVATE_FILE));
    written.with_context(|| format!("could not write `{name}`"))
}

#[cfg(test)]
mod tests;
