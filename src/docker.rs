//! The only module that knows docker's flags: a command as a value, how it is rendered, and how it is run.
//!
//! Every flag here is known to CLI 20.10.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt::{self, Display},
    io::{self, Read},
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde::{Serialize, Serializer};
use shared_child::SharedChild;

use crate::{
    config::Limits,
    host::{Host, Owner},
    report::{self, Hinted},
};

/// A value that must never be seen: not in an argv, not in a log, not in a dry run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(OsString);

impl Secret {
    pub(crate) fn new(value: OsString) -> Self {
        Self(value)
    }

    fn expose(&self) -> &OsStr {
        &self.0
    }

    /// For writing it into a file that nobody else reads.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_encoded_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("[redacted]")
    }
}

/// What a variable of a container holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Plain(String),
    Secret(Secret),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

/// A docker command that has not been run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a command does nothing until a `Docker` runs it"]
pub(crate) struct Cmd {
    /// What it is for, to go behind "could not".
    pub(crate) purpose: String,
    args: Vec<OsString>,
    secrets: BTreeMap<OsString, Secret>,
}

impl Cmd {
    fn new(purpose: impl Into<String>, args: &[&str]) -> Self {
        Self {
            purpose: purpose.into(),
            args: args.iter().map(OsString::from).collect(),
            secrets: BTreeMap::new(),
        }
    }

    fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    fn pair(self, flag: &str, value: impl Into<OsString>) -> Self {
        self.arg(flag).arg(value)
    }

    /// What docker is called with, the program left out.
    #[cfg(test)]
    pub(crate) fn args(&self) -> &[OsString] {
        &self.args
    }
}

/// As a shell would take it; secrets are not part of it.
impl Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("docker")?;
        for arg in &self.args {
            write!(f, " {}", quote(&arg.to_string_lossy()))?;
        }
        Ok(())
    }
}

impl Serialize for Cmd {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let words: Vec<_> = std::iter::once("docker".into())
            .chain(self.args.iter().map(|arg| arg.to_string_lossy()))
            .collect();
        words.serialize(to)
    }
}

/// `text` as one word of a POSIX shell.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What a container is in a session; its label `pi.role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Agent,
    Proxy,
    Model,
}

impl Role {
    fn purpose(self) -> &'static str {
        match self {
            Self::Agent => "the agent's container",
            Self::Proxy => "the proxy's container",
            Self::Model => "the model's container",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Proxy => "proxy",
            Self::Model => "model",
        }
    }
}

/// Where a container is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Attachment {
    /// Docker's default bridge, with the ports that are published on 127.0.0.1 and resolvers other than the engine's.
    Bridge { publish: Vec<u16>, dns: Vec<String> },
    /// A session's own network, at this address; it has no way out and no resolver.
    Internal { network: String, address: Ipv4Addr },
    /// Loopback only.
    None,
}

/// What a container may do besides what its user may: a policy, so that no caller can ask for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Privileges {
    /// Nothing.
    None,
    /// What the sidecar needs to lay its routes and to drop the rest, before tinyproxy runs.
    RoutesThenNone,
}

/// How the container's standard streams are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Streams {
    /// Stdin and stdout are terminals.
    Tty,
    /// Stdin is open and not a terminal.
    Pipe,
    /// Stdin is a terminal and stdout is not: an open stdin would never end.
    Output,
}

/// Whether what is mounted can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// Something of the host, or of the engine, inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Mount {
    pub(crate) source: Source,
    pub(crate) target: PathBuf,
    pub(crate) access: Access,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// A path of the host, which must exist.
    Bind(PathBuf),
    /// A named volume, made on first use with these labels.
    Volume { name: String, labels: BTreeMap<String, String> },
}

impl Mount {
    /// A directory or file of the host at its own path.
    pub(crate) fn same(path: impl Into<PathBuf>, access: Access) -> Self {
        let path = path.into();
        Self { source: Source::Bind(path.clone()), target: path, access }
    }

