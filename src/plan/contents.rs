//! The container in which an image is read: it has no network, nothing of any machine, and ends by itself.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Attachment, Container, OPEN_FILES, Privileges, Role, Room, Streams, copier::machine_labels,
    environment::no_proxies,
};
use crate::{
    config::Limits,
    host::{Host, Owner},
    record::SessionId,
};

/// The container that runs this script of `sh` in an image. `dir` is where its seccomp profile is.
pub(crate) fn contents(
    image: &str,
    script: &str,
    runtime: Option<&str>,
    dir: &Path,
    repository: &Path,
    host: &Host,
) -> anyhow::Result<Container> {
    let mut env = no_proxies();
    env.insert("HOME".to_owned(), "/tmp".into());
    env.insert("TMPDIR".to_owned(), "/tmp".into());
    Ok(Container {
        name: format!("pi-{}-contents", SessionId::random()?.as_str()),
        role: Role::Contents,
        image: image.to_owned(),
        mounts: vec![],
        labels: machine_labels(host, repository),
        user: Some(Owner { uid: 65534, gid: 65534 }),
        privileges: Privileges::None,
        network: Attachment::None,
        env,
        limits: Limits { memory: Some("512m".to_owned()), cpus: Some(1.0), pids: Some(64) },
        files: host.files.min(OPEN_FILES),
        tmp: Room::mebibytes(16, 1000),
        seccomp: dir.join("seccomp.json"),
        runtime: runtime.map(str::to_owned),
        streams: Streams::Silent,
        hosts: BTreeMap::new(),
        workdir: Some(PathBuf::from("/")),
        command: vec!["-c".to_owned(), script.to_owned()],
    })
}
