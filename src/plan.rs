//! From decisions to a value that names every container, network, volume, mount, file and variable of a session. Pure:
//! nothing here looks at the machine or changes it, and nobody changes a plan: what varies is an input.

mod away;
mod command;
mod containers;
mod contents;
mod copier;
mod environment;
mod hatch;
mod mounts;
mod noun;
mod subnet;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    agent,
    agent_dir::laid::Laid,
    broker::{Broker, relay::Relay},
    config::{Config, Published},
    egress::{Rendered, Sources, Told},
    facts::Facts,
    git::given::Given,
    host::{Host, Owner, hex},
    keys,
    purpose::{Program, Purpose},
    record::{Record, SessionId},
    workspace::Workspace,
};

pub(crate) use self::away::{Away, Carried, Sent};
pub(crate) use self::contents::contents;
pub(crate) use self::copier::{COPY, Copied, copier, copier_file};
pub(crate) use self::mounts::shadow;
use self::{
    containers::{agent_container, companion, demo_model},
    copier::session_labels,
    mounts::needed,
    subnet::Subnet,
};
pub(crate) use self::{
    hatch::Hatch,
    noun::{
        Attachment, Container, File, Mount, Named, Needed, Needs, Network, Privileges, Role, Room, Source,
        Streams,
    },
};

/// The seccomp profile of every container; no looser than the newest engine's own, on any engine.
const SECCOMP: &str = include_str!("../assets/seccomp.json");

/// Its name in the session's directory.
const SECCOMP_FILE: &str = "seccomp.json";

/// How many files a process of a container may open, unless the machine allows fewer: an engine cannot give more than
/// it has itself.
const OPEN_FILES: u64 = 16_384;

/// Where the sidecar listens on its network.
const PROXY_PORT: u16 = 8888;

/// The directory of the launcher's sockets for the sidecar, in the session's own.
pub(crate) const RELAYS: &str = "relay";

/// By this name containers reach the machine that they run on.
const MACHINE: &str = "host.docker.internal";

/// What the agent may reach, with all that is needed to make it so.
#[derive(Debug, Clone)]
pub(crate) enum Reach {
    Open,
    None,
    /// The allowlist, rendered for the sidecar, and where it came from.
    Proxy(Box<Rendered>, Sources),
    /// The scripted model and nothing else.
    Demo,
}

impl Reach {
    /// As `pi ps` shows it.
    fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::None => "none",
            Self::Proxy(..) => "proxy",
            Self::Demo => "demo",
        }
    }
}

/// What may turn out otherwise while a session comes up, and then is planned anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choices {
    pub(crate) name: String,
    /// How often the engine has found the session's addresses taken.
    pub(crate) attempt: u32,
    /// The image's id, or its tag while it has none.
    pub(crate) agent_image: String,
    pub(crate) sidecar_image: String,
    /// When the session began, in seconds since 1970.
    pub(crate) started: u64,
    /// What was laid out as the agent's own directory; `None` before that.
    pub(crate) laid: Option<Vec<Laid>>,
}

/// Everything that a session consists of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Plan {
    pub(crate) record: Record,
    /// The session's own directory on the host.
    pub(crate) state: PathBuf,
    pub(crate) needed: Vec<Needed>,
    pub(crate) files: Vec<File>,
    pub(crate) network: Option<Network>,
    pub(crate) sidecar: Option<Container>,
    /// The sidecar's address on the session's network.
    pub(crate) sidecar_address: Option<Ipv4Addr>,
    /// The agent's address there, where it is on another network besides.
    pub(crate) agent_address: Option<Ipv4Addr>,
    /// What the sidecar is told on its stdin, and nowhere else.
    pub(crate) told: Option<Told>,
    /// Servers on this machine's loopback to which the launcher passes on what the sidecar sends.
    pub(crate) relays: Vec<Relay>,
    pub(crate) model: Option<Container>,
    /// What is copied before the agent starts, in words.
    pub(crate) copied: Option<String>,
    /// What the session has in place of mounts, on an engine that mounts nothing of this machine.
    pub(crate) away: Option<Away>,
    /// Made only when there is a commit to take over.
    pub(crate) git: Option<Hatch>,
    pub(crate) agent: Container,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) id: &'a SessionId,
    pub(crate) choices: &'a Choices,
    pub(crate) config: &'a Config,
    pub(crate) host: &'a Host,
    pub(crate) workspace: &'a Workspace,
    pub(crate) facts: &'a Facts,
    /// What the session has in place of the repository.
    pub(crate) copy: Option<&'a Copied>,
    pub(crate) git: &'a Given,
    /// What people call the agent's image.
    pub(crate) image: &'a str,
    pub(crate) who: Owner,
    /// The language whose caches outlive the session.
    pub(crate) caches: Option<&'static str>,
    pub(crate) program: &'a Program,
    pub(crate) reach: &'a Reach,
    /// Where the session has its directory.
    pub(crate) state: &'a Path,
}

