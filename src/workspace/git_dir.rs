//! Finds the git directory of a work tree, and checks that it points back.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;

use super::unfit;
use crate::{files::read_small, host::Host, report::Hinted};

/// A repository's git directory.
pub(super) struct GitDir {
    /// Holds objects, refs and the config.
    pub(super) common: PathBuf,
    /// Directories to mount besides the work tree.
    pub(super) outside: Vec<PathBuf>,
}

impl GitDir {
    /// Reads files only: a git of the host would run commands that the repository names.
    pub(super) fn of(root: &Path, host: &Host) -> anyhow::Result<Self> {
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

    /// A linked worktree: `.git` → `MAIN/.git/worktrees/NAME`, whose `gitdir` must name our `.git`. Otherwise a
    /// repository could mount any directory of the host by writing one line.
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

    /// A submodule: `.git` → `SUPER/.git/modules/NAME`, whose `core.worktree` must name our root.
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
        "start `pi` in the main work tree, or repair this one with `git worktree repair`",
    )
}

/// The path in a one-line file of git's, after `prefix`.
fn pointer(file: &Path, prefix: Option<&str>) -> anyhow::Result<Option<PathBuf>> {
    let Some(text) = read_small(file)? else { return Ok(None) };
    let line = text.trim_end_matches(['\n', '\r']);
    // Git writes one line; others could only be meant to deceive a reader.
    if line.contains(['\n', '\r']) {
        return Ok(None);
    }
    let path = match prefix {
        Some(prefix) => line.strip_prefix(prefix).map(|rest| rest.strip_prefix(' ').unwrap_or(rest)),
        None => Some(line),
    };
    Ok(path.filter(|path| !path.is_empty()).map(PathBuf::from))
}

/// The value of `core.worktree` in a config that git has written.
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

/// The absolute paths of other object stores that git reads.
pub(super) fn alternates(common: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let objects = common.join("objects");
    let text = read_small(&objects.join("info/alternates"))?.unwrap_or_default();
    Ok(text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| normal(&objects.join(line)))
        .collect())
}

/// `path` without `.` and `..`, and without links if it exists.
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