    /// A directory or file of the host at another path.
    pub(crate) fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>, access: Access) -> Self {
        Self { source: Source::Bind(source.into()), target: target.into(), access }
    }

    /// The value of `--mount`: a line of CSV, so that a path may hold commas and quotes.
    fn render(&self) -> String {
        let mut fields = Vec::new();
        match &self.source {
            Source::Bind(path) => {
                fields.push("type=bind".to_owned());
                fields.push(format!("source={}", path.display()));
            }
            Source::Volume { name, labels } => {
                fields.push("type=volume".to_owned());
                fields.push(format!("source={name}"));
                for (key, value) in labels {
                    fields.push(format!("volume-label={key}={value}"));
                }
            }
        }
        fields.push(format!("target={}", self.target.display()));
        if self.access == Access::ReadOnly {
            fields.push("readonly".to_owned());
        }
        fields.iter().map(|field| csv(field)).collect::<Vec<_>>().join(",")
    }
}

fn csv(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) || field.starts_with(' ') {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// A container that a session consists of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) image: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// `None` is the image's own user.
    pub(crate) user: Option<Owner>,
    pub(crate) privileges: Privileges,
    pub(crate) network: Attachment,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) env: BTreeMap<String, Value>,
    pub(crate) limits: Limits,
    /// How many files a process may open.
    pub(crate) files: u64,
    /// The size of `/tmp`, as docker takes it.
    pub(crate) tmp: &'static str,
    pub(crate) seccomp: PathBuf,
    pub(crate) runtime: Option<String>,
    pub(crate) streams: Streams,
    pub(crate) hosts: Vec<String>,
    pub(crate) workdir: Option<PathBuf>,
    pub(crate) entrypoint: Option<String>,
    pub(crate) command: Vec<String>,
}

impl Container {
    /// The only way in which a container is born; whatever else it is, it is hardened.
    pub(crate) fn create(&self) -> Cmd {
        let Self {
            name,
            role,
            image,
            labels,
            user,
            privileges,
            network,
            mounts,
            env,
            limits,
            files,
            tmp,
            seccomp,
            runtime,
            streams,
            hosts,
            workdir,
            entrypoint,
            command,
        } = self;
        let mut cmd = Cmd::new(
            format!("create {}", role.purpose()),
            &[
                "create",
                "--rm",
                // A process that is PID 1 can make an engine believe that its container has ended, or never ends.
                "--init",
                "--pull=never",
                "--read-only",
                "--cap-drop=ALL",
                "--security-opt=no-new-privileges",
                "--ipc=private",
                "--cgroupns=private",
                "--log-driver=none",
                "--ulimit=core=0",
            ],
        )
        .pair("--name", name)
        .arg(format!("--ulimit=nofile={files}:{files}"))
        .arg(joined("--security-opt=seccomp=", seccomp))
        .arg(format!("--tmpfs=/tmp:rw,exec,nosuid,nodev,size={tmp},mode=1777"));
        for (key, value) in labels {
            cmd = cmd.pair("--label", format!("{key}={value}"));
        }
        cmd = cmd.pair("--label", format!("pi.role={}", role.label()));
        if let Some(Owner { uid, gid }) = user {
            cmd = cmd.pair("--user", format!("{uid}:{gid}"));
        }
        match privileges {
            Privileges::None => {}
            Privileges::RoutesThenNone => {
                for capability in ["NET_ADMIN", "SETUID", "SETGID", "SETPCAP"] {
                    cmd = cmd.arg(format!("--cap-add={capability}"));
                }
            }
        }
        cmd = cmd_network(cmd, network);
        cmd = cmd_limits(cmd, limits);
        for mount in mounts {
            cmd = cmd.pair("--mount", mount.render());
        }
        for (key, value) in env {
            match value {
                Value::Plain(text) => cmd = cmd.pair("--env", format!("{key}={text}")),
                Value::Secret(secret) => {
                    cmd.secrets.insert(key.into(), secret.clone());
                    cmd = cmd.pair("--env", key);
                }
            }
        }
        if let Some(runtime) = runtime {
            cmd = cmd.pair("--runtime", runtime);
        }
        for host in hosts {
            cmd = cmd.pair("--add-host", host);
        }
        cmd = match streams {
            Streams::Tty => cmd.arg("--interactive").arg("--tty"),
            Streams::Pipe => cmd.arg("--interactive"),
            Streams::Output => cmd,
        };
        if let Some(workdir) = workdir {
            cmd = cmd.pair("--workdir", workdir);
        }
        if let Some(entrypoint) = entrypoint {
            cmd = cmd.pair("--entrypoint", entrypoint);
        }
        cmd = cmd.arg(image);
        for word in command {
            cmd = cmd.arg(word);
        }
        cmd
    }

