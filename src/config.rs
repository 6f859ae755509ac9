//! The settings: their layers, and the one function that resolves them.

mod file;
mod mount;
mod origin;
mod pattern;
mod place;
mod resolve;
mod space;
mod subagents;
mod value;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use self::{
    file::{Layer, layer, project_lang, read},
    resolve::resolve,
};
pub(crate) use self::{
    mount::MountSpec,
    origin::{InForce, in_force},
    pattern::{Pattern, Patterns},
};
pub(crate) use self::{
    space::{Disk, MinFree},
    subagents::Subagents,
};
use crate::{
    agent_dir::entry::Persist, broker::github::Repository, cli::Options, host::Host, lang::Lang,
    report::Hinted,
};
pub(crate) use crate::{cli::Published, inside::Access};

/// The default settings. Their comments document every key.
pub(crate) const DEFAULTS: &str = include_str!("../assets/config.toml");

/// The processors of a session whose user has said nothing, if the machine has as many.
const CPUS: u8 = 2;

fn defaults() -> Layer {
    toml::from_str(DEFAULTS).expect("the defaults are our own file, and a test reads them")
}

/// In this file a repository may choose its language, and nothing else.
pub(crate) const PROJECT_FILE: &str = ".pi/sandbox.toml";

/// How many ports a session may publish.
pub(crate) const MOST_PUBLISHED: usize = 64;

/// The name of a copy where the user chooses none.
pub(crate) const COPY: &str = "copy";

/// The resolved settings.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "these are switches of the user's, one by one")]
pub(crate) struct Config {
    pub(crate) lang: Lang,
    pub(crate) network: Network,
    /// Whether a session starts only where its network holds against everything that is known.
    pub(crate) strict: bool,
    pub(crate) allowed_domains: PathBuf,
    /// False if the user named the allowlist.
    pub(crate) allowed_domains_is_default: bool,
    pub(crate) allow: Vec<String>,
    pub(crate) lan: Vec<String>,
    /// Whether every public name is admitted, to learn which ones are needed.
    pub(crate) learns: bool,
    pub(crate) dns: Vec<String>,
    pub(crate) mounts: Vec<MountSpec>,
    pub(crate) env: Vec<String>,
    pub(crate) publish: Vec<Published>,
    pub(crate) packages: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) disk: Disk,
    pub(crate) min_free: MinFree,
    pub(crate) runtime: Option<String>,
    pub(crate) persist: Vec<Persist>,
    pub(crate) keys: Keys,
    /// Repositories on GitHub besides the session's own.
    pub(crate) github: Vec<Repository>,
    pub(crate) github_token: GitHubToken,
    pub(crate) github_push: bool,
    /// `None` where the agent may start none.
    pub(crate) subagents: Option<Subagents>,
    pub(crate) git: GitAccess,
    pub(crate) open_urls: OpenUrls,
    /// How sessions have the login of Atlassian's command line tool.
    pub(crate) acli: Option<Access>,
    /// Whether the session shares this machine's network.
    pub(crate) host_network: bool,
    pub(crate) wipe_auth: WipeAuth,
    /// `None` where the user has not decided.
    pub(crate) hide: Option<Patterns>,
    /// Ignored files that go into a copy.
    pub(crate) copy_ignored: Patterns,
    /// The name of the copy that the session works on, with `--clone`.
    pub(crate) clone: Option<String>,
    /// The docker context on which sessions run, if it is not docker's own choice.
    pub(crate) on: Option<String>,
    pub(crate) docker: String,
    pub(crate) session_name: Option<String>,
    pub(crate) images: Images,
}

/// The network that the agent can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// The same as any container of the host.
    Open,
    /// The hosts of the allowlist, through the sidecar.
    Proxy,
    /// Nothing.
    None,
    /// The scripted model of `pi demo`.
    Demo,
}

/// Where the token for GitHub comes from, if the user has set none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GitHubToken {
    /// From nowhere.
    #[default]
    #[serde(rename = "")]
    None,
    /// From the `gh` of this machine.
    Gh,
}

/// Where the keys and logins of model providers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keys {
    /// The session has none.
    None,
    /// Inside, as variables and files of the agent.
    Env,
    /// With the broker, but for these providers' keys, which are inside.
    Broker { inside: BTreeSet<String> },
}

impl Default for Keys {
    fn default() -> Self {
        Self::Broker { inside: BTreeSet::new() }
    }
}

