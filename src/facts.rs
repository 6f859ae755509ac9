//! What of the host goes into a session, as far as it has to be looked at: reads files, changes nothing, decides little.

mod git;
mod hidden;
mod house;
mod look;
mod mount;
mod who;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;

use self::{
    git::identity,
    look::{Look, writable_skills},
    mount::check_nothing_below,
    who::selinux,
};
pub(crate) use self::{
    hidden::Hidden,
    house::{House, Rules},
    who::{agent_dir, unwritable, who},
};
use crate::{
    agent,
    agent_dir::{layout::Layout, live::Live},
    broker::github::GitHub,
    config::Config,
    files::Identity,
    git::private::Bind,
    host::{Host, Owner},
    keys::{Commands, Keys},
    purpose::Purpose,
    report::{Finding, Hinted},
    workspace::Workspace,
    written::Written,
};

/// What was found on the host for one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The agent's directory on the host.
    pub(crate) agent_dir: PathBuf,
    /// What the session gets of it.
    pub(crate) layout: Layout,
    pub(crate) keys: Keys,
    /// `~/.agents/skills`, where it exists.
    pub(crate) skills: Option<PathBuf>,
    /// `~/.config/acli`, where it exists.
    pub(crate) acli: Option<PathBuf>,
    /// What the user asked for besides, checked.
    pub(crate) binds: Vec<Bind>,
    /// Files that variables such as `GOOGLE_APPLICATION_CREDENTIALS` name: the variable and the file.
    pub(crate) credentials: Vec<(&'static str, PathBuf)>,
    pub(crate) house: House,
    /// `user.name` and `user.email` for git, where the repository has none of its own.
    pub(crate) identity: Vec<(String, String)>,
    /// What of the repository the session must not see.
    pub(crate) hidden: Vec<Hidden>,
    /// What each of these was when it was looked at.
    pub(crate) identities: BTreeMap<PathBuf, Identity>,
    /// What the user should know.
    pub(crate) findings: Vec<Finding>,
}

impl Facts {
    /// Looks at everything.
    ///
    /// # Errors
    /// A mount's source is missing, is or holds an engine's socket, or is reached through a link that an agent may have
    /// made; what decides about sessions could be written in this one.
    pub(crate) fn gather(
        config: &Config,
        host: &Host,
        workspace: &Workspace,
        who: Owner,
        purpose: Purpose,
        commands: Commands,
        github: Option<&GitHub>,
    ) -> anyhow::Result<Self> {
        let written = Written::load(host).and(workspace.dirs()).and_around(host);
        let mut findings = Vec::new();
        let (agent_dir, note) = agent_dir(host, who);
        findings.extend(note);
        // Mounted by the name that is looked at.
        let agent_dir = written.follow(&agent_dir).map_err(|astray| {
            Hinted::error(astray.to_string(), "`~/.pi/agent` must not depend on it; remove the link")
        })?;
        let look = Look { config, host, workspace, written: &written, agent_dir: &agent_dir };
        let binds = look.binds()?;
        look.repository(&binds)?;
        let writable = look.writable(&binds)?;
        let live = Live::look(&agent_dir)?;
        let keys = look.keys(&live, purpose, commands, github)?;
        let (credentials, lost) = look.credentials(&keys)?;
        let layout = look.layout(&live, &keys, purpose)?;
        findings.extend(lost);
        findings.extend(selinux(&workspace.root));
        findings.extend(look.allowlist(&writable));
        let wanted = |what: bool, path| if what { look.of_home(path) } else { Ok(None) };
        let mut optional = |found: Result<Option<PathBuf>, Finding>| {
            found.map_err(|finding| findings.push(finding)).unwrap_or_default()
        };
        let skills = optional(wanted(!purpose.is_bare(), ".agents/skills"));
        let acli = optional(wanted(config.acli.is_some(), ".config/acli"));
        findings.extend(skills.as_deref().and_then(|skills| writable_skills(skills, &writable)));
        let house = if purpose == Purpose::Work {
            let has_own = layout.read.iter().any(|read| agent::INSTRUCTIONS.contains(&read.name.as_str()));
            let (house, lost) = look.house(has_own);
            findings.extend(lost);
            house
        } else {
            House::default()
        };
        Self {
            layout,
            keys,
            skills,
            acli,
            binds,
            credentials,
            house,
            identity: identity(host, workspace, &written)?,
            hidden: vec![],
            identities: BTreeMap::new(),
            findings,
            agent_dir: agent_dir.clone(),
        }
        .identified(workspace)
    }

    /// Looks for what a session that has the repository must not see of it.
    ///
    /// # Errors
    /// It cannot be hidden.
    pub(crate) fn hiding(
        mut self,
        config: &Config,
        workspace: &Workspace,
        who: Owner,
    ) -> anyhow::Result<Self> {
        if let Some(hide) = &config.hide {
            self.hidden = hidden::hidden(&workspace.root, hide, who, &self.binds)?;
        }
        Ok(self.hinting(config, workspace))
    }

    /// Looks for files that the user may want to hide, where the user has not decided.
    pub(crate) fn hinting(mut self, config: &Config, workspace: &Workspace) -> Self {
        if config.hide.is_none() {
            self.layout.notices.extend(hidden::hint(&workspace.root));
        }
        self
    }

    /// Looks at what everything that will be mounted is, so that the gate can see from inside whether it still was that
    /// when the engine mounted it.
    fn identified(mut self, workspace: &Workspace) -> anyhow::Result<Self> {
        let read = self.layout.read.iter().map(|read| self.agent_dir.join(&read.name));
        for path in read.chain(self.skills.clone()).chain(self.house.paths()) {
            check_nothing_below(&path)?;
        }
        let others =
            self.credentials.iter().map(|(_, path)| path).chain(&self.acli).chain(&workspace.git_dirs);
        let binds = self.binds.iter().map(|bind| &bind.source);
        let paths = self.skills.iter().chain(others).chain(binds).cloned().chain(self.house.paths());
        let paths: Vec<PathBuf> = paths.collect();
        for path in paths {
            let identity = Identity::at(&path).with_context(|| {
                format!("`{}` was exchanged for something else at this moment; try again", path.display())
            })?;
            self.identities.insert(path, identity);
        }
        self.identities.insert(workspace.root.clone(), workspace.identity);
        Ok(self)
    }
}
