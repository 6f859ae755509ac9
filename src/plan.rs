//! From decisions to a value that names every container, network, volume, mount, file and variable of a session. Pure:
//! nothing here looks at the machine or changes it.

mod environment;
mod mounts;
mod script;
pub(crate) mod session;
pub(crate) mod subnet;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    agent,
    config::{Config, Limits},
    docker::{self, Access, Attachment, Container, Mount, NetworkSpec, Privileges, Role, Secret, Streams},
    facts::Facts,
    host::{Host, Owner, hex},
    workspace::Workspace,
};

use self::{
    environment::{environment, no_proxies},
    mounts::{AgentDirAccess, agent_mounts, unique, workspace_mounts},
    session::{Record, SessionId},
    subnet::Subnet,
};

/// The seccomp profile of every container; no looser than the newest engine's own, on any engine.
const SECCOMP: &str = include_str!("../assets/seccomp.json");

/// The scripted model of `pi demo`.
const MODEL: &str = include_str!("../assets/demo/model.mjs");

/// What the scripted model has the agent run.
const CHECK: &str = include_str!("../assets/demo/check.sh");

/// Where the agent lives inside its container.
const HOME: &str = "/home/pi";

/// How many files a process of a container may open, unless the machine allows fewer: an engine cannot give more than
/// it has itself.
const OPEN_FILES: u64 = 65_536;

/// Where the sidecar listens on its network.
const PROXY_PORT: u16 = 8888;

/// A directory that must exist on the host before the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) owner: Option<Owner>,
}

/// A file that is written for the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: Text,
    pub(crate) keep: Keep,
    pub(crate) owner: Option<Owner>,
}

/// What a file holds; a secret one is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Text {
    Plain(String),
    Secret(Secret),
}

impl Text {
    /// For writing it, and for nothing else.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(text) => text.as_bytes(),
            Self::Secret(secret) => secret.bytes(),
        }
    }
}

/// Whether a file that exists already is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Keep {
    /// It is the session's own, readable by its containers.
    Session,
    /// It is the user's: private, and never overwritten.
    Existing,
}

/// What runs inside.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// The agent, with these arguments.
    Agent(Vec<String>),
    /// A command of the user's.
    Command(Vec<String>),
}

/// What the agent may reach, with all that is needed to make it so.
#[derive(Debug, Clone)]
pub(crate) enum Reach {
    Open,
    None,
    /// The allowlist, rendered for the sidecar.
    Proxy(ProxyFiles),
    /// The scripted model and nothing else.
    Demo,
}

impl Reach {
    /// As `pi ps` shows it.
    fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::None => "none",
            Self::Proxy(_) => "proxy",
            Self::Demo => "demo",
        }
    }

    fn attachment(&self, id: &SessionId, config: &Config, subnet: Subnet) -> Attachment {
        match self {
            Self::Open => Attachment::Bridge { publish: config.publish.clone(), dns: vec![] },
            Self::None => Attachment::None,
            Self::Proxy(_) | Self::Demo => {
                Attachment::Internal { network: id.network(), address: subnet.agent() }
            }
        }
    }

    /// Names that the agent's container knows without a resolver.
    fn hosts(&self, subnet: Subnet) -> Vec<String> {
        match self {
            Self::Open => vec!["host.docker.internal:host-gateway".to_owned()],
            Self::Demo => vec![format!("model:{}", subnet.model())],
            Self::None | Self::Proxy(_) => vec![],
        }
    }
}

/// The sidecar's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxyFiles {
    pub(crate) conf: Text,
    pub(crate) filter: String,
    pub(crate) lan: String,
    /// This machine's own addresses, the public ones among them included: nothing of it may be reached by a name.
    pub(crate) closed: String,
    pub(crate) image: String,
}

impl ProxyFiles {
    fn files(&self, dir: &Path) -> [File; 4] {
        let path = dir.join("tinyproxy.conf");
        [
            File { path, text: self.conf.clone(), keep: Keep::Session, owner: None },
            File::session(&dir.join("filter"), &self.filter),
            File::session(&dir.join("lan"), &self.lan),
            File::session(&dir.join("closed"), &self.closed),
        ]
    }
}

/// Everything that a session consists of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Plan {
    pub(crate) record: Record,
    /// The session's own directory on the host.
    pub(crate) state: PathBuf,
    pub(crate) directories: Vec<Directory>,
    pub(crate) files: Vec<File>,
    pub(crate) network: Option<NetworkSpec>,
    pub(crate) sidecar: Option<Container>,
    /// The sidecar's address on the session's network.
    pub(crate) sidecar_address: Option<Ipv4Addr>,
    pub(crate) model: Option<Container>,
    pub(crate) agent: Container,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) id: &'a SessionId,
    pub(crate) config: &'a Config,
    pub(crate) host: &'a Host,
    pub(crate) workspace: &'a Workspace,
    pub(crate) facts: &'a Facts,
    pub(crate) who: Owner,
    pub(crate) image: &'a str,
    pub(crate) program: &'a Program,
    pub(crate) reach: &'a Reach,
    pub(crate) subnet: Subnet,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

