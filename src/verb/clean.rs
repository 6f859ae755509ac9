//! `pi clean`: removes leftovers of dead sessions, and on request images and caches.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use crate::{
    config::Config,
    control, copies,
    docker::{self, Docker, list_images, remove_image},
    host::{Host, Owner},
    image::{self, Image, known::Known},
    lang::Variant,
    launcher::Launcher,
    plan::state_hash,
    record::{self, Dead, Live, SessionId},
    report::{self, Finding, Interrupted},
    scratch,
    session::{self, take_down},
    signals::Signals,
    written::Written,
};

/// What goes besides leftovers, and where it is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct What {
    pub(crate) images: bool,
    /// For how long a cache that goes was not used.
    pub(crate) caches: Option<Duration>,
    pub(crate) all_contexts: bool,
}

/// Removes everything of dead sessions of this user, machine and state directory, and nothing else.
pub(crate) fn run(launcher: &Launcher, what: What) -> anyhow::Result<u8> {
    let launcher = &launcher.on_named()?;
    let config = launcher.config()?;
    let host = &launcher.host;
    let docker = Docker::find(&config.docker, host, &Written::load(host))?.heeding(&launcher.signals);
    let dry = launcher.options.dry_run.is_some();
    let mut cleaner = Cleaner {
        docker,
        host,
        signals: &launcher.signals,
        dry,
        failed: false,
        found: false,
        hung: BTreeSet::new(),
    };
    if !cleaner.dry {
        scratch::sweep(host);
    }
    let live = cleaner.sessions()?;
    cleaner.kept_copies()?;
    if what.all_contexts {
        cleaner.engines(&live, &config, what)?;
    } else {
        cleaner.engine(&live, &config, what)?;
    }
    if !cleaner.found {
        report::note("there is nothing to remove");
    }
    Ok(if cleaner.failed { report::FAILED } else { 0 })
}

struct Cleaner<'a> {
    docker: Docker,
    host: &'a Host,
    signals: &'a Signals,
    dry: bool,
    failed: bool,
    found: bool,
    /// Engines that did not answer in time.
    hung: BTreeSet<String>,
}

