//! The life of a session: claim, up, attach, down; and what signals do to it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use shared_child::{SharedChild, unix::SharedChildExt as _};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals as Watched,
};

use crate::{
    cli::WATCH,
    docker::{self, Cmd, Docker, Failure},
    host::Host,
    plan::{Directory, File, Keep, Plan, Record, SessionId, down},
    refused::Refused,
    report::{self, FAILED, Interrupted},
};

/// Listens for the signals that end a session. The first one counts; those that follow change nothing, so that nobody
/// can interrupt a teardown by impatience.
#[derive(Debug)]
pub(crate) struct Signals {
    first: Arc<AtomicI32>,
    on_signal: Arc<Mutex<OnSignal>>,
}

/// What the first signal is to act on besides being remembered.
#[derive(Debug, Default)]
struct OnSignal {
    /// A long command in the foreground, which ends early.
    foreground: Option<Arc<SharedChild>>,
    /// A running agent, which is stopped by its name: no process number is ever signalled.
    agent: Option<(Docker, String)>,
}

impl Signals {
    /// Starts listening, for the rest of the process.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let first = Arc::new(AtomicI32::new(0));
        let on_signal = Arc::new(Mutex::new(OnSignal::default()));
        let mut signals =
            Watched::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]).context("could not listen for signals")?;
        let (mine, acts) = (first.clone(), on_signal.clone());
        thread::spawn(move || {
            for signal in signals.forever() {
                if mine.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    act(&acts);
                }
            }
        });
        Ok(Self { first, on_signal })
    }

    /// The same listener, for another owner.
    pub(crate) fn share(&self) -> Self {
        Self { first: self.first.clone(), on_signal: self.on_signal.clone() }
    }

    /// # Errors
    /// [`Interrupted`], once a signal has come.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.first.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(Interrupted(u8::try_from(signal).unwrap_or(FAILED)).into()),
        }
    }

    /// From now on the first signal also ends this command.
    pub(crate) fn foreground(&self, child: Arc<SharedChild>) {
        held(&self.on_signal).foreground = Some(child.clone());
        if self.check().is_err() {
            let _ = child.send_signal(SIGTERM);
        }
    }

    /// From now on the first signal also stops this container.
    ///
    /// # Errors
    /// [`Interrupted`], if a signal has come already.
    fn stops(&self, docker: &Docker, agent: &str) -> anyhow::Result<()> {
        held(&self.on_signal).agent = Some((docker.clone(), agent.to_owned()));
        self.check()
    }
}

fn held(acts: &Mutex<OnSignal>) -> MutexGuard<'_, OnSignal> {
    acts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn act(acts: &Mutex<OnSignal>) {
    let (foreground, agent) = {
        let acts = held(acts);
        (acts.foreground.clone(), acts.agent.clone())
    };
    if let Some(child) = foreground {
        let _ = child.send_signal(SIGTERM);
    }
    if let Some((docker, agent)) = agent {
        // `stop` gives the agent time to write down a login; `rm` closes the race with a container that was created
        // and not yet started, which `stop` leaves alone. Both may fail: the teardown that follows does it again.
        let _ = docker.try_run_within(&docker::stop(&agent), Duration::from_secs(15));
        let _ = docker.try_run_within(&docker::remove_containers(&[agent]), TEARDOWN);
    }
}

/// How long one call of a teardown may take.
const TEARDOWN: Duration = Duration::from_secs(30);

/// A session's directory and the lock in it. While the lock is held the session is alive; the kernel frees it when the
/// process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) dir: PathBuf,
    _lock: fs::File,
}

/// Where all sessions of this machine and user are.
pub(crate) fn sessions_dir(host: &Host) -> PathBuf {
    host.state_dir().join("sessions")
}

