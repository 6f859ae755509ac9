//! What was meant: the layers of settings, and the one function that resolves them.

mod file;
mod value;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use self::{
    file::{Cpus, Layer, Values, layer, project_lang, read},
    value::{PROCESSORS, processes, session_name, size},
};
use crate::{cli::Options, host::Host, image::variant::Lang};

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
    pub(crate) read_only: bool,
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
        let user = match &options.config {
            Some(path) => {
                let path = host.cwd.join(path);
                layer(
                    &path,
                    &read(&path)?.with_context(|| format!("there is no config file `{}`", path.display()))?,
                )?
            }
            None => match read(&host.config_file())? {
                Some(text) => layer(&host.config_file(), &text)?,
                None => Layer::default(),
            },
        };
        let chosen = match project {
            Some(root) => project_lang(&root.join(PROJECT_FILE))?,
            None => None,
        };
        resolve(options, host, chosen, user)
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
        bail!(crate::report::Usage::error(
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
    let text = |mine: Option<String>, theirs: Option<String>| mine.or(theirs).unwrap_or_default();
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
        runtime: options.runtime.clone().or(user.runtime).or(base.runtime).filter(|name| !name.is_empty()),
        agent_dir: user.agent_dir.or(base.agent_dir).unwrap_or(AgentDir::Guarded),
        docker: text(user.docker.filter(|name| !name.is_empty()), base.docker),
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
            Some(typed) => Some(size(typed).map_err(|error| crate::report::Usage::error(error.to_string()))?),
            None => user.memory.clone().or_else(|| base.memory.clone()),
        }
        .filter(|size| size != "0"),
        cpus: match options.cpus {
            Some(0.0) => None,
            Some(typed) if PROCESSORS.contains(&typed) => Some(typed),
            Some(typed) => {
                bail!(crate::report::Usage::error(format!("`--cpus {typed}` is not a number of processors")))
            }
            None => match user.cpus.or(base.cpus) {
                Some(Cpus(Some(n))) => Some(n).filter(|n| *n > 0.0),
                #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
                Some(Cpus(None)) | None => Some(host.cpus.min(2) as f64),
            },
        },
        pids: match options.pids {
            Some(typed) => {
                processes(typed).map_err(|error| crate::report::Usage::error(error.to_string()))?;
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
    /// `SRC[:DST][:ro]`; a colon inside a path cannot be told from a separator, so such a path needs a link to it.
    fn parse(text: &str, host: &Host) -> anyhow::Result<Self> {
        let (source, target, read_only) =
            Self::split(text).map_err(|error| crate::report::Usage::error(error.to_string()))?;
        Ok(Self { source: host.expand(source), target: target.map(PathBuf::from), read_only })
    }

    fn split(text: &str) -> anyhow::Result<(&str, Option<&str>, bool)> {
        let (rest, read_only) = match text.strip_suffix(":ro") {
            Some(rest) => (rest, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        let (source, target) = match rest.split_once(':') {
            Some((source, target)) => (source, Some(target)),
            None => (rest, None),
        };
        if source.is_empty() || target.is_some_and(|target| !target.starts_with('/') || target.contains(':'))
        {
            bail!("the mount `{}` is not `SRC[:DST][:ro]` with an absolute DST", text.escape_debug());
        }
        Ok((source, target, read_only))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn host() -> Host {
        Host::for_tests()
    }

    fn user(text: &str) -> anyhow::Result<Config> {
        resolve(&Options::default(), &host(), None, layer(Path::new("/c.toml"), text)?)
    }

    fn refusal(text: &str) -> String {
        format!("{:#}", user(text).unwrap_err())
    }

    #[test]
    fn the_defaults_are_a_file_that_parses_and_says_everything() {
        let config = user("").unwrap();
        assert_eq!(config.network, Network::Open);
        assert_eq!(config.limits, Limits { memory: Some("4g".into()), cpus: Some(2.0), pids: Some(1024) });
        assert_eq!(config.images.agent_version, "0.87.1");
        assert_eq!(config.agent_dir, AgentDir::Guarded);
    }

    #[test]
    fn an_unknown_key_is_an_error_with_file_line_and_what_is_allowed() {
        let text = refusal("lang = \"go\"\nlangg = 1\n");
        assert!(text.starts_with("/c.toml:2: unknown field `langg`, expected one of `lang`"), "{text}");
    }

    #[test]
    fn a_bad_value_is_an_error_with_file_line_and_what_is_allowed() {
        let text = refusal("\n\nlang = \"rust\"");
        assert!(text.starts_with("/c.toml:3: unknown variant `rust`, expected one of"), "{text}");
        let text = refusal("memory = \"lots\"");
        assert!(text.starts_with("/c.toml:1: `lots` is not a size"), "{text}");
        for (value, said) in [
            (
                "packages = [\n  \"jq\",\n  \"a; rm -rf /\",\n]",
                "/c.toml:4: `a; rm -rf /` is not the name of a Debian package",
            ),
            ("mounts = [\"~/in\",\n\"data\"]", "/c.toml:3: `data` is a relative path, which would"),
            ("mounts = [\"/in:out\"]", "/c.toml:2: the mount `/in:out` is not `SRC[:DST][:ro]`"),
            (
                "env = [\"A=1\", \"1A\"]",
                "/c.toml:2: the variable `1A` cannot be given to the agent: it is not the name",
            ),
            (
                "env = [\"LD_PRELOAD=x\"]",
                "/c.toml:2: the variable `LD_PRELOAD` cannot be given to the agent: it is set",
            ),
            ("dns = [\"one.one\"]", "/c.toml:2: `one.one` is not the address of a resolver"),
            ("lan = [\"git.corp\"]", "/c.toml:2: `lan` in the configuration: `git.corp`: it needs a port"),
            ("pids = 3", "/c.toml:2: a limit of 3 processes is too small"),
            ("allowed_domains = \"list\"", "/c.toml:2: `list` is a relative path"),
            ("[images]\nca_certificates = \"ca.pem\"", "/c.toml:3: `ca.pem` is a relative path"),
        ] {
            let text = refusal(&format!("# A comment.\n{value}"));
            assert!(text.starts_with(said), "{text}");
        }
    }

    #[test]
    fn zero_is_no_limit() {
        let config = user("memory = \"0\"\ncpus = 0\npids = 0").unwrap();
        assert_eq!(config.limits, Limits { memory: None, cpus: None, pids: None });
    }

    #[test]
    fn the_command_line_wins_over_the_repository_and_the_repository_over_the_user() {
        let file = layer(Path::new("/c"), "lang = \"go\"").unwrap();
        let typed = Options { lang: Some(Lang::Base), ..Options::default() };
        assert_eq!(resolve(&typed, &host(), Some(Lang::Php), file.clone()).unwrap().lang, Lang::Base);
        assert_eq!(
            resolve(&Options::default(), &host(), Some(Lang::Php), file.clone()).unwrap().lang,
            Lang::Php
        );
        assert_eq!(resolve(&Options::default(), &host(), None, file).unwrap().lang, Lang::Go);
    }

    #[test]
    fn an_allowlist_implies_the_proxy() {
        let typed = Options { allow: vec!["example.com".into()], ..Options::default() };
        assert_eq!(resolve(&typed, &host(), None, Layer::default()).unwrap().network, Network::Proxy);
    }

    #[test]
    fn a_repository_may_choose_its_language_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sandbox.toml");
        fs::write(&path, "lang = \"go\"").unwrap();
        assert_eq!(project_lang(&path).unwrap(), Some(Lang::Go));
        fs::write(&path, "lang = \"go\"\nmounts = [\"/\"]").unwrap();
        let text = format!("{:#}", project_lang(&path).unwrap_err());
        assert!(text.ends_with(":2: a repository may set `lang` and nothing else, not `mounts`"), "{text}");
        fs::write(&path, "# ours\nlang = \"cobol\"").unwrap();
        let text = format!("{:#}", project_lang(&path).unwrap_err());
        assert!(
            text.contains("sandbox.toml:2: unknown variant `cobol`, expected one of `base`, `go`"),
            "{text}"
        );
    }

    #[test]
    fn mounts_are_read_from_the_right() {
        let parse = |text: &str| MountSpec::parse(text, &host()).unwrap();
        assert_eq!(
            parse("/a:/b:ro"),
            MountSpec { source: "/a".into(), target: Some("/b".into()), read_only: true }
        );
        assert_eq!(parse("~/x").source, host().home.join("x"));
        assert!(MountSpec::parse("/a:b", &host()).is_err());
    }
}
