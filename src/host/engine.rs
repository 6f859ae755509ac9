//! The engine that docker uses: its address, and whether sessions can use it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    net::IpAddr,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
};

use super::contexts::{self, Context, DEFAULT, Tls};
use crate::{files::mount_points, report::Hinted};

/// An engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Engine {
    /// The address, as in `DOCKER_HOST`.
    pub(crate) address: String,
    pub(crate) kind: EngineKind,
    pub(crate) files: Files,
    /// Why no session may use it, and what to do then.
    pub(crate) unfit: Option<(String, String)>,
}

/// A property of the engine that is known without asking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineKind {
    /// Runs as root, on this machine or in a virtual machine that shares its files.
    Rootful,
    /// Runs as the user. Root in its containers is the user.
    Rootless,
}

/// Whether an engine can mount what is on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    Shared,
    /// It cannot, or it was chosen with `--on`: everything goes to it over its API.
    Apart,
}

impl Engine {
    /// Finds the engine in docker's own order: `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context, the default.
    pub(super) fn find(env: &BTreeMap<OsString, OsString>, home: &Path, uid: u32) -> anyhow::Result<Self> {
        let var = |name: &str| env.get(OsStr::new(name)).and_then(|v| v.to_str()).filter(|v| !v.is_empty());
        let config = contexts::settings(env, home);
        let context = match (var("DOCKER_HOST"), var("DOCKER_CONTEXT")) {
            (Some(host), _) => {
                let tls = contexts::tls_of_environment(env, home);
                return Ok(Self::at(host, uid, &tls));
            }
            (None, Some(context)) => Some(context.to_owned()).filter(|name| name != DEFAULT),
            (None, None) => contexts::current(&config),
        };
        match context {
            Some(name) => Ok(Self::of(&contexts::named(&config, &name)?, uid)),
            None => Ok(Self::at(DEFAULT_ADDRESS, uid, &Tls::None)),
        }
    }

    /// The engine of a docker context, which gets nothing of this machine mounted.
    ///
    /// # Errors
    /// There is no such context.
    pub(super) fn named(
        env: &BTreeMap<OsString, OsString>,
        home: &Path,
        uid: u32,
        name: &str,
    ) -> anyhow::Result<Self> {
        let engine = if name == DEFAULT {
            let address = env.get(OsStr::new("DOCKER_HOST")).and_then(|host| host.to_str());
            let address = address.filter(|address| !address.is_empty()).unwrap_or(DEFAULT_ADDRESS);
            Self::at(address, uid, &contexts::tls_of_environment(env, home))
        } else {
            Self::of(&contexts::named(&contexts::settings(env, home), name)?, uid)
        };
        Ok(engine.apart())
    }

    /// The same, and it gets nothing of this machine mounted.
    pub(super) fn apart(self) -> Self {
        // Where only files do not fit, they need not.
        let unfit = self.unfit.filter(|_| !self.address.starts_with(SOCKET));
        Self { files: Files::Apart, unfit, ..self }
    }

    fn of(context: &Context, uid: u32) -> Self {
        Self::at(&context.address, uid, &context.tls)
    }

    /// The engine at an address. [`Engine::check`] refuses an unfit one later, so verbs without an engine still work.
    pub(crate) fn at(address: &str, uid: u32, tls: &Tls) -> Self {
        let address = address.to_owned();
        let Some(path) = address.strip_prefix(SOCKET) else {
            let unfit = unfit(&address, tls);
            return Self { address, kind: EngineKind::Rootful, files: Files::Apart, unfit };
        };
        let socket = Path::new(path);
        let rootless = uid != 0
            && socket.starts_with(format!("/run/user/{uid}"))
            && fs::metadata(socket).is_ok_and(|meta| meta.uid() == uid);
        let kind = if rootless { EngineKind::Rootless } else { EngineKind::Rootful };
        let unfit = is_foreign(socket).then(|| {
            (
                "`pi` runs inside a container, but the engine runs outside and would mount the outer machine's paths"
                    .to_owned(),
                "start `pi` on the machine where the engine runs, or give the engine no file with `--on CONTEXT`"
                    .to_owned(),
            )
        });
        Self { address, kind, files: Files::Shared, unfit }
    }

    /// Fails if no session can use the engine.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match &self.unfit {
            Some((reason, next)) => Err(Hinted::error(reason, next)),
            None => Ok(()),
        }
    }

    /// Whether nothing of this machine can be mounted there.
    pub(crate) fn is_apart(&self) -> bool {
        self.files == Files::Apart
    }

    /// Whether its containers run on this kernel. Then devices and inodes have the same numbers inside and outside.
    pub(crate) fn shares_our_kernel(&self) -> bool {
        cfg!(target_os = "linux") && is_here(&self.address)
    }

    /// The socket's path, where it has one here.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.address.strip_prefix(SOCKET).map(Path::new)
    }

    /// The machine of the engine, as its address names it.
    pub(super) fn machine(&self) -> Option<&str> {
        machine(&self.address)
    }
}

