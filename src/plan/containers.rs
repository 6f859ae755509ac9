//! The containers of a session: the agent's, and those beside it.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use super::{
    Attachment, Container, Inputs, MACHINE, Mount, Named, OPEN_FILES, PROXY_PORT, Privileges, RELAYS, Reach,
    Role, Room, Streams,
    command::command,
    environment::{environment, no_proxies},
    mounts::{agent_mounts, unique, way_to, workspace_mounts},
};
use crate::{
    broker::relay,
    config::{Access, Limits, Published},
    host::Owner,
    inside,
    purpose::Purpose,
};

/// From here on the sidecar listens for this machine, a port for each one that is published.
const PUBLISHED_FROM: u16 = 8900;

impl Inputs<'_> {
    /// The sidecar, made of a plain container beside the agent.
    pub(super) fn sidecar(&self, plain: Container) -> Container {
        let mut hosts = BTreeMap::from([(MACHINE.to_owned(), Named::Machine)]);
        // The broker asks a resolver. Who asks the proxy for one of these names, with a key of his own, gets nowhere.
        let providers = self.broker().iter().flat_map(|broker| broker.hosts()).collect::<Vec<_>>();
        hosts.extend(providers.into_iter().map(|name| (name, Named::Address(Ipv4Addr::LOCALHOST))));
        let publish = match self.reach {
            Reach::Proxy(..) => self.config.publish.as_slice(),
            Reach::Open | Reach::None | Reach::Demo => &[],
        };
        let publish = publish.iter().zip(PUBLISHED_FROM..);
        let publish = publish.map(|(Published { host, .. }, agent)| Published { host: *host, agent });
        Container {
            privileges: Privileges::RoutesThenNone,
            network: Attachment::Bridge { publish: publish.collect(), dns: self.config.dns.clone() },
            hosts,
            // Old and new rules at once, and the broker's certificates.
            tmp: Room::mebibytes(16, 1000),
            limits: Limits { memory: Some("384m".to_owned()), ..plain.limits },
            mounts: if self.relays().is_empty() {
                vec![]
            } else {
                vec![Mount::bind(self.state.join(RELAYS), relay::DIRECTORY, Access::ReadOnly)]
            },
            command: vec![PROXY_PORT.to_string()],
            ..plain
        }
    }
}

/// The agent's container.
pub(super) fn agent_container(
    inputs: &Inputs<'_>,
    labels: &BTreeMap<String, String>,
    seccomp: &Path,
) -> anyhow::Result<Container> {
    let Inputs { id, choices, config, host, workspace, who, program, .. } = inputs;
    let mut mounts = agent_mounts(inputs);
    mounts.extend(workspace_mounts(inputs, labels));
    let mut mounts = unique(mounts);
    mounts.extend(way_to(&mounts, *who));
    Ok(Container {
        name: id.agent(),
        role: Role::Agent,
        image: choices.agent_image.clone(),
        labels: labels.clone(),
        user: Some(*who),
        privileges: Privileges::None,
        network: inputs.attachment(),
        env: environment(inputs, &mounts)?,
        mounts,
        limits: config.limits.clone(),
        files: host.files.min(OPEN_FILES),
        tmp: Room { bytes: config.disk.tmp, files: 50_000 },
        seccomp: seccomp.to_owned(),
        runtime: config.runtime.clone(),
        streams: match program.purpose {
            // Nobody watches: the table at the end says it.
            Purpose::Demo | Purpose::Proof | Purpose::Renew => Streams::Silent,
            _ => Streams::of(host.terminal.stdin, host.terminal.stdout),
        },
        hosts: inputs.hosts(),
        workdir: Some(match program.purpose {
            Purpose::SetUp if !program.reads_the_repository() => PathBuf::from(inside::HOME),
            Purpose::Login | Purpose::Renew => PathBuf::from("/tmp"),
            _ => workspace.cwd.clone(),
        }),
        command: command(inputs),
    })
}

/// A container beside the agent, as little as it can be.
pub(super) fn companion(
    name: String,
    role: Role,
    image: &str,
    labels: &BTreeMap<String, String>,
    seccomp: &Path,
    inputs: &Inputs<'_>,
) -> Container {
    Container {
        name,
        role,
        image: image.to_owned(),
        labels: labels.clone(),
        user: None,
        privileges: Privileges::None,
        network: Attachment::None,
        mounts: vec![],
        env: no_proxies(),
        limits: Limits { memory: Some("128m".to_owned()), cpus: Some(1.0), pids: Some(320) },
        files: inputs.host.files.min(OPEN_FILES),
        tmp: Room::mebibytes(4, 1000),
        seccomp: seccomp.to_owned(),
        runtime: inputs.config.runtime.clone(),
        streams: Streams::Pipe,
        hosts: BTreeMap::new(),
        workdir: None,
        command: vec![],
    }
}

/// The container of the scripted model.
/// The scripted model of `pi demo`.
const MODEL: &str = include_str!("../../assets/demo/model.mjs");

/// What the scripted model has the agent run.
const CHECK: &str =
    concat!(include_str!("../../assets/demo/walls.sh"), include_str!("../../assets/demo/check.sh"));

/// The model has no file: it is the same on an engine that mounts nothing of this machine.
pub(super) fn demo_model(plain: Container, inputs: &Inputs<'_>) -> Container {
    let Inputs { id, host, .. } = inputs;
    let mut env = plain.env.clone();
    env.insert("PI_BOX_DEMO_HOME".to_owned(), host.home.to_string_lossy().into_owned().into());
    env.insert("PI_BOX_DEMO_CHECK".to_owned(), CHECK.to_owned().into());
    Container {
        user: Some(Owner { uid: 65534, gid: 65534 }),
        network: Attachment::Internal { network: id.network(), address: inputs.subnet().model() },
        env,
        limits: Limits { memory: Some("512m".to_owned()), cpus: Some(1.0), pids: Some(64) },
        streams: Streams::Output,
        command: ["node", "--input-type=module", "--eval", MODEL].map(str::to_owned).into(),
        ..plain
    }
}
