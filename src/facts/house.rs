//! House rules: text and extensions of the user's, for repositories that bring none of their own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::look::Look;
use crate::{agent, report::Finding};

/// What the agent is given where the repository brings nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct House {
    pub(crate) rules: Rules,
    /// The directory, and the extensions in it by what the agent is to load.
    pub(crate) extensions: Option<(PathBuf, Vec<String>)>,
}

/// Instructions for the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Rules {
    /// The repository has its own.
    #[default]
    Theirs,
    /// A file of the user's.
    Own(PathBuf),
    /// The ones in the image.
    Ours,
}

/// Files of the user's and of repositories', beside the settings.
const RULES: &str = "AGENTS.md";
const EXTENSIONS: &str = "extensions";

/// The largest file that is given to a model.
const LARGEST: u64 = 256 << 10;

/// Nobody has more extensions.
const MANY: usize = 100;

impl House {
    /// Files that are mounted.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let rules = match &self.rules {
            Rules::Own(path) => Some(path.clone()),
            Rules::Theirs | Rules::Ours => None,
        };
        rules.into_iter().chain(self.extensions.iter().map(|(dir, _)| dir.clone()))
    }
}

impl Look<'_> {
    /// `has_own` tells whether the agent's directory has instructions of the user's: they hold everywhere.
    pub(super) fn house(&self, has_own: bool) -> (House, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut keep = |found: Result<Option<PathBuf>, Finding>| {
            found.map_err(|finding| findings.push(finding)).unwrap_or_default()
        };
        let rules = if self.is_there(&agent::INSTRUCTIONS) {
            Rules::Theirs
        } else {
            match keep(self.beside_settings(RULES, |meta| meta.is_file() && meta.len() <= LARGEST)) {
                Some(path) => Rules::Own(path),
                None if has_own => Rules::Theirs,
                None => Rules::Ours,
            }
        };
        let brings_extensions = self.is_there(&[agent::PROJECT_EXTENSIONS]);
        let dir = if brings_extensions {
            None
        } else {
            keep(self.beside_settings(EXTENSIONS, fs::Metadata::is_dir))
        };
        let extensions = dir.and_then(|dir| match extensions(&dir) {
            Ok((names, links)) => {
                findings.extend(links.iter().map(|link| {
                    Finding::plain(format!("`{}` is a link, so sessions do not have it", link.display()))
                }));
                (!names.is_empty()).then_some((dir, names))
            }
            Err(error) => {
                findings.push(Finding::plain(format!("could not read `{}`: {error}", dir.display())));
                None
            }
        });
        (House { rules, extensions }, findings)
    }

    /// Whether one of these is between the agent's directory and the repository's top.
    fn is_there(&self, names: &[&str]) -> bool {
        let dirs = self.workspace.cwd.ancestors().take_while(|dir| dir.starts_with(&self.workspace.root));
        dirs.flat_map(|dir| names.iter().map(|name| dir.join(name))).any(|path| path.exists())
    }

    fn beside_settings(
        &self,
        name: &str,
        is_fit: impl Fn(&fs::Metadata) -> bool,
    ) -> Result<Option<PathBuf>, Finding> {
        let path = self.host.config_file().with_file_name(name);
        let real = self.written.follow(&path).map_err(|astray| {
            Finding::plain(format!("{astray}: the agent does not have `{}`", path.display()))
        })?;
        if let Some(dir) = self.written.holds(&real) {
            let (path, dir) = (path.display(), dir.display());
            return Err(Finding::plain(format!(
                "`{path}` is in `{dir}`, where agents can write: the agent does not have it"
            )));
        }
        match fs::metadata(&real) {
            Ok(meta) if is_fit(&meta) => Ok(Some(real)),
            Ok(_) => Err(Finding::plain(format!(
                "`{}` is too large, or not what its name says: the agent does not have it",
                path.display()
            ))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(Finding::plain(format!("could not look at `{}`: {error}", path.display()))),
        }
    }
}

/// What the agent would load from a directory of extensions, and the links in it.
fn extensions(dir: &Path) -> io::Result<(Vec<String>, Vec<PathBuf>)> {
    let mut found = Vec::new();
    let mut links = Vec::new();
    for entry in fs::read_dir(dir)?.take(MANY) {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let Some(name) =
            path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'))
        else {
            continue;
        };
        let is_code = || path.extension().is_some_and(|ending| ending == "ts" || ending == "js");
        if kind.is_symlink() {
            links.push(path.clone());
        } else if kind.is_file() && is_code() {
            found.push(name.to_owned());
        } else if kind.is_dir() {
            // A directory alone would be taken for a package.
            let index = ["index.ts", "index.js"].into_iter().find(|index| path.join(index).is_file());
            match index {
                Some(index) => found.push(format!("{name}/{index}")),
                None if path.join("package.json").is_file() => found.push(name.to_owned()),
                None => {}
            }
        }
    }
    found.sort();
    Ok((found, links))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_would_load_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        for path in ["b.ts", "a.js", "notes.md", ".hidden.ts", "d/index.ts", "e/package.json", "f/other.ts"] {
            write(path);
        }
        std::os::unix::fs::symlink("a.js", dir.path().join("c.js")).unwrap();
        let (found, links) = extensions(dir.path()).unwrap();
        assert_eq!(found, ["a.js", "b.ts", "d/index.ts", "e"]);
        assert_eq!(links, [dir.path().join("c.js")]);
    }
}
