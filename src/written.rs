//! Directories that agents of this user could write. A link there may lead anywhere, and a program there may be an
//! agent's.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fmt, fs,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    files::{read_small_bytes, replace},
    host::Host,
    record::directory_lock,
    workspace::unfit,
};

/// How many links one path may lead through; the kernel's own limit.
const LINKS: usize = 40;

/// From this many bytes on, the list drops directories that no longer exist.
const MANY: usize = 1 << 19;

/// Directories in which an agent may have planted something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Written {
    dirs: Vec<PathBuf>,
}

/// A path that an agent may have bent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Astray {
    link: PathBuf,
    dir: PathBuf,
}

impl fmt::Display for Astray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is a link in `{}`, where an agent can write", self.link.display(), self.dir.display())
    }
}

impl std::error::Error for Astray {}

impl Written {
    /// Reads the directories that sessions on this machine could write. The agent's own directory is one of them.
    pub(crate) fn load(host: &Host) -> Self {
        let text = read_small_bytes(&host.state_dir().join(DIRS)).ok().flatten().unwrap_or_default();
        let mut dirs: Vec<PathBuf> = entries(&text).map(|path| OsStr::from_bytes(path).into()).collect();
        dirs.extend(fs::canonicalize(host.agent_dir()));
        Self { dirs }
    }

    /// Adds the repositories around the current directory. No session may have had them yet, but their author could have
    /// put the same things there.
    pub(crate) fn and_around(mut self, host: &Host) -> Self {
        let Ok(cwd) = fs::canonicalize(&host.cwd) else { return self };
        let is_repository = |dir: &&Path| dir.join(".git").symlink_metadata().is_ok();
        let fit = cwd.ancestors().filter(is_repository).filter(|dir| unfit(dir, host).is_none());
        self.dirs.extend(fit.map(Path::to_owned));
        self
    }

    /// The absolute entries of the `PATH` that no agent could write. Docker and git find their own helpers there, too.
    pub(crate) fn search_path(&self, host: &Host) -> OsString {
        let path = host.env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        // With a relative entry, the repository's author would choose the program.
        let dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute() && self.is_fit(dir));
        std::env::join_paths(dirs).unwrap_or_default()
    }

    pub(crate) fn is_fit(&self, path: &Path) -> bool {
        self.follow(path).is_ok_and(|real| self.holds(&real).is_none())
    }

    /// Adds these directories.
    pub(crate) fn and<'a>(mut self, dirs: impl IntoIterator<Item = &'a Path>) -> Self {
        self.dirs.extend(dirs.into_iter().map(Path::to_owned));
        self
    }

    /// Records that a session is about to have these directories. They are never forgotten while they exist.
    pub(crate) fn remember<'a>(host: &Host, dirs: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<()> {
        let path = host.state_dir().join(DIRS);
        let read = || read_small_bytes(&path).map(Option::unwrap_or_default);
        let is_known = |text: &[u8], dir: &[u8]| entries(text).any(|one| one == dir);
        let more: Vec<&[u8]> = dirs.into_iter().map(|dir| dir.as_os_str().as_bytes()).collect();
        let text = read()?;
        if more.iter().all(|dir| is_known(&text, dir)) {
            return Ok(());
        }
        let _directory = directory_lock(host)?;
        let mut text = read()?;
        if text.len() > MANY {
            let there = |path: &&[u8]| Path::new(OsStr::from_bytes(path)).exists();
            text = entries(&text).filter(there).flat_map(|path| path.iter().chain(&[0])).copied().collect();
        }
        for dir in more {
            if !is_known(&text, dir) {
                text.extend_from_slice(dir);
                text.push(0);
            }
        }
        replace(&path, &text).with_context(|| format!("could not write `{}`", path.display()))
    }

    /// The listed directory that holds a path without links.
    pub(crate) fn holds(&self, real: &Path) -> Option<&Path> {
        self.dirs.iter().map(PathBuf::as_path).find(|dir| real.starts_with(dir))
    }

    /// Resolves a path, but refuses links that an agent may have made. A part that does not exist keeps its name.
    pub(crate) fn follow(&self, path: &Path) -> Result<PathBuf, Astray> {
        let mut rest: VecDeque<OsString> = parts(path).collect();
        let mut real = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&part);
            let Ok(target) = fs::read_link(&next) else {
                real = next;
                continue;
            };
            links += 1;
            if let Some(dir) = self.holds(&real) {
                return Err(Astray { link: next, dir: dir.to_owned() });
            }
            if links > LINKS {
                return Err(Astray { link: next, dir: real });
            }
            if target.is_absolute() {
                real = PathBuf::from("/");
            }
            for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                rest.push_front(part);
            }
        }
        Ok(real)
    }

    /// Finds a program on the `PATH`, or by its absolute path, that no agent can have put there.
    pub(crate) fn program(&self, name: &str, host: &Host) -> Option<PathBuf> {
        let mut found = which::which_in_all(name, Some(self.search_path(host)), "/").ok()?;
        found.find(|program| self.is_fit(program))
    }
}

/// Where a path of the launcher's own leads, be it there or not.
pub(crate) fn real(path: &Path) -> PathBuf {
    Written::default().follow(path).unwrap_or_else(|_| path.to_owned())
}

/// The list; each entry ends with NUL.
const DIRS: &str = "written";

fn entries(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == 0).filter(|entry| !entry.is_empty())
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_but_for_those_that_an_agent_may_have_made() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(base.join("repo/data/deep")).unwrap();
        fs::create_dir_all(base.join("keys")).unwrap();
        symlink("repo/data", base.join("mine")).unwrap();
        symlink("../keys", base.join("repo/planted")).unwrap();
        symlink("round", base.join("round")).unwrap();
        let written = Written::default().and([base.join("repo").as_path()]);
        let follow = |path: &str| written.follow(&base.join(path));
        assert_eq!(follow("mine/deep/../new"), Ok(base.join("repo/data/new")));
        assert_eq!(Written::default().follow(&base.join("repo/planted/id")), Ok(base.join("keys/id")));
        let astray = Astray { link: base.join("repo/planted"), dir: base.join("repo") };
        assert_eq!(follow("repo/planted/id"), Err(astray.clone()));
        assert_eq!(follow("mine/../planted"), Err(astray));
        assert!(follow("round").is_err());
    }

    #[test]
    fn a_program_that_an_agent_may_have_put_there_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        let programs = ["repo/bin/tool", "own/tool", "repo/other"].map(|path| base.join(path));
        for program in &programs {
            fs::create_dir_all(program.parent().unwrap()).unwrap();
            fs::write(program, "").unwrap();
            let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(program, all).unwrap();
        }
        symlink("../repo/other", base.join("own/other")).unwrap();
        let mut host = Host::for_tests();
        let path = format!("{0}/repo/bin:bin:{0}/own", base.display());
        host.env.insert("PATH".into(), path.into());
        let written = Written::default().and([base.join("repo").as_path()]);
        assert_eq!(written.program("tool", &host), Some(base.join("own/tool")));
        assert_eq!(Written::default().program("tool", &host), Some(base.join("repo/bin/tool")));
        assert_eq!(written.program("other", &host), None);
        assert_eq!(written.program(programs[0].to_str().unwrap(), &host), None);
    }
}
