//! The container in which a copy is filled and its work comes out: git and the copy's volume, nothing else.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Attachment, Container, MACHINE_LABELS, Mount, OPEN_FILES, Privileges, Role, Room, SECCOMP, Source,
    Streams, environment::no_proxies, mounts::expected_apart, noun::File, state_hash,
};
use crate::{
    config::{Access, Limits},
    copies::Copy,
    host::{Host, Owner, is_here},
    inside,
    record::SessionId,
};

/// Where the copy is in that container. The image gives a new volume this directory's owner.
pub(crate) const COPY: &str = inside::CACHE;

/// How an agent's session has a copy in place of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) name: String,
    pub(crate) volume: String,
    /// For people who ask what would be done.
    pub(crate) tale: String,
}

impl Copied {
    /// The copy at the repository's own place.
    pub(super) fn mount(&self, root: &Path, labels: &BTreeMap<String, String>) -> Mount {
        let mut labels = labels.clone();
        labels.remove("pi.session");
        volume(&self.volume, &self.name, labels, root)
    }
}

fn volume(name: &str, copy: &str, mut labels: BTreeMap<String, String>, target: &Path) -> Mount {
    labels.insert("pi.role".to_owned(), "copy".to_owned());
    labels.insert("pi.copy".to_owned(), copy.to_owned());
    let source = Source::Volume { name: name.to_owned(), labels };
    Mount { source, target: target.to_owned(), access: Access::ReadWrite }
}

/// The file that must exist for the container.
pub(crate) fn copier_file(dir: &Path) -> File {
    File::session(&dir.join("seccomp.json"), SECCOMP)
}

/// The container, under a name of its own. It lives as long as the launcher holds its stdin. `dir` is the copy's directory.
pub(crate) fn copier(copy: &Copy, name: String, dir: &Path, host: &Host) -> Container {
    let labels = machine_labels(host, &copy.repository);
    keeper(Keeper {
        name,
        role: Role::Copy,
        image: copy.image.clone(),
        owner: copy.owner(),
        mount: volume(&copy.volume, &copy.name, labels.clone(), Path::new(COPY)),
        labels,
        runtime: copy.runtime.clone(),
        engine: &copy.engine,
        dir,
        host,
    })
}

/// The labels of what belongs to a repository and to no session.
pub(super) fn machine_labels(host: &Host, repository: &Path) -> BTreeMap<String, String> {
    let of = [
        host.uid.to_string(),
        host.machine.clone(),
        state_hash(host),
        repository.to_string_lossy().into_owned(),
    ];
    MACHINE_LABELS.iter().map(|key| (*key).to_owned()).zip(of).collect()
}

/// The labels of what belongs to a session.
pub(super) fn session_labels(id: &SessionId, host: &Host, repository: &Path) -> BTreeMap<String, String> {
    let mut labels = machine_labels(host, repository);
    labels.insert("pi.session".to_owned(), id.as_str().to_owned());
    labels
}

/// A container that has one volume and lives as long as the launcher holds its stdin.
pub(super) struct Keeper<'a> {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) image: String,
    pub(super) owner: Owner,
    pub(super) mount: Mount,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) runtime: Option<String>,
    /// The engine's address.
    pub(super) engine: &'a str,
    /// Where its seccomp profile is.
    pub(super) dir: &'a Path,
    pub(super) host: &'a Host,
}

pub(super) fn keeper(keeper: Keeper<'_>) -> Container {
    let Keeper { name, role, image, owner, mount, labels, runtime, engine, dir, host } = keeper;
    let mut env = no_proxies();
    env.insert("HOME".to_owned(), "/tmp".into());
    env.insert("TMPDIR".to_owned(), "/tmp".into());
    let expected = if is_here(engine) {
        Some(format!("-:-:{}", mount.target.display()))
    } else {
        expected_apart(std::slice::from_ref(&mount), runtime.as_deref())
    };
    env.extend(expected.map(|expected| ("PI_BOX_MOUNTS".to_owned(), expected.into())));
    Container {
        name,
        role,
        image,
        mounts: vec![mount],
        labels,
        user: Some(owner),
        privileges: Privileges::None,
        network: Attachment::None,
        env,
        // As much as packing a large repository takes.
        limits: Limits { memory: Some("2g".to_owned()), cpus: Some(2.0), pids: Some(128) },
        files: host.files.min(OPEN_FILES),
        tmp: Room::mebibytes(64, 1000),
        seccomp: dir.join("seccomp.json"),
        runtime,
        streams: Streams::Pipe,
        hosts: BTreeMap::new(),
        workdir: Some(PathBuf::from("/")),
        command: vec!["sh".to_owned(), "-c".to_owned(), format!("echo {}; exec cat >/dev/null", inside::UP)],
    }
}
