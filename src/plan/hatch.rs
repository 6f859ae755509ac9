//! The container by which an agent's commits come out: git, the agent's own git directory and the objects that it borrows.
//! It is written down before the agent starts, so that it can be made also after the launcher was killed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Attachment, Container, Inputs, Mount, Privileges, Role, Room, SECCOMP_FILE, Streams,
    environment::no_proxies,
};
use crate::{
    config::{Access, Limits},
    host::Owner,
    inside,
    record::SessionId,
};

/// What that container depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hatch {
    id: SessionId,
    image: String,
    uid: u32,
    gid: u32,
    labels: BTreeMap<String, String>,
    /// Sources and targets; the first, which is the agent's own, can be written.
    store: Vec<(PathBuf, PathBuf)>,
    files: u64,
    runtime: Option<String>,
}

impl Hatch {
    pub(super) fn of(inputs: &Inputs<'_>, labels: &BTreeMap<String, String>) -> Option<Self> {
        let store: Vec<_> =
            inputs.git.store.iter().map(|bind| (bind.source.clone(), bind.target.clone())).collect();
        (!store.is_empty()).then(|| Self {
            id: inputs.id.clone(),
            image: inputs.choices.agent_image.clone(),
            uid: inputs.who.uid,
            gid: inputs.who.gid,
            labels: labels.clone(),
            store,
            files: inputs.host.files.min(super::OPEN_FILES),
            runtime: inputs.config.runtime.clone(),
        })
    }

    /// The container's name.
    pub(crate) fn name(&self) -> String {
        self.id.git()
    }

    /// The same from another image.
    pub(crate) fn with_image(self, image: String) -> Self {
        Self { image, ..self }
    }

    /// The container; `state` is the session's directory. It sleeps until commands are run in it.
    pub(crate) fn container(&self, state: &Path) -> Container {
        let access = |n: usize| if n == 0 { Access::ReadWrite } else { Access::ReadOnly };
        let mounts = self.store.iter().enumerate();
        let mut env = no_proxies();
        env.insert("HOME".to_owned(), inside::HOME.into());
        for (name, value) in [("COUNT", "1"), ("KEY_0", "safe.directory"), ("VALUE_0", "*")] {
            env.insert(format!("GIT_CONFIG_{name}"), value.into());
        }
        Container {
            name: self.id.git(),
            role: Role::Git,
            image: self.image.clone(),
            labels: self.labels.clone(),
            user: Some(Owner { uid: self.uid, gid: self.gid }),
            privileges: Privileges::None,
            network: Attachment::None,
            mounts: mounts.map(|(n, (source, target))| Mount::bind(source, target, access(n))).collect(),
            env,
            // As much as packing a large repository takes.
            limits: Limits { memory: Some("1g".to_owned()), cpus: Some(1.0), pids: Some(64) },
            files: self.files,
            tmp: Room::mebibytes(16, 1000),
            seccomp: state.join(SECCOMP_FILE),
            runtime: self.runtime.clone(),
            streams: Streams::Silent,
            hosts: BTreeMap::new(),
            workdir: Some("/".into()),
            command: vec!["sleep".to_owned(), "infinity".to_owned()],
        }
    }
}
