//! One task of a batch: the process of its session, its log, and what has become of it.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use shared_child::SharedChild;

use super::file::Task;
use crate::{
    cli::TASK,
    files::{read_small, replace},
    report,
};

/// How often a log is looked at that another process still writes.
const PAUSE: Duration = Duration::from_millis(200);

/// What has become of a task. Its own process writes it down, so it is known even if the batch was killed meanwhile.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    mark: String,
    code: u8,
}

/// Writes down the exit status of a task with this mark, and returns it.
pub(crate) fn note(path: &Path, mark: &str, code: u8) -> anyhow::Result<u8> {
    let text = serde_json::to_vec(&Outcome { mark: mark.to_owned(), code })?;
    replace(path, &text).with_context(|| format!("could not write `{}`", path.display()))?;
    Ok(code)
}

/// Whether a task has succeeded before.
pub(super) fn is_done(dir: &Path, task: &Task) -> bool {
    code(dir, task) == Some(0)
}

/// The exit status of a task, if it has come to an end.
fn code(dir: &Path, task: &Task) -> Option<u8> {
    let text = read_small(&outcome(dir, task)).ok()??;
    let outcome: Outcome = serde_json::from_str(&text).ok()?;
    (outcome.mark == task.mark()).then_some(outcome.code)
}

fn outcome(dir: &Path, task: &Task) -> PathBuf {
    dir.join(format!("{}.json", task.name))
}

/// The file with everything that a task's session has said.
pub(super) fn log(dir: &Path, task: &Task) -> PathBuf {
    dir.join(format!("{}.log", task.name))
}

/// Runs a task and returns its exit status. One that still runs since a batch was killed is waited for; if it succeeds, it
/// is not run again. `begins` gets the process, and says no if it is not wanted any more.
pub(super) fn run(
    dir: &Path,
    task: &Task,
    words: Vec<OsString>,
    is_wanted: &dyn Fn() -> bool,
    began: &dyn Fn(SharedChild) -> std::sync::Arc<SharedChild>,
) -> anyhow::Result<Option<u8>> {
    let path = log(dir, task);
    let mut log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("could not write `{}`", path.display()))?;
    // The session's process has this file open, and with it the lock.
    while log.try_lock().is_err() {
        if !is_wanted() {
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
    if is_done(dir, task) {
        return Ok(Some(0));
    }
    if !is_wanted() {
        return Ok(None);
    }
    let outcome = outcome(dir, task);
    match fs::remove_file(&outcome) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("could not remove `{}`", outcome.display()));
        }
        _ => {}
    }
    let _ = writeln!(log, "pi: begins: {}", report::one_line(&task.prompt));
    let program = std::env::current_exe().context("could not find the launcher's own program")?;
    let mut command = Command::new(program);
    command
        .arg(TASK)
        .arg(outcome)
        .arg(task.mark())
        .args(words)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("could not share the task's log")?)
        .stderr(log)
        // Ctrl-C is for the batch, which asks first.
        .process_group(0);
    let child = SharedChild::spawn(&mut command).context("could not start the task's session")?;
    drop(command);
    let status = began(child).wait().context("could not wait for the task's session")?;
    Ok(code(dir, task).or_else(|| status.code().and_then(|code| u8::try_from(code).ok())))
}
