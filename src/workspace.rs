//! Which directories of the host make up "this repository", found by reading files: a host git would run what a
//! repository says.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    files::{Identity, read_small},
    host::{Host, Owner},
    report::{Finding, Hinted},
};

/// What the agent works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workspace {
    /// Mounted writable at its own path.
    pub(crate) root: PathBuf,
    /// Where the agent starts; inside `root`.
    pub(crate) cwd: PathBuf,
    /// Git directories outside of `root` that belong to it, mounted writable at their own paths.
    pub(crate) git_dirs: Vec<PathBuf>,
    /// The repository's own config file, where there is a repository.
    pub(crate) git_config: Option<PathBuf>,
    /// Object stores outside of `root` which git would need.
    pub(crate) alternates: Vec<PathBuf>,
    /// What `root` was when it was looked at, by way of the directory in which the process stands: nobody can exchange
    /// that one.
    pub(crate) identity: Identity,
    /// Who owns `root`.
    pub(crate) owner: Owner,
    /// What the user should know.
    pub(crate) findings: Vec<Finding>,
}

/// Directories that are never a workspace themselves, though projects may lie below most of them.
const SYSTEM: [&str; 26] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/nix",
    "/opt", "/proc", "/root", "/run", "/sbin", "/snap", "/srv", "/sys", "/tmp", "/usr", "/var", "/Users",
    "/System", "/private",
];

/// Directories below which nothing is a workspace.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

impl Workspace {
    /// Finds the repository around the current directory, or takes the directory itself.
    ///
    /// # Errors
    /// The directory is one that a session must not have as a whole, or `.git` points to a place that does not point
    /// back.
    pub(crate) fn find(host: &Host) -> anyhow::Result<Self> {
        let cwd = &host.cwd;
        if let Some(reason) = unfit(cwd, host) {
            return Err(Hinted::error(
                format!("`{}` cannot be the workspace: {reason}", cwd.display()),
                "change into a repository or a directory of its own and try again",
            ));
        }
        let root = repository_root(cwd, host);
        let fit = root.as_deref().map_or(Some("it is not in a git repository"), |root| unfit(root, host));
        let findings: Vec<Finding> = fit
            .map(|reason| match &root {
                Some(root) => Finding::plain(format!(
                    "the repository `{}` is not used as a whole: {reason}; the session has `{}` only",
                    root.display(),
                    cwd.display()
                )),
                None => Finding::hinted(
                    format!("`{}`: {reason}; the session has this directory and no undo", cwd.display()),
                    "`git init` makes it a repository",
                ),
            })
            .into_iter()
            .collect();
        let root = root.filter(|_| fit.is_none());
        let Some(root) = root else {
            let owner = owner(cwd)?;
            return Ok(Self {
                root: cwd.clone(),
                cwd: cwd.clone(),
                git_dirs: vec![],
                git_config: None,
                alternates: vec![],
                identity: identity(cwd, cwd)?,
                owner,
                findings,
            });
        };
        let git = GitDir::of(&root, host)?;
        let alternates = alternates(&git.common)?.into_iter().filter(|dir| !dir.starts_with(&root)).collect();
        Ok(Self {
            identity: identity(cwd, &root)?,
            owner: owner(&root)?,
            cwd: cwd.clone(),
            git_config: Some(git.common.join("config")),
            alternates,
            git_dirs: git.outside.into_iter().filter(|dir| !dir.starts_with(&root)).collect(),
            root,
            findings,
        })
    }
}

impl Workspace {
    /// A session's name where the user gave none: the repository's, of letters that need no quoting.
    pub(crate) fn name(&self) -> String {
        let name = self.root.file_name().unwrap_or_else(|| OsStr::new("session")).to_string_lossy();
        let clean: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
            .take(40)
            .collect();
        let clean = clean.trim_start_matches(['.', '_', '-']);
        if clean.is_empty() { "session".to_owned() } else { clean.to_owned() }
    }

    /// The work tree, and what of git's lies outside of it.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.root).chain(&self.git_dirs).map(PathBuf::as_path)
    }
}

