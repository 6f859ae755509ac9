//! Addresses that a session wants to have opened: `xdg-open` inside writes them into a file of the session's own. Pages
//! for logging in are opened at once by a session that logs in; others wait for `pi open`.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    agent::login::{ACLI_PAGES, LOGINS},
    agent_dir::{
        fd::Dir,
        laid::{DIRECTORY, OPEN},
    },
    url::Url,
    written::real,
};

/// How often the file is looked at.
const OFTEN: Duration = Duration::from_millis(150);

/// How many addresses wait at most, and how many are opened by themselves.
const MANY: usize = 20;

/// How much is read of what a session writes.
const MOST: u64 = 256 << 10;

/// Addresses that wait to be looked at by the user.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<Vec<String>>>);

impl Waiting {
    /// Those that wait; they wait no more.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, url: &Url) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MANY && !all.iter().any(|one| one == url.as_str()) {
            all.push(url.as_str().to_owned());
        }
    }
}

/// A thread that reads them.
pub(super) struct Browser {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Browser {
    /// Reads the file of the session in this directory. `opener` opens pages for logging in.
    pub(super) fn start(dir: &Path, opener: Option<&Path>, waiting: &Waiting) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (dir, opener, waiting, heard) =
            (real(dir), opener.map(Path::to_owned), waiting.clone(), over.clone());
        let thread = thread::spawn(move || follow(&dir, opener.as_deref(), &waiting, &heard));
        Self { over, thread }
    }

    /// The session is over.
    pub(super) fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.thread.join();
    }
}

fn follow(dir: &Path, opener: Option<&Path>, waiting: &Waiting, over: &AtomicBool) {
    let file = Dir::open(&dir.join(DIRECTORY)).and_then(|dir| dir.file(OPEN.as_ref()));
    let Ok(mut file) = file else { return };
    let mut read = 0;
    let mut count = 0;
    while !over.load(Ordering::SeqCst) && read < MOST {
        let Some(lines) = more(&mut file, &mut read) else { return };
        for url in lines.lines().filter_map(|line| Url::parse(line).ok()) {
            match opener.filter(|_| is_login_page(&url) && count < MANY) {
                Some(opener) => {
                    count += 1;
                    open(opener, &url);
                }
                None => waiting.add(&url),
            }
        }
        thread::sleep(OFTEN);
    }
}

/// The whole lines behind what was read; `None` where it cannot be read.
fn more(file: &mut File, read: &mut u64) -> Option<String> {
    file.seek(SeekFrom::Start(*read)).ok()?;
    let mut bytes = Vec::new();
    file.take(64 << 10).read_to_end(&mut bytes).ok()?;
    let whole = match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => end + 1,
        // A line without an end is no address.
        None if bytes.len() == 64 << 10 => bytes.len(),
        None => 0,
    };
    *read += whole as u64;
    Some(String::from_utf8_lossy(&bytes[..whole]).into_owned())
}

fn is_login_page(url: &Url) -> bool {
    let pages = LOGINS.iter().flat_map(|login| login.pages).chain(ACLI_PAGES);
    pages.into_iter().any(|(host, path)| url.is_at(host, path))
}

/// Opens an address with the host's own program; it gets one word, and no shell is between.
pub(crate) fn open(opener: &Path, url: &Url) {
    let started = Command::new(opener)
        .arg(url.as_str())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    if let Ok(mut child) = started {
        // It may be the browser itself, which outlives the session.
        thread::spawn(move || child.wait());
    }
}

/// What the host calls its program that opens addresses.
pub(crate) const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Where that program is; `None` where there is none, or one that an agent could have put there.
pub(crate) fn opener(written: &crate::written::Written, host: &crate::host::Host) -> Option<PathBuf> {
    written.program(OPENER, host)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_are_read_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "https://a.test/\nhttps://b").unwrap();
        let mut file = File::open(&path).unwrap();
        let mut read = 0;
        assert_eq!(more(&mut file, &mut read).unwrap(), "https://a.test/\n");
        assert_eq!(more(&mut file, &mut read).unwrap(), "");
        fs::write(&path, "https://a.test/\nhttps://b.test/\n").unwrap();
        assert_eq!(more(&mut file, &mut read).unwrap(), "https://b.test/\n");
        fs::write(&path, vec![b'x'; 100_000]).unwrap();
        read = 0;
        assert_eq!(more(&mut file, &mut read).unwrap().len(), 64 << 10);
    }

    #[test]
    fn only_pages_for_logging_in_open_by_themselves() {
        let known = |text| is_login_page(&Url::parse(text).unwrap());
        assert!(known("https://claude.ai/oauth/authorize?x=1") && known("https://github.com/login/device"));
        for other in ["https://claude.ai/new", "https://github.com/evil/repo", "https://evil.test/oauth/"] {
            assert!(!known(other), "{other}");
        }
    }

    #[test]
    fn few_addresses_wait_and_each_once() {
        let waiting = Waiting::default();
        for n in 0..50 {
            for _ in 0..2 {
                waiting.add(&Url::parse(&format!("https://a{n}.test/")).unwrap());
            }
        }
        assert_eq!(waiting.take().len(), MANY);
        assert!(waiting.take().is_empty());
    }
}
