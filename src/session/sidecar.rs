//! The running sidecar: what keeps it alive, what it is told, and what it says. One that was lost with the line to its engine
//! gets a successor.

mod link;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use shared_child::SharedChild;

use self::link::{Ending, Link, Story, lock};
use super::{
    TEARDOWN,
    proxy_log::{PROXY_LOG, ProxyLog},
};
use crate::{
    docker::{Created, Docker, remove_containers},
    egress::{Brokered, Rendered, Told},
    files::replace,
    host::Host,
    plan::{Container, Network, Plan},
    refused::Refused,
    report::{self, Finding},
    secret::Secret,
};

/// How often a sidecar hears that its launcher is there, where the line to it can be cut. Without that it ends after a minute.
const BEAT: Duration = Duration::from_secs(15);

/// How long it may take to end.
const END: Duration = Duration::from_secs(5);

/// How long each step to a successor may take.
const REPLACE: Duration = Duration::from_secs(20);

/// The running sidecar: its stdin keeps it alive, its stdout is the proxy's log.
pub(super) struct Sidecar {
    place: Place,
    /// What the next one is told.
    told: Mutex<Told>,
    running: Mutex<Running>,
    story: Arc<Story>,
    /// Held by the one who starts a successor; whether there are to be none any more.
    over: Mutex<bool>,
    /// Whether the last attempt to start one came to nothing.
    is_wanting: AtomicBool,
    dir: PathBuf,
    /// Whether it keeps the agent to an allowlist.
    restricts: bool,
}

/// Where a sidecar is, and for whom.
struct Place {
    docker: Docker,
    container: Container,
    network: Network,
    address: Ipv4Addr,
    /// The agent's container.
    agent: String,
    /// Whether the line to it can be cut.
    is_away: bool,
}

/// One sidecar.
struct Running {
    child: Arc<SharedChild>,
    reader: Option<thread::JoinHandle<()>>,
    link: Arc<Link>,
}

/// Whether the agent runs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agents {
    Waits,
    Runs,
}

impl Place {
    /// Starts the container and tells it the rules, by its stdin: they are never in an argv, an environment or a file.
    fn start(&self, told: &Told, story: &Arc<Story>, agents: Agents) -> anyhow::Result<Running> {
        let Self { docker, container, network, address, agent, is_away } = self;
        docker.connect(network, container, *address)?;
        let child = docker.start_held(container)?;
        let stdin = child.take_stdin().context("the proxy has no input")?;
        let stdout = child.take_stdout().context("the proxy has no output")?;
        let stderr = child.take_stderr().context("the proxy has no error output")?;
        let restricts = told.rules.is_some();
        let link = Arc::new(Link::open(stdin, told.first_words(), story.clone(), agents == Agents::Runs));
        let complaints = link.clone();
        thread::spawn(move || complaints.take_complaints(stderr));
        let (heard, docker, agent) = (link.clone(), docker.clone(), agent.clone());
        let reader = thread::spawn(move || {
            heard.follow(stdout);
            match heard.end() {
                Ending::Expected => {}
                Ending::AfterReady => {
                    report::warn(if restricts {
                        "the proxy has ended: nothing can leave this session any more"
                    } else {
                        "the keys' broker has ended: the agent can reach no model any more"
                    });
                }
                // The agent has not started and never will: its gate waits for a proxy that is not coming.
                Ending::BeforeReady => docker.halt_now(&agent),
            }
        });
        if *is_away {
            let link = link.clone();
            thread::spawn(move || {
                while link.says(b"alive\n") {
                    thread::sleep(BEAT);
                }
            });
        }
        Ok(Running { child: Arc::new(child), reader: Some(reader), link })
    }
}

impl Sidecar {
    /// Starts the sidecar that the plan has, if it has one. Its container is there already.
    pub(super) fn start(
        docker: &Docker,
        plan: &Plan,
        agents: Agents,
        dir: &Path,
    ) -> anyhow::Result<Option<Self>> {
        let (Some(network), Some(container), Some(address), Some(told)) =
            (&plan.network, &plan.sidecar, plan.sidecar_address, &plan.told)
        else {
            return Ok(None);
        };
        let place = Place {
            docker: docker.clone(),
            container: container.clone(),
            network: network.clone(),
            address,
            agent: plan.agent.name.clone(),
            is_away: plan.away.is_some(),
        };
        let story = Arc::new(Story::new(ProxyLog::create(dir)?));
        let running = Mutex::new(place.start(told, &story, agents)?);
        let restricts = told.rules.is_some();
        let told = Mutex::new(told.clone());
        Ok(Some(Self {
            place,
            told,
            running,
            story,
            over: Mutex::default(),
            is_wanting: AtomicBool::default(),
            dir: dir.to_owned(),
            restricts,
        }))
    }

    fn link(&self) -> Arc<Link> {
        lock(&self.running).link.clone()
    }

