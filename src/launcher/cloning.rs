//! A session that works on a copy of the repository, from the options to the branch at its end.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;

use super::{Launcher, Prepared};
use crate::{
    config::{Config, Patterns},
    copies::{self, Copy, Held, Place},
    docker::Docker,
    git::{
        command::Git,
        copy::contents::{Contents, Wanted},
        repository::Repository,
    },
    host::{Host, seconds},
    plan::Copied,
    purpose::{Program, Purpose},
    report::{self, Finding, Hinted, one_line},
    session::copy::{Reach, begin, tell},
    workspace::Workspace,
    written::Written,
};

/// How long another process may be bringing the copy's work in.
const OTHERS: Duration = Duration::from_secs(10);

/// How many names a message lists.
const NAMED: usize = 8;

/// The repository, and the copy that a session works on.
pub(crate) struct Cloning {
    pub(crate) git: Git,
    repository: Repository,
    place: Place,
    pub(crate) copied: Copied,
    hide: Patterns,
    ignored: Patterns,
}

impl Cloning {
    /// What `--clone` asks for, if it does.
    ///
    /// # Errors
    /// There is no repository to copy, or no git.
    pub(crate) fn of(
        config: &Config,
        host: &Host,
        workspace: &Workspace,
        program: &Program,
    ) -> anyhow::Result<Option<Self>> {
        let Some(name) = &config.clone else { return Ok(None) };
        if program.purpose == Purpose::SetUp {
            return Err(Hinted::usage(
                "`--clone` has no effect on a command that changes the agent's own set-up",
            ));
        }
        let written = Written::load(host).and(workspace.dirs()).and_around(host);
        let git = Git::find(host, &written).context("`--clone` needs `git` on the `PATH`")?;
        let repository = repository(workspace)?;
        let place = Place::of(host, &workspace.root, name);
        let copied = Copied { name: name.to_owned(), volume: place.volume.clone(), tale: String::new() };
        let mut cloning = Self {
            git,
            repository,
            place,
            copied,
            hide: config.hide.clone().unwrap_or_default(),
            ignored: config.copy_ignored.clone(),
        };
        cloning.copied.tale = cloning.tale(host)?;
        Ok(Some(cloning))
    }

    fn contents(&self, host: &Host) -> anyhow::Result<Contents> {
        let Self { git, repository, hide, ignored, .. } = self;
        Contents::of(&Wanted { git, host, repository, hide, ignored })
    }

    /// What would be done, for a dry run.
    fn tale(&self, host: &Host) -> anyhow::Result<String> {
        let name = &self.copied.name;
        let known = copies::all(host).into_iter().find(|(dir, _)| *dir == self.place.dir);
        if let Some((_, Copy { base: Some(_), .. })) = known {
            return Ok(format!(
                "The copy `{name}` is there already, with what earlier sessions have made of it."
            ));
        }
        let contents = self.contents(host)?;
        let (files, bytes) = contents.size();
        let commit = match contents.commit() {
            Some(commit) => format!("the history of {}", &commit[..commit.len().min(12)]),
            None => "no history".to_owned(),
        };
        let branch = contents.branch().map(|branch| format!(" as the branch `{branch}`")).unwrap_or_default();
        let mut tale = format!(
            "`pi` copies into the volume `{}` first, and this does not: {commit}{branch}, and {files} files as they are in \
             the work tree, {} KiB.",
            self.copied.volume,
            bytes.div_ceil(1024)
        );
        if !contents.left_out.is_empty() {
            tale += "\nNot in the copy: ";
            tale += &names(&contents);
        }
        Ok(format!("{tale}\nAt the end it brings the agent's work into the branch `pi/{name}`."))
    }

    /// Takes the copy for this session.
    fn hold(&self, launcher: &Launcher, prepared: &Prepared, docker: &Docker) -> anyhow::Result<Held> {
        let name = &self.copied.name;
        let mut held = Held::take_within(&self.place.dir, name, OTHERS)?;
        match &held.copy {
            Some(copy) if copy.base.is_some() => {
                if copy.engine != docker.address() {
                    return Err(Hinted::error(
                        format!("the copy `{name}` is on another engine, `{}`", one_line(&copy.engine)),
                        "choose another name with `--clone=NAME`, or set `DOCKER_HOST`",
                    ));
                }
                if copy.owner() != prepared.who {
                    return Err(Hinted::error(
                        format!("the files of the copy `{name}` belong to the user {}", copy.uid),
                        "choose another name with `--clone=NAME`",
                    ));
                }
            }
            other => {
                let volume = &self.place.volume;
                if other.is_none() && docker.has_volume(volume)? {
                    return Err(Hinted::error(
                        format!(
                            "there is a copy `{name}` in the volume `{volume}`, and its record is lost: what is in it stays there"
                        ),
                        format!(
                            "choose another name with `--clone=NAME`; `docker volume rm {volume}` removes it with all that is in it"
                        ),
                    ));
                }
                let now = seconds(SystemTime::now());
                held.save(Copy {
                    name: name.clone(),
                    repository: self.repository.work_tree.clone(),
                    common: self.repository.common.clone(),
                    engine: docker.address().to_owned(),
                    volume: self.place.volume.clone(),
                    image: String::new(),
                    uid: prepared.who.uid,
                    gid: prepared.who.gid,
                    runtime: prepared.config.runtime.clone(),
                    made: now,
                    used: now,
                    base: None,
                    pending: false,
                    size: None,
                    branches: [].into(),
                    shown: None,
                    applied: None,
                })?;
            }
        }
        launcher.signals.check()?;
        Ok(held)
    }

