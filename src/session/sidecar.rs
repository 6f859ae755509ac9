//! The running sidecar: what keeps it alive, what it is told, and what it says.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ChildStdin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use shared_child::SharedChild;

use super::{
    answers::Answers,
    proxy_log::{PROXY_LOG, ProxyLog},
};
use crate::{
    docker::Docker,
    egress::{Brokered, Rendered, Told},
    files::replace,
    host::Host,
    plan::Container,
    refused::Refused,
    report::{self, Finding},
    secret::Secret,
};

/// How long the sidecar may take to try new rules.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long it may take to end.
const END: Duration = Duration::from_secs(5);

/// How long a line of its log may be.
const LINE: u64 = 64 << 10;

/// How much of the sidecar's complaints is kept.
const LONGEST_COMPLAINT: usize = 4096;

/// How many of the sidecar's warnings reach the terminal: a broken one may have no end of them.
const MOST_WARNINGS: u32 = 20;

/// The running sidecar: its stdin keeps it alive, its stdout is the proxy's log.
pub(super) struct Sidecar {
    child: SharedChild,
    reader: Mutex<Option<thread::JoinHandle<()>>>,
    link: Arc<Link>,
    dir: PathBuf,
    /// Whether it keeps the agent to an allowlist.
    restricts: bool,
}

impl Sidecar {
    /// Starts the container and tells it the rules, by its stdin: they are never in an argv, an environment or a file.
    pub(super) fn start(
        docker: &Docker,
        sidecar: &Container,
        agent: &str,
        dir: &Path,
        told: &Told,
    ) -> anyhow::Result<Self> {
        let child = docker.start_held(sidecar)?;
        let stdin = child.take_stdin().context("the proxy has no input")?;
        let stdout = child.take_stdout().context("the proxy has no output")?;
        let stderr = child.take_stderr().context("the proxy has no error output")?;
        let log = ProxyLog::create(dir)?;
        let restricts = told.rules.is_some();
        let link = Arc::new(Link::open(stdin, told.first_words(), log));
        let complaints = link.clone();
        thread::spawn(move || complaints.take_complaints(stderr));
        let (heard, docker, agent) = (link.clone(), docker.clone(), agent.to_owned());
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
        let reader = Mutex::new(Some(reader));
        Ok(Self { child, reader, link, dir: dir.to_owned(), restricts })
    }

    /// Gives the sidecar new rules and waits until they are in effect. Several callers take turns; one that comes before
    /// the first rules are in effect waits for them.
    ///
    /// # Errors
    /// It did not take them and keeps the old ones, it has ended, or it does not answer in time.
    pub(super) fn change(&self, rendered: &Rendered) -> anyhow::Result<()> {
        self.link.change(rendered)
    }

    /// Gives the broker other keys for the same providers, and waits until they are in effect.
    ///
    /// # Errors
    /// It keeps the old ones, it has ended, or it does not answer in time.
    pub(super) fn change_keys(&self, keys: &Secret) -> anyhow::Result<()> {
        self.link.tell(Brokered::new_keys(keys))?.map_err(|why| {
            anyhow::anyhow!("the broker did not take the new keys, the old ones are in effect: {why}")
        })
    }

    /// Whether it keeps the agent to an allowlist.
    pub(super) fn restricts(&self) -> bool {
        self.restricts
    }

    /// What was refused so far.
    pub(super) fn refused(&self) -> Refused {
        lock(&self.link.refused).clone()
    }

    /// The log so far, and what comes.
    pub(super) fn read_log(&self) -> (Vec<u8>, Receiver<Vec<u8>>) {
        lock(&self.link.log).read()
    }

    /// What the proxy said, if it ended before the agent's gate had seen it work.
    pub(super) fn failed_before_ready(&self) -> Option<String> {
        let heard = lock(&self.link.heard);
        let failed = heard.ended && !heard.ready;
        let said = heard.complaint.trim();
        failed.then(|| if said.is_empty() { "it said nothing".to_owned() } else { said.to_owned() })
    }

