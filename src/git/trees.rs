//! Worktrees of subagents. What a session leaves of them becomes the host's: git on the host knows them at the same paths,
//! and the next session finds them again. One that was removed inside goes on the host, too.

mod list;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

pub(crate) use self::list::{Subagent, subagents};
use super::{
    command::Git,
    give::give,
    repository::Repository,
    state::{State, private_dir},
};
use crate::{
    agent_dir::{
        fd::{Dir, Kind},
        tree::remove,
    },
    files::{is_plain_file, read_plain, replace},
};

/// Where they are in a work tree.
const DIRECTORY: &str = ".worktrees";

/// By this the extension that makes them knows its own.
const NOTE: &str = "pi-subagent.json";

/// Where a session that runs has made one: other sessions have nothing to do with it until then.
const ANNOUNCED: &str = "pi-announced";

/// In the session's directory for git: the worktrees that the session was given.
const GIVEN: &str = "trees";

/// How many are looked at.
const MANY: usize = 200;

const NOTE_SIZE: u64 = 64 << 10;

/// The worktrees of one session that has ended.
pub(crate) struct Trees {
    repository: Repository,
    /// Those that stay, with their notes.
    stay: Vec<(String, Vec<u8>)>,
    /// Those that the session had and has no more.
    gone: Vec<String>,
}

impl Trees {
    /// Looks at what the session with this directory for git has left; nothing where it had no git directory of its own.
    pub(crate) fn left(dir: &Path) -> Option<Self> {
        let repository = State::load(dir).ok()?.entries.into_iter().next()?.repository;
        let inside = Dir::open(&inside(dir)?).ok()?;
        let admins = inside.dir("worktrees".as_ref()).ok();
        let has = |name: &str| admins.as_ref().and_then(|admins| admins.dir(name.as_ref()).ok());
        let names = match Dir::open(&repository.work_tree.join(DIRECTORY)) {
            Ok(trees) => trees.names(MANY).unwrap_or_default(),
            Err(_) => vec![],
        };
        let mut stay = Vec::new();
        for name in names.iter().filter_map(|name| name.to_str()).filter(|name| is_name(name)) {
            let Some(admin) = has(name) else { continue };
            let head = admin.read("HEAD".as_ref(), 300).ok().flatten().unwrap_or_default();
            let note = admin.read(NOTE.as_ref(), NOTE_SIZE).ok().flatten();
            if let Some(note) = note
                && head == head_of(name).as_bytes()
                && leads_home(&repository, name)
            {
                stay.push((name.to_owned(), note));
            }
        }
        let given = fs::read_to_string(dir.join(GIVEN)).unwrap_or_default();
        let gone = given.lines().filter(|name| has(name).is_none()).map(str::to_owned).collect();
        Some(Self { repository, stay, gone })
    }

    /// Files that look like another repository's, and lead to this one.
    pub(crate) fn links(&self) -> Vec<PathBuf> {
        self.stay.iter().map(|(name, _)| Path::new(DIRECTORY).join(name).join(".git")).collect()
    }

    /// Tells the host's git of them, once the commits have come over. Returns those of which it cannot be told: they are out
    /// of action.
    pub(crate) fn take_over(&self, git: &Git) -> anyhow::Result<Vec<PathBuf>> {
        let mut unfit = Vec::new();
        for name in &self.gone {
            self.remove(name)?;
        }
        if !self.stay.is_empty() {
            exclude(&self.repository.common)?;
        }
        for (name, note) in &self.stay {
            let branch = format!("refs/heads/subagent/{name}");
            let files = git.within(&self.repository).args(["ls-tree", "-r", &branch]).run();
            // Git runs what it finds in the directory of a submodule, which is the agent's.
            let is_fit =
                files.is_ok_and(|list| !list.split(|b| *b == b'\n').any(|l| l.starts_with(b"160000 ")));
            if !is_fit || !leads_home(&self.repository, name) || !self.register(git, name, note)? {
                self.forget(name)?;
                let tree = Dir::open(&tree(&self.repository, name))?;
                tree.rename_new(".git".as_ref(), &tree, ".git.pi-quarantine".as_ref())?;
                unfit.push(Path::new(DIRECTORY).join(name));
            }
        }
        Ok(unfit)
    }

