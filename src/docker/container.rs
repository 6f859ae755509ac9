//! What a container, a mount and a network are, and the one way in which each is made.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Cmd, Value};
use crate::{config::Limits, host::Owner};

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

    /// The path of the host that is mounted.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.source {
            Source::Bind(path) => Some(path),
            Source::Volume { .. } => None,
        }
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
                // It is on two networks, and passes on connections but no packets.
                cmd = cmd.arg("--sysctl=net.ipv4.ip_forward=0");
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
}