    /// Starts the container with its streams connected to the docker program's own.
    pub(crate) fn attach(&self) -> Cmd {
        let mut cmd = Cmd::new(format!("start {}", self.role.purpose()), &["start", "--attach"]);
        if self.streams != Streams::Output {
            cmd = cmd.arg("--interactive");
        }
        // Docker's own keys begin with Ctrl-P, which the agent needs.
        cmd.arg("--detach-keys=ctrl-^,ctrl-@").arg(&self.name)
    }

    /// Starts the container and returns.
    pub(crate) fn start(&self) -> Cmd {
        Cmd::new(format!("start {}", self.role.purpose()), &["start", &self.name])
    }
}

fn joined(prefix: &str, path: &Path) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path);
    text
}

fn cmd_network(mut cmd: Cmd, network: &Attachment) -> Cmd {
    match network {
        Attachment::Bridge { publish, dns } => {
            cmd = cmd.arg("--network=bridge");
            for port in publish {
                cmd = cmd.pair("--publish", format!("127.0.0.1:{port}:{port}"));
            }
            for server in dns {
                cmd = cmd.pair("--dns", server);
            }
            cmd
        }
        Attachment::Internal { network, address } => dead_resolver(cmd.pair("--network", network))
            .pair("--ip", address.to_string())
            // Without this an unprivileged process may send ICMP echo requests.
            .pair("--sysctl", "net.ipv4.ping_group_range=1 0"),
        Attachment::None => dead_resolver(cmd.arg("--network=none")),
    }
}

/// Old engines would forward a look-up from a network without a way out to the host's resolver, and time out slowly.
fn dead_resolver(cmd: Cmd) -> Cmd {
    cmd.arg("--dns=0.0.0.0").arg("--dns-opt=timeout:1").arg("--dns-opt=attempts:1")
}

fn cmd_limits(mut cmd: Cmd, Limits { memory, cpus, pids }: &Limits) -> Cmd {
    if let Some(memory) = memory {
        // Equal values: the memory is the limit, and there is no swap on top.
        cmd = cmd.pair("--memory", memory).pair("--memory-swap", memory);
    }
    if let Some(cpus) = cpus {
        cmd = cmd.pair("--cpus", cpus.to_string());
    }
    if let Some(pids) = pids {
        cmd = cmd.pair("--pids-limit", pids.to_string());
    }
    cmd
}

/// A session's own network: nothing of the host is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NetworkSpec {
    pub(crate) name: String,
    /// In CIDR form.
    pub(crate) subnet: String,
    pub(crate) labels: BTreeMap<String, String>,
}

impl NetworkSpec {
    pub(crate) fn create(&self) -> Cmd {
        let mut cmd = Cmd::new(
            "create the session's network",
            &[
                "network",
                "create",
                "--internal",
                // Without an address of the host on the bridge, the host cannot be reached through it. Engine 28 calls
                // the same thing an isolated gateway; older ones store that option and ignore it.
                "--opt=com.docker.network.bridge.inhibit_ipv4=true",
                "--opt=com.docker.network.bridge.gateway_mode_ipv4=isolated",
                "--opt=com.docker.network.bridge.gateway_mode_ipv6=isolated",
            ],
        )
        .pair("--subnet", &self.subnet);
        for (key, value) in &self.labels {
            cmd = cmd.pair("--label", format!("{key}={value}"));
        }
        cmd.arg("--label=pi.role=net").arg(&self.name)
    }

    /// Attaches a container that was created on another network.
    pub(crate) fn connect(&self, container: &str, address: Ipv4Addr) -> Cmd {
        Cmd::new("connect the proxy to the session's network", &["network", "connect"])
            .pair("--ip", address.to_string())
            .arg(&self.name)
            .arg(container)
    }
}