const SOCKET: &str = "unix://";

/// Whether the engine at this address runs on this kernel.
pub(crate) fn is_here(address: &str) -> bool {
    address.starts_with(SOCKET) && !address.contains("/.docker/desktop/")
}

/// The host's part of an address, without user and port.
fn machine(address: &str) -> Option<&str> {
    let rest = address.split_once("://")?.1.split('/').next()?;
    let rest = rest.rsplit('@').next()?;
    if let Some(six) = rest.strip_prefix('[') {
        return six.split(']').next();
    }
    rest.split(':').next().filter(|name| !name.is_empty())
}

/// Why an engine that is not at a socket of this machine cannot be used.
fn unfit(address: &str, tls: &Tls) -> Option<(String, String)> {
    let is_loopback = || {
        let name = machine(address).unwrap_or_default();
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let next = "docs.docker.com/engine/security/protect-access shows how to use TLS or ssh; then make a context of it with \
                `docker context create`";
    let why = if address.starts_with("ssh://") {
        return None;
    } else if !address.starts_with("tcp://") {
        return Some((
            format!("`pi` does not know how to reach the engine at `{address}`"),
            "it knows `unix://`, `ssh://`, and `tcp://` with TLS".to_owned(),
        ));
    } else {
        match tls {
            Tls::Verified(_) => return None,
            Tls::None if is_loopback() => return None,
            Tls::None => {
                "is reached without TLS: whoever is on the way could read everything and be root on its machine"
            }
            Tls::Unverified => {
                "is reached without a look at its certificate: whoever is on the way could take its place"
            }
        }
    };
    Some((format!("the engine at `{address}` {why}"), next.to_owned()))
}

/// Where docker looks for an engine by default.
pub(crate) const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// Whether `pi` runs in a container and the engine outside, where it would mount the outer machine's paths.
///
/// Two facts show that: the listener has no process number in our namespace, or the socket is a mount in a container.
/// The marker file `/.dockerenv` alone proves nothing, because machines are made from images too.
fn is_foreign(socket: &Path) -> bool {
    let real = fs::canonicalize(socket).unwrap_or_else(|_| socket.to_owned());
    let marked = Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists();
    (marked && mount_points().any(|at| at == real)) || listener_is_outside(&real)
}

#[cfg(target_os = "linux")]
fn listener_is_outside(socket: &Path) -> bool {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

    // Docker itself reports a refused connection.
    UnixStream::connect(socket)
        .ok()
        .and_then(|stream| getsockopt(&stream, PeerCredentials).ok())
        .is_some_and(|peer| peer.pid() == 0)
}

#[cfg(not(target_os = "linux"))]
fn listener_is_outside(_socket: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_elsewhere_is_used_only_by_a_way_that_nobody_can_take_over() {
        let at = |address: &str, tls: &Tls| Engine::at(address, 1000, tls);
        let verified = Tls::Verified("/certs".into());
        for (address, tls) in [
            ("ssh://me@box", &Tls::None),
            ("tcp://10.0.0.1:2376", &verified),
            ("tcp://127.0.0.1:2375", &Tls::None),
            ("tcp://[::1]:2375", &Tls::None),
        ] {
            let engine = at(address, tls);
            engine.check().unwrap();
            assert!(engine.is_apart() && !engine.shares_our_kernel(), "{address}");
        }
        for (address, tls, why) in [
            ("tcp://10.0.0.1:2375", &Tls::None, "is reached without TLS"),
            ("tcp://localhost.example.com:2375", &Tls::None, "is reached without TLS"),
            ("tcp://127.0.0.1.example.com", &Tls::None, "is reached without TLS"),
            ("tcp://10.0.0.1:2376", &Tls::Unverified, "without a look at its certificate"),
            ("npipe:////./pipe/docker_engine", &Tls::None, "does not know how to reach"),
        ] {
            let error = at(address, tls).check().unwrap_err().to_string();
            assert!(error.contains(why), "{address}: {error}");
        }
    }

    #[test]
    fn the_machine_of_an_engine_is_in_its_address() {
        for (address, found) in [
            ("ssh://me@box:22", Some("box")),
            ("tcp://10.0.0.1:2376", Some("10.0.0.1")),
            ("tcp://[fd00::1]:2376", Some("fd00::1")),
            ("unix:///var/run/docker.sock", None),
        ] {
            assert_eq!(machine(address), found, "{address}");
        }
    }
}
