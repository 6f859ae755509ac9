//! What a session consists of: containers, mounts, networks, volumes, files. An engine renders them.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    config::{Access, Limits, Published},
    host::Owner,
    secret::Value,
};

/// What a container is in a session; its label `pi.role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Agent,
    Proxy,
    Model,
    /// It has a copy of a repository, and no agent.
    Copy,
    /// It has the agent's own directory, and no agent.
    Directory,
    Git,
    /// An image is read in it. It has nothing else, and is part of no session.
    Contents,
}

/// Where a container is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Attachment {
    /// The engine's default bridge, with the ports that are published on 127.0.0.1 and resolvers other than the engine's.
    Bridge { publish: Vec<Published>, dns: Vec<String> },
    /// A session's own network, at this address; it has no way out and no resolver.
    Internal { network: String, address: Ipv4Addr },
    /// This machine's own network, its loopback included.
    Machine,
    /// Loopback only.
    None,
}

/// What a container may do besides what its user may: a policy, so that no caller can ask for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Privileges {
    /// Nothing.
    None,
    /// What the sidecar needs to lay its routes, and then to start its programs as users without any privilege.
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
    /// There is no stdin, and what it prints is dropped.
    Silent,
}

impl Streams {
    /// What suits a process whose stdin and stdout are terminals, or not.
    pub(crate) fn of(stdin: bool, stdout: bool) -> Self {
        match (stdin, stdout) {
            (true, true) => Self::Tty,
            (true, false) => Self::Output,
            (false, _) => Self::Pipe,
        }
    }
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
    /// Memory of the container's own, as a directory of this owner's.
    Memory { owner: Owner, room: Room },
}

/// How much a directory in memory can hold. Its removal takes time for each file, so their number has a limit too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Room {
    pub(crate) bytes: u64,
    /// Files, directories and links.
    pub(crate) files: u32,
}

impl Room {
    pub(crate) const fn mebibytes(size: u64, files: u32) -> Self {
        Self { bytes: size << 20, files }
    }
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
            Source::Volume { .. } | Source::Memory { .. } => None,
        }
    }
}

/// Who has a name in a container without a resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Named {
    /// The machine that the engine runs on, however the engine reaches it.
    Machine,
    Address(Ipv4Addr),
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
    /// The size of `/tmp`.
    pub(crate) tmp: Room,
    pub(crate) seccomp: PathBuf,
    pub(crate) runtime: Option<String>,
    pub(crate) streams: Streams,
    pub(crate) hosts: BTreeMap<String, Named>,
    pub(crate) workdir: Option<PathBuf>,
    pub(crate) command: Vec<String>,
}

/// A session's own network: nothing of the host is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Network {
    pub(crate) name: String,
    /// In CIDR form.
    pub(crate) subnet: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// What must exist on the host before the session. The launcher has made it by then, and a dry run tells how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Needed {
    pub(crate) path: PathBuf,
    pub(crate) kind: Needs,
    pub(crate) owner: Option<Owner>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Needs {
    Directory,
    File,
    /// A file of the session's own, as this one is, where it exists.
    Copy(PathBuf),
    /// A file of the session's own with this in it.
    Text(Value),
}

/// A file of the session's own, readable by its containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: Value,
}

impl File {
    pub(super) fn session(path: &Path, text: &str) -> Self {
        Self { path: path.to_owned(), text: Value::Plain(text.to_owned()) }
    }
}