/// Removes containers, whatever they are doing; those that do not exist are no failure.
pub(crate) fn remove_containers(names: &[String]) -> Cmd {
    let mut cmd = Cmd::new("remove the session's containers", &["rm", "--force", "--volumes"]);
    cmd.args.extend(names.iter().map(OsString::from));
    cmd
}

pub(crate) fn remove_network(name: &str) -> Cmd {
    Cmd::new("remove the session's network", &["network", "rm", name])
}

pub(crate) fn remove_volume(name: &str) -> Cmd {
    Cmd::new("remove the session's home volume", &["volume", "rm", "--force", name])
}

/// Asks a container to end and gives it five seconds: the agent may be writing down a login.
pub(crate) fn stop(name: &str) -> Cmd {
    Cmd::new("stop the agent", &["stop", "-t", "5", name])
}

/// Sends a signal to the init of a container, which passes it on.
pub(crate) fn kill(name: &str, signal: &str) -> Cmd {
    Cmd::new("signal the proxy", &["kill", "--signal", signal, name])
}

/// What became of a container since `since`, oldest first; the engine remembers its last events.
pub(crate) fn events(name: &str, since: &str, until: &str) -> Cmd {
    Cmd::new("ask the engine how the agent ended", &["events"])
        .pair("--since", since)
        .pair("--until", until)
        .pair("--filter", format!("container={name}"))
        .pair("--format", "{{.Action}} {{.Actor.Attributes.exitCode}}")
}

/// Runs a command in a running container.
pub(crate) fn exec(name: &str, streams: Streams, workdir: &Path, command: &[String]) -> Cmd {
    let mut cmd = Cmd::new("enter the session", &["exec"]);
    cmd = match streams {
        Streams::Tty => cmd.arg("--interactive").arg("--tty"),
        Streams::Pipe => cmd.arg("--interactive"),
        Streams::Output => cmd,
    };
    cmd = cmd.arg("--detach-keys=ctrl-^,ctrl-@").pair("--workdir", workdir).arg(name);
    cmd.args.extend(command.iter().map(OsString::from));
    cmd
}

/// Names (`NAME<tab>LABEL`) of a kind of object that carry a label; `kind` is `container`, `network` or `volume`.
pub(crate) fn list(kind: &str, label: &str, value_of: &str) -> Cmd {
    let mut cmd = Cmd::new(format!("list the {kind}s of sessions"), &[kind, "ls"]);
    if kind == "container" {
        cmd = cmd.arg("--all");
    }
    let name = if kind == "container" { "{{.Names}}" } else { "{{.Name}}" };
    cmd.pair("--filter", format!("label={label}"))
        .pair("--format", format!("{name}\t{{{{.Label \"{value_of}\"}}}}"))
}

pub(crate) fn list_images(reference: &str) -> Cmd {
    Cmd::new("list images", &["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"])
        .pair("--filter", format!("reference={reference}"))
}

pub(crate) fn remove_image(tag: &str) -> Cmd {
    Cmd::new(format!("remove the image `{tag}`"), &["image", "rm", tag])
}

/// The value of one label of an image.
pub(crate) fn image_label(tag: &str, label: &str) -> Cmd {
    Cmd::new(format!("look at the image `{tag}`"), &["image", "inspect", "--format"])
        .arg(format!("{{{{index .Config.Labels \"{label}\"}}}}"))
        .arg(tag)
}

pub(crate) fn image_exists(tag: &str) -> Cmd {
    Cmd::new(format!("look for the image `{tag}`"), &["image", "inspect", "--format", "{{.Id}}", tag])
}

/// Asks for an image from its registry.
pub(crate) fn pull(image: &str) -> Cmd {
    Cmd::new(format!("pull the image `{image}`"), &["pull", image])
}

/// Builds an image from a directory.
pub(crate) fn build(
    tag: &str,
    context: &Path,
    args: &BTreeMap<&str, String>,
    labels: &[(&str, &str)],
) -> Cmd {
    let mut cmd = Cmd::new(format!("build the image `{tag}`"), &["build"]).pair("--tag", tag);
    for (key, value) in args {
        cmd = cmd.pair("--build-arg", format!("{key}={value}"));
    }
    for (key, value) in labels {
        cmd = cmd.pair("--label", format!("{key}={value}"));
    }
    cmd.arg(context)
}

