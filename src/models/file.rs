//! `models.json` of the host, and what of it is from `pi models`.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::{Model, Server, document::Document};
use crate::{
    agent_dir::{
        entry::MODELS,
        fd::{Dir, Made, PRIVATE_DIR, PRIVATE_FILE},
        live::LARGEST,
    },
    files::private_dir,
    host::{Host, Owner},
    record::directory_lock,
    report::Hinted,
    written::real,
};

/// In the launcher's records.
const OURS: &str = "models.json";

/// What is from `pi models`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ours {
    pub(crate) servers: BTreeMap<String, Server>,
    /// The file before the first of them; `None` if there was none. It may hold keys.
    before: Option<String>,
    /// The file as it was written last.
    after: String,
}

impl Ours {
    pub(crate) fn load(host: &Host) -> anyhow::Result<Self> {
        let path = host.state_dir().join(OURS);
        let could = || format!("could not read `{}`", path.display());
        let dir = match Dir::open(&real(&host.state_dir())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.with_context(could)?,
        };
        match dir.read(OURS.as_ref(), 4 * LARGEST).with_context(could)? {
            Some(bytes) => serde_json::from_slice(&bytes).with_context(could),
            None => Ok(Self::default()),
        }
    }

    fn save(&self, host: &Host) -> anyhow::Result<()> {
        let state = host.state_dir();
        private_dir(&state)?;
        let text = serde_json::to_vec(self)?;
        Dir::open(&real(&state))
            .and_then(|dir| dir.write_lasting(OURS.as_ref(), &text, Made::ours(PRIVATE_FILE)))
            .with_context(|| format!("could not write `{}`", state.join(OURS).display()))
    }
}

/// Both, to be changed by one process at a time.
pub(crate) struct Models<'a> {
    host: &'a Host,
    path: PathBuf,
    dir: Dir,
    text: Option<String>,
    document: Document,
    pub(crate) ours: Ours,
    _lock: std::fs::File,
}

impl<'a> Models<'a> {
    /// Reads both.
    ///
    /// # Errors
    /// One of them cannot be read, or is not what the agent can read.
    pub(crate) fn open(host: &'a Host) -> anyhow::Result<Self> {
        let live = real(&host.agent_dir());
        let path = host.agent_dir().join(MODELS);
        let lock = directory_lock(host)?;
        let made = Made { mode: PRIVATE_DIR, owner: owner(live.parent(), host) };
        let dir = Dir::ensure(&live, made).with_context(|| format!("could not open `{}`", live.display()))?;
        let could = || format!("could not read `{}`", path.display());
        let bytes = dir.read(MODELS.as_ref(), LARGEST).with_context(could)?;
        let text = bytes.map(String::from_utf8).transpose().map_err(|_| anyhow::anyhow!("it is not UTF-8"));
        let text = text.with_context(could)?;
        let document = Document::parse(text.as_deref().unwrap_or_default()).map_err(|error| {
            Hinted::error(
                format!("`{}` cannot be read, so nothing was changed: {error}", path.display()),
                "correct it and try again",
            )
        })?;
        Ok(Self { host, path, dir, text, document, ours: Ours::load(host)?, _lock: lock })
    }

    /// The models of a provider in the file, by their ids.
    pub(crate) fn listed(&self, name: &str) -> Vec<String> {
        let entry = self.document.entry(name).unwrap_or_default();
        let models = entry["models"].as_array().cloned().unwrap_or_default();
        models.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect()
    }

    /// Writes a server's entry.
    ///
    /// # Errors
    /// There is an entry of that name that is not ours, or it cannot be written.
    pub(crate) fn put(&mut self, name: &str, server: &Server, models: &[Model]) -> anyhow::Result<()> {
        if !self.ours.servers.contains_key(name) && self.document.entry(name).is_some() {
            return Err(Hinted::error(
                format!(
                    "`{}` has an entry `{name}` already, which is not from `pi models`",
                    self.path.display()
                ),
                "remove or rename it, and try again; nothing was changed",
            ));
        }
        if self.ours.servers.is_empty() {
            self.ours.before.clone_from(&self.text);
        }
        self.document.set(name, &server.entry(name, models));
        self.ours.servers.insert(name.to_owned(), server.clone());
        self.write()
    }

    /// Removes the entry of a server that is in use.
    ///
    /// # Errors
    /// There is none of that name, or the file cannot be written.
    pub(crate) fn remove_known(&mut self, name: &str) -> anyhow::Result<()> {
        if self.ours.servers.contains_key(name) {
            return self.take(name);
        }
        Err(Hinted::error(
            format!("there is no server `{}` from `pi models`", name.escape_debug()),
            "`pi models status` lists them; nothing was changed",
        ))
    }

    /// Removes a server's entry. With the last one, the file is as it was before the first.
    fn take(&mut self, name: &str) -> anyhow::Result<()> {
        self.ours.servers.remove(name);
        let unchanged = self.text.as_deref() == Some(self.ours.after.as_str());
        if self.ours.servers.is_empty() && unchanged {
            let before = self.ours.before.take();
            self.document = Document::parse(before.as_deref().unwrap_or_default())?;
            return self.write_text(before);
        }
        self.document.remove(name);
        if self.ours.before.is_none() && self.document.is_empty() {
            return self.write_text(None);
        }
        self.write()
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let text = self.document.to_string();
        Document::parse(&text).context("the changed text would not be JSON")?;
        self.write_text(Some(text))
    }

