//! What the agent has changed of its own directory, back to this machine.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Seek as _, Write},
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context as _;

use super::{LONG, Note, Place, open};
use crate::{
    agent_dir::fd::{Dir, Made, PRIVATE_DIR, PRIVATE_FILE},
    docker::{Docker, run_inside},
    host::{Host, Owner, seconds},
    plan::COPY,
    report,
};

/// What comes back has no more than this.
const MOST_BACK: u64 = 1 << 30;

/// No way to a transcript has more names.
const DEEPEST: usize = 8;

/// What was changed since then, as a stream that is here; `None` where it is too much.
pub(super) fn stream(
    note: &Note,
    since: u64,
    docker: &Docker,
    host: &Host,
    dir: &Path,
) -> anyhow::Result<Option<fs::File>> {
    let up = open(&note.carried, docker, host, dir)?;
    let script = "cd \"$1\" && since=$2 && shift 2 && find \"$@\" -xdev -type f -newermt \"@$since\" -print0 2>/dev/null | \
                  tar -c -f - --null --no-recursion --hard-dereference --files-from=-";
    let names: Vec<String> =
        note.places.iter().map(|place| format!("./{}", place.inside.to_string_lossy())).collect();
    let since = since.to_string();
    let mut words = vec![COPY, &since];
    words.extend(names.iter().map(String::as_str));
    let purpose = "bring back the agent's own directory";
    let file = tempfile::tempfile_in(dir).context("could not make a scratch file")?;
    let mut to = Bounded { file, left: Some(MOST_BACK) };
    let passed = docker.pass_on(&run_inside(up.name(), purpose, script, &words), LONG, &mut to);
    if to.left.is_none() {
        return Ok(None);
    }
    let is_whole = passed.with_context(|| format!("could not {purpose}"))?;
    anyhow::ensure!(is_whole, "could not {purpose}: the line to the engine was cut, or its disk is broken");
    let mut file = to.file;
    file.rewind()?;
    Ok(Some(file))
}

pub(super) fn too_much() -> anyhow::Error {
    anyhow::anyhow!("it has more than {} MiB", MOST_BACK >> 20)
}

/// A file that does not take more than so many bytes.
struct Bounded {
    file: fs::File,
    /// `None` when somebody has tried.
    left: Option<u64>,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.and_then(|left| left.checked_sub(bytes.len() as u64));
        if self.left.is_none() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Puts what came back where it belongs: regular files of places that are known, and nothing else. An agent can have put
/// anything into the stream.
pub(super) fn keep(stream: fs::File, note: &Note) -> anyhow::Result<()> {
    let owner = note.owner.map(|(uid, gid)| Owner { uid, gid });
    let mut archive = tar::Archive::new(io::BufReader::new(stream));
    let now = seconds(SystemTime::now());
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let path = entry.path()?.into_owned();
        let Some((dir, name)) = destination(&path, &note.places, owner).with_context(|| {
            format!("could not write what came as `{}`", report::one_line(&path.to_string_lossy()))
        })?
        else {
            continue;
        };
        dir.write_from(&name, &mut entry, Made { mode: PRIVATE_FILE, owner }).with_context(|| {
            format!("could not write what came as `{}`", report::one_line(&path.to_string_lossy()))
        })?;
        // The agent goes on with the newest.
        dir.date(&name, entry.header().mtime().unwrap_or(now).min(now))?;
    }
    Ok(())
}