/// How long an engine may take to answer, unless `PI_BOX_DEADLINE` (in seconds) says otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whether a container, network, volume or image was not there in the first place; docker says it in several ways.
fn says_missing(stderr: &str) -> bool {
    // `network rm` of a newer CLI adds a line of its own.
    let mut lines =
        stderr.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("exit status")).peekable();
    lines.peek().is_some()
        && lines.all(|line| {
            let line = line.to_ascii_lowercase();
            line.contains("no such") || line.contains("not found")
        })
}

/// How a docker command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not even be started.
    NotStarted(io::Error),
    /// It did not come back in time and was ended.
    Late(Duration),
    /// It said no.
    Refused { code: Option<i32>, stderr: String },
}

impl Failure {
    /// Whether what the command was about does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { stderr, .. } if says_missing(stderr))
    }

    /// What docker said, if anything.
    pub(crate) fn stderr(&self) -> &str {
        match self {
            Self::Refused { stderr, .. } => stderr,
            _ => "",
        }
    }

    /// The failure as a sentence, with what to do next where that is known.
    pub(crate) fn explain(&self, purpose: &str) -> anyhow::Error {
        let said = match self {
            Self::NotStarted(error) => {
                return anyhow::anyhow!("could not {purpose}: could not run docker: {error}");
            }
            Self::Late(limit) => {
                return Hinted::error(
                    format!("could not {purpose}: docker did not answer within {} s", limit.as_secs_f32()),
                    "look at the engine's own log; `PI_BOX_DEADLINE=300` waits longer",
                );
            }
            Self::Refused { stderr, code } => {
                let said = stderr
                    .lines()
                    .map(str::trim)
                    .filter(|line| {
                        !line.is_empty()
                            && !line.starts_with("See 'docker")
                            && !line.starts_with("Run 'docker")
                    })
                    .map(|line| {
                        line.trim_start_matches("Error response from daemon: ").trim_start_matches("docker: ")
                    })
                    .collect::<Vec<_>>()
                    .join("; ");
                if said.is_empty() { format!("docker ended with {code:?} and said nothing") } else { said }
            }
        };
        match hint(&said) {
            Some((message, hint)) if message.is_empty() => {
                Hinted::error(format!("could not {purpose}: {said}"), hint)
            }
            Some((message, hint)) => Hinted::error(message, hint),
            None => anyhow::anyhow!("could not {purpose}: {said}"),
        }
    }
}

/// What is known of docker's complaints: a clearer sentence (or none), and what to do next.
fn hint(said: &str) -> Option<(&'static str, &'static str)> {
    let said = said.to_ascii_lowercase();
    let has = |text: &str| said.contains(text);
    if has("permission denied") && has("docker daemon socket")
        || has("permission denied while trying to connect")
    {
        return Some((
            "you may not use docker's socket",
            "add yourself to its group with `sudo usermod -aG docker \"$USER\"` and log in again (it gives root's power \
             over this machine), or use a rootless engine",
        ));
    }
    if has("cannot connect to the docker daemon")
        || has("is the docker daemon running")
        || has("connection refused")
    {
        return Some((
            "docker is installed but its engine does not answer",
            "start it with `sudo systemctl start docker`, or start Docker Desktop",
        ));
    }
    if has("no space left on device") {
        return Some((
            "",
            "the disk is full: `pi clean --images --caches` and `docker system prune` make room",
        ));
    }
    if has("address pool") || has("fully subnetted") {
        return Some(("", "remove networks that nobody uses with `docker network prune`"));
    }
    if has("unknown or invalid runtime") || has("unknown runtime") {
        return Some(("", "`docker info` lists the engine's runtimes"));
    }
    if has("bind source path does not exist") {
        return Some((
            "",
            "the engine does not see this path; is it a virtual machine that shares only some directories?",
        ));
    }
    if has("port is already allocated") || has("address already in use") {
        return Some(("", "choose another port, or end what uses this one"));
    }
    if has("error setting rlimit") {
        return Some((
            "",
            "the engine may open fewer files than you may; raise `LimitNOFILE` of its service, or lower `ulimit -Hn`",
        ));
    }
    if has("seccomp") && has("invalid") || has("unknown flag") || has("unknown shorthand") {
        return Some(("", "docker 20.10 or newer is needed"));
    }
    None
}

