//! The agent's own directory of a session on an engine that cannot mount what is on this machine: a volume of the session's,
//! and the container in which it is filled and emptied.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    COPY, Container, Inputs, Mount, Role, Source,
    copier::{Keeper, keeper, session_labels},
    mounts::planned,
};
use crate::{
    config::Access,
    facts::Rules,
    host::{Host, Owner},
    inside,
    record::SessionId,
};

/// In the agent's directory inside: what belongs into its home. The gate makes links to it.
const OF_HOME: &str = ".pi-home";

/// What goes into the volume, and where the volume is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Away {
    pub(crate) carried: Carried,
    pub(crate) sent: Vec<Sent>,
}

/// A file or a directory of this machine that goes into the agent's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sent {
    pub(crate) source: PathBuf,
    /// Below the agent's directory.
    pub(crate) target: PathBuf,
    /// What can be written comes back.
    pub(crate) access: Access,
}

/// What has to be known to reach the volume, also by whoever finds the session dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Carried {
    pub(crate) id: SessionId,
    pub(crate) engine: String,
    pub(crate) image: String,
    uid: u32,
    gid: u32,
    runtime: Option<String>,
    repository: PathBuf,
}

impl Away {
    /// `None` on an engine that mounts files of this machine.
    pub(super) fn of(inputs: &Inputs<'_>) -> Option<Self> {
        let Inputs { id, choices, host, workspace, who, config, .. } = inputs;
        host.engine.is_apart().then(|| Self {
            carried: Carried {
                id: (*id).clone(),
                engine: host.engine.address.clone(),
                image: choices.agent_image.clone(),
                uid: who.uid,
                gid: who.gid,
                runtime: config.runtime.clone(),
                repository: workspace.root.clone(),
            },
            sent: sent(inputs),
        })
    }
}

impl Carried {
    /// The container. It lives as long as the launcher holds its stdin. `dir` is the session's directory.
    pub(crate) fn carrier(&self, dir: &Path, host: &Host) -> Container {
        let labels = session_labels(&self.id, host, &self.repository);
        keeper(Keeper {
            name: self.id.carrier(),
            role: Role::Directory,
            image: self.image.clone(),
            owner: Owner { uid: self.uid, gid: self.gid },
            mount: mount(&self.id, labels.clone(), Path::new(COPY)),
            labels,
            runtime: self.runtime.clone(),
            engine: &self.engine,
            dir,
            host,
        })
    }
}

/// The volume as the agent has it.
pub(super) fn agent_mount(inputs: &Inputs<'_>) -> Mount {
    let Inputs { id, host, workspace, .. } = inputs;
    mount(id, session_labels(id, host, &workspace.root), Path::new(inside::AGENT_DIR))
}

fn mount(id: &SessionId, mut labels: std::collections::BTreeMap<String, String>, target: &Path) -> Mount {
    labels.insert("pi.role".to_owned(), "directory".to_owned());
    let source = Source::Volume { name: id.volume(), labels };
    Mount { source, target: target.to_owned(), access: Access::ReadWrite }
}

fn sent(inputs: &Inputs<'_>) -> Vec<Sent> {
    let Inputs { choices, facts, .. } = inputs;
    let mut all: Vec<Sent> = match &choices.laid {
        Some(laid) => laid
            .iter()
            .map(|laid| Sent {
                source: laid.source.clone(),
                target: laid.target.clone(),
                access: laid.access,
            })
            .collect(),
        None => planned(inputs)
            .into_iter()
            .map(|one| Sent { source: one.source, target: one.target, access: one.access })
            .collect(),
    };
    let mut of_home = |source: &Path, target: &Path| {
        let target = target.strip_prefix(inside::HOME).unwrap_or(target);
        all.push(Sent {
            source: source.to_owned(),
            target: Path::new(OF_HOME).join(target),
            access: Access::ReadOnly,
        });
    };
    if let Some(skills) = &facts.skills {
        of_home(skills, Path::new(".agents/skills"));
    }
    if let Rules::Own(rules) = &facts.house.rules {
        of_home(rules, Path::new(inside::RULES));
    }
    if let Some((dir, _)) = &facts.house.extensions {
        of_home(dir, Path::new(inside::EXTENSIONS));
    }
    all
}
