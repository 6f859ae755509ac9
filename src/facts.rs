//! What of the host goes into a session, as far as it has to be looked at: reads files, changes nothing, decides little.

mod git;
mod mount;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{
    agent,
    config::{AgentDir, Config, Network},
    docker::{Access, Mount, quote},
    files::Identity,
    host::{EngineKind, Host, Owner},
    report::Hinted,
    workspace::Workspace,
    written::Written,
};

use self::{
    git::identity,
    mount::{check_no_link_on_the_way, check_source, check_target, guard_settings, mount, mounted_below},
};

/// What was found on the host for one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The agent's directory on the host.
    pub(crate) agent_dir: PathBuf,
    /// What stands in it.
    pub(crate) agent_entries: Vec<AgentEntry>,
    /// `~/.agents/skills`, where it exists.
    pub(crate) skills: Option<PathBuf>,
    /// `~/.config/acli`, where it exists.
    pub(crate) acli: Option<PathBuf>,
    /// What the user asked for besides, checked.
    pub(crate) mounts: Vec<Mount>,
    /// Files that variables such as `GOOGLE_APPLICATION_CREDENTIALS` name: the variable and the file.
    pub(crate) credentials: Vec<(&'static str, PathBuf)>,
    /// `user.name` and `user.email` for git, where the repository has none of its own.
    pub(crate) identity: Vec<(String, String)>,
    /// What each of these was when it was looked at.
    pub(crate) identities: BTreeMap<PathBuf, Identity>,
    /// What the user should know, a sentence each.
    pub(crate) warnings: Vec<String>,
}

/// One entry of the agent's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentEntry {
    pub(crate) name: String,
    pub(crate) real: PathBuf,
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
    ) -> anyhow::Result<Self> {
        let mut warnings = Vec::new();
        let workspace_dirs =
            || std::iter::once(&workspace.root).chain(&workspace.git_dirs).map(PathBuf::as_path);
        let written = Written::load(host).and(workspace_dirs()).and_around(host);
        let (agent_dir, note) = agent_dir(host, who);
        warnings.extend(note);
        // Mounted by the name that is looked at.
        let agent_dir = written.follow(&agent_dir).map_err(|astray| {
            Hinted::error(astray.to_string(), "`~/.pi/agent` must not depend on it; remove the link")
        })?;
        let mut mounts: Vec<Mount> = Vec::new();
        for spec in &config.mounts {
            mounts.push(mount(spec, host, &written)?);
        }
        for mount in &mounts {
            let writable = mounts.iter().filter(|other| other.access == Access::ReadWrite);
            let holders = writable.filter_map(|other| Some((other.path()?, other.target.as_path())));
            // Guarded, the agent's directory has no links of the host's in it.
            let shared = (config.agent_dir == AgentDir::Shared)
                .then(|| (agent_dir.as_path(), Path::new("/home/pi/.pi/agent")));
            let own = workspace_dirs().map(|dir| (dir, dir)).chain(shared);
            check_no_link_on_the_way(&mount.target, own.chain(holders))?;
        }
        for path in std::iter::once(&workspace.root).chain(&workspace.git_dirs) {
            check_source(path, host)?;
            check_target(path)?;
        }
        for store in &workspace.alternates {
            let covered = mounts.iter().any(|mount| store.starts_with(&mount.target));
            if !covered {
                // The repository says this, so it is offered for copying only where it is what it claims to be.
                let is_store = store.join("pack").is_dir() && store.join("info").is_dir();
                let allow =
                    format!("allow it with `--mount {}`, or ", quote(&format!("{}:ro", store.display())));
                return Err(Hinted::error(
                    format!(
                        "this repository borrows objects from `{}`, which is outside of it",
                        store.display()
                    ),
                    format!(
                        "{}run `git repack -ad` in it and remove `info/alternates`",
                        if is_store { allow.as_str() } else { "" }
                    ),
                ));
            }
        }
        let (credentials, lost) = credentials(host, &written)?;
        warnings.extend(lost);
        warnings.extend(selinux(&workspace.root));
        let mut writable: Vec<&Path> = vec![&workspace.root];
        writable.extend(workspace.git_dirs.iter().map(PathBuf::as_path));
        writable
            .extend(mounts.iter().filter(|mount| mount.access == Access::ReadWrite).filter_map(Mount::path));
        guard_settings(&writable, host, &agent_dir)?;
        if config.network == Network::Proxy
            && let Some(holds) = writable.iter().find(|dir| config.allowed_domains.starts_with(dir))
        {
            warnings.push(format!(
                "the allowlist `{}` lies in `{}`, which the agent can write: look at it before the next session",
                config.allowed_domains.display(),
                holds.display()
            ));
        }
        let (agent_entries, links) = entries(&agent_dir)?;
        warnings.extend(links);
        let mut existing = |path: &str| match written.follow(&host.home.join(path)) {
            Ok(real) => Some(real).filter(|real| real.is_dir()),
            Err(astray) => {
                warnings.push(format!("{astray}: the agent does not have `~/{path}`"));
                None
            }
        };
        let skills = existing(".agents/skills");
        // A credential: only for those who have the program in the image.
        let acli = if config.images.acli { existing(".config/acli") } else { None };
        if let Some((skills, dir)) = skills
            .as_ref()
            .and_then(|skills| Some((skills, writable.iter().find(|dir| skills.starts_with(dir))?)))
        {
            warnings.push(format!(
                "`{}` lies in `{}`, which the agent can write: what it changes there is loaded by other sessions",
                skills.display(),
                dir.display()
            ));
        }
        Self {
            agent_entries,
            agent_dir,
            skills,
            acli,
            mounts,
            credentials,
            identity: identity(host, workspace, &written)?,
            identities: BTreeMap::new(),
            warnings,
        }
        .identified(workspace)
    }

    /// Looks at what everything that will be mounted is, so that the gate can see from inside whether it still was that
    /// when the engine mounted it.
    fn identified(mut self, workspace: &Workspace) -> anyhow::Result<Self> {
        let read_only = self.agent_entries.iter().map(|entry| &entry.real).chain(&self.skills);
        for path in read_only.clone() {
            if let Some(below) = mounted_below(path) {
                bail!(
                    "could not mount `{}` read-only: `{}` is a mount below it, which old engines would leave writable",
                    path.display(),
                    below.display()
                );
            }
        }
        let others =
            self.credentials.iter().map(|(_, path)| path).chain(&self.acli).chain(&workspace.git_dirs);
        let mounts = self.mounts.iter().filter_map(Mount::path);
        let paths: Vec<PathBuf> =
            read_only.chain(others).cloned().chain(mounts.map(Path::to_owned)).collect();
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

/// Who the agent is inside its container, and what to say about it.
pub(crate) fn who(host: &Host, workspace: &Workspace) -> (Owner, Option<String>) {
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
    (Owner { uid: 0, gid: 0 }, Some(warning.to_owned()))
}

/// Root's own directory could not be written by the owner of the repository, so that owner gets one beside it.
fn agent_dir(host: &Host, who: Owner) -> (PathBuf, Option<String>) {
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
            (other, Some(note))
        }
        _ => (dir, None),
    }
}