/// The docker program, bound to one engine.
#[derive(Debug, Clone)]
pub(crate) struct Docker {
    program: PathBuf,
    address: String,
    deadline: Duration,
}

impl Docker {
    /// Finds the program.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn find(name: &str, host: &Host) -> anyhow::Result<Self> {
        let program = which::which(name).map_err(|_| {
            Hinted::error(
                format!("there is no program `{name}` on the `PATH`"),
                "install Docker Engine 20.10 or newer: docs.docker.com/engine/install",
            )
        })?;
        let deadline = host
            .var("PI_BOX_DEADLINE")
            .and_then(|text| text.parse::<f32>().ok())
            .filter(|seconds| *seconds > 0.0 && *seconds < 1e6)
            .map_or(DEADLINE, Duration::from_secs_f32);
        Ok(Self { program, address: host.engine.address.clone(), deadline })
    }

    /// The same program, bound to another engine of this machine.
    pub(crate) fn at(&self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self.clone() }
    }

    /// The same, waiting no longer than this for an answer.
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = self.deadline.min(deadline);
        self
    }

    /// The program's path.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The engine's address, as docker takes it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn command(&self, cmd: &Cmd) -> Command {
        report::trace(cmd);
        let mut command = Command::new(&self.program);
        command.args(&cmd.args).env("DOCKER_HOST", &self.address).env_remove("DOCKER_CONTEXT");
        // Tips would stand between the agent's last line and the prompt.
        command.env("DOCKER_CLI_HINTS", "false");
        for (name, secret) in &cmd.secrets {
            command.env(name, secret.expose());
        }
        command
    }

    /// Runs a command to its end and returns what it printed.
    ///
    /// # Errors
    /// A sentence that says what could not be done, and what docker said.
    pub(crate) fn run(&self, cmd: &Cmd) -> anyhow::Result<String> {
        self.try_run(cmd).map_err(|failure| failure.explain(&cmd.purpose))
    }

    /// Runs a command to its end, within the deadline.
    pub(crate) fn try_run(&self, cmd: &Cmd) -> Result<String, Failure> {
        self.try_run_within(cmd, self.deadline)
    }

    /// Runs a command to its end, within a deadline of its own.
    pub(crate) fn try_run_within(&self, cmd: &Cmd, deadline: Duration) -> Result<String, Failure> {
        let mut command = self.command(cmd);
        // In a process group of its own, or a Ctrl-C would end it half-way.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = SharedChild::spawn(&mut command).map_err(Failure::NotStarted)?;
        let stdout = drain(child.take_stdout());
        let stderr = drain(child.take_stderr());
        let status = match child.wait_timeout(deadline) {
            Ok(Some(status)) => status,
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::Late(deadline));
            }
            Err(error) => return Err(Failure::NotStarted(error)),
        };
        // The program has ended; only a helper of its own could still hold the pipes.
        let stdout = stdout.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        let stderr = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        if status.success() {
            Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned())
        } else {
            Err(Failure::Refused {
                code: status.code(),
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            })
        }
    }

    /// Runs a command on the launcher's own streams, for as long as it takes.
    ///
    /// It stays in the launcher's process group: the terminal is its own to read.
    pub(crate) fn attach(&self, cmd: &Cmd) -> anyhow::Result<ExitStatus> {
        let mut child = self
            .command(cmd)
            .spawn()
            .with_context(|| format!("could not {}: could not run docker", cmd.purpose))?;
        child.wait().with_context(|| format!("could not {}: lost the docker program", cmd.purpose))
    }

    /// The same without stdin, keeping what it prints on stdout.
    pub(crate) fn attach_capturing(&self, cmd: &Cmd, into: &Mutex<Vec<u8>>) -> anyhow::Result<ExitStatus> {
        let mut child = self
            .command(cmd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not {}: could not run docker", cmd.purpose))?;
        if let Some(stdout) = child.stdout.take() {
            copy(stdout, &|bytes: &[u8]| {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes)
            });
        }
        child.wait().with_context(|| format!("could not {}: lost the docker program", cmd.purpose))
    }

    /// Starts a command whose stdin and stdout the caller holds.
    pub(crate) fn hold(&self, cmd: &Cmd) -> anyhow::Result<Child> {
        self.command(cmd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("could not {}: could not run docker", cmd.purpose))
    }

    /// Starts a long command in the foreground, so that a Ctrl-C simply ends it; what it prints goes to `sink`.
    pub(crate) fn foreground(
        &self,
        cmd: &Cmd,
        running: impl FnOnce(Arc<SharedChild>),
        sink: impl Fn(&[u8]) + Send + Sync,
    ) -> anyhow::Result<ExitStatus> {
        let mut command = self.command(cmd);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = Arc::new(
            SharedChild::spawn(&mut command)
                .with_context(|| format!("could not {}: could not run docker", cmd.purpose))?,
        );
        running(child.clone());
        thread::scope(|scope| {
            if let Some(stdout) = child.take_stdout() {
                scope.spawn(|| copy(stdout, &sink));
            }
            if let Some(stderr) = child.take_stderr() {
                scope.spawn(|| copy(stderr, &sink));
            }
            child.wait().with_context(|| format!("could not {}: lost the docker program", cmd.purpose))
        })
    }
}