/// Held for moments only: between the making of a session's directory and the taking of its lock nobody may look.
pub(crate) fn directory_lock(host: &Host) -> anyhow::Result<fs::File> {
    let dir = sessions_dir(host);
    private_dir(&dir)?;
    let path = dir.join(".lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("could not open `{}`", path.display()))?;
    file.lock().with_context(|| format!("could not lock `{}`", path.display()))?;
    Ok(file)
}

impl Claim {
    /// Makes the session's directory, takes its lock and writes its record, before anything else of it exists.
    fn take(host: &Host, plan: &Plan) -> anyhow::Result<Self> {
        let _directory = directory_lock(host)?;
        let dir = plan.state.clone();
        private_dir(&dir)?;
        let lock = fs::File::create(dir.join("lock"))
            .with_context(|| format!("could not write in `{}`", dir.display()))?;
        lock.lock().with_context(|| format!("could not lock `{}`", dir.display()))?;
        let claim = Self { dir, _lock: lock };
        claim.write(&plan.record)?;
        Ok(claim)
    }

    fn write(&self, record: &Record) -> anyhow::Result<()> {
        let path = self.dir.join("session.json");
        let text = serde_json::to_string(record).context("could not render the session's record")?;
        fs::write(&path, text).with_context(|| format!("could not write `{}`", path.display()))
    }
}

pub(crate) fn private_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("could not create `{}`", path.display()))
}

/// The effects that a session needs besides docker's.
pub(crate) struct Needs<'a> {
    pub(crate) host: &'a Host,
    pub(crate) docker: &'a Docker,
    pub(crate) signals: &'a Signals,
    /// Plans again on other addresses, for when the engine finds the first ones taken.
    pub(crate) replan: &'a dyn Fn(u32) -> anyhow::Result<Plan>,
    /// Makes the agent's image exist and names it.
    pub(crate) agent_image: &'a (dyn Fn() -> anyhow::Result<String> + Sync),
    /// Makes the sidecar's image exist and names it.
    pub(crate) sidecar_image: &'a (dyn Fn() -> anyhow::Result<String> + Sync),
    /// Keeps what the agent prints on stdout, instead of printing it.
    pub(crate) capture: Option<&'a Mutex<Vec<u8>>>,
}

/// How many subnets are tried.
const SUBNET_ATTEMPTS: u32 = 16;

/// Runs a session from claim to teardown and returns the agent's exit status.
///
/// # Errors
/// Any step failed, or a signal came; everything is taken down all the same.
pub(crate) fn run(needs: &Needs<'_>, mut plan: Plan) -> anyhow::Result<u8> {
    let claim = Claim::take(needs.host, &plan)?;
    let mut teardown = Teardown {
        docker: needs.docker,
        host: needs.host,
        id: plan.record.id.clone(),
        dir: claim.dir.clone(),
        login: plan.record.login.clone(),
        extent: Extent::Everything,
        watcher: None,
        sidecar: None,
        done: false,
    };
    let outcome = live(needs, &mut plan, &claim, &mut teardown);
    teardown.finish();
    drop(claim);
    outcome
}

fn live(
    needs: &Needs<'_>,
    plan: &mut Plan,
    claim: &Claim,
    teardown: &mut Teardown<'_>,
) -> anyhow::Result<u8> {
    let Needs { docker, signals, .. } = needs;
    prepare(plan)?;
    back_up(&plan.record.login, &claim.dir);
    teardown.watcher = Watcher::start(&claim.dir, docker)?;
    up(needs, plan, claim)?;
    if let (Some(network), Some(sidecar), Some(address)) =
        (&plan.network, &plan.sidecar, plan.sidecar_address)
    {
        signals.check()?;
        docker.run(&network.connect(&sidecar.name, address))?;
        signals.check()?;
        teardown.sidecar = Some(Sidecar::start(docker, sidecar, &plan.agent.name, &claim.dir)?);
    }
    if let Some(model) = &plan.model {
        docker.run(&model.create())?;
        signals.check()?;
        docker.run(&model.start())?;
    }
    signals.stops(docker, &plan.agent.name)?;
    let attach = plan.agent.attach();
    let status = match needs.capture {
        Some(into) => docker.attach_capturing(&attach, into)?,
        None => docker.attach(&attach)?,
    };
    let outcome = judge(docker, signals, plan, status);
    if let Some(sidecar) = &teardown.sidecar
        && let Some(said) = sidecar.failed_before_ready()
    {
        signals.check()?;
        anyhow::bail!("the proxy could not be started, so the agent was not: {said}");
    }
    if outcome.is_ok() && status.code().is_some() {
        // The engine has removed the agent's container before its client returned.
        teardown.extent = Extent::WithoutAgent { companions: plan.sidecar.is_some() || plan.model.is_some() };
    }
    outcome
}