    /// Whether it has ended, and nobody knows why, or has no successor yet.
    pub(super) fn is_lost(&self) -> bool {
        self.is_wanting() || self.link().is_lost()
    }

    /// Whether the last attempt to give it a successor came to nothing. One that only took long may be there all the same.
    pub(super) fn is_wanting(&self) -> bool {
        self.is_wanting.load(Ordering::SeqCst) && self.link().has_ended()
    }

    /// Waits until everything that it was told first is in effect.
    ///
    /// # Errors
    /// It has ended, or does not answer in time.
    pub(super) fn wait_until_in_effect(&self) -> anyhow::Result<()> {
        self.link().wait_until_in_effect()
    }

    /// Gives it a successor that has the same address and is told the same, while the agent runs.
    ///
    /// # Errors
    /// The engine says no, or the successor ends or does not answer.
    pub(super) fn replace(&self) -> anyhow::Result<()> {
        let outcome = self.succeed();
        self.is_wanting.store(outcome.is_err(), Ordering::SeqCst);
        outcome
    }

    fn succeed(&self) -> anyhow::Result<()> {
        let over = lock(&self.over);
        if *over {
            return Ok(());
        }
        self.link().leave();
        let child = lock(&self.running).child.clone();
        let _ = child.kill();
        let _ = child.wait();
        let Place { docker, container, .. } = &self.place;
        let docker = docker.clone().within(REPLACE);
        docker.gone_within(&remove_containers(std::slice::from_ref(&container.name)), TEARDOWN)?;
        anyhow::ensure!(docker.create(container)? == Created::Yes, "the image of the sidecar is gone");
        let told = lock(&self.told).clone();
        let next = self.place.start(&told, &self.story, Agents::Runs)?;
        let link = next.link.clone();
        *lock(&self.running) = next;
        drop(over);
        link.wait_until_in_effect()
    }

    /// Gives the sidecar new rules and waits until they are in effect. Several callers take turns; one that comes before
    /// the first rules are in effect waits for them.
    ///
    /// # Errors
    /// It did not take them and keeps the old ones, it has ended, or it does not answer in time.
    pub(super) fn change(&self, rendered: &Rendered) -> anyhow::Result<()> {
        self.link().tell(rendered.new_rules())?.map_err(|why| {
            anyhow::anyhow!("the proxy did not take the new rules, the old ones are in effect: {why}")
        })?;
        lock(&self.told).rules = Some(rendered.clone());
        Ok(())
    }

    /// Gives the broker other keys for the same providers, and waits until they are in effect.
    ///
    /// # Errors
    /// It keeps the old ones, it has ended, or it does not answer in time.
    pub(super) fn change_keys(&self, keys: &Secret) -> anyhow::Result<()> {
        self.link().tell(Brokered::new_keys(keys))?.map_err(|why| {
            anyhow::anyhow!("the broker did not take the new keys, the old ones are in effect: {why}")
        })?;
        if let Some(broker) = &mut lock(&self.told).broker {
            broker.keys = keys.clone();
        }
        Ok(())
    }

    /// Whether it keeps the agent to an allowlist.
    pub(super) fn restricts(&self) -> bool {
        self.restricts
    }

    /// What was refused so far.
    pub(super) fn refused(&self) -> Refused {
        lock(&self.story.refused).clone()
    }

    /// The log so far, and what comes.
    pub(super) fn read_log(&self) -> (Vec<u8>, Receiver<Vec<u8>>) {
        lock(&self.story.log).read()
    }

    /// What the proxy said, if it ended before the agent's gate had seen it work.
    pub(super) fn failed_before_ready(&self) -> Option<String> {
        self.link().failed_before_ready()
    }

    /// Ends it. Returns whether it ended well: then the engine has removed its container before its client returned.
    pub(super) fn end(&self, docker: &Docker) -> bool {
        *lock(&self.over) = true;
        self.link().leave();
        let child = lock(&self.running).child.clone();
        let status = child.wait_timeout(if docker.hangs() { Duration::ZERO } else { END });
        if !matches!(status, Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
        lock(&self.story.log).end();
        status.is_ok_and(|status| status.is_some_and(|status| status.success()))
    }

    /// Waits for its last line, keeps its log for later, and returns what was refused.
    pub(super) fn finish(&self, host: &Host) -> Refused {
        let reader = lock(&self.running).reader.take();
        if let Some(reader) = reader {
            let _ = reader.join();
        }
        lock(&self.story.answers).findings().iter().for_each(Finding::warn);
        let refused = self.refused();
        let path = host.last_refused();
        if self.restricts
            && let Err(error) = replace(&path, refused.save().as_bytes())
        {
            report::warn(format_args!("could not write `{}`: {error}", path.display()));
        }
        // Helps, not promises.
        let _ = replace(&host.last_learned(), lock(&self.story.learned).save().as_bytes());
        let _ = fs::rename(self.dir.join(PROXY_LOG), host.last_log());
        refused
    }
}
