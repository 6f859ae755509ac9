//! How far a batch is: a table that changes on a terminal, a line for each event elsewhere, and a table at the end.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    board::{Board, State},
    task,
};
use crate::{
    copies,
    git::{command::Git, copy::back::commits, repository::Repository},
    host::Host,
    report::{self, one_line},
    verb::{diff::short, ps::age},
};

/// Shows what changes.
pub(super) struct Show<'a> {
    board: &'a Board<'a>,
    host: &'a Host,
    git: &'a Git,
    root: &'a Path,
    /// What was shown last.
    shown: Vec<State>,
    live: Option<Live>,
}

/// The table on a terminal: a line for each task that runs, and one that counts all.
struct Live {
    all: MultiProgress,
    count: ProgressBar,
    bars: BTreeMap<usize, ProgressBar>,
}

impl<'a> Show<'a> {
    pub(super) fn start(board: &'a Board<'a>, host: &'a Host, git: &'a Git, root: &'a Path) -> Self {
        let draws = host.draws_on_stderr() && !report::is_quiet() && !report::is_verbose();
        let live = draws.then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            let count = all.add(bar("pi: {wide_msg}"));
            Live { all, count, bars: BTreeMap::new() }
        });
        Self { board, host, git, root, shown: board.states(), live }
    }

    /// Shows what has changed.
    pub(super) fn update(&mut self) {
        let states = self.board.states();
        for (n, (state, before)) in states.iter().zip(&self.shown).enumerate() {
            if state != before
                && let Some(line) = self.event(n, *state)
            {
                let say = || report::note(&line);
                match &mut self.live {
                    Some(live) => {
                        live.bars.remove(&n).iter().for_each(ProgressBar::finish_and_clear);
                        live.all.suspend(say);
                    }
                    None => say(),
                }
            }
        }
        if let Some(live) = &mut self.live {
            live.draw(self.board, &states);
        }
        self.shown = states;
    }

    /// Does something else with the terminal.
    pub(super) fn aside<T>(&self, act: impl FnOnce() -> T) -> T {
        match &self.live {
            Some(live) => live.all.suspend(act),
            None => act(),
        }
    }

    /// What is said of a task's new state.
    fn event(&self, n: usize, state: State) -> Option<String> {
        let Board { tasks, engines, dir, .. } = self.board;
        let (task, log) = (&tasks[n], task::log(dir, &tasks[n]));
        let (name, log) = (&task.name, log.display());
        match state {
            State::Running { .. } if self.live.is_some() => None,
            State::Running { engine, .. } => {
                let on = engines[engine].name.as_ref().map(|name| format!(" on `{}`", one_line(name)));
                Some(format!("`{name}` begins{}: {}", on.unwrap_or_default(), report::short(&task.prompt)))
            }
            State::Done { took } => {
                let of = came(self.host, self.git, self.root, name).map(|(branch, count)| {
                    format!(": {count} commit{} on `{branch}`", if count == 1 { "" } else { "s" })
                });
                Some(format!("`{name}` is done after {}{}", time(took), of.unwrap_or_default()))
            }
            State::Failed { code, took } => Some(format!(
                "`{name}` failed after {} with exit status {code}; its log is `{log}`",
                time(took)
            )),
            State::Stopped => Some(format!("`{name}` was stopped; its log is `{log}`")),
            State::Waiting => Some(format!("`{name}` waits again")),
            State::Before => None,
        }
    }
}

impl Live {
    fn draw(&mut self, board: &Board<'_>, states: &[State]) {
        for (n, state) in states.iter().enumerate() {
            if let State::Running { engine, since } = state {
                let bar = self.bars.entry(n).or_insert_with(|| {
                    let bar = self.all.insert_before(&self.count, bar("pi: {prefix:<38} {wide_msg}"));
                    bar.set_prefix(board.tasks[n].name.clone());
                    bar
                });
                let on =
                    board.engines[*engine].name.as_deref().map(|name| format!("on {}  ", one_line(name)));
                let prompt = report::short(&board.tasks[n].prompt);
                bar.set_message(format!("{:>8}  {}{prompt}", time(since.elapsed()), on.unwrap_or_default()));
                bar.tick();
            }
        }
        let count = |wanted: fn(&State) -> bool| states.iter().filter(|state| wanted(state)).count();
        let running = count(|state| matches!(state, State::Running { .. }));
        let waiting = count(|state| *state == State::Waiting);
        let done = count(|state| matches!(state, State::Before | State::Done { .. }));
        let failed = count(|state| matches!(state, State::Failed { .. } | State::Stopped));
        self.count.set_message(format!("{running} running, {waiting} waiting, {done} done, {failed} failed"));
        self.count.tick();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.bars.values().chain([&self.count]).for_each(ProgressBar::finish_and_clear);
    }
}

fn bar(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style)
}

fn time(time: Duration) -> String {
    age(time.as_secs())
}

/// The branch with a task's work, and how many commits it has more than what was copied.
fn came(host: &Host, git: &Git, root: &Path, name: &str) -> Option<(String, usize)> {
    let (_, copy) = copies::find(host, root, Some(name)).ok()?;
    let (branch, tip) = copy.result()?;
    let repository = Repository::at(&copy.repository, &copy.common).ok()?;
    let count = commits(git, &repository, copy.base.as_deref()?, tip);
    Some((short(branch).to_owned(), count))
}

/// All tasks, with what has become of them.
pub(super) fn table(board: &Board<'_>, host: &Host, git: &Git, root: &Path) -> String {
    let width = board.tasks.iter().map(|task| task.name.len()).max().unwrap_or_default().max(4);
    let wide = width + "pi/".len();
    let mut table =
        format!("{:<width$}  {:<10} {:>7}  {:<wide$}  LOG\n", "TASK", "STATE", "COMMITS", "BRANCH");
    for (task, state) in board.tasks.iter().zip(board.states()) {
        let said = match state {
            State::Waiting => "not begun".to_owned(),
            State::Running { .. } => "running".to_owned(),
            State::Before | State::Done { .. } => "done".to_owned(),
            State::Failed { code, .. } => format!("failed {code}"),
            State::Stopped => "stopped".to_owned(),
        };
        let came = came(host, git, root, &task.name);
        let count = came.as_ref().map_or("-".to_owned(), |(_, count)| count.to_string());
        let branch = came.map_or("-".to_owned(), |(branch, _)| branch);
        let log = task::log(board.dir, task);
        let log = if log.exists() { one_line(&log.to_string_lossy()) } else { "-".to_owned() };
        let _ = writeln!(table, "{:<width$}  {said:<10} {count:>7}  {branch:<wide$}  {log}", task.name);
    }
    table
}