impl Inputs<'_> {
    fn subnet(&self) -> Subnet {
        Subnet::choose(self.id, self.choices.attempt, self.host)
    }

    /// The broker, if the program may ask for a model.
    fn broker(&self) -> Option<&Broker> {
        let Program { purpose, words } = self.program;
        let asks = match purpose {
            Purpose::Shell | Purpose::Proof => true,
            Purpose::Work => agent::runs_a_model(words, &self.config.images.agent_version),
            Purpose::SetUp | Purpose::Login | Purpose::Renew | Purpose::Demo => false,
        };
        self.facts.keys.broker.as_ref().filter(|_| asks)
    }

    fn relays(&self) -> Vec<Relay> {
        self.broker().map(Broker::relays).unwrap_or_default()
    }

    /// Where the agent's container is created.
    fn attachment(&self) -> Attachment {
        match self.reach {
            Reach::Open if self.config.host_network && self.program.purpose == Purpose::Login => {
                Attachment::Machine
            }
            // Another network comes to it, where there is a broker.
            Reach::Open => {
                // Such a session asks providers itself, as the sidecar of others does.
                let asks = self.program.purpose.is_login();
                let dns = if asks { self.config.dns.clone() } else { vec![] };
                Attachment::Bridge { publish: self.config.publish.clone(), dns }
            }
            Reach::None if self.broker().is_none() => Attachment::None,
            Reach::None | Reach::Proxy(..) | Reach::Demo => {
                Attachment::Internal { network: self.id.network(), address: self.subnet().agent() }
            }
        }
    }

    /// Names that the agent's container knows without a resolver.
    fn hosts(&self) -> BTreeMap<String, Named> {
        let own = match self.reach {
            Reach::Open => Some((MACHINE, Named::Machine)),
            Reach::Demo => Some(("model", Named::Address(self.subnet().model()))),
            Reach::None | Reach::Proxy(..) => None,
        };
        let broker = self.broker().map(|_| (keys::NAME, Named::Address(self.subnet().sidecar())));
        own.into_iter().chain(broker).map(|(name, who)| (name.to_owned(), who)).collect()
    }

    /// Who the agent is, where it is not who we are.
    fn other_owner(&self) -> Option<Owner> {
        (self.host.uid == 0 && self.who.uid != 0).then_some(self.who)
    }
}

impl Plan {
    /// Whether the sidecar has keys for the agent.
    pub(crate) fn has_keys(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.broker.is_some())
    }

    /// Decides everything.
    ///
    /// # Errors
    /// The user asked for a variable that cannot be given.
    pub(crate) fn new(inputs: Inputs<'_>) -> anyhow::Result<Self> {
        let Inputs { id, choices, host, workspace, reach, state, .. } = inputs;
        let seccomp = state.join(SECCOMP_FILE);
        let labels = session_labels(id, host, &workspace.root);
        let subnet = inputs.subnet();
        let files = vec![File::session(&seccomp, SECCOMP)];
        let agent = agent_container(&inputs, &labels, &seccomp)?;
        let has_broker = inputs.broker().is_some();
        let network = (has_broker || matches!(reach, Reach::Proxy(..) | Reach::Demo)).then(|| Network {
            name: id.network(),
            subnet: subnet.cidr(),
            labels: labels.clone(),
        });
        let companion = |name, role, image: &str| companion(name, role, image, &labels, &seccomp, &inputs);
        let rules = match reach {
            Reach::Proxy(rendered, _) => Some((**rendered).clone()),
            Reach::Open | Reach::None | Reach::Demo => None,
        };
        let sidecar = (has_broker || rules.is_some())
            .then(|| inputs.sidecar(companion(id.sidecar(), Role::Proxy, &choices.sidecar_image)));
        let brokered = inputs.broker().and_then(|_| inputs.facts.keys.brokered(subnet.sidecar()));
        let published = match reach {
            Reach::Proxy(..) => published(&inputs.config.publish, subnet.agent()),
            Reach::Open | Reach::None | Reach::Demo => String::new(),
        };
        let told = sidecar.as_ref().map(|_| Told::new(rules, published, brokered, host)).transpose()?;
        let model = matches!(reach, Reach::Demo)
            .then(|| demo_model(companion(id.model(), Role::Model, &choices.agent_image), &inputs));
        let agent_address = (has_broker && matches!(reach, Reach::Open)).then(|| subnet.agent());
        let sidecar_address = sidecar.is_some().then(|| subnet.sidecar());
        let containers = std::iter::once(&agent).chain(&sidecar).chain(&model);
        let mut binds = containers.flat_map(|container| &container.mounts).filter_map(Mount::path);
        if let Some(path) = binds.next().filter(|_| host.engine.is_apart()) {
            anyhow::bail!("`{}` cannot be mounted on another engine", path.display());
        }
        let state = state.to_owned();
        Ok(Self {
            record: record(&inputs),
            state,
            needed: needed(&inputs),
            files,
            network,
            sidecar,
            sidecar_address,
            agent_address,
            told,
            relays: inputs.relays(),
            model,
            copied: inputs.copy.map(|copy| copy.tale.clone()),
            away: Away::of(&inputs),
            git: Hatch::of(&inputs, &labels),
            agent,
        })
    }
}

fn record(inputs: &Inputs<'_>) -> Record {
    let Inputs { id, choices, host, workspace, facts, image, reach, .. } = inputs;
    Record {
        id: (*id).clone(),
        name: choices.name.clone(),
        engine: host.engine.address.clone(),
        repository: workspace.root.clone(),
        directory: workspace.cwd.clone(),
        image: (*image).to_owned(),
        network: reach.name().to_owned(),
        started: choices.started,
        allowlist: match reach {
            Reach::Proxy(_, sources) => Some(sources.file.clone()),
            _ => None,
        },
        agent_dir: facts.agent_dir.clone(),
    }
}

/// Where the sidecar passes on what it hears from this machine, as it reads that.
fn published(all: &[Published], agent: Ipv4Addr) -> String {
    all.iter()
        .fold(String::new(), |lines, Published { agent: port, .. }| lines + &format!("{agent} {port}\n"))
}

/// Labels of everything that the launcher makes on an engine, of sessions or not.
const MACHINE_LABELS: [&str; 4] = ["pi.user", "pi.machine", "pi.state", "pi.repo"];

/// Tells the sessions of one state directory from those of another, whose locks cannot be seen from here.
pub(crate) fn state_hash(host: &Host) -> String {
    hex(&Sha256::digest(host.state_dir().as_os_str().as_encoded_bytes()))[..12].to_owned()
}
