//! The settings: their layers, and the one function that resolves them.

mod file;
mod origin;
mod pattern;
mod place;
mod space;
mod subagents;
mod value;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use self::{
    file::{Cpus, ImagesLayer, Layer, Values, layer, project_lang, read},
    value::{PROCESSORS, copy_name, processes, room, runtime, session_name, size},
};
pub(crate) use self::{
    origin::{InForce, in_force},
    pattern::{Pattern, Patterns},
};
pub(crate) use self::{
    space::{Disk, MinFree},
    subagents::Subagents,
};
use crate::{
    agent_dir::entry::Persist,
    broker::github::Repository,
    cli::Options,
    host::Host,
    lang::Lang,
    report::{Hinted, one_line},
};
pub(crate) use crate::{cli::Published, inside::Access};

/// The default settings. Their comments document every key.
pub(crate) const DEFAULTS: &str = include_str!("../assets/config.toml");

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

/// A mount that the user asked for, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountSpec {
    pub(crate) source: PathBuf,
    pub(crate) target: Option<PathBuf>,
    pub(crate) access: Access,
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

/// The one resolver: the command line wins over the repository, the repository over the user, the user over the
/// defaults.
fn resolve(options: &Options, host: &Host, project: Option<Lang>, user: Layer) -> anyhow::Result<Config> {
    let base: Layer = toml::from_str(DEFAULTS).expect("the defaults are our own file, and a test reads them");
    let limits = limits(options, host, &user, &base)?;
    let disk = match &options.disk {
        Some(typed) => Some(usage(room(typed))?),
        None => user.disk.or(base.disk),
    };
    let network = network(options, user.proxy.or(base.proxy).unwrap_or_default())?;
    let (allowed_domains, allowed_domains_is_default) = match (&options.allowed_domains, user.allowed_domains)
    {
        (Some(path), _) => (host.cwd.join(path), false),
        (None, Some(path)) if !path.get_ref().is_empty() => (host.expand(path.get_ref()), false),
        _ => (host.home.join(".agents/proxy_allowed_domains.txt"), true),
    };
    let mut mounts = values(user.mounts, base.mounts);
    for text in &options.mount {
        let text = text.to_str().with_context(|| format!("the mount `{}` is not UTF-8", text.display()))?;
        mounts.push(text.to_owned());
    }
    let mut env = values(user.env, base.env);
    for text in &options.env {
        env.push(text.to_str().context("a value of `--env` is not UTF-8")?.to_owned());
    }
    let images = images(user.images, base.images, host);
    Ok(Config {
        lang: options.lang.or(project).or(user.lang).or(base.lang).unwrap_or(Lang::Auto),
        network,
        strict: user.strict.or(base.strict).unwrap_or_default(),
        allowed_domains,
        allowed_domains_is_default,
        allow: options.allow.clone(),
        lan: values(user.lan, base.lan),
        learns: options.learn,
        dns: values(user.dns, base.dns),
        mounts: mounts.iter().map(|text| MountSpec::parse(text, host)).collect::<anyhow::Result<_>>()?,
        env,
        publish: published(&options.publish)?,
        packages: values(user.packages, base.packages),
        disk: Disk::of(disk.as_deref(), &limits),
        min_free: user.min_free.or(base.min_free).unwrap_or(MinFree::Usual),
        limits,
        runtime: match &options.runtime {
            Some(typed) => Some(usage(runtime(typed)).map(|()| typed.clone())?),
            None => Some(text(user.runtime, base.runtime)).filter(|name| !name.is_empty()),
        },
        persist: persist(user.persist),
        github: values(user.github, base.github).iter().filter_map(|text| Repository::parse(text)).collect(),
        github_token: user.github_token.or(base.github_token).unwrap_or_default(),
        github_push: !options.no_push && user.github_push.or(base.github_push).unwrap_or(true),
        keys: if options.no_keys { Keys::None } else { user.keys.or(base.keys).unwrap_or_default() },
        subagents: subagents::resolve(user.subagents, base.subagents),
        git: user.git.or(base.git).unwrap_or(GitAccess::Private),
        wipe_auth: user.wipe_auth.or(base.wipe_auth).unwrap_or(WipeAuth::Never),
        open_urls: user.open_urls.or(base.open_urls).unwrap_or(OpenUrls::Never),
        hide: user.hide.map(|list| patterns(Some(list))),
        copy_ignored: patterns(user.copy_ignored),
        clone: clone(options)?,
        docker: user.docker.filter(|name| !name.is_empty()).or(base.docker).unwrap_or_default(),
        session_name: options.session_name.as_deref().map(session_name).transpose()?,
        acli: images.acli.is_some().then_some(Access::ReadOnly),
        host_network: false,
        images,
    })
}

/// The network that the options ask for; `proxy` is the setting.
fn network(options: &Options, proxy: bool) -> anyhow::Result<Network> {
    let listed = options.allowed_domains.is_some() || !options.allow.is_empty() || options.learn;
    let network = if options.no_network {
        Network::None
    } else if !options.no_proxy && (options.proxy || listed || proxy) {
        Network::Proxy
    } else {
        Network::Open
    };
    if network == Network::None && !options.publish.is_empty() {
        bail!(Hinted::usage("`--publish` needs a network, and `--no-network` gives none; `--proxy` has one"));
    }
    Ok(network)
}

