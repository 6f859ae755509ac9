//! The line to an engine that may be on another machine: whether it is cut.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use shared_child::SharedChild;

use super::sidecar::Sidecar;
use crate::{
    docker::Docker,
    host::Host,
    report::{self, Finding, Hinted, one_line},
};

/// How often the engine is asked, and how long it may take to answer.
const PAUSE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(20);

/// After how long without an answer the session is given up, unless `PI_BOX_CUT` (in seconds) says otherwise.
const PATIENCE: Duration = Duration::from_secs(600);

/// A sidecar that has not heard of its launcher for so long has ended.
const SILENCE: Duration = Duration::from_secs(60);

/// A look at the line from time to time, as long as this value lives. A client of docker's may wait for ever at one that was cut.
pub(super) struct Line {
    client: Arc<Mutex<Option<Arc<SharedChild>>>>,
    given_up: Arc<OnceLock<Hinted>>,
    /// For a session that is given up.
    hint: String,
    _end: mpsc::Sender<()>,
}

impl Line {
    /// Begins to look. A sidecar that was lost with the line gets a successor when the line is back. The hint is for a session
    /// that is given up.
    pub(super) fn watch(docker: &Docker, host: &Host, sidecar: Option<Arc<Sidecar>>, hint: String) -> Self {
        let (end, ended) = mpsc::channel();
        let (client, given_up) = (Arc::default(), Arc::default());
        let seconds = host.var("PI_BOX_CUT").and_then(|text| text.parse().ok());
        let patience = seconds.map_or(PATIENCE, Duration::from_secs);
        let look = Look {
            docker: docker.unheeded().within(ANSWER),
            patience,
            client: Arc::clone(&client),
            given_up: Arc::clone(&given_up),
            sidecar,
            hint: hint.clone(),
        };
        // Nobody waits for its end: the engine may hang.
        thread::spawn(move || look.on(&ended));
        Self { client, given_up, hint, _end: end }
    }

    /// This client shows the agent.
    pub(super) fn shows(&self, client: Arc<SharedChild>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
    }

    /// Gives the session up: so often in a row it was shown for a moment only.
    pub(super) fn give_up_after(&self, times: u32) {
        let why = format!(
            "the line to the engine was lost {times} times, one soon after the other; the session is given up"
        );
        let _ = self.given_up.set(Hinted::new(why, &self.hint));
    }

    /// Fails if the session was given up.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.given_up.get().cloned().map_or(Ok(()), |why| Err(why.into()))
    }
}

/// What it takes to look.
struct Look {
    docker: Docker,
    patience: Duration,
    client: Arc<Mutex<Option<Arc<SharedChild>>>>,
    given_up: Arc<OnceLock<Hinted>>,
    sidecar: Option<Arc<Sidecar>>,
    hint: String,
}

impl Look {
    fn on(&self, ended: &mpsc::Receiver<()>) {
        let mut cut: Option<Instant> = None;
        let pause = PAUSE.min(self.patience / 4);
        while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let asked = Instant::now();
            match (self.docker.about(), cut) {
                // Nobody may have noticed a cut: this machine has slept, or only the sidecar's connection was lost.
                (Ok(_), None) => self.renew(Sidecar::is_lost),
                (Ok(_), Some(since)) => {
                    cut = None;
                    report::warn("the engine answers again");
                    self.renew(|sidecar| sidecar.is_lost() || since.elapsed() > SILENCE);
                }
                (Err(_), None) => {
                    cut = Some(asked);
                    Finding::hinted(
                        format!("the engine at `{}` does not answer: is the line cut?", one_line(self.docker.address())),
                        "nothing is lost: the session goes on when it is back; after 60 s nothing can leave it any more",
                    )
                    .warn();
                }
                (Err(_), Some(since)) if since.elapsed() < self.patience => {}
                (Err(_), Some(_)) => return self.give_up(),
            }
        }
    }

    /// Gives the sidecar a successor, where it needs one.
    fn renew(&self, is_needed: impl Fn(&Sidecar) -> bool) {
        if let Some(sidecar) = self.sidecar.as_deref().filter(|sidecar| is_needed(sidecar)) {
            let is_told = sidecar.is_wanting();
            match sidecar.replace() {
                Ok(()) => report::note("the way out of the session is open again"),
                Err(error) => {
                    let tell = if is_told { report::detail } else { report::warn };
                    tell(format_args!("the way out of the session does not come back: {error:#}"));
                }
            }
        }
    }

    fn give_up(&self) {
        let _ = self.given_up.set(Hinted::new(
            format!("the engine has not answered for {} s; the session is given up", self.patience.as_secs()),
            &self.hint,
        ));
        if let Some(client) = &*self.client.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = client.kill();
        }
    }
}
