//! The common start of all verbs: the options, the machine, the settings, the engine.

mod again;
mod apart;
mod build;
mod carry;
pub(crate) mod cloning;
mod git;
pub(crate) mod inspect;
pub(crate) mod place;
mod renew;
mod usable;

use std::{
    ffi::OsStr,
    fs,
    time::{Duration, SystemTime},
};

pub(crate) use self::apart::Candidate;
use self::cloning::Cloning;
use crate::{
    agent,
    agent_dir::{notice::Notice, take_back::untold},
    broker::Broker,
    cli::Options,
    config::{COPY, Config, Network},
    docker::Docker,
    egress::{self, Sources},
    facts::{self, Facts},
    files::private_dir,
    git::given::Given,
    github,
    host::{Host, Owner, seconds},
    image::{self, Image, known::Known},
    keys::Commands,
    lang::{Choice, Variant},
    plan::{Choices, Inputs, Plan, Reach},
    purpose::{Program, Purpose},
    record::{self, Naming, SessionId},
    report::{self, Finding, Hinted},
    signals::Signals,
    workspace::Workspace,
    written::{Written, real},
};

/// The options and the machine.
pub(crate) struct Launcher {
    pub(crate) options: Options,
    pub(crate) host: Host,
    pub(crate) signals: Signals,
    /// The machine with the engine that docker uses where nothing else is said.
    pub(crate) here: Host,
}

/// The decisions about a session before its plan.
pub(crate) struct Prepared {
    pub(crate) workspace: Workspace,
    pub(crate) config: Config,
    pub(crate) facts: Facts,
    pub(crate) who: Owner,
    /// The language whose caches outlive the session.
    pub(crate) caches: Option<&'static str>,
    pub(crate) program: Program,
    pub(crate) variant: Variant,
    /// The copy that it works on, with `--clone`.
    pub(crate) cloning: Option<Cloning>,
    pub(crate) image: Image,
    pub(crate) proxy: Image,
    pub(crate) ca: Vec<u8>,
    pub(crate) reach: Reach,
    /// How long a session that logs in may take.
    pub(crate) login_within: Option<Duration>,
}

impl Prepared {
    fn naming(&self) -> Naming {
        match &self.config.session_name {
            Some(name) => Naming::Chosen(name.clone()),
            None => match &self.config.clone {
                Some(name) if name != COPY => Naming::Repository(name.clone()),
                _ => Naming::Repository(self.workspace.name()),
            },
        }
    }

    /// The first choices. An image that is not built yet has its tag instead of its id.
    fn choices(&self, name: &str, host: &Host) -> Choices {
        let known = Known::of(host);
        let image = |image: &Image| known.id(image.tag()).unwrap_or_else(|| image.tag().to_owned());
        Choices {
            name: name.to_owned(),
            attempt: 0,
            agent_image: image(&self.image),
            sidecar_image: image(&self.proxy),
            started: seconds(SystemTime::now()),
            laid: None,
        }
    }
}

impl Launcher {
    /// Reads the machine, and listens for signals from now on.
    pub(crate) fn new(options: Options) -> anyhow::Result<Self> {
        let host = Host::read()?;
        Ok(Self { options, here: host.clone(), host, signals: Signals::watch()? })
    }

