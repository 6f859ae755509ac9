//! The agent's own directory of a session on an engine that mounts nothing of this machine: how it goes there as a stream,
//! and how what the agent may change of it comes back.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _, Seek as _, Write},
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::{TEARDOWN, prepare::write_file};
use crate::{
    agent_dir::{
        entry::TRANSCRIPTS,
        fd::{Dir, Kind, Made, PRIVATE_DIR, PRIVATE_FILE},
    },
    docker::{self, Created, Docker, Up, run_inside},
    files::{read_small, replace},
    git::copy::tar::Tar,
    host::{Host, Owner, seconds},
    inside::Access,
    plan::{Away, COPY, Carried, Sent, copier_file},
    record::SessionId,
    report::{self, Finding},
    written::real,
};

/// In the session's directory: there is a volume, and this is what is in it.
const NOTE: &str = "away.json";

/// How long the streams may take.
const LONG: Duration = Duration::from_secs(3600);

/// How many files go along, and how many bytes they have together.
const MOST_FILES: usize = 100_000;
const MOST_BYTES: u64 = 1 << 30;

/// The newest transcripts go along, up to so many bytes.
const TRANSCRIPTS_BYTES: u64 = 8 << 20;

/// What comes back has no more than this.
const MOST_BACK: u64 = 1 << 30;

/// No way to a transcript has more names.
const DEEPEST: usize = 8;

/// What has to be known to fetch what the agent has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    carried: Carried,
    /// The engine's time when everything was there, in seconds since 1970; `None` before that.
    sent: Option<u64>,
    places: Vec<Place>,
    /// Whose files the live ones are, where they are not ours.
    owner: Option<(u32, u32)>,
}

/// Where something belongs that comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// Below the agent's directory.
    inside: PathBuf,
    /// On this machine.
    here: PathBuf,
    is_directory: bool,
}

/// Sends the agent's directory into the session's volume.
///
/// # Errors
/// Something cannot be read or is too large, or the engine says no.
pub(super) fn send(
    away: &Away,
    owner: Option<Owner>,
    docker: &Docker,
    host: &Host,
    dir: &Path,
) -> anyhow::Result<()> {
    let places = away
        .sent
        .iter()
        .filter(|sent| sent.access == Access::ReadWrite)
        .map(|sent| Place {
            inside: sent.target.clone(),
            here: sent.source.clone(),
            is_directory: sent.source.is_dir(),
        })
        .collect();
    let carried = away.carried.clone();
    let mut note = Note { carried, sent: None, places, owner: owner.map(|owner| (owner.uid, owner.gid)) };
    note.save(dir)?;
    let up = open(&note.carried, docker, host, dir)?;
    let script = "tar -x -f - --no-same-owner --warning=no-timestamp -C \"$1\" && date +%s";
    let unpack = run_inside(up.name(), "send the agent's own directory", script, &[COPY]);
    let said = docker.feed(&unpack, LONG, &mut |out| write(&away.sent, out))?;
    let now = said.trim().parse().context("the engine did not say what time it is")?;
    note.sent = Some(now);
    note.save(dir)
}

impl Note {
    fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(NOTE);
        let Some(text) = read_small(&path)? else { return Ok(None) };
        serde_json::from_str(&text).with_context(|| format!("could not read `{}`", path.display())).map(Some)
    }

    fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(NOTE);
        replace(&path, &serde_json::to_vec(self)?)
            .with_context(|| format!("could not write `{}`", path.display()))
    }
}

/// Starts the container with the volume in it.
fn open(carried: &Carried, docker: &Docker, host: &Host, dir: &Path) -> anyhow::Result<Up> {
    write_file(&copier_file(dir))?;
    let mut container = carried.carrier(dir, host);
    docker.gone_within(&docker::remove_containers(std::slice::from_ref(&container.name)), TEARDOWN)?;
    let mut made = docker.create(&container)?;
    if made == Created::NoImage {
        // One that was removed meanwhile.
        container.image = super::copy::any_image(docker, host)?;
        made = docker.create(&container)?;
    }
    anyhow::ensure!(made == Created::Yes, "there is no image for the agent's own directory");
    super::copy::check_volume(docker, &container)
        .and_then(|()| docker.hold_up(&container))
        .inspect_err(|_| docker.halt_now(&container.name))
}

/// Brings back what a session that is over has changed, and removes its volume. A session without one has nothing there.
///
/// # Errors
/// The engine does not answer. Then nothing is lost: whoever takes the session down later does the same.
pub(super) fn fetch(docker: &Docker, host: &Host, dir: &Path) -> anyhow::Result<()> {
    let dir = real(dir);
    let Some(note) = Note::load(&dir)? else { return Ok(()) };
    let docker = docker.at(&note.carried.engine);
    let volume = note.carried.id.volume();
    if let (Some(since), true) = (note.sent, docker.has_volume(&volume)?) {
        let kept = match stream(&note, since, &docker, host, &dir)? {
            Some(stream) => keep(stream, &note),
            None => Err(anyhow::anyhow!("it has more than {} MiB", MOST_BACK >> 20)),
        };
        if let Err(error) = kept {
            Finding::plain(format!("could not keep all of what the session has set: {error:#}")).warn();
        }
    }
    remove(&docker, &note.carried.id)?;
    fs::remove_file(dir.join(NOTE))
        .with_context(|| format!("could not remove `{}`", dir.join(NOTE).display()))
}

