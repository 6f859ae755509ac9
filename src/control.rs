//! Verbs talk to a session's launcher over a socket in the session's directory, which only this user can open. A
//! connection carries one request, as a line of JSON. The answer is a line of JSON, or the log itself.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::{
    record::Live,
    report::{self, Finding, Hinted},
    signals::Signals,
};

const SOCKET: &str = "control";

/// The longest request and the longest answer, except for a log.
const LONGEST: u64 = 4 << 20;

/// How many requests one session serves at a time.
const AT_ONCE: usize = 64;

/// How long a peer may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// When to tell a user what the verb waits for.
const SAY_WHY: Duration = Duration::from_millis(1500);

/// A verb's request to a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Answer when the agent's container has started.
    Ready,
    /// Allow these entries too. Without entries, reload the allowlist's file.
    Allow(Vec<String>),
    /// Send the refused destinations, as `Refused::save` writes them.
    Blocked,
    /// Send the proxy's log so far. With `follow`, also send new lines.
    Log { follow: bool },
    /// Send the addresses that the session wants to have opened, a line each. They are sent once.
    Addresses,
    /// End the session, as a signal would.
    Stop,
    /// A command with this mark is being started beside the agent. It is ended if the connection is, without a word.
    Entered(String),
}

/// A session's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) data: String,
    /// Why the request failed, and a hint.
    pub(crate) failure: Option<(String, Option<String>)>,
}

impl From<anyhow::Error> for Answer {
    fn from(error: anyhow::Error) -> Self {
        let hint = error.downcast_ref::<Hinted>().and_then(|hinted| hinted.hint().map(str::to_owned));
        Self { failure: Some((format!("{error:#}"), hint)), ..Self::default() }
    }
}

impl Answer {
    /// Prints the notes and warnings, and returns the data or the failure.
    pub(crate) fn tell(self) -> anyhow::Result<String> {
        self.notes.iter().for_each(report::note);
        self.warnings.into_iter().map(Finding::plain).for_each(|finding| finding.warn());
        match self.failure {
            None => Ok(self.data),
            Some((message, Some(hint))) => Err(Hinted::error(message, hint)),
            Some((message, None)) => Err(anyhow::Error::msg(message)),
        }
    }
}

/// Asks a session, and waits for its answer while the session lives and `patience` lasts. A signal ends the wait.
pub(crate) fn ask(
    session: &Live,
    request: &Request,
    signals: &Signals,
    patience: Option<Duration>,
) -> anyhow::Result<Answer> {
    let mut line = Vec::new();
    exchange(session, request, signals, patience, &mut |bytes| {
        line.extend_from_slice(bytes);
        line.len() as u64 <= LONGEST
    })?;
    serde_json::from_slice(&line).map_err(|_| ended(session))
}

/// Somebody beside the agent, whom the session's launcher ends when this process is gone.
pub(crate) struct Entered(Option<UnixStream>);

impl Entered {
    /// # Errors
    /// The session has ended.
    pub(crate) fn announce(session: &Live, mark: &str, signals: &Signals) -> anyhow::Result<Self> {
        let mut stream = reach(session, signals)?;
        let text = serde_json::to_string(&Request::Entered(mark.to_owned()))? + "\n";
        let mut word = [0; WELL.len()];
        stream.set_read_timeout(Some(PATIENCE))?;
        let told = stream.write_all(text.as_bytes()).and_then(|()| stream.read_exact(&mut word));
        match told {
            Ok(()) => Ok(Self(Some(stream))),
            Err(_) if session.has_ended() => Err(ended(session)),
            // A launcher that was started before this program was renewed.
            Err(_) => Ok(Self(None)),
        }
    }

    /// It has ended by itself, and what it has started goes on.
    pub(crate) fn leave(self) {
        if let Some(mut stream) = self.0 {
            let _ = stream.write_all(WELL);
        }
    }
}

const WELL: &[u8] = b"well\n";

