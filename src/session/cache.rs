//! The volumes for the caches of projects: only ours are mounted, and when each was used last is noted.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use crate::{
    docker::Docker,
    files::private_dir,
    host::Host,
    plan::{Mount, Plan, Source},
    report::Hinted,
};

/// Looks at the volumes of a container that exists, and so keeps them from being exchanged.
///
/// # Errors
/// One is not what the launcher makes: somebody else may have put something into it, or it leads elsewhere.
pub(super) fn check(plan: &Plan, docker: &Docker, host: &Host) -> anyhow::Result<()> {
    for Mount { source, .. } in &plan.agent.mounts {
        let Source::Volume { name, labels } = source else { continue };
        if labels.get("pi.role").is_none_or(|role| role != "cache" && role != "directory") {
            continue;
        }
        if !docker.is_plain_volume(name, labels)? {
            return Err(Hinted::error(
                format!("the volume `{name}` was not made by `pi`, so the session does not get it"),
                format!("`docker volume inspect {name}` shows it, and `docker volume rm {name}` removes it"),
            ));
        }
        if labels.get("pi.role").is_some_and(|role| role == "cache") {
            note_use(host, name);
        }
    }
    Ok(())
}

/// The time of this file's change is the volume's last use.
fn note(host: &Host, volume: &str) -> PathBuf {
    host.state_dir().join("caches").join(volume)
}

fn note_use(host: &Host, volume: &str) {
    let path = note(host, volume);
    let now = path.parent().map(private_dir).map(|_| File::create(&path));
    // Without a note, the volume is only kept for longer.
    if let Some(Ok(file)) = now {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// How long a volume was not used. One without a note is used now.
pub(crate) fn unused_for(host: &Host, volume: &str) -> Duration {
    if let Ok(used) = fs::metadata(note(host, volume)).and_then(|meta| meta.modified()) {
        return used.elapsed().unwrap_or_default();
    }
    note_use(host, volume);
    Duration::ZERO
}

/// Forgets a volume that is gone.
pub(crate) fn forget(host: &Host, volume: &str) {
    let _ = fs::remove_file(note(host, volume));
}