/// Creates the network and the containers, side by side where they do not need each other.
fn up(needs: &Needs<'_>, plan: &mut Plan, claim: &Claim) -> anyhow::Result<()> {
    let Needs { docker, signals, .. } = needs;
    signals.check()?;
    let sidecar = plan.sidecar.clone();
    let (sidecar_made, agent_made) = thread::scope(|scope| {
        let sidecar = sidecar.as_ref().map(|sidecar| scope.spawn(|| docker.try_run(&sidecar.create())));
        let agent = networked(needs, plan, claim).map(|()| docker.try_run(&plan.agent.create()));
        (sidecar.map(|thread| thread.join().expect("creating a container does not panic")), agent)
    });
    let agent_made = agent_made?;
    if let (Some(made), Some(sidecar)) = (sidecar_made, plan.sidecar.as_mut()) {
        settle(
            needs,
            made,
            &sidecar.create(),
            |tag| {
                sidecar.image = tag;
                sidecar.create()
            },
            needs.sidecar_image,
        )?;
    }
    let agent = &mut plan.agent;
    settle(
        needs,
        agent_made,
        &agent.create(),
        |tag| {
            agent.image = tag;
            agent.create()
        },
        needs.agent_image,
    )?;
    signals.check()
}

/// Where a container could not be created for want of its image, makes the image and creates the container again.
fn settle(
    needs: &Needs<'_>,
    made: Result<String, Failure>,
    create: &Cmd,
    with_image: impl FnOnce(String) -> Cmd,
    image: &(dyn Fn() -> anyhow::Result<String> + Sync),
) -> anyhow::Result<()> {
    needs.signals.check()?;
    match made {
        Ok(_) => Ok(()),
        Err(failure) if failure.stderr().contains("No such image") => {
            let tag = image()?;
            needs.signals.check()?;
            needs.docker.run(&with_image(tag)).map(drop)
        }
        Err(failure) => Err(failure.explain(&create.purpose)),
    }
}

/// Creates the session's network, where it has one; when its addresses are taken, others are planned.
fn networked(needs: &Needs<'_>, plan: &mut Plan, claim: &Claim) -> anyhow::Result<()> {
    for attempt in 1.. {
        let Some(network) = &plan.network else { return Ok(()) };
        let create = network.create();
        match needs.docker.try_run(&create) {
            Ok(_) => return Ok(()),
            Err(failure) if is_overlap(&failure) && attempt < SUBNET_ATTEMPTS => {
                needs.signals.check()?;
                let images =
                    (plan.agent.image.clone(), plan.sidecar.as_ref().map(|sidecar| sidecar.image.clone()));
                *plan = (needs.replan)(attempt)?;
                plan.agent.image = images.0;
                if let (Some(sidecar), Some(image)) = (plan.sidecar.as_mut(), images.1) {
                    sidecar.image = image;
                }
                prepare(plan)?;
                claim.write(&plan.record)?;
            }
            Err(failure) => return Err(failure.explain(&create.purpose)),
        }
    }
    unreachable!("the last attempt returns")
}

fn is_overlap(failure: &Failure) -> bool {
    let said = failure.stderr().to_ascii_lowercase();
    said.contains("overlaps") || said.contains("conflicts with network")
}

/// Makes the directories and files that the plan names.
fn prepare(plan: &Plan) -> anyhow::Result<()> {
    for Directory { path, owner } in &plan.directories {
        if !path.is_dir() {
            private_dir(path)?;
            chown(path, *owner)?;
        }
    }
    for File { path, text, keep, owner } in &plan.files {
        let written = match keep {
            Keep::Session => {
                // Read inside containers by users without a name; what is above is private.
                if let Some(parent) = path.parent().filter(|parent| *parent != plan.state) {
                    fs::create_dir_all(parent).and_then(|()| set_mode(parent, 0o755))
                } else {
                    Ok(())
                }
                .and_then(|()| replace_bytes(path, text.bytes()))
            }
            Keep::Existing => {
                match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                    Ok(mut file) => {
                        chown(path, *owner)?;
                        file.write_all(text.bytes())
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    Err(error) => Err(error),
                }
            }
        };
        written.with_context(|| format!("could not write `{}`", path.display()))?;
    }
    Ok(())
}

