//! Docker's flags for containers, mounts and networks.

use std::{ffi::OsString, net::Ipv4Addr, path::Path};

use super::Cmd;
use crate::{
    config::{Access, Limits, Published},
    host::Owner,
    plan::{Attachment, Container, Mount, Named, Network, Privileges, Role, Room, Source, Streams},
    secret::Value,
};

impl Role {
    fn purpose(self) -> &'static str {
        match self {
            Self::Agent => "the agent's container",
            Self::Proxy => "the proxy's container",
            Self::Model => "the model's container",
            Self::Copy => "the container for the copy",
            Self::Directory => "the container for the agent's own directory",
            Self::Git => "the container for the agent's commits",
            Self::Contents => "the container in which an image is read",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Proxy => "proxy",
            Self::Model => "model",
            Self::Copy => "copy",
            Self::Directory => "directory",
            Self::Git => "git",
            Self::Contents => "contents",
        }
    }
}

/// Creates a container. There is no other way, and every container is hardened.
pub(super) fn create(container: &Container) -> Cmd {
    let Container {
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
        command,
    } = container;
    let mut cmd = Cmd::new(
        format!("create {}", role.purpose()),
        &[
            "create", "--rm",
            // As PID 1, the agent could make the engine believe that its container has ended, or never ends.
            "--init", "--pull=never", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
            // Without the engine's own `/dev/shm`, in which the number of files has no limit.
            "--ipc=none", "--cgroupns=private", "--log-driver=none", "--ulimit=core=0",
        ],
    )
    .pair("--name", name)
    .arg(format!("--ulimit=nofile={files}:{files}"))
    .arg(joined("--security-opt=seccomp=", seccomp))
    .arg(memory(Path::new("/tmp"), *tmp, "mode=1777"))
    .arg(memory(Path::new("/dev/shm"), Room::mebibytes(64, 10_000), "mode=1777"));
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
            for capability in ["NET_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL"] {
                cmd = cmd.arg(format!("--cap-add={capability}"));
            }
            // The sidecar is on two networks. It passes on connections, but no packets.
            cmd = cmd.arg("--sysctl=net.ipv4.ip_forward=0");
        }
    }
    cmd = with_network(cmd, network);
    cmd = with_limits(cmd, limits);
    for mount in mounts {
        cmd = match &mount.source {
            Source::Memory { owner: Owner { uid, gid }, room } => {
                cmd.arg(memory(&mount.target, *room, &format!("mode=700,uid={uid},gid={gid}")))
            }
            Source::Bind(_) | Source::Volume { .. } => cmd.pair("--mount", mount_value(mount)),
        };
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
    for (name, who) in hosts {
        let address = match who {
            Named::Machine => "host-gateway".to_owned(),
            Named::Address(address) => address.to_string(),
        };
        cmd = cmd.pair("--add-host", format!("{name}:{address}"));
    }
    cmd = match streams {
        Streams::Tty => cmd.arg("--interactive").arg("--tty"),
        Streams::Pipe => cmd.arg("--interactive"),
        Streams::Output | Streams::Silent => cmd,
    };
    if let Some(workdir) = workdir {
        cmd = cmd.pair("--workdir", workdir);
    }
    if *role == Role::Contents {
        // The image's own first program is for sessions. No other container goes without it.
        cmd = cmd.arg("--entrypoint=sh");
    }
    cmd = cmd.arg(image);
    for word in command {
        cmd = cmd.arg(word);
    }
    cmd
}

/// Docker's default keys begin with Ctrl-P, which the agent needs.
const KEYS: &str = "--detach-keys=ctrl-^,ctrl-@";

/// Starts the container on the docker program's own streams.
pub(super) fn attach(container: &Container) -> Cmd {
    let mut cmd = Cmd::new(format!("start {}", container.role.purpose()), &["start", "--attach"]);
    if matches!(container.streams, Streams::Tty | Streams::Pipe) {
        cmd = cmd.arg("--interactive");
    }
    cmd.arg(KEYS).arg(&container.name)
}

/// Shows a running container on the docker program's own streams.
pub(super) fn attach_again(container: &Container) -> Cmd {
    let mut cmd = Cmd::new("come back to the agent", &["attach"]);
    if !matches!(container.streams, Streams::Tty | Streams::Pipe) {
        cmd = cmd.arg("--no-stdin");
    }
    cmd.arg(KEYS).arg(&container.name)
}

/// Starts the container and returns.
pub(super) fn start(container: &Container) -> Cmd {
    Cmd::new(format!("start {}", container.role.purpose()), &["start", &container.name])
}

