//! Copies on an engine: how one is filled before an agent works on it, and how its work comes out.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};

use super::prepare::write_file;
use crate::{
    copies::{self, Copy, Held},
    docker::{self, Created, Docker, Up, list_images, run_inside},
    git::{
        command::Git,
        copy::{
            COUNT, FILL, WIP,
            back::{Back, changed, commits, forget},
            commonly_runs,
            contents::Contents,
            lfs,
        },
        repository::Repository,
        takeover::Inside,
    },
    host::{Host, seconds},
    plan::{COPY, Container, Source, copier, copier_file},
    record::{self, SessionId},
    report::{self, Finding, Hinted, one_line},
    signals::Signals,
    written::Written,
};

/// How long the files of a repository may take on their way.
const LONG: Duration = Duration::from_secs(3600);

/// How long a look into a copy may take.
const SHORT: Duration = Duration::from_secs(60);

/// How long the container of a session that was killed may take to go.
const LAST: Duration = Duration::from_secs(15);

/// How long a session without a launcher is taken for one that is about to be taken down.
const FIRST: Duration = Duration::from_secs(2);

/// How many files a notice names.
const NAMED: usize = 9;

/// How to reach a copy: its engine, and git on both sides.
pub(crate) struct Reach<'a> {
    pub(crate) docker: &'a Docker,
    pub(crate) host: &'a Host,
    pub(crate) git: &'a Git,
}

