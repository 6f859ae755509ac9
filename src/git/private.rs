//! Which repositories get a git directory of the agent's own, and what is mounted where for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    thread,
};

use anyhow::Context as _;

use super::{command::Git, config::Config, repository::Repository, state};
use crate::{
    config::Access,
    files::{read_small, small_bytes},
    report::{Hinted, one_line},
};

/// Where the host's stores of objects are inside.
const STORES: &str = "/run/pi/objects";

/// How many paths of a work tree are guarded by mounts of their own.
const GUARDS: usize = 64;

/// How many submodules may lie in each other.
const DEPTH: usize = 4;

/// How many stores a repository may borrow from.
const BORROWED: usize = 16;

/// A directory or file of the host, inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) access: Access,
}

impl Bind {
    pub(super) fn same(path: &Path, access: Access) -> Self {
        Self { source: path.to_owned(), target: path.to_owned(), access }
    }

    fn read_only(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), target: target.into(), access: Access::ReadOnly }
    }
}

/// How the agent has the repository's git directory.
#[derive(Debug)]
pub(crate) enum Decision {
    Private(Private),
    ReadOnly(ReadOnly),
}

/// A git directory of the agent's own, for the repository and for each submodule that has one.
#[derive(Debug)]
pub(crate) struct Private {
    /// The git directory and the objects that it borrows; all that a container needs to hand out commits.
    pub(crate) store: Vec<Bind>,
    /// What must not be exchanged in the work tree while the session runs; each below the work tree's own mount.
    pub(crate) guards: Vec<Bind>,
    pub(super) parts: Vec<Part>,
}

/// The host's git directory, without its settings.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    /// In one line.
    pub(crate) reason: String,
    pub(crate) binds: Vec<Bind>,
    pub(crate) guards: Vec<Bind>,
    /// What is written before the session, for what `binds` name.
    pub(super) files: Vec<(PathBuf, String)>,
}

/// A repository as it is laid out.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) repository: Repository,
    pub(super) config: Config,
    /// What stands in `info/alternates` inside.
    pub(super) alternates: Vec<String>,
}

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) git: &'a Git,
    pub(crate) repository: &'a Repository,
    /// The user's own config.
    pub(crate) user: &'a Config,
    /// Git directories and files in the work tree, besides the repository's own, relative to it.
    pub(crate) nested: &'a [PathBuf],
    /// Who runs the launcher.
    pub(crate) uid: u32,
    /// Where the session keeps what belongs to git; no agent can write it.
    pub(crate) dir: &'a Path,
}