/// What the directory `root`, at or above `cwd`, is. Where the process stands in `cwd`, it is found from there.
fn identity(cwd: &Path, root: &Path) -> anyhow::Result<Identity> {
    let by_name = || format!("could not look at `{}`", root.display());
    let here = Identity::of(Path::new("."));
    if here != Identity::of(cwd) {
        return Identity::of(root).with_context(by_name);
    }
    let levels = cwd.strip_prefix(root).map_or(0, |below| below.components().count());
    let up: PathBuf = std::iter::once(".").chain(std::iter::repeat_n("..", levels)).collect();
    Identity::of(&up).with_context(by_name)
}

fn owner(path: &Path) -> anyhow::Result<Owner> {
    let meta = fs::metadata(path).with_context(|| format!("could not look at `{}`", path.display()))?;
    Ok(Owner { uid: meta.uid(), gid: meta.gid() })
}

/// Why a directory can be no workspace.
pub(crate) fn unfit(path: &Path, host: &Host) -> Option<&'static str> {
    let home = fs::canonicalize(&host.home).unwrap_or_else(|_| host.home.clone());
    if path == home {
        return Some("it is your home directory, with your keys and all your other projects");
    }
    if home.starts_with(path) {
        return Some("it holds your home directory");
    }
    if SYSTEM.iter().any(|system| path == Path::new(system)) {
        return Some("it is a directory of the system");
    }
    if KERNEL.iter().any(|kernel| path.starts_with(kernel)) {
        return Some("it belongs to the kernel");
    }
    None
}

/// The nearest directory at or above `from` that has a `.git` of the user's own, or of root's: in a directory that many
/// may write, another user's would hand them all of it.
fn repository_root(from: &Path, host: &Host) -> Option<PathBuf> {
    let user = if host.uid == 0 { fs::metadata(from).ok()?.uid() } else { host.uid };
    from.ancestors()
        .find(|dir| {
            fs::symlink_metadata(dir.join(".git")).is_ok_and(|git| git.uid() == user || git.uid() == 0)
        })
        .map(Path::to_owned)
}

struct GitDir {
    /// Holds objects, refs and the config.
    common: PathBuf,
    /// What must be mounted besides the work tree.
    outside: Vec<PathBuf>,
}

impl GitDir {
    fn of(root: &Path, host: &Host) -> anyhow::Result<Self> {
        let dot_git = root.join(".git");
        let meta = fs::symlink_metadata(&dot_git)
            .with_context(|| format!("could not look at `{}`", dot_git.display()))?;
        if meta.is_dir() {
            return Ok(Self { common: dot_git, outside: vec![] });
        }
        if !meta.is_file() {
            return Err(unproven(&dot_git, "it is neither a directory nor a file"));
        }
        let git_dir = pointer(&dot_git, Some("gitdir:"))?
            .ok_or_else(|| unproven(&dot_git, "it does not say `gitdir: …`"))?;
        let git_dir = fs::canonicalize(root.join(&git_dir)).map_err(|_| {
            unproven(&dot_git, &format!("it points to `{}`, which is not there", git_dir.display()))
        })?;
        if let Some(common) = pointer(&git_dir.join("commondir"), None)? {
            Self::of_worktree(&dot_git, &git_dir, &common, host)
        } else {
            Self::of_submodule(root, &dot_git, &git_dir, host)
        }
    }

    /// A linked worktree: `.git` → `MAIN/.git/worktrees/NAME`, whose `gitdir` must name our `.git` in turn. Without
    /// that, a repository could have any directory of the host mounted by writing one line.
    fn of_worktree(dot_git: &Path, git_dir: &Path, common: &Path, host: &Host) -> anyhow::Result<Self> {
        let common = fs::canonicalize(git_dir.join(common))
            .map_err(|_| unproven(dot_git, "the main repository is not there"))?;
        let back = pointer(&git_dir.join("gitdir"), None)?
            .and_then(|back| fs::canonicalize(git_dir.join(back)).ok());
        if back.as_deref() != Some(dot_git) {
            return Err(unproven(dot_git, &format!("`{}` does not point back to it", git_dir.display())));
        }
        if git_dir.parent() != Some(&*common.join("worktrees")) {
            return Err(unproven(
                dot_git,
                &format!("`{}` is not a worktree of `{}`", git_dir.display(), common.display()),
            ));
        }
        looks_like_git(&common, dot_git, host)?;
        Ok(Self { outside: vec![common.clone()], common })
    }