    /// Ends it. Returns whether it ended well: then the engine has removed its container before its client returned.
    pub(super) fn end(&self, docker: &Docker) -> bool {
        lock(&self.link.heard).expected = true;
        // Its stdin ends, and so does it, unless it has ended with the agent.
        lock(&self.link.words).take();
        let status = self.child.wait_timeout(if docker.hangs() { Duration::ZERO } else { END });
        if !matches!(status, Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        status.is_ok_and(|status| status.is_some_and(|status| status.success()))
    }

    /// Waits for its last line, keeps its log for later, and returns what was refused.
    pub(super) fn finish(&self, host: &Host) -> Refused {
        if let Some(reader) = lock(&self.reader).take() {
            let _ = reader.join();
        }
        lock(&self.link.answers).findings().iter().for_each(Finding::warn);
        let refused = self.refused();
        let path = host.last_refused();
        if self.restricts
            && let Err(error) = replace(&path, refused.save().as_bytes())
        {
            report::warn(format_args!("could not write `{}`: {error}", path.display()));
        }
        // Helps, not promises.
        let _ = replace(&host.last_learned(), lock(&self.link.learned).save().as_bytes());
        let _ = fs::rename(self.dir.join(PROXY_LOG), host.last_log());
        refused
    }
}

/// What goes to and fro between the launcher and the sidecar. Any thread may hold it.
struct Link {
    /// To the thread that writes; without it the sidecar's stdin ends.
    words: Mutex<Option<SyncSender<Vec<u8>>>>,
    /// Held by the one who changes the rules.
    turn: Mutex<()>,
    heard: Mutex<Heard>,
    news: Condvar,
    refused: Mutex<Refused>,
    learned: Mutex<Refused>,
    answers: Mutex<Answers>,
    log: Mutex<ProxyLog>,
}

#[derive(Default)]
struct Heard {
    ready: bool,
    ended: bool,
    expected: bool,
    complaint: String,
    warnings: u32,
    /// How often rules were sent, and how often there was an answer.
    sent: u64,
    answered: u64,
    /// The last answer: why the old rules were kept, if they were.
    verdict: Option<Result<(), String>>,
}

enum Ending {
    Expected,
    BeforeReady,
    AfterReady,
}

impl Link {
    fn open(stdin: ChildStdin, first_words: Vec<u8>, log: ProxyLog) -> Self {
        // A sidecar that reads nothing keeps this thread waiting, and nobody else.
        let (words, rest) = sync_channel(1);
        thread::spawn(move || write(stdin, &first_words, &rest));
        Self {
            words: Mutex::new(Some(words)),
            turn: Mutex::default(),
            heard: Mutex::new(Heard { sent: 1, ..Heard::default() }),
            news: Condvar::new(),
            refused: Mutex::default(),
            learned: Mutex::default(),
            answers: Mutex::default(),
            log: Mutex::new(log),
        }
    }

    fn change(&self, rendered: &Rendered) -> anyhow::Result<()> {
        self.tell(rendered.new_rules())?.map_err(|why| {
            anyhow::anyhow!("the proxy did not take the new rules, the old ones are in effect: {why}")
        })
    }

    /// Tells it something, and waits for the verdict.
    fn tell(&self, bytes: Vec<u8>) -> anyhow::Result<Result<(), String>> {
        let _turn = lock(&self.turn);
        let deadline = Instant::now() + PATIENCE;
        // A late answer to the one before must not be taken for the answer to this one.
        let mut heard = self.answered(deadline)?;
        heard.verdict = None;
        heard.sent += 1;
        drop(heard);
        let words = lock(&self.words).clone();
        words.context(ENDED)?.try_send(bytes).ok().context(ENDED)?;
        self.answered(deadline)?.verdict.take().context(ENDED)
    }

