//! `pi clean`: removes what dead sessions left, and on request images and caches.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use crate::{
    docker::{self, Docker, list_images, remove_image},
    host::Host,
    image::{self, Image},
    lang::Variant,
    launcher::Launcher,
    plan::state_hash,
    record::{self, Live, SessionId},
    report, scratch,
    session::{self, take_down},
    written::Written,
};

/// Removes exactly what belongs to dead sessions of this user, this machine and this state directory.
pub(crate) fn run(launcher: &Launcher, images: bool, caches: bool) -> anyhow::Result<u8> {
    let config = launcher.config()?;
    let host = &launcher.host;
    let docker = Docker::find(&config.docker, host, &Written::load(host))?;
    let dry = launcher.options.dry_run.is_some();
    let mut failed = false;
    let mut tell = |what: String, act: &dyn Fn() -> anyhow::Result<()>| {
        if dry {
            return report::data(format_args!("would remove {what}\n"));
        }
        match act() {
            Ok(()) => report::data(format_args!("removed {what}\n")),
            Err(error) => {
                failed = true;
                report::complain(format_args!("could not remove {what}: {error:#}"));
                Ok(())
            }
        }
    };
    if !dry {
        scratch::sweep(host);
    }
    let (live, dead) = record::all(host)?;
    for session in dead {
        // One that had made nothing yet is nothing to tell of.
        if session.record.is_none() && !dry {
            take_down(&session, &docker, host)?;
            continue;
        }
        tell(format!("the session `{}`", session.id.as_str()), &|| take_down(&session, &docker, host))?;
    }
    if !dry {
        record::wait_for_cleaners(host);
    }
    let label = format!("pi.state={}", state_hash(host));
    for id in unknown(&docker, &label, host, &live)? {
        tell(format!("what the unknown session `{}` left", id.as_str()), &|| {
            session::take_down_by_id(&docker, &id)
        })?;
    }
    if caches {
        let labelled = |key: &str| docker.run(&docker::list("volume", &label, key));
        let repositories = labelled("pi.repo")?;
        let repositories: BTreeMap<&str, &str> =
            repositories.lines().filter_map(|line| line.split_once('\t')).collect();
        for line in labelled("pi.role")?.lines() {
            if let Some((name, "cache")) = line.split_once('\t').map(|(name, role)| (name, role.trim())) {
                let of = repositories.get(name).filter(|path| !path.is_empty());
                let of = of.map(|path| format!(" of `{}`", report::one_line(path))).unwrap_or_default();
                tell(format!("the cache `{name}`{of}"), &|| {
                    docker.run(&docker::remove_volume(name)).map(drop)
                })?;
            }
        }
    }
    if images {
        let ca = image::certificates(&config.images)?;
        let proxy = Image::proxy(&config.images, &ca);
        let mut keep: Vec<String> = proxy.tags().map(str::to_owned).collect();
        // The layers below do not depend on who uses them; the user's own are kept for who is asking.
        for variant in Variant::ALL {
            let who = crate::host::Owner { uid: host.uid, gid: host.gid };
            let image = Image::agent(variant, &config.images, &config.packages, who, &ca);
            keep.extend(image.tags().map(str::to_owned));
        }
        for reference in ["pi-agent:*", "pi-layer:*", "pi-proxy:*"] {
            for tag in docker
                .run(&list_images(reference, Some(host.uid)))?
                .lines()
                .filter(|tag| !keep.iter().any(|kept| kept == tag))
            {
                tell(format!("the image `{tag}`"), &|| docker.run(&remove_image(tag)).map(drop))?;
            }
        }
    }
    Ok(if failed { report::FAILED } else { 0 })
}

/// Sessions that the engine has something of and that have no record here: it was lost.
fn unknown(docker: &Docker, label: &str, host: &Host, live: &[Live]) -> anyhow::Result<BTreeSet<SessionId>> {
    let look = || -> anyhow::Result<BTreeSet<SessionId>> {
        let mut found = BTreeSet::new();
        for kind in ["container", "network", "volume"] {
            let listed = docker.run(&docker::list(kind, label, "pi.session"))?;
            let ids = listed.lines().filter_map(|line| SessionId::parse(line.split_once('\t')?.1.trim()));
            found.extend(ids.filter(|id| !live.iter().any(|session| session.record.id == *id)));
        }
        found.retain(|id| !record::directory(host, id).exists());
        Ok(found)
    };
    let mut found = look()?;
    if !found.is_empty() {
        // A session that ends at this moment has no record any more, and its last objects for a moment.
        thread::sleep(ENDING);
        let again = look()?;
        found.retain(|id| again.contains(id));
    }
    Ok(found)
}

/// How long an engine may show what was removed.
const ENDING: Duration = Duration::from_millis(500);
