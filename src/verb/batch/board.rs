//! Which tasks of a batch wait, run and are over, for those who work on them and for who shows it.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use shared_child::{SharedChild, unix::SharedChildExt as _};
use signal_hook::consts::SIGTERM;

use super::{file::Task, task};
use crate::{
    docker::Docker,
    report::{self, FAILED},
};

/// How often a worker without a task looks for one.
const PAUSE: Duration = Duration::from_millis(100);

/// An engine that gets tasks.
pub(super) struct Engine {
    /// The context, where one was named.
    pub(super) name: Option<String>,
    pub(super) docker: Docker,
    /// How many tasks it gets at a time.
    pub(super) jobs: usize,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Running {
        engine: usize,
        since: Instant,
    },
    /// It has succeeded in an earlier run.
    Before,
    Done {
        took: Duration,
    },
    Failed {
        code: u8,
        took: Duration,
    },
    Stopped,
}

/// What the words of a task's session are on a context.
type Words<'a> = dyn Fn(&Task, Option<&str>) -> Vec<OsString> + Sync + 'a;

/// All tasks of a batch.
pub(super) struct Board<'a> {
    pub(super) tasks: &'a [Task],
    pub(super) engines: &'a [Engine],
    pub(super) dir: &'a Path,
    /// The address of the engine that a task's copy is on, if there is one.
    homes: Vec<Option<String>>,
    words: &'a Words<'a>,
    inner: Mutex<Inner>,
}

struct Inner {
    states: Vec<State>,
    children: Vec<Option<Arc<SharedChild>>>,
    /// No other task begins.
    held: bool,
    stopped: bool,
    /// Engines that do not answer any more.
    lost: BTreeSet<usize>,
}

impl<'a> Board<'a> {
    pub(super) fn new(
        tasks: &'a [Task],
        done: &BTreeSet<usize>,
        homes: Vec<Option<String>>,
        engines: &'a [Engine],
        dir: &'a Path,
        words: &'a Words<'a>,
    ) -> Self {
        let state = |n| if done.contains(&n) { State::Before } else { State::Waiting };
        let states: Vec<State> = (0..tasks.len()).map(state).collect();
        let children = vec![None; tasks.len()];
        let inner =
            Mutex::new(Inner { states, children, held: false, stopped: false, lost: BTreeSet::new() });
        Self { tasks, engines, dir, homes, words, inner }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn states(&self) -> Vec<State> {
        self.inner().states.clone()
    }

    /// The tasks that run.
    pub(super) fn running(&self) -> Vec<usize> {
        let states = self.states();
        (0..states.len()).filter(|n| matches!(states[*n], State::Running { .. })).collect()
    }

    pub(super) fn is_all_done(&self) -> bool {
        self.states().iter().all(|state| matches!(state, State::Before | State::Done { .. }))
    }

    /// Lets no other task begin, or lets them again. Returns what it was before.
    pub(super) fn hold(&self, held: bool) -> bool {
        std::mem::replace(&mut self.inner().held, held)
    }

    /// Stops what runs. Each session ends as it does after any signal.
    pub(super) fn stop(&self) {
        let mut inner = self.inner();
        inner.held = true;
        inner.stopped = true;
        for child in inner.children.iter().flatten() {
            let _ = child.send_signal(SIGTERM);
        }
    }

    /// Works on one task after the other, on this engine.
    pub(super) fn work(&self, engine: usize) {
        let own = &self.engines[engine];
        loop {
            let Some(n) = self.take(engine) else {
                let is_over = self.running().is_empty() || self.inner().lost.contains(&engine);
                if is_over || self.inner().stopped {
                    return;
                }
                // An engine that goes away gives its tasks back.
                thread::sleep(PAUSE);
                continue;
            };
            let since = Instant::now();
            let code = self.run(n, own.name.as_deref());
            let is_lost = code == Some(FAILED) && !self.inner().stopped && own.docker.about().is_err();
            let took = since.elapsed();
            let mut inner = self.inner();
            inner.children[n] = None;
            inner.states[n] = match code {
                Some(0) => State::Done { took },
                _ if inner.stopped => State::Stopped,
                None => State::Waiting,
                Some(_) if is_lost && self.engines.len() > 1 && self.homes[n].is_none() => State::Waiting,
                Some(code) => State::Failed { code, took },
            };
            if is_lost && inner.lost.insert(engine) {
                let name = own.name.as_deref().unwrap_or_else(|| own.docker.address());
                report::warn(format_args!(
                    "the engine `{name}` does not answer any more, and gets no other task"
                ));
            }
        }
    }

    /// Takes the next task for this engine.
    fn take(&self, engine: usize) -> Option<usize> {
        let address = |engine: &Engine| engine.docker.address().to_owned();
        let own = address(&self.engines[engine]);
        let all: Vec<String> = self.engines.iter().map(address).collect();
        // A copy stays where it is. One on an engine without a part in this fails, and says why.
        let is_for_us =
            |home: &Option<String>| home.as_ref().is_none_or(|home| *home == own || !all.contains(home));
        let mut inner = self.inner();
        if inner.held || inner.lost.contains(&engine) {
            return None;
        }
        let n = (0..self.tasks.len())
            .find(|n| inner.states[*n] == State::Waiting && is_for_us(&self.homes[*n]))?;
        inner.states[n] = State::Running { engine, since: Instant::now() };
        Some(n)
    }

    /// Runs a task; `None` if it did not come to that.
    fn run(&self, n: usize, on: Option<&str>) -> Option<u8> {
        let task = &self.tasks[n];
        let began = |child: SharedChild| {
            let child = Arc::new(child);
            let mut inner = self.inner();
            inner.children[n] = Some(child.clone());
            if inner.stopped {
                let _ = child.send_signal(SIGTERM);
            }
            child
        };
        let is_wanted = || !self.inner().held;
        match task::run(self.dir, task, (self.words)(task, on), &is_wanted, &began) {
            Ok(code) => code,
            Err(error) => {
                report::complain(format_args!("`{}`: {error:#}", task.name));
                Some(FAILED)
            }
        }
    }
}
