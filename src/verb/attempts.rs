//! Attempts on the walls of a sandbox, made by `assets/demo/walls.sh` inside: their outcomes as a table.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::another;
use crate::{cli::Options, files::read_small, host::Host, launcher::Launcher, report, scratch::Scratch};

/// A scratch repository for a session of the launcher's own, and a directory for its agent.
pub(super) struct Place {
    pub(super) repository: PathBuf,
    agent_dir: PathBuf,
    _scratch: Scratch,
}

impl Place {
    pub(super) fn new(host: &Host, prefix: &str, models: &str) -> anyhow::Result<Self> {
        let scratch = Scratch::new(host, prefix)?;
        let above = fs::canonicalize(scratch.path())?;
        let (repository, agent_dir) = (above.join("repository"), above.join("agent"));
        set_up(&agent_dir, models, &repository)?;
        Ok(Self { repository, agent_dir, _scratch: scratch })
    }

    /// The same machine for an agent without anything of the user's.
    pub(super) fn host(&self, mut host: Host) -> Host {
        host.env.insert("PI_CODING_AGENT_DIR".into(), self.agent_dir.clone().into());
        host
    }

    /// A launcher that stands here. The user stands elsewhere, so the path of the settings becomes absolute.
    pub(super) fn launcher(&self, from: &Launcher, options: Options, host: Host) -> Launcher {
        let config = options.config.map(|path| from.host.cwd.join(path));
        let host = Host { cwd: self.repository.clone(), ..host };
        another(from, Options { config, ..options }, host)
    }

    /// What the session has written into this file of the repository.
    pub(super) fn answer(&self, name: &str) -> anyhow::Result<String> {
        Ok(read_small(&self.repository.join(name))?.unwrap_or_default())
    }
}

/// Says how all attempts came out, and returns the exit status.
pub(super) fn conclude(bad: usize, fine: &str) -> u8 {
    match bad {
        0 => report::note(fine),
        _ => report::complain(format_args!("{bad} attempts did not come out as expected")),
    }
    u8::from(bad > 0)
}

/// How many attempts did not come out as they should.
pub(super) fn bad(rows: &[Row<'_>]) -> usize {
    rows.iter().filter(|row| !row.ok).count()
}

/// In this file of its repository the script leaves the outcomes.
pub(super) const CHECKS: &str = "checks.txt";

/// The README of the scratch repository.
pub(super) const README: &str = include_str!("../../assets/demo/repository/README.md");

/// The attempt's name in the script, what it tries, and whether it should succeed.
pub(super) type Attempt = (&'static str, &'static str, bool);

/// The outcome of an attempt.
pub(super) struct Row<'a> {
    /// Whether it came out as it should.
    pub(super) ok: bool,
    pub(super) what: &'static str,
    pub(super) verdict: &'a str,
    pub(super) detail: &'a str,
}

/// The outcomes of attempts in a script's answer. One that was not tried did not come out as it should.
pub(super) fn rows<'a>(attempts: &[Attempt], answer: &'a str) -> Vec<Row<'a>> {
    let verdicts: BTreeMap<&str, (&str, &str)> = answer
        .lines()
        .filter_map(|line| {
            let rest = line.trim().strip_prefix("CHECK ")?;
            let (name, rest) = rest.split_once(' ')?;
            let (verdict, detail) = rest.split_once(' ').unwrap_or((rest, ""));
            Some((name, (verdict, detail)))
        })
        .collect();
    attempts
        .iter()
        .map(|&(name, what, allowed)| match verdicts.get(name) {
            Some(&(verdict, detail)) => {
                Row { ok: verdict == if allowed { "allowed" } else { "refused" }, what, verdict, detail }
            }
            None => Row { ok: false, what, verdict: "unknown", detail: "it was not tried" },
        })
        .collect()
}

/// The outcomes as a table.
pub(super) fn table(rows: &[Row<'_>]) -> String {
    let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for Row { ok, what, verdict, detail } in rows {
        let (mark, detail) = if *ok { ("ok ", shortened(detail)) } else { ("BAD", (*detail).to_owned()) };
        let line = format!("{mark}  {what:<width$}  {verdict:<7}  {detail}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The width of a detail in a table of 80 columns.
const DETAIL: usize = 32;

/// Cuts a detail after a whole word.
fn shortened(detail: &str) -> String {
    if detail.chars().count() <= DETAIL {
        return detail.to_owned();
    }
    let cut: String = detail.chars().take(DETAIL - 1).collect();
    let whole = cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words);
    format!("{}…", whole.trim_end())
}

/// Makes a scratch repository with a neighbour, and an agent's directory.
pub(super) fn set_up(agent_dir: &Path, models: &str, repository: &Path) -> anyhow::Result<()> {
    let files = [
        (agent_dir.join("models.json"), models),
        (repository.join("README.md"), README),
        // The layout of `git init`: git may not be installed.
        (repository.join(".git/HEAD"), "ref: refs/heads/main\n"),
        (repository.join(".git/config"), GIT_CONFIG),
        (repository.join(".git/objects/info/.keep"), ""),
        (repository.join(".git/refs/heads/.keep"), ""),
        (repository.with_file_name("another-repository").join("secret.txt"), "not for the agent\n"),
    ];
    for (path, text) in files {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("could not create `{}`", parent.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("could not write `{}`", path.display()))?;
    }
    for keep in [".git/objects/info/.keep", ".git/refs/heads/.keep"] {
        fs::remove_file(repository.join(keep)).context("could not tidy the scratch repository")?;
    }
    Ok(())
}

/// The git config of the scratch repository.
pub(super) const GIT_CONFIG: &str =
    "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n";
