//! The running sidecar: what keeps it alive, and what its log says.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;

use super::TEARDOWN;
use crate::{
    docker::{self, Docker},
    files::replace,
    host::Host,
    plan::Container,
    refused::{Refused, say_at_exit},
    report,
};

/// The running sidecar: its stdin keeps it alive, its stdout is the proxy's log.
pub(super) struct Sidecar {
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
    pub(super) fn start(
        docker: &Docker,
        sidecar: &Container,
        agent: &str,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let mut child = docker.start_held(sidecar)?;
        let stdout = child.stdout.take().context("the proxy has no output")?;
        let stderr = child.stderr.take().context("the proxy has no error output")?;
        let [ready, ended, expected] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let said = Arc::new(Mutex::new(String::new()));
        let (errors, complaint) = (said.clone(), said.clone());
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
            let refused = follow(stdout, log, &is_ready, &complaint);
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
    pub(super) fn failed_before_ready(&self) -> Option<String> {
        if self.ready.load(Ordering::SeqCst) || !self.ended.load(Ordering::SeqCst) {
            return None;
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        Some(if said.trim().is_empty() { "it said nothing".to_owned() } else { said.trim().to_owned() })
    }

    pub(super) fn expect_end(&self) {
        self.expected.store(true, Ordering::SeqCst);
        // Its stdin ends, and so does it.
        self.child.lock().unwrap_or_else(PoisonError::into_inner).stdin.take();
    }

    /// Waits for its last line and tells what was refused.
    pub(super) fn finish(self, host: &Host) {
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
        if let Err(error) = replace(&path, refused.save().as_bytes()) {
            report::warn(format_args!("could not write `{}`: {error}", path.display()));
        }
        say_at_exit(&refused);
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
        // What the proxy says of itself is little, and `pi allow` waits for it.
        if self.written < LOG_LIMIT || line.starts_with(b"pi-proxy: ") {
            self.written += line.len() as u64;
            let _ = self.file.write_all(line);
        }
    }
}

/// Reads the proxy's log to its end.
fn follow(stdout: impl io::Read, mut log: Log, ready: &AtomicBool, said: &Mutex<String>) -> Refused {
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
        if let Some(word) = line.strip_prefix(b"pi-proxy: ") {
            let word = String::from_utf8_lossy(word);
            heed(word.trim_end(), ready, said);
            continue;
        }
        if refused.line(&line, SystemTime::now()).is_some() {
            let _ = replace(&log.dir.join(REFUSED), refused.save().as_bytes());
        }
    }
}

/// What the front of the proxy says of itself; an agent can write no line that begins so.
fn heed(word: &str, ready: &AtomicBool, said: &Mutex<String>) {
    match word.split_once(": ") {
        None if word == "ready" => ready.store(true, Ordering::SeqCst),
        Some(("error", text)) => said.lock().unwrap_or_else(PoisonError::into_inner).push_str(text),
        Some(("warning", text)) => report::warn(text),
        Some(("restarted", why)) => {
            report::warn(format_args!("the proxy was restarted, its connections are lost: {why}"));
        }
        Some(("dropped", why)) => report::warn(format_args!("the proxy closed connections: {why}")),
        // `pi allow` reads these from the log.
        _ => {}
    }
}
