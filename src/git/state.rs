//! What a session remembers about its git directories, where each part lies, and how they are laid out.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{
    command::Git,
    private::{Part, Private, ReadOnly},
    repository::{Head, Repository, Standing},
    trees,
};
use crate::host::Owner;

/// The agent's own git directory, mounted where the repository's is.
pub(super) fn private_dir(dir: &Path) -> PathBuf {
    dir.join("private")
}

/// Stands in for files of the host that must not be seen.
pub(super) fn empty_file(dir: &Path) -> PathBuf {
    dir.join("empty")
}

fn state_file(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

/// What the launcher knows of a session's repositories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The session's name, under which work is kept that could not take its own place.
    pub(crate) name: String,
    pub(crate) entries: Vec<Entry>,
}

/// One repository of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) repository: Repository,
    /// What both sides agreed on last.
    pub(crate) head: Head,
    pub(crate) refs: BTreeMap<String, String>,
    /// Where work stands that could not take its own place: by its name inside, the name here and the commit.
    pub(crate) aside: BTreeMap<String, (String, String)>,
    /// Where the launcher's own store of this repository is, relative to the session's directory.
    pub(super) store: PathBuf,
}

impl State {
    /// What was remembered.
    ///
    /// # Errors
    /// There is nothing, or it cannot be understood.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Self> {
        let path = state_file(dir);
        // It is the launcher's own, and as long as the repository has names.
        let text = fs::read(&path).with_context(|| format!("could not read `{}`", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("could not understand `{}`", path.display()))
    }

    /// Remembers this: a reader sees the old state or the new one, also after the machine has failed.
    pub(super) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = state_file(dir);
        let write = || {
            let mut next = tempfile::NamedTempFile::new_in(dir)?;
            next.write_all(&serde_json::to_vec(self)?)?;
            next.as_file().sync_all()?;
            next.persist(&path).map_err(|error| error.error)
        };
        write().map(drop).with_context(|| format!("could not write `{}`", path.display()))
    }
}

impl ReadOnly {
    /// Writes what its binds name.
    pub(crate) fn lay_out(&self, dir: &Path, owner: Option<Owner>) -> anyhow::Result<()> {
        let out = Out { owner };
        self.files
            .iter()
            .try_for_each(|(path, text)| out.file(path, text.as_bytes()))
            .and_then(|()| fs::create_dir_all(dir).map_err(anyhow::Error::from))
    }
}

impl Private {
    /// Lays out the git directories of a session, in a directory that no agent can write, and remembers where everything
    /// stood. `owner` is who runs inside, where that is another user.
    pub(crate) fn lay_out(
        &self,
        git: &Git,
        dir: &Path,
        name: &str,
        owner: Option<Owner>,
    ) -> anyhow::Result<State> {
        let is_new = fs::symlink_metadata(private_dir(dir)).is_err();
        anyhow::ensure!(is_new, "`{}` is there already", private_dir(dir).display());
        let out = Out { owner };
        let own = Out { owner: None };
        own.file(&empty_file(dir), b"")?;
        let first = self.parts.first().context("there is no repository")?;
        let common = first.repository.common.clone();
        let mut entries = Vec::new();
        for (n, part) in self.parts.iter().enumerate() {
            let repository = &part.repository;
            let standing = Standing::of(git, repository).with_context(|| {
                format!("could not see where `{}` stands", repository.work_tree.display())
            })?;
            let inside = |path: &Path| private_dir(dir).join(path.strip_prefix(&common).unwrap_or(path));
            lay_out_private(&out, git, part, &standing, &inside)?;
            let store = PathBuf::from(format!("store-{n}"));
            lay_out_store(&own, part, &standing, &dir.join(&store))?;
            entries.push(Entry {
                repository: repository.clone(),
                head: standing.head,
                refs: standing.refs.into_iter().map(|(name, found)| (name, found.oid)).collect(),
                aside: BTreeMap::new(),
                store,
            });
        }
        for (path, bytes) in trees::given(&first.repository, dir)? {
            out.file(&private_dir(dir).join(path), &bytes)?;
        }
        let state = State { name: name.to_owned(), entries };
        state.save(dir)?;
        Ok(state)
    }
}

