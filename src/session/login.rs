//! The backup of the login: an agent that is killed while it writes one down leaves it cut short.
//!
//! The file stands in a directory that some sessions may write as a whole, and the launcher writes it as the user, or as
//! root. So a link is never followed, and only the very file that was there at the start is ever written.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    files::{Identity, Links, open_small},
    report,
};

const BACKUP: &str = "login.backup";

/// What was there, and in which file.
#[derive(Serialize, Deserialize)]
struct Backup {
    device: u64,
    inode: u64,
    text: String,
}

/// Keeps a copy of a login that can be read, beside the session's record.
pub(super) fn back_up(login: &Path, dir: &Path) {
    let Ok((text, Identity { device, inode })) = read(login) else { return };
    if !parses(&text) {
        return;
    }
    let made = File::options().write(true).create_new(true).mode(0o600).open(dir.join(BACKUP));
    // Without a backup the session is no worse off than without this module.
    let _ = made.and_then(|mut file| {
        file.write_all(serde_json::to_string(&Backup { device, inode, text })?.as_bytes())
    });
}

/// Puts the login back where what is there, in the same file, cannot be read any more.
pub(crate) fn restore_login(login: &Path, dir: &Path) {
    let Ok(text) = fs::read_to_string(dir.join(BACKUP)) else { return };
    let Ok(backup) = serde_json::from_str::<Backup>(&text) else { return };
    let broken = || {
        read(login).is_ok_and(|(text, now)| {
            (now.device, now.inode) == (backup.device, backup.inode) && !parses(&text)
        })
    };
    if !broken() {
        return;
    }
    // Another session may be writing it at this moment: it is written in place.
    thread::sleep(Duration::from_millis(200));
    if !broken() {
        return;
    }
    match write(login, &backup) {
        Ok(()) => report::warn(format_args!(
            "`{}` was cut short; it is again as it was when the session began",
            login.display()
        )),
        Err(error) => report::complain(format_args!("could not restore `{}`: {error}", login.display())),
    }
}

fn read(login: &Path) -> io::Result<(String, Identity)> {
    let mut file = open_small(login, Links::Refuse, false)?;
    let identity = Identity::from(&file.metadata()?);
    let mut bytes = Vec::new();
    (&mut file).take(1 << 20).read_to_end(&mut bytes)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), identity))
}

fn write(login: &Path, backup: &Backup) -> io::Result<()> {
    let mut file = open_small(login, Links::Refuse, true)?;
    let now = Identity::from(&file.metadata()?);
    if (now.device, now.inode) != (backup.device, backup.inode) {
        return Err(io::Error::other("it is another file now"));
    }
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(backup.text.as_bytes())
}

fn parses(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_was_cut_short_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let login = dir.path().join("auth.json");
        fs::write(&login, "{\"a\":1}").unwrap();
        back_up(&login, dir.path());
        fs::write(&login, "{\"a\"").unwrap();
        restore_login(&login, dir.path());
        assert_eq!(fs::read_to_string(&login).unwrap(), "{\"a\":1}");
    }

    #[test]
    fn a_link_or_another_file_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let login = dir.path().join("auth.json");
        let shell = dir.path().join("bashrc");
        fs::write(&shell, "alias x=y").unwrap();
        fs::write(&login, "{\"a\":1}").unwrap();
        back_up(&login, dir.path());
        fs::remove_file(&login).unwrap();
        std::os::unix::fs::symlink(&shell, &login).unwrap();
        restore_login(&login, dir.path());
        assert_eq!(fs::read_to_string(&shell).unwrap(), "alias x=y");
        fs::remove_file(&login).unwrap();
        fs::hard_link(&shell, &login).unwrap();
        restore_login(&login, dir.path());
        assert_eq!(fs::read_to_string(&shell).unwrap(), "alias x=y");
    }
}
