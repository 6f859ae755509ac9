//! `pi allow`: adds to a running session's allowlist or reloads it, and writes the file on request.

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

/// How long to wait for others that write the same list.
const OTHERS: Duration = Duration::from_secs(30);

/// Allows entries, or reloads the edited file. A bad entry changes nothing.
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
                "`{entry}` is an address of your own network, which needs a route from the start of the session"
            ),
            format!("start a session with `pi --allow {entry}`"),
        ));
    }
    if save && let Some(entry) = parsed.iter().find(|entry| !entry.fits_a_file()) {
        return Err(Hinted::error(
            format!("`{entry}` is an address of your own network, which cannot be in a list of domains"),
            format!("add it to `lan` in `{}`", Config::path(&launcher.options, &launcher.host).display()),
        ));
    }
    if save {
        let file = session.as_ref().and_then(|session| session.record.allowlist.clone());
        let of_config = Sources::of(&config);
        let mut sources = Sources { file: file.unwrap_or_else(|| of_config.file.clone()), ..of_config };
        sources.provide_file(&config)?;
        // A file with a bad line has no effect, so appending to it would not either.
        sources.read(false).context("nothing was changed")?;
        let lines: Vec<String> = parsed.iter().map(ToString::to_string).collect();
        append(&sources.file, &lines, &launcher.host)?;
        report::note(format_args!("`{}` has {}", sources.file.display(), entries.join(" ")));
    }
    if let Some(session) = session {
        control::ask(&session, &Request::Allow(entries.to_vec()), &launcher.signals, None)?.tell()?;
    }
    Ok(0)
}

/// Appends the lines that the allowlist does not have, and returns them.
pub(super) fn append(path: &Path, lines: &[String], host: &Host) -> anyhow::Result<Vec<String>> {
    let failed = || format!("could not write `{}`", path.display());
    // An agent that can write here could point the path at another file.
    let real = Written::load(host).and_around(host).follow(path).map_err(|astray| {
        Hinted::error(
            format!("{}: {astray}", failed()),
            "nothing was changed; name the file itself, or edit it",
        )
    })?;
    let mut file = open_small(&real, Links::Refuse, true).with_context(failed)?;
    lock_within(&file, OTHERS, || Ok(())).with_context(failed)?;
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(failed)?;
    let present: Vec<&str> = text.lines().map(str::trim).collect();
    let mut more = if text.is_empty() || text.ends_with('\n') { String::new() } else { "\n".to_owned() };
    let new: Vec<String> = lines.iter().filter(|line| !present.contains(&line.as_str())).cloned().collect();
    for line in &new {
        more.push_str(line);
        more.push('\n');
    } // The file's position is at its end now.
    file.write_all(more.as_bytes())
        .inspect_err(|_| {
            // On a full disk, half a name would be another name.
            let _ = file.set_len(text.len() as u64);
        })
        .with_context(failed)?;
    Ok(new)
}
