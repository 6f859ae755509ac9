//! The agent's commits: they come over while the session runs, at its end, and from sessions whose launcher was killed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::came_over::CameOver;
use crate::{
    docker::{self, Created, Docker, list_images},
    files::replace,
    git::{
        command::Git,
        discard::discard,
        given::DIRECTORY,
        takeover::{Inside, Moment, Takeover},
        trees::{self, Trees},
    },
    host::{Host, hex},
    plan::Hatch,
    record,
    report::{self, Finding, quote},
    written::Written,
};

/// How often the agent's git directory is looked at.
const LOOK: Duration = Duration::from_millis(400);

/// How long to leave a repository alone from which nothing can be taken over at the moment.
const PAUSE: Duration = Duration::from_secs(10);

/// How often all is asked for where a look cannot tell whether there is something new.
const BLIND: Duration = Duration::from_secs(20);

/// How many times the next part is asked for: each brings hundreds of names.
const PARTS: usize = 40;

/// How long the container for it may take to go.
const REMOVAL: Duration = Duration::from_secs(30);

/// How long the thread that looks may take to end where its engine hangs.
const MOMENT: Duration = Duration::from_secs(1);

/// When a user who waits is told for what.
const SAY_WHY: Duration = Duration::from_secs(8);

const NO_IMAGE: &str = "there is no image with git; `pi build` makes one";

const HATCH: &str = "hatch.json";
const MARK: &str = "mark";

/// A session's commits, and the way to them.
pub(super) struct Commits {
    git: Git,
    docker: Docker,
    host: Host,
    /// The session's directory.
    state: PathBuf,
    hatch: Hatch,
    is_open: bool,
    /// What the look saw when all had come over last.
    mark: Option<String>,
    came: CameOver,
}

impl Commits {
    /// Prepares for a session that is about to start; a killed launcher's successor finds what is written here.
    pub(super) fn begin(
        git: &Git,
        docker: &Docker,
        host: &Host,
        state: &Path,
        hatch: &Hatch,
    ) -> anyhow::Result<Self> {
        let mut commits = Self::of(git, docker, host, state, hatch.clone());
        let mark = commits.look()?;
        commits.all_is_over(mark);
        // Last, and whole or not at all: where it is, the agent may have started.
        let path = commits.dir().join(HATCH);
        replace(&path, &serde_json::to_vec(hatch)?)
            .with_context(|| format!("could not write `{}`", path.display()))?;
        Ok(commits)
    }

    /// Those of a session that is dead; nothing where its agent had no git directory of its own.
    fn of_dead(git: &Git, docker: &Docker, host: &Host, state: &Path) -> anyhow::Result<Option<Self>> {
        let path = state.join(DIRECTORY).join(HATCH);
        if !may_have_commits(state) {
            return Ok(None);
        }
        let text = fs::read(&path).with_context(|| format!("could not read `{}`", path.display()))?;
        let hatch = serde_json::from_slice(&text)
            .with_context(|| format!("could not understand `{}`", path.display()))?;
        let mut commits = Self::of(git, docker, host, state, hatch);
        commits.mark = fs::read_to_string(state.join(DIRECTORY).join(MARK)).ok();
        Ok(Some(commits))
    }

