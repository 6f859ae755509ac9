//! What a session is given of the repository's git directory: decided before it, laid out for it, and found again after it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::Context as _;

use super::{
    command::{Failure, Git},
    config::Config,
    private::{Bind, Decision, Private, Question, ReadOnly},
    programs::programs,
    repository::Repository,
    scan::{Seen, Top},
};
use crate::{
    config::{Access, GitAccess},
    files::Identity,
    host::{Host, Owner},
    workspace::Workspace,
    written::Written,
};

/// In the session's directory.
pub(crate) const DIRECTORY: &str = "git";

/// What was in the work tree before the session.
const SEEN: &str = "seen.json";

/// What a session has of git.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Everything to mount, each below the work tree's own mount or beside it.
    pub(crate) binds: Vec<Bind>,
    /// What a container needs to hand out the agent's commits; empty where there can be none.
    pub(crate) store: Vec<Bind>,
    /// What each of the host's own files among them was.
    pub(crate) identities: BTreeMap<PathBuf, Identity>,
    /// Why the agent cannot commit although it could by the settings.
    pub(crate) reason: Option<String>,
    /// Settings and hooks of the repository that name programs.
    pub(crate) programs: Vec<String>,
    /// Sockets in the work tree.
    pub(crate) sockets: Vec<PathBuf>,
    kind: Kind,
    seen: Option<(Seen, Top)>,
    git: Option<Git>,
}

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Own,
    ReadOnly(ReadOnly),
    Private(Private),
}

/// For whom it is decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) host: &'a Host,
    pub(crate) workspace: &'a Workspace,
    pub(crate) written: &'a Written,
    pub(crate) access: GitAccess,
    /// Where the session keeps what belongs to git, without links.
    pub(crate) dir: &'a Path,
}

impl Given {
    /// The host's own git directory, and no look at anything.
    pub(crate) fn shared(workspace: &Workspace) -> Self {
        let same = |dir: &PathBuf| Bind::same(dir, Access::ReadWrite);
        Self { binds: workspace.git_dirs.iter().map(same).collect(), ..Self::default() }
    }

    /// The host's own git directory as it is, read-only: for a script, which lays out nothing.
    ///
    /// # Errors
    /// It was exchanged.
    pub(crate) fn to_read(workspace: &Workspace) -> anyhow::Result<Self> {
        let Some(common) = workspace.git_config.as_ref().and_then(|config| config.parent()) else {
            return Ok(Self::default());
        };
        let repository = Repository::at(&workspace.root, common)?;
        let ReadOnly { binds, guards, .. } = ReadOnly::unread(&repository, &[], String::new());
        Self { binds: guards.into_iter().chain(binds).collect(), ..Self::default() }.identified(Path::new(""))
    }

    /// Looks at the repository and decides.
    ///
    /// # Errors
    /// The work tree cannot be read, or what is in it cannot be guarded.
    pub(crate) fn of(asked: &Asked<'_>) -> anyhow::Result<Self> {
        let Asked { host, workspace, written, access, .. } = asked;
        let root = &workspace.root;
        let common = workspace.git_config.as_ref().and_then(|config| config.parent());
        let top = if common.is_some() { Top::Repository } else { Top::Directory };
        let seen =
            Seen::look(root, top).with_context(|| format!("could not look at `{}`", root.display()))?;
        if *access == GitAccess::Shared {
            return Ok(Self { sockets: seen.sockets, ..Self::shared(workspace) });
        }
        let mut given = Self { sockets: seen.sockets.clone(), ..Self::default() };
        if let Some(common) = common {
            given.git = Git::find(host, written);
            given.decide(asked, &Repository::at(root, common)?, &seen)?;
        }
        given.seen = Some((seen, top));
        given.identified(asked.dir)
    }