impl Question<'_> {
    /// Looks at the repository.
    pub(crate) fn decide(&self) -> anyhow::Result<Decision> {
        let mut parts = Parts::default();
        let reason = self.look(self.repository, DEPTH, &mut parts)?;
        let guards = self.guards(&parts)?;
        if let Some(reason) = reason {
            return self.read_only(reason, guards).map(Decision::ReadOnly);
        }
        let private = state::private_dir(self.dir);
        let common = &self.repository.common;
        let mut store = vec![Bind { source: private, target: common.clone(), access: Access::ReadWrite }];
        for (source, target) in &parts.stores {
            store.push(Bind::read_only(source, target));
            // They are all named in the private directory; the paths in this file are not there inside.
            let borrowed = "info/alternates";
            if source.join(borrowed).exists() {
                store.push(Bind::read_only(state::empty_file(self.dir), Path::new(target).join(borrowed)));
            }
        }
        Ok(Decision::Private(Private { store, guards, parts: parts.all }))
    }

    /// Takes the host's git directory without its settings, for a user who wants no more.
    pub(crate) fn decide_read_only(&self) -> anyhow::Result<Decision> {
        let mut parts = Parts::default();
        self.look(self.repository, DEPTH, &mut parts)?;
        let guards = self.guards(&parts)?;
        self.read_only("the settings say so".to_owned(), guards).map(Decision::ReadOnly)
    }

    /// Collects a repository and its submodules, or says why it must be read-only.
    fn look(
        &self,
        repository: &Repository,
        depth: usize,
        parts: &mut Parts,
    ) -> anyhow::Result<Option<String>> {
        let (files, config) = thread::scope(|scope| {
            let config = scope.spawn(|| config(self.git, repository));
            let files = Listing::of(self.git, repository);
            (files, config.join().expect("asking git does not panic"))
        });
        let (files, config) = (files?, config?);
        parts.gitlinks.extend(files.gitlinks.iter().map(|path| repository.work_tree.join(path)));
        if let Some(reason) = self.unfit(repository, &config, &files) {
            return Ok(Some(reason));
        }
        let Some(stores) = stores(&repository.objects())? else {
            return Ok(Some("it borrows objects from too many repositories".to_owned()));
        };
        let alternates = stores.into_iter().map(|store| parts.place(store)).collect();
        parts.all.push(Part { repository: repository.clone(), config, alternates });
        for path in &files.gitlinks {
            let Some(inner) = submodule(repository, path) else { continue };
            if depth == 0 {
                return Ok(Some("its submodules lie in each other too deep".to_owned()));
            }
            if let Some(reason) = self.look(&inner, depth - 1, parts)? {
                return Ok(Some(format!("its submodule `{}`: {reason}", path.display())));
            }
        }
        Ok(None)
    }

    fn unfit(&self, repository: &Repository, config: &Config, files: &Listing) -> Option<String> {
        let owner = fs::metadata(&repository.common).map(|meta| meta.uid());
        // What root brings over, root can give away.
        if self.uid != 0 && owner.is_ok_and(|owner| owner != self.uid) {
            return Some("it belongs to another user, who could not use what is brought over".to_owned());
        }
        if let Some(what) = repository.half_done() {
            return Some(format!("{what} is half-done in it; finish or abort it first"));
        }
        if let Some(extension) = config.unknown_extension() {
            return Some(format!("it uses `{}`, which is not known here", one_line(extension)));
        }
        if config.value("core.repositoryformatversion").is_some_and(|version| !matches!(version, "0" | "1")) {
            return Some("its format is newer than what is known here".to_owned());
        }
        if let Some(elsewhere) = config.value("core.worktree").filter(|_| !repository.is_linked()) {
            let real = fs::canonicalize(repository.git_dir.join(elsewhere)).ok();
            if real.as_deref() != Some(&*repository.work_tree) {
                return Some("its `core.worktree` leads elsewhere".to_owned());
            }
        }
        let driver = files
            .drivers(repository)
            .into_iter()
            .find(|driver| driver == "lfs" || config.has_filter(driver) || self.user.has_filter(driver));
        driver.map(|driver| match driver.as_str() {
            "lfs" => {
                "it uses Git LFS: a commit made inside would hold whole files instead of pointers".to_owned()
            }
            driver => {
                format!("it passes files through the filter `{}`, which is not inside", one_line(driver))
            }
        })
    }

    fn guards(&self, parts: &Parts) -> anyhow::Result<Vec<Bind>> {
        let root = &self.repository.work_tree;
        let mut fixed = BTreeSet::new();
        if root.join(".git").is_file() {
            fixed.insert(root.join(".git"));
        }
        for link in &parts.gitlinks {
            let dot_git = link.join(".git");
            if fs::symlink_metadata(&dot_git).is_ok() {
                fixed.insert(dot_git);
            } else if link.is_dir() {
                fixed.insert(link.clone());
            } else {
                return Err(Hinted::error(
                    format!(
                        "the submodule `{}` has no directory, so git on this machine would run what an agent puts there",
                        link.display()
                    ),
                    format!("make it an empty one: `mkdir -p {}`", link.display()),
                ));
            }
        }
        fixed.extend(self.nested.iter().map(|path| root.join(path)));
        anyhow::ensure!(
            fixed.len() <= GUARDS,
            "`{}` has {} repositories in it; at most {GUARDS} can be guarded",
            root.display(),
            fixed.len()
        );
        let mut binds = BTreeMap::new();
        for path in &fixed {
            // A directory that is a mount cannot be renamed away, with another one put in its place.
            for above in path.ancestors().skip(1).take_while(|above| *above != root) {
                binds.entry(above.to_owned()).or_insert(Access::ReadWrite);
            }
        }
        binds.extend(fixed.into_iter().map(|path| (path, Access::ReadOnly)));
        Ok(binds.into_iter().map(|(path, access)| Bind::same(&path, access)).collect())
    }

    fn read_only(&self, reason: String, guards: Vec<Bind>) -> anyhow::Result<ReadOnly> {
        let common = &self.repository.common;
        let mut binds = vec![Bind::same(common, Access::ReadOnly)];
        let mut files = Vec::new();
        let worktree = self.repository.git_dir.join("config.worktree");
        for (n, file) in
            [common.join("config"), worktree].into_iter().filter(|file| file.is_file()).enumerate()
        {
            let text = Config::read(self.git, &file)?.inside();
            let shown = self.dir.join(format!("config-{n}"));
            binds.push(Bind::read_only(&shown, file));
            files.push((shown, text));
        }
        for store in stores(&self.repository.objects())?.into_iter().flatten().skip(1) {
            binds.push(Bind::same(&store, Access::ReadOnly));
        }
        Ok(ReadOnly { reason, binds, guards, files })
    }
}

