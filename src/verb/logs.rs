//! `pi logs`: the proxy's log, without characters that control a terminal.

use std::fs;

use crate::{
    control,
    launcher::Launcher,
    record,
    report::{self, Hinted},
};

/// Shows the log of a running session, or of the last one that had a proxy.
pub(crate) fn run(launcher: &Launcher, name: Option<&str>, follow: bool) -> anyhow::Result<u8> {
    let Some(session) = record::restricted(&launcher.host, name)? else {
        let text = fs::read(launcher.host.last_log()).map_err(|_| {
            Hinted::error(
                "no session with a restricted network is running, and none has left a log",
                "start one with `pi --proxy`",
            )
        })?;
        return show(&text).map(|()| 0);
    };
    let mut rest = Vec::new();
    let mut outcome = Ok(());
    control::log(&session, follow, &launcher.signals, &mut |bytes| {
        rest.extend_from_slice(bytes);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = rest.drain(..whole).collect();
        outcome = show(&lines);
        outcome.is_ok()
    })?;
    outcome.and_then(|()| show(&rest)).map(|()| 0)
}

fn show(text: &[u8]) -> anyhow::Result<()> {
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let line = report::printable(String::from_utf8_lossy(line).trim_end_matches('\n'));
        report::data(line + "\n")?;
    }
    Ok(())
}