/// How sessions have the repository's git directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GitAccess {
    /// A git directory of the agent's own, whose commits come over.
    Private,
    /// The host's, without its settings.
    ReadOnly,
    /// The host's. What an agent writes there can run on the host.
    Shared,
}

/// What becomes of an address that a session wants to have opened on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OpenUrls {
    /// The session can only show it.
    Never,
    /// It waits until the user looks at it, with `pi open`.
    Ask,
}

/// What the end of the last session removes from the agent's `auth.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WipeAuth {
    Never,
    /// Logins, but not keys.
    Logins,
    /// Keys that were written by hand, too.
    All,
}

/// Limits of a container; `None` is no limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Limits {
    /// Memory and swap together, as docker takes it, such as `4g`.
    pub(crate) memory: Option<String>,
    pub(crate) cpus: Option<f64>,
    pub(crate) pids: Option<u32>,
}

impl Limits {
    /// How much memory and how many processors a session with these limits can take.
    pub(crate) fn needed(&self) -> (u64, f64) {
        let memory = self.memory.clone().or(defaults().memory);
        (memory.as_deref().map_or(0, value::bytes), self.cpus.unwrap_or(f64::from(CPUS)))
    }
}

/// Where the images come from; see `assets/config.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Images {
    pub(crate) base: String,
    pub(crate) go: String,
    pub(crate) proxy: String,
    pub(crate) php_apt: String,
    pub(crate) agent_package: String,
    pub(crate) agent_version: String,
    /// Where Atlassian's command line tool comes from, if it is wanted.
    pub(crate) acli: Option<String>,
    pub(crate) ca_certificates: Option<PathBuf>,
    /// Whether open sessions ask for a newer agent now and then.
    pub(crate) check_agent: bool,
    pub(crate) pull: Pull,
    /// Where images that were built here are kept for other engines, such as `registry.host.example/team`.
    pub(crate) registry: Option<String>,
}

/// Whether a build of everything pulls newer base images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pull {
    Always,
    Missing,
}

impl Config {
    /// Reads the files and resolves them with the command line. An error names the file, the line and the allowed
    /// values.
    pub(crate) fn load(options: &Options, host: &Host, project: Option<&Path>) -> anyhow::Result<Self> {
        let path = Self::path(options, host);
        let user = match read(&path)? {
            Some(text) => layer(&path, &text)?,
            None if options.config.is_none() => Layer::default(),
            None => {
                return Err(Hinted::error(
                    format!("there is no config file `{}`", path.display()),
                    "correct the path after `--config`, or leave it out",
                ));
            }
        };
        let project = project.map(|root| project_lang(&root.join(PROJECT_FILE), &path)).transpose()?;
        resolve(options, host, project.flatten(), user)
    }

    /// The settings of `pi demo`.
    pub(crate) fn for_demo(self) -> Self {
        Self { network: Network::Demo, session_name: Some("demo".to_owned()), ..self.without_extras() }
    }

    /// The settings of `pi doctor --prove`, with the user's keys, which are looked for inside.
    pub(crate) fn for_proof(self) -> Self {
        let keys = self.keys.clone();
        Self { session_name: Some("proof".to_owned()), keys, ..self.without_extras() }
    }

    /// Without what the user has let in besides, which is no fault of the walls.
    fn without_extras(self) -> Self {
        Self {
            mounts: vec![],
            env: vec![],
            lan: vec![],
            persist: vec![],
            keys: Keys::None,
            hide: Some(Patterns::default()),
            clone: None,
            subagents: None,
            acli: None,
            ..self
        }
    }

    /// The settings of a session in which Atlassian's command line tool logs in.
    pub(crate) fn for_acli(self) -> Self {
        Self { acli: Some(Access::ReadWrite), ..self.for_login(&[]) }
    }

    /// The settings of a session that logs in, with these ports.
    pub(crate) fn for_login(self, ports: &[u16]) -> Self {
        Self {
            network: Network::Open,
            publish: ports.iter().map(|port| Published { host: *port, agent: *port }).collect(),
            session_name: None,
            ..self.without_extras()
        }
    }

    /// The user's settings file, even if it does not exist.
    pub(crate) fn path(options: &Options, host: &Host) -> PathBuf {
        options.config.as_ref().map_or_else(|| host.config_file(), |path| host.cwd.join(path))
    }
}

/// Blames the command line for a bad value.
fn usage<T>(outcome: anyhow::Result<T>) -> anyhow::Result<T> {
    outcome.map_err(|error| Hinted::usage(error.to_string()))
}

#[cfg(test)]
mod tests;