fn copy(mut from: impl Read, sink: &dyn Fn(&[u8])) {
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        sink(&buffer[..n]);
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still the best there is to show.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = send.send(bytes);
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_survives_whatever_a_path_holds() {
        let render = |path: &str| Mount::same(path, Access::ReadOnly).render();
        assert_eq!(render("/a b"), "type=bind,source=/a b,target=/a b,readonly");
        assert_eq!(render("/a:b"), "type=bind,source=/a:b,target=/a:b,readonly");
        assert_eq!(render("/a,b"), "type=bind,\"source=/a,b\",\"target=/a,b\",readonly");
        assert_eq!(render("/a\"b"), "type=bind,\"source=/a\"\"b\",\"target=/a\"\"b\",readonly");
        assert_eq!(render("/a\nb"), "type=bind,\"source=/a\nb\",\"target=/a\nb\",readonly");
    }

    #[test]
    fn a_secret_has_no_face() {
        let secret = Value::Secret(Secret::new("hunter2".into()));
        assert_eq!(format!("{secret:?}"), "Secret([redacted])");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[redacted]\"");
    }

    #[test]
    fn what_was_never_there_counts_as_gone() {
        assert!(says_missing("Error response from daemon: network pi-x not found\n"));
        assert!(says_missing("Error: No such container: a\nError: No such container: b\n"));
        assert!(!says_missing("Error: No such container: a\nError: removal in progress\n"));
        assert!(says_missing("Error response from daemon: network pi-x not found\nexit status 1\n"));
        assert!(!says_missing(""));
    }

    #[test]
    fn a_refusal_says_what_was_tried_and_what_docker_said() {
        let failure = Failure::Refused {
            code: Some(1),
            stderr: "Error response from daemon: No command specified\nSee 'docker create --help'.\n".into(),
        };
        assert_eq!(
            failure.explain("create the proxy's container").to_string(),
            "could not create the proxy's container: No command specified"
        );
    }

    proptest::proptest! {
        #[test]
        fn a_printed_command_survives_a_shell(words in proptest::collection::vec("[^\0]{0,12}", 1..6)) {
            let cmd = Cmd::new("x", &words.iter().map(String::as_str).collect::<Vec<_>>());
            let line = cmd.to_string().replacen("docker", "printf '%s\\0'", 1);
            let out = Command::new("sh").arg("-c").arg(line).output().unwrap();
            let got: Vec<_> = String::from_utf8_lossy(&out.stdout).split_terminator('\0').map(str::to_owned).collect();
            proptest::prop_assert_eq!(got, words);
        }
    }
}
