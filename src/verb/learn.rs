//! The end of `pi --learn`: what the session reached, and lines for the allowlist.

use std::{fmt::Write as _, fs};

use anyhow::Context as _;

use super::allow;
use crate::{
    egress::Sources,
    launcher::Launcher,
    refused::{self, Refused},
    report,
};

/// Says at the start what learning means.
pub(super) fn say_so() {
    report::note(
        "learning: every public host on port 443 can be reached in this session; the local network is closed",
    );
}

/// Tells what the last learning session reached, and writes lines for it on `--save` or a yes.
pub(super) fn propose(launcher: &Launcher) -> anyhow::Result<()> {
    let learned = Refused::restore(&fs::read_to_string(launcher.host.last_learned()).unwrap_or_default());
    let config = launcher.config()?;
    let mut sources = Sources { learns: false, ..Sources::of(&config) };
    let list = sources.read(config.allowed_domains_is_default)?;
    let mut reached = learned.all().peekable();
    if reached.peek().is_none() {
        report::note("this session reached no host through the proxy");
        return Ok(());
    }
    let mut table = String::from("reached through the proxy:");
    for (destination, count) in reached {
        let host = destination.rsplit_once(':').map_or(destination, |(host, _)| host);
        let listed = if list.permits_tunnel(host, 443) { "  (in the list)" } else { "" };
        let _ = write!(table, "\n{:>6}×  {destination}{listed}", count.times);
    }
    report::note(table);
    let new = learned.all().map(|(destination, _)| destination).filter(|destination| {
        destination.rsplit_once(':').is_none_or(|(host, _)| !list.permits_tunnel(host, 443))
    });
    let (lines, _) = refused::proposal(new);
    if lines.is_empty() {
        report::note("the allowlist admits all of it");
        return Ok(());
    }
    let path = sources.file.display().to_string();
    report::note(format_args!("proposed for `{path}`:\n+ {}", lines.join("\n+ ")));
    let terminal = launcher.host.terminal;
    let asked = terminal.stdin && terminal.stderr && !report::is_quiet();
    if launcher.options.save || asked && report::ask("Write these lines? [y/N]") {
        sources.provide_file(&config)?;
        let written = allow::append(&sources.file, &lines, &launcher.host).context("nothing was written")?;
        report::note(format_args!("`{path}` has {} new lines", written.len()));
    } else {
        report::note("nothing was written; `pi --learn --save` writes the proposal");
    }
    Ok(())
}