/// Passes a session's log to `sink`, until that returns false or a signal comes.
pub(crate) fn log(
    session: &Live,
    follow: bool,
    signals: &Signals,
    sink: &mut dyn FnMut(&[u8]) -> bool,
) -> anyhow::Result<()> {
    exchange(session, &Request::Log { follow }, signals, None, sink)
}

fn ended(session: &Live) -> anyhow::Error {
    anyhow::anyhow!("the session `{}` has ended", session.record.name)
}

/// Whether the launcher of a session that counts as running was killed: it has left its socket, and its last docker clients
/// hold its lock for a moment.
pub(crate) fn is_deserted(session: &Live) -> bool {
    connect(&session.dir).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Connects to a launcher, which opens its socket a moment after it has taken the session's lock.
fn reach(session: &Live, signals: &Signals) -> anyhow::Result<UnixStream> {
    let begun = Instant::now();
    loop {
        match connect(&session.dir) {
            Ok(stream) => return Ok(stream),
            Err(_) if session.has_ended() => return Err(ended(session)),
            Err(error) if begun.elapsed() > PATIENCE => {
                return Err(anyhow::Error::new(error).context(format!(
                    "could not reach the launcher of the session `{}`",
                    session.record.name
                )));
            }
            Err(_) => signals.check()?,
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn exchange(
    session: &Live,
    request: &Request,
    signals: &Signals,
    patience: Option<Duration>,
    sink: &mut dyn FnMut(&[u8]) -> bool,
) -> anyhow::Result<()> {
    let mut stream = reach(session, signals)?;
    let text = serde_json::to_string(request)? + "\n";
    stream.write_all(text.as_bytes()).map_err(|_| ended(session))?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let begun = Instant::now();
    let mut told = false;
    let mut buffer = [0; 8192];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                told = true;
                if !sink(&buffer[..n]) {
                    return Ok(());
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                signals.check()?;
                anyhow::ensure!(patience.is_none_or(|most| begun.elapsed() < most), "it does not answer");
                if !told && begun.elapsed() > SAY_WHY && !matches!(request, Request::Log { .. }) {
                    told = true;
                    report::note(format_args!("waiting for the session `{}`", session.record.name));
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Handles the requests to a session.
pub(crate) trait Serve: Send + Sync + 'static {
    /// Answers a request. It may take long.
    fn answer(&self, request: Request) -> Answer;
    /// Ends what was started beside the agent with this mark.
    fn end(&self, mark: &str);
    /// Sends the log to a reader.
    fn send_log(&self, follow: bool, to: &mut dyn Write) -> io::Result<()>;
}

/// Serves a session's socket until it is dropped.
pub(crate) struct Server {
    dir: PathBuf,
    over: Arc<AtomicBool>,
}

impl Server {
    /// Opens the socket in the session's directory, and serves each connection in a thread.
    pub(crate) fn start(dir: &Path, serve: Arc<dyn Serve>) -> anyhow::Result<Self> {
        let path = dir.join(SOCKET);
        // A launcher that was killed has left it.
        let _ = fs::remove_file(&path);
        let listener = short(dir, UnixListener::bind)
            .and_then(|listener| {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map(|()| listener)
            })
            .with_context(|| format!("could not make the socket `{}`", path.display()))?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let busy = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                if busy.fetch_add(1, Ordering::SeqCst) >= AT_ONCE {
                    busy.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                let (serve, busy) = (serve.clone(), busy.clone());
                thread::spawn(move || {
                    // A peer that has gone needs no answer.
                    let _ = attend(&stream, &*serve);
                    busy.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { dir: dir.to_owned(), over })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        let _ = connect(&self.dir);
        let _ = fs::remove_file(self.dir.join(SOCKET));
    }
}

fn attend(mut stream: &UnixStream, serve: &dyn Serve) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line)?;
    if let Request::Log { follow } = request {
        serve.send_log(follow, &mut stream)?;
        return Ok(());
    }
    if let Request::Entered(mark) = request {
        stream.write_all(WELL)?;
        stream.set_read_timeout(None)?;
        let mut word = Vec::new();
        let _ = stream.take(LONGEST).read_to_end(&mut word);
        if word != WELL {
            serve.end(&mark);
        }
        return Ok(());
    }
    let answer = serde_json::to_string(&serve.answer(request))?;
    stream.write_all(answer.as_bytes())?;
    Ok(())
}

fn connect(dir: &Path) -> io::Result<UnixStream> {
    short(dir, UnixStream::connect)
}

/// Uses the socket by a short name: a socket's path has at most about 100 bytes.
fn short<T>(dir: &Path, with: impl FnOnce(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let path = dir.join(SOCKET);
    if cfg!(not(target_os = "linux")) || path.as_os_str().len() < 100 {
        return with(path);
    }
    let dir = rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    with(format!("/proc/self/fd/{}/{SOCKET}", dir.as_fd().as_raw_fd()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, SessionId};

    struct Echo;

    impl Serve for Echo {
        fn answer(&self, request: Request) -> Answer {
            Answer { data: format!("{request:?}"), ..Answer::default() }
        }

        fn end(&self, _: &str) {}

        fn send_log(&self, _: bool, to: &mut dyn Write) -> io::Result<()> {
            to.write_all(b"a line\n")
        }
    }

    struct Ends(std::sync::Mutex<std::sync::mpsc::Sender<String>>);

    impl Serve for Ends {
        fn answer(&self, _: Request) -> Answer {
            Answer::default()
        }

        fn end(&self, mark: &str) {
            self.0.lock().unwrap().send(mark.to_owned()).unwrap();
        }

        fn send_log(&self, _: bool, _: &mut dyn Write) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_goes_without_a_word_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (send, ended) = std::sync::mpsc::channel();
        let _server = Server::start(dir.path(), Arc::new(Ends(send.into()))).unwrap();
        let enter = |mark: &str| Entered::announce(&session(dir.path()), mark, &Signals::apart()).unwrap();
        enter("well").leave();
        drop(enter("gone"));
        assert_eq!(ended.recv_timeout(Duration::from_secs(20)).unwrap(), "gone");
        assert!(ended.recv_timeout(Duration::from_millis(50)).is_err());
    }

    fn session(dir: &Path) -> Live {
        let record = Record::for_tests(SessionId::parse("abcdefghijklmnop").unwrap());
        Live { record, dir: dir.to_owned() }
    }

    #[test]
    fn a_session_answers_wherever_its_directory_is() {
        let signals = Signals::apart();
        for depth in [1, 12] {
            let top = tempfile::tempdir().unwrap();
            let dir = (0..depth).fold(top.path().to_owned(), |dir, _| dir.join("a rather long name"));
            fs::create_dir_all(&dir).unwrap();
            let session = session(&dir);
            let server = Server::start(&dir, Arc::new(Echo)).unwrap();
            let request = Request::Allow(vec!["a.test".into()]);
            let answer = ask(&session, &request, &signals, None).unwrap();
            assert_eq!(answer.data, format!("{request:?}"));
            let mut said = Vec::new();
            let mut keep = |bytes: &[u8]| {
                said.extend_from_slice(bytes);
                true
            };
            log(&session, true, &signals, &mut keep).unwrap();
            assert_eq!(said, b"a line\n");
            drop(server);
            let error = ask(&session, &Request::Ready, &signals, None).unwrap_err();
            assert_eq!(error.to_string(), "the session `name` has ended");
        }
    }

    #[test]
    fn what_is_no_request_gets_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let _server = Server::start(dir.path(), Arc::new(Echo)).unwrap();
        for text in ["\n", "{}\n", "\"Nonsense\"\n", "\0\n"] {
            let mut stream = connect(dir.path()).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "");
        }
    }
}
