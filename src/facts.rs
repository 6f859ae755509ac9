//! What of the host goes into a session, as far as it has to be looked at: reads files, changes nothing, decides little.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    agent,
    config::{Config, MountSpec, Network},
    docker::{Access, Mount, quote},
    files::{Identity, read_small},
    host::{EngineKind, Host, Owner},
    report::{Hinted, Usage},
    workspace::Workspace,
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

/// Engines listen on one of these, besides the one in use.
const SOCKETS: [&str; 6] = [
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
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

/// Mounting over one of these would replace what the sandbox itself consists of.
const OURS: [&str; 16] = [
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/share/pi",
    "/home/pi",
    "/tmp",
    "/run",
    "/proc",
    "/sys",
];

impl Facts {
    /// Looks at everything.
    ///
    /// # Errors
    /// A mount's source is missing, or it is or holds an engine's socket.
    pub(crate) fn gather(
        config: &Config,
        host: &Host,
        workspace: &Workspace,
        who: Owner,
    ) -> anyhow::Result<Self> {
        let mut warnings = Vec::new();
        let (agent_dir, note) = agent_dir(host, who);
        warnings.extend(note);
        let mut mounts = Vec::new();
        for spec in &config.mounts {
            mounts.push(mount(spec, host)?);
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
        let (credentials, lost) = credentials(host)?;
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
        Self {
            agent_entries,
            agent_dir,
            skills: existing(host.home.join(".agents/skills")),
            // A credential: only for those who have the program in the image.
            acli: existing(host.home.join(".config/acli")).filter(|_| config.images.acli),
            mounts,
            credentials,
            identity: identity(host, workspace)?,
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
            if let Some(identity) = Identity::of(&path) {
                self.identities.insert(path, identity);
            }
        }
        self.identities.insert(workspace.root.clone(), workspace.identity);
        Ok(self)
    }
}

/// Refuses to let the agent write what decides about its next session: settings, allowlist, its own directory, and the
/// launcher's notes.
fn guard_settings(writable: &[&Path], host: &Host, agent_dir: &Path) -> anyhow::Result<()> {
    let real = |path: PathBuf| fs::canonicalize(&path).unwrap_or(path);
    let config = host.config_file();
    let guarded = [
        ("the launcher's settings", real(config.parent().map(Path::to_owned).unwrap_or(config))),
        ("the default allowlist", real(host.home.join(".agents"))),
        ("the agent's own directory", real(agent_dir.to_owned())),
        ("the launcher's records", real(host.state_dir())),
    ];
    for dir in writable {
        for (what, own) in &guarded {
            if own.starts_with(dir) || dir.starts_with(own) {
                return Err(Hinted::error(
                    format!(
                        "`{}` cannot be writable for the agent: {what} are in `{}`",
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

fn existing(path: PathBuf) -> Option<PathBuf> {
    fs::canonicalize(path).ok().filter(|path| path.is_dir())
}

fn mount(spec: &MountSpec, host: &Host) -> anyhow::Result<Mount> {
    let real = fs::canonicalize(&spec.source).map_err(|error| {
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
    let access = if spec.read_only { Access::ReadOnly } else { Access::ReadWrite };
    if access == Access::ReadOnly
        && let Some(below) = mounted_below(&real)
    {
        bail!(
            "could not mount `{}` read-only: `{}` is a mount below it, which old engines would leave writable",
            real.display(),
            below.display()
        );
    }
    Ok(Mount::bind(real, target, access))
}

/// Refuses a source that is an engine's socket or holds one: who can write there is root on this machine.
fn check_source(source: &Path, host: &Host) -> anyhow::Result<()> {
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
        .chain([host.engine.socket().to_owned()]);
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

fn check_target(target: &Path) -> anyhow::Result<()> {
    let turns = target.components().any(|part| part == std::path::Component::ParentDir);
    let hides = OURS.iter().any(|ours| Path::new(ours).starts_with(target));
    let inside = [
        "/proc",
        "/sys",
        "/dev",
        "/bin",
        "/sbin",
        "/lib",
        "/lib64",
        "/usr/bin",
        "/usr/sbin",
        "/usr/lib",
        "/usr/share/perl",
        "/usr/share/perl5",
        "/usr/local/lib/pi",
        "/usr/local/share/pi",
        "/usr/local/share/perl",
        "/etc/perl",
        "/etc/ld.so.preload",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
        "/etc/ld.so.cache",
    ]
    .iter()
    .any(|own| target.starts_with(own));
    if turns || hides || inside || target.to_str().is_none_or(|text| text.contains('\r')) {
        return Err(Usage::hinted(
            format!(
                "`{}` cannot be mounted there: it would hide what the sandbox consists of",
                target.display()
            ),
            "name another place with `--mount SRC:DST`, or work in another directory",
        ));
    }
    Ok(())
}

fn mounted_below(dir: &Path) -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|at| PathBuf::from(unescaped(at)))
        .find(|at| at != dir && at.starts_with(dir))
}

/// The kernel writes a blank, a tab, a newline and a backslash in a path as three octal digits.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (written, meant)| path.replace(written, meant))
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

fn credentials(host: &Host) -> anyhow::Result<(Credentials, Vec<String>)> {
    let mut found = Vec::new();
    let mut lost = Vec::new();
    for &variable in agent::CREDENTIAL_PATHS {
        let Some(value) = host.var(variable) else { continue };
        match fs::canonicalize(host.expand(value)) {
            Ok(path) if path.is_file() => {
                check_source(&path, host)?;
                found.push((variable, path));
            }
            _ => lost.push(format!(
                "`{variable}` names `{value}`, which is not a file: the agent does not have it"
            )),
        }
    }
    Ok((found, lost))
}

/// The host user's name and address, asked from outside of any repository's influence: a repository's own settings
/// win inside the container, where git reads them itself.
fn identity(host: &Host, workspace: &Workspace) -> anyhow::Result<Vec<(String, String)>> {
    let own = match &workspace.git_config {
        Some(config) => read_small(config)?.map(|text| user_settings(host, Some(text))).unwrap_or_default(),
        None => vec![],
    };
    let mut all = user_settings(host, None);
    all.retain(|(key, _)| !own.iter().any(|(set, _)| set == key));
    Ok(all)
}

/// Name and address from the user's own settings, or from the text of a config.
fn user_settings(host: &Host, text: Option<String>) -> Vec<(String, String)> {
    let mut git = Command::new("git");
    git.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    for name in ["PATH", "HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"] {
        if let Some(value) = host.env.get(std::ffi::OsStr::new(name)) {
            git.env(name, value);
        }
    }
    // With a git directory that is none, no repository can be found around `/`.
    git.env("GIT_DIR", "/dev/null").arg("config").arg("--null");
    if text.is_some() {
        // Without `--includes`: what a repository says must not make us read elsewhere.
        git.args(["--no-includes", "--file", "-"]).stdin(Stdio::piped());
    }
    let Ok(mut git) = git.args(["--get-regexp", r"^user\.(name|email)$"]).spawn() else {
        return vec![];
    };
    if let (Some(text), Some(mut stdin)) = (text, git.stdin.take()) {
        // Git may have seen enough before the end.
        let _ = stdin.write_all(text.as_bytes());
    }
    let Ok(output) = git.wait_with_output() else { return vec![] };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found: Vec<(String, String)> = Vec::new();
    for entry in text.split_terminator('\0') {
        if let Some((key, value)) = entry.split_once('\n') {
            // The last one wins, as it does for git.
            found.retain(|(known, _)| known != key);
            found.push((key.to_owned(), value.to_owned()));
        }
    }
    found
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
            let spec = MountSpec { source: real.join(source), target: Some("/x".into()), read_only: true };
            let error = mount(&spec, &host).unwrap_err().to_string();
            assert!(error.contains("is or holds the engine's socket"), "{error}");
        }
    }

    #[test]
    fn what_the_sandbox_consists_of_cannot_be_hidden() {
        for target in
            ["/", "/usr", "/usr/local", "/usr/local/lib/pi/x", "/proc/self", "/home", "/home/pi", "/etc"]
        {
            assert!(check_target(Path::new(target)).is_err(), "{target}");
        }
        for target in ["/home/pi/project", "/tmp/x", "/opt", "/srv/a", "/etc/foo.conf"] {
            check_target(Path::new(target)).unwrap();
        }
    }

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
