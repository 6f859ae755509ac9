//! What of the host is inside the agent's container.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{Inputs, Mount, Needed, Needs, Purpose, RELAYS, Room, Source};
use crate::{
    agent_dir::laid::{self, Making, Planned},
    config::Access,
    facts::{Hidden, Rules},
    files::Identity,
    host::{Owner, hex},
    inside,
};

/// The agent's own directory: memory, with what was laid out for this session in it, and what hides files elsewhere.
pub(super) fn agent_mounts(inputs: &Inputs<'_>) -> Vec<Mount> {
    let Inputs { choices, who, .. } = inputs;
    let inside = Path::new(inside::AGENT_DIR);
    let memory = laid::IN_MEMORY.iter().map(|name| Mount {
        source: Source::Memory { owner: *who, room: Room::mebibytes(256, 20_000) },
        target: if name.is_empty() { inside.to_owned() } else { inside.join(name) },
        access: Access::ReadWrite,
    });
    // An absolute target stays as it is.
    let bind = |source: &PathBuf, target: &PathBuf, access| Mount::bind(source, inside.join(target), access);
    if let Some(laid) = &choices.laid {
        return memory.chain(laid.iter().map(|laid| bind(&laid.source, &laid.target, laid.access))).collect();
    }
    let planned = planned(inputs);
    memory.chain(planned.iter().map(|one| bind(&one.source, &one.target, one.access))).collect()
}

fn planned(inputs: &Inputs<'_>) -> Vec<Planned> {
    let mut planned = laid::planned(&inputs.facts.layout, inputs.state, &inputs.facts.agent_dir);
    planned.extend(inputs.facts.hidden.iter().map(|Hidden { path, is_directory }| Planned {
        source: shadow(inputs.state, *is_directory),
        target: path.clone(),
        access: Access::ReadOnly,
        made: if *is_directory { Making::Directory } else { Making::File(None) },
    }));
    planned
}

/// What stands in for a hidden file or directory, in the session's own directory.
pub(crate) fn shadow(state: &Path, is_directory: bool) -> PathBuf {
    state.join("hidden").join(if is_directory { "directory" } else { "file" })
}

/// What must be made for these mounts, where nothing was laid out yet.
pub(super) fn needed(inputs: &Inputs<'_>) -> Vec<Needed> {
    if inputs.choices.laid.is_some() {
        return vec![];
    }
    let need = |Planned { source: path, made, .. }: Planned| {
        let kind = match made {
            Making::There(_) => return None,
            Making::Directory => Needs::Directory,
            Making::File(None) => Needs::File,
            Making::File(Some(of)) => Needs::Copy(of),
            Making::Text(text) => Needs::Text(text),
        };
        Some(Needed { path, kind, owner: inputs.other_owner() })
    };
    let relays = (!inputs.relays().is_empty()).then(|| Needed {
        path: inputs.state.join(RELAYS),
        kind: Needs::Directory,
        owner: None,
    });
    planned(inputs).into_iter().filter_map(need).chain(relays).fold(vec![], |mut all, one| {
        // One empty file hides many.
        if !all.contains(&one) {
            all.push(one);
        }
        all
    })
}

/// The repository, the agent's home, the caches, and what the user asked for.
pub(super) fn workspace_mounts(inputs: &Inputs<'_>, labels: &BTreeMap<String, String>) -> Vec<Mount> {
    let Inputs { workspace, facts, program, config, who, .. } = inputs;
    let home = Path::new(inside::HOME);
    let own_home = Mount {
        source: Source::Memory { owner: *who, room: Room { bytes: config.disk.home, files: 100_000 } },
        target: home.to_owned(),
        access: Access::ReadWrite,
    };
    let asked = || {
        let credentials = facts.credentials.iter().map(|(_, path)| Mount::same(path, Access::ReadOnly));
        let wanted = facts.binds.iter().map(|bind| Mount::bind(&bind.source, &bind.target, bind.access));
        credentials.chain(wanted)
    };
    let acli = facts.acli.iter().zip(config.acli);
    let acli = acli.map(|(login, access)| Mount::bind(login, home.join(".config/acli"), access));
    if matches!(program.purpose, Purpose::Login | Purpose::Renew) {
        return [own_home].into_iter().chain(acli).collect();
    }
    if program.purpose == Purpose::SetUp {
        let repository =
            program.reads_the_repository().then(|| Mount::same(&workspace.root, Access::ReadOnly));
        return repository.into_iter().chain([own_home]).chain(asked()).collect();
    }
    let repository = match inputs.copy {
        Some(copy) => copy.mount(&workspace.root, labels),
        None => Mount::same(&workspace.root, Access::ReadWrite),
    };
    let mut mounts = vec![repository, own_home];
    mounts.extend(cache(inputs, labels));
    mounts.extend(inputs.git.binds.iter().map(|bind| Mount::bind(&bind.source, &bind.target, bind.access)));
    if let Some(skills) = &facts.skills {
        mounts.push(Mount::bind(skills, home.join(".agents/skills"), Access::ReadOnly));
    }
    mounts.extend(acli);
    if let Rules::Own(rules) = &facts.house.rules {
        mounts.push(Mount::bind(rules, inside::RULES, Access::ReadOnly));
    }
    if let Some((dir, _)) = &facts.house.extensions {
        mounts.push(Mount::bind(dir, inside::EXTENSIONS, Access::ReadOnly));
    }
    mounts.extend(asked());
    mounts
}

