//! What every verb starts from: the options, the machine, the settings, the engine.

use std::{ffi::OsStr, fs, path::PathBuf, sync::Mutex, time::SystemTime};

use crate::{
    agent,
    cli::Options,
    config::{Config, Network},
    docker::{Access, Docker, Mount},
    egress::{self, Sources},
    facts::{self, Facts},
    host::{Host, Owner},
    image::{
        self, Image,
        build::{Builder, Effort},
        variant::Variant,
    },
    plan::{Inputs, Plan, Program, ProxyFiles, Reach, session::SessionId, subnet::Subnet},
    report::{self, Hinted},
    session::{self, Naming, Needs, Signals},
    sweep,
    workspace::Workspace,
    written::Written,
};

/// The options and the machine.
pub(crate) struct Launcher {
    pub(crate) options: Options,
    pub(crate) host: Host,
    pub(crate) signals: Signals,
}

/// All that is decided about a session before there is a plan.
pub(crate) struct Prepared {
    pub(crate) workspace: Workspace,
    pub(crate) config: Config,
    pub(crate) facts: Facts,
    pub(crate) who: Owner,
    pub(crate) image: Image,
    pub(crate) proxy: Image,
    pub(crate) ca: Vec<u8>,
    pub(crate) sources: Option<Sources>,
    pub(crate) reach: Reach,
}