impl Plan {
    /// Decides everything.
    ///
    /// # Errors
    /// The user asked for a variable that cannot be given.
    pub(crate) fn new(inputs: Inputs<'_>) -> anyhow::Result<Self> {
        let Inputs { id, config, host, workspace, facts, who, image, program, reach, subnet, now } = inputs;
        let state = host.state_dir().join("sessions").join(id.as_str());
        let access = AgentDirAccess::of(config, program);
        let seccomp = state.join("seccomp.json");
        let labels = labels(id, host, workspace);
        let streams = match (host.terminal.stdin, host.terminal.stdout) {
            (true, true) => Streams::Tty,
            (true, false) => Streams::Output,
            (false, _) => Streams::Pipe,
        };
        let mut files = vec![File::session(&seccomp, SECCOMP)];
        let mut directories = Vec::new();
        let owner = (host.uid == 0 && who.uid != 0).then_some(who);
        let mut mounts = agent_mounts(facts, access, host, &mut directories, &mut files, owner);
        mounts.extend(workspace_mounts(&inputs, access, &labels));
        let mounts = unique(mounts);
        let agent = Container {
            name: id.agent(),
            role: Role::Agent,
            image: image.to_owned(),
            labels: labels.clone(),
            user: Some(who),
            privileges: Privileges::None,
            network: reach.attachment(id, config, subnet),
            env: environment(&inputs, &mounts)?,
            mounts,
            limits: config.limits.clone(),
            files: host.files.min(OPEN_FILES),
            tmp: "1g",
            seccomp: seccomp.clone(),
            runtime: config.runtime.clone(),
            streams,
            hosts: reach.hosts(subnet),
            workdir: Some(match access {
                AgentDirAccess::SetUp => PathBuf::from(HOME),
                _ => workspace.cwd.clone(),
            }),
            entrypoint: None,
            command: command(&inputs, access),
        };
        let network = matches!(reach, Reach::Proxy(_) | Reach::Demo).then(|| NetworkSpec {
            name: id.network(),
            subnet: subnet.cidr(),
            labels: labels.clone(),
        });
        let companion = |name, role, image: &str| companion(name, role, image, &labels, &seccomp, &inputs);
        let (mut sidecar, mut model) = (None, None);
        match reach {
            Reach::Open | Reach::None => {}
            Reach::Proxy(proxy) => {
                let etc = state.join("proxy");
                files.extend(proxy.files(&etc));
                sidecar = Some(Container {
                    privileges: Privileges::RoutesThenNone,
                    network: Attachment::Bridge { publish: vec![], dns: config.dns.clone() },
                    mounts: vec![Mount::bind(etc, "/etc/pi", Access::ReadOnly)],
                    hosts: vec!["host.docker.internal:host-gateway".to_owned()],
                    ..companion(id.sidecar(), Role::Proxy, &proxy.image)
                });
            }
            Reach::Demo => {
                let demo = state.join("demo");
                files.push(File::session(&demo.join("model.mjs"), MODEL));
                files.push(File::session(&demo.join("check.sh"), CHECK));
                model = Some(demo_model(companion(id.model(), Role::Model, image), demo, &inputs));
            }
        }
        let record = Record {
            id: id.clone(),
            name: config.session_name.clone().unwrap_or_else(|| default_name(workspace)),
            engine: host.engine.address.clone(),
            repository: workspace.root.clone(),
            directory: workspace.cwd.clone(),
            image: image.to_owned(),
            network: reach.name().to_owned(),
            started: now,
            allowlist: None,
            login: facts.agent_dir.join("auth.json"),
        };
        let sidecar_address = sidecar.is_some().then(|| subnet.sidecar());
        Ok(Self { record, state, directories, files, network, sidecar, sidecar_address, model, agent })
    }
}

/// A container beside the agent, as little as it can be.
fn companion(
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
        limits: Limits { memory: Some("128m".to_owned()), cpus: None, pids: Some(320) },
        files: inputs.host.files.min(OPEN_FILES),
        tmp: "4m",
        seccomp: seccomp.to_owned(),
        runtime: inputs.config.runtime.clone(),
        streams: Streams::Pipe,
        hosts: vec![],
        workdir: None,
        entrypoint: None,
        command: vec![],
    }
}

