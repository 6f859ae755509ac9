//! `pi batch FILE`: a session on a copy of its own for each line of a file, several at a time, on one engine or on many.

mod board;
mod file;
mod show;
mod task;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use signal_hook::consts::SIGINT;

pub(crate) use self::task::note;
use self::{
    board::{Board, Engine},
    file::Task,
    show::Show,
};
use crate::{
    cli::Cli,
    config::Config,
    copies,
    files::{private_dir, read_small},
    git::command::Git,
    host::hex,
    launcher::{Candidate, Launcher, cloning::repository},
    report::{self, FAILED, Hinted, Interrupted},
    workspace::Workspace,
    written::{Written, real},
};

/// How often the state is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Without `--jobs`, no engine has more sessions of a batch at a time.
const MOST: f64 = 8.0;

/// Runs what is not done yet of a file's tasks.
pub(crate) fn run(
    launcher: &Launcher,
    file: &Path,
    jobs: Option<u16>,
    agent: &[OsString],
) -> anyhow::Result<u8> {
    let host = &launcher.host;
    let workspace = Workspace::find(host)?;
    repository(&workspace)?;
    let written = Written::load(host).and(workspace.dirs()).and_around(host);
    let git = Git::find(host, &written).context("`pi batch` needs `git` on the `PATH`")?;
    let file = fs::canonicalize(host.cwd.join(file))
        .with_context(|| format!("could not read `{}`", file.display()))?;
    let text = read_small(&file)?.with_context(|| format!("there is no `{}`", file.display()))?;
    let tasks = file::parse(&text, &file, written.holds(&file))?;
    let words = |task: &Task, on: Option<&str>| words(launcher, task, on, agent);
    for task in &tasks {
        check(launcher, &workspace, words(task, None)).with_context(|| task.place(&file))?;
    }
    let dir = directory(launcher, &workspace.root, &file);
    private_dir(&dir)?;
    let lock = fs::File::create(dir.join("lock")).context("could not make the batch's lock")?;
    if lock.try_lock().is_err() {
        return Err(Hinted::error(
            format!("another `pi batch` has the tasks of `{}`", file.display()),
            "wait for its end, or stop it with Ctrl-C there",
        ));
    }
    let done: BTreeSet<usize> = (0..tasks.len()).filter(|n| task::is_done(&dir, &tasks[*n])).collect();
    let engines = if done.len() == tasks.len() { vec![] } else { engines(launcher, jobs)? };
    let homes = tasks.iter().map(|task| {
        let copy = copies::find(host, &workspace.root, Some(&task.name)).ok();
        copy.map(|(_, copy)| copy.engine)
    });
    let board = Board::new(&tasks, &done, homes.collect(), &engines, &dir, &words);
    let show = Show::start(&board, host, &git, &workspace.root);
    let signal = work(launcher, &board, show);
    report::data(show::table(&board, host, &git, &workspace.root))?;
    match signal {
        Some(signal) => Err(Interrupted(u8::try_from(signal).unwrap_or(FAILED)).into()),
        None if board.is_all_done() => Ok(0),
        None => {
            report::note("the same command goes on with what is not done");
            Ok(1)
        }
    }
}

/// Begins one task after the other, and returns the signal that stopped them, if one did.
fn work(launcher: &Launcher, board: &Board<'_>, mut show: Show<'_>) -> Option<i32> {
    let mut stopped = None;
    thread::scope(|scope| {
        let mut workers = vec![];
        for (n, engine) in board.engines.iter().enumerate() {
            workers.extend((0..engine.jobs).map(|_| scope.spawn(move || board.work(n))));
        }
        loop {
            let is_over = workers.iter().all(thread::ScopedJoinHandle::is_finished);
            show.update();
            if is_over {
                break;
            }
            if let Some(signal) = launcher.signals.take().filter(|_| stopped.is_none()) {
                let terminal = launcher.host.terminal;
                let asks = signal == SIGINT && terminal.stdin && terminal.stderr;
                if !asks || !show.aside(|| goes_on(launcher, board)) {
                    stopped = Some(signal);
                    board.stop();
                }
            }
            thread::sleep(TICK);
        }
    });
    stopped
}

/// Asks what to do with the tasks that run. False if they are to be stopped.
fn goes_on(launcher: &Launcher, board: &Board<'_>) -> bool {
    let was_held = board.hold(true);
    let running = match board.running().len() {
        0 => return true,
        1 => "1 task is running".to_owned(),
        n => format!("{n} tasks are running"),
    };
    let question = format!(
        "\npi: {running}: [w]ait for what runs and begin no other, [s]top, or [g]o on with all? [w/s/G]"
    );
    let answer = report::ask_for(&question, || {
        launcher.signals.check()?;
        anyhow::ensure!(!board.running().is_empty(), "nothing runs any more");
        Ok(())
    });
    // Whoever presses Ctrl-C again wants an end.
    if launcher.signals.take().is_some() {
        return false;
    }
    match answer.map(|answer| answer.to_lowercase()).as_deref() {
        Ok("s" | "stop") => return false,
        Ok("w" | "wait") | Err(_) => {}
        Ok("" | "g" | "go" | "go on") => drop(board.hold(false)),
        Ok(_) => drop(board.hold(was_held)),
    }
    true
}

/// Where the logs and outcomes of a file's tasks are.
fn directory(launcher: &Launcher, root: &Path, file: &Path) -> PathBuf {
    let mut hash = Sha256::new();
    for part in [root, file] {
        hash.update(part.as_os_str().as_encoded_bytes());
        hash.update([0]);
    }
    real(&launcher.host.state_dir()).join("batches").join(&hex(&hash.finalize())[..16])
}

/// The words that begin a task's session, on this context.
fn words(launcher: &Launcher, task: &Task, on: Option<&str>, agent: &[OsString]) -> Vec<OsString> {
    let mut words = launcher.options.typed.clone();
    words.extend(on.map(|name| format!("--on={name}").into()));
    words.extend(task.options.iter().map(OsString::from));
    words.push(format!("--clone={}", task.name).into());
    words.push("--".into());
    words.extend(agent.iter().cloned());
    words.extend(["-p".into(), task.prompt.clone().into()]);
    words
}

/// Looks whether a session could begin with these words, before any does.
fn check(launcher: &Launcher, workspace: &Workspace, words: Vec<OsString>) -> anyhow::Result<()> {
    let options = Cli::parse(words)?.options;
    Config::load(&options, &launcher.host, Some(&workspace.root)).map(drop)
}

/// The engines, each with how many sessions it gets at a time.
fn engines(launcher: &Launcher, jobs: Option<u16>) -> anyhow::Result<Vec<Engine>> {
    let memory = launcher.config()?.limits.needed().0;
    let engine = |candidate: Candidate| {
        // An agent mostly waits for its model, so each has a processor and not all that it may use.
        let fit = || candidate.sessions(memory, 1.0).map(|fit| fit.clamp(1.0, MOST));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 1 to 8")]
        let jobs = jobs.map_or_else(|| fit().map(|fit| fit as usize), |jobs| Ok(usize::from(jobs)))?;
        Ok(Engine { name: candidate.name, docker: candidate.docker, jobs })
    };
    launcher.candidates()?.into_iter().map(engine).collect()
}
