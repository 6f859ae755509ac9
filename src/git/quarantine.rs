//! The launcher's own store of a repository: what an agent has made is fetched into it, and moves into the repository when
//! git has checked all of it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    command::{Call, Failure, Git, url},
    give::give,
    names::{is_oid, is_ref},
    repository::Head,
};

/// How much one fetch may bring, in bytes.
const SIZE: u64 = 4 << 30;

/// How long one fetch may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long the list of names may take, and how long it may be.
const LIST_PATIENCE: Duration = Duration::from_secs(30);
const LIST: u64 = 16 << 20;

/// How a git is run that sees the agent's git directory.
#[derive(Debug, Clone)]
pub(crate) struct Inside {
    /// What runs a command there, such as `docker exec -i ID`; the first word is an absolute path.
    pub(crate) prefix: Vec<OsString>,
    /// The environment of that, besides `PATH`.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// The git that is found there.
    pub(crate) git: OsString,
}

impl Inside {
    /// The address of the git directory at `path` inside.
    fn url(&self, path: &Path) -> OsString {
        let own = [
            self.git.as_os_str(),
            OsStr::new("-c"),
            OsStr::new("core.hooksPath=/dev/null"),
            // Where only the git directory is mounted, the work tree that its config names is not there.
            OsStr::new("--work-tree=/"),
            OsStr::new("upload-pack"),
            OsStr::new("--timeout=60"),
            path.as_os_str(),
        ];
        url(self.prefix.iter().map(OsString::as_os_str).chain(own))
    }

    /// The address at which the git directory at `path` inside, which no agent has seen yet, receives objects.
    pub(super) fn receiver(&self, path: &Path) -> OsString {
        let settings = [
            "-c", "core.hooksPath=/dev/null", "-c", "receive.denyCurrentBranch=ignore", "-c",
            "receive.shallowUpdate=true", "-c", "receive.autogc=false", "receive-pack",
        ];
        let own =
            std::iter::once(self.git.as_os_str()).chain(settings.map(OsStr::new)).chain([path.as_os_str()]);
        url(self.prefix.iter().map(OsString::as_os_str).chain(own))
    }
}

/// Where an agent's references stand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) head: Option<Head>,
    /// The commit that HEAD leads to.
    pub(super) commit: Option<String>,
    pub(super) refs: BTreeMap<String, String>,
}

/// The store, and the way to the agent's git directory.
pub(super) struct Quarantine<'a> {
    pub(super) git: &'a Git,
    pub(super) store: PathBuf,
    /// The repository's own objects.
    pub(super) objects: PathBuf,
    pub(super) inside: &'a Inside,
    /// The agent's git directory, as it is called inside.
    pub(super) path: &'a Path,
}

