//! Which mounts are refused: for what they hold, for what they would hide, or for what the agent could then write.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::bail;

use crate::{
    config::{Access, MountSpec},
    files::mount_points,
    git::private::Bind,
    host::Host,
    inside,
    report::Hinted,
    written::{Written, real},
};

/// A file or directory of the host that the user asked for, checked; its source without links.
pub(super) fn mount(spec: &MountSpec, host: &Host, written: &Written) -> anyhow::Result<Bind> {
    let real = written.follow(&spec.source).map_err(|astray| {
        Hinted::error(
            format!("could not mount `{}`: {astray}", spec.source.display()),
            match fs::canonicalize(&spec.source) {
                Ok(real) => format!("if that is your own link, name what it leads to: `{}`", real.display()),
                Err(_) => "it leads nowhere; name what you mean to mount".to_owned(),
            },
        )
    })?;
    let real = fs::canonicalize(real).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file or directory".to_owned(),
            _ => error.to_string(),
        };
        Hinted::error(
            format!("could not mount `{}`: {why}", spec.source.display()),
            "a mount's source must exist; create it, or correct `--mount` or `mounts` in the config",
        )
    })?;
    check_source(&real, host)?;
    let target = spec.target.clone().unwrap_or_else(|| spec.source.clone());
    check_target(&target)?;
    if spec.access == Access::ReadOnly {
        check_nothing_below(&real)?;
    }
    Ok(Bind { source: real, target, access: spec.access })
}

/// Refuses a source that is an engine's socket or holds one: who can write there is root on this machine.
pub(super) fn check_source(source: &Path, host: &Host) -> anyhow::Result<()> {
    if source.to_str().is_none_or(|text| text.contains('\r')) {
        bail!(
            "could not mount `{}`: docker takes paths in UTF-8 without carriage returns only",
            source.display()
        );
    }
    if ["/proc", "/sys"].iter().any(|kernel| source.starts_with(kernel)) {
        bail!(
            "could not mount `{}`: through it the agent would see this machine's processes",
            source.display()
        );
    }
    let user = format!("/run/user/{}", host.uid);
    let known = SOCKETS
        .iter()
        .map(PathBuf::from)
        .chain(USER_SOCKETS.iter().map(|path| host.home.join(path)))
        .chain(["docker.sock", "podman/podman.sock"].iter().map(|path| Path::new(&user).join(path)))
        .chain(host.engine.socket().map(Path::to_owned));
    for socket in known {
        let Ok(real) = fs::canonicalize(&socket) else { continue };
        let same_file = || match (fs::metadata(&real), fs::metadata(source)) {
            (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
            _ => false,
        };
        if real.starts_with(source) || same_file() {
            return Err(Hinted::error(
                format!("`{}` is or holds the engine's socket `{}`", source.display(), socket.display()),
                "with that, the agent would be root on this machine; mount a smaller directory",
            ));
        }
    }
    Ok(())
}

/// Engines listen on one of these, besides the one in use.
const SOCKETS: [&str; 8] = [
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/docker/containerd/containerd.sock",
    "/var/run/docker/containerd/containerd.sock",
];

/// The same below the user's own directories.
const USER_SOCKETS: [&str; 6] = [
    ".docker/run/docker.sock",
    ".docker/desktop/docker.sock",
    ".colima/default/docker.sock",
    ".orbstack/run/docker.sock",
    ".rd/docker.sock",
    ".local/share/containers/podman/machine/podman.sock",
];

pub(super) fn check_target(target: &Path) -> anyhow::Result<()> {
    let turns = target.components().any(|part| part == Component::ParentDir);
    if turns || inside::is_reserved(target) || target.to_str().is_none_or(|text| text.contains('\r')) {
        return Err(Hinted::usage_hinted(
            format!(
                "`{}` cannot be mounted there: it would hide what the sandbox consists of",
                target.display()
            ),
            "name another place with `--mount SRC:DST`, or work in another directory",
        ));
    }
    Ok(())
}

/// Refuses to mount something read-only that has another mount below it.
pub(super) fn check_nothing_below(path: &Path) -> anyhow::Result<()> {
    if let Some(below) = mounted_below(path) {
        bail!(
            "could not mount `{}` read-only: `{}` is a mount below it, which old engines would leave writable",
            path.display(),
            below.display()
        );
    }
    Ok(())
}

fn mounted_below(dir: &Path) -> Option<PathBuf> {
    mount_points().find(|at| at != dir && at.starts_with(dir))
}

/// Refuses a target on whose way an agent can have made a link: the engine would follow it inside the container, and mount
/// over something of the sandbox's own. `writable` are the source and the target of each mount that can be written.
pub(super) fn check_no_link_on_the_way<'a>(
    target: &Path,
    writable: impl Iterator<Item = (&'a Path, &'a Path)>,
) -> anyhow::Result<()> {
    for (source, at) in writable {
        let Ok(rest) = target.strip_prefix(at) else { continue };
        let mut path = source.to_owned();
        for part in rest.components() {
            path.push(part);
            if path.is_symlink() {
                return Err(Hinted::usage_hinted(
                    format!(
                        "nothing can be mounted at `{}`: `{}` is a link, and could lead anywhere in the sandbox",
                        target.display(),
                        path.display()
                    ),
                    "remove the link, or name another place with `--mount SRC:DST`",
                ));
            }
        }
    }
    Ok(())
}

/// Refuses to let the agent write what decides about its next session: settings, allowlist, its own directory, and the
/// launcher's notes.
pub(super) fn guard_settings(writable: &[PathBuf], host: &Host, agent_dir: &Path) -> anyhow::Result<()> {
    // Also where it would be, if it is not there yet.
    let above = |path: &Path| real(path.parent().unwrap_or(path));
    let config = host.config_file();
    let list = host.home.join(".agents/proxy_allowed_domains.txt");
    let scratch = real(&host.cache_dir());
    let guarded = [
        // A file that was named is held against what it was before the session; see `Launcher::trusted`.
        ("the launcher's settings", real(&config)),
        ("the launcher's settings", above(&config)),
        ("the default allowlist", real(&list)),
        ("the default allowlist", above(&list)),
        ("the agent's own directory", real(agent_dir)),
        ("the launcher's records", real(&host.state_dir())),
        ("docker's settings", real(&host.docker_settings())),
        ("the launcher's scratch files", scratch.clone()),
    ];
    for dir in writable {
        for (what, own) in &guarded {
            // A demonstration has its repository among the scratch files.
            let inside = dir.starts_with(own) && !own.starts_with(&scratch);
            let relation = if inside { "lies in" } else { "holds" };
            if own.starts_with(dir) || inside {
                return Err(Hinted::error(
                    format!(
                        "`{}` cannot be writable for the agent: it {relation} {what} `{}`",
                        dir.display(),
                        own.display()
                    ),
                    "what the agent writes there would decide about its next session; work in another directory",
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_holds_an_engines_socket_is_refused_through_a_link_too() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(real.join("run")).unwrap();
        fs::write(real.join("run/docker.sock"), "").unwrap();
        let mut host = Host::for_tests();
        host.engine.address = format!("unix://{}", real.join("run/docker.sock").display());
        std::os::unix::fs::symlink(real.join("run"), real.join("link")).unwrap();
        for source in ["run", "run/docker.sock", "link"] {
            let spec =
                MountSpec { source: real.join(source), target: Some("/x".into()), access: Access::ReadOnly };
            let error = mount(&spec, &host, &Written::default()).unwrap_err().to_string();
            assert!(error.contains("is or holds the engine's socket"), "{error}");
        }
    }
}