    /// A submodule: `.git` → `SUPER/.git/modules/NAME`, whose `core.worktree` must name our root in turn.
    fn of_submodule(root: &Path, dot_git: &Path, git_dir: &Path, host: &Host) -> anyhow::Result<Self> {
        let config = read_small(&git_dir.join("config"))?.unwrap_or_default();
        let back = core_worktree(&config).and_then(|back| fs::canonicalize(git_dir.join(back)).ok());
        if back.as_deref() != Some(root) {
            return Err(unproven(dot_git, &format!("`{}` does not point back to it", git_dir.display())));
        }
        looks_like_git(git_dir, dot_git, host)?;
        Ok(Self { common: git_dir.to_owned(), outside: vec![git_dir.to_owned()] })
    }
}

fn looks_like_git(dir: &Path, dot_git: &Path, host: &Host) -> anyhow::Result<()> {
    let whole = dir.join("HEAD").is_file() && dir.join("objects").is_dir() && dir.join("refs").is_dir();
    if !whole || unfit(dir, host).is_some() {
        return Err(unproven(dot_git, &format!("`{}` is not a git directory", dir.display())));
    }
    Ok(())
}

fn unproven(dot_git: &Path, reason: &str) -> anyhow::Error {
    Hinted::error(
        format!(
            "`{}` cannot be trusted to name this repository's git directory: {reason}",
            dot_git.display()
        ),
        "start `pi` in the main work tree; a linked one is repaired by `git worktree repair`",
    )
}

/// The path that a one-line file of git's holds, behind `prefix`.
fn pointer(file: &Path, prefix: Option<&str>) -> anyhow::Result<Option<PathBuf>> {
    let Some(text) = read_small(file)? else { return Ok(None) };
    let line = text.trim_end_matches(['\n', '\r']);
    // Git writes one line; more of them would only be there to be shown to somebody.
    if line.contains(['\n', '\r']) {
        return Ok(None);
    }
    let path = match prefix {
        Some(prefix) => line.strip_prefix(prefix).map(|rest| rest.strip_prefix(' ').unwrap_or(rest)),
        None => Some(line),
    };
    Ok(path.filter(|path| !path.is_empty()).map(PathBuf::from))
}

/// The value of `core.worktree` in a config of git's own writing.
fn core_worktree(config: &str) -> Option<PathBuf> {
    let mut in_core = false;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            in_core = line.eq_ignore_ascii_case("[core]");
        } else if in_core
            && let Some((key, value)) = line.split_once('=')
            && key.trim().eq_ignore_ascii_case("worktree")
        {
            return Some(PathBuf::from(value.trim().trim_matches('"')));
        }
    }
    None
}

/// Object stores that git would also read, made absolute; the file lists them a line each.
fn alternates(common: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let objects = common.join("objects");
    let text = read_small(&objects.join("info/alternates"))?.unwrap_or_default();
    Ok(text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| normal(&objects.join(line)))
        .collect())
}

