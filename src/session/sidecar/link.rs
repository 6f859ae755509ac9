//! What goes to and fro between the launcher and a sidecar.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    process::ChildStdin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};

use super::super::{answers::Answers, proxy_log::ProxyLog};
use crate::{refused::Refused, report};

/// How long the sidecar may take to try new rules.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a line of its log may be.
const LINE: u64 = 64 << 10;

/// How much of the sidecar's complaints is kept.
const LONGEST_COMPLAINT: usize = 4096;

/// How many of the sidecar's warnings reach the terminal: a broken one may have no end of them.
const MOST_WARNINGS: u32 = 20;

/// What a session's sidecars have said, one after the other.
pub(super) struct Story {
    pub(super) refused: Mutex<Refused>,
    pub(super) learned: Mutex<Refused>,
    pub(super) answers: Mutex<Answers>,
    pub(super) log: Mutex<ProxyLog>,
}

impl Story {
    pub(super) fn new(log: ProxyLog) -> Self {
        Self {
            refused: Mutex::default(),
            learned: Mutex::default(),
            answers: Mutex::default(),
            log: Mutex::new(log),
        }
    }
}

/// What goes to and fro between the launcher and the sidecar. Any thread may hold it.
pub(super) struct Link {
    /// To the thread that writes; without it the sidecar's stdin ends.
    words: Mutex<Option<SyncSender<Vec<u8>>>>,
    /// Held by the one who changes the rules.
    turn: Mutex<()>,
    heard: Mutex<Heard>,
    news: Condvar,
    story: Arc<Story>,
}

#[derive(Default)]
struct Heard {
    /// Everything is in effect; or the agent runs anyway.
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

pub(super) enum Ending {
    Expected,
    BeforeReady,
    AfterReady,
}

impl Link {
    /// Begins with these words. `ready` says that the agent runs already.
    pub(super) fn open(stdin: ChildStdin, first_words: Vec<u8>, story: Arc<Story>, ready: bool) -> Self {
        // A sidecar that reads nothing keeps this thread waiting, and nobody else.
        let (words, rest) = sync_channel(4);
        thread::spawn(move || write(stdin, &first_words, &rest));
        Self {
            words: Mutex::new(Some(words)),
            turn: Mutex::default(),
            heard: Mutex::new(Heard { sent: 1, ready, ..Heard::default() }),
            news: Condvar::new(),
            story,
        }
    }

    /// Says something that has no answer, unless the sidecar reads nothing now. Returns whether it is there.
    pub(super) fn says(&self, bytes: &[u8]) -> bool {
        let words = lock(&self.words);
        words.iter().for_each(|words| drop(words.try_send(bytes.to_vec())));
        words.is_some()
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.heard).ended
    }

    /// Whether it has ended, and nobody knows why.
    pub(super) fn is_lost(&self) -> bool {
        let heard = lock(&self.heard);
        heard.ended && !heard.expected
    }

    /// What it said, if it ended before it was ready.
    pub(super) fn failed_before_ready(&self) -> Option<String> {
        let heard = lock(&self.heard);
        let failed = heard.ended && !heard.ready;
        let said = heard.complaint.trim();
        failed.then(|| if said.is_empty() { "it said nothing".to_owned() } else { said.to_owned() })
    }

    /// Ends its stdin, and so it ends, unless it has ended with the agent.
    pub(super) fn leave(&self) {
        lock(&self.heard).expected = true;
        lock(&self.words).take();
    }

    /// Waits until its first words are in effect.
    ///
    /// # Errors
    /// It has ended, or does not answer in time.
    pub(super) fn wait_until_in_effect(&self) -> anyhow::Result<()> {
        let verdict = self.answered(Instant::now() + PATIENCE)?.verdict.take();
        verdict.unwrap_or(Ok(())).map_err(anyhow::Error::msg)
    }

    /// Tells it something, and waits for the verdict.
    pub(super) fn tell(&self, bytes: Vec<u8>) -> anyhow::Result<Result<(), String>> {
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
    pub(super) fn follow(&self, stdout: impl io::Read) {
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            match lines.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            lock(&self.story.log).add(&line);
            if let Some(word) = line.strip_prefix(b"pi-proxy: ") {
                self.heed(String::from_utf8_lossy(word).trim_end());
            } else {
                lock(&self.story.answers).line(&line);
                lock(&self.story.refused).line(&line, SystemTime::now());
                // Only a session that learns has such lines.
                lock(&self.story.learned).learn(&line, SystemTime::now());
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
    pub(super) fn take_complaints(&self, mut stderr: impl io::Read) {
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = stderr.read(&mut buffer) {
            let mut heard = lock(&self.heard);
            for line in String::from_utf8_lossy(&buffer[..n]).lines() {
                heard.complain(line);
            }
        }
    }

    /// Notes that nothing more will come.
    pub(super) fn end(&self) -> Ending {
        let mut heard = lock(&self.heard);
        heard.ended = true;
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
