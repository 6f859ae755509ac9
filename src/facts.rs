//! What of the host goes into a session, as far as it has to be looked at: reads files, changes nothing, decides little.

mod git;
mod hidden;
mod house;
mod mount;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::fs::StatVfsMountFlags;

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
    files::Identity,
    host::{EngineKind, Host, Owner},
    inside,
    keys::{self, Commands, Keys},
    models::Ours,
    purpose::Purpose,
    report::{Finding, Hinted, quote},
    secret::{Secret, Value},
    workspace::Workspace,
    written::{Written, real},
};

use self::{
    git::identity,
    mount::{
        check_no_link_on_the_way, check_nothing_below, check_source, check_target, guard_settings, mount,
    },
};
pub(crate) use self::{
    hidden::Hidden,
    house::{House, Rules},
    mount::Bind,
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
            found.unwrap_or_else(|finding| {
                findings.push(finding);
                None
            })
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

/// Where the finders look.
struct Look<'a> {
    config: &'a Config,
    host: &'a Host,
    workspace: &'a Workspace,
    written: &'a Written,
    agent_dir: &'a Path,
}

impl Look<'_> {
    /// What the user asked to have mounted.
    fn binds(&self) -> anyhow::Result<Vec<Bind>> {
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
    fn repository(&self, binds: &[Bind]) -> anyhow::Result<()> {
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
    fn writable(&self, binds: &[Bind]) -> anyhow::Result<Vec<PathBuf>> {
        let asked = binds.iter().filter(|bind| bind.access == Access::ReadWrite);
        let writable: Vec<PathBuf> =
            self.workspace.dirs().map(Path::to_owned).chain(asked.map(|bind| bind.source.clone())).collect();
        guard_settings(&writable, self.host, self.agent_dir)?;
        Ok(writable)
    }

    /// The keys, and where each is.
    fn keys(
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
    fn layout(&self, live: &Live, keys: &Keys, purpose: Purpose) -> anyhow::Result<Layout> {
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

    fn allowlist(&self, writable: &[PathBuf]) -> Option<Finding> {
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
    fn of_home(&self, path: &str) -> Result<Option<PathBuf>, Finding> {
        match self.written.follow(&self.host.home.join(path)) {
            Ok(real) => Ok(Some(real).filter(|real| real.is_dir())),
            Err(astray) => Err(Finding::plain(format!("{astray}: the agent does not have `~/{path}`"))),
        }
    }

    /// Files that variables name.
    fn credentials(&self, keys: &Keys) -> anyhow::Result<(Credentials, Vec<Finding>)> {
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

type Credentials = Vec<(&'static str, PathBuf)>;

fn writable_skills(skills: &Path, writable: &[PathBuf]) -> Option<Finding> {
    let holder = writable.iter().find(|dir| skills.starts_with(dir))?;
    Some(Finding::plain(format!(
        "`{}` lies in `{}`, which the agent can write: what it changes there is loaded by other sessions",
        skills.display(),
        holder.display()
    )))
}

/// Who the agent is inside its container, and what to say about it.
pub(crate) fn who(host: &Host, workspace: &Workspace) -> (Owner, Option<Finding>) {
    if host.engine.kind == EngineKind::Rootless {
        // In such an engine's containers this is the user.
        return (Owner { uid: 0, gid: 0 }, None);
    }
    if host.uid != 0 {
        return (Owner { uid: host.uid, gid: host.gid }, None);
    }
    if workspace.owner.uid != 0 {
        return (workspace.owner, None);
    }
    let warning =
        "you are root and so is the owner of this directory: the agent runs as root without any capability";
    (Owner { uid: 0, gid: 0 }, Some(Finding::plain(warning)))
}

/// Why the agent cannot write in the repository, if it cannot.
pub(crate) fn unwritable(root: &Path, who: Owner, host: &Host) -> Option<Finding> {
    let meta = fs::metadata(root).ok()?;
    let is_read_only =
        rustix::fs::statvfs(root).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    let shown = root.display();
    if is_read_only {
        return Some(Finding::hinted(
            format!("the file system of `{shown}` is read-only: the agent can change nothing"),
            "work in a clone on another file system",
        ));
    }
    // In a container of a rootless engine, root is the user.
    let uid = if host.engine.kind == EngineKind::Rootless { host.uid } else { who.uid };
    let shift = match () {
        () if meta.uid() == uid => 6,
        () if meta.gid() == who.gid => 3,
        () => 0,
    };
    // Even root has no capability inside.
    (meta.mode() >> shift & 0o3 != 0o3).then(|| {
        Finding::hinted(
            format!("`{shown}` cannot be written by the user with the number {uid}, as whom the agent runs"),
            format!(
                "`ls -ld {}` shows whose it is; work in a clone of your own",
                quote(&root.to_string_lossy())
            ),
        )
    })
}

/// Root's own directory could not be written by the owner of the repository, so that owner gets one beside it.
pub(crate) fn agent_dir(host: &Host, who: Owner) -> (PathBuf, Option<Finding>) {
    let dir = host.agent_dir();
    if host.uid != 0 || who.uid == 0 {
        return (dir, None);
    }
    match fs::metadata(&dir) {
        Ok(meta) if meta.uid() != who.uid => {
            let mut name = dir.file_name().unwrap_or_default().to_owned();
            name.push(format!("-{}", who.uid));
            let other = dir.with_file_name(name);
            let note = format!(
                "`{}` belongs to another user than this repository; logins and sessions are kept in `{}`",
                dir.display(),
                other.display()
            );
            (other, Some(Finding::plain(note)))
        }
        _ => (dir, None),
    }
}

/// What an enforcing `SELinux` needs before a container may touch the repository; we relabel nothing unasked.
fn selinux(root: &Path) -> Option<Finding> {
    if fs::read_to_string("/sys/fs/selinux/enforce").ok()?.trim() != "1" {
        return None;
    }
    let mut label = [0u8; 256];
    let length = rustix::fs::getxattr(root, "security.selinux", &mut label).ok()?;
    let label = String::from_utf8_lossy(&label[..length]).into_owned();
    (!label.contains("container_file_t")).then(|| {
        Finding::hinted(
            format!("SELinux will keep the agent out of `{}`", root.display()),
            format!("`chcon -Rt container_file_t {}` lets it in", quote(&root.to_string_lossy())),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_repository_that_the_agent_cannot_write_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let meta = fs::metadata(dir.path()).unwrap();
        let host = Host::for_tests();
        let said = |mode: u32, uid: u32, gid: u32| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            unwritable(dir.path(), Owner { uid, gid }, &host).is_some()
        };
        let (uid, gid) = (meta.uid(), meta.gid());
        assert!(!said(0o755, uid, gid) && said(0o555, uid, gid));
        assert!(!said(0o775, uid + 1, gid) && said(0o755, uid + 1, gid));
        assert!(!said(0o777, uid + 1, gid + 1) && said(0o775, uid + 1, gid + 1));
    }

    #[test]
    fn the_agent_is_the_user_or_the_owner_but_root_only_where_there_is_nobody_else() {
        let workspace = |uid| Workspace {
            root: "/r".into(),
            cwd: "/r".into(),
            git_dirs: vec![],
            git_config: None,
            alternates: vec![],
            identity: Identity { device: 1, inode: 2 },
            owner: Owner { uid, gid: uid },
            findings: vec![],
        };
        let host = |uid, kind| {
            let mut host = Host { uid, gid: uid, ..Host::for_tests() };
            host.engine.kind = kind;
            host
        };
        let who = |host: Host, owner| who(&host, &workspace(owner)).0.uid;
        assert_eq!(who(host(1000, EngineKind::Rootful), 0), 1000);
        assert_eq!(who(host(0, EngineKind::Rootful), 1000), 1000);
        assert_eq!(who(host(0, EngineKind::Rootful), 0), 0);
        assert_eq!(who(host(1000, EngineKind::Rootless), 1000), 0);
    }
}
