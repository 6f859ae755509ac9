//! What of a repository goes into a copy: its commit, and the files of the work tree as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{
    paths,
    tar::{Tar, Way},
};
use crate::{
    agent_dir::fd::Kind,
    config::Patterns,
    files::small_bytes,
    git::{
        command::Git,
        config::Config,
        private::{Listing, Part, config},
        repository::{Head, Repository, Standing},
        state::lay_out_store_of,
        takeover::Inside,
    },
    host::Host,
    report::one_line,
};

/// The repository, and what the user says about copies.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) git: &'a Git,
    pub(crate) host: &'a Host,
    pub(crate) repository: &'a Repository,
    /// Files that stay outside.
    pub(crate) hide: &'a Patterns,
    /// Ignored files that go in.
    pub(crate) ignored: &'a Patterns,
}

/// What goes in.
#[derive(Debug)]
pub(crate) struct Contents {
    part: Part,
    standing: Standing,
    /// Below the work tree; some may be gone by now.
    files: Vec<PathBuf>,
    /// In the index, and not in the commit.
    added: BTreeSet<PathBuf>,
    /// Files that git takes for unchanged since the commit, with their sizes there.
    unchanged: BTreeMap<PathBuf, u64>,
    /// In the commit, and not in the copy.
    skipped: Vec<PathBuf>,
    /// Submodules and other repositories in the work tree.
    pub(crate) left_out: Vec<PathBuf>,
    exclude: Vec<u8>,
    has_lfs: bool,
}

impl Contents {
    /// Looks at the repository.
    pub(crate) fn of(wanted: &Wanted<'_>) -> anyhow::Result<Self> {
        let Wanted { git, host, repository, hide, ignored } = wanted;
        let doing = || format!("could not list the files of `{}`", repository.work_tree.display());
        let own = config(git, repository)?;
        let user = Config::of_user(git, host);
        let drivers = Listing::of(git, repository)?.drivers(repository);
        if let Some(driver) = drivers
            .iter()
            .find(|driver| *driver != LFS && (own.has_filter(driver) || user.has_filter(driver)))
        {
            bail!(
                "this repository passes files through the filter `{}`, which a copy does not have: a commit made there would \
                 hold them as they are in the work tree",
                one_line(driver)
            );
        }
        let excludes = excludes(&own, &user, host);
        let setting = |path: &Path| {
            let mut setting = std::ffi::OsString::from("core.excludesFile=");
            setting.push(path);
            setting
        };
        let others = |flags: &[&str]| {
            let all = setting(excludes.as_deref().unwrap_or(Path::new("/dev/null")));
            let call = git.within(repository).args([OsStr::new("-c"), &all]);
            call.args(["ls-files", "-z", "--others", "--exclude-standard"]).args(flags).run()
        };
        let index =
            git.within(repository).args(["ls-files", "-z", "--stage", "-v"]).run().with_context(doing)?;
        let index = Index::parse(&index, hide);
        let standing = Standing::of(git, repository).with_context(doing)?;
        let untracked = others(&[]).with_context(doing)?;
        let (nested, untracked): (Vec<PathBuf>, Vec<PathBuf>) =
            paths(&untracked).partition(|path| path.as_os_str().as_bytes().ends_with(b"/"));
        let mut files = index.files;
        files.extend(untracked.into_iter().filter(|path| !hide.cover(path.as_os_str().as_bytes())));
        if !ignored.is_empty() {
            let list = others(&["--ignored"]).with_context(doing)?;
            let is_wanted = |path: &PathBuf| {
                ignored.cover(path.as_os_str().as_bytes()) && !hide.cover(path.as_os_str().as_bytes())
            };
            files.extend(paths(&list).filter(is_wanted));
        }
        files.sort();
        files.dedup();
        let has_lfs = drivers.contains(LFS);
        let (added, unchanged) = if standing.commit().is_some() {
            let ask = |words: &[&str]| git.within(repository).args(words).run().with_context(doing);
            let staged = ["diff-index", "--cached", "--name-only", "--no-renames", "-z"];
            let added = ask(&[&staged[..], &["--diff-filter=A", "HEAD"]].concat())?;
            let changed = [
                ask(&[&staged[..], &["HEAD"]].concat())?,
                ask(&["diff-files", "--name-only", "--no-renames", "--ignore-submodules", "-z"])?,
            ]
            .concat();
            let mut unchanged = if has_lfs {
                // What git has of these files is not what they are.
                BTreeMap::new()
            } else {
                sizes(&ask(&["ls-tree", "-r", "-l", "-z", "--full-tree", "HEAD"])?)
            };
            for path in paths(&changed).chain(index.assumed) {
                unchanged.remove(&path);
            }
            (paths(&added).collect(), unchanged)
        } else {
            (index.all, BTreeMap::new())
        };
        let mut exclude = small_bytes(&repository.common.join("info/exclude")).unwrap_or_default();
        if let Some(path) = &excludes {
            exclude.push(b'\n');
            exclude.extend(small_bytes(path).unwrap_or_default());
        }
        let left_out = index.gitlinks.into_iter().chain(nested).collect();
        let part = Part { repository: (*repository).clone(), config: own, alternates: vec![] };
        let skipped = index.skipped;
        Ok(Self { part, standing, files, added, unchanged, skipped, left_out, exclude, has_lfs })
    }