    /// Waits until there is an answer to everything that was sent.
    fn answered(&self, deadline: Instant) -> anyhow::Result<MutexGuard<'_, Heard>> {
        let mut heard = lock(&self.heard);
        while heard.answered < heard.sent {
            let left = deadline.saturating_duration_since(Instant::now());
            if heard.ended {
                bail!(ENDED);
            }
            if left.is_zero() {
                bail!("the proxy has not answered within {} s", PATIENCE.as_secs());
            }
            heard = self.news.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(heard)
    }

    /// Reads the proxy's log to its end.
    fn follow(&self, stdout: impl io::Read) {
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            match lines.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            lock(&self.log).add(&line);
            if let Some(word) = line.strip_prefix(b"pi-proxy: ") {
                self.heed(String::from_utf8_lossy(word).trim_end());
            } else {
                lock(&self.answers).line(&line);
                lock(&self.refused).line(&line, SystemTime::now());
                // Only a session that learns has such lines.
                lock(&self.learned).learn(&line, SystemTime::now());
            }
        }
    }

    /// What the sidecar says of itself; an agent can write no line that begins so.
    fn heed(&self, word: &str) {
        let mut heard = lock(&self.heard);
        let mut warning = None;
        match word.split_once(": ") {
            None if word == "ready" => {
                heard.ready = true;
                heard.answer(Ok(()));
            }
            // The agent's container has ended, and the launcher is about to hear it.
            None if word == "over" => heard.expected = true,
            None if word == "rules changed" || word == "keys changed" => heard.answer(Ok(())),
            Some(("rules kept" | "keys kept", why)) => heard.answer(Err(report::one_line(why))),
            Some(("error", text)) => heard.complain(text),
            Some(("warning", text)) => warning = Some(text.to_owned()),
            Some(("restarted", why)) => {
                warning = Some(format!("the proxy was restarted, its connections are lost: {why}"));
            }
            Some(("broker restarted", why)) => {
                warning = Some(format!("the keys' broker was restarted, requests under way are lost: {why}"));
            }
            Some(("dropped", why)) => warning = Some(format!("the proxy closed connections: {why}")),
            _ => {}
        }
        if let Some(warning) = warning {
            heard.warnings = heard.warnings.saturating_add(1);
            match heard.warnings {
                ..=MOST_WARNINGS => report::warn(warning),
                n if n == MOST_WARNINGS + 1 => {
                    report::warn("the proxy has more warnings; `pi logs` shows them");
                }
                _ => {}
            }
        }
        self.news.notify_all();
    }

    /// Takes what docker says of the sidecar on stderr, to its end.
    fn take_complaints(&self, mut stderr: impl io::Read) {
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = stderr.read(&mut buffer) {
            let mut heard = lock(&self.heard);
            for line in String::from_utf8_lossy(&buffer[..n]).lines() {
                heard.complain(line);
            }
        }
    }

    /// Notes that nothing more will come.
    fn end(&self) -> Ending {
        let mut heard = lock(&self.heard);
        heard.ended = true;
        lock(&self.log).end();
        self.news.notify_all();
        match *heard {
            Heard { expected: true, .. } => Ending::Expected,
            Heard { ready: true, .. } => Ending::AfterReady,
            _ => Ending::BeforeReady,
        }
    }
}

const ENDED: &str = "the proxy has ended";

impl Heard {
    fn answer(&mut self, verdict: Result<(), String>) {
        if self.answered < self.sent {
            self.answered += 1;
            self.verdict = Some(verdict);
        }
    }

    fn complain(&mut self, text: &str) {
        if self.complaint.len() < LONGEST_COMPLAINT {
            self.complaint.extend(report::printable(text).chars().take(LONGEST_COMPLAINT));
            self.complaint.push(' ');
        }
    }
}

/// Writes to the sidecar's stdin what comes, until nothing more can come.
fn write(mut stdin: ChildStdin, first: &[u8], rest: &Receiver<Vec<u8>>) {
    let mut next = stdin.write_all(first);
    while next.is_ok()
        && let Ok(words) = rest.recv()
    {
        next = stdin.write_all(&words);
    }
    // One that reads no more will be heard to end.
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
