//! The login between sessions: the agent of each writes the same file, and the next one believes what stands there.
//!
//! Two things must not stay when a session ends: a file that is cut short, as an agent leaves it that is killed while it
//! writes, and a command that the session put there, which the next agent would run with another repository's files, or
//! on the host itself. So each session keeps a copy of the login from its start, beside its record.
//!
//! The file stands in a directory that some sessions may write as a whole, and the launcher writes it as the user, or as
//! root. So a link is never followed out of that directory, and only the very file that was there at the start is ever
//! written; in place, since the containers of other sessions hold that file and not its name.

mod deeds;

use std::{
    fmt, fs,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use self::deeds::{Foreign, Login, foreign, parse, shown, undo};
use crate::{
    files::Identity,
    host::Host,
    record::{self, Record, SessionId, directory_lock},
    report::{self, Hinted},
};

const BACKUP: &str = "login.backup";

/// A file of logins is a few kilobytes.
const LARGEST: u64 = 1 << 20;

/// How long a writer may take, and a dead session's taking down to get to its login.
const MOMENTS: Duration = Duration::from_secs(2);

/// How many entries are told of one by one.
const TOLD: usize = 5;

/// What was there, and in which file.
#[derive(Serialize, Deserialize)]
struct Backup {
    device: u64,
    inode: u64,
    text: String,
}

impl Backup {
    fn load(dir: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(dir.join(BACKUP)).ok()?).ok()
    }

    fn identity(&self) -> Identity {
        Identity { device: self.device, inode: self.inode }
    }

    /// A file that could not be read had nothing that an agent would have done.
    fn login(&self) -> Login {
        parse(&self.text).unwrap_or_default()
    }
}

/// Keeps a copy of the login beside the session's record, from before its agent can write there.
///
/// # Errors
/// The copy could not be made, or another session that has not been taken down may have put a command there.
pub(super) fn back_up(login: &Path, dir: &Path) -> anyhow::Result<()> {
    back_up_within(MOMENTS, login, dir)
}

