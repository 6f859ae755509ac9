//! What was meant: the layers of settings, and the one function that resolves them.

mod file;
mod place;
mod value;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use self::{
    file::{Cpus, Layer, Values, layer, project_lang, read},
    value::{PROCESSORS, processes, runtime, session_name, size},
};
use crate::{cli::Options, host::Host, lang::Lang};

/// The commented default, which is also the documentation of every key.
pub(crate) const DEFAULTS: &str = include_str!("../assets/config.toml");

/// The file by which a repository may choose its language, and nothing else.
pub(crate) const PROJECT_FILE: &str = ".pi/sandbox.toml";

/// Settings with every question answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) lang: Lang,
    pub(crate) network: Network,
    /// The allowlist file, and whether the user named it.
    pub(crate) allowed_domains: PathBuf,
    pub(crate) allowed_domains_is_default: bool,
    pub(crate) allow: Vec<String>,
    pub(crate) lan: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) mounts: Vec<MountSpec>,
    pub(crate) env: Vec<String>,
    pub(crate) publish: Vec<u16>,
    pub(crate) packages: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) runtime: Option<String>,
    pub(crate) agent_dir: AgentDir,
    pub(crate) docker: String,
    pub(crate) session_name: Option<String>,
    pub(crate) images: Images,
}

/// What the agent may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// What the host's containers can reach.
    Open,
    /// The allowlist, through the sidecar.
    Proxy,
    /// Nothing.
    None,
    /// The scripted model of a demonstration.
    Demo,
}

/// How much of `~/.pi/agent` a session may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AgentDir {
    Guarded,
    Shared,
}

/// Limits of a container; `None` is no limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Limits {
    /// As docker takes it, such as `4g`; swap included.
    pub(crate) memory: Option<String>,
    pub(crate) cpus: Option<f64>,
    pub(crate) pids: Option<u32>,
}

/// A mount that the user asked for, not yet looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountSpec {
    pub(crate) source: PathBuf,
    pub(crate) target: Option<PathBuf>,
    pub(crate) access: Access,
}

/// Whether what is mounted can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
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
    pub(crate) acli: bool,
    pub(crate) ca_certificates: Option<PathBuf>,
    pub(crate) pull: Pull,
}

/// Whether an explicit build asks the registry for newer bases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pull {
    Always,
    Missing,
}

impl Config {
    /// Reads the files and resolves them with what was typed.
    ///
    /// # Errors
    /// A file cannot be read, or says something unknown: the error names file, line and what is allowed.
    pub(crate) fn load(options: &Options, host: &Host, project: Option<&Path>) -> anyhow::Result<Self> {
        let path = Self::path(options, host);
        let text = read(&path)?;
        let user = match text {
            Some(text) => layer(&path, &text)?,
            None if options.config.is_none() => Layer::default(),
            None => bail!("there is no config file `{}`", path.display()),
        };
        let chosen = match project {
            Some(root) => project_lang(&root.join(PROJECT_FILE), &Self::path(options, host))?,
            None => None,
        };
        resolve(options, host, chosen, user)
    }

    /// The settings of a demonstration: nothing of the user's own goes along.
    pub(crate) fn for_demo(self) -> Self {
        Self {
            network: Network::Demo,
            mounts: vec![],
            env: vec![],
            agent_dir: AgentDir::Guarded,
            session_name: Some("demo".to_owned()),
            ..self
        }
    }

    /// The user's file of settings, whether it exists or not.
    pub(crate) fn path(options: &Options, host: &Host) -> PathBuf {
        options.config.as_ref().map_or_else(|| host.config_file(), |path| host.cwd.join(path))
    }
}

