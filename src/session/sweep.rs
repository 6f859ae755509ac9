//! Sessions whose process is gone: taken down by their records alone.

use std::{fs, time::Duration};

use super::{
    login::{forget_login, mend_login},
    teardown::take_down_by_id,
};
use crate::{
    docker::Docker,
    host::{Engine, Host},
    record::{self, Dead},
    report, scratch,
};

/// Takes a dead session down, on the engine that its record names.
///
/// # Errors
/// The engine does not answer or keeps something; the record stays for the next time.
pub(crate) fn take_down(dead: &Dead, docker: &Docker, host: &Host) -> anyhow::Result<()> {
    if let Some(record) = &dead.record {
        if record.engine != docker.address() {
            Engine::at(&record.engine, host.uid).check()?;
        }
        let docker = docker.at(&record.engine).within(Duration::from_secs(30));
        take_down_by_id(&docker, &dead.id)?;
        // Its agent may have lived until now.
        mend(dead, host);
    }
    match fs::remove_dir_all(&dead.dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn mend(dead: &Dead, host: &Host) {
    if let Some(record) = &dead.record {
        mend_login(&record.login, &dead.dir, host);
    }
}

/// What every start of `pi` does for those that ended badly. It finds nothing nearly always, and then costs a look into
/// one directory.
pub(crate) fn sweep(host: &Host, docker: &Docker) {
    scratch::sweep(host);
    let dead = match record::all(host) {
        Ok((_, dead)) => dead,
        Err(error) => return report::warn(format_args!("could not look for dead sessions: {error:#}")),
    };
    // First of all, and at once for all of them: the session that begins beside this reads the login in a moment, and an
    // engine may take long.
    for dead in &dead {
        mend(dead, host);
    }
    for dead in dead {
        if let Err(error) = take_down(&dead, docker, host) {
            let engine = dead.record.as_ref().map(|record| Engine::at(&record.engine, host.uid));
            if engine.is_some_and(|engine| !engine.socket().exists()) {
                forget_login(&dead.dir);
            }
            report::warn(format_args!(
                "could not remove what the dead session `{}` left: {error:#}",
                dead.id.as_str()
            ));
        }
    }
}