impl Cleaner<'_> {
    /// Removes something, or only names it in a dry run. A failure does not stop the others.
    fn remove(&mut self, what: &str, act: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.found = true;
        if self.dry {
            return report::data(format_args!("would remove {what}\n"));
        }
        match act(self) {
            Ok(()) => report::data(format_args!("removed {what}\n")),
            Err(error) if error.is::<Interrupted>() => Err(error),
            Err(error) => {
                self.failed = true;
                report::complain(format_args!("could not remove {what}: {error:#}"));
                Ok(())
            }
        }
    }

    /// Objects of a kind with their value of a label, a line each, for this state directory.
    fn labelled(&self, kind: &str, key: &str) -> anyhow::Result<String> {
        self.docker.run(&docker::list(kind, &format!("pi.state={}", state_hash(self.host)), key))
    }

    /// What is on one engine.
    fn engine(&mut self, live: &[Live], config: &Config, what: What) -> anyhow::Result<()> {
        self.unknown_sessions(live)?;
        if let Some(age) = what.caches {
            self.caches(age)?;
        }
        self.lost_copies()?;
        if what.images {
            self.images(config)?;
        }
        Ok(())
    }

    /// The engines of all contexts. One that cannot be asked does not keep the others from being cleaned.
    fn engines(&mut self, live: &[Live], config: &Config, what: What) -> anyhow::Result<()> {
        for (name, engine) in self.host.engines() {
            self.docker = self.docker.at(&engine.address).within(ANSWER);
            let outcome = engine.check().and_then(|()| self.engine(live, config, what));
            self.signals.check()?;
            if let Err(error) = outcome {
                self.failed = true;
                report::complain(format_args!("could not clean `{}`: {error:#}", report::one_line(&name)));
            }
        }
        Ok(())
    }

    /// The dead sessions that there is a record of, wherever they are. Returns those that run.
    fn sessions(&mut self) -> anyhow::Result<Vec<Live>> {
        if !self.dry {
            self.wait_for_watchers();
        }
        let (live, dead) = record::all(self.host)?;
        for session in dead {
            // A session without a record has made nothing yet, so there is nothing to tell.
            if session.record.is_none() && !self.dry {
                take_down(&session, &self.docker, self.host)?;
                continue;
            }
            self.dead(&session)?;
        }
        for (dir, why) in record::kept(self.host) {
            self.failed = true;
            Finding::hinted(
                format!("an agent's work is in `{}` and nowhere else, so that stays:\n{why}", dir.display()),
                format!("when you do not need it, `rm -r {}`", report::quote(&dir.to_string_lossy())),
            )
            .warn();
        }
        if !self.dry {
            // Others may have begun meanwhile.
            record::wait_for_cleaners(self.host, || self.signals.check().is_ok());
        }
        Ok(live)
    }

    fn unknown_sessions(&mut self, live: &[Live]) -> anyhow::Result<()> {
        let mut unknown = self.unknown(live)?;
        if !unknown.is_empty() {
            // A session that ends right now has no record any more, but its last objects for a moment.
            thread::sleep(ENDING);
            let again = self.unknown(live)?;
            unknown.retain(|id| again.contains(id));
        }
        for id in unknown {
            self.remove(&format!("leftovers of the unknown session `{}`", id.as_str()), |cleaner| {
                session::take_down_by_id(&cleaner.docker, &id)?;
                session::remove_volume(&cleaner.docker, &id)
            })?;
        }
        Ok(())
    }

    /// A launcher that was killed just now has a watcher, and that is at work already.
    fn wait_for_watchers(&self) {
        let begun = Instant::now();
        let is_orphan = || record::live(self.host).is_ok_and(|live| live.iter().any(control::is_deserted));
        while begun.elapsed() < ENDING && is_orphan() {
            thread::sleep(Duration::from_millis(10));
        }
        record::wait_for_cleaners(self.host, || self.signals.check().is_ok());
    }

    /// Takes a dead session down. An engine that hangs is waited for once.
    fn dead(&mut self, session: &Dead) -> anyhow::Result<()> {
        let engine = session::engine(session, &self.docker).to_owned();
        let hangs = Cell::new(self.hung.contains(&engine));
        self.remove(&format!("the session `{}`", session.id.as_str()), |cleaner| {
            anyhow::ensure!(!hangs.get(), "the engine at `{engine}` does not answer");
            let begun = Instant::now();
            take_down(session, &cleaner.docker, cleaner.host)
                .inspect_err(|_| hangs.set(begun.elapsed() > HANGS))
        })?;
        if hangs.get() {
            self.hung.insert(engine);
        }
        Ok(())
    }

    /// Sessions with objects on the engine, but without a record: it was lost.
    fn unknown(&self, live: &[Live]) -> anyhow::Result<BTreeSet<SessionId>> {
        let mut found = BTreeSet::new();
        for kind in ["container", "network", "volume"] {
            let listed = self.labelled(kind, "pi.session")?;
            let ids = listed.lines().filter_map(|line| SessionId::parse(line.split_once('\t')?.1.trim()));
            found.extend(ids.filter(|id| !live.iter().any(|session| session.record.id == *id)));
        }
        found.retain(|id| !record::directory(self.host, id).exists());
        Ok(found)
    }

    fn caches(&mut self, age: Duration) -> anyhow::Result<()> {
        let repositories = self.labelled("volume", "pi.repo")?;
        let repositories: BTreeMap<&str, &str> =
            repositories.lines().filter_map(|line| line.split_once('\t')).collect();
        let mut sizes = None;
        for line in self.labelled("volume", "pi.role")?.lines() {
            if let Some((name, "cache")) = line.split_once('\t').map(|(name, role)| (name, role.trim())) {
                if age > session::unused_for(self.host, name) {
                    continue;
                }
                let of = repositories.get(name).filter(|path| !path.is_empty());
                let of = of.map(|path| format!(" of `{}`", report::one_line(path))).unwrap_or_default();
                let size = sizes.get_or_insert_with(|| self.sizes()).get(name);
                let size = size.map(|size| format!(" ({size})")).unwrap_or_default();
                self.remove(&format!("the cache `{name}`{of}{size}"), |cleaner| {
                    cleaner.docker.run(&docker::remove_volume(name))?;
                    session::forget(cleaner.host, name);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// The volumes' sizes, where the engine tells them.
    fn sizes(&self) -> BTreeMap<String, String> {
        let said = self.docker.try_run(&docker::volume_sizes()).unwrap_or_default();
        let pairs = said.lines().filter_map(|line| line.split_once(' '));
        pairs.map(|(name, size)| (name.to_owned(), report::short(size.trim()))).collect()
    }

    /// Names the copies, which nothing but `pi drop` removes.
    fn kept_copies(&self) -> anyhow::Result<()> {
        for (_, copy) in copies::all(self.host) {
            let only = if copy.pending { ", with work that is only there" } else { "" };
            report::data(format_args!(
                "kept the copy `{}` of `{}`{only}: `pi drop {}` in that repository removes it\n",
                copy.name,
                report::one_line(&copy.repository.to_string_lossy()),
                copy.name
            ))?;
        }
        Ok(())
    }

    /// Names the volumes of copies that there is no record of.
    fn lost_copies(&self) -> anyhow::Result<()> {
        let known = copies::all(self.host);
        for line in self.labelled("volume", "pi.role")?.lines() {
            if let Some((name, "copy")) = line.split_once('\t').map(|(name, role)| (name, role.trim()))
                && !known.iter().any(|(_, copy)| copy.volume == name)
            {
                report::data(format_args!(
                    "kept the volume `{name}`, a copy whose record is lost: `docker volume rm {name}` removes it\n"
                ))?;
            }
        }
        Ok(())
    }

    /// Whether the image with this tag has this id.
    fn is(&self, tag: &str, id: &str) -> bool {
        self.docker.image_id(tag).is_ok_and(|found| found.as_deref() == Some(id))
    }

    fn images(&mut self, config: &Config) -> anyhow::Result<()> {
        let ca = image::certificates(&config.images)?;
        let who = Owner { uid: self.host.uid, gid: self.host.gid };
        let mut needed = vec![Image::proxy(&config.images, &ca)];
        let agent = |variant| Image::agent(variant, &config.images, &config.packages, who, &ca);
        needed.extend(Variant::ALL.map(agent));
        for reference in ["pi-agent:*", "pi-layer:*", "pi-proxy:*"] {
            let listed = self.docker.run(&list_images(reference, Some(self.host.uid)))?;
            let is_needed = |tag: &str| needed.iter().flat_map(Image::tags).any(|kept| kept == tag);
            // What a registry has, or is to get, has no user's label.
            let all = self.docker.run(&list_images(reference, None))?;
            let mut known = Known::at(self.docker.address(), self.host).images();
            known.retain(|tag, id| all.lines().any(|other| other == tag) && self.is(tag, id));
            let tags: BTreeSet<&str> = listed.lines().chain(known.keys().map(String::as_str)).collect();
            for tag in tags.into_iter().filter(|tag| !is_needed(tag)) {
                self.remove(&format!("the image `{tag}`"), |cleaner| {
                    cleaner.docker.run(&remove_image(tag)).map(drop)
                })?;
            }
        }
        Ok(())
    }
}

/// How long the engine of another context may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// An engine that has failed after this time hangs.
const HANGS: Duration = Duration::from_secs(5);

/// How long an engine may still list removed objects, and how long a watcher may take to notice its launcher's end.
const ENDING: Duration = Duration::from_millis(500);