/// The one resolver: command line over repository over user over defaults.
fn resolve(options: &Options, host: &Host, project: Option<Lang>, user: Layer) -> anyhow::Result<Config> {
    let base: Layer =
        toml::from_str(DEFAULTS).expect("the defaults are a file of ours, and a test reads them");
    let limits = limits(options, host, &user, &base)?;
    let proxy = match (options.proxy, options.no_proxy) {
        (_, true) => false,
        (true, _) => true,
        _ if options.allowed_domains.is_some() || !options.allow.is_empty() => true,
        _ => user.proxy.or(base.proxy).unwrap_or_default(),
    };
    let network = match (options.no_network, proxy) {
        (true, _) => Network::None,
        (false, true) => Network::Proxy,
        (false, false) => Network::Open,
    };
    if network != Network::Open && !options.publish.is_empty() {
        bail!(crate::report::Hinted::usage(
            "`--publish` needs the open network: nothing can reach into a restricted one"
        ));
    }
    let (allowed_domains, allowed_domains_is_default) = match (&options.allowed_domains, user.allowed_domains)
    {
        (Some(path), _) => (host.cwd.join(path), false),
        (None, Some(path)) if !path.get_ref().is_empty() => (host.expand(path.get_ref()), false),
        _ => (host.home.join(".agents/proxy_allowed_domains.txt"), true),
    };
    let mut mounts = Vec::new();
    for text in values(user.mounts, base.mounts) {
        mounts.push(MountSpec::parse(&text, host)?);
    }
    for text in &options.mount {
        let text = text.to_str().with_context(|| format!("the mount `{}` is not UTF-8", text.display()))?;
        mounts.push(MountSpec::parse(text, host)?);
    }
    let mut env = values(user.env, base.env);
    for text in &options.env {
        env.push(text.to_str().context("a value of `--env` is not UTF-8")?.to_owned());
    }
    let images = user.images;
    let fallback = base.images;
    let text = |mine: Option<Spanned<String>>, theirs: Option<Spanned<String>>| {
        mine.or(theirs).map(Spanned::into_inner).unwrap_or_default()
    };
    Ok(Config {
        lang: options.lang.or(project).or(user.lang).or(base.lang).unwrap_or(Lang::Auto),
        network,
        allowed_domains,
        allowed_domains_is_default,
        allow: options.allow.clone(),
        lan: values(user.lan, base.lan),
        dns: values(user.dns, base.dns),
        mounts,
        env,
        publish: options.publish.clone(),
        packages: values(user.packages, base.packages),
        limits,
        runtime: match &options.runtime {
            Some(typed) => {
                runtime(typed).map_err(|error| crate::report::Hinted::usage(error.to_string()))?;
                Some(typed.clone())
            }
            None => user.runtime.or(base.runtime).map(Spanned::into_inner).filter(|name| !name.is_empty()),
        },
        agent_dir: user.agent_dir.or(base.agent_dir).unwrap_or(AgentDir::Guarded),
        docker: user.docker.filter(|name| !name.is_empty()).or(base.docker).unwrap_or_default(),
        session_name: options.session_name.as_deref().map(session_name).transpose()?,
        images: Images {
            base: text(images.base, fallback.base),
            go: text(images.go, fallback.go),
            proxy: text(images.proxy, fallback.proxy),
            php_apt: text(images.php_apt, fallback.php_apt),
            agent_package: text(images.agent_package, fallback.agent_package),
            agent_version: text(images.agent_version, fallback.agent_version),
            acli: images.acli.or(fallback.acli).unwrap_or_default(),
            ca_certificates: images
                .ca_certificates
                .filter(|path| !path.get_ref().is_empty())
                .map(|path| host.expand(path.get_ref())),
            pull: images.pull.or(fallback.pull).unwrap_or(Pull::Always),
        },
    })
}

/// The limits of the agent's container.
fn limits(options: &Options, host: &Host, user: &Layer, base: &Layer) -> anyhow::Result<Limits> {
    Ok(Limits {
        memory: match &options.memory {
            Some(typed) => {
                Some(size(typed).map_err(|error| crate::report::Hinted::usage(error.to_string()))?)
            }
            None => user.memory.clone().or_else(|| base.memory.clone()),
        }
        .filter(|size| size != "0"),
        cpus: match options.cpus {
            Some(0.0) => None,
            Some(typed) if PROCESSORS.contains(&typed) => Some(typed),
            Some(typed) => {
                bail!(crate::report::Hinted::usage(format!("`--cpus {typed}` is not a number of processors")))
            }
            None => match user.cpus.or(base.cpus) {
                Some(Cpus(Some(n))) => Some(n).filter(|n| *n > 0.0),
                #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
                Some(Cpus(None)) | None => Some(host.cpus.min(2) as f64),
            },
        },
        pids: match options.pids {
            Some(typed) => {
                processes(typed).map_err(|error| crate::report::Hinted::usage(error.to_string()))?;
                Some(typed)
            }
            None => user.pids.as_ref().or(base.pids.as_ref()).map(|n| *n.get_ref()),
        }
        .filter(|n| *n > 0),
    })
}

fn values(mine: Values, theirs: Values) -> Vec<String> {
    mine.or(theirs).into_iter().flatten().map(Spanned::into_inner).collect()
}

impl MountSpec {
    /// `SRC[:DST][:ro]`; a colon within a path is written `\:`, and a backslash before a colon or another one `\\`.
    fn parse(text: &str, host: &Host) -> anyhow::Result<Self> {
        let (source, target, access) =
            Self::split(text).map_err(|error| crate::report::Hinted::usage(error.to_string()))?;
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
        let shown = crate::report::one_line(text);
        if parts.next().is_some() {
            bail!(
                "the mount `{shown}` has more parts than `SRC[:DST][:ro]`; a colon within a path is written `\\:`"
            );
        }
        if source.is_empty() || target.as_ref().is_some_and(|target| !target.starts_with('/')) {
            bail!("the mount `{shown}` is not `SRC[:DST][:ro]` with an absolute DST");
        }
        Ok((source, target, access))
    }
}

/// What stands between the colons, escaped ones not counted.
fn fields(text: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ':' => fields.push(std::mem::take(&mut field)),
            '\\' => field.push(chars.next_if(|next| matches!(next, ':' | '\\')).unwrap_or(c)),
            _ => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests;