    /// False where the place is taken by something else.
    fn register(&self, git: &Git, name: &str, note: &[u8]) -> anyhow::Result<bool> {
        if !self.announce(name)? {
            return Ok(false);
        }
        let admin = admin(&self.repository, name);
        write(&admin, NOTE, note)?;
        let _ = fs::remove_file(admin.join(ANNOUNCED));
        let own = Repository {
            work_tree: tree(&self.repository, name),
            git_dir: admin.clone(),
            common: self.repository.common.clone(),
        };
        // Of the index alone: no file is looked at.
        git.within(&own).args(["read-tree", "HEAD"]).run()?;
        give(&admin.join("index"))?;
        Ok(true)
    }

    /// Writes what `git worktree list` reads. False where the place is taken by something else.
    fn announce(&self, name: &str) -> anyhow::Result<bool> {
        let admin = admin(&self.repository, name);
        if admin.exists() {
            return Ok(is_ours(&admin));
        }
        let link = tree(&self.repository, name).join(".git");
        let back = [link.as_os_str().as_encoded_bytes(), b"\n"].concat();
        fs::create_dir_all(&admin)?;
        give(&self.repository.common.join("worktrees"))?;
        give(&admin)?;
        write(&admin, ANNOUNCED, b"")?;
        write(&admin, "HEAD", head_of(name).as_bytes())?;
        write(&admin, "commondir", b"../..\n")?;
        write(&admin, "locked", b"a subagent of pi works here")?;
        // Git takes it for a worktree from here on.
        write(&admin, "gitdir", &back)?;
        Ok(true)
    }

    /// The host's git knows nothing of it any more.
    fn forget(&self, name: &str) -> anyhow::Result<()> {
        let admin = admin(&self.repository, name);
        if is_ours(&admin) {
            fs::remove_dir_all(&admin)?;
            // Others may be in it.
            let _ = fs::remove_dir(self.repository.common.join("worktrees"));
        }
        Ok(())
    }

    /// Removes what was emptied inside, where it could not be removed.
    fn remove(&self, name: &str) -> anyhow::Result<()> {
        if !is_ours(&admin(&self.repository, name)) {
            return Ok(());
        }
        let place = self.repository.work_tree.join(DIRECTORY);
        // No link is followed: an agent may have put one in the place of all worktrees.
        if let Ok(trees) = Dir::open(&place) {
            let is_empty = match trees.kind(name.as_ref())? {
                None => true,
                Some(Kind::Directory) => trees.dir(name.as_ref())?.names(2)?.iter().all(|one| one == ".git"),
                Some(_) => false,
            };
            if !is_empty {
                return Ok(());
            }
            remove(&trees, name.as_ref())?;
        }
        self.forget(name)?;
        // Others may be in it.
        let _ = fs::remove_dir(place);
        Ok(())
    }
}

/// Keeps the worktrees of the session with this directory for git out of the host's `git status` while it runs. Returns
/// whether there is nothing more to do about that.
pub(crate) fn hide(dir: &Path) -> bool {
    let Some(inside) = inside(dir) else { return false };
    let has_some = Dir::open(&inside).and_then(|inside| inside.dir("worktrees".as_ref())).is_ok();
    if !has_some {
        return false;
    }
    let first = State::load(dir).ok().and_then(|state| state.entries.into_iter().next());
    let Some(repository) = first.map(|entry| entry.repository) else { return true };
    if Dir::open(&repository.work_tree.join(DIRECTORY)).is_err() {
        return false;
    }
    // Its end tells of what cannot be written.
    let _ = exclude(&repository.common);
    true
}