fn demo_model(plain: Container, demo: PathBuf, inputs: &Inputs<'_>) -> Container {
    let Inputs { id, host, subnet, .. } = inputs;
    let mut env = plain.env.clone();
    env.insert("PI_BOX_DEMO_HOME".to_owned(), host.home.to_string_lossy().into_owned().into());
    Container {
        user: Some(Owner { uid: 65534, gid: 65534 }),
        network: Attachment::Internal { network: id.network(), address: subnet.model() },
        mounts: vec![Mount::bind(demo, "/demo", Access::ReadOnly)],
        env,
        limits: Limits { memory: Some("512m".to_owned()), cpus: None, pids: Some(64) },
        streams: Streams::Output,
        command: vec!["node".to_owned(), "/demo/model.mjs".to_owned()],
        ..plain
    }
}

/// What takes a session down, from its id alone; all of it may be run again.
pub(crate) fn down(id: &SessionId) -> [docker::Cmd; 3] {
    [
        docker::remove_containers(&id.containers()),
        docker::remove_network(&id.network()),
        docker::remove_volume(&id.home()),
    ]
}

impl File {
    fn session(path: &Path, text: &str) -> Self {
        Self { path: path.to_owned(), text: Text::Plain(text.to_owned()), keep: Keep::Session, owner: None }
    }
}

fn labels(id: &SessionId, host: &Host, workspace: &Workspace) -> BTreeMap<String, String> {
    [
        ("pi.session", id.as_str().to_owned()),
        ("pi.user", host.uid.to_string()),
        ("pi.machine", host.machine.clone()),
        ("pi.state", state_hash(host)),
        ("pi.repo", workspace.root.to_string_lossy().into_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Tells the sessions of one state directory from those of another, whose locks cannot be seen from here.
pub(crate) fn state_hash(host: &Host) -> String {
    hex(&Sha256::digest(host.state_dir().as_os_str().as_encoded_bytes()))[..12].to_owned()
}

fn default_name(workspace: &Workspace) -> String {
    let name = workspace.root.file_name().unwrap_or_else(|| OsStr::new("session")).to_string_lossy();
    let clean: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(40)
        .collect();
    let clean = clean.trim_start_matches(['.', '_', '-']);
    if clean.is_empty() { "session".to_owned() } else { clean.to_owned() }
}

/// Where the agent is, told to the model.
fn briefing(reach: &Reach) -> String {
    let network = match reach {
        Reach::Open => "The network is open.",
        Reach::None => "There is no network.",
        Reach::Demo => "There is no network but the model.",
        Reach::Proxy(_) => {
            "The network is restricted to an allowlist, through the HTTP proxy that the environment names; any other \
             connection and DNS fail. When a host is refused (403 from the proxy), do not look for a way around: ask \
             your user to run `pi allow HOST` in another terminal on their machine, then try again."
        }
    };
    format!(
        "You run inside a locked-down container: no root, no capabilities, a read-only system. You can write the \
         repository, your home directory and /tmp; only the repository, the agent's login and transcripts and the \
         caches of packages outlast the session. The user's other files, the container engine and `sudo` are not \
         there. {network}"
    )
}

fn command(inputs: &Inputs<'_>, access: AgentDirAccess) -> Vec<String> {
    let Inputs { program, reach, facts, config, .. } = inputs;
    match program {
        Program::Command(words) => words.clone(),
        Program::Agent(args) => {
            let mut words = vec!["pi".to_owned()];
            if agent::runs_a_model(args, &config.images.agent_version) {
                // The flag replaces the user's own file, so that is passed along, unless the user's flags do the same.
                let own = facts.agent_entries.iter().any(|entry| entry.name == "APPEND_SYSTEM.md");
                if own && !args.iter().any(|arg| arg == "--append-system-prompt") {
                    words.push("--append-system-prompt".to_owned());
                    words.push(format!("{HOME}/.pi/agent/APPEND_SYSTEM.md"));
                }
                words.push("--append-system-prompt".to_owned());
                words.push(briefing(reach));
            }
            words.extend(args.iter().cloned());
            if access == AgentDirAccess::SetUpFromRepository {
                words.push(agent::WITHOUT_PROJECT.to_owned());
            }
            words
        }
    }
}

/// Words for the agent as text: a container's command is JSON.
///
/// # Errors
/// A word is not UTF-8.
pub(crate) fn words(args: &[std::ffi::OsString]) -> anyhow::Result<Vec<String>> {
    args.iter()
        .map(|arg| {
            arg.to_str().map(str::to_owned).with_context(|| format!("`{}` is not UTF-8", arg.display()))
        })
        .collect()
}

#[cfg(test)]
mod tests;