fn lay_out_private(
    out: &Out,
    git: &Git,
    part: &Part,
    standing: &Standing,
    inside: &dyn Fn(&Path) -> PathBuf,
) -> anyhow::Result<()> {
    let Repository { work_tree, git_dir, common } = &part.repository;
    let to = inside(common);
    for path in ["", "refs", "refs/heads", "refs/tags", "objects", "objects/info", "objects/pack", "info"] {
        out.dir(&to.join(path))?;
    }
    out.file(&to.join("config"), part.config.inside().as_bytes())?;
    out.file(&to.join("packed-refs"), packed(standing).as_bytes())?;
    for (name, target) in standing.symbolic.iter().filter(|(name, _)| name.starts_with("refs/remotes/")) {
        out.file(&to.join(name), format!("ref: {target}\n").as_bytes())?;
    }
    let alternates = part.alternates.iter().fold(String::new(), |text, store| text + store + "\n");
    out.file(&to.join("objects/info/alternates"), alternates.as_bytes())?;
    for file in ["info/exclude", "info/attributes", "shallow"] {
        out.copy(&common.join(file), &to.join(file))?;
    }
    let own = inside(git_dir);
    if part.repository.is_linked() {
        // The main work tree's, which is not inside.
        let main = super::repository::head(|| {
            git.within(&Repository { git_dir: common.clone(), ..part.repository.clone() })
        });
        let main = main.unwrap_or_else(|_| Head::Branch("refs/heads/main".to_owned()));
        out.file(&to.join("HEAD"), main.to_string().as_bytes())?;
        out.dir(&own.join("info"))?;
        out.file(&own.join("commondir"), b"../..\n")?;
        let mut back = work_tree.join(".git").into_os_string().into_encoded_bytes();
        back.push(b'\n');
        out.file(&own.join("gitdir"), &back)?;
    }
    out.copy(&git_dir.join("info/sparse-checkout"), &own.join("info/sparse-checkout"))?;
    out.file(&own.join("HEAD"), standing.head.to_string().as_bytes())?;
    out.copy(&git_dir.join("index"), &own.join("index"))?;
    for entry in fs::read_dir(git_dir).into_iter().flatten().flatten() {
        // The larger part of an index that is split in two.
        if entry.file_name().as_encoded_bytes().starts_with(b"sharedindex.") {
            out.copy(&entry.path(), &own.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Lays out such a store, for nobody but the launcher.
pub(super) fn lay_out_store_of(part: &Part, standing: &Standing, to: &Path) -> anyhow::Result<()> {
    lay_out_store(&Out { owner: None }, part, standing, to)
}

/// A git directory of the launcher's, into which objects are fetched before they reach the repository's own.
fn lay_out_store(out: &Out, part: &Part, standing: &Standing, to: &Path) -> anyhow::Result<()> {
    for path in ["", "refs", "objects", "objects/info", "objects/pack"] {
        out.dir(&to.join(path))?;
    }
    let mut config =
        "[core]\n\trepositoryformatversion = 1\n\tbare = true\n\tlogallrefupdates = false\n".to_owned();
    if let Some(format) = part.config.value("extensions.objectformat").filter(|format| *format == "sha256") {
        let _ = write!(config, "[extensions]\n\tobjectFormat = {format}\n");
    }
    if part.config.is_partial() {
        config.push_str("[extensions]\n\tpartialClone = none\n[remote \"none\"]\n\tpromisor = true\n");
    }
    out.file(&to.join("config"), config.as_bytes())?;
    out.file(&to.join("HEAD"), b"ref: refs/heads/none\n")?;
    out.file(&to.join("packed-refs"), packed(standing).as_bytes())?;
    let mut objects = part.repository.objects().into_os_string().into_encoded_bytes();
    // Git reads a path that begins with a quote as quoted.
    objects.push(b'\n');
    out.file(&to.join("objects/info/alternates"), &objects)?;
    out.copy(&part.repository.common.join("shallow"), &to.join("shallow"))
}

/// The references that an agent sees, as git packs them. A stash without its log is of no use, and names of the launcher's
/// or of half-done work would only be in the way.
fn packed(standing: &Standing) -> String {
    let mut text = "# pack-refs with: sorted \n".to_owned();
    for (name, found) in &standing.refs {
        let is_shown = ["refs/heads/", "refs/tags/", "refs/remotes/", "refs/notes/", "refs/replace/"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if is_shown {
            let _ = writeln!(text, "{} {name}", found.oid);
        }
    }
    text
}

/// Writes for whoever runs inside. No agent has been here yet.
struct Out {
    owner: Option<Owner>,
}

impl Out {
    fn dir(&self, path: &Path) -> anyhow::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.dir(parent)?;
        }
        fs::DirBuilder::new()
            .mode(0o755)
            .create(path)
            .with_context(|| format!("could not create `{}`", path.display()))?;
        self.give(path)
    }

    fn file(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        if let Some(parent) = path.parent() {
            self.dir(parent)?;
        }
        let write = || {
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
            file.write_all(bytes)
        };
        write().with_context(|| format!("could not write `{}`", path.display()))?;
        self.give(path)
    }

    /// Copies a file, where there is one, with its time: what git noted about files is right only as of then.
    fn copy(&self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let Ok(meta) = fs::metadata(from) else { return Ok(()) };
        if let Some(parent) = to.parent() {
            self.dir(parent)?;
        }
        let copy = || {
            fs::copy(from, to)?;
            let modified = meta.modified()?;
            fs::File::options().write(true).open(to)?.set_modified(modified)
        };
        copy().with_context(|| format!("could not copy `{}` to `{}`", from.display(), to.display()))?;
        self.give(to)
    }

    fn give(&self, path: &Path) -> anyhow::Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))
            .with_context(|| format!("could not give `{}` to user {}", path.display(), owner.uid))
    }
}