/// What stands in the agent's directory. A link out of it is not followed: what `pi install` runs can write there, and a
/// link to `~/.ssh` would have the next session mount that.
fn entries(dir: &Path) -> anyhow::Result<(Vec<AgentEntry>, Vec<String>)> {
    let mut found = Vec::new();
    let mut warnings = Vec::new();
    let (Ok(list), Ok(home)) = (fs::read_dir(dir), fs::canonicalize(dir)) else {
        return Ok((found, warnings));
    };
    for entry in list {
        let entry = entry.with_context(|| format!("could not read `{}`", dir.display()))?;
        // What is not UTF-8, or a link to nowhere, the agent has no use for.
        let (Some(name), Ok(real)) =
            (entry.file_name().to_str().map(str::to_owned), fs::canonicalize(entry.path()))
        else {
            continue;
        };
        if real.starts_with(&home) {
            found.push(AgentEntry { name, real });
        } else if matches!(name.as_str(), "auth.json" | "mcp-auth.json" | "sessions") {
            return Err(Hinted::error(
                format!(
                    "`{}` is a link to `{}`, outside of the agent's directory",
                    entry.path().display(),
                    real.display()
                ),
                "put the real thing there: what it points to would be writable for the agent",
            ));
        } else {
            warnings.push(format!(
                "`{0}` is a link out of the agent's directory, so the agent does not have it; `mounts = \
                 [\"{1}:/home/pi/.pi/agent/{name}:ro\"]` in the config gives it",
                entry.path().display(),
                real.display()
            ));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((found, warnings))
}

/// What an enforcing `SELinux` needs before a container may touch the repository; we relabel nothing unasked.
fn selinux(root: &Path) -> Option<String> {
    if fs::read_to_string("/sys/fs/selinux/enforce").ok()?.trim() != "1" {
        return None;
    }
    let mut label = [0u8; 256];
    let length = rustix::fs::getxattr(root, "security.selinux", &mut label).ok()?;
    let label = String::from_utf8_lossy(&label[..length]).into_owned();
    (!label.contains("container_file_t")).then(|| {
        format!(
            "SELinux will keep the agent out of `{0}`; `chcon -Rt container_file_t {0}` lets it in",
            root.display()
        )
    })
}

type Credentials = Vec<(&'static str, PathBuf)>;

fn credentials(host: &Host, written: &Written) -> anyhow::Result<(Credentials, Vec<String>)> {
    let mut found = Vec::new();
    let mut lost = Vec::new();
    for &variable in agent::CREDENTIAL_PATHS {
        let Some(value) = host.var(variable) else { continue };
        match written.follow(&host.expand(value)) {
            Err(astray) => lost.push(format!("{astray}: the agent does not have what `{variable}` names")),
            Ok(path) if path.is_file() => {
                check_source(&path, host)?;
                found.push((variable, path));
            }
            Ok(_) => lost.push(format!(
                "`{variable}` names `{value}`, which is not a file: the agent does not have it"
            )),
        }
    }
    Ok((found, lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_out_of_the_agents_directory_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        fs::create_dir_all(agent.join("skills")).unwrap();
        fs::create_dir_all(dir.path().join("ssh")).unwrap();
        std::os::unix::fs::symlink("../ssh", agent.join("themes")).unwrap();
        let (found, warnings) = entries(&agent).unwrap();
        assert_eq!(found.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["skills"]);
        assert_eq!(warnings.len(), 1);
        std::os::unix::fs::symlink("../ssh", agent.join("sessions")).unwrap();
        assert!(entries(&agent).is_err());
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
            warnings: vec![],
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
