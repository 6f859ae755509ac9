//! The login that a session was started for: waited for, and the session's end when it is there.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{agent_dir::login, docker::Docker, written::real};

/// How often the session's `auth.json` is looked at.
const OFTEN: Duration = Duration::from_millis(150);

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// There is a login, or what claims to be one.
    Login,
    /// Time is up.
    Nothing,
    /// The agent has ended before.
    End,
}

/// A thread that waits.
pub(super) struct Awaited {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Came>,
}

impl Awaited {
    /// Waits for a login in the session of this directory, for at most so long, and then ends its agent.
    pub(super) fn start(docker: &Docker, agent: &str, dir: &Path, limit: Duration) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (docker, agent, dir, heard) = (docker.clone(), agent.to_owned(), real(dir), over.clone());
        let thread = thread::spawn(move || {
            let came = wait(&dir, limit, &heard);
            if came != Came::End {
                docker.halt(&agent);
            }
            came
        });
        Self { over, thread }
    }

    /// The agent has ended.
    pub(super) fn end(self) -> Came {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().expect("waiting for a login does not panic")
    }
}

fn wait(dir: &Path, limit: Duration, over: &AtomicBool) -> Came {
    let begun = Instant::now();
    let mut last = None;
    while begun.elapsed() < limit {
        // What it is not is said when it is looked over at the end.
        let Ok(now) = login::made(dir) else { return Came::Login };
        // The agent has written all that it has to write when there is nothing new.
        if now.is_some() && now == last {
            return Came::Login;
        }
        if over.load(Ordering::SeqCst) {
            return Came::End;
        }
        last = now;
        thread::sleep(OFTEN);
    }
    Came::Nothing
}