impl Launcher {
    /// Settings for verbs that are not about a repository.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        self.trusted(Config::load(&self.options, &self.host, None)?)
    }

    /// Settings that no agent can have changed: they decide what runs on this machine.
    fn trusted(&self, config: Config) -> anyhow::Result<Config> {
        let path = Config::path(&self.options, &self.host);
        let written = Written::load(&self.host);
        let why = match written.follow(&path) {
            Err(astray) => astray.to_string(),
            Ok(real) => match written.holds(&real).filter(|_| real.exists()) {
                None => return Ok(config),
                Some(dir) => {
                    format!(
                        "the settings `{}` lie in `{}`, where agents can write",
                        path.display(),
                        dir.display()
                    )
                }
            },
        };
        if Written::knows_settings(&self.host, &path, &config.digest) {
            return Ok(config);
        }
        Err(Hinted::error(
            format!("{why}, and are not what they were when the session there began"),
            "look at them, and keep them in a place of their own, such as `~/.config/pi/config.toml`",
        ))
    }

    /// The docker program for a session of this repository.
    pub(crate) fn docker(&self, prepared: &Prepared) -> anyhow::Result<Docker> {
        let Workspace { root, git_dirs, .. } = &prepared.workspace;
        let own = std::iter::once(root).chain(git_dirs).map(PathBuf::as_path);
        let written = Written::load(&self.host).and(own).and_around(&self.host);
        Docker::find(&prepared.config.docker, &self.host, &written)
    }

    /// Looks at the repository and decides what its session is made from.
    pub(crate) fn prepare(&self) -> anyhow::Result<Prepared> {
        self.host.engine.check()?;
        let workspace = Workspace::find(&self.host)?;
        let config = self.trusted(Config::load(&self.options, &self.host, Some(&workspace.root))?)?;
        let (who, warning) = facts::who(&self.host, &workspace);
        let facts = Facts::gather(&config, &self.host, &workspace, who)?;
        for warning in workspace.warnings.iter().chain(&warning).chain(&facts.warnings) {
            report::warn(warning);
        }
        for name in config.env.iter().filter(|text| !text.contains('=')) {
            if agent::unfit(name).is_none() && !self.host.env.contains_key(OsStr::new(name)) {
                report::warn(format_args!("`{name}` is not set here, so the agent does not have it"));
            }
        }
        let (variant, chosen_by) = config.lang.variant(&workspace.cwd, &workspace.root);
        if let Some(file) = chosen_by {
            report::note(format_args!("using the {} image, because there is a `{file}`", variant.name()));
        }
        let ca = image::certificates(&config.images)?;
        let image = Image::agent(variant, &config.images, &config.packages, who, &ca);
        let proxy = Image::proxy(&config.images, &ca);
        let (sources, reach) = self.reach(&config, &proxy)?;
        Ok(Prepared { workspace, config, facts, who, image, proxy, ca, sources, reach })
    }

    fn reach(&self, config: &Config, proxy: &Image) -> anyhow::Result<(Option<Sources>, Reach)> {
        Ok(match config.network {
            Network::Open => (None, Reach::Open),
            Network::None => (None, Reach::None),
            Network::Proxy => {
                let mut sources = Sources::of(config);
                let list = sources.read(config.allowed_domains_is_default)?;
                for warning in list.warnings() {
                    report::warn(warning);
                }
                if !self.host.filters_sources {
                    // A fact of the machine, which nobody wants to read at each start.
                    let first =
                        self.options.dry_run.is_none() && is_first_time(&self.host, "told-of-rp-filter");
                    let tell = if first { report::warn } else { report::detail };
                    tell(
                        "rp_filter is 0 on this machine: an agent can send single UDP datagrams to its listeners, without \
                         an answer; `sysctl net.ipv4.conf.all.rp_filter=2` closes that",
                    );
                }
                let egress::Rendered { conf, filter, lan, closed } = egress::render(&list, &self.host)?;
                (
                    Some(sources),
                    Reach::Proxy(ProxyFiles { conf, filter, lan, closed, image: proxy.tag().to_owned() }),
                )
            }
        })
    }

    /// Plans a session.
    pub(crate) fn plan(
        &self,
        prepared: &Prepared,
        id: &SessionId,
        program: &Program,
        attempt: u32,
    ) -> anyhow::Result<Plan> {
        let Prepared { workspace, config, facts, who, image, sources, reach, .. } = prepared;
        let mut plan = Plan::new(Inputs {
            id,
            config,
            host: &self.host,
            workspace,
            facts,
            who: *who,
            image: image.tag(),
            program,
            reach,
            subnet: Subnet::choose(id, attempt, &self.host),
            now: session::seconds(SystemTime::now()),
        })?;
        plan.record.allowlist.clone_from(sources);
        Ok(plan)
    }

    /// Runs a session from beginning to end.
    pub(crate) fn run(&self, prepared: &Prepared, program: &Program) -> anyhow::Result<u8> {
        self.run_session(prepared, program, None)
    }

    /// The same, keeping what the agent prints.
    pub(crate) fn run_capturing(
        &self,
        prepared: &Prepared,
        program: &Program,
        into: &Mutex<Vec<u8>>,
    ) -> anyhow::Result<u8> {
        self.run_session(prepared, program, Some(into))
    }

    fn run_session(
        &self,
        prepared: &Prepared,
        program: &Program,
        capture: Option<&Mutex<Vec<u8>>>,
    ) -> anyhow::Result<u8> {
        let docker = self.docker(prepared)?;
        if self.options.build {
            self.build_everything(prepared, &docker)?;
        }
        self.signals.check()?;
        let id = SessionId::random()?;
        let plan = self.plan(prepared, &id, program, 0)?;
        // The repository of a demonstration does not last.
        if !prepared.workspace.root.starts_with(self.host.cache_dir()) {
            let writable = plan.agent.mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
            let settings = Config::path(&self.options, &self.host);
            Written::remember(
                &self.host,
                writable.filter_map(Mount::path),
                &settings,
                &prepared.config.digest,
            )?;
        }
        if let Some(sources) = &prepared.sources {
            sources.provide_file(&prepared.config)?;
        }
        let builder = self.builder(prepared, &docker);
        let needs = Needs {
            host: &self.host,
            docker: &docker,
            signals: &self.signals,
            replan: &|attempt| self.plan(prepared, &id, program, attempt),
            agent_image: &|| builder.ensure(&prepared.image, Effort::Missing),
            sidecar_image: &|| builder.ensure(&prepared.proxy, Effort::Missing),
            naming: match self.options.session_name {
                Some(_) => Naming::Chosen,
                None => Naming::Repository,
            },
            capture,
        };
        std::thread::scope(|scope| {
            scope.spawn(|| sweep::sweep(&self.host, &docker));
            session::run(&needs, plan)
        })
    }

    /// Builds every variant and the sidecar's image, on the newest bases there are.
    pub(crate) fn build_everything(&self, prepared: &Prepared, docker: &Docker) -> anyhow::Result<()> {
        let builder = self.builder(prepared, docker);
        let Prepared { config, who, ca, proxy, .. } = prepared;
        for variant in Variant::ALL {
            let image = Image::agent(variant, &config.images, &config.packages, *who, ca);
            builder.ensure(&image, Effort::Everything)?;
        }
        builder.ensure(proxy, Effort::Everything).map(drop)
    }

    /// A builder for this machine.
    pub(crate) fn builder<'a>(&'a self, prepared: &'a Prepared, docker: &'a Docker) -> Builder<'a> {
        Builder {
            docker,
            host: &self.host,
            images: &prepared.config.images,
            ca: &prepared.ca,
            signals: &self.signals,
        }
    }
}

/// Whether this was never asked before on this machine, which is remembered; also where it cannot be.
fn is_first_time(host: &Host, what: &str) -> bool {
    let dir = host.state_dir();
    let path = dir.join(what);
    !path.exists() && {
        let _ = session::private_dir(&dir).map(|()| fs::File::create_new(&path));
        true
    }
}