fn back_up_within(patience: Duration, login: &Path, dir: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        // Looked for before the file is read: one that ends in between has mended it by then.
        let mut others = others(dir);
        let Some((text, identity)) = begin_with(login)? else { return Ok(()) };
        others.retain(|other| other.login == login || other.backup.identity() == identity);
        let Some(doubt) = doubt(login, &text, &others) else {
            let Identity { device, inode } = identity;
            let text = serde_json::to_string(&Backup { device, inode, text })?;
            let path = dir.join(BACKUP);
            let made = fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
            return made
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .with_context(|| format!("could not write `{}`", path.display()));
        };
        // A writer may be in the middle of it, or a dead session be about to be mended.
        if begun.elapsed() >= patience {
            return Err(doubt);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The login of a session that begins; `None` where no agent of this user's could read it either.
fn begin_with(login: &Path) -> anyhow::Result<Option<(String, Identity)>> {
    let path = real(login);
    let odd = |why: &dyn fmt::Display, hint: &str| {
        Err(Hinted::error(format!("could not read `{}`: {why}", login.display()), hint))
    };
    let file = match open(&path, OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // An agent could make a file of its own readable again, with what it has put there.
            let ours = fs::metadata(&path).is_ok_and(|meta| meta.uid() == rustix::process::getuid().as_raw());
            return if ours { odd(&error, "make it yours alone: `chmod 600` it") } else { Ok(None) };
        }
        Err(error) => return odd(&error, "put an ordinary file there, or none"),
    };
    let identity = Identity::from(&file.metadata()?);
    match read(&file) {
        Ok(Some(text)) => Ok(Some((text, identity))),
        Ok(None) => odd(&"it is larger than 1 MiB", "remove it and log in again, or shorten it"),
        Err(error) => odd(&error, "put an ordinary file there, or none"),
    }
}

/// Another session, and what its login was when it began.
struct Other {
    login: PathBuf,
    backup: Backup,
}

/// All other sessions, whether they live or still are to be taken down. One without a copy has not started its agent.
fn others(dir: &Path) -> Vec<Other> {
    let other = |(_, path): (SessionId, PathBuf)| {
        let backup = Backup::load(&path).filter(|_| path != dir)?;
        // One whose record is lost can still be told by its file.
        let login = Record::load(&path).map(|record| record.login).unwrap_or_default();
        Some(Other { login, backup })
    };
    dir.parent().into_iter().flat_map(record::entries_of).filter_map(other).collect()
}

/// Why a session is not to begin with this text. Without other sessions, what stands there is the user's own.
fn doubt(login: &Path, text: &str, others: &[Other]) -> Option<anyhow::Error> {
    if others.is_empty() || others.iter().any(|other| other.backup.text == text) {
        return None;
    }
    let hint = "`pi stop --all` ends the other sessions, which undoes it; if you wrote it yourself, do so again after that";
    let Ok(now) = parse(text) else {
        return Some(Hinted::error(
            format!("`{}` cannot be read, and other sessions are running that can write it", login.display()),
            hint,
        ));
    };
    let known: Vec<Login> = others.iter().map(|other| other.backup.login()).collect();
    let Foreign { provider, deed } = foreign(&now, &known).into_iter().next()?;
    Some(Hinted::error(
        format!(
            "`{}` has got {deed} for `{}` since the other sessions began: one of them has put it there, or you have",
            login.display(),
            shown(&provider, 40)
        ),
        hint,
    ))
}

/// Forgets what the login was when a session began, whose engine is gone and its agent with it: what was to be undone has
/// been, and what comes now is the user's own.
pub(crate) fn forget_login(dir: &Path) {
    let _ = fs::remove_file(dir.join(BACKUP));
}

/// Undoes what must not stay of what a session did to the login, and says so: all of it where it cannot be read any more,
/// else the entries that have got a command.
pub(crate) fn mend_login(login: &Path, dir: &Path, host: &Host) {
    // Two that mend at once could each write back what the other has undone. Whoever holds this for longer must not keep
    // the command in place.
    mend(login, dir, &|| directory_lock(host).ok());
}

fn mend(login: &Path, dir: &Path, lock: &dyn Fn() -> Option<fs::File>) {
    let Some(backup) = Backup::load(dir) else { return };
    let path = real(login);
    let inspect = |access| -> io::Result<(fs::File, Found)> {
        let file = open(&path, access).or_else(|error| {
            make_ours(&path, &backup).map_err(|_| error)?;
            open(&path, access)
        })?;
        let found = Found::of(&file, &backup)?;
        Ok((file, found))
    };
    match inspect(OFlags::RDONLY) {
        Ok((_, Found::Sound)) | Err(_) => return,
        // Another session may be writing it at this moment: it is written in place.
        Ok((_, Found::Broken(_))) => thread::sleep(Duration::from_millis(200)),
        Ok((_, Found::Changed(..) | Found::Replaced(_))) => {}
    }
    let _lock = lock();
    let name = login.display();
    let (written, said) = match inspect(OFlags::RDWR) {
        Ok((_, Found::Sound)) => return,
        Ok((_, Found::Replaced(found))) => (
            Ok(()),
            sentences(&found, |_| {
                format!(
                    " into another file, which now is `{name}`; it is left as it is, so look whether you want that"
                )
            }),
        ),
        Ok((file, Found::Broken(why))) => (
            write(&file, &backup.text),
            vec![format!("`{name}` {why}; it is again as it was when the session began")],
        ),
        Ok((file, Found::Changed(text, found))) => {
            let before = backup.login();
            let said = sentences(&found, |provider| {
                let now = if before.contains_key(provider) { "as it was before" } else { "removed" };
                format!(" into `{name}`; that entry is {now}")
            });
            (write(&file, &text), said)
        }
        Err(error) => (Err(error), vec![]),
    };
    match written {
        Ok(()) => said.iter().for_each(report::warn),
        Err(error) => report::complain(format_args!("could not restore `{name}`: {error}")),
    }
}

/// What a session has left.
enum Found {
    Sound,
    Broken(&'static str),
    /// Entries to undo, and the text without them.
    Changed(String, Vec<Foreign>),
    /// Another file by that name, which nobody asked us to write.
    Replaced(Vec<Foreign>),
}

impl Found {
    fn of(file: &fs::File, backup: &Backup) -> io::Result<Self> {
        let same = Identity::from(&file.metadata()?) == backup.identity();
        let before = backup.login();
        let text = read(file)?;
        let now = match &text {
            Some(text) if *text == backup.text => return Ok(Self::Sound),
            None if same => return Ok(Self::Broken("was made larger than 1 MiB")),
            None => return Ok(Self::Sound),
            Some(text) => parse(text),
        };
        Ok(match now {
            Ok(mut now) => {
                let found = undo(&before, &mut now);
                match (found.is_empty(), same) {
                    (true, _) => Self::Sound,
                    (false, true) => Self::Changed(serde_json::to_string_pretty(&now)?, found),
                    (false, false) => Self::Replaced(found),
                }
            }
            Err(_) if !same => Self::Sound,
            Err(error) if error.is_eof() => Self::Broken("was cut short"),
            // The agent may be less strict than this reader, so it does not get to see what this one cannot.
            Err(_) => Self::Broken("could not be read any more"),
        })
    }
}

/// One sentence for each entry, and one for the rest of those who are many.
fn sentences(found: &[Foreign], rest: impl Fn(&str) -> String) -> Vec<String> {
    let sentence = |Foreign { provider, deed }: &Foreign| {
        let shown = shown(provider, 40);
        format!("the session, or you beside it, put {deed} for `{shown}`{}", rest(provider))
    };
    let mut said: Vec<String> = found.iter().take(TOLD).map(sentence).collect();
    if let Some(more) = found.len().checked_sub(TOLD).filter(|more| *more > 0) {
        said.push(format!("the same was done for {more} more"));
    }
    said
}

/// The file itself, where it is a link to another one of the same directory; a link out of it stays one, and is refused.
fn real(login: &Path) -> PathBuf {
    let inside = || {
        let real = fs::canonicalize(login).ok()?;
        real.starts_with(fs::canonicalize(login.parent()?).ok()?).then_some(real)
    };
    if login.is_symlink() { inside().unwrap_or_else(|| login.to_owned()) } else { login.to_owned() }
}

/// Opens a regular file of any size; neither a link nor a pipe leads astray.
fn open(path: &Path, access: OFlags) -> io::Result<fs::File> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    Ok(file)
}

/// Undoes a `chmod` of the agent's, which could hide from us what a later session makes readable again.
fn make_ours(path: &Path, backup: &Backup) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_file() || Identity::from(&meta) != backup.identity() {
        return Err(io::Error::other("it is another file now"));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

/// The text of a file, as the agent decodes it; `None` where it is larger than any login.
fn read(mut file: &fs::File) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= LARGEST).then(|| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Writes a text over another one. White space at its end stands for what was longer, so that whoever reads in between
/// finds either text, and not none.
fn write(mut file: &fs::File, text: &str) -> io::Result<()> {
    let longer = usize::try_from(file.metadata()?.len().min(LARGEST)).unwrap_or(0);
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(longer.max(bytes.len()), b'\n');
    file.rewind()?;
    file.write_all(&bytes)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent's directory with a login, and two sessions' directories.
    struct World {
        dir: tempfile::TempDir,
        login: PathBuf,
    }

    impl World {
        fn new(text: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let login = dir.path().join("auth.json");
            fs::write(&login, text).unwrap();
            let world = Self { dir, login };
            for id in [ONE, TWO] {
                fs::create_dir_all(world.session(id)).unwrap();
            }
            world
        }

        fn session(&self, id: &str) -> PathBuf {
            self.dir.path().join("sessions").join(id)
        }

        fn begin(&self, id: &str) -> anyhow::Result<()> {
            back_up_within(Duration::ZERO, &self.login, &self.session(id))
        }

        /// Ends the session after its agent has written `text`, and returns what is there then.
        fn end(&self, id: &str, text: &str) -> String {
            fs::write(&self.login, text).unwrap();
            mend(&self.login, &self.session(id), &|| None);
            fs::read_to_string(&self.login).unwrap()
        }
    }

    const ONE: &str = "aaaabbbbccccdddd";
    const TWO: &str = "bbbbccccddddeeee";
    const COMMAND: &str = r#"{"p":{"key":"!id"}}"#;

    #[test]
    fn a_login_that_cannot_be_read_any_more_is_restored() {
        let world = World::new("{\"a\":1}");
        world.begin(ONE).unwrap();
        let deep = format!("{{\"p\":{}\"!id\"{}}}", "[".repeat(500), "]".repeat(500));
        let large = format!("{COMMAND}{}", " ".repeat(1 << 20));
        for text in ["{\"a\"", "", "[]", "{\"a\":\"\\ud800\"}", deep.as_str(), large.as_str()] {
            assert_eq!(world.end(ONE, text), "{\"a\":1}");
        }
    }

    #[test]
    fn a_login_that_could_not_be_read_at_the_start_gets_no_command_either() {
        for before in ["", "{\"a\"", "\u{feff}"] {
            let world = World::new(before);
            world.begin(ONE).unwrap();
            assert_eq!(world.end(ONE, COMMAND), "{}");
            assert_eq!(world.end(ONE, "{\"x\""), before);
            assert_eq!(world.end(ONE, "{\"b\":{}}"), "{\"b\":{}}");
        }
    }

    #[test]
    fn what_is_mended_stays_the_same_file_with_its_other_entries() {
        let world = World::new("\u{feff}{\"a\":{\"key\":\"!op\"},\"b\":{\"refresh\":\"1\"}}");
        world.begin(ONE).unwrap();
        let before = Identity::of(&world.login);
        let left =
            world.end(ONE, "{\"a\":{\"key\":\"!id\"},\"b\":{\"refresh\":\"2\"},\"c\":{\"key\":\"k\"}}");
        let expected = "{\"a\":{\"key\":\"!op\"},\"b\":{\"refresh\":\"2\"},\"c\":{\"key\":\"k\"}}";
        assert_eq!(parse(&left).unwrap(), parse(expected).unwrap());
        assert_eq!(Identity::of(&world.login), before);
    }

    #[test]
    fn what_is_not_utf_8_neither_hides_a_command_nor_is_touched_without_one() {
        let world = World::new("");
        fs::write(&world.login, b"{\"a\":{\"key\":\"\xff\"}}").unwrap();
        world.begin(ONE).unwrap();
        mend(&world.login, &world.session(ONE), &|| None);
        assert_eq!(fs::read(&world.login).unwrap(), b"{\"a\":{\"key\":\"\xff\"}}");
        fs::write(&world.login, b"{\"b\":{\"x\":\"\xc3\",\"key\":\"!id\"}}").unwrap();
        mend(&world.login, &world.session(ONE), &|| None);
        assert_eq!(fs::read(&world.login).unwrap(), b"{}");
    }

    #[test]
    fn a_file_that_was_locked_away_is_mended_all_the_same() {
        let world = World::new("{}");
        world.begin(ONE).unwrap();
        fs::write(&world.login, COMMAND).unwrap();
        fs::set_permissions(&world.login, fs::Permissions::from_mode(0o000)).unwrap();
        mend(&world.login, &world.session(ONE), &|| None);
        fs::set_permissions(&world.login, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::read_to_string(&world.login).unwrap(), "{}");
    }

    #[test]
    fn a_link_within_the_directory_is_followed() {
        let world = World::new("");
        let other = world.dir.path().join("real.json");
        fs::remove_file(&world.login).unwrap();
        fs::write(&other, "{}").unwrap();
        std::os::unix::fs::symlink("real.json", &world.login).unwrap();
        world.begin(ONE).unwrap();
        assert_eq!(world.end(ONE, COMMAND), "{}");
        assert!(world.login.is_symlink());
    }

    #[test]
    fn a_link_or_another_file_in_its_place_is_left_alone() {
        let world = World::new("{\"a\":1}");
        let outside = tempfile::tempdir().unwrap();
        let shell = outside.path().join("bashrc");
        world.begin(ONE).unwrap();
        for text in ["alias x=y", COMMAND] {
            fs::write(&shell, text).unwrap();
            let _ = fs::remove_file(&world.login);
            std::os::unix::fs::symlink(&shell, &world.login).unwrap();
            mend(&world.login, &world.session(ONE), &|| None);
            assert_eq!(fs::read_to_string(&shell).unwrap(), text);
            fs::remove_file(&world.login).unwrap();
            fs::hard_link(&shell, &world.login).unwrap();
            mend(&world.login, &world.session(ONE), &|| None);
            assert_eq!(fs::read_to_string(&shell).unwrap(), text);
        }
    }

    #[test]
    fn nothing_begins_with_a_login_that_cannot_be_looked_at() {
        let world = World::new("");
        fs::File::create(&world.login).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(world.begin(ONE).is_err());
        fs::remove_file(&world.login).unwrap();
        fs::create_dir(&world.login).unwrap();
        assert!(world.begin(ONE).is_err());
        fs::remove_dir(&world.login).unwrap();
        assert!(world.begin(ONE).is_ok());
    }

    #[test]
    fn a_command_that_came_while_another_session_lived_is_doubted() {
        let world = World::new(r#"{"a":{"key":"!op"}}"#);
        world.begin(ONE).unwrap();
        let refused = |text: &str| {
            fs::write(&world.login, text).unwrap();
            let outcome = world.begin(TWO);
            let _ = fs::remove_file(world.session(TWO).join(BACKUP));
            outcome.is_err()
        };
        assert!(!refused(r#"{"a":{"key":"!op"}}"#));
        assert!(!refused(r#"{"a":{"key":"!op"},"b":{"key":"k"}}"#));
        assert!(refused(r#"{"a":{"key":"!op"},"b":{"key":"!op"}}"#));
        assert!(refused(r#"{"a":{"key""#));
        // It is not of this session's doing.
        fs::remove_dir_all(world.session(ONE)).unwrap();
        assert!(!refused(COMMAND));
    }
}
