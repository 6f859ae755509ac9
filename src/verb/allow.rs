//! `pi allow`: changes what a running session may reach, and on request the allowlist file.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    config::Config,
    control::{self, Request},
    domain::Entry,
    egress::Sources,
    files::{Links, lock_within, open_small},
    host::Host,
    launcher::Launcher,
    record,
    report::{self, Hinted},
    written::Written,
};

/// How long others may take to write the same list.
const OTHERS: Duration = Duration::from_secs(30);

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
            Entry::parse(text).map_err(|why| {
                Hinted::usage_hinted(
                    format!("`pi allow`: `{}`: {why}", report::one_line(text)),
                    "an entry is `example.com`, `*.example.com` or `host:port`; nothing was changed",
                )
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let config = launcher.config()?;
    let session = record::restricted(&launcher.host, name)?;
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
            format!("write it into `lan` in `{}`", Config::path(&launcher.options, &launcher.host).display()),
        ));
    }
    if save {
        let file = session.as_ref().and_then(|session| session.record.allowlist.clone());
        let of_config = Sources::of(&config);
        let mut sources = Sources { file: file.unwrap_or_else(|| of_config.file.clone()), ..of_config };
        sources.provide_file(&config)?;
        // Below a bad line nothing that is appended would ever have an effect.
        sources.read(false).context("nothing was changed")?;
        append(&sources.file, &parsed, &launcher.host)?;
        report::note(format_args!("`{}` has {}", sources.file.display(), entries.join(" ")));
    }
    if let Some(session) = session {
        control::ask(&session, &Request::Allow(entries.to_vec()), &launcher.signals, None)?.tell()?;
    }
    Ok(0)
}

/// Adds entries to the end of an allowlist that does not have them.
fn append(path: &Path, entries: &[Entry], host: &Host) -> anyhow::Result<()> {
    let failed = || format!("could not write `{}`", path.display());
    // An agent that may write around here could have the lines added to a file of its choice.
    let real = Written::load(host).and_around(host).follow(path).map_err(|astray| {
        Hinted::error(
            format!("{}: {astray}", failed()),
            "nothing was changed; name the file itself, or write into it",
        )
    })?;
    let mut file = open_small(&real, Links::Refuse, true).with_context(failed)?;
    lock_within(&file, OTHERS, || Ok(())).with_context(failed)?;
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(failed)?;
    let present: Vec<&str> = text.lines().map(str::trim).collect();
    let mut more = if text.is_empty() || text.ends_with('\n') { String::new() } else { "\n".to_owned() };
    for entry in entries.iter().map(ToString::to_string).filter(|entry| !present.contains(&entry.as_str())) {
        more.push_str(&entry);
        more.push('\n');
    }
    // The place is behind what was read.
    file.write_all(more.as_bytes())
        .inspect_err(|_| {
            // The beginning of a name on a full disk is another name.
            let _ = file.set_len(text.len() as u64);
        })
        .with_context(failed)
}
