//! From decisions to a value that names every container, network, volume, mount, file and variable of a session. Pure:
//! nothing here looks at the machine or changes it.

mod environment;
mod mounts;
mod script;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
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

/// A session's identity; every name derives from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SessionId(String);

impl SessionId {
    /// A new one: 80 random bits as 16 characters.
    pub(crate) fn random() -> anyhow::Result<Self> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| anyhow::anyhow!("could not get random numbers: {error}"))?;
        Ok(Self(
            bytes
                .iter()
                .map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte % 32)]))
                .collect(),
        ))
    }

    /// An id that was written down, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let ok =
            text.len() == 16 && text.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b));
        ok.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn agent(&self) -> String {
        format!("pi-{}", self.0)
    }

    pub(crate) fn sidecar(&self) -> String {
        format!("pi-{}-proxy", self.0)
    }

    pub(crate) fn model(&self) -> String {
        format!("pi-{}-model", self.0)
    }

    pub(crate) fn network(&self) -> String {
        format!("pi-{}", self.0)
    }

    pub(crate) fn home(&self) -> String {
        format!("pi-{}-home", self.0)
    }

    /// Every container that a session of this id can have.
    pub(crate) fn containers(&self) -> Vec<String> {
        vec![self.agent(), self.sidecar(), self.model()]
    }
}

/// What teardown needs to know, and what `pi ps` shows; it lies beside the session's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: SessionId,
    pub(crate) name: String,
    /// The engine's address, as docker takes it.
    pub(crate) engine: String,
    pub(crate) repository: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) image: String,
    /// `open`, `proxy`, `none` or `demo`.
    pub(crate) network: String,
    /// Seconds since 1970.
    pub(crate) started: u64,
    /// Where the allowlist comes from, in a restricted session.
    pub(crate) allowlist: Option<crate::egress::Sources>,
    /// The login file, whose backup lies beside the record.
    pub(crate) login: PathBuf,
}

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

/// A session's own network: eight addresses of a private range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet(Ipv4Addr);

impl Subnet {
    /// The `attempt`th choice for a session, avoiding what the machine routes elsewhere.
    pub(crate) fn choose(id: &SessionId, attempt: u32, host: &Host) -> Self {
        let seed = Sha256::digest(id.as_str());
        let start = u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]]);
        (0..SUBNETS)
            .map(|step| start.wrapping_add(attempt.wrapping_mul(7919)).wrapping_add(step) % SUBNETS)
            .map(|index| Self(Ipv4Addr::from(u32::from(RANGE) + index * 8)))
            .find(|subnet| !host.routes.iter().any(|(net, mask)| subnet.overlaps(*net, *mask)))
            .unwrap_or(Self(RANGE))
    }

    fn overlaps(self, net: Ipv4Addr, mask: Ipv4Addr) -> bool {
        let both = u32::from(mask) & 0xffff_fff8;
        u32::from(self.0) & both == u32::from(net) & both
    }

    fn cidr(self) -> String {
        format!("{}/29", self.0)
    }

    fn host(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0) + n)
    }

    fn sidecar(self) -> Ipv4Addr {
        self.host(2)
    }

    fn agent(self) -> Ipv4Addr {
        self.host(3)
    }

    fn model(self) -> Ipv4Addr {
        self.host(4)
    }
}

/// 10.201.0.0/16, in eights: docker's own pools end after about thirty networks.
const RANGE: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 0);
const SUBNETS: u32 = 8192;

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
        mounts.extend(workspace_mounts(&inputs, &labels));
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
            workdir: Some(workspace.cwd.clone()),
            entrypoint: None,
            command: command(program, reach, facts),
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
         repository, your home directory and /tmp; all but the repository is gone when the session ends. The user's \
         other files, the container engine and `sudo` are not there. {network}"
    )
}

