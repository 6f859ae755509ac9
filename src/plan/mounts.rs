//! What of the host is inside the agent's container.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{Directory, File, Inputs, Keep, Mount, Purpose, Source};
use crate::{
    config::{Access, AgentDir},
    facts::Facts,
    files::Identity,
    host::{Host, hex},
    inside,
    secret::Value,
};

/// What a session may write in a guarded directory: logins.
const LOGINS: [&str; 2] = ["auth.json", "mcp-auth.json"];

/// What stays outside: programs of another platform, scratch files and logs, caches that could steer other sessions
/// and are fetched again.
fn is_left_out(name: &str) -> bool {
    matches!(name, "bin" | "tmp" | "models-store.json" | "crashes.json" | "pi-debug.log")
        || Path::new(name).extension().is_some_and(|kind| kind == "lock")
        || name.starts_with("mcp.log")
}

/// The agent's own directory, and what must exist of it on the host.
pub(super) fn agent_mounts(
    inputs: &Inputs<'_>,
    directories: &mut Vec<Directory>,
    files: &mut Vec<File>,
) -> Vec<Mount> {
    let Inputs { config, host, facts, who, program, .. } = inputs;
    let owner = (host.uid == 0 && who.uid != 0).then_some(*who);
    let dir = &facts.agent_dir;
    let inside = Path::new(inside::AGENT_DIR);
    let sessions = dir.join("sessions");
    let mut needed = |path: PathBuf| directories.push(Directory { path, owner });
    needed(dir.clone());
    needed(sessions.clone());
    files.push(File {
        path: dir.join("auth.json"),
        text: Value::Plain("{}\n".to_owned()),
        keep: Keep::Existing,
        owner,
    });
    // What the user types to change the agent's set-up must be able to change it.
    if program.purpose == Purpose::SetUp || config.agent_dir == AgentDir::Shared {
        // Programs are kept per platform: those of a Mac are of no use here, and ours none there.
        let bin = host.state_dir().join("agent-bin");
        needed(dir.join("bin"));
        needed(bin.clone());
        return vec![
            Mount::bind(dir.clone(), inside, Access::ReadWrite),
            Mount::bind(bin, inside.join("bin"), Access::ReadWrite),
        ];
    }
    let mut mounts = vec![
        Mount::bind(sessions, inside.join("sessions"), Access::ReadWrite),
        Mount::bind(dir.join("auth.json"), inside.join("auth.json"), Access::ReadWrite),
    ];
    for entry in &facts.agent_entries {
        let name = entry.name.as_str();
        if matches!(name, "sessions" | "auth.json") || is_left_out(name) {
            continue;
        }
        let access = if LOGINS.contains(&name) { Access::ReadWrite } else { Access::ReadOnly };
        mounts.push(Mount::bind(&entry.real, inside.join(name), access));
    }
    mounts
}

/// The repository, the agent's home, the caches, and what the user asked for.
pub(super) fn workspace_mounts(inputs: &Inputs<'_>, labels: &BTreeMap<String, String>) -> Vec<Mount> {
    let Inputs { id, workspace, facts, program, .. } = inputs;
    let home = Path::new(inside::HOME);
    let own_home = volume(id.home(), "home", labels, home);
    let asked = || {
        let credentials = facts.credentials.iter().map(|(_, path)| Mount::same(path, Access::ReadOnly));
        let wanted = facts.binds.iter().map(|bind| Mount::bind(&bind.source, &bind.target, bind.access));
        credentials.chain(wanted)
    };
    if program.purpose == Purpose::SetUp {
        let repository =
            program.reads_the_repository().then(|| Mount::same(&workspace.root, Access::ReadOnly));
        // What stands in for a link in the agent's directory would follow that link here, where the directory is as it is.
        let asked = asked().filter(|mount| !mount.target.starts_with(inside::AGENT_DIR));
        return repository.into_iter().chain([own_home]).chain(asked).collect();
    }
    let mut mounts = vec![Mount::same(&workspace.root, Access::ReadWrite), own_home];
    // The scratch repository of a demonstration is gone with it, and nobody would come back to its cache.
    if program.purpose != Purpose::Demo {
        mounts.push(cache(inputs, labels));
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

fn volume(name: String, role: &str, labels: &BTreeMap<String, String>, target: &Path) -> Mount {
    let mut labels = labels.clone();
    labels.insert("pi.role".to_owned(), role.to_owned());
    Mount { source: Source::Volume { name, labels }, target: target.to_owned(), access: Access::ReadWrite }
}

/// The caches of languages. They outlive the session, so they carry none of its labels.
fn cache(inputs: &Inputs<'_>, labels: &BTreeMap<String, String>) -> Mount {
    let Inputs { workspace, who, .. } = inputs;
    let mut lasting = labels.clone();
    lasting.remove("pi.session");
    let key = hex(&Sha256::digest(format!("{}\0{}\0{}", workspace.root.display(), who.uid, who.gid)));
    volume(format!("pi-cache-{}", &key[..16]), "cache", &lasting, Path::new(inside::CACHE))
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
