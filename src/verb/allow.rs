//! `pi allow`: changes what a running session may reach, and on request the allowlist file.

use std::{fs, io::Write as _};

use anyhow::{Context as _, bail};

use crate::{
    docker::{self, Docker},
    domain::Entry,
    egress::{self, Sources},
    launcher::Launcher,
    report::{self, Hinted, Usage},
    session,
    sweep::Live,
    verb::ps,
};

/// Allows entries, or reads the edited file again; a bad entry changes nothing.
pub(crate) fn run(
    launcher: &Launcher,
    entries: &[String],
    name: Option<&str>,
    save: bool,
) -> anyhow::Result<u8> {
    let parsed: Vec<Entry> = entries
        .iter()
        .map(|text| {
            Entry::parse(text).map_err(|problem| {
                Usage::hinted(
                    format!("`pi allow`: {problem}"),
                    "an entry is `example.com`, `*.example.com` or `host:port`; nothing was changed",
                )
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let config = launcher.config()?;
    let session = ps::restricted(&launcher.host, name)?;
    if session.is_none() && (!save || entries.is_empty()) {
        return Err(Hinted::error(
            "no session with a restricted network is running",
            "start one with `pi --proxy`, or write the entries to the file with `pi allow --save DOMAIN`",
        ));
    }
    if session.is_some()
        && let Some(entry) = parsed.iter().find(|entry| entry.is_lan())
    {
        return Err(Hinted::error(
            format!(
                "`{entry}` is an address of your own network, for which the proxy lays a route before it starts"
            ),
            format!("start the session with `pi --allow {entry}`"),
        ));
    }
    if save && let Some(entry) = parsed.iter().find(|entry| !entry.fits_a_file()) {
        return Err(Hinted::error(
            format!("`{entry}` is an address of your own network, which has no place in a list of domains"),
            "write it into `lan` in `~/.config/pi/config.toml`",
        ));
    }
    if save {
        let sources = Sources::of(&config);
        sources.provide_file(&config)?;
        append(&sources, entries)?;
    }
    if let Some(session) = session {
        reload(launcher, &config.docker, &session, entries)?;
    }
    Ok(0)
}

fn append(sources: &Sources, entries: &[String]) -> anyhow::Result<()> {
    let path = &sources.file;
    let text = fs::read_to_string(path).with_context(|| format!("could not read `{}`", path.display()))?;
    let present: Vec<&str> = text.lines().map(str::trim).collect();
    let mut more = if text.is_empty() || text.ends_with('\n') { String::new() } else { "\n".to_owned() };
    for entry in entries.iter().filter(|entry| !present.contains(&entry.as_str())) {
        more.push_str(entry);
        more.push('\n');
    }
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(path)
        .with_context(|| format!("could not open `{}`", path.display()))?;
    file.write_all(more.as_bytes()).with_context(|| format!("could not write `{}`", path.display()))
}

/// Renders the list anew and has the sidecar read it.
fn reload(launcher: &Launcher, program: &str, session: &Live, entries: &[String]) -> anyhow::Result<()> {
    let Some(mut sources) = session.record.allowlist.clone() else {
        bail!("this session has no restricted network")
    };
    sources.allow.extend(entries.iter().cloned());
    let list = sources.read(true)?;
    let rendered = egress::render(&list, &launcher.host)?;
    let dir = session.dir.join("proxy");
    let write = |name: &str, text: &str| {
        session::replace(&dir.join(name), text)
            .with_context(|| format!("could not write `{}`", dir.join(name).display()))
    };
    write("filter", &rendered.filter)?;
    let docker = Docker::find(program, &launcher.host)?.at(&session.record.engine);
    docker.run(&docker::kill(&session.record.id.sidecar(), "USR1"))?;
    // Remembered only once it is in effect, so that the next reading of the file keeps it.
    let mut record = session.record.clone();
    record.allowlist = Some(sources);
    let path = session.dir.join("session.json");
    session::replace(&path, &serde_json::to_string(&record)?)
        .with_context(|| format!("could not write `{}`", path.display()))?;
    match entries {
        [] => report::note(format_args!("`{}` has read its allowlist again", record.name)),
        entries => report::note(format_args!("`{}` may reach {}", record.name, entries.join(" "))),
    }
    Ok(())
}