    /// The settings, for verbs without a repository.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        self.trusted(Config::load(&self.options, &self.host, None)?)
    }

    /// Refuses settings that an agent may have changed: they decide what runs on this machine.
    fn trusted(&self, config: Config) -> anyhow::Result<Config> {
        let path = Config::path(&self.options, &self.host);
        let written = Written::load(&self.host).and_around(&self.host);
        let why = match written.follow(&path) {
            Err(astray) => astray.to_string(),
            Ok(real) => match written.holds(&real).filter(|_| real.exists()) {
                None => return Ok(config),
                Some(dir) => format!(
                    "the settings file `{}` is in `{}`, where agents can write",
                    path.display(),
                    dir.display()
                ),
            },
        };
        Err(Hinted::error(why, "check it, and move it elsewhere, such as to `~/.config/pi/config.toml`"))
    }

    /// The docker program for a session of this repository.
    pub(crate) fn docker(&self, prepared: &Prepared) -> anyhow::Result<Docker> {
        let written = Written::load(&self.host).and(prepared.workspace.dirs()).and_around(&self.host);
        Docker::find(&prepared.config.docker, &self.host, &written)
    }

    /// Reads the repository, and decides everything about its session before the plan.
    pub(crate) fn prepare(&self, program: Program) -> anyhow::Result<Prepared> {
        self.host.engine.check()?;
        let purpose = program.purpose;
        let settle = |config: Config| match purpose {
            Purpose::Demo => config.for_demo(),
            Purpose::Proof => config.for_proof(),
            _ => config,
        };
        self.prepare_in(Workspace::find(&self.host)?, program, settle)
    }

    /// Decides everything about a session in this workspace before the plan, with these changes of the settings.
    pub(crate) fn prepare_in(
        &self,
        workspace: Workspace,
        program: Program,
        settle: impl FnOnce(Config) -> Config,
    ) -> anyhow::Result<Prepared> {
        self.host.engine.check()?;
        let config = self.trusted(Config::load(&self.options, &self.host, Some(&workspace.root))?)?;
        let config = settle(config);
        let is_apart = self.host.engine.is_apart();
        let config = if is_apart { self.apart(config, program.purpose)? } else { config };
        let (who, as_root) = facts::who(&self.host, &workspace);
        let commands = if self.options.dry_run.is_some() { Commands::Skip } else { Commands::Run };
        let github = self.github(&config, &workspace, program.purpose, commands)?;
        let purpose = program.purpose;
        let facts =
            Facts::gather(&config, &self.host, &workspace, who, purpose, commands, github.github.as_ref())?;
        let cloning = Cloning::of(&config, &self.host, &workspace, &program)?;
        let facts = match (&cloning, program.sees_the_repository()) {
            // Hidden files do not go into the copy.
            (Some(_), _) => facts.hinting(&config, &workspace),
            (None, true) => facts.hiding(&config, &workspace, who)?,
            (None, false) => facts,
        };
        let is_mounted = cloning.is_none() && matches!(program.purpose, Purpose::Work | Purpose::Shell);
        let unwritable = is_mounted.then(|| facts::unwritable(&workspace.root, who, &self.host)).flatten();
        let findings = workspace.findings.iter().chain(&facts.findings).chain(&unwritable);
        if program.purpose != Purpose::Renew {
            findings.for_each(Finding::warn);
        }
        if let Some(finding) =
            as_root.filter(|_| self.options.dry_run.is_some() || is_first_time(&self.host, "told-of-root"))
        {
            finding.warn();
        }
        if self.host.files < FEWEST_FILES {
            return Err(Hinted::error(
                format!("no session works with {} open files at most", self.host.files),
                format!("raise the limit with `ulimit -Hn`, to {FEWEST_FILES} or more"),
            ));
        }
        self.tell(&facts, github.notices)?;
        for name in config.env.iter().filter(|text| !text.contains('=')) {
            if agent::unfit(name).is_none() && !self.host.env.contains_key(OsStr::new(name)) {
                report::warn(format_args!("`{name}` is not set, so the agent does not get it"));
            }
        }
        let Choice { variant, by, finding } = config.lang.variant(&workspace.cwd, &workspace.root);
        finding.iter().for_each(Finding::warn);
        if let Some(file) = by {
            report::note(format_args!("using the {} image, because there is a `{file}`", variant.name()));
        }
        if config.disk.exceeds(&config.limits) {
            report::warn(
                "the agent's home is in memory, and `disk` is larger than `memory`: the memory ends first",
            );
        }
        let ca = image::certificates(&config.images)?;
        let image = Image::agent(variant, &config.images, &config.packages, who, &ca);
        let proxy = Image::proxy(&config.images, &ca);
        let reach = self.reach(&config, &facts)?;
        let caches = variant.caches(&workspace.cwd, &workspace.root);
        let login_within = None;
        let prepared = Prepared {
            workspace,
            config,
            facts,
            who,
            caches,
            program,
            variant,
            cloning,
            image,
            proxy,
            ca,
            reach,
            login_within,
        };
        if is_apart {
            prepared.keeps_keys_here()?;
        }
        Ok(prepared)
    }

    /// Tells what the session does not have of the agent's directory; most of it once on this machine.
    fn tell(&self, facts: &Facts, github: Vec<Notice>) -> anyhow::Result<()> {
        let notices = [facts.layout.notices.clone(), facts.keys.notices.clone(), github].concat();
        let fresh = match self.options.dry_run {
            Some(_) => notices,
            None => untold(notices, &real(&self.host.state_dir()))?,
        };
        fresh.iter().for_each(Notice::say);
        facts.keys.note.iter().for_each(report::note);
        Ok(())
    }

    /// The repositories on GitHub. On a terminal it may ask.
    fn github(
        &self,
        config: &Config,
        workspace: &Workspace,
        purpose: Purpose,
        commands: Commands,
    ) -> anyhow::Result<github::Found> {
        let asks = self.host.terminal.stdin && self.host.terminal.stderr && self.options.dry_run.is_none();
        let ask: &dyn Fn(&str) -> bool = &report::ask;
        let ask = asks.then_some(ask);
        let host = &self.host;
        github::find(&github::Sources { config, host, workspace, purpose, commands, ask })
    }

    fn reach(&self, config: &Config, facts: &Facts) -> anyhow::Result<Reach> {
        let mut sources = match config.network {
            Network::Open => return Ok(Reach::Open),
            Network::None => return Ok(Reach::None),
            Network::Demo => return Ok(Reach::Demo),
            Network::Proxy => Sources {
                brokered: facts.keys.broker.as_ref().map(Broker::hosts).unwrap_or_default(),
                ..Sources::of(config)
            },
        };
        let list = sources.read(config.allowed_domains_is_default)?;
        for warning in list.warnings() {
            report::warn(warning);
        }
        if !self.host.filters_sources && config.strict {
            return Err(Hinted::error(
                "rp_filter is 0 on this machine, so an agent could send single UDP datagrams to its listeners, and \
                 `strict` is set",
                "`sysctl net.ipv4.conf.all.rp_filter=2` prevents that, or set `strict = false`",
            ));
        }
        if !self.host.filters_sources {
            // Nobody wants to read about the machine at each start.
            let first = self.options.dry_run.is_none() && is_first_time(&self.host, "told-of-rp-filter");
            let tell = if first { report::warn } else { report::detail };
            tell(
                "rp_filter is 0 on this machine: an agent can send single UDP datagrams to its listeners, but gets \
                 no answer; `sysctl net.ipv4.conf.all.rp_filter=2` prevents that",
            );
        }
        Ok(Reach::Proxy(Box::new(egress::render(&list, &self.host, &sources.brokered)?), sources))
    }

    /// Plans a session.
    fn plan(
        &self,
        prepared: &Prepared,
        git: &Given,
        id: &SessionId,
        choices: &Choices,
    ) -> anyhow::Result<Plan> {
        let Prepared { workspace, config, facts, image, who, caches, program, reach, .. } = prepared;
        Plan::new(Inputs {
            id,
            choices,
            config,
            host: &self.host,
            workspace,
            facts,
            copy: prepared.cloning.as_ref().map(|cloning| &cloning.copied),
            git,
            image: image.tag(),
            who: *who,
            caches: *caches,
            program,
            reach,
            state: &record::directory(&self.host, id),
        })
    }

    /// Plans a session for a dry run.
    pub(crate) fn dry_plan(&self, prepared: &Prepared) -> anyhow::Result<Plan> {
        let (naming, id) = (prepared.naming(), SessionId::random()?);
        let git = git::given(self, prepared, &id)?;
        self.plan(prepared, &git, &id, &prepared.choices(naming.plain(), &self.host))
    }
}

/// With fewer open files, neither docker nor an agent works.
const FEWEST_FILES: u64 = 256;

/// True the first time on this machine, and whenever that cannot be recorded.
fn is_first_time(host: &Host, what: &str) -> bool {
    let dir = host.state_dir();
    let path = dir.join(what);
    !path.exists() && {
        let _ = private_dir(&dir).map(|()| fs::File::create_new(&path));
        true
    }
}