/// The volume for the caches of a project's language. It outlives the session, so it does not carry the session's label.
/// A session whose directory is no project of any language keeps its caches in memory.
fn cache(inputs: &Inputs<'_>, labels: &BTreeMap<String, String>) -> Option<Mount> {
    let Inputs { workspace, caches, program, who, .. } = inputs;
    // The scratch repository of a demonstration is gone with it, and nobody would come back to its cache.
    let language = caches.filter(|_| !matches!(program.purpose, Purpose::Demo | Purpose::Proof))?;
    let mut labels = labels.clone();
    labels.remove("pi.session");
    labels.insert("pi.role".to_owned(), "cache".to_owned());
    labels.insert("pi.lang".to_owned(), language.to_owned());
    let key = format!("{}\0{language}\0{}\0{}", workspace.root.display(), who.uid, who.gid);
    let name = format!("pi-cache-{}", &hex(&Sha256::digest(key))[..16]);
    Some(Mount {
        source: Source::Volume { name, labels },
        target: inside::CACHE.into(),
        access: Access::ReadWrite,
    })
}

/// Directories of the agent's home that lead to a mount: an engine would make them root's.
pub(super) fn way_to(mounts: &[Mount], owner: Owner) -> Vec<Mount> {
    let home = Path::new(inside::HOME);
    let mut missing: BTreeSet<&Path> =
        mounts.iter().flat_map(|mount| mount.target.ancestors().skip(1)).collect();
    // An option of docker's names a directory in memory, and ends it at a colon.
    missing.retain(|path| {
        *path != home && path.starts_with(home) && !path.as_os_str().as_encoded_bytes().contains(&b':')
    });
    // What is below another mount, or one itself, is not made in the home.
    let held =
        |path: &Path| mounts.iter().any(|mount| mount.target != home && path.starts_with(&mount.target));
    missing
        .into_iter()
        .filter(|path| !held(path))
        .map(|path| Mount {
            source: Source::Memory { owner, room: Room::mebibytes(64, 5000) },
            target: path.to_owned(),
            access: Access::ReadWrite,
        })
        .collect()
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
/// `DEVICE:INODE:PATH`, the path's odd characters as `%XX`; `-:-:PATH` for what is not of the host. Anything else the gate
/// refuses. Left out where the engine runs in a machine of its own, which numbers files in its own way.
pub(super) fn expected_mounts(inputs: &Inputs<'_>, mounts: &[Mount]) -> String {
    if !inputs.host.engine.shares_our_kernel() {
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
    let laid = inputs.choices.laid.iter().flatten().map(|laid| (laid.source.clone(), Some(laid.identity)));
    let planned = if inputs.choices.laid.is_none() { planned(inputs) } else { vec![] };
    let planned = planned.into_iter().map(|one| match one.made {
        Making::There(identity) => (one.source, Some(identity)),
        // A dry run cannot know what its script will have made.
        Making::Directory | Making::File(_) | Making::Text(_) => (one.source, None),
    });
    let own: BTreeMap<PathBuf, Option<Identity>> = laid.chain(planned).collect();
    let found = mounts.iter().filter_map(|mount| {
        let target = escaped(&mount.target);
        let identity = match mount.path() {
            None => None,
            Some(path) => match own.get(path) {
                Some(identity) => *identity,
                None => match inputs.git.identities.get(path).or_else(|| inputs.facts.identities.get(path)) {
                    Some(identity) => Some(*identity),
                    // What is laid out for git is not there yet.
                    None if inputs.choices.laid.is_none()
                        && inputs.git.binds.iter().any(|bind| bind.source == path) =>
                    {
                        None
                    }
                    // Without an identity the gate refuses it.
                    None => return None,
                },
            },
        };
        Some(match identity {
            Some(Identity { device, inode }) => format!("{device}:{inode}:{target}"),
            None => format!("-:-:{target}"),
        })
    });
    found.collect::<Vec<_>>().join(" ")
}