impl Quarantine<'_> {
    fn call(&self) -> Call {
        self.git.at(&self.store)
    }

    /// Asks where the references stand.
    pub(super) fn list(&self) -> Result<Listed, Failure> {
        let text = self
            .call()
            .through(&self.inside.env)
            .args(["ls-remote", "--symref"])
            .args([self.inside.url(self.path)])
            .patience(LIST_PATIENCE)
            .output(LIST)
            .run()?;
        Ok(listed(&String::from_utf8_lossy(&text)))
    }

    /// Fetches these references, and moves what has come among the objects of the repository; returns what each was at that
    /// moment.
    pub(super) fn fetch(&self, names: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
        self.forget()?;
        let refspecs: Vec<String> =
            names.iter().enumerate().map(|(n, name)| format!("+{name}:refs/pi/{n}\n")).collect();
        let fetch = self
            .call()
            .through(&self.inside.env)
            .args(["fetch", "--quiet", "--stdin", "--no-tags", "--no-write-fetch-head"])
            .args(["--no-auto-maintenance", "--no-show-forced-updates", "--no-recurse-submodules"])
            .args([self.inside.url(self.path)])
            .stdin(refspecs.concat().into_bytes())
            .patience(PATIENCE)
            .file_size(SIZE);
        if let Err(failure) = fetch.run() {
            self.empty();
            return Err(failure);
        }
        let text =
            self.call().args(["for-each-ref", "--format=%(objectname) %(refname)", "refs/pi/"]).text()?;
        let fetched = text.lines().filter_map(|line| {
            let (oid, own) = line.split_once(" refs/pi/")?;
            Some(((*names.get(own.parse::<usize>().ok()?)?).to_owned(), oid.to_owned()))
        });
        let fetched = fetched.collect();
        self.release().map_err(Failure::NotMoved)?;
        Ok(fetched)
    }

    /// Removes the names under which objects were fetched.
    fn forget(&self) -> Result<(), Failure> {
        let old = self.call().args(["for-each-ref", "--format=delete %(refname)", "refs/pi/"]).run()?;
        if old.is_empty() {
            return Ok(());
        }
        self.call().args(["update-ref", "--stdin"]).stdin(old).run().map(drop)
    }

    /// Removes what a fetch has left that failed.
    fn empty(&self) {
        let objects = self.store.join("objects");
        for entry in fs::read_dir(&objects).into_iter().flatten().flatten() {
            if entry.file_name() == "pack" {
                for file in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                    let _ = fs::remove_file(file.path());
                }
            } else if entry.file_name() != "info" {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Moves what was fetched among the objects of the repository.
    fn release(&self) -> io::Result<()> {
        let own = self.store.join("objects");
        // A commit is looked for only when something names it, so the order matters for packs alone: git takes one for
        // whole when it sees the index.
        let mut files = files(&own)?;
        files.sort_by_key(|file| file.extension().is_some_and(|kind| kind == "idx"));
        for file in files {
            moved(&file, &self.objects.join(file.strip_prefix(&own).unwrap_or(&file)))?;
        }
        Ok(())
    }
}

/// The objects and packs in a store.
fn files(objects: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for dir in fs::read_dir(objects)? {
        let dir = dir?;
        let name = dir.file_name();
        let is_loose = name.len() == 2 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit);
        if !is_loose && name != "pack" {
            continue;
        }
        for file in fs::read_dir(dir.path())? {
            let file = file?;
            let name = file.file_name();
            let name = name.to_string_lossy();
            let is_object = is_loose && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_object || name.starts_with("pack-") {
                files.push(file.path());
            }
        }
    }
    Ok(files)
}

/// Moves a file that nobody changes any more, also to another file system. One that is there already stays.
fn moved(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return fs::remove_file(from);
    }
    let parent = to.parent().unwrap_or(to);
    match fs::create_dir(parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let given = || give(parent).and_then(|()| give(to));
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        other => return other.and_then(|()| given()),
    }
    let next = parent.join(format!("tmp_obj_{}", std::process::id()));
    let _ = fs::remove_file(&next);
    let copy = || {
        let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        io::copy(&mut fs::File::open(from)?, &mut new)?;
        new.set_permissions(fs::Permissions::from_mode(0o444))?;
        new.sync_all()?;
        fs::rename(&next, to)
    };
    copy().inspect_err(|_| drop(fs::remove_file(&next)))?;
    given()?;
    fs::remove_file(from)
}

/// What `ls-remote` prints. All of it comes from the agent.
fn listed(text: &str) -> Listed {
    let mut listed = Listed::default();
    let mut branch = None;
    for line in text.lines() {
        let Some((what, name)) = line.split_once('\t') else { continue };
        match what.strip_prefix("ref: ") {
            Some(target) if name == "HEAD" && is_ref(target) && target.starts_with("refs/heads/") => {
                branch = Some(target.to_owned());
            }
            None if !is_oid(what) || what.bytes().all(|byte| byte == b'0') => {}
            None if name == "HEAD" => listed.commit = Some(what.to_owned()),
            None if is_ref(name) => {
                listed.refs.insert(name.to_owned(), what.to_owned());
            }
            _ => {}
        }
    }
    listed.head = match (branch, &listed.commit) {
        (Some(branch), _) => Some(Head::Branch(branch)),
        (None, Some(commit)) => Some(Head::Detached(commit.clone())),
        (None, None) => None,
    };
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_is_read_as_an_adversary_writes_it() {
        let oid = "a".repeat(40);
        let text = format!(
            "ref: refs/heads/x\tHEAD\n{oid}\tHEAD\n{oid}\trefs/heads/x\n{oid}\trefs/heads/../y\nzz\trefs/heads/z\n\
             {oid}\trefs/tags/v^{{}}\nref: ../../x\tHEAD\nno tab\n{zero}\trefs/heads/zero\n",
            zero = "0".repeat(40)
        );
        let refs = BTreeMap::from([("refs/heads/x".to_owned(), oid.clone())]);
        let head = Some(Head::Branch("refs/heads/x".to_owned()));
        assert_eq!(listed(&text), Listed { head, commit: Some(oid), refs });
    }
}