/// `path` without `.` and `..`, links followed where it exists.
fn normal(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| {
        path.components().fold(PathBuf::new(), |mut whole, part| {
            match part {
                Component::ParentDir => {
                    whole.pop();
                }
                Component::CurDir => {}
                other => whole.push(other),
            }
            whole
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        _dir: tempfile::TempDir,
        host: Host,
    }

    /// A home with a repository `main`, made by hand as git lays it out.
    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(dir.path()).unwrap();
        let git = home.join("main/.git");
        for part in ["objects/info", "refs", "worktrees/tree"] {
            fs::create_dir_all(git.join(part)).unwrap();
        }
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::create_dir_all(home.join("main/src")).unwrap();
        fs::create_dir_all(home.join("tree")).unwrap();
        fs::write(home.join("tree/.git"), format!("gitdir: {}\n", git.join("worktrees/tree").display()))
            .unwrap();
        fs::write(git.join("worktrees/tree/commondir"), "../..\n").unwrap();
        fs::write(git.join("worktrees/tree/gitdir"), format!("{}\n", home.join("tree/.git").display()))
            .unwrap();
        let uid = rustix::process::getuid().as_raw();
        let host = Host { uid, home: home.clone(), cwd: home.join("main/src"), ..Host::for_tests() };
        World { _dir: dir, host }
    }

    impl World {
        fn at(&self, path: &str) -> anyhow::Result<Workspace> {
            Workspace::find(&Host { cwd: self.host.home.join(path), ..self.host.clone() })
        }
    }

    #[test]
    fn the_repository_is_found_from_below() {
        let world = world();
        let found = world.at("main/src").unwrap();
        assert_eq!(found.root, world.host.home.join("main"));
        assert_eq!(found.cwd, world.host.home.join("main/src"));
        assert!(found.git_dirs.is_empty() && found.findings.is_empty());
    }

    #[test]
    fn a_linked_worktree_brings_its_main_git_directory() {
        let world = world();
        assert_eq!(world.at("tree").unwrap().git_dirs, [world.host.home.join("main/.git")]);
    }

    #[test]
    fn a_worktree_that_nobody_points_back_to_is_refused() {
        let world = world();
        let git = world.host.home.join("main/.git/worktrees/tree");
        fs::write(git.join("gitdir"), "/somewhere/else/.git\n").unwrap();
        let error = world.at("tree").unwrap_err().to_string();
        assert!(error.ends_with("does not point back to it"), "{error}");
    }

    #[test]
    fn a_git_file_cannot_have_any_directory_mounted() {
        let world = world();
        let ssh = world.host.home.join(".ssh");
        fs::create_dir_all(&ssh).unwrap();
        fs::write(world.host.home.join("tree/.git"), format!("gitdir: {}\n", ssh.display())).unwrap();
        assert!(world.at("tree").is_err());
    }

    #[test]
    fn a_submodule_brings_its_git_directory_when_it_points_back() {
        let world = world();
        let git = world.host.home.join("main/.git/modules/sub");
        for part in ["objects", "refs"] {
            fs::create_dir_all(git.join(part)).unwrap();
        }
        fs::write(git.join("HEAD"), "x").unwrap();
        fs::write(git.join("config"), "[core]\n\tbare = false\n\tworktree = ../../../sub\n").unwrap();
        fs::create_dir_all(world.host.home.join("main/sub")).unwrap();
        fs::write(world.host.home.join("main/sub/.git"), "gitdir: ../.git/modules/sub\n").unwrap();
        let found = world.at("main/sub").unwrap();
        assert_eq!(found.root, world.host.home.join("main/sub"));
        assert_eq!(found.git_dirs, [git]);
    }

    #[test]
    fn home_its_parents_and_the_system_are_refused() {
        let world = world();
        for path in [
            world.host.home.clone(),
            world.host.home.parent().unwrap().to_owned(),
            "/etc".into(),
            "/proc/1".into(),
        ] {
            let error = Workspace::find(&Host { cwd: path, ..world.host.clone() }).unwrap_err().to_string();
            assert!(error.contains("cannot be the workspace"), "{error}");
        }
    }

    #[test]
    fn a_repository_at_home_falls_back_to_the_directory() {
        let world = world();
        fs::create_dir_all(world.host.home.join(".git")).unwrap();
        fs::create_dir_all(world.host.home.join("plain")).unwrap();
        let found = world.at("plain").unwrap();
        assert_eq!(found.root, world.host.home.join("plain"));
        assert_eq!(found.findings.len(), 1);
    }

    #[test]
    fn borrowed_objects_are_known() {
        let world = world();
        let info = world.host.home.join("main/.git/objects/info/alternates");
        fs::write(info, "/other/repo/.git/objects\n").unwrap();
        assert_eq!(world.at("main").unwrap().alternates, [PathBuf::from("/other/repo/.git/objects")]);
    }
}
