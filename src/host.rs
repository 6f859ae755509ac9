//! The machine, the user and the process. Nobody else reads the process's own state.

mod contexts;
mod engine;
mod net;

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, IsTerminal as _},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use self::net::{addresses, filters_sources, routes};
pub(crate) use self::{
    contexts::Tls,
    engine::{DEFAULT_ADDRESS, Engine, EngineKind, is_here},
};
use crate::report::Hinted;

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
    /// A hash of this machine's id. Several machines may share a home directory.
    pub(crate) machine: String,
    pub(crate) cpus: usize,
    /// How many files a process may open at most.
    pub(crate) files: u64,
    /// This machine's own addresses, without loopback and link-local ones.
    pub(crate) addresses: Vec<IpAddr>,
    /// IPv4 destinations that this machine routes, as address and mask.
    pub(crate) routes: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Whether the kernel drops packets that arrive on another interface than the one to their sender (`rp_filter`).
    pub(crate) filters_sources: bool,
    pub(crate) engine: Engine,
    /// The directories with certificates of engines, by the engine's address.
    pub(crate) certificates: BTreeMap<String, PathBuf>,
    /// The name of the time zone, such as `Europe/Berlin`.
    pub(crate) timezone: Option<String>,
    /// Random bytes, for what the sessions of this process have in place of keys.
    pub(crate) random: [u8; 16],
}

/// Which of the standard streams are terminals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// A user and a group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Host {
    /// Reads the process's state. It fails without a home or current directory, or if docker's context cannot be read.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let env: BTreeMap<OsString, OsString> = env::vars_os().collect();
        let home = dirs::home_dir()
            .filter(|home| home.is_absolute())
            .context("there is no home directory: set `HOME` to an absolute path")?;
        let cwd = env::current_dir().map_err(|error| {
            Hinted::error(
                format!("there is no current directory: {error}"),
                "change into one that exists and try again",
            )
        })?;
        let uid = rustix::process::getuid().as_raw();
        let engine = Engine::find(&env, &home, uid)?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).context("could not get random numbers")?;
        Ok(Self {
            random,
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
            certificates: contexts::certificates(&env, &home),
            home,
            cwd,
            env,
            engine,
        })
    }

    /// The same, with the engine of a docker context, which gets nothing of this machine mounted.
    ///
    /// # Errors
    /// There is no such context.
    pub(crate) fn on(&self, context: &str) -> anyhow::Result<Self> {
        let engine = Engine::named(&self.env, &self.home, self.uid, context)?;
        Ok(Self { engine, ..self.clone() }.seen_by_its_engine())
    }

    /// The same, with the engine at an address that is known from a record, which gets nothing of this machine mounted.
    pub(crate) fn back_at(&self, address: &str) -> Self {
        let engine = self.engine_at(address).apart();
        Self { engine, ..self.clone() }.seen_by_its_engine()
    }

    /// The engines of all docker contexts, each once, this one's first. What cannot be used is among them.
    pub(crate) fn engines(&self) -> Vec<(String, Engine)> {
        let mut all = vec![("default".to_owned(), self.engine.clone())];
        for name in contexts::names(&contexts::settings(&self.env, &self.home)) {
            if let Ok(engine) = Engine::named(&self.env, &self.home, self.uid, &name)
                && all.iter().all(|(_, known)| known.address != engine.address)
            {
                all.push((name, engine));
            }
        }
        all
    }

    /// The same, as it is for sessions of an engine that may run on another machine.
    pub(crate) fn seen_by_its_engine(mut self) -> Self {
        let Some(machine) = self.engine.machine() else { return self };
        // That machine has a way out of its own.
        self.env.retain(|name, _| {
            !PROXIES.iter().any(|proxy| name.as_encoded_bytes().eq_ignore_ascii_case(proxy.as_bytes()))
        });
        for address in net::lookup(machine) {
            if !address.is_loopback() && !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
        self.routes = vec![];
        // Of its kernel nothing is known.
        self.filters_sources = true;
        self
    }

    /// The engine at an address that is known from a record.
    pub(crate) fn engine_at(&self, address: &str) -> Engine {
        let tls = self.certificates.get(address).cloned().map_or(Tls::None, Tls::Verified);
        Engine::at(address, self.uid, &tls)
    }

    /// The value of a variable, unless it is empty or not UTF-8.
    pub(crate) fn var(&self, name: &str) -> Option<&str> {
        self.env.get(OsStr::new(name))?.to_str().filter(|value| !value.is_empty())
    }

    /// Makes `~/…` and relative paths absolute.
    pub(crate) fn expand(&self, path: &str) -> PathBuf {
        match path.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with('/') => self.home.join(rest.trim_start_matches('/')),
            _ => self.cwd.join(path),
        }
    }

    /// The user's settings: below `~/.config` on every system.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.xdg("XDG_CONFIG_HOME", ".config").join("pi/config.toml")
    }

    /// The launcher's records of sessions on this machine.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.xdg("XDG_STATE_HOME", ".local/state").join("pi").join(&self.machine)
    }

    /// The destinations that the last restricted session was refused.
    pub(crate) fn last_refused(&self) -> PathBuf {
        self.state_dir().join("last-refused")
    }

    /// The destinations that the last learning session reached.
    pub(crate) fn last_learned(&self) -> PathBuf {
        self.state_dir().join("last-learned")
    }

    /// Whether stderr is a terminal that obeys codes.
    pub(crate) fn draws_on_stderr(&self) -> bool {
        self.terminal.stderr && self.var("TERM").is_some_and(|name| name != "dumb")
    }

    /// What npm's registry has said about the agent last.
    pub(crate) fn newest_agent(&self) -> PathBuf {
        self.state_dir().join("newest-agent.json")
    }

    /// The log of the last session's proxy.
    pub(crate) fn last_log(&self) -> PathBuf {
        self.state_dir().join("last-proxy.log")
    }

    /// The launcher's scratch space, apart from the records, which no session may write.
    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.xdg("XDG_CACHE_HOME", ".cache").join("pi").join(&self.machine)
    }

    /// The directory of docker's own settings.
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
        // The XDG specification ignores relative paths.
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
                files: engine::Files::Shared,
                unfit: None,
            },
            certificates: BTreeMap::new(),
            timezone: Some("Europe/Berlin".into()),
            random: [7; 16],
        }
    }
}

/// Variables that name the proxy by which this machine gets out.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"];

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
    use std::path::Path;

    use super::*;

    #[test]
    fn paths_of_the_config_may_begin_at_home() {
        let host = Host::for_tests();
        assert_eq!(host.expand("~/a"), Path::new("/home/u/a"));
        assert_eq!(host.expand("a"), Path::new("/home/u/repo/a"));
        assert_eq!(host.expand("/a"), Path::new("/a"));
    }
}
