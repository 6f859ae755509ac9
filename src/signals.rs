//! Signals: the first one ends the session, and the others change nothing.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use shared_child::{SharedChild, unix::SharedChildExt as _};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals as Watched,
};

use crate::report::{FAILED, Interrupted};

/// Listens for the signals that end a session. Only the first one counts, so that an impatient user does not interrupt
/// the teardown.
pub(crate) struct Signals {
    first: Arc<AtomicI32>,
    on_signal: Arc<Mutex<OnSignal>>,
}

/// Whether a signal has come, for those who have nothing else to do with signals.
#[derive(Debug, Clone)]
pub(crate) struct Flag(Arc<AtomicI32>);

impl Flag {
    /// Fails after a signal.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        match self.0.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(Interrupted(u8::try_from(signal).unwrap_or(FAILED))),
        }
    }
}

/// Whether this process has received a signal; set where it begins to listen.
static RECEIVED: OnceLock<Flag> = OnceLock::new();

/// The signal that ended this process instead of an error, if there was one: what a signal of the whole terminal has killed
/// beside it is nobody's fault.
pub(crate) fn rather_than(error: anyhow::Error) -> anyhow::Error {
    match RECEIVED.get().map(Flag::check) {
        Some(Err(signal)) => signal.into(),
        _ => error,
    }
}

/// Whether an engine has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    Yes,
    No,
}

/// Stops something by its name. If that fails, the teardown removes it.
type Stop = dyn Fn() -> Answers + Send + Sync;

/// What the first signal ends.
#[derive(Default)]
struct OnSignal {
    /// A long command in the foreground.
    foreground: Option<Arc<SharedChild>>,
    /// The way to stop a running agent.
    stop: Option<Arc<Stop>>,
    /// The docker client that shows the agent.
    client: Option<Arc<SharedChild>>,
}

impl Signals {
    /// Starts listening, for the rest of the process.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let first = Arc::new(AtomicI32::new(0));
        let on_signal = Arc::new(Mutex::new(OnSignal::default()));
        let _ = RECEIVED.set(Flag(first.clone()));
        let mut signals =
            Watched::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]).context("could not listen for signals")?;
        let (mine, acts) = (first.clone(), on_signal.clone());
        let heard = Self { first: mine, on_signal: acts };
        thread::spawn(move || signals.forever().for_each(|signal| heard.raise(signal)));
        Ok(Self { first, on_signal })
    }

    /// Acts as if the process had received this signal.
    pub(crate) fn raise(&self, signal: i32) {
        if self.first.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            act(&self.on_signal);
        }
    }

    /// The signal that has come, if one has. The next one counts as the first again.
    pub(crate) fn take(&self) -> Option<i32> {
        Some(self.first.swap(0, Ordering::SeqCst)).filter(|signal| *signal != 0)
    }

    /// The same listener, for another owner.
    pub(crate) fn share(&self) -> Self {
        Self { first: self.first.clone(), on_signal: self.on_signal.clone() }
    }

    /// A listener of its own, for something that runs beside a session and ends with it by [`Self::raise`].
    pub(crate) fn apart() -> Self {
        Self { first: Arc::default(), on_signal: Arc::default() }
    }

    /// The same listener, for something that runs beside a session: a signal does not end it half-way.
    pub(crate) fn beside(&self) -> Self {
        Self { first: self.first.clone(), on_signal: Arc::default() }
    }

    /// Whether a signal has come.
    pub(crate) fn flag(&self) -> Flag {
        Flag(self.first.clone())
    }

    /// Fails with [`Interrupted`] after a signal.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        Ok(self.flag().check()?)
    }

    /// From now on the first signal also ends this command.
    pub(crate) fn foreground(&self, child: &Arc<SharedChild>) {
        held(&self.on_signal).foreground = Some(child.clone());
        if self.check().is_err() {
            end(child);
        }
    }

    /// From now on the first signal also does this, in another thread. It fails after a signal.
    pub(crate) fn stops(&self, stop: impl Fn() -> Answers + Send + Sync + 'static) -> anyhow::Result<()> {
        held(&self.on_signal).stop = Some(Arc::new(stop));
        self.check()
    }

    /// From now on the first signal also ends this client, if it does not end with the agent.
    pub(crate) fn shows(&self, client: Arc<SharedChild>) {
        held(&self.on_signal).client = Some(client);
    }
}

fn held(acts: &Mutex<OnSignal>) -> MutexGuard<'_, OnSignal> {
    acts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a client may take to end. Where the engine hangs, it hangs too.
const END: Duration = Duration::from_secs(2);

fn end(client: &SharedChild) {
    let _ = client.send_signal(SIGTERM);
    if !matches!(client.wait_timeout(END), Ok(Some(_))) {
        let _ = client.kill();
    }
}

fn act(acts: &Mutex<OnSignal>) {
    let (foreground, stop) = {
        let acts = held(acts);
        (acts.foreground.clone(), acts.stop.clone())
    };
    if let Some(child) = foreground {
        end(&child);
    }
    if let Some(stop) = stop {
        // If the engine hangs, so does its client.
        let moment = match stop() {
            Answers::Yes => Duration::from_secs(5),
            Answers::No => Duration::ZERO,
        };
        let client = held(acts).client.clone();
        if let Some(client) = client
            && !matches!(client.wait_timeout(moment), Ok(Some(_)))
        {
            let _ = client.kill();
        }
    }
}