    /// The commit that is checked out, unless there is none yet.
    pub(crate) fn commit(&self) -> Option<&str> {
        self.standing.commit()
    }

    /// The branch in use, by its short name.
    pub(crate) fn branch(&self) -> Option<&str> {
        match &self.standing.head {
            Head::Branch(name) => name.strip_prefix("refs/heads/"),
            Head::Detached(_) => None,
        }
    }

    /// How many files there are, and how many bytes they have.
    pub(crate) fn size(&self) -> (usize, u64) {
        let size = |path: &PathBuf| {
            fs::symlink_metadata(self.part.repository.work_tree.join(path)).ok().map(|meta| meta.size())
        };
        let sizes: Vec<u64> = self.files.iter().filter_map(size).collect();
        (sizes.len(), sizes.iter().sum())
    }

    /// Writes the copy's git directory, without any object, as a stream for tar.
    pub(crate) fn write_git_dir(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut tar = Tar::new(out);
        for dir in ["", "/objects", "/objects/info", "/objects/pack", "/refs", "/refs/heads", "/info", "/pi"]
        {
            tar.dir(format!(".git{dir}"))?;
        }
        tar.text(".git/HEAD", self.standing.head.to_string().as_bytes())?;
        let lfs = if self.has_lfs { LFS_CONFIG } else { "" };
        tar.text(".git/config", (self.part.config.of_copy() + lfs).as_bytes())?;
        tar.text(".git/info/exclude", &self.exclude)?;
        for file in ["shallow", "info/attributes"] {
            if let Ok(bytes) = small_bytes(&self.part.repository.common.join(file)) {
                tar.text(&format!(".git/{file}"), &bytes)?;
            }
        }
        Ok(tar.end()?)
    }

    /// Sends the commit that is checked out, with its history. `store` is a directory of the launcher's own, which is made.
    pub(crate) fn send_commit(
        &self,
        git: &Git,
        store: &Path,
        inside: &Inside,
        path: &Path,
    ) -> anyhow::Result<()> {
        let Some(commit) = self.standing.commit() else { return Ok(()) };
        self.lay_out_store(store)?;
        let name = match &self.standing.head {
            Head::Branch(name) => name.as_str(),
            Head::Detached(_) => super::BASE,
        };
        let refspec = format!("{commit}:{name}");
        git.at(store)
            .through(&inside.env)
            .args([
                "push", "--quiet", "--no-verify", "--no-signed", "--no-follow-tags",
                "--recurse-submodules=no",
            ])
            .args([inside.receiver(path)])
            .args([refspec])
            .patience(super::back::PATIENCE)
            .run()
            .map(drop)
            .context("could not copy the repository's history")
    }

    /// Lays out a store that borrows the repository's objects.
    pub(super) fn lay_out_store(&self, store: &Path) -> anyhow::Result<()> {
        lay_out_store_of(&self.part, &self.standing, store)
    }

    /// Writes the files of the work tree, as a stream for tar. Of those that are as in the commit it only says so: the objects
    /// are there. `go_on` is asked before each.
    pub(crate) fn write_files(
        &self,
        out: &mut dyn Write,
        go_on: &dyn Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let root = &self.part.repository.work_tree;
        let mut tar = Tar::new(out);
        let mut way = Way::at(root).with_context(|| format!("could not open `{}`", root.display()))?;
        let (mut added, mut same) = (Vec::new(), Vec::new());
        for path in &self.files {
            go_on()?;
            let doing = || format!("could not copy `{}`", root.join(path).display());
            let Some((dir, name)) = way.to(path).with_context(doing)? else { continue };
            if let Some(size) = self.unchanged.get(path)
                && dir.kind(name).with_context(doing)? == Some(Kind::File)
            {
                let meta = dir.file(name).and_then(|file| file.metadata()).with_context(doing)?;
                // Otherwise git has converted it.
                if meta.len() == *size {
                    let (mode, modified) = (meta.mode() & 0o777 | 0o600, meta.mtime());
                    same.extend_from_slice(format!("{mode:o} {modified} ").as_bytes());
                    same.extend_from_slice(path.as_os_str().as_bytes());
                    same.push(0);
                    continue;
                }
            }
            if tar.entry(dir, name, path).with_context(doing)? && self.added.contains(path) {
                added.push(path);
            }
        }
        tar.text(".git/pi/same", &same)?;
        tar.text(".git/pi/added", &list(added.into_iter()))?;
        tar.text(".git/pi/skipped", &list(self.skipped.iter()))?;
        Ok(tar.end()?)
    }
}

