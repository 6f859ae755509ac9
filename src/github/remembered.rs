//! What the user has decided about GitHub, project by project.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{
    broker::github::Repository,
    files::{private_dir, read_small_bytes, replace},
    host::Host,
    record::directory_lock,
};

const FILE: &str = "github.json";

/// From so many on, projects that no longer exist are forgotten.
const MANY: usize = 1000;

/// One project's decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Project {
    /// The user goes on without a token.
    #[serde(default)]
    pub(super) goes_without: bool,
    /// Repositories for which a session's token may be used; `None` before the first such session.
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Project {
    pub(super) fn repositories(&self) -> Option<BTreeSet<Repository>> {
        let names = self.repositories.as_ref()?;
        Some(names.iter().filter_map(|name| Repository::parse(name)).collect())
    }

    pub(super) fn set(&mut self, repositories: &BTreeSet<Repository>) {
        self.repositories = Some(repositories.iter().map(ToString::to_string).collect());
    }
}

/// The decisions about one project, to be kept.
pub(super) struct Remembered<'a> {
    host: &'a Host,
    root: String,
    pub(super) project: Project,
}

impl<'a> Remembered<'a> {
    /// # Errors
    /// The records cannot be read.
    pub(super) fn load(host: &'a Host, root: &Path) -> anyhow::Result<Self> {
        let root = root.to_string_lossy().into_owned();
        let project = all(host)?.remove(&root).unwrap_or_default();
        Ok(Self { host, root, project })
    }

    /// # Errors
    /// The records cannot be written.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        private_dir(&self.host.state_dir())?;
        let _lock = directory_lock(self.host)?;
        let mut all = all(self.host)?;
        if all.len() >= MANY {
            all.retain(|root, _| Path::new(root).exists());
        }
        all.insert(self.root.clone(), self.project.clone());
        let path = path(self.host);
        replace(&path, &serde_json::to_vec(&all)?)
            .with_context(|| format!("could not write `{}`", path.display()))
    }
}

fn path(host: &Host) -> PathBuf {
    host.state_dir().join(FILE)
}

fn all(host: &Host) -> anyhow::Result<BTreeMap<String, Project>> {
    let path = path(host);
    match read_small_bytes(&path)? {
        Some(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("could not read `{}`", path.display()))
        }
        None => Ok(BTreeMap::new()),
    }
}