impl ReadOnly {
    /// The same for a repository that no git of this machine reads: all of it is shown.
    pub(super) fn unread(repository: &Repository, nested: &[PathBuf], reason: String) -> Self {
        let root = &repository.work_tree;
        let dot_git = root.join(".git");
        let own = dot_git.is_file().then_some(dot_git);
        let guards = nested.iter().map(|path| root.join(path)).chain(own).take(GUARDS);
        let mut guards: Vec<Bind> = guards.map(|path| Bind::same(&path, Access::ReadOnly)).collect();
        guards.sort_by(|a, b| a.target.cmp(&b.target));
        let binds = vec![Bind::same(&repository.common, Access::ReadOnly)];
        Self { reason, binds, guards, files: vec![] }
    }
}

#[derive(Default)]
struct Parts {
    all: Vec<Part>,
    gitlinks: Vec<PathBuf>,
    /// Stores of the host's and where they are inside.
    stores: Vec<(PathBuf, String)>,
}

impl Parts {
    /// Where a store is inside.
    fn place(&mut self, store: PathBuf) -> String {
        if let Some((_, place)) = self.stores.iter().find(|(known, _)| *known == store) {
            return place.clone();
        }
        let place = format!("{STORES}/{}", self.stores.len());
        self.stores.push((store, place.clone()));
        place
    }
}

/// The config of a repository and of its work tree, as one.
pub(super) fn config(git: &Git, repository: &Repository) -> anyhow::Result<Config> {
    let config = Config::read(git, &repository.common.join("config"))?;
    if config.is_true("extensions.worktreeconfig") {
        return Ok(config.and(Config::read(git, &repository.git_dir.join("config.worktree"))?));
    }
    Ok(config)
}

/// The store of objects and all that it borrows from, first itself; nothing where they are too many.
fn stores(objects: &Path) -> anyhow::Result<Option<Vec<PathBuf>>> {
    let mut all = vec![objects.to_owned()];
    let mut next = 0;
    while let Some(store) = all.get(next).cloned() {
        next += 1;
        let text = read_small(&store.join("info/alternates"))?.unwrap_or_default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let path = store.join(line);
            let other = fs::canonicalize(&path)
                .with_context(|| format!("could not follow `{}/info/alternates`", store.display()))?;
            if !all.contains(&other) {
                all.push(other);
            }
        }
        if all.len() > BORROWED {
            return Ok(None);
        }
    }
    Ok(Some(all))
}

/// The submodule at `path`, where it has a git directory among its repository's own.
fn submodule(above: &Repository, path: &Path) -> Option<Repository> {
    let work_tree = above.work_tree.join(path);
    let text = read_small(&work_tree.join(".git")).ok().flatten()?;
    let named = text.trim_end().strip_prefix("gitdir:")?.trim();
    let git_dir = fs::canonicalize(work_tree.join(named)).ok()?;
    let is_ours = git_dir.starts_with(above.git_dir.join("modules"));
    is_ours.then(|| Repository { work_tree, common: git_dir.clone(), git_dir })
}

/// What of the files in the index matters here.
pub(super) struct Listing {
    gitlinks: Vec<PathBuf>,
    attributes: Vec<PathBuf>,
}

impl Listing {
    pub(super) fn of(git: &Git, repository: &Repository) -> anyhow::Result<Self> {
        let list =
            git.within(repository).args(["ls-files", "--stage", "-z"]).run().with_context(|| {
                format!("could not list the files of `{}`", repository.work_tree.display())
            })?;
        let mut listing = Self { gitlinks: vec![], attributes: vec![] };
        for entry in list.split(|byte| *byte == 0) {
            let Some(tab) = entry.iter().position(|byte| *byte == b'\t') else { continue };
            let path = || PathBuf::from(OsStr::from_bytes(&entry[tab + 1..]));
            if entry.starts_with(b"160000 ") {
                listing.gitlinks.push(path());
            } else if entry.ends_with(b".gitattributes") {
                listing.attributes.push(path());
            }
        }
        listing.gitlinks.dedup();
        Ok(listing)
    }

    /// Names of filters that the repository's attributes ask for.
    pub(super) fn drivers(&self, repository: &Repository) -> BTreeSet<String> {
        let own = [repository.common.join("info/attributes"), repository.work_tree.join(".gitattributes")];
        let files = self.attributes.iter().take(256).map(|path| repository.work_tree.join(path)).chain(own);
        let mut drivers = BTreeSet::new();
        for file in files {
            // A file that is not there, or none that can be read, asks for nothing.
            let text = small_bytes(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let words =
                text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_ascii_whitespace);
            drivers.extend(words.filter_map(|word| word.strip_prefix("filter=")).map(str::to_owned));
        }
        drivers
    }
}