/// Tells the host's git of the worktrees that a running session has made or removed since it began. Only names go over: the
/// agent still has all that is in them, so the host runs nothing there and looks at nothing. [`Trees::take_over`] does the
/// rest.
pub(crate) fn announce(git: &Git, dir: &Path) -> anyhow::Result<()> {
    let Some(trees) = Trees::left(dir) else { return Ok(()) };
    let repository = &trees.repository;
    for name in &trees.gone {
        if fs::symlink_metadata(tree(repository, name)).is_err() {
            trees.forget(name)?;
        }
    }
    let mut known = fs::read_to_string(dir.join(GIVEN)).unwrap_or_default();
    for (name, _) in &trees.stay {
        let branch = format!("refs/heads/subagent/{name}");
        let is_known = known.lines().any(|known| known == name) && admin(repository, name).exists();
        // The commits come first.
        if is_known
            || git.within(repository).args(["rev-parse", "--quiet", "--verify", &branch]).run().is_err()
        {
            continue;
        }
        // Whoever finds a dead session removes what it has removed.
        known.push_str(name);
        known.push('\n');
        replace(&dir.join(GIVEN), known.as_bytes())?;
        trees.announce(name)?;
    }
    Ok(())
}

/// What a session's own git directory is to have of the worktrees: the files of each below `worktrees`. Remembers the names
/// in the session's directory for git.
pub(super) fn given(repository: &Repository, dir: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut names = String::new();
    for entry in fs::read_dir(repository.common.join("worktrees")).into_iter().flatten().flatten().take(MANY)
    {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_name(name)) else { continue };
        let is_ours = is_plain_file(&entry.path().join(NOTE)) && leads_home(repository, name);
        if !is_ours {
            continue;
        }
        for file in ["HEAD", "commondir", "gitdir", "locked", NOTE, "index"] {
            if let Ok(bytes) = fs::read(entry.path().join(file)) {
                files.push((Path::new("worktrees").join(name).join(file), bytes));
            }
        }
        names.push_str(name);
        names.push('\n');
    }
    fs::write(dir.join(GIVEN), names)?;
    Ok(files)
}

/// The agent's own git directory, by a path without links: a home may be behind one.
fn inside(dir: &Path) -> Option<PathBuf> {
    fs::canonicalize(private_dir(dir)).ok()
}

/// Whether a work tree is the place of subagents' worktrees.
pub(super) fn is_subagents(repository: &Repository, work_tree: &Path) -> bool {
    work_tree.starts_with(repository.work_tree.join(DIRECTORY))
}

fn tree(repository: &Repository, name: &str) -> PathBuf {
    repository.work_tree.join(DIRECTORY).join(name)
}

fn admin(repository: &Repository, name: &str) -> PathBuf {
    repository.common.join("worktrees").join(name)
}

fn is_ours(admin: &Path) -> bool {
    [NOTE, ANNOUNCED].iter().any(|name| admin.join(name).is_file())
}

fn head_of(name: &str) -> String {
    format!("ref: refs/heads/subagent/{name}\n")
}

/// Whether the worktree's `.git` is the file that git has written there.
fn leads_home(repository: &Repository, name: &str) -> bool {
    let link = tree(repository, name).join(".git");
    let expected = format!("gitdir: {}\n", admin(repository, name).display());
    Dir::open(&tree(repository, name)).is_ok() && read_plain(&link).is_ok_and(|text| text == expected)
}

/// As the extension checks it.
fn is_name(name: &str) -> bool {
    name.len() <= 50
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = dir.join(name);
    fs::write(&path, bytes)?;
    give(&path)
}

/// Keeps the worktrees out of the host's `git status`, in a file that is nobody's commit.
fn exclude(common: &Path) -> io::Result<()> {
    let path = common.join("info/exclude");
    if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
        // A link is the user's own arrangement.
        return Ok(());
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    if text.lines().any(|line| line.trim_matches('/') == DIRECTORY) {
        return Ok(());
    }
    fs::create_dir_all(common.join("info"))?;
    let mut file = fs::File::options().append(true).create(true).open(&path)?;
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    file.write_all(format!("{gap}/{DIRECTORY}/\n").as_bytes())?;
    give(&common.join("info"))?;
    give(&path)
}