/// Writes a file of the session's by name, so that a reader sees the old one or the new one and nothing between.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    replace_bytes(path, text.as_bytes())
}

fn replace_bytes(path: &Path, text: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    fs::write(&next, text)?;
    set_mode(&next, 0o644)?;
    fs::rename(next, path)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn chown(path: &Path, owner: Option<crate::host::Owner>) -> anyhow::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))
        .with_context(|| format!("could not give `{}` to user {}", path.display(), owner.uid))
}

/// The exit status of the agent, or why there is none.
///
/// Docker's client ends with the agent's own status, and with statuses of its own; the engine's events tell them apart.
fn judge(docker: &Docker, signals: &Signals, plan: &Plan, status: ExitStatus) -> anyhow::Result<u8> {
    signals.check()?;
    let code = status.code();
    if code == Some(0) {
        return Ok(0);
    }
    let agent = &plan.agent;
    let since = plan.record.started.saturating_sub(60).to_string();
    let now = seconds(SystemTime::now());
    let mut said = String::new();
    // An engine's clock may be a little ahead, so a silent one is asked once more.
    for until in [now, now + 1] {
        said = docker.try_run(&docker::events(&agent.name, &since, &until.to_string())).unwrap_or_default();
        if said.contains("die ") {
            break;
        }
    }
    signals.check()?;
    if said.lines().any(|line| line.starts_with("oom")) {
        let limit = agent.limits.memory.as_deref().unwrap_or("engine's");
        report::warn(format_args!(
            "the memory limit ({limit}) was reached and processes were killed; `--memory` raises it"
        ));
    }
    let died = said.lines().rev().find_map(|line| line.strip_prefix("die ")?.trim().parse::<u8>().ok());
    match (died, code) {
        (Some(own), Some(_)) => Ok(own),
        (Some(_) | None, None) => anyhow::bail!(
            "the docker program that showed the agent was killed by signal {}; the session is over",
            status.signal().unwrap_or_default()
        ),
        (None, Some(_)) if said.lines().any(|line| line.starts_with("start")) => {
            anyhow::bail!("lost the engine while the agent was running; the session is over")
        }
        (None, Some(code)) => {
            anyhow::bail!("docker could not start the agent's container (its own status was {code})")
        }
    }
}

/// Whole seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A login that an agent writes while it is killed may be lost; the one from before is better than none.
fn back_up(login: &Path, dir: &Path) {
    if let Ok(text) = fs::read(login)
        && parses(&text)
    {
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(BACKUP));
        let _ = made.and_then(|mut file| file.write_all(&text));
    }
}

const BACKUP: &str = "login.backup";

fn parses(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}

/// Puts the login back where what is there cannot be read any more.
pub(crate) fn restore_login(login: &Path, dir: &Path) {
    let broken = || fs::read(login).is_ok_and(|text| !parses(&text));
    let Ok(backup) = fs::read(dir.join(BACKUP)) else { return };
    if !broken() {
        return;
    }
    // Another session may be writing it at this moment: it is written in place.
    thread::sleep(Duration::from_millis(200));
    if broken() {
        match fs::write(login, backup) {
            Ok(()) => report::warn(format_args!(
                "`{}` was cut short; it is again as it was when the session began",
                login.display()
            )),
            Err(error) => report::complain(format_args!("could not restore `{}`: {error}", login.display())),
        }
    }
}

/// How much of a session there can still be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Anything that an id names.
    Everything,
    /// The agent's container is known to be gone.
    WithoutAgent { companions: bool },
}

/// Takes the session down, whatever became of it.
struct Teardown<'a> {
    docker: &'a Docker,
    host: &'a Host,
    id: SessionId,
    dir: PathBuf,
    login: PathBuf,
    extent: Extent,
    watcher: Option<Watcher>,
    sidecar: Option<Sidecar>,
    done: bool,
}

