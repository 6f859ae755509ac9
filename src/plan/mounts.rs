//! What of the host is inside the agent's container.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{Directory, File, HOME, Inputs, Keep, Program, Reach, Text};
use crate::{
    agent,
    config::{AgentDir, Config},
    docker::{Access, Mount, Source},
    facts::Facts,
    files::Identity,
    host::{Host, Owner, hex},
};

/// How much of the agent's directory can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AgentDirAccess {
    /// Login and sessions.
    Guarded,
    /// Everything, as the user's settings say.
    Shared,
    /// Everything, for a command that changes the agent's own set-up. There is no repository beside it, whose settings and
    /// extensions would run there as well.
    SetUp,
    /// The same for a command that names a path in the repository, which is there to be read.
    SetUpFromRepository,
}

impl AgentDirAccess {
    /// What the user types to change the agent's set-up must be able to change it.
    pub(super) fn of(config: &Config, program: &Program) -> Self {
        match program {
            Program::Agent(args) if agent::changes_its_setup(args, &config.images.agent_version) => {
                if agent::names_a_path(args) {
                    Self::SetUpFromRepository
                } else {
                    Self::SetUp
                }
            }
            _ if config.agent_dir == AgentDir::Shared => Self::Shared,
            _ => Self::Guarded,
        }
    }
}

/// What a session may write in a guarded directory: logins.
const LOGINS: [&str; 2] = ["auth.json", "mcp-auth.json"];

/// What stays outside: programs of another platform, scratch files and logs, caches that could steer other sessions
/// and are fetched again.
fn is_left_out(name: &str) -> bool {
    matches!(name, "bin" | "tmp" | "models-store.json" | "crashes.json" | "pi-debug.log")
        || Path::new(name).extension().is_some_and(|kind| kind == "lock")
        || name.starts_with("mcp.log")
}

pub(super) fn agent_mounts(
    facts: &Facts,
    access: AgentDirAccess,
    host: &Host,
    directories: &mut Vec<Directory>,
    files: &mut Vec<File>,
    owner: Option<Owner>,
) -> Vec<Mount> {
    let dir = &facts.agent_dir;
    let inside = Path::new(HOME).join(".pi/agent");
    let mut mounts = Vec::new();
    let sessions = dir.join("sessions");
    let mut needed = |path: PathBuf| directories.push(Directory { path, owner });
    needed(dir.clone());
    needed(sessions.clone());
    files.push(File {
        path: dir.join("auth.json"),
        text: Text::Plain("{}\n".to_owned()),
        keep: Keep::Existing,
        owner,
    });
    match access {
        AgentDirAccess::Shared | AgentDirAccess::SetUp | AgentDirAccess::SetUpFromRepository => {
            // Programs are kept per platform: those of a Mac are of no use here, and ours none there.
            let bin = host.state_dir().join("agent-bin");
            needed(dir.join("bin"));
            needed(bin.clone());
            mounts.push(Mount::bind(dir.clone(), &inside, Access::ReadWrite));
            mounts.push(Mount::bind(bin, inside.join("bin"), Access::ReadWrite));
        }
        AgentDirAccess::Guarded => {
            mounts.push(Mount::bind(sessions, inside.join("sessions"), Access::ReadWrite));
            mounts.push(Mount::bind(dir.join("auth.json"), inside.join("auth.json"), Access::ReadWrite));
            for entry in &facts.agent_entries {
                let name = entry.name.as_str();
                if matches!(name, "sessions" | "auth.json") || is_left_out(name) {
                    continue;
                }
                let access = if LOGINS.contains(&name) { Access::ReadWrite } else { Access::ReadOnly };
                mounts.push(Mount::bind(&entry.real, inside.join(name), access));
            }
        }
    }
    mounts
}

pub(super) fn workspace_mounts(
    inputs: &Inputs<'_>,
    access: AgentDirAccess,
    labels: &BTreeMap<String, String>,
) -> Vec<Mount> {
    let Inputs { id, workspace, facts, who, reach, .. } = inputs;
    let home = Path::new(HOME);
    let volume = |name, role: &str, labels: &BTreeMap<String, String>| {
        let mut labels = labels.clone();
        labels.insert("pi.role".to_owned(), role.to_owned());
        Source::Volume { name, labels }
    };
    let own_home = Mount {
        source: volume(id.home(), "home", labels),
        target: home.to_owned(),
        access: Access::ReadWrite,
    };
    let asked = || {
        let credentials = facts.credentials.iter().map(|(_, path)| Mount::same(path, Access::ReadOnly));
        credentials.chain(facts.mounts.iter().cloned())
    };
    // What stands in for a link in the agent's directory would follow that link here, where the directory is as it is.
    let set_up = || asked().filter(|mount| !mount.target.starts_with(home.join(".pi/agent")));
    match access {
        AgentDirAccess::SetUp => return std::iter::once(own_home).chain(set_up()).collect(),
        AgentDirAccess::SetUpFromRepository => {
            let repository = Mount::same(&workspace.root, Access::ReadOnly);
            return [repository, own_home].into_iter().chain(set_up()).collect();
        }
        AgentDirAccess::Guarded | AgentDirAccess::Shared => {}
    }
    let mut mounts = vec![Mount::same(&workspace.root, Access::ReadWrite), own_home];
    // The scratch repository of a demonstration is gone with it, and nobody would come back to its cache.
    if !matches!(reach, Reach::Demo) {
        // The cache outlives the session, so it carries none of its labels.
        let mut lasting = labels.clone();
        lasting.remove("pi.session");
        let key = hex(&Sha256::digest(format!("{}\0{}\0{}", workspace.root.display(), who.uid, who.gid)));
        let cache = format!("pi-cache-{}", &key[..16]);
        mounts.push(Mount {
            source: volume(cache, "cache", &lasting),
            target: home.join(".cache/lang"),
            access: Access::ReadWrite,
        });
    }
    mounts.extend(workspace.git_dirs.iter().map(|dir| Mount::same(dir, Access::ReadWrite)));
    if let Some(skills) = &facts.skills {
        mounts.push(Mount::bind(skills, home.join(".agents/skills"), Access::ReadOnly));
    }
    if let Some(acli) = &facts.acli {
        mounts.push(Mount::bind(acli, home.join(".config/acli"), Access::ReadWrite));
    }
    mounts.extend(asked());
    mounts
}

/// What is asked for twice at one place is mounted once, as it was asked for last.
pub(super) fn unique(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut unique: Vec<Mount> = Vec::new();
    for mount in mounts {
        unique.retain(|earlier| earlier.target != mount.target);
        unique.push(mount);
    }
    unique
}

/// What the gate is to find at each mount: a name may lead elsewhere between our look and the engine's. Each as
/// `DEVICE:INODE:PATH`, the path's odd characters as `%XX`. Left out where the engine runs in a machine of its own, which
/// numbers files in its own way.
pub(super) fn expected_mounts(facts: &Facts, mounts: &[Mount], host: &Host) -> String {
    if !host.engine.shares_our_kernel() {
        return String::new();
    }
    let escaped = |path: &Path| {
        path.as_os_str().as_encoded_bytes().iter().fold(String::new(), |mut text, byte| {
            if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
                text.push(char::from(*byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
            text
        })
    };
    let found = mounts.iter().filter_map(|mount| {
        let Identity { device, inode } = facts.identities.get(mount.path()?)?;
        Some(format!("{device}:{inode}:{}", escaped(&mount.target)))
    });
    found.collect::<Vec<_>>().join(" ")
}
