//! The running sidecar: what keeps it alive, what its log says, and how its rules change.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};

use crate::{
    docker::Docker, egress::Rendered, files::replace, host::Host, plan::Container, refused::Refused, report,
};

/// How much of a proxy's log is kept.
const LOG_LIMIT: u64 = 5 << 20;

/// How long a line of the log may be.
const LINE: u64 = 64 << 10;

/// How many pieces of the log may wait for one who reads it slowly.
const WAITING: usize = 1024;

/// How long the sidecar may take to try new rules.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long it may take to end.
const END: Duration = Duration::from_secs(5);

/// The proxy's log, in a running session's directory.
const LOG: &str = "proxy.log";

/// The running sidecar: its stdin keeps it alive, its stdout is the proxy's log.
pub(super) struct Sidecar {
    child: Mutex<Child>,
    stdin: Mutex<Option<ChildStdin>>,
    reader: Mutex<Option<thread::JoinHandle<()>>>,
    heard: Arc<Heard>,
    dir: PathBuf,
}

/// What has been heard from it.
struct Heard {
    ready: AtomicBool,
    ended: AtomicBool,
    expected: AtomicBool,
    /// What it complained of.
    said: Mutex<String>,
    refused: Mutex<Refused>,
    log: Mutex<Log>,
    /// Who waits for its word about new rules.
    word: Mutex<Option<mpsc::Sender<Result<(), String>>>>,
}

impl Sidecar {
    /// Starts the container, which was created before.
    pub(super) fn start(
        docker: &Docker,
        sidecar: &Container,
        agent: &str,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let mut child = docker.start_held(sidecar)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the proxy has no output")?;
        let stderr = child.stderr.take().context("the proxy has no error output")?;
        let heard = Arc::new(Heard {
            ready: AtomicBool::default(),
            ended: AtomicBool::default(),
            expected: AtomicBool::default(),
            said: Mutex::default(),
            refused: Mutex::default(),
            log: Mutex::new(Log::create(dir)?),
            word: Mutex::default(),
        });
        let errors = heard.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                errors.complains(&(report::printable(&line) + " "));
            }
        });
        let (docker, agent, listener) = (docker.clone(), agent.to_owned(), heard.clone());
        let reader = thread::spawn(move || {
            listener.follow(stdout);
            if listener.expected.load(Ordering::SeqCst) {
                return;
            }
            if listener.ready.load(Ordering::SeqCst) {
                report::warn("the proxy has ended: nothing can leave this session any more");
            } else {
                // The agent has not started and never will: its gate waits for a proxy that is not coming.
                docker.halt_now(&agent);
            }
        });
        Ok(Self {
            child: Mutex::new(child),
            stdin: Mutex::new(stdin),
            reader: Mutex::new(Some(reader)),
            heard,
            dir: dir.to_owned(),
        })
    }

    /// What the proxy said, if it ended before the agent's gate had seen it work.
    pub(super) fn failed_before_ready(&self) -> Option<String> {
        if self.heard.ready.load(Ordering::SeqCst) || !self.heard.ended.load(Ordering::SeqCst) {
            return None;
        }
        let said = held(&self.heard.said);
        Some(if said.trim().is_empty() { "it said nothing".to_owned() } else { said.trim().to_owned() })
    }

    /// Gives the sidecar new rules and waits until they are in effect; to be called by one at a time.
    ///
    /// # Errors
    /// It did not take them, and keeps the old ones; or it said nothing.
    pub(super) fn change(&self, rendered: &Rendered) -> anyhow::Result<()> {
        let (send, word) = mpsc::channel();
        *held(&self.heard.word) = Some(send);
        let filter = self.dir.join("proxy/filter");
        replace(&filter, rendered.filter.as_bytes())
            .with_context(|| format!("could not write `{}`", filter.display()))?;
        match word.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => {
                bail!("the proxy did not take the new rules, the old ones are in effect: {why}")
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the proxy has ended"),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!(
                "the proxy has not said within {} s that the new rules are in effect",
                PATIENCE.as_secs()
            ),
        }
    }

    /// What was refused so far.
    pub(super) fn refused(&self) -> Refused {
        held(&self.heard.refused).clone()
    }

    /// The log so far, and what comes.
    pub(super) fn read_log(&self) -> (Vec<u8>, mpsc::Receiver<Vec<u8>>) {
        let mut log = held(&self.heard.log);
        let (send, more) = mpsc::sync_channel(WAITING);
        log.readers.push(send);
        (fs::read(self.dir.join(LOG)).unwrap_or_default(), more)
    }

    pub(super) fn expect_end(&self) {
        self.heard.expected.store(true, Ordering::SeqCst);
        // Its stdin ends, and so does it.
        held(&self.stdin).take();
    }

    /// Waits for its last line, keeps its log for later, and returns what was refused.
    pub(super) fn finish(&self, host: &Host) -> Refused {
        {
            let mut child = held(&self.child);
            let deadline = Instant::now() + END;
            while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(reader) = held(&self.reader).take() {
            let _ = reader.join();
        }
        let refused = self.refused();
        let path = host.last_refused();
        if let Err(error) = replace(&path, refused.save().as_bytes()) {
            report::warn(format_args!("could not write `{}`: {error}", path.display()));
        }
        // A help, not a promise.
        let _ = fs::rename(self.dir.join(LOG), host.last_log());
        refused
    }
}

impl Heard {
    /// Reads the proxy's log to its end.
    fn follow(&self, stdout: impl io::Read) {
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            match lines.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            held(&self.log).line(&line);
            if let Some(word) = line.strip_prefix(b"pi-proxy: ") {
                self.heed(String::from_utf8_lossy(word).trim_end());
            } else {
                held(&self.refused).line(&line, SystemTime::now());
            }
        }
        self.ended.store(true, Ordering::SeqCst);
        held(&self.log).readers.clear();
        held(&self.word).take();
    }

    /// What the front of the proxy says of itself; an agent can write no line that begins so.
    fn heed(&self, word: &str) {
        let about_rules = |word| held(&self.word).take().map(|waits| waits.send(word));
        match word.split_once(": ") {
            None if word == "ready" => self.ready.store(true, Ordering::SeqCst),
            None if word == "rules changed" => drop(about_rules(Ok(()))),
            Some(("rules kept", why)) => drop(about_rules(Err(why.to_owned()))),
            Some(("error", text)) => self.complains(text),
            Some(("warning", text)) => report::warn(text),
            Some(("restarted", why)) => {
                report::warn(format_args!("the proxy was restarted, its connections are lost: {why}"));
            }
            Some(("dropped", why)) => report::warn(format_args!("the proxy closed connections: {why}")),
            _ => {}
        }
    }

    fn complains(&self, text: &str) {
        let mut said = held(&self.said);
        if said.len() < 4096 {
            said.push_str(text);
        }
    }
}

struct Log {
    file: fs::File,
    written: u64,
    /// Those who read along. One that is too slow is left behind.
    readers: Vec<mpsc::SyncSender<Vec<u8>>>,
}

impl Log {
    fn create(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(LOG);
        let file =
            fs::File::create(&path).with_context(|| format!("could not create `{}`", path.display()))?;
        Ok(Self { file, written: 0, readers: vec![] })
    }

    fn line(&mut self, line: &[u8]) {
        if self.written < LOG_LIMIT {
            self.written += line.len() as u64;
            let _ = self.file.write_all(line);
        }
        self.readers.retain(|reader| reader.try_send(line.to_vec()).is_ok());
    }
}

fn held<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
