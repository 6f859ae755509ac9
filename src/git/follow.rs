//! HEAD and the index of the host, as they follow the agent's: only where the user has changed neither, and in one step.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    command::Git,
    names::zero,
    repository::{Head, Repository, Standing},
};

/// How long another git may hold the index.
const MOMENT: Duration = Duration::from_secs(1);

/// From where to where the host's work tree is to go.
#[derive(Debug)]
pub(super) struct Step<'a> {
    /// What HEAD is on the host.
    pub(super) from: &'a Head,
    /// The commit that it leads to, unless there is none yet.
    pub(super) old: Option<&'a str>,
    pub(super) to: &'a Head,
    pub(super) new: &'a str,
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Followed {
    Yes,
    /// In words.
    No(String),
}

/// Moves HEAD, its branch and the index. Nothing is moved where the user's index says something else about a file that
/// changes. A branch that is entered stands at the new commit already.
pub(super) fn follow(
    git: &Git,
    repository: &Repository,
    step: &Step<'_>,
    message: &str,
) -> anyhow::Result<Followed> {
    let old = match step.old {
        Some(old) => old.to_owned(),
        None => git.within(repository).args(["hash-object", "-t", "tree", "/dev/null"]).text()?,
    };
    if let Some(path) = new_gitlink(git, repository, &old, step.new)? {
        return Ok(Followed::No(format!("it holds the new submodule `{path}`")));
    }
    let Some(lock) = Lock::take(repository, step)? else {
        return Ok(Followed::No("another git holds the index".to_owned()));
    };
    let head = super::repository::head(|| git.within(repository))?;
    if head != *step.from {
        return Ok(Followed::No("you have changed branches".to_owned()));
    }
    // Of the index alone: it runs no filter and looks at no file.
    let read = git
        .within(repository)
        .env("GIT_INDEX_FILE", &lock.next)
        .args(["read-tree", "-i", "-m", &old, step.new]);
    if !read.moves()? {
        return Ok(Followed::No("you have staged changes of files that it changes".to_owned()));
    }
    let from = step.old.map_or_else(|| zero(step.new), str::to_owned);
    let call = git.within(repository);
    let call = match step.to {
        Head::Branch(branch) if step.from != step.to => {
            call.args(["symbolic-ref", "-m", message, "HEAD", branch])
        }
        Head::Branch(branch) => call.args(["update-ref", "-m", message, branch, step.new, &from]),
        Head::Detached(oid) => call.args(["update-ref", "-m", message, "--no-deref", "HEAD", oid, &from]),
    };
    if !call.moves()? {
        return Ok(Followed::No("your branch has moved".to_owned()));
    }
    lock.commit()?;
    Ok(Followed::Yes)
}

/// A path at which the new commit has a submodule and the old one has none: git runs what it finds in such a directory,
/// which is the agent's.
fn new_gitlink(git: &Git, repository: &Repository, old: &str, new: &str) -> anyhow::Result<Option<String>> {
    let changes = git
        .within(repository)
        .args(["diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-ext-diff", "--ignore-submodules=none"])
        .args([old, new])
        .run()
        .context("could not compare the agent's commit with yours")?;
    let mut parts = changes.split(|byte| *byte == 0);
    while let (Some(change), Some(path)) = (parts.next(), parts.next()) {
        let change = String::from_utf8_lossy(change);
        let mut modes = change.trim_start_matches(':').split(' ');
        let (before, after) = (modes.next(), modes.next());
        if after == Some("160000") && before != Some("160000") {
            return Ok(Some(crate::report::one_line(&String::from_utf8_lossy(path))));
        }
    }
    Ok(None)
}

/// Git's own lock of the index, held by the launcher. It says what was begun, so that one which a killed launcher has left
/// is known as such.
struct Lock {
    file: PathBuf,
    own: PathBuf,
    /// The index that is to be.
    next: PathBuf,
    index: PathBuf,
    done: bool,
}

impl Lock {
    /// Takes the lock and copies the index; nothing where another git holds it.
    fn take(repository: &Repository, step: &Step<'_>) -> anyhow::Result<Option<Self>> {
        let this = Self::of(&repository.git_dir);
        let doing = || format!("could not lock the index of `{}`", repository.work_tree.display());
        let _ = fs::remove_file(&this.own);
        let _ = fs::remove_file(&this.next);
        fs::write(&this.own, format!("pi {}\n", step.new)).with_context(doing)?;
        // A `git status` of the user's holds it for a moment.
        let begun = Instant::now();
        let mut taken = fs::hard_link(&this.own, &this.file);
        while taken.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
            && begun.elapsed() < MOMENT
        {
            thread::sleep(Duration::from_millis(20));
            taken = fs::hard_link(&this.own, &this.file);
        }
        match taken {
            Ok(()) => {}
            Err(error) => {
                let _ = fs::remove_file(&this.own);
                // Another's, which must not be removed when this is dropped.
                std::mem::forget(this);
                return if error.kind() == io::ErrorKind::AlreadyExists {
                    Ok(None)
                } else {
                    Err(error).with_context(doing)
                };
            }
        }
        if let Ok(meta) = fs::metadata(&this.index) {
            let copy = || {
                fs::copy(&this.index, &this.next)?;
                // What git noted about files is right only as of then.
                fs::File::options().write(true).open(&this.next)?.set_modified(meta.modified()?)
            };
            copy().with_context(doing)?;
        }
        Ok(Some(this))
    }

    fn of(git_dir: &Path) -> Self {
        Self {
            file: git_dir.join("index.lock"),
            own: git_dir.join("pi-index-lock"),
            next: git_dir.join("pi-index"),
            index: git_dir.join("index"),
            done: false,
        }
    }

    /// Puts the new index in place.
    fn commit(mut self) -> anyhow::Result<()> {
        fs::rename(&self.next, &self.index)
            .with_context(|| format!("could not write `{}`", self.index.display()))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        for file in [&self.next, &self.file, &self.own] {
            let _ = fs::remove_file(file);
        }
    }
}

/// Ends what a killed launcher has begun with the index: its lock goes, and where HEAD has followed, the index does too.
pub(super) fn mend(git: &Git, repository: &Repository) -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let mut lock = Lock::of(&repository.git_dir);
    let inode = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let Some(own) = inode(&lock.own) else {
        std::mem::forget(lock);
        return Ok(());
    };
    if inode(&lock.file) != Some(own) {
        let _ = fs::remove_file(&lock.own);
        let _ = fs::remove_file(&lock.next);
        std::mem::forget(lock);
        return Ok(());
    }
    let text = fs::read_to_string(&lock.own).unwrap_or_default();
    let new = text.trim().strip_prefix("pi ").unwrap_or_default();
    let standing = Standing::of(git, repository)?;
    if standing.commit() == Some(new) && lock.next.is_file() {
        fs::rename(&lock.next, &lock.index)
            .with_context(|| format!("could not write `{}`", lock.index.display()))?;
    }
    lock.done = true;
    Ok(())
}