fn command(program: &Program, reach: &Reach, facts: &Facts) -> Vec<String> {
    match program {
        Program::Command(words) => words.clone(),
        Program::Agent(args) => {
            let mut words = vec!["pi".to_owned()];
            if agent::runs_a_model(args) {
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
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
        sync::LazyLock,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::{
        cli::Options,
        config::AgentDir,
        docker::{Cmd, Source},
        facts::AgentEntry,
        files::Identity,
    };

    /// In every value that must not be seen, and in nothing else.
    const SECRET: &str = "hunter2";

    /// All that a plan is made from.
    #[derive(Debug, Clone)]
    struct World {
        config: Config,
        host: Host,
        workspace: Workspace,
        facts: Facts,
        who: Owner,
        program: Program,
        reach: Reach,
    }

    impl World {
        fn plan(&self) -> Plan {
            let id = SessionId::parse("abcdefghijklmnop").unwrap();
            Plan::new(Inputs {
                id: &id,
                config: &self.config,
                host: &self.host,
                workspace: &self.workspace,
                facts: &self.facts,
                who: self.who,
                image: "pi-agent:base-0123456789ab",
                program: &self.program,
                reach: &self.reach,
                subnet: Subnet::choose(&id, 0, &self.host),
                now: 1_700_000_000,
            })
            .unwrap()
        }
    }

    impl Plan {
        fn creates(&self) -> Vec<Cmd> {
            [Some(&self.agent), self.sidecar.as_ref(), self.model.as_ref()]
                .into_iter()
                .flatten()
                .map(Container::create)
                .collect()
        }

        /// Every command of a session's.
        fn commands(&self) -> Vec<Cmd> {
            let mut all = self.creates();
            if let Some(network) = &self.network {
                all.push(network.create());
                all.push(network.connect("x", Ipv4Addr::LOCALHOST));
            }
            for container in [Some(&self.agent), self.sidecar.as_ref(), self.model.as_ref()] {
                all.extend(container.map(Container::attach));
                all.extend(container.map(Container::start));
            }
            all.extend(down(&self.record.id));
            all
        }
    }

    fn words_of(cmd: &Cmd) -> Vec<String> {
        cmd.args().iter().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    /// A path with whatever a path may hold.
    fn path() -> impl Strategy<Value = PathBuf> {
        "(/[^/\0\r]{1,12}){1,3}".prop_filter("no dots", |path| !path.contains("/.")).prop_map(PathBuf::from)
    }

    fn reach() -> impl Strategy<Value = Reach> {
        let proxy = any::<bool>().prop_map(|secret| {
            let conf = format!("Upstream http u:{SECRET}@proxy.example:3128\n");
            Reach::Proxy(ProxyFiles {
                conf: if secret {
                    Text::Secret(Secret::new(conf.into()))
                } else {
                    Text::Plain("x\nEOF\n".into())
                },
                filter: "^example\\.com:443$\n".into(),
                lan: String::new(),
                closed: String::new(),
                image: "pi-proxy:0123456789ab".into(),
            })
        });
        prop_oneof![Just(Reach::Open), Just(Reach::None), Just(Reach::Demo), proxy]
    }

    fn config() -> impl Strategy<Value = Config> {
        let limits = (
            proptest::option::of("[1-9][0-9]{0,3}[kmg]"),
            proptest::option::of(0.1..64.0),
            proptest::option::of(1..9999u32),
        );
        let env = proptest::collection::vec("[B-D][A-Z0-9_]{0,8}", 0..4);
        let publish = proptest::collection::vec(1..=u16::MAX, 0..3);
        (limits, env, publish, any::<bool>(), proptest::option::of("[a-z]{1,8}")).prop_map(
            |((memory, cpus, pids), env, publish, shared, runtime)| {
                static DEFAULT: LazyLock<Config> =
                    LazyLock::new(|| Config::load(&Options::default(), &Host::for_tests(), None).unwrap());
                Config {
                    limits: Limits { memory, cpus, pids },
                    env: env.iter().map(|name| format!("{name}={SECRET}")).collect(),
                    publish,
                    agent_dir: if shared { AgentDir::Shared } else { AgentDir::Guarded },
                    runtime,
                    ..DEFAULT.clone()
                }
            },
        )
    }

    fn host() -> impl Strategy<Value = Host> {
        let secrets = proptest::sample::subsequence(agent::SECRETS.to_vec(), 0..6);
        let settings = proptest::sample::subsequence(agent::SETTINGS.to_vec(), 0..6);
        (secrets, settings, any::<[bool; 4]>(), prop_oneof![Just(0), Just(1000), 1..70_000u32]).prop_map(
            |(secrets, settings, [stdin, stdout, token, proxy], uid)| {
                let mut host = Host { uid, gid: uid, ..Host::for_tests() };
                host.terminal.stdin = stdin;
                host.terminal.stdout = stdout;
                host.env.extend(secrets.into_iter().map(|name| (name.into(), SECRET.into())));
                host.env.extend(settings.into_iter().map(|name| (name.into(), "a 'setting'".into())));
                if token {
                    host.env.insert("PI_GH_TOKEN".into(), SECRET.into());
                }
                if proxy {
                    host.env.insert("https_proxy".into(), format!("http://u:{SECRET}@proxy.example").into());
                }
                host
            },
        )
    }

    fn facts() -> impl Strategy<Value = Facts> {
        let entries = proptest::collection::vec(("[a-z][a-zA-Z. -]{0,10}", path()), 0..5);
        let mount = (path(), any::<bool>()).prop_map(|(path, read_only)| {
            Mount::same(path, if read_only { Access::ReadOnly } else { Access::ReadWrite })
        });
        (entries, proptest::collection::vec(mount, 0..3), proptest::option::of(path()), path()).prop_map(
            |(entries, mounts, skills, agent_dir)| Facts {
                agent_dir,
                agent_entries: entries.into_iter().map(|(name, real)| AgentEntry { name, real }).collect(),
                skills: skills.clone(),
                acli: skills,
                mounts,
                identity: vec![("user.name".into(), "A \"B\" O'C".into())],
                ..Facts::default()
            },
        )
    }

    fn program() -> impl Strategy<Value = Program> {
        let words = proptest::collection::vec("[^\0]{0,12}", 0..4);
        (words, any::<bool>())
            .prop_map(|(words, agent)| if agent { Program::Agent(words) } else { Program::Command(words) })
    }

    fn world() -> impl Strategy<Value = World> {
        (config(), host(), path(), facts(), any::<bool>(), program(), reach()).prop_map(
            |(config, host, root, facts, owned, program, reach)| {
                let who = Owner { uid: if owned { 1000 } else { host.uid }, gid: 1000 };
                let workspace = Workspace {
                    cwd: root.join("below"),
                    root,
                    git_dirs: vec![],
                    git_config: None,
                    alternates: vec![],
                    identity: Identity { device: 1, inode: 2 },
                    owner: who,
                    warnings: vec![],
                };
                World { config, host, workspace, facts, who, program, reach }
            },
        )
    }

    proptest! {
        #[test]
        fn a_secret_never_reaches_a_command_line_a_dry_run_or_a_debug(world in world()) {
            let plan = world.plan();
            for cmd in plan.commands() {
                prop_assert!(!words_of(&cmd).concat().contains(SECRET), "{cmd}");
                prop_assert!(!cmd.to_string().contains(SECRET), "{cmd}");
                let shown = format!("{cmd:?}");
                prop_assert!(!shown.contains(SECRET), "{}", shown);
            }
            prop_assert!(!plan.script().contains(SECRET));
            prop_assert!(!serde_json::to_string(&plan).unwrap().contains(SECRET));
            prop_assert!(!serde_json::to_string(&plan.record).unwrap().contains(SECRET));
            let shown = format!("{plan:?}");
            prop_assert!(!shown.contains(SECRET), "{}", shown);
        }

        #[test]
        fn every_container_is_hardened(world in world()) {
            let plan = world.plan();
            for cmd in plan.creates() {
                let words = words_of(&cmd);
                let image = words.iter().position(|word| word.starts_with("pi-agent:") || word.starts_with("pi-proxy:")).unwrap();
                let flags = &words[..image];
                for flag in [
                    "--rm", "--init", "--pull=never", "--read-only", "--cap-drop=ALL", "--log-driver=none",
                    "--security-opt=no-new-privileges", "--ipc=private", "--cgroupns=private", "--ulimit=core=0",
                ] {
                    prop_assert!(flags.iter().any(|word| word == flag), "{flag}: {cmd}");
                }
                prop_assert!(flags.iter().any(|word| word.starts_with("--security-opt=seccomp=/")), "{cmd}");
                let loosened = ["--privileged", "--device", "--pid", "--uts", "--userns", "--volume", "-v", "--cgroup-parent"];
                prop_assert!(!flags.iter().any(|word| loosened.iter().any(|loose| word == loose || word.starts_with(&format!("{loose}=")))), "{cmd}");
                prop_assert!(!flags.iter().any(|word| word.contains("unconfined") || word == "--network=host"), "{cmd}");
                let added: Vec<_> = flags.iter().filter(|word| word.starts_with("--cap-add")).collect();
                prop_assert!(added.is_empty() || words[image].starts_with("pi-proxy:"), "{cmd}");
            }
        }

        #[test]
        fn whatever_comes_up_carries_the_sessions_label_and_is_named_by_its_teardown(world in world()) {
            let plan = world.plan();
            let gone: Vec<String> = down(&plan.record.id).iter().flat_map(words_of).collect();
            let label = format!("pi.session={}", plan.record.id.as_str());
            for cmd in plan.creates() {
                let words = words_of(&cmd);
                let name = words.iter().position(|word| word == "--name").unwrap() + 1;
                prop_assert!(gone.contains(&words[name]), "{cmd}");
                prop_assert!(words.contains(&label), "{cmd}");
            }
            if let Some(network) = &plan.network {
                prop_assert!(gone.contains(&network.name));
                prop_assert!(words_of(&network.create()).contains(&label));
            }
            for container in [Some(&plan.agent), plan.sidecar.as_ref(), plan.model.as_ref()].into_iter().flatten() {
                for mount in &container.mounts {
                    if let Source::Volume { name, labels } = &mount.source {
                        // The cache outlives the session on purpose.
                        let lasts = labels.get("pi.role").is_some_and(|role| role == "cache");
                        prop_assert_eq!(gone.contains(name), !lasts);
                        prop_assert_eq!(labels.contains_key("pi.session"), !lasts);
                        prop_assert!(labels.contains_key("pi.state"));
                    }
                }
            }
        }

        #[test]
        fn no_two_mounts_have_one_target(world in world()) {
            let plan = world.plan();
            let mut targets: Vec<_> = plan.agent.mounts.iter().map(|mount| &mount.target).collect();
            targets.sort();
            let all = targets.len();
            targets.dedup();
            prop_assert_eq!(targets.len(), all);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_dry_run_is_a_script_that_a_shell_understands(world in world()) {
            let script = world.plan().script();
            let mut sh =
                Command::new("sh").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            let output = sh.wait_with_output().unwrap();
            prop_assert!(output.status.success(), "{}\n{script}", String::from_utf8_lossy(&output.stderr));
        }
    }

    #[test]
    fn a_subnet_avoids_what_the_machine_routes() {
        let id = SessionId::parse("abcdefghijklmnop").unwrap();
        let mut host = Host::for_tests();
        let mut seen = std::collections::BTreeSet::new();
        for attempt in 0..16 {
            let subnet = Subnet::choose(&id, attempt, &host);
            assert!(seen.insert(subnet.0), "{subnet:?} twice");
            host.routes.push((subnet.0, Ipv4Addr::new(255, 255, 255, 248)));
        }
        host.routes = vec![(Ipv4Addr::new(10, 201, 0, 0), Ipv4Addr::new(255, 255, 128, 0))];
        for attempt in 0..16 {
            assert!(Subnet::choose(&id, attempt, &host).0 >= Ipv4Addr::new(10, 201, 128, 0));
        }
    }
}