    /// Writes the records first: what is in them and not in the file does no harm.
    fn write_text(&mut self, text: Option<String>) -> anyhow::Result<()> {
        self.ours.after = text.clone().unwrap_or_default();
        if self.ours.servers.is_empty() {
            self.ours = Ours::default();
        }
        self.ours.save(self.host)?;
        if text != self.text {
            let name: &OsStr = MODELS.as_ref();
            let made = self.made();
            let written = match &text {
                Some(text) => self.dir.write_lasting(name, text.as_bytes(), made),
                None => self.dir.remove_file(name),
            };
            written.with_context(|| format!("could not write `{}`", self.path.display()))?;
        }
        self.text = text;
        Ok(())
    }

    /// Mode and owner of the file as it is.
    fn made(&self) -> Made {
        let there = self.dir.file(MODELS.as_ref()).and_then(|file| file.metadata()).ok();
        let directory = || owner(Some(&real(&self.host.agent_dir())), self.host);
        match there {
            Some(meta) => {
                let owner = Owner { uid: meta.uid(), gid: meta.gid() };
                let ours = Owner { uid: self.host.uid, gid: self.host.gid };
                Made {
                    mode: Mode::from_raw_mode(meta.mode() & 0o777),
                    owner: Some(owner).filter(|owner| *owner != ours),
                }
            }
            None => Made { mode: PRIVATE_FILE, owner: directory() },
        }
    }
}

/// Whose a directory is, where root works for somebody else.
fn owner(dir: Option<&Path>, host: &Host) -> Option<Owner> {
    let meta = dir?.ancestors().find_map(|dir| dir.metadata().ok())?;
    (host.uid == 0 && meta.uid() != 0).then(|| Owner { uid: meta.uid(), gid: meta.gid() })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::models::{Kind, address::Address};

    struct Home {
        _dir: tempfile::TempDir,
        host: Host,
        file: PathBuf,
    }

    fn home() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(dir.path()).unwrap();
        let host = Host {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            home: home.clone(),
            ..Host::for_tests()
        };
        Home { file: home.join(".pi/agent/models.json"), host, _dir: dir }
    }

    fn server(port: u16) -> Server {
        Server { kind: Kind::Ollama, address: Address::ollama(&format!("127.0.0.1:{port}")).unwrap() }
    }

    fn put(home: &Home, name: &str, ids: &[&str]) -> anyhow::Result<()> {
        let models: Vec<Model> = ids.iter().map(|id| Model::named(id)).collect();
        Models::open(&home.host)?.put(name, &server(11434), &models)
    }

    #[test]
    fn a_file_that_was_not_there_goes_again() {
        let home = home();
        put(&home, "ollama", &["a"]).unwrap();
        assert_eq!(home.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        put(&home, "other", &[]).unwrap();
        Models::open(&home.host).unwrap().take("ollama").unwrap();
        assert!(home.file.exists());
        Models::open(&home.host).unwrap().take("other").unwrap();
        assert!(!home.file.exists());
        assert_eq!(Ours::load(&home.host).unwrap(), Ours::default());
    }

    #[test]
    fn a_file_that_was_there_is_the_same_again_with_its_mode() {
        let home = home();
        fs::create_dir_all(home.file.parent().unwrap()).unwrap();
        for text in
            ["{}", "// Nothing.\n{ \"providers\": {} }", "{\"providers\":{\"x\":{\"apiKey\":\"k\"}}}\n", ""]
        {
            fs::write(&home.file, text).unwrap();
            fs::set_permissions(&home.file, fs::Permissions::from_mode(0o640)).unwrap();
            put(&home, "ollama", &["a"]).unwrap();
            put(&home, "ollama", &["a", "b"]).unwrap();
            put(&home, "vllm", &["c"]).unwrap();
            assert_eq!(Models::open(&home.host).unwrap().listed("ollama"), ["a", "b"]);
            Models::open(&home.host).unwrap().take("ollama").unwrap();
            Models::open(&home.host).unwrap().take("vllm").unwrap();
            assert_eq!(fs::read_to_string(&home.file).unwrap(), text);
            assert_eq!(home.file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        }
    }

    #[test]
    fn what_the_user_wrote_meanwhile_stays() {
        let home = home();
        put(&home, "ollama", &["a"]).unwrap();
        let text = fs::read_to_string(&home.file).unwrap();
        fs::write(&home.file, text.replacen('{', "{ // Mine.\n\"other\": 1,", 1)).unwrap();
        Models::open(&home.host).unwrap().take("ollama").unwrap();
        let text = fs::read_to_string(&home.file).unwrap();
        assert!(text.contains("// Mine.\n\"other\": 1") && !text.contains("ollama"), "{text}");
    }

    #[test]
    fn an_entry_of_the_users_and_a_broken_file_are_left_alone() {
        let home = home();
        fs::create_dir_all(home.file.parent().unwrap()).unwrap();
        for (text, why) in [
            ("{\"providers\":{\"ollama\":{}}}", "an entry `ollama` already"),
            ("{\"providers\":", "cannot be read, so nothing was changed"),
        ] {
            fs::write(&home.file, text).unwrap();
            let error = put(&home, "ollama", &["a"]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(fs::read_to_string(&home.file).unwrap(), text);
        }
        fs::remove_file(&home.file).unwrap();
        std::os::unix::fs::symlink("elsewhere", &home.file).unwrap();
        let error = format!("{:#}", put(&home, "ollama", &["a"]).unwrap_err());
        assert!(error.contains("it is a link"), "{error}");
    }
}