/// The published ports, each once.
fn published(typed: &[Published]) -> anyhow::Result<Vec<Published>> {
    let mut all: Vec<Published> = vec![];
    for one in typed {
        match all.iter().find(|other| other.host == one.host) {
            Some(other) if other == one => {}
            Some(other) => bail!(Hinted::usage(format!(
                "`--publish {other}` and `--publish {one}` want the same port of this machine"
            ))),
            None => all.push(*one),
        }
    }
    if all.len() > MOST_PUBLISHED {
        bail!(Hinted::usage(format!("`--publish` takes at most {MOST_PUBLISHED} ports")));
    }
    Ok(all)
}

/// The limits of the agent's container.
fn limits(options: &Options, host: &Host, user: &Layer, base: &Layer) -> anyhow::Result<Limits> {
    let memory = match &options.memory {
        Some(typed) => Some(usage(size(typed))?),
        None => user.memory.as_ref().or(base.memory.as_ref()).cloned(),
    };
    let cpus = match options.cpus {
        Some(typed) if typed == 0.0 || PROCESSORS.contains(&typed) => typed,
        Some(typed) => bail!(Hinted::usage(format!("`--cpus {typed}` is not a number of processors"))),
        None => match user.cpus.or(base.cpus) {
            Some(Cpus(Some(n))) => n,
            #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
            Some(Cpus(None)) | None => host.cpus.min(2) as f64,
        },
    };
    let pids = match options.pids {
        Some(typed) => usage(processes(typed)).map(|()| Some(typed))?,
        None => user.pids.as_ref().or(base.pids.as_ref()).map(|n| *n.get_ref()),
    };
    Ok(Limits {
        memory: memory.filter(|size| size != "0"),
        cpus: Some(cpus).filter(|n| *n > 0.0),
        pids: pids.filter(|n| *n > 0),
    })
}

fn images(user: ImagesLayer, base: ImagesLayer, host: &Host) -> Images {
    let ca_certificates = text(user.ca_certificates, base.ca_certificates);
    Images {
        base: text(user.base, base.base),
        go: text(user.go, base.go),
        proxy: text(user.proxy, base.proxy),
        php_apt: text(user.php_apt, base.php_apt),
        agent_package: text(user.agent_package, base.agent_package),
        agent_version: text(user.agent_version, base.agent_version),
        acli: user.acli.or(base.acli).and_then(|acli| acli.0),
        ca_certificates: (!ca_certificates.is_empty()).then(|| host.expand(&ca_certificates)),
        check_agent: user.check_agent.or(base.check_agent).unwrap_or(true),
        pull: user.pull.or(base.pull).unwrap_or(Pull::Always),
    }
}

fn values(user: Values, base: Values) -> Vec<String> {
    user.or(base).into_iter().flatten().map(Spanned::into_inner).collect()
}

fn text(user: Option<Spanned<String>>, base: Option<Spanned<String>>) -> String {
    user.or(base).map(Spanned::into_inner).unwrap_or_default()
}

/// The file's reader has refused what cannot be one of these.
fn persist(user: Values) -> Vec<Persist> {
    let mut all: Vec<Persist> = values(user, None).iter().flat_map(|name| Persist::parse(name)).collect();
    all.sort();
    all.dedup();
    all
}

/// The same.
fn patterns(list: Values) -> Patterns {
    Patterns::new(values(list, None).iter().flat_map(|text| Pattern::parse(text)).collect())
}

/// What `--clone` asks for; a name of a session serves for the copy, too.
fn clone(options: &Options) -> anyhow::Result<Option<String>> {
    let Some(typed) = &options.clone else { return Ok(None) };
    let name = if typed.is_empty() { options.session_name.as_deref() } else { Some(typed.as_str()) };
    copy_name(name.unwrap_or(COPY)).map(Some)
}

/// Blames the command line for a bad value.
fn usage<T>(outcome: anyhow::Result<T>) -> anyhow::Result<T> {
    outcome.map_err(|error| Hinted::usage(error.to_string()))
}

impl MountSpec {
    /// `SRC[:DST][:ro]`. A colon in a path is written `\:`, and a backslash before a colon or a backslash `\\`.
    fn parse(text: &str, host: &Host) -> anyhow::Result<Self> {
        let (source, target, access) = usage(Self::split(text))?;
        Ok(Self { source: host.expand(&source), target: target.map(PathBuf::from), access })
    }

    fn split(text: &str) -> anyhow::Result<(String, Option<String>, Access)> {
        let mut parts = fields(text);
        let last = if parts.len() > 1 { parts.last().map(String::as_str) } else { None };
        let access = if last == Some("ro") { Access::ReadOnly } else { Access::ReadWrite };
        if matches!(last, Some("ro" | "rw")) {
            parts.pop();
        }
        let mut parts = parts.into_iter();
        let (source, target) = (parts.next().unwrap_or_default(), parts.next());
        let shown = one_line(text);
        if parts.next().is_some() {
            bail!(
                "the mount `{shown}` has more parts than `SRC[:DST][:ro]`; write a colon in a path as `\\:`"
            );
        }
        if source.is_empty() || target.as_ref().is_some_and(|target| !target.starts_with('/')) {
            bail!("the mount `{shown}` is not `SRC[:DST][:ro]` with an absolute DST");
        }
        Ok((source, target, access))
    }
}

/// Splits at colons that have no backslash before them.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next_if(|next| matches!(next, ':' | '\\')) } else { None };
        match fields.last_mut() {
            Some(field) if c != ':' => field.push(escaped.unwrap_or(c)),
            _ => fields.push(String::new()),
        }
    }
    fields
}

#[cfg(test)]
mod tests;