/// Removes the volume of a session.
///
/// # Errors
/// The engine says no.
pub(crate) fn remove(docker: &Docker, id: &SessionId) -> anyhow::Result<()> {
    docker.gone_within(&docker::remove_volume(&id.volume()), TEARDOWN)
}

/// What was changed since then, as a stream that is here; `None` where it is too much.
fn stream(
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
fn keep(stream: fs::File, note: &Note) -> anyhow::Result<()> {
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
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        dir.write(&name, &bytes, Made { mode: PRIVATE_FILE, owner })?;
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
) -> anyhow::Result<Option<(Dir, std::ffi::OsString)>> {
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

/// What goes along, and how much of it there may still be.
struct Sending<'a> {
    tar: Tar<'a>,
    files: usize,
    bytes: u64,
}

fn write(sent: &[Sent], out: &mut dyn Write) -> anyhow::Result<()> {
    let mut sending = Sending { tar: Tar::new(out), files: MOST_FILES, bytes: MOST_BYTES };
    let mut made = Vec::new();
    for Sent { source, target, access } in sent {
        for above in target.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            if above != Path::new("") && !made.contains(&above) {
                sending.tar.dir(above)?;
                made.push(above);
            }
        }
        let (Some(above), Some(name)) = (source.parent(), source.file_name()) else { continue };
        let could = || format!("could not send `{}`", source.display());
        let above = Dir::open(above).with_context(could)?;
        if *access == Access::ReadWrite && target.starts_with(TRANSCRIPTS) {
            sending.tar.dir(target)?;
            sending.newest(&above.dir(name).with_context(could)?, target).with_context(could)?;
        } else {
            sending.tree(&above, name, target, 0).with_context(could)?;
        }
    }
    Ok(sending.tar.end()?)
}

impl Sending<'_> {
    /// A file, a link, or a directory with all that is in it.
    fn tree(&mut self, dir: &Dir, name: &OsStr, target: &Path, depth: usize) -> anyhow::Result<()> {
        match dir.kind(name)? {
            Some(Kind::Directory) if depth < 64 => {
                self.tar.dir(target)?;
                let below = dir.dir(name)?;
                let mut names = below.names(MOST_FILES + 1)?;
                names.sort();
                for name in names {
                    self.tree(&below, &name, &target.join(&name), depth + 1)?;
                }
                Ok(())
            }
            Some(Kind::File) => {
                self.count(dir.file(name)?.metadata()?.len())?;
                self.tar.entry(dir, name, target)?;
                Ok(())
            }
            Some(Kind::Link) => {
                self.count(0)?;
                self.tar.entry(dir, name, target)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The newest files of a directory, as far as there is room for them.
    fn newest(&mut self, dir: &Dir, target: &Path) -> anyhow::Result<()> {
        let mut found = Vec::new();
        for name in dir.names(MOST_FILES)? {
            if dir.kind(&name)? == Some(Kind::File) {
                let meta = dir.file(&name)?.metadata()?;
                found.push((meta.modified()?, meta.len(), name));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        let mut left = TRANSCRIPTS_BYTES;
        for (_, size, name) in found {
            let Some(rest) = left.checked_sub(size) else { break };
            left = rest;
            self.count(size)?;
            self.tar.entry(dir, &name, &target.join(&name))?;
        }
        Ok(())
    }

    fn count(&mut self, size: u64) -> anyhow::Result<()> {
        match (self.files.checked_sub(1), self.bytes.checked_sub(size)) {
            (Some(files), Some(bytes)) => {
                (self.files, self.bytes) = (files, bytes);
                Ok(())
            }
            _ => bail!(
                "there is more than {} MiB, or {MOST_FILES} files, which is too much for another engine",
                MOST_BYTES >> 20
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tar::EntryType::{Link, Regular, Symlink};

    use super::*;

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

    #[test]
    fn the_directory_goes_along_with_its_links_and_its_newest_transcripts() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(base.join("extensions/deep")).unwrap();
        fs::write(base.join("extensions/deep/a.js"), "a").unwrap();
        symlink("deep/a.js", base.join("extensions/b.js")).unwrap();
        fs::create_dir_all(base.join("transcripts")).unwrap();
        for (name, size, at) in [("old", TRANSCRIPTS_BYTES, 1), ("new", 1000, 2)] {
            let file = fs::File::create(base.join("transcripts").join(name)).unwrap();
            file.set_len(size).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(at)).unwrap();
        }
        let sent = |source: &str, target: &str, access| Sent {
            source: base.join(source),
            target: target.into(),
            access,
        };
        let mut stream = Vec::new();
        let all = [
            sent("extensions", "extensions", Access::ReadOnly),
            sent("transcripts", "sessions/--r--", Access::ReadWrite),
        ];
        write(&all, &mut stream).unwrap();
        let mut archive = tar::Archive::new(stream.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "extensions", "extensions/b.js", "extensions/deep", "extensions/deep/a.js", "sessions",
                "sessions/--r--", "sessions/--r--/new"
            ]
        );
    }
}
