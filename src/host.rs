//! What is so on this machine: the only reader of the process's own state.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, IsTerminal as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{files::mount_points, report::Hinted};

/// The machine, the user and the process, read once.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
    /// The current directory, without symbolic links.
    pub(crate) cwd: PathBuf,
    pub(crate) env: BTreeMap<OsString, OsString>,
    pub(crate) terminal: Terminal,
    /// A hash that tells this machine from others which share the home directory.
    pub(crate) machine: String,
    pub(crate) cpus: usize,
    /// How many files a process may open at most.
    pub(crate) files: u64,
    /// This machine's own addresses, loopback and link-local ones left out.
    pub(crate) addresses: Vec<IpAddr>,
    /// IPv4 destinations that this machine routes, as address and mask.
    pub(crate) routes: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Whether the kernel drops what arrives from an address that it would not answer by the same way.
    pub(crate) filters_sources: bool,
    pub(crate) engine: Engine,
    /// Name of the time zone, such as `Europe/Berlin`.
    pub(crate) timezone: Option<String>,
}

/// Which of the standard streams are terminals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// Where the engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Engine {
    /// As docker takes it in `DOCKER_HOST`.
    pub(crate) address: String,
    pub(crate) kind: EngineKind,
    /// Why no session may use it, and what to do about that.
    pub(crate) unfit: Option<(String, String)>,
}

/// What can be known of an engine without asking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineKind {
    /// Runs as root, on this machine or in a virtual machine that shares its files.
    Rootful,
    /// Runs as the user: inside its containers, root is the user.
    Rootless,
}

/// A user and a group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Host {
    /// Reads the process's state.
    ///
    /// # Errors
    /// There is no home or current directory, or docker's context cannot be read.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let env: BTreeMap<OsString, OsString> = env::vars_os().collect();
        let home = dirs::home_dir().filter(|home| home.is_absolute()).context(
            "there is no home directory: `HOME` is not set to an absolute path, and the user has none",
        )?;
        let cwd = env::current_dir().map_err(|error| {
            Hinted::error(
                format!("there is no current directory: {error}"),
                "change into one that exists and try again",
            )
        })?;
        let uid = rustix::process::getuid().as_raw();
        let engine = Engine::find(&env, &home, uid)?;
        Ok(Self {
            uid,
            gid: rustix::process::getgid().as_raw(),
            terminal: Terminal {
                stdin: io::stdin().is_terminal(),
                stdout: io::stdout().is_terminal(),
                stderr: io::stderr().is_terminal(),
            },
            machine: machine(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            files: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX),
            addresses: addresses(),
            filters_sources: filters_sources(),
            routes: routes(),
            timezone: timezone(&env),
            home,
            cwd,
            env,
            engine,
        })
    }

    /// A variable that is set, not empty, and UTF-8.
    pub(crate) fn var(&self, name: &str) -> Option<&str> {
        self.env.get(OsStr::new(name))?.to_str().filter(|value| !value.is_empty())
    }

    /// `~/…` and relative paths made absolute.
    pub(crate) fn expand(&self, path: &str) -> PathBuf {
        match path.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with('/') => self.home.join(rest.trim_start_matches('/')),
            _ => self.cwd.join(path),
        }
    }

    /// The user's settings; under `~/.config` on every system, so that one set of notes serves all.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.xdg("XDG_CONFIG_HOME", ".config").join("pi/config.toml")
    }

    /// What the launcher remembers about sessions on this machine.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.xdg("XDG_STATE_HOME", ".local/state").join("pi").join(&self.machine)
    }

    /// What the last restricted session was refused.
    pub(crate) fn last_refused(&self) -> PathBuf {
        self.state_dir().join("last-refused")
    }

    /// What the last session's proxy has logged.
    pub(crate) fn last_log(&self) -> PathBuf {
        self.state_dir().join("last-proxy.log")
    }

    /// Where the launcher works for a moment; apart from what it remembers, which no session may write.
    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.xdg("XDG_CACHE_HOME", ".cache").join("pi").join(&self.machine)
    }

    /// Docker's own settings.
    pub(crate) fn docker_settings(&self) -> PathBuf {
        match self.var("DOCKER_CONFIG") {
            Some(path) => self.expand(path),
            None => self.home.join(".docker"),
        }
    }

    /// The agent's own directory.
    pub(crate) fn agent_dir(&self) -> PathBuf {
        match self.var("PI_CODING_AGENT_DIR") {
            Some(path) => self.expand(path),
            None => self.home.join(".pi/agent"),
        }
    }

    fn xdg(&self, variable: &str, default: &str) -> PathBuf {
        // The specification says to ignore a relative path.
        self.env
            .get(OsStr::new(variable))
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .unwrap_or_else(|| self.home.join(default))
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            uid: 1000,
            gid: 1000,
            home: "/home/u".into(),
            cwd: "/home/u/repo".into(),
            env: BTreeMap::new(),
            terminal: Terminal { stdin: true, stdout: true, stderr: true },
            machine: "0123456789ab".into(),
            cpus: 8,
            files: 1 << 20,
            addresses: vec![Ipv4Addr::new(192, 168, 1, 5).into()],
            routes: vec![],
            filters_sources: true,
            engine: Engine {
                address: "unix:///var/run/docker.sock".into(),
                kind: EngineKind::Rootful,
                unfit: None,
            },
            timezone: Some("Europe/Berlin".into()),
        }
    }
}

