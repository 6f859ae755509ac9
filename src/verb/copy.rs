//! What the verbs for copies share: the copy that is meant, and its work brought in.

use std::path::PathBuf;

use anyhow::Context as _;

use super::diff::short;
use crate::{
    copies::{self, Copy, Held},
    docker::Docker,
    git::{command::Git, copy::back::tip, repository::Repository},
    launcher::{Launcher, cloning::repository},
    report::{self, Finding, Hinted},
    session::copy::Reach,
    workspace::Workspace,
    written::Written,
};

/// A copy of the repository around the current directory.
pub(super) struct At {
    pub(super) git: Git,
    pub(super) docker: Docker,
    pub(super) repository: Repository,
    pub(super) workspace: Workspace,
    pub(super) dir: PathBuf,
    pub(super) copy: Copy,
}

impl At {
    /// The copy of this name; without one, the only copy.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub(super) fn find(launcher: &Launcher, name: Option<&str>) -> anyhow::Result<Self> {
        let config = launcher.config()?;
        let host = &launcher.host;
        let workspace = Workspace::find(host)?;
        let repository = repository(&workspace)?;
        let (dir, copy) = copies::find(host, &workspace.root, name)?;
        let written = Written::load(host).and(workspace.dirs()).and_around(host);
        let git = Git::find(host, &written).context("there is no `git` on the `PATH`")?;
        let docker = Docker::find(&config.docker, host, &written)?;
        if copy.engine != docker.address() {
            host.engine_at(&copy.engine).check()?;
        }
        let docker = docker.at(&copy.engine).heeding(&launcher.signals);
        Ok(Self { git, docker, repository, workspace, dir, copy })
    }

    pub(super) fn reach<'a>(&'a self, launcher: &'a Launcher) -> Reach<'a> {
        Reach { docker: &self.docker, host: &launcher.host, git: &self.git }
    }

    /// Takes the copy, and brings in what a killed session has left in it. While a session works on the copy, nobody else
    /// gets it, and what has come before stands.
    ///
    /// # Errors
    /// Nothing has come yet.
    pub(super) fn bring_in(&self, launcher: &Launcher) -> anyhow::Result<Option<Held>> {
        let name = &self.copy.name;
        let Some(mut held) = Held::take(&self.dir)? else {
            if self.copy.result().is_none() {
                return Err(Hinted::error(
                    format!("a session works on the copy `{name}`, and nothing has come of it yet"),
                    "its work comes when the session ends",
                ));
            }
            report::warn(format_args!("a session works on the copy `{name}`: this is what came before"));
            return Ok(None);
        };
        if let Err(error) = self.reach(launcher).bring_in(&mut held) {
            if self.copy.result().is_none() {
                return Err(error);
            }
            Finding::hinted(format!("{error:#}"), "this is what came before").warn();
        }
        Ok(Some(held))
    }

    /// The newest commit of a branch.
    ///
    /// # Errors
    /// The branch is gone.
    pub(super) fn tip(&self, named: &str) -> anyhow::Result<String> {
        tip(&self.git, &self.repository, named).ok_or_else(|| {
            Hinted::error(
                format!("there is no branch {} any more", branch(named)),
                format!("`pi drop {}` removes the copy", self.copy.name),
            )
        })
    }

    /// The branch with the copy's work, by its full name, and the commit of what was copied.
    ///
    /// # Errors
    /// Nothing has come of the copy.
    pub(super) fn result(&self, held: Option<&Held>) -> anyhow::Result<(String, String)> {
        let copy = held.and_then(|held| held.copy.as_ref()).unwrap_or(&self.copy);
        match (copy.result(), &copy.base) {
            (Some((branch, _)), Some(base)) => Ok((branch.to_owned(), base.clone())),
            _ => Err(Hinted::error(
                format!("no agent has changed anything in the copy `{}` yet", copy.name),
                format!("`pi --clone={}` starts one", copy.name),
            )),
        }
    }
}

/// A branch's name in a message.
pub(super) fn branch(name: &str) -> String {
    format!("`{}`", short(name))
}
