//! The finders: what single parts of the host are, for one session.

use std::path::{Path, PathBuf};

use super::mount::{check_no_link_on_the_way, check_source, check_target, guard_settings, mount};
use crate::{
    agent,
    agent_dir::{
        entry::{LOGINS, MODELS},
        layout::{self, Layout, OtherLogins},
        live::Live,
        settings::Scope,
        take_back,
    },
    broker::github::GitHub,
    config::{Access, Config, Network, OpenUrls},
    git::private::Bind,
    host::Host,
    inside,
    keys::{self, Commands, Keys},
    models::Ours,
    purpose::Purpose,
    report::{Finding, Hinted, quote},
    secret::{Secret, Value},
    workspace::Workspace,
    written::{Written, real},
};

/// Where the finders look.
pub(super) struct Look<'a> {
    pub(super) config: &'a Config,
    pub(super) host: &'a Host,
    pub(super) workspace: &'a Workspace,
    pub(super) written: &'a Written,
    pub(super) agent_dir: &'a Path,
}

impl Look<'_> {
    /// What the user asked to have mounted.
    pub(super) fn binds(&self) -> anyhow::Result<Vec<Bind>> {
        let binds: Vec<Bind> = self
            .config
            .mounts
            .iter()
            .map(|spec| mount(spec, self.host, self.written))
            .collect::<anyhow::Result<_>>()?;
        let writable = binds.iter().filter(|bind| bind.access == Access::ReadWrite);
        let holders: Vec<_> = writable.map(|bind| (bind.source.as_path(), bind.target.as_path())).collect();
        let persist: Vec<(PathBuf, PathBuf)> = self
            .config
            .persist
            .iter()
            .map(|entry| (self.agent_dir.join(entry.name()), Path::new(inside::AGENT_DIR).join(entry.name())))
            .collect();
        for bind in &binds {
            let own = self.workspace.dirs().map(|dir| (dir, dir));
            let own = own.chain(persist.iter().map(|(source, target)| (source.as_path(), target.as_path())));
            check_no_link_on_the_way(&bind.target, own.chain(holders.iter().copied()))?;
        }
        Ok(binds)
    }

    /// The repository's own directories, and object stores that it borrows from.
    pub(super) fn repository(&self, binds: &[Bind]) -> anyhow::Result<()> {
        for path in self.workspace.dirs() {
            check_source(path, self.host)?;
            check_target(path)?;
        }
        let is_mounted = |store: &&PathBuf| binds.iter().any(|bind| store.starts_with(&bind.target));
        let mut stores = self.workspace.alternates.iter().filter(|store| !is_mounted(store));
        // The host's git copies what is borrowed.
        let Some(store) = stores.next().filter(|_| self.config.clone.is_none()) else { return Ok(()) };
        // The repository says this, so it is offered for copying only where it is what it claims to be.
        let is_store = store.join("pack").is_dir() && store.join("info").is_dir();
        let allow = format!("allow it with `--mount {}`, or ", quote(&format!("{}:ro", store.display())));
        Err(Hinted::error(
            format!("this repository borrows objects from `{}`, which is outside of it", store.display()),
            format!(
                "{}run `git repack -ad` in it and remove `info/alternates`",
                if is_store { allow.as_str() } else { "" }
            ),
        ))
    }

    /// What the agent can write; nothing that decides about its next session may be among it.
    pub(super) fn writable(&self, binds: &[Bind]) -> anyhow::Result<Vec<PathBuf>> {
        let asked = binds.iter().filter(|bind| bind.access == Access::ReadWrite);
        let writable: Vec<PathBuf> =
            self.workspace.dirs().map(Path::to_owned).chain(asked.map(|bind| bind.source.clone())).collect();
        guard_settings(&writable, self.host, self.agent_dir)?;
        Ok(writable)
    }

    /// The keys, and where each is.
    pub(super) fn keys(
        &self,
        live: &Live,
        purpose: Purpose,
        commands: Commands,
        github: Option<&GitHub>,
    ) -> anyhow::Result<Keys> {
        let text = |name: &str| live.texts.get(name).map(String::as_str);
        Keys::gather(&keys::Sources {
            config: self.config,
            host: self.host,
            written: self.written,
            auth: text(LOGINS),
            models: text(MODELS),
            servers: &Ours::load(self.host)?.servers,
            github,
            purpose,
            commands,
        })
    }

    /// What the session gets of the agent's directory.
    pub(super) fn layout(&self, live: &Live, keys: &Keys, purpose: Purpose) -> anyhow::Result<Layout> {
        let text = |text: &str| {
            if keys.has_some_inside {
                Value::Secret(Secret::new(text.into()))
            } else {
                Value::Plain(text.to_owned())
            }
        };
        let layout = Layout::new(&layout::Inputs {
            live,
            root: &self.workspace.root,
            cwd: &self.workspace.cwd,
            models: text(&keys.agent.models),
            logins: text(&keys.agent.auth),
            other_logins: if keys.gives_mcp() { OtherLogins::Inside } else { OtherLogins::Outside },
            persist: &self.config.persist,
            decisions: &take_back::decisions(&real(&self.host.state_dir()))?,
            scope: match purpose {
                Purpose::SetUp => Scope::SetUp,
                Purpose::Login | Purpose::Renew => Scope::Login,
                Purpose::Work | Purpose::Shell | Purpose::Demo | Purpose::Proof => Scope::Session,
            },
        });
        let opens =
            self.config.open_urls == OpenUrls::Ask && matches!(purpose, Purpose::Work | Purpose::Shell);
        let asks = purpose.is_login() && !keys.authorities.is_empty();
        let layout = if asks { layout.with_authorities(&keys.authorities) } else { layout };
        Ok(if opens { layout.that_opens() } else { layout })
    }

    pub(super) fn allowlist(&self, writable: &[PathBuf]) -> Option<Finding> {
        let list = &self.config.allowed_domains;
        let holder = writable.iter().find(|dir| list.starts_with(dir))?;
        (self.config.network == Network::Proxy && list.exists()).then(|| {
            Finding::plain(format!(
                "the allowlist `{}` lies in `{}`, which the agent can write: look at it before the next session",
                list.display(),
                holder.display()
            ))
        })
    }

    /// A directory of the user's home, where it exists.
    pub(super) fn of_home(&self, path: &str) -> Result<Option<PathBuf>, Finding> {
        match self.written.follow(&self.host.home.join(path)) {
            Ok(real) => Ok(Some(real).filter(|real| real.is_dir())),
            Err(astray) => Err(Finding::plain(format!("{astray}: the agent does not have `~/{path}`"))),
        }
    }

    /// Files that variables name.
    pub(super) fn credentials(&self, keys: &Keys) -> anyhow::Result<(Credentials, Vec<Finding>)> {
        let mut found = Vec::new();
        let mut lost = Vec::new();
        for &variable in agent::CREDENTIAL_PATHS.iter().filter(|variable| keys.gives(variable)) {
            let Some(value) = self.host.var(variable) else { continue };
            match self.written.follow(&self.host.expand(value)) {
                Err(astray) => lost.push(Finding::plain(format!(
                    "{astray}: the agent does not have what `{variable}` names"
                ))),
                Ok(path) if path.is_file() => {
                    check_source(&path, self.host)?;
                    found.push((variable, path));
                }
                Ok(_) => lost.push(Finding::plain(format!(
                    "`{variable}` names `{value}`, which is not a file: the agent does not have it"
                ))),
            }
        }
        Ok((found, lost))
    }
}

pub(super) type Credentials = Vec<(&'static str, PathBuf)>;

pub(super) fn writable_skills(skills: &Path, writable: &[PathBuf]) -> Option<Finding> {
    let holder = writable.iter().find(|dir| skills.starts_with(dir))?;
    Some(Finding::plain(format!(
        "`{}` lies in `{}`, which the agent can write: what it changes there is loaded by other sessions",
        skills.display(),
        holder.display()
    )))
}