    /// Notes what each bind is that is not to be made in `dir`.
    fn identified(mut self, dir: &Path) -> anyhow::Result<Self> {
        let is_there = |bind: &&Bind| dir.as_os_str().is_empty() || !bind.source.starts_with(dir);
        for bind in self.binds.iter().filter(is_there) {
            let identity = Identity::at(&bind.source).with_context(|| {
                format!(
                    "`{}` was exchanged for something else at this moment; try again",
                    bind.source.display()
                )
            })?;
            self.identities.insert(bind.source.clone(), identity);
        }
        Ok(self)
    }

    fn decide(&mut self, asked: &Asked<'_>, repository: &Repository, seen: &Seen) -> anyhow::Result<()> {
        let unread = |reason: String| Decision::ReadOnly(ReadOnly::unread(repository, &seen.nested, reason));
        let decision = match &self.git {
            None => unread("there is no `git` on this machine's `PATH`".to_owned()),
            Some(git) => {
                let (user, programs) = thread::scope(|scope| {
                    let programs = scope.spawn(|| programs(git, repository));
                    let user = Config::of_user(git, asked.host);
                    (user, programs.join().expect("asking git does not panic"))
                });
                self.programs = programs.unwrap_or_default();
                let question = Question {
                    git,
                    repository,
                    user: &user,
                    nested: &seen.nested,
                    uid: asked.host.uid,
                    dir: asked.dir,
                };
                let decided = match asked.access {
                    GitAccess::ReadOnly => question.decide_read_only(),
                    GitAccess::Private | GitAccess::Shared => question.decide(),
                };
                match decided {
                    Err(error) if error.chain().any(<dyn std::error::Error>::is::<Failure>) => {
                        unread(format!("{error:#}"))
                    }
                    other => other?,
                }
            }
        };
        match decision {
            Decision::Private(private) => {
                self.binds = private.guards.iter().chain(&private.store).cloned().collect();
                self.store.clone_from(&private.store);
                self.kind = Kind::Private(private);
            }
            Decision::ReadOnly(read_only) => {
                self.binds = read_only.guards.iter().chain(&read_only.binds).cloned().collect();
                self.reason = (asked.access == GitAccess::Private).then(|| read_only.reason.clone());
                self.kind = Kind::ReadOnly(read_only);
            }
        }
        Ok(())
    }

    /// Lays it out for the session of this name, and returns what was made, with what it is. `owner` is who runs inside,
    /// where that is another user.
    pub(crate) fn lay_out(
        &self,
        dir: &Path,
        name: &str,
        owner: Option<Owner>,
    ) -> anyhow::Result<Vec<(Bind, Identity)>> {
        let Some((seen, top)) = &self.seen else { return Ok(vec![]) };
        fs::create_dir_all(dir).with_context(|| format!("could not create `{}`", dir.display()))?;
        match (&self.kind, &self.git) {
            (Kind::Private(private), Some(git)) => drop(private.lay_out(git, dir, name, owner)?),
            (Kind::ReadOnly(read_only), _) => read_only.lay_out(dir, owner)?,
            _ => {}
        }
        let path = dir.join(SEEN);
        fs::write(&path, serde_json::to_vec(&(seen, *top))?)
            .with_context(|| format!("could not write `{}`", path.display()))?;
        let made = self.binds.iter().filter(|bind| bind.source.starts_with(dir));
        made.map(|bind| {
            let identity = Identity::at(&bind.source)
                .with_context(|| format!("could not look at `{}`", bind.source.display()))?;
            Ok((bind.clone(), identity))
        })
        .collect()
    }

    /// Whether the agent has a git directory of its own, or can only read the host's; nothing where neither is so.
    pub(crate) fn is_private(&self) -> Option<bool> {
        match self.kind {
            Kind::Private(_) => Some(true),
            Kind::ReadOnly(_) => Some(false),
            Kind::Own => None,
        }
    }

    /// The git that takes over the agent's commits, where there can be some.
    pub(crate) fn git(&self) -> Option<&Git> {
        self.git.as_ref().filter(|_| !self.store.is_empty())
    }
}

/// What was in the work tree before the session whose directory for git this is.
pub(crate) fn seen_before(dir: &Path) -> Option<(Seen, Top)> {
    serde_json::from_slice(&fs::read(dir.join(SEEN)).ok()?).ok()
}