    fn of(git: &Git, docker: &Docker, host: &Host, state: &Path, hatch: Hatch) -> Self {
        Self {
            git: git.clone(),
            docker: docker.clone(),
            host: host.clone(),
            state: state.to_owned(),
            hatch,
            is_open: false,
            mark: None,
            came: CameOver::default(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.state.join(DIRECTORY)
    }

    /// Something that differs when there may be something new; nothing where only a pass can tell.
    fn look(&self) -> anyhow::Result<Option<String>> {
        Ok(Takeover::open(&self.git, &self.dir())?.fingerprint().map(|mark| hex(&mark)))
    }

    fn all_is_over(&mut self, mark: Option<String>) {
        // Without it, everything is asked for once more.
        let _ = match &mark {
            Some(mark) => fs::write(self.dir().join(MARK), mark),
            None => fs::remove_file(self.dir().join(MARK)),
        };
        self.mark = mark;
    }

    /// Follows the agent until [`Following::end`].
    pub(super) fn follow(self) -> Following {
        let (stop, stopped) = mpsc::channel();
        Following { stop, thread: thread::spawn(move || self.watch(&stopped)) }
    }

    fn watch(mut self, stopped: &mpsc::Receiver<()>) -> Self {
        let git = self.git.clone();
        let mut is_hidden = false;
        let Ok(mut takeover) = Takeover::open(&git, &self.dir()) else { return self };
        let mut known = self.mark.clone();
        let mut pause = LOOK;
        let mut last = Instant::now();
        let mut patience = LOOK;
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            pause = LOOK;
            is_hidden = is_hidden || trees::hide(&self.dir());
            if is_hidden {
                // The end tells why, if it is still so then.
                let _ = trees::announce(&git, &self.dir());
            }
            let mark = takeover.fingerprint().map(|mark| hex(&mark));
            let is_due = match &mark {
                Some(_) => mark != known,
                None => last.elapsed() > BLIND,
            };
            if !is_due {
                continue;
            }
            last = Instant::now();
            let waits = takeover.is_half_done();
            // The end tells why, if it is still so then.
            let Ok(taken) = self.inside().and_then(|inside| takeover.pass(&inside, Moment::Running)) else {
                let _ = self.close();
                pause = patience;
                patience = (patience * 2).min(PAUSE);
                continue;
            };
            patience = LOOK;
            if taken.is_whole() && !waits {
                self.all_is_over(mark.clone());
            }
            known = if taken.more { None } else { mark };
            self.came.add(taken);
            // An agent that never rests must not keep the machine busy.
            pause = LOOK.max(last.elapsed() * 3);
        }
        self
    }

    /// Takes over the rest of a session whose agent has ended, with the containers of the session or without.
    ///
    /// # Errors
    /// It could not be asked for what there is; nothing is lost by that.
    pub(super) fn finish(&mut self, containers_are_gone: bool) -> anyhow::Result<()> {
        self.is_open &= !containers_are_gone;
        let was_open = self.is_open;
        let mut outcome = self.rest();
        if outcome.is_err() && was_open {
            // It may have been the container.
            self.close()?;
            outcome = self.rest();
        }
        outcome.and(self.close())
    }

    fn close(&mut self) -> anyhow::Result<()> {
        if !std::mem::take(&mut self.is_open) {
            return Ok(());
        }
        self.docker.gone_within(&docker::remove_containers(&[self.hatch.name()]), REMOVAL)
    }

    fn rest(&mut self) -> anyhow::Result<()> {
        let mark = self.look()?;
        if mark.is_some() && mark == self.mark {
            return Ok(());
        }
        let inside = self.inside()?;
        let git = self.git.clone();
        let mut takeover = Takeover::open(&git, &self.dir())?;
        for _ in 0..PARTS {
            let taken = takeover.pass(&inside, Moment::End)?;
            let (is_whole, more) = (taken.is_whole(), taken.more);
            self.came.add(taken);
            if is_whole {
                self.all_is_over(mark);
                return Ok(());
            }
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Makes the container where there is none, and says how a git is run in it.
    fn inside(&mut self) -> anyhow::Result<Inside> {
        if !self.is_open {
            self.is_open = true;
            if let Err(error) = self.open() {
                let _ = self.close();
                return Err(error);
            }
        }
        let (prefix, env) = self.docker.door(&self.hatch.name(), &self.host);
        Ok(Inside { prefix, env, git: "git".into() })
    }

    fn open(&mut self) -> anyhow::Result<()> {
        let mut made = self.docker.create(&self.hatch.container(&self.state))?;
        if made == Created::NoImage {
            self.hatch = self.hatch.clone().with_image(self.any_image()?);
            made = self.docker.create(&self.hatch.container(&self.state))?;
        }
        anyhow::ensure!(made == Created::Yes, NO_IMAGE);
        self.docker.start(&self.hatch.container(&self.state))
    }

    /// An agent's image, in place of one that was removed meanwhile.
    fn any_image(&self) -> anyhow::Result<String> {
        let tags = self.docker.run(&list_images("pi-agent:*", Some(self.host.uid)))?;
        let ids = tags.lines().filter_map(|tag| self.docker.image_id(tag).ok().flatten());
        ids.into_iter().next().context(NO_IMAGE)
    }

    /// The whole end: takes over the rest, and tells what did not take its own place. Returns whether the session's
    /// directory holds nothing of value any more.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub(super) fn settle(&mut self, containers_are_gone: bool) -> anyhow::Result<bool> {
        let kept = match self.finish(containers_are_gone) {
            Ok(()) => {
                if let Some(why) = self.came.later.take() {
                    self.came.tell();
                    bail!("{why}");
                }
                self.came.kept()
            }
            Err(_) if self.repository_is_gone() => Some("its repository is gone".to_owned()),
            Err(error) => return Err(error),
        };
        self.came.tell();
        match Trees::left(&self.dir()).map(|trees| trees.take_over(&self.git)) {
            Some(Ok(unfit)) => unfit.iter().for_each(|tree| {
                report::warn(format_args!(
                    "`{}` is no worktree for git any more: its branch has a submodule or did not come over, or its name is taken",
                    tree.display()
                ));
            }),
            Some(Err(error)) => {
                report::warn(format_args!("could not take over the worktrees of subagents: {error:#}"));
            }
            None => {}
        }
        let Some(why) = kept else {
            if let Err(error) = discard_private(&self.state) {
                report::warn(format_args!("{error:#}"));
            }
            return Ok(true);
        };
        record::keep(&self.state, &why)?;
        Finding::hinted(
            format!(
                "some of the agent's work is kept in `{}`, and nowhere else:\n{why}",
                self.state.display()
            ),
            format!("when you do not need it, `rm -r {}`", quote(&self.state.to_string_lossy())),
        )
        .warn();
        Ok(false)
    }

    fn repository_is_gone(&self) -> bool {
        Takeover::open(&self.git, &self.dir()).is_ok_and(|takeover| {
            takeover.state().entries.iter().any(|entry| !entry.repository.common.exists())
        })
    }
}

/// Whether the agent of the session with this directory may have committed something.
pub(super) fn may_have_commits(state: &Path) -> bool {
    // Written before its agent could start.
    state.join(DIRECTORY).join(HATCH).exists()
}

/// Takes over what a dead session has left, and removes its git directory. Returns whether the session's directory holds
/// nothing of value any more.
///
/// # Errors
/// As [`Commits::finish`].
pub(super) fn settle_dead(state: &Path, docker: &Docker, host: &Host) -> anyhow::Result<bool> {
    if !state.join(DIRECTORY).exists() {
        return Ok(true);
    }
    let git = Git::find(host, &Written::load(host).and_around(host));
    let commits = match &git {
        Some(git) => Commits::of_dead(git, docker, host, state)?,
        None if may_have_commits(state) => bail!("there is no `git` on the `PATH`"),
        None => None,
    };
    match commits {
        Some(mut commits) => commits.settle(true),
        None => discard_private(state).map(|()| true),
    }
}

/// Removes the agent's git directory, which it may have made as deep as it liked.
fn discard_private(state: &Path) -> anyhow::Result<()> {
    let dir = state.join(DIRECTORY);
    discard(&dir.join("private")).with_context(|| format!("could not remove `{}`", dir.display()))
}

/// The thread that looks while the agent works.
pub(super) struct Following {
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<Commits>,
}

/// Nobody answers what was asked for.
pub(super) struct InVain;

impl Following {
    /// Waits for what has begun.
    ///
    /// # Errors
    /// It is in vain.
    pub(super) fn end(self, in_vain: impl Fn() -> bool) -> Result<Commits, InVain> {
        let _ = self.stop.send(());
        let begun = Instant::now();
        let mut told = false;
        while !self.thread.is_finished() {
            if begun.elapsed() > MOMENT && in_vain() {
                return Err(InVain);
            }
            if !told && begun.elapsed() > SAY_WHY {
                told = true;
                report::note("waiting for the agent's commits to come over");
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.thread.join().map_err(|_| InVain)
    }
}
