//! The directories of the host that make up the repository.

mod git_dir;

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use self::git_dir::{GitDir, alternates};
use crate::{
    files::Identity,
    host::{Host, Owner},
    report::{Finding, Hinted, quote},
};

/// The directories that the agent works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workspace {
    /// Mounted writable at its own path.
    pub(crate) root: PathBuf,
    /// Where the agent starts; inside `root`.
    pub(crate) cwd: PathBuf,
    /// Git directories outside of `root` that belong to it, mounted writable at their own paths.
    pub(crate) git_dirs: Vec<PathBuf>,
    /// The repository's own config file, if there is a repository.
    pub(crate) git_config: Option<PathBuf>,
    /// Object stores outside of `root` that git needs.
    pub(crate) alternates: Vec<PathBuf>,
    /// The device and inode of `root`, looked up from the process's own directory, which nobody can exchange.
    pub(crate) identity: Identity,
    /// Who owns `root`.
    pub(crate) owner: Owner,
    pub(crate) findings: Vec<Finding>,
}

/// Directories that are never a workspace themselves. Projects may lie below most of them.
const SYSTEM: [&str; 26] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/nix",
    "/opt", "/proc", "/root", "/run", "/sbin", "/snap", "/srv", "/sys", "/tmp", "/usr", "/var", "/Users",
    "/System", "/private",
];

/// Nothing at or below these is a workspace.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

impl Workspace {
    /// Finds the repository around the current directory, or takes the directory itself. It fails if a session must not
    /// have the directory, or if `.git` points to a place that does not point back.
    pub(crate) fn find(host: &Host) -> anyhow::Result<Self> {
        let cwd = &host.cwd;
        if let Some(reason) = unfit(cwd, host) {
            return Err(Hinted::error(
                format!("`{}` cannot be the workspace: {reason}", cwd.display()),
                "change into a repository or a project's own directory and try again",
            ));
        }
        let root = repository_root(cwd, host);
        if let Some(root) = &root
            && unfit(root, host).is_none()
        {
            let git = GitDir::of(root, host)?;
            let is_outside = |dir: &PathBuf| !dir.starts_with(root);
            return Ok(Self {
                git_config: Some(git.common.join("config")),
                alternates: alternates(&git.common)?.into_iter().filter(is_outside).collect(),
                git_dirs: git.outside.into_iter().filter(is_outside).collect(),
                ..Self::plain(cwd, root)?
            });
        }
        let reason = root.as_deref().and_then(|root| unfit(root, host));
        let finding = match (&root, reason) {
            (Some(root), Some(reason)) => Finding::plain(format!(
                "the repository `{}` is not used as a whole: {reason}; the session has only `{}`",
                root.display(),
                cwd.display()
            )),
            _ => not_a_repository(cwd, host),
        };
        Ok(Self { findings: vec![finding], ..Self::plain(cwd, cwd)? })
    }

    /// For a session that gets no directory: an empty one of the launcher's own, and whose the session is.
    pub(crate) fn empty(dir: &Path, owner: Owner) -> anyhow::Result<Self> {
        Ok(Self { owner, ..Self::plain(dir, dir)? })
    }

    /// A directory without git.
    fn plain(cwd: &Path, root: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            cwd: cwd.to_owned(),
            git_dirs: vec![],
            git_config: None,
            alternates: vec![],
            identity: identity(cwd, root)?,
            owner: owner(root)?,
            findings: vec![],
        })
    }

    /// The default name of a session: the repository's, with other letters where it would need quoting.
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

    /// The work tree and the git directories outside of it.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.root).chain(&self.git_dirs).map(PathBuf::as_path)
    }
}

/// The identity of `root`, which is `cwd` or above it. If the process is in `cwd`, the search begins there.
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

/// Why a directory has no repository around it, and what to do.
fn not_a_repository(cwd: &Path, host: &Host) -> Finding {
    let shown = cwd.display();
    let of_others = cwd.ancestors().find(|dir| fs::symlink_metadata(dir.join(".git")).is_ok());
    if let Some(meta) = of_others.and_then(|dir| fs::symlink_metadata(dir.join(".git")).ok())
        && meta.uid() != host.uid
    {
        return Finding::hinted(
            format!(
                "`{shown}` is in a repository of the user with the number {}, so git would not trust it either; the session \
                 has this directory alone",
                meta.uid()
            ),
            "work in a clone of your own",
        );
    }
    let bare =
        cwd.ancestors().find(|dir| ["HEAD", "objects", "refs"].iter().all(|part| dir.join(part).exists()));
    if let Some(bare) = bare {
        return Finding::hinted(
            format!(
                "`{}` is a bare repository, which has no files to work on; the session has `{shown}`",
                bare.display()
            ),
            format!("work in a clone: `git clone {} DIRECTORY`", quote(&bare.to_string_lossy())),
        );
    }
    Finding::hinted(
        format!("`{shown}`: it is not in a git repository; the session has this directory and no undo"),
        "`git init` makes it a repository",
    )
}

/// Why a directory cannot be a workspace.
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

/// The nearest directory at or above `from` with a `.git` that the user or root owns. In a shared directory, another
/// user's `.git` would give them the whole directory.
fn repository_root(from: &Path, host: &Host) -> Option<PathBuf> {
    let user = if host.uid == 0 { fs::metadata(from).ok()?.uid() } else { host.uid };
    from.ancestors()
        .find(|dir| {
            fs::symlink_metadata(dir.join(".git")).is_ok_and(|git| git.uid() == user || git.uid() == 0)
        })
        .map(Path::to_owned)
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
