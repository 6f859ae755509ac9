//! Files of the repository that sessions must not see.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::io::Errno;

use crate::{agent_dir::notice::Notice, config::Patterns, git::private::Bind, host::Owner, report::Hinted};

/// More mounts than this would slow down the start of a container.
const MOST: usize = 256;

/// How many entries are looked at for a hint.
const LOOKED_AT: usize = 2000;

/// What is shadowed in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) path: PathBuf,
    pub(crate) is_directory: bool,
}

/// Finds what the patterns name below `root`. `who` is who the agent is, and `asked` are the user's own mounts.
///
/// # Errors
/// A directory that the agent could look into cannot be looked into, or too much is to be hidden.
pub(super) fn hidden(
    root: &Path,
    hide: &Patterns,
    who: Owner,
    asked: &[Bind],
) -> anyhow::Result<Vec<Hidden>> {
    let mut found = Vec::new();
    let mut pending = if hide.is_empty() { vec![] } else { vec![root.to_owned()] };
    while let Some(dir) = pending.pop() {
        // What the user mounts there is theirs, whatever its names.
        if asked.iter().any(|bind| dir.starts_with(&bind.target)) {
            continue;
        }
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if is_out_of_reach(&dir, &error, who) => continue,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("could not look into `{}` for files to hide", dir.display()));
            }
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("could not read `{}`", dir.display()))?;
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if entry.file_name() == ".git" {
                continue;
            }
            let relative = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes();
            if !hide.name(relative, kind.is_dir()) {
                if kind.is_dir() {
                    pending.push(path);
                }
                continue;
            }
            found.extend(shadowed(root, path, kind));
            if found.len() > MOST {
                bail!(Hinted::error(
                    format!("`hide` in the settings matches more than {MOST} files of this repository"),
                    "name the directory that holds them, as in `hide = [\"private/\"]`, or write narrower patterns",
                ));
            }
        }
    }
    found.retain(|hidden| !asked.iter().any(|bind| hidden.path.starts_with(&bind.target)));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup();
    // One that lies in a hidden directory, since a link led there.
    let all = found.clone();
    found.retain(|one| !all.iter().any(|other| one.path != other.path && one.path.starts_with(&other.path)));
    for hidden in &found {
        if hidden.path.to_str().is_none_or(|text| text.contains('\r')) {
            bail!(
                "could not hide `{}`: docker takes paths in UTF-8 without carriage returns only",
                hidden.path.display()
            );
        }
    }
    Ok(found)
}

/// What there is to shadow for an entry. A mount on a link would land where the link leads, and nothing outside of the
/// repository can be seen by it.
fn shadowed(root: &Path, path: PathBuf, kind: fs::FileType) -> Option<Hidden> {
    if kind.is_symlink() {
        let real = fs::canonicalize(path).ok()?;
        let inside = real.strip_prefix(root).ok()?;
        let meta = fs::metadata(&real).ok()?;
        let is_shown = !inside.as_os_str().is_empty() && !inside.starts_with(".git");
        return (is_shown && (meta.is_file() || meta.is_dir()))
            .then_some(Hidden { path: real, is_directory: meta.is_dir() });
    }
    // Sockets and pipes hold nothing.
    (kind.is_file() || kind.is_dir()).then_some(Hidden { path, is_directory: kind.is_dir() })
}

/// Whether the agent cannot look into a directory either, or nobody can.
fn is_out_of_reach(dir: &Path, error: &io::Error, who: Owner) -> bool {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => true,
        Some(Errno::ACCESS) => fs::symlink_metadata(dir).is_ok_and(|meta| meta.uid() != who.uid),
        _ => false,
    }
}