impl Teardown<'_> {
    fn finish(&mut self) {
        if self.done {
            return;
        }
        self.done = true;
        let sidecar = self.sidecar.take();
        if let Some(sidecar) = &sidecar {
            sidecar.expect_end();
        }
        let left = take_down(self.docker, &self.id, self.extent);
        if let Some(sidecar) = sidecar {
            sidecar.finish(self.host);
        }
        restore_login(&self.login, &self.dir);
        match left {
            Ok(()) => {
                if let Err(error) = fs::remove_dir_all(&self.dir) {
                    report::warn(format_args!("could not remove `{}`: {error}", self.dir.display()));
                }
            }
            Err(error) => {
                report::warn(format_args!("something of this session is left: {error:#}"));
                report::hint("`pi clean` removes it, and so does the next `pi`");
            }
        }
        if let Some(watcher) = self.watcher.take() {
            watcher.dismiss();
        }
    }
}

impl Drop for Teardown<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Removes what a session can have on an engine; repeated until it is gone or has failed too often, since an engine may
/// be removing the same things at this moment.
///
/// # Errors
/// What the last round could not remove.
pub(crate) fn take_down(docker: &Docker, id: &SessionId, extent: Extent) -> anyhow::Result<()> {
    let mut extent = extent;
    let mut last = Ok(());
    for pause in [0, 100, 400, 1600, 3000] {
        thread::sleep(Duration::from_millis(pause));
        last = one_round(docker, id, extent);
        if last.is_ok() {
            break;
        }
        extent = Extent::Everything;
    }
    last
}

fn one_round(docker: &Docker, id: &SessionId, extent: Extent) -> anyhow::Result<()> {
    let gone = |cmd: &Cmd| match docker.try_run_within(cmd, TEARDOWN) {
        Err(failure) if !failure.is_missing() => Err(failure.explain(&cmd.purpose)),
        _ => Ok(()),
    };
    let [containers, network, volume] = down(id);
    let companions = match extent {
        Extent::Everything => {
            gone(&containers)?;
            true
        }
        Extent::WithoutAgent { companions: true } => {
            gone(&docker::remove_containers(&[id.sidecar(), id.model()]))?;
            true
        }
        Extent::WithoutAgent { companions: false } => false,
    };
    thread::scope(|scope| {
        let network = companions.then(|| scope.spawn(|| gone(&network)));
        let volume = gone(&volume);
        network.map_or(Ok(()), |thread| thread.join().expect("removing a network does not panic")).and(volume)
    })
}

/// A second process of the launcher's, in a session of its own: when the launcher is killed, it takes the session down.
struct Watcher {
    child: Child,
}

impl Watcher {
    fn start(dir: &Path, docker: &Docker) -> anyhow::Result<Option<Self>> {
        let program = std::env::current_exe().context("could not find the launcher's own program")?;
        let child = Command::new(program)
            .arg(WATCH)
            .arg(dir)
            .env("PI_BOX_WATCH_DOCKER", docker.program())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("could not start the watch over the session")?;
        Ok(Some(Self { child }))
    }

    /// Tells the watcher that there is nothing left to do, and waits for its end.
    fn dismiss(mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(DISMISSED);
        }
        let _ = self.child.wait();
    }
}

const DISMISSED: &[u8] = b"done";

/// The watcher's whole life: waits for the launcher's word or its end. Returns whether the session is to be taken down.
pub(crate) fn watch() -> bool {
    // Away from the terminal and from the launcher's process group, or what kills them would kill this too.
    let _ = rustix::process::setsid();
    let mut word = Vec::new();
    let _ = io::stdin().lock().read_to_end(&mut word);
    word != DISMISSED
}

/// The running sidecar: its stdin keeps it alive, its stdout is the proxy's log.
struct Sidecar {
    child: Arc<Mutex<Child>>,
    reader: thread::JoinHandle<Refused>,
    ready: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    expected: Arc<AtomicBool>,
    said: Arc<Mutex<String>>,
}

/// How much of a proxy's log is kept.
const LOG_LIMIT: u64 = 5 << 20;

