//! Sessions on engines that mount nothing of this machine: which engine that is, and what such a session cannot have.

use std::{thread, time::Duration};

use anyhow::Context as _;

use super::{Launcher, Prepared};
use crate::{
    agent,
    config::{COPY, Config, Keys, Network, OpenUrls},
    copies,
    docker::{Docker, Free},
    host::Host,
    purpose::Purpose,
    report::{self, Hinted},
    workspace::Workspace,
    written::Written,
};

/// How long one of several engines may take to say what it has left.
const ANSWER: Duration = Duration::from_secs(20);

/// An engine that a session can be on.
pub(crate) struct Candidate {
    /// The context, where one was named.
    pub(crate) name: Option<String>,
    pub(crate) host: Host,
    pub(crate) docker: Docker,
    /// What it has left, where it was asked.
    pub(crate) free: Option<Free>,
}

impl Candidate {
    fn of(config: &Config, name: Option<String>, host: Host) -> anyhow::Result<Self> {
        host.engine.check()?;
        let docker = Docker::find(&config.docker, &host, &Written::load(&host).and_around(&host))?;
        Ok(Self { name, host, docker, free: None })
    }

    fn named(config: &Config, here: &Host, name: &str) -> anyhow::Result<Self> {
        Self::of(config, Some(name.to_owned()), here.on(name)?)
    }

    /// How many sessions fit in, of those that have these limits.
    pub(crate) fn sessions(&self, memory: u64, cpus: f64) -> anyhow::Result<f64> {
        let free = self.free.map_or_else(|| self.docker.free(), Ok)?;
        Ok(free.sessions(memory, cpus))
    }
}

impl Launcher {
    /// The same, on the engine that `--on` names, or else the settings.
    ///
    /// # Errors
    /// Docker knows no such context.
    pub(crate) fn on(&self) -> anyhow::Result<Self> {
        self.at(self.options.on.clone().or(self.config()?.on))
    }

    /// The same, for what needs no settings.
    ///
    /// # Errors
    /// Docker knows no such context.
    pub(crate) fn on_named(&self) -> anyhow::Result<Self> {
        self.at(self.options.on.clone())
    }

    fn at(&self, context: Option<String>) -> anyhow::Result<Self> {
        let host = match context {
            Some(several) if several.contains(',') => self.freest(&several)?,
            Some(name) => self.host.on(&name)?,
            None => self.host.clone().seen_by_its_engine(),
        };
        Ok(Self {
            options: self.options.clone(),
            host,
            signals: self.signals.share(),
            here: self.here.clone(),
        })
    }

    /// The engines that `--on` or the settings name, or else the one that docker uses. Several are asked what they have left,
    /// and those that do not answer are left out.
    ///
    /// # Errors
    /// None answers, or docker knows no such context.
    pub(crate) fn candidates(&self) -> anyhow::Result<Vec<Candidate>> {
        let config = self.config()?;
        match self.options.on.as_deref().or(config.on.as_deref()) {
            Some(names) if names.contains(',') => self.answering(self.several(&config, names)?),
            Some(name) => Ok(vec![Candidate::named(&config, &self.host, name)?]),
            None => Ok(vec![Candidate::of(&config, None, self.host.clone().seen_by_its_engine())?]),
        }
    }

