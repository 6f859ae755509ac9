//! `pi allow`: changes what a running session may reach, and on request the allowlist file.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{
    config::Config,
    domain::{Allowlist, Entry},
    egress::{self, Sources},
    files::{Links, lock_within, open_small, replace},
    host::Host,
    launcher::Launcher,
    record::{self, Live, Record},
    report::{self, Hinted, Usage},
    session::PROXY_LOG,
    written::Written,
};

/// How long others may take to change the same session.
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
                Usage::hinted(
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
        let mut sources = Sources::of(&config);
        sources.provide_file(&config)?;
        // Below a bad line nothing that is appended would ever have an effect.
        sources.read(false).context("nothing was changed")?;
        append(&sources, &parsed, &launcher.host)?;
    }
    if let Some(session) = session {
        reload(launcher, &session, entries)?;
    }
    Ok(0)
}

fn append(sources: &Sources, entries: &[Entry], host: &Host) -> anyhow::Result<()> {
    let path = &sources.file;
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

/// Renders the list anew for the sidecar, which notices a new file by itself, and waits for its word.
fn reload(launcher: &Launcher, session: &Live, entries: &[String]) -> anyhow::Result<()> {
    // One at a time, or the later one would write down what it has read before the earlier one had finished.
    let lock = session.dir.join("allow.lock");
    let lock = fs::File::create(&lock).with_context(|| format!("could not create `{}`", lock.display()))?;
    lock_within(&lock, OTHERS, || Ok(())).context("another `pi allow` changes this session")?;
    let path = session.dir.join("session.json");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read `{}`", path.display()))?;
    let mut record: Record =
        serde_json::from_str(&text).with_context(|| format!("could not understand `{}`", path.display()))?;
    let Some(mut sources) = record.allowlist.take() else { bail!("this session has no restricted network") };
    for entry in entries {
        if !sources.allow.contains(entry) {
            sources.allow.push(entry.clone());
        }
    }
    let before = sources.again()?;
    // With entries, those and nothing else: the agent may have written the file, and have asked for this very command.
    let list = if entries.is_empty() { sources.reread()? } else { sources.again()? };
    let rendered = egress::render(&list, &launcher.host)?;
    let log = session.dir.join(PROXY_LOG);
    let seen = fs::metadata(&log).map_or(0, |meta| meta.len());
    let filter = session.dir.join("proxy/filter");
    replace(&filter, rendered.filter.as_bytes())
        .with_context(|| format!("could not write `{}`", filter.display()))?;
    wait_for_word(&log, seen)?;
    // Remembered only once it is in effect, so that the next reading of the file keeps it.
    record.allowlist = Some(sources);
    replace(&path, serde_json::to_string(&record)?.as_bytes())
        .with_context(|| format!("could not write `{}`", path.display()))?;
    match entries {
        [] => {
            report::note(format_args!("`{}` has read its allowlist again", record.name));
            tell_difference(&before, &list);
        }
        entries => report::note(format_args!("`{}` may reach {}", record.name, entries.join(" "))),
    }
    Ok(())
}

/// Says which entries came and went.
fn tell_difference(before: &Allowlist, now: &Allowlist) {
    let (came, gone) = now.difference(before);
    for entry in came {
        if entry.is_lan() {
            report::warn(format_args!(
                "`{entry}` is for sessions to come: the proxy lays the route to it before it starts"
            ));
        } else {
            report::note(format_args!("now allowed: `{entry}`"));
        }
    }
    for entry in gone {
        report::note(format_args!("no longer allowed: `{entry}`"));
    }
}

/// How long the sidecar may take to try new rules.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until the sidecar has said, behind the first `seen` bytes of its log, what it made of the new rules.
fn wait_for_word(log: &Path, seen: u64) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let mut text = Vec::new();
        let mut file = fs::File::open(log).context("the session has ended")?;
        file.seek(SeekFrom::Start(seen))
            .and_then(|_| file.read_to_end(&mut text))
            .context("could not read the log")?;
        for line in String::from_utf8_lossy(&text).lines() {
            match line.strip_prefix("pi-proxy: rules ") {
                Some("changed") => return Ok(()),
                Some(kept) => {
                    let why = kept.trim_start_matches("kept: ");
                    bail!("the proxy did not take the new rules, the old ones are in effect: {why}");
                }
                None => {}
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    bail!("the proxy has not said within {} s that the new rules are in effect", PATIENCE.as_secs())
}
