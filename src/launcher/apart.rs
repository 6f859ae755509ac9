//! Sessions on engines that mount nothing of this machine: which engine that is, and what such a session cannot have.

use std::{thread, time::Duration};

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

    /// The machine with the engine, of several, that has most left for a session; or that has the session's copy already.
    fn freest(&self, names: &str) -> anyhow::Result<Host> {
        let config = self.config()?;
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let hosts = names.map(|name| Ok((name, self.host.on(name)?))).collect::<anyhow::Result<Vec<_>>>()?;
        let root = Workspace::find(&self.host).ok().map(|workspace| workspace.root);
        let copy = config.clone.as_deref().unwrap_or(COPY);
        let copy = root.and_then(|root| copies::find(&self.host, &root, Some(copy)).ok());
        if let Some((_, host)) =
            copy.and_then(|(_, copy)| hosts.iter().find(|(_, host)| host.engine.address == copy.engine))
        {
            return Ok(host.clone());
        }
        let free = |host: &Host| {
            let docker = Docker::find(&config.docker, host, &Written::load(host).and_around(host))?;
            docker.within(ANSWER).free()
        };
        let answers: Vec<anyhow::Result<Free>> = thread::scope(|scope| {
            let asked: Vec<_> = hosts.iter().map(|(_, host)| scope.spawn(|| free(host))).collect();
            asked.into_iter().map(|asked| asked.join().expect("asking does not panic")).collect()
        });
        let (memory, cpus) = config.limits.needed();
        let mut best: Option<(f64, &str, &Host)> = None;
        for ((name, host), answer) in hosts.iter().zip(answers) {
            match answer.map(|free| free.sessions(memory, cpus)) {
                Ok(fit) if best.is_none_or(|(most, ..)| fit > most) => best = Some((fit, name, host)),
                Ok(_) => {}
                Err(error) => report::warn(format_args!("`{name}` is left out: {error:#}")),
            }
        }
        let Some((_, name, host)) = best else { anyhow::bail!("none of these engines answers") };
        report::note(format_args!("the session is on `{name}`, which has most left"));
        Ok(host.clone())
    }

    /// The settings of a session on an engine that mounts nothing of this machine.
    pub(super) fn apart(&self, config: Config, purpose: Purpose) -> anyhow::Result<Config> {
        let engine = &self.host.engine.address;
        if !matches!(purpose, Purpose::Work | Purpose::Shell) {
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