    fn several(&self, config: &Config, names: &str) -> anyhow::Result<Vec<Candidate>> {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| Candidate::named(config, &self.host, name)).collect()
    }

    /// Those that answer, with what they have left.
    fn answering(&self, mut all: Vec<Candidate>) -> anyhow::Result<Vec<Candidate>> {
        thread::scope(|scope| {
            for one in &mut all {
                scope.spawn(|| match one.docker.clone().within(ANSWER).free() {
                    Ok(free) => one.free = Some(free),
                    Err(error) => {
                        let name = one.name.as_deref().unwrap_or_default();
                        report::warn(format_args!("`{name}` is left out: {error:#}"));
                    }
                });
            }
        });
        self.signals.check()?;
        all.retain(|one| one.free.is_some());
        anyhow::ensure!(!all.is_empty(), "none of these engines answers");
        Ok(all)
    }

    /// The machine with the engine, of several, that has most left for a session; or that has the session's copy already.
    fn freest(&self, names: &str) -> anyhow::Result<Host> {
        let config = self.config()?;
        let all = self.several(&config, names)?;
        let root = Workspace::find(&self.host).ok().map(|workspace| workspace.root);
        let copy = config.clone.as_deref().unwrap_or(COPY);
        let copy = root.and_then(|root| copies::find(&self.host, &root, Some(copy)).ok());
        if let Some((_, copy)) = copy
            && let Some(one) = all.iter().find(|one| one.host.engine.address == copy.engine)
        {
            return Ok(one.host.clone());
        }
        let (memory, cpus) = config.limits.needed();
        let fit = |one: &Candidate| one.free.map_or(f64::MIN, |free| free.sessions(memory, cpus));
        // Of equals, the first that was named.
        let best = self
            .answering(all)?
            .into_iter()
            .reduce(|best, one| if fit(&one) > fit(&best) { one } else { best });
        let Candidate { name, host, .. } = best.context("none of these engines answers")?;
        report::note(format_args!("the session is on `{}`, which has most left", name.unwrap_or_default()));
        Ok(host)
    }

    /// The settings of a session on an engine that mounts nothing of this machine.
    pub(super) fn apart(&self, config: Config, purpose: Purpose) -> anyhow::Result<Config> {
        let engine = &self.host.engine.address;
        if !matches!(purpose, Purpose::Work | Purpose::Shell | Purpose::Demo) {
            return Err(Hinted::error(
                format!("this works only on an engine of this machine, and not on the one at `{engine}` yet"),
                "leave out `--on`, or unset `DOCKER_HOST`",
            ));
        }
        if !self.options.mount.is_empty() {
            return Err(Hinted::usage_hinted(
                "`--mount` has no effect with `--on`: nothing of this machine is mounted there",
                "what the agent needs has to be in the repository",
            ));
        }
        if !self.options.publish.is_empty() {
            return Err(Hinted::usage_hinted(
                "`--publish` does not work with `--on` yet: the port would be one of the engine's machine",
                "leave it out",
            ));
        }
        let inside = match &config.keys {
            Keys::Env => true,
            Keys::Broker { inside } => !inside.is_empty(),
            Keys::None => false,
        };
        let names = config.env.iter().map(|text| text.split('=').next().unwrap_or(text));
        let secret = names.into_iter().find(|name| {
            agent::SECRETS.contains(name) || agent::CREDENTIAL_PATHS.contains(name) || *name == "PI_GH_TOKEN"
        });
        if inside || secret.is_some() {
            let what = secret.map_or("`keys` in the settings puts keys".to_owned(), |name| {
                format!("`{name}` in the agent's environment is a key")
            });
            return Err(Hinted::error(
                format!(
                    "{what} into the sandbox, and everybody who may use the engine at `{engine}` could read them"
                ),
                "let the broker have them, `keys = \"broker\"`, or start without with `--no-keys`",
            ));
        }
        if config.strict && config.network == Network::Proxy && self.host.engine.socket().is_none() {
            return Err(Hinted::error(
                "`strict` is set, and nothing is known of the kernel of another machine",
                "leave out `--on`, or set `strict = false`",
            ));
        }
        if !config.mounts.is_empty() {
            report::note("the `mounts` of the settings are not there: nothing of this machine is mounted");
        }
        Ok(Config {
            mounts: vec![],
            open_urls: OpenUrls::Never,
            clone: Some(config.clone.unwrap_or_else(|| COPY.to_owned())),
            ..config
        })
    }
}

impl Prepared {
    /// Fails if a key would be in a sandbox on an engine that others may use.
    pub(super) fn keeps_keys_here(&self) -> anyhow::Result<()> {
        if self.facts.keys.has_some_inside || !self.facts.credentials.is_empty() {
            return Err(Hinted::error(
                "a key would be in the sandbox, and everybody who may use that engine could read it",
                "start with `--no-keys`, or unset the variables that the notices name",
            ));
        }
        Ok(())
    }
}