impl Engine {
    /// Finds the engine as docker itself does: `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context, the default.
    fn find(env: &BTreeMap<OsString, OsString>, home: &Path, uid: u32) -> anyhow::Result<Self> {
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

    /// The engine at an address. One that a session must not use is told by [`Engine::check`]: verbs that need no
    /// engine work all the same.
    pub(crate) fn at(address: &str, uid: u32) -> Self {
        let address = address.to_owned();
        let Some(path) = address.strip_prefix("unix://") else {
            let unfit = (
                format!(
                    "the engine at `{address}` may be another machine, whose paths would be mounted instead of yours"
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
                "`pi` runs inside a container, and the engine outside of it would mount the outer machine's paths"
                    .to_owned(),
                "start `pi` on the machine where the engine runs".to_owned(),
            )
        });
        Self { address, kind, unfit }
    }

    /// # Errors
    /// The engine is another machine's, or its socket leads out of the container that `pi` runs in.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match &self.unfit {
            Some((reason, next)) => Err(Hinted::error(reason, next)),
            None => Ok(()),
        }
    }

    /// Whether its containers run on this very kernel, which then numbers devices and files alike inside and outside.
    pub(crate) fn shares_our_kernel(&self) -> bool {
        cfg!(target_os = "linux") && !self.address.contains("/.docker/desktop/")
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> &Path {
        Path::new(self.address.trim_start_matches("unix://"))
    }
}

const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// Whether an engine is outside of the container that `pi` runs in: it would mount the outer machine's paths.
///
/// The marker file `/.dockerenv` proves nothing (machines are made from images too), so two facts decide: who listens
/// on the socket has no process number in our namespace, or the socket itself was mounted into a container.
fn is_foreign(socket: &Path) -> bool {
    let real = fs::canonicalize(socket).unwrap_or_else(|_| socket.to_owned());
    let marked = Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists();
    (marked && mount_points().any(|at| at == real)) || listener_is_outside(&real)
}

#[cfg(target_os = "linux")]
fn listener_is_outside(socket: &Path) -> bool {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

    // A refused connection is docker's own to report, with its own words.
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
            "`docker context ls` names those that are there; `DOCKER_CONTEXT` or `docker context use` chooses one",
        )
    })?;
    let meta: Meta =
        serde_json::from_str(&text).with_context(|| format!("could not understand `{}`", path.display()))?;
    meta.endpoints
        .get("docker")
        .and_then(|endpoint| endpoint.host.clone())
        .with_context(|| format!("docker's context `{name}` names no engine"))
}

/// Whole seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn machine() -> String {
    let id = fs::read("/etc/machine-id")
        .ok()
        .filter(|id| !id.trim_ascii().is_empty())
        .unwrap_or_else(|| rustix::system::uname().nodename().to_bytes().to_vec());
    hex(&Sha256::digest(id.trim_ascii()))[..12].to_owned()
}

/// Local addresses from the kernel's own table; empty where there is none, as on macOS, where the engine's machine is
/// another one anyway.
fn addresses() -> Vec<IpAddr> {
    let table = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines() {
        if let Some(address) = line.trim().strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last.filter(|address| !address.is_loopback())
            && !found.contains(&IpAddr::V4(address))
        {
            found.push(IpAddr::V4(address));
        }
    }
    let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let six = table
        .lines()
        .filter_map(|line| u128::from_str_radix(line.split(' ').next()?, 16).ok())
        .map(Ipv6Addr::from)
        .filter(|address| !address.is_loopback() && !address.is_unicast_link_local());
    found.extend(six.map(IpAddr::V6));
    found
}

/// The stricter of the setting for all devices and of the one for new devices counts for a session's bridge.
fn filters_sources() -> bool {
    ["all", "default"].iter().any(|device| {
        fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"))
            .is_ok_and(|text| text.trim() != "0")
    })
}

fn routes() -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let address = |field: &str| u32::from_str_radix(field, 16).ok().map(|n| Ipv4Addr::from(n.swap_bytes()));
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            Some((address(fields.get(1)?)?, address(fields.get(7)?)?))
        })
        .filter(|(_, mask)| !mask.is_unspecified())
        .collect()
}

fn timezone(env: &BTreeMap<OsString, OsString>) -> Option<String> {
    if let Some(zone) = env.get(OsStr::new("TZ")).and_then(|zone| zone.to_str()) {
        return Some(zone.to_owned()).filter(|zone| !zone.is_empty() && !zone.starts_with('/'));
    }
    let link = fs::read_link("/etc/localtime").ok()?;
    let zone = link.to_str()?.split_once("zoneinfo/")?.1;
    Some(zone.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_elsewhere_is_refused_with_the_reason() {
        for address in ["ssh://me@box", "tcp://10.0.0.1:2375"] {
            let error = Engine::at(address, 1000).check().unwrap_err();
            assert!(error.to_string().contains("may be another machine"), "{error}");
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

    #[test]
    fn paths_of_the_config_may_begin_at_home() {
        let host = Host::for_tests();
        assert_eq!(host.expand("~/a"), Path::new("/home/u/a"));
        assert_eq!(host.expand("a"), Path::new("/home/u/repo/a"));
        assert_eq!(host.expand("/a"), Path::new("/a"));
    }
}