const LFS: &str = "lfs";

/// As `git lfs install` writes it; the image has the program.
const LFS_CONFIG: &str = "[filter \"lfs\"]\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n\t\
                          process = git-lfs filter-process\n\trequired = true\n";

fn list<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Vec<u8> {
    paths.flat_map(|path| path.as_os_str().as_bytes().iter().chain(&[0])).copied().collect()
}

/// What the index says.
#[derive(Default)]
struct Index {
    /// In the work tree, and not hidden.
    files: Vec<PathBuf>,
    all: BTreeSet<PathBuf>,
    /// Not in the copy: outside of a sparse work tree, or hidden.
    skipped: Vec<PathBuf>,
    gitlinks: Vec<PathBuf>,
    /// Those that the user has told git to take for unchanged.
    assumed: Vec<PathBuf>,
}

/// The sizes of regular files, from lines of `MODE blob OBJECT SIZE<tab>PATH`.
fn sizes(tree: &[u8]) -> BTreeMap<PathBuf, u64> {
    let entry = |entry: &[u8]| {
        let tab = entry.iter().position(|byte| *byte == b'\t')?;
        let about = std::str::from_utf8(&entry[..tab]).ok()?;
        let size = about.strip_prefix("100").and_then(|about| about.split_whitespace().nth(3))?;
        Some((PathBuf::from(OsStr::from_bytes(&entry[tab + 1..])), size.parse().ok()?))
    };
    tree.split(|byte| *byte == 0).filter_map(entry).collect()
}

impl Index {
    /// Parses `TAG MODE OBJECT STAGE<tab>PATH`.
    fn parse(text: &[u8], hide: &Patterns) -> Self {
        let mut index = Self::default();
        for entry in text.split(|byte| *byte == 0) {
            let Some(tab) = entry.iter().position(|byte| *byte == b'\t') else { continue };
            let path = &entry[tab + 1..];
            let own = PathBuf::from(OsStr::from_bytes(path));
            if entry[2..].starts_with(b"160000 ") {
                index.gitlinks.push(own);
                continue;
            }
            index.all.insert(own.clone());
            if entry[0].is_ascii_lowercase() {
                index.assumed.push(own.clone());
            }
            if entry[0].eq_ignore_ascii_case(&b'S') || hide.cover(path) {
                index.skipped.push(own);
            } else {
                index.files.push(own);
            }
        }
        index.gitlinks.dedup();
        index
    }
}

/// The user's file of patterns for all repositories, where there is one.
fn excludes(own: &Config, user: &Config, host: &Host) -> Option<PathBuf> {
    let named = own.value("core.excludesfile").or_else(|| user.value("core.excludesfile"));
    let path = if let Some(path) = named {
        host.expand(path)
    } else {
        let config = host.env.get(OsStr::new("XDG_CONFIG_HOME")).filter(|dir| !dir.is_empty());
        config.map_or_else(|| host.home.join(".config"), PathBuf::from).join("git/ignore")
    };
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::written::Written;

    #[test]
    fn what_is_as_in_the_commit_is_named_and_does_not_travel() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let run = |words: &[&str]| {
            let own = ["-c", "user.name=T", "-c", "user.email=t@example.com"];
            let done = Command::new("git").args(own).args(words).current_dir(&root).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        run(&["init", "--quiet"]);
        for name in ["same", "touched", "staged", "changed", "longer"] {
            fs::write(root.join(name), format!("<{name}>")).unwrap();
        }
        run(&["add", "."]);
        run(&["commit", "--quiet", "--message", "first"]);
        for name in ["staged", "changed", "untracked"] {
            fs::write(root.join(name), format!("<new {name}>")).unwrap();
        }
        run(&["add", "staged"]);
        let mut host = Host::for_tests();
        host.env.insert("PATH".into(), std::env::var_os("PATH").unwrap());
        let git = Git::find(&host, &Written::default()).unwrap();
        let repository = Repository::at(&root, &root.join(".git")).unwrap();
        let none = Patterns::default();
        let wanted = Wanted { git: &git, host: &host, repository: &repository, hide: &none, ignored: &none };
        let contents = Contents::of(&wanted).unwrap();
        // After git was asked.
        fs::write(root.join("longer"), "<much longer>").unwrap();
        let mut stream = Vec::new();
        contents.write_files(&mut stream, &|| Ok(())).unwrap();
        let stream = String::from_utf8_lossy(&stream);
        for there in
            ["<new staged>", "<new changed>", "<new untracked>", "<much longer>", " same\0", " touched\0"]
        {
            assert!(stream.contains(there), "{there}: {stream}");
        }
        for not in ["<same>", "<touched>", " staged\0", " changed\0", " longer\0"] {
            assert!(!stream.contains(not), "{not}: {stream}");
        }
    }
}