fn joined(prefix: &str, path: &Path) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path);
    text
}

fn with_network(mut cmd: Cmd, network: &Attachment) -> Cmd {
    match network {
        Attachment::Bridge { publish, dns } => {
            cmd = cmd.arg("--network=bridge");
            for Published { host, agent } in publish {
                cmd = cmd.pair("--publish", format!("127.0.0.1:{host}:{agent}"));
            }
            for server in dns {
                cmd = cmd.pair("--dns", server);
            }
            cmd
        }
        Attachment::Internal { network, address } => dead_resolver(cmd.pair("--network", network))
            .pair("--ip", address.to_string())
            // By default unprivileged processes may send ICMP echo requests.
            .pair("--sysctl", "net.ipv4.ping_group_range=1 0"),
        Attachment::Machine => cmd.arg("--network=host"),
        Attachment::None => dead_resolver(cmd.arg("--network=none")),
    }
}

/// Disables DNS. From a network without a way out, old engines forward a query to the host's resolver, and it times out
/// slowly.
fn dead_resolver(cmd: Cmd) -> Cmd {
    cmd.arg("--dns=0.0.0.0").arg("--dns-opt=timeout:1").arg("--dns-opt=attempts:1")
}

fn with_limits(mut cmd: Cmd, Limits { memory, cpus, pids }: &Limits) -> Cmd {
    if let Some(memory) = memory {
        // With equal values there is no swap on top of the memory.
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

/// Creates a session's own network.
pub(super) fn create_network(network: &Network) -> Cmd {
    let mut cmd = Cmd::new(
        "create the session's network",
        &[
            "network",
            "create",
            "--internal",
            // The bridge has no address of the host, so containers cannot reach the host through it. Engine 28 calls
            // this an isolated gateway; older engines ignore that option.
            "--opt=com.docker.network.bridge.inhibit_ipv4=true",
            "--opt=com.docker.network.bridge.gateway_mode_ipv4=isolated",
            "--opt=com.docker.network.bridge.gateway_mode_ipv6=isolated",
        ],
    )
    .pair("--subnet", &network.subnet);
    for (key, value) in &network.labels {
        cmd = cmd.pair("--label", format!("{key}={value}"));
    }
    cmd.arg("--label=pi.role=net").arg(&network.name)
}

/// Connects a container to a second network.
pub(super) fn connect(network: &Network, container: &Container, address: Ipv4Addr) -> Cmd {
    let purpose = format!("connect {} to the session's network", container.role.purpose());
    Cmd::new(purpose, &["network", "connect"])
        .pair("--ip", address.to_string())
        .arg(&network.name)
        .arg(&container.name)
}

/// Memory with a limit to its files and perhaps an owner, which `--mount` cannot say.
fn memory(target: &Path, Room { bytes, files }: Room, whose: &str) -> OsString {
    let mut text = joined("--tmpfs=", target);
    text.push(format!(":rw,exec,nosuid,nodev,size={bytes},nr_inodes={files},{whose}"));
    text
}

/// The value of `--mount`: a line of CSV, so that a path can have commas and quotes.
fn mount_value(mount: &Mount) -> String {
    let mut fields = Vec::new();
    match &mount.source {
        Source::Bind(path) => {
            fields.push("type=bind".to_owned());
            fields.push(format!("source={}", path.display()));
        }
        Source::Memory { .. } => fields.push("type=tmpfs".to_owned()),
        Source::Volume { name, labels } => {
            fields.push("type=volume".to_owned());
            fields.push(format!("source={name}"));
            for (key, value) in labels {
                fields.push(format!("volume-label={key}={value}"));
            }
        }
    }
    fields.push(format!("target={}", mount.target.display()));
    if mount.access == Access::ReadOnly {
        fields.push("readonly".to_owned());
    }
    fields.iter().map(|field| csv(field)).collect::<Vec<_>>().join(",")
}

fn csv(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) || field.starts_with(' ') {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_survives_whatever_a_path_holds() {
        let render = |path: &str| mount_value(&Mount::same(path, Access::ReadOnly));
        assert_eq!(render("/a b"), "type=bind,source=/a b,target=/a b,readonly");
        assert_eq!(render("/a:b"), "type=bind,source=/a:b,target=/a:b,readonly");
        assert_eq!(render("/a,b"), "type=bind,\"source=/a,b\",\"target=/a,b\",readonly");
        assert_eq!(render("/a\"b"), "type=bind,\"source=/a\"\"b\",\"target=/a\"\"b\",readonly");
        assert_eq!(render("/a\nb"), "type=bind,\"source=/a\nb\",\"target=/a\nb\",readonly");
    }
}