/// The directory and the name of a file on this machine, if there is a place for it.
fn destination(
    path: &Path,
    places: &[Place],
    owner: Option<Owner>,
) -> anyhow::Result<Option<(Dir, OsString)>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => names.push(name),
            _ => return Ok(None),
        }
    }
    let path: PathBuf = names.iter().collect();
    for place in places {
        let Ok(below) = path.strip_prefix(&place.inside) else { continue };
        let below: Vec<&OsStr> = below.iter().collect();
        let (Some(above), Some(own)) = (place.here.parent(), place.here.file_name()) else { continue };
        return match (place.is_directory, below.split_last()) {
            (false, None) => Ok(Some((Dir::open(above)?, own.to_owned()))),
            (true, Some((name, way))) if way.len() < DEEPEST => {
                let made = Made { mode: PRIVATE_DIR, owner };
                let top = Dir::open(above)?.ensure_dir(own, made)?;
                let dir = way.iter().try_fold(top, |dir, name| dir.ensure_dir(name, made))?;
                Ok(Some((dir, (*name).to_owned())))
            }
            _ => Ok(None),
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::symlink};

    use tar::EntryType::{Link, Regular, Symlink};

    use super::*;
    use crate::record::SessionId;

    fn places(base: &Path) -> Vec<Place> {
        let place = |inside: &str, here: &str, is_directory| Place {
            inside: inside.into(),
            here: base.join(here),
            is_directory,
        };
        vec![
            place("settings.json", "agent/settings.json", false),
            place("sessions/--r--", "live/--r--", true),
        ]
    }

    #[test]
    fn what_comes_back_goes_to_its_place_or_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(base.join("agent")).unwrap();
        fs::create_dir_all(base.join("live/--r--")).unwrap();
        fs::create_dir_all(base.join("outside")).unwrap();
        symlink(base.join("outside"), base.join("live/--r--/link")).unwrap();
        let found = |path: &str| {
            destination(Path::new(path), &places(&base), None).map(|found| found.map(|(_, name)| name))
        };
        for path in ["./settings.json", "settings.json", "./sessions/--r--/a.jsonl", "sessions/--r--/d/b"] {
            assert!(found(path).unwrap().is_some(), "{path}");
        }
        for path in [
            "", ".", "/settings.json", "../settings.json", "settings.json/x", "sessions/--r--", "auth.json",
            "sessions/--r--/../x", "sessions/--other--/x", "extensions/x.js",
            "sessions/--r--/1/2/3/4/5/6/7/8/9",
        ] {
            assert!(found(path).unwrap().is_none(), "{path}");
        }
        assert!(found("sessions/--r--/link/x").is_err());
        assert_eq!(fs::read_dir(base.join("outside")).unwrap().count(), 0);
    }

    #[test]
    fn a_hostile_stream_writes_files_of_known_places_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(base.join("agent")).unwrap();
        fs::create_dir_all(base.join("live")).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind, link: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_mtime(1_000_000);
            header.set_entry_type(kind);
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            if !link.is_empty() {
                header.set_size(0);
                header.set_link_name(link).unwrap();
            }
            header.set_cksum();
            let body: &[u8] = if link.is_empty() { b"new" } else { b"" };
            builder.append(&header, body).unwrap();
        };
        add("./sessions/--r--/evil", Symlink, "/etc");
        add("./sessions/--r--/evil/passwd", Regular, "");
        add("./sessions/--r--/hard", Link, "/etc/passwd");
        add("../agent/escaped", Regular, "");
        add("/agent/escaped", Regular, "");
        add("./settings.json", Regular, "");
        let bytes = builder.into_inner().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        let id = SessionId::random().unwrap();
        let carried = serde_json::json!({"id": id, "engine": "", "image": "", "uid": 0, "gid": 0, "runtime": null, "repository": ""});
        let carried = serde_json::from_value(carried).unwrap();
        let note = Note { carried, sent: Some(1), places: places(&base), owner: None };
        keep(file, &note).unwrap();
        assert_eq!(fs::read(base.join("agent/settings.json")).unwrap(), b"new");
        let names = |path: &str| {
            let mut names: Vec<_> =
                fs::read_dir(base.join(path)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("agent"), ["settings.json"]);
        assert_eq!(names("live/--r--"), ["evil"]);
        assert!(base.join("live/--r--/evil/passwd").is_file() && !base.join("live/--r--/evil").is_symlink());
    }
}