impl Reach<'_> {
    /// Starts the container with the copy in it.
    fn open(&self, held: &mut Held) -> anyhow::Result<Up> {
        let mut copy = held.copy.clone().context("there is no copy")?;
        self.wait_for_others(&copy)?;
        write_file(&copier_file(&held.dir))?;
        let name = format!("{}-{}", copy.volume, SessionId::random()?.as_str());
        let container = |copy: &Copy| copier(copy, name.clone(), &held.dir, self.host);
        let mut made = self.docker.create(&container(&copy))?;
        if made == Created::NoImage {
            copy.image = any_image(self.docker, self.host)?;
            made = self.docker.create(&container(&copy))?;
        }
        anyhow::ensure!(made == Created::Yes, NO_IMAGE);
        if let Err(error) = check_volume(self.docker, &container(&copy)) {
            self.docker.halt_now(&name);
            return Err(error);
        }
        let up = self.docker.hold_up(&container(&copy)).inspect_err(|_| self.docker.halt_now(&name))?;
        held.copy = Some(copy);
        Ok(up)
    }

    /// Waits until the container of a killed session is gone.
    ///
    /// # Errors
    /// It stays.
    pub(crate) fn wait_until_free(&self, held: &Held) -> anyhow::Result<()> {
        held.copy.as_ref().map_or(Ok(()), |copy| self.wait_for_others(copy))
    }

    /// The containers that have the copy: ours, and then the sessions that have others.
    fn users(&self, copy: &Copy) -> anyhow::Result<(Vec<String>, Vec<String>)> {
        let (mut ours, mut sessions) = (vec![], vec![]);
        for line in self.docker.run(&docker::users_of(&copy.volume))?.lines() {
            match line.split_once('\t').map(|(name, session)| (name, session.trim())) {
                Some((_, session)) if !session.is_empty() => sessions.push(session.to_owned()),
                Some((name, _)) => ours.push(name.to_owned()),
                None => ours.push(line.to_owned()),
            }
        }
        Ok((ours, sessions))
    }

    /// Waits until no container has the copy any more. A session's is removed by whoever takes that session down.
    fn wait_for_others(&self, copy: &Copy) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let (ours, sessions) = self.users(copy)?;
            // We hold the lock, so the process that made these is gone.
            if !ours.is_empty() {
                self.docker.gone_within(&docker::remove_containers(&ours), SHORT)?;
            }
            if sessions.is_empty() {
                return Ok(());
            }
            let lost = record::lost(self.host)
                .into_iter()
                .find(|session| sessions.iter().any(|id| id == session.record.id.as_str()));
            if let Some(session) = lost.filter(|_| begun.elapsed() > FIRST) {
                let (own, name) = (&copy.name, session.record.name);
                bail!(Hinted::error(
                    format!(
                        "the session `{name}`, which has lost its launcher, still works on the copy `{own}`"
                    ),
                    record::what_next(&name),
                ));
            }
            if begun.elapsed() > LAST {
                bail!(Hinted::error(
                    format!("a container of a session still has the copy `{}`", copy.name),
                    "`pi ps` lists it: `pi attach` comes back to one that has lost its launcher, `pi stop` ends one; and `pi clean` removes \
                     what sessions have left",
                ));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Removes the volume of a copy that no agent has seen. A client of a launcher that was killed may be making a container with
    /// it at this moment.
    fn empty(&self, copy: &Copy) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            self.wait_for_others(copy)?;
            match self.docker.gone_within(&docker::remove_volume(&copy.volume), SHORT) {
                Err(_) if begun.elapsed() < LAST && !self.docker.hangs() => {
                    thread::sleep(Duration::from_millis(100));
                }
                outcome => return outcome,
            }
        }
    }

    fn inside(&self, up: &Up) -> Inside {
        let (prefix, env) = self.docker.door(up.name(), self.host);
        Inside { prefix, env, git: "git".into() }
    }

    fn back<'b>(
        &'b self,
        repository: &'b Repository,
        copy: &'b Copy,
        dir: &Path,
        inside: &'b Inside,
    ) -> Back<'b> {
        let store = dir.join("store");
        Back { git: self.git, repository, name: &copy.name, store, inside, path: Path::new(GIT_DIR) }
    }

    /// Makes the copy what it is to be. One that was interrupted is made anew: no agent has seen it.
    ///
    /// # Errors
    /// The repository cannot be read, or the engine says no.
    pub(crate) fn fill(
        &self,
        held: &mut Held,
        repository: &Repository,
        contents: &Contents,
        within: &str,
        signals: &Signals,
    ) -> anyhow::Result<()> {
        self.empty(held.copy.as_ref().context("there is no copy")?)?;
        let up = self.open(held)?;
        let inside = self.inside(&up);
        let script =
            |script: &str, words: &[&str]| run_inside(up.name(), "copy the repository", script, words);
        let unpack = script("exec tar -x -f - --no-same-owner --warning=no-timestamp -C \"$1\"", &[COPY]);
        self.docker.feed(&unpack, LONG, &mut |out| contents.write_git_dir(out))?;
        signals.check()?;
        {
            let _shown = self.docker.travel("copy the repository's history");
            contents.send_commit(self.git, &held.dir.join("store"), &inside, Path::new(GIT_DIR))?;
        }
        signals.check()?;
        let both = "tar -x -f - --no-same-owner --warning=no-timestamp -C \"$1\" && exec sh -c \"$3\" sh \"$1\" \"$2\"";
        let base = self.docker.feed(&script(both, &[COPY, within, FILL]), LONG, &mut |out| {
            contents.write_files(out, &|| signals.check())
        })?;
        let mut copy = held.copy.clone().context("there is no copy")?;
        self.back(repository, &copy, &held.dir, &inside).base(&base)?;
        copy.base = Some(base);
        held.save(copy)
    }

    /// Brings in what has become of a copy, where an agent may have changed it. Says whether there was something new.
    ///
    /// # Errors
    /// The copy cannot be reached, or git refuses what is in it. Nothing is lost by that.
    pub(crate) fn bring_in(&self, held: &mut Held) -> anyhow::Result<bool> {
        let Some((base, before)) = held
            .copy
            .as_ref()
            .filter(|copy| copy.pending)
            .and_then(|copy| Some((copy.base.clone()?, copy.branches.clone())))
        else {
            return Ok(false);
        };
        let up = self.open(held)?;
        let mut copy = held.copy.clone().context("there is no copy")?;
        let doing = format!("make a commit of what is uncommitted in the copy `{}`", copy.name);
        let size = self.docker.feed(&run_inside(up.name(), &doing, WIP, &[COPY]), LONG, &mut |_| Ok(()))?;
        let repository = Repository::at(&copy.repository, &copy.common)?;
        let inside = self.inside(&up);
        let mut branches = before.clone();
        let outcome = {
            let _shown = self.docker.travel(&format!("bring in the work of the copy `{}`", copy.name));
            self.back(&repository, &copy, &held.dir, &inside).bring(&base, &mut branches)
        };
        copy.branches = branches;
        let outcome = outcome.and_then(|()| self.large_files(&up, &repository, &copy));
        copy.size = size.lines().last().and_then(|size| size.trim().parse().ok());
        copy.pending = outcome.is_err();
        let is_new = copy.branches != before;
        held.save(copy)?;
        outcome.map(|()| is_new)
    }

    /// Brings in the large files that the copy's commits point to.
    fn large_files(&self, up: &Up, repository: &Repository, copy: &Copy) -> anyhow::Result<()> {
        let Some(base) = &copy.base else { return Ok(()) };
        for (_, tip) in copy.branches.values() {
            for pointer in lfs::missing(self.git, repository, base, tip)? {
                let path = Path::new(GIT_DIR).join(pointer.path());
                let path = path.to_string_lossy();
                // What was never downloaded is not in the copy either.
                let script = "if [ -f \"$1\" ]; then exec cat \"$1\"; fi; exit 3";
                let cmd = run_inside(up.name(), "bring in a large file of the copy", script, &[&path]);
                let mut is_there = true;
                let kept = lfs::keep(repository, &pointer, |out| {
                    is_there = self.docker.pass_on(&cmd, LONG, out)?;
                    Ok(())
                });
                match kept {
                    Ok(false) if is_there => {
                        report::warn(format_args!(
                            "the large file {} of the copy `{}` is not what its name says, so it stays there",
                            &pointer.oid[..12],
                            copy.name
                        ));
                    }
                    Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// How many commits a copy has that have not come over, as a number with `+` where something is uncommitted.
    ///
    /// # Errors
    /// The copy cannot be reached.
    pub(crate) fn count(&self, held: &mut Held) -> anyhow::Result<String> {
        let up = self.open(held)?;
        let copy = held.copy.as_ref().context("there is no copy")?;
        let known = copy.result().map(|(_, oid)| oid).or(copy.base.as_deref()).unwrap_or_default();
        let cmd = run_inside(up.name(), "look into the copy", COUNT, &[COPY, known]);
        let said = self.docker.feed(&cmd, SHORT, &mut |_| Ok(()))?;
        let is_count =
            said.len() < 20 && said.trim_end_matches('+').bytes().all(|byte| byte.is_ascii_digit());
        anyhow::ensure!(is_count && !said.is_empty(), "the copy `{}` cannot be counted", copy.name);
        Ok(said)
    }

    /// Removes a copy, whatever is in it. Its branches stay.
    ///
    /// # Errors
    /// The engine says no.
    pub(crate) fn drop_copy(&self, held: Held) -> anyhow::Result<()> {
        if let Some(copy) = &held.copy {
            self.wait_for_others(copy)?;
            self.docker.gone_within(&docker::remove_volume(&copy.volume), SHORT)?;
            if let Ok(repository) = Repository::at(&copy.repository, &copy.common) {
                forget(self.git, &repository, &copy.name);
            }
        }
        let dir = held.dir.clone();
        held.remove().with_context(|| format!("could not remove `{}`", dir.display()))
    }
}

/// The git directory of [`COPY`].
const GIT_DIR: &str = "/var/cache/pi/.git";

const NO_IMAGE: &str = "there is no image with git; `pi build` makes one";

/// Refuses a volume that somebody else has made under the name of one of ours.
pub(super) fn check_volume(docker: &Docker, container: &Container) -> anyhow::Result<()> {
    for mount in &container.mounts {
        if let Source::Volume { name, labels } = &mount.source
            && !docker.is_plain_volume(name, labels)?
        {
            return Err(Hinted::error(
                format!("the volume `{name}` was not made by `pi`, so it is not used"),
                format!("`docker volume inspect {name}` shows it, and `docker volume rm {name}` removes it"),
            ));
        }
    }
    Ok(())
}

/// An agent's image, in place of one that was removed meanwhile.
pub(super) fn any_image(docker: &Docker, host: &Host) -> anyhow::Result<String> {
    let tags = docker.run(&list_images("pi-agent:*", Some(host.uid)))?;
    tags.lines().find_map(|tag| docker.image_id(tag).ok().flatten()).context(NO_IMAGE)
}

/// Tells what has become of a copy.
pub(crate) fn tell(git: &Git, copy: &Copy) {
    let (Some((name, tip)), Some(base)) = (copy.result(), &copy.base) else { return };
    let Ok(repository) = Repository::at(&copy.repository, &copy.common) else { return };
    let Ok(files) = changed(git, &repository, base, tip) else { return };
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let short = |name: &str| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned();
    let branch = short(name);
    report::note(format_args!(
        "the agent's work is the branch `{branch}`: {}, {} changed",
        plural(commits(git, &repository, base, tip), "commit"),
        plural(files.len(), "file")
    ));
    let own = &copy.name;
    report::note(format_args!(
        "`pi diff {own}` shows it, `pi apply {own}` brings it into your files, `git merge {branch}` merges it"
    ));
    for (theirs, (name, _)) in copy.branches.iter().filter(|(theirs, _)| !theirs.is_empty()).take(NAMED) {
        report::note(format_args!("its branch `{}` is `{}`", one_line(theirs), short(name)));
    }
    let risky: Vec<String> = files
        .iter()
        .filter(|path| commonly_runs(path))
        .map(|path| one_line(&path.to_string_lossy()))
        .collect();
    if !risky.is_empty() {
        // At most ten lines, this one and that about the rest included.
        let most = if risky.len() > NAMED { NAMED - 1 } else { NAMED };
        let more = risky.len().saturating_sub(most);
        let more = if more > 0 {
            format!("\nand {more} more: `pi diff --risky {own}` shows all")
        } else {
            String::new()
        };
        let names = risky[..risky.len().min(most)].join("\n");
        Finding::plain(format!("the agent changed files that commonly run on this machine:\n{names}{more}"))
            .warn();
    }
}

/// Brings in the work of those copies that are wanted and whose session was killed. A copy that somebody works with is left alone, and so is one
/// whose engine does not answer now.
pub(crate) fn bring_in_all(docker: &Docker, host: &Host, wanted: &dyn Fn(&Copy) -> bool) {
    let is_wanted = |copy: &Copy| copy.pending && copy.base.is_some() && wanted(copy);
    let pending = copies::all(host).into_iter().filter(|(_, copy)| is_wanted(copy));
    for (dir, copy) in pending {
        let Some(git) = Git::find(host, &Written::load(host).and_around(host)) else { return };
        let docker = docker.at(&copy.engine);
        let reach = Reach { docker: &docker, host, git: &git };
        // One that a session has is brought in by whoever ends that, and somebody who comes back to it needs the lock.
        if !reach.users(&copy).is_ok_and(|(_, sessions)| sessions.is_empty()) {
            continue;
        }
        let Ok(Some(mut held)) = Held::take(&dir) else { continue };
        match reach.bring_in(&mut held) {
            Ok(true) => held.copy.iter().for_each(|copy| tell(&git, copy)),
            Ok(false) => {}
            Err(error) => {
                report::detail(format_args!("could not bring in the copy `{}`: {error:#}", copy.name));
            }
        }
    }
}

/// Notes that an agent begins to work on a copy, from this image.
///
/// # Errors
/// It cannot be written.
pub(crate) fn begin(held: &mut Held, image: &str) -> anyhow::Result<()> {
    let mut copy = held.copy.clone().context("there is no copy")?;
    image.clone_into(&mut copy.image);
    copy.pending = true;
    copy.used = seconds(SystemTime::now());
    held.save(copy)
}
