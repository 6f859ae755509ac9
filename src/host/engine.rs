//! The engine that docker uses: its address, and whether sessions can use it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::hex;
use crate::{files::mount_points, report::Hinted};

/// An engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Engine {
    /// The address, as in `DOCKER_HOST`.
    pub(crate) address: String,
    pub(crate) kind: EngineKind,
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

impl Engine {
    /// Finds the engine in docker's own order: `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context, the default.
    pub(super) fn find(env: &BTreeMap<OsString, OsString>, home: &Path, uid: u32) -> anyhow::Result<Self> {
        let var = |name: &str| env.get(OsStr::new(name)).and_then(|v| v.to_str()).filter(|v| !v.is_empty());
        let config = var("DOCKER_CONFIG").map_or_else(|| home.join(".docker"), PathBuf::from);
        let address = match (var("DOCKER_HOST"), var("DOCKER_CONTEXT")) {
            (Some(host), _) => host.to_owned(),
            (None, Some(context)) => context_address(&config, context)?,
            (None, None) => match current_context(&config) {
                Some(context) => context_address(&config, &context)?,
                None => DEFAULT_ADDRESS.to_owned(),
            },
        };
        Ok(Self::at(&address, uid))
    }

    /// The engine at an address. [`Engine::check`] refuses an unfit one later, so verbs without an engine still work.
    pub(crate) fn at(address: &str, uid: u32) -> Self {
        let address = address.to_owned();
        let Some(path) = address.strip_prefix("unix://") else {
            let unfit = (
                format!(
                    "the engine at `{address}` may run on another machine, and mount its paths instead of yours"
                ),
                "unset `DOCKER_HOST`, or choose a local engine with `docker context use default`".to_owned(),
            );
            return Self { address, kind: EngineKind::Rootful, unfit: Some(unfit) };
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
                "start `pi` on the machine where the engine runs".to_owned(),
            )
        });
        Self { address, kind, unfit }
    }

    /// Fails if the engine runs on another machine, or outside of the container that `pi` runs in.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match &self.unfit {
            Some((reason, next)) => Err(Hinted::error(reason, next)),
            None => Ok(()),
        }
    }

    /// Whether its containers run on this kernel. Then devices and inodes have the same numbers inside and outside.
    pub(crate) fn shares_our_kernel(&self) -> bool {
        cfg!(target_os = "linux") && !self.address.contains("/.docker/desktop/")
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> &Path {
        Path::new(self.address.trim_start_matches("unix://"))
    }
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

fn current_context(config: &Path) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct File {
        current_context: Option<String>,
    }
    let text = fs::read_to_string(config.join("config.json")).ok()?;
    let file: File = serde_json::from_str(&text).ok()?;
    file.current_context.filter(|name| !name.is_empty() && name != "default")
}

fn context_address(config: &Path, name: &str) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Meta {
        endpoints: BTreeMap<String, Endpoint>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Endpoint {
        host: Option<String>,
    }
    if name == "default" {
        return Ok(DEFAULT_ADDRESS.to_owned());
    }
    let path = config.join("contexts/meta").join(hex(&Sha256::digest(name))).join("meta.json");
    let text = fs::read_to_string(&path).map_err(|error| {
        let name = name.escape_debug();
        Hinted::error(
            format!("could not read docker's context `{name}` from `{}`: {error}", path.display()),
            "`docker context ls` lists them; choose one with `DOCKER_CONTEXT` or `docker context use`",
        )
    })?;
    let meta: Meta =
        serde_json::from_str(&text).with_context(|| format!("could not understand `{}`", path.display()))?;
    meta.endpoints
        .get("docker")
        .and_then(|endpoint| endpoint.host.clone())
        .with_context(|| format!("docker's context `{name}` names no engine"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_elsewhere_is_refused_with_the_reason() {
        for address in ["ssh://me@box", "tcp://10.0.0.1:2375"] {
            let error = Engine::at(address, 1000).check().unwrap_err();
            assert!(error.to_string().contains("may run on another machine"), "{error}");
        }
    }

    #[test]
    fn the_context_that_docker_would_use_is_followed() {
        let config = tempfile::tempdir().unwrap();
        let meta = config.path().join("contexts/meta").join(hex(&Sha256::digest("far")));
        fs::create_dir_all(&meta).unwrap();
        fs::write(meta.join("meta.json"), r#"{"Name":"far","Endpoints":{"docker":{"Host":"ssh://far"}}}"#)
            .unwrap();
        fs::write(config.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        let env = BTreeMap::from([("DOCKER_CONFIG".into(), config.path().into())]);
        let error = Engine::find(&env, Path::new("/nowhere"), 1000).unwrap().check().unwrap_err();
        assert!(error.to_string().contains("`ssh://far`"), "{error}");
    }
}
