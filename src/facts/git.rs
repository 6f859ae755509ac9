//! The only module that runs `git`: who the user is in commits.

use std::{
    ffi::{OsStr, OsString},
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use shared_child::SharedChild;

use crate::{files::read_small, host::Host, workspace::Workspace, written::Written};

/// How long git may take to read a few files.
const PATIENCE: Duration = Duration::from_secs(2);

/// The host user's name and address, asked from outside of any repository's influence: a repository's own settings
/// win inside the container, where git reads them itself.
pub(super) fn identity(
    host: &Host,
    workspace: &Workspace,
    written: &Written,
) -> anyhow::Result<Vec<(String, String)>> {
    let Some(program) = written.program("git", host) else { return Ok(vec![]) };
    let git = Git { program, path: written.search_path(host) };
    let text = workspace.git_config.as_deref().map(read_small).transpose()?.flatten();
    let (own, mut all) = thread::scope(|scope| {
        let own = text.map(|text| scope.spawn(|| user_settings(&git, host, Some(text))));
        let all = user_settings(&git, host, None);
        (own.map(|thread| thread.join().expect("asking git does not panic")).unwrap_or_default(), all)
    });
    all.retain(|(key, _)| !own.iter().any(|(set, _)| set == key));
    Ok(all)
}

/// The program, and where it finds its own parts.
struct Git {
    program: PathBuf,
    path: OsString,
}

/// Name and address from the user's own settings, or from the text of a config.
fn user_settings(git: &Git, host: &Host, text: Option<String>) -> Vec<(String, String)> {
    let path = &git.path;
    let mut git = Command::new(&git.program);
    git.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    for name in ["HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"] {
        if let Some(value) = host.env.get(OsStr::new(name)) {
            git.env(name, value);
        }
    }
    git.env("PATH", path);
    // With a git directory that is none, no repository can be found around `/`.
    git.env("GIT_DIR", "/dev/null").arg("config").arg("--null");
    if text.is_some() {
        // Without `--includes`: what a repository says must not make us read elsewhere.
        git.args(["--no-includes", "--file", "-"]).stdin(Stdio::piped());
    }
    let Ok(git) = SharedChild::spawn(git.args(["--get-regexp", r"^user\.(name|email)$"])) else {
        return vec![];
    };
    if let (Some(text), Some(mut stdin)) = (text, git.take_stdin()) {
        // Git may have seen enough before the end.
        let _ = stdin.write_all(text.as_bytes());
    }
    let (sender, answer) = mpsc::channel();
    if let Some(mut stdout) = git.take_stdout() {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.read_to_end(&mut bytes);
            sender.send(bytes)
        });
    }
    // What the user's own settings include may be a pipe by now.
    let Ok(bytes) = answer.recv_timeout(PATIENCE) else {
        let _ = git.kill();
        let _ = git.wait();
        return vec![];
    };
    let _ = git.wait();
    let text = String::from_utf8_lossy(&bytes);
    let mut found: Vec<(String, String)> = Vec::new();
    for entry in text.split_terminator('\0') {
        if let Some((key, value)) = entry.split_once('\n') {
            // The last one wins, as it does for git.
            found.retain(|(known, _)| known != key);
            found.push((key.to_owned(), value.to_owned()));
        }
    }
    found
}