/// A hint, where a repository has files that mostly hold secrets. It is told once.
pub(super) fn hint(root: &Path) -> Option<Notice> {
    let mut left = LOOKED_AT;
    let mut level = vec![root.to_owned()];
    while !level.is_empty() {
        let mut below = Vec::new();
        for entry in level.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
            left = left.checked_sub(1)?;
            let Ok(kind) = entry.file_type() else { continue };
            let name = entry.file_name();
            if kind.is_dir() && name != ".git" && name != "node_modules" {
                below.push(entry.path());
            } else if !kind.is_dir() && holds_secrets(name.as_bytes()) {
                let path = entry.path();
                let relative = path.strip_prefix(root).unwrap_or(&path);
                return Some(
                    Notice::new(
                        format!("the agent can read `{}`", crate::report::one_line(&relative.to_string_lossy())),
                        "`hide = [\".env*\"]` in the settings shadows such files with empty ones; `hide = []` says that \
                         you want them seen",
                    )
                    .once(format!("env {}", root.display())),
                );
            }
        }
        level = below;
    }
    None
}

/// `.env` and `.env.local`, but not the examples that repositories carry.
fn holds_secrets(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b".env") else { return false };
    let harmless: [&[u8]; 5] = [b".example", b".sample", b".template", b".dist", b".defaults"];
    (rest.is_empty() || rest.starts_with(b".")) && !harmless.iter().any(|end| rest.ends_with(end))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::{Access, Pattern};

    fn world() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap().join("repo");
        for path in [".git", "app/config", "private", "mounted", "deep/a/b"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in
            [".env", "app/.env.local", ".git/.env", "private/key", "mounted/.env", "deep/a/b/.env", "app/x"]
        {
            fs::write(root.join(path), "secret").unwrap();
        }
        (dir, root)
    }

    fn found(root: &Path, patterns: &[&str], asked: &[Bind]) -> Vec<String> {
        let hide = Patterns::new(patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect());
        let who = Owner { uid: rustix::process::getuid().as_raw(), gid: 0 };
        let found = hidden(root, &hide, who, asked).unwrap();
        let shown = |hidden: Hidden| {
            let path = hidden.path.strip_prefix(root).unwrap().display().to_string();
            if hidden.is_directory { path + "/" } else { path }
        };
        found.into_iter().map(shown).collect()
    }

    #[test]
    fn files_are_found_at_any_depth_but_not_in_git_and_not_in_the_users_own_mounts() {
        let (_dir, root) = world();
        let bind = Bind { source: "/x".into(), target: root.join("mounted"), access: Access::ReadOnly };
        assert_eq!(
            found(&root, &[".env*", "private/"], &[bind]),
            [".env", "app/.env.local", "deep/a/b/.env", "private/"]
        );
        assert!(found(&root, &[], &[]).is_empty());
    }

    #[test]
    fn a_link_hides_what_it_leads_to_inside_of_the_repository() {
        let (dir, root) = world();
        fs::write(dir.path().join("outside"), "x").unwrap();
        symlink("app/x", root.join("a.key")).unwrap();
        symlink("../outside", root.join("b.key")).unwrap();
        symlink("missing", root.join("c.key")).unwrap();
        symlink("..", root.join("d.key")).unwrap();
        symlink(".git/.env", root.join("e.key")).unwrap();
        symlink("private/key", root.join("f.key")).unwrap();
        assert_eq!(found(&root, &["*.key", "private"], &[]), ["app/x", "private/"]);
    }

    #[test]
    fn a_hint_names_the_nearest_file_that_mostly_holds_secrets() {
        let (_dir, root) = world();
        let said = hint(&root).unwrap();
        assert_eq!(said.text, "the agent can read `.env`");
        for path in [".env", "app/.env.local", "mounted/.env", "deep/a/b/.env"] {
            fs::rename(root.join(path), root.join(path).with_file_name(".env.example")).unwrap();
        }
        fs::create_dir_all(root.join("node_modules/x")).unwrap();
        fs::write(root.join("node_modules/x/.env"), "").unwrap();
        assert_eq!(hint(&root), None);
    }
}