    /// Makes the copy ready for an agent from this image.
    fn make_ready(
        &self,
        launcher: &Launcher,
        prepared: &Prepared,
        docker: &Docker,
        held: &mut Held,
        image: &str,
    ) -> anyhow::Result<()> {
        let reach = Reach { docker, host: &launcher.host, git: &self.git };
        let mut copy = held.copy.clone().context("there is no copy")?;
        image.clone_into(&mut copy.image);
        let is_whole = copy.base.is_some();
        held.save(copy)?;
        if is_whole {
            reach.wait_until_free(held)?;
            // Of a session that was killed.
            if let Err(error) = reach.bring_in(held) {
                report::warn(format_args!("{error:#}"));
            }
        } else {
            let contents = self.contents(&launcher.host)?;
            if !contents.left_out.is_empty() {
                Finding::plain(format!(
                    "submodules and other repositories are not in the copy: {}",
                    names(&contents)
                ))
                .warn();
            }
            let workspace = &prepared.workspace;
            let within =
                workspace.cwd.strip_prefix(&workspace.root).unwrap_or(Path::new("")).to_string_lossy();
            reach.fill(held, &self.repository, &contents, &within, &launcher.signals)?;
        }
        begin(held, image)
    }

    /// Runs a session on the copy, and brings its work in.
    pub(super) fn run(
        &self,
        launcher: &Launcher,
        prepared: &Prepared,
        docker: &Docker,
        lives_on: &Cell<bool>,
        session: impl FnOnce(&dyn Fn(&str) -> anyhow::Result<()>) -> anyhow::Result<u8>,
    ) -> anyhow::Result<u8> {
        let held = RefCell::new(self.hold(launcher, prepared, docker)?);
        let is_refused = Cell::new(false);
        let outcome = session(&|image| {
            let ready = self.make_ready(launcher, prepared, docker, &mut held.borrow_mut(), image);
            is_refused.set(ready.is_err());
            ready
        });
        if lives_on.get() {
            return outcome;
        }
        let mut held = held.into_inner();
        if held.copy.as_ref().is_some_and(|copy| copy.base.is_none()) {
            // Nothing of an agent's is in it.
            let reach = Reach { docker, host: &launcher.host, git: &self.git };
            if let Err(error) = reach.drop_copy(held) {
                report::warn(format_args!("{error:#}"));
            }
            return outcome;
        }
        if is_refused.get() {
            // This session has done nothing.
            return outcome;
        }
        let reach = Reach { docker, host: &launcher.host, git: &self.git };
        match reach.bring_in(&mut held) {
            // Its work is a table.
            Ok(_) if prepared.program.purpose == Purpose::Demo => {}
            Ok(true) => held.copy.iter().for_each(|copy| tell(&self.git, copy)),
            Ok(false) => {}
            Err(error) => Finding::hinted(
                format!("{error:#}"),
                format!("it stays in the copy; `pi diff {}` and the next `pi` try again", self.copied.name),
            )
            .warn(),
        }
        outcome
    }
}

/// The repository that a session's directory is in.
///
/// # Errors
/// There is none.
pub(crate) fn repository(workspace: &Workspace) -> anyhow::Result<Repository> {
    let common = workspace.git_config.as_ref().and_then(|config| config.parent());
    let common = common.ok_or_else(|| {
        Hinted::error(
            format!("`{}` is not in a git repository, so there is nothing to copy", workspace.root.display()),
            "`git init` makes it one",
        )
    })?;
    Repository::at(&workspace.root, common)
}

fn names(contents: &Contents) -> String {
    let all = &contents.left_out;
    let mut names: Vec<String> =
        all.iter().take(NAMED).map(|path| format!("`{}`", one_line(&path.to_string_lossy()))).collect();
    if all.len() > NAMED {
        names.push(format!("{} more", all.len() - NAMED));
    }
    names.join(", ")
}