impl Sidecar {
    fn start(docker: &Docker, sidecar: &docker::Container, agent: &str, dir: &Path) -> anyhow::Result<Self> {
        let mut child = docker.hold(&sidecar.attach())?;
        let stdout = child.stdout.take().context("the proxy has no output")?;
        let stderr = child.stderr.take().context("the proxy has no error output")?;
        let [ready, ended, expected] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let said = Arc::new(Mutex::new(String::new()));
        let errors = said.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = errors.lock().unwrap_or_else(PoisonError::into_inner);
                if said.len() < 4096 {
                    said.push_str(&report::printable(&line));
                    said.push(' ');
                }
            }
        });
        let log = Log::create(dir)?;
        let (is_ready, has_ended, is_expected) = (ready.clone(), ended.clone(), expected.clone());
        let (docker, agent) = (docker.clone(), agent.to_owned());
        let reader = thread::spawn(move || {
            let refused = follow(stdout, log, &is_ready);
            has_ended.store(true, Ordering::SeqCst);
            if !is_expected.load(Ordering::SeqCst) {
                if is_ready.load(Ordering::SeqCst) {
                    report::warn("the proxy has ended: nothing can leave this session any more");
                } else {
                    // The agent has not started and never will: its gate waits for a proxy that is not coming.
                    let _ = docker.try_run_within(&docker::remove_containers(&[agent]), TEARDOWN);
                }
            }
            refused
        });
        Ok(Self { child: Arc::new(Mutex::new(child)), reader, ready, ended, expected, said })
    }

    /// What the proxy said, if it ended before the agent's gate had seen it work.
    fn failed_before_ready(&self) -> Option<String> {
        if self.ready.load(Ordering::SeqCst) || !self.ended.load(Ordering::SeqCst) {
            return None;
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        Some(if said.trim().is_empty() { "it said nothing".to_owned() } else { said.trim().to_owned() })
    }

    fn expect_end(&self) {
        self.expected.store(true, Ordering::SeqCst);
        // Its stdin ends, and so does it.
        self.child.lock().unwrap_or_else(PoisonError::into_inner).stdin.take();
    }

    /// Waits for its last line and tells what was refused.
    fn finish(self, host: &Host) {
        {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            let deadline = SystemTime::now() + Duration::from_secs(5);
            while SystemTime::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let Ok(refused) = self.reader.join() else { return };
        let path = host.state_dir().join(LAST_REFUSED);
        if let Err(error) = replace(&path, &refused.save()) {
            report::warn(format_args!("could not write `{}`: {error}", path.display()));
        }
        crate::verb::blocked::say_at_exit(&refused);
    }
}

/// What the last session was refused, for `pi blocked`.
pub(crate) const LAST_REFUSED: &str = "last-refused";
/// What a running session was refused, in its directory.
pub(crate) const REFUSED: &str = "refused";
/// The proxy's log, in a running session's directory.
pub(crate) const PROXY_LOG: &str = "proxy.log";

struct Log {
    dir: PathBuf,
    file: fs::File,
    written: u64,
}

impl Log {
    fn create(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(PROXY_LOG);
        let file =
            fs::File::create(&path).with_context(|| format!("could not create `{}`", path.display()))?;
        Ok(Self { dir: dir.to_owned(), file, written: 0 })
    }

    fn line(&mut self, line: &[u8]) {
        if self.written < LOG_LIMIT {
            self.written += line.len() as u64;
            let _ = self.file.write_all(line);
        }
    }
}

/// Reads the proxy's log to its end.
fn follow(stdout: impl io::Read, mut log: Log, ready: &AtomicBool) -> Refused {
    let mut refused = Refused::default();
    let mut lines = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.by_ref().take(64 << 10).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return refused,
            Ok(_) => {}
        }
        log.line(&line);
        if is_gate(&line) {
            ready.store(true, Ordering::SeqCst);
            continue;
        }
        if refused.line(&line, SystemTime::now()).is_some() {
            let _ = replace(&log.dir.join(REFUSED), &refused.save());
        }
    }
}

/// Whether the proxy has just refused a made-up name, as the agent's gate asks it to before it lets the agent start.
fn is_gate(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    line.ends_with(b".invalid:443\"") && line.windows(16).any(|window| window == b"Proxying refused")
}
