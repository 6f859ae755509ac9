//! `pi open`: shows the addresses that a session wants to have opened, and opens those that the user agrees to.

use crate::{
    control::{self, Request},
    launcher::Launcher,
    record::{self, Live},
    report::{self, Hinted},
    session::{open, opener},
    url::Url,
    written::Written,
};

/// Asks about the addresses of a session, or of all. Without a terminal it prints them.
pub(crate) fn run(launcher: &Launcher, name: Option<&str>) -> anyhow::Result<u8> {
    let host = &launcher.host;
    let sessions = match name {
        Some(name) => vec![record::find(host, name)?],
        None => record::live(host)?,
    };
    let mut seen = 0;
    for session in &sessions {
        for url in addresses(launcher, session)? {
            seen += 1;
            look(launcher, session, &url)?;
        }
    }
    if seen == 0 {
        report::note("no session has asked for an address; `open_urls = \"ask\"` in the settings lets them");
    }
    Ok(0)
}

fn addresses(launcher: &Launcher, session: &Live) -> anyhow::Result<Vec<Url>> {
    let answer = control::ask(session, &Request::Addresses, &launcher.signals, None)?.tell()?;
    Ok(answer.lines().filter_map(|line| Url::parse(line).ok()).collect())
}

fn look(launcher: &Launcher, session: &Live, url: &Url) -> anyhow::Result<()> {
    let host = &launcher.host;
    if !host.terminal.stdin || !host.terminal.stderr {
        return report::data(format_args!("{}\n", url.as_str()));
    }
    let question = format!("pi: `{}` wants to open {} [y/N]", session.record.name, url.as_str());
    if !report::ask_while(&question, || launcher.signals.check())? {
        return Ok(());
    }
    let opener = opener(&Written::load(host).and_around(host), host).ok_or_else(|| {
        Hinted::error("this machine has no `xdg-open`", "copy the address into your browser")
    })?;
    open(&opener, url);
    Ok(())
}
