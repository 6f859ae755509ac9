//! `pi diff`: what an agent has made of a copy.

use std::io::Write as _;

use crate::{git::copy::back::diff, launcher::Launcher, report, verb::copy::At};

/// Shows the difference between what was copied and the copy's branch, and remembers which commit was shown.
pub(crate) fn run(launcher: &Launcher, name: Option<&str>) -> anyhow::Result<u8> {
    let at = At::find(launcher, name)?;
    let mut held = at.bring_in(launcher)?;
    let (branch, base) = at.result(held.as_ref())?;
    let tip = at.tip(&branch)?;
    let is_terminal = launcher.host.terminal.stdout;
    let text = diff(&at.git, &at.repository, &base, &tip, !is_terminal)?;
    if is_terminal {
        report::data(colored(&String::from_utf8_lossy(&text)))?;
    } else {
        std::io::stdout().lock().write_all(&text)?;
    }
    if let Some(held) = &mut held
        && let Some(mut copy) = held.copy.clone()
    {
        copy.shown = Some(tip);
        held.save(copy)?;
    }
    Ok(0)
}

/// The branch as people type it.
pub(super) fn short(name: &str) -> &str {
    name.strip_prefix("refs/heads/").unwrap_or(name)
}

/// For a terminal: with colors of our own, and without what an agent could control it by.
fn colored(text: &str) -> String {
    let line = |line: &str| {
        let color = match line.as_bytes() {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] | [b'd', b'i', b'f', b'f', b' ', ..] => "1",
            [b'+', ..] => "32",
            [b'-', ..] => "31",
            [b'@', b'@', ..] => "36",
            _ => return report::printable(line) + "\n",
        };
        format!("\u{1b}[{color}m{}\u{1b}[m\n", report::printable(line))
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_colors_of_ours_and_none_of_an_agents() {
        let shown = colored("diff --git a/x b/x\n@@ -1 +1 @@\n-a\n+\u{1b}]0;title\u{7}\n \u{1b}[2J\n");
        assert_eq!(shown.matches('\u{1b}').count(), 8, "{shown:?}");
        assert!(shown.contains("\u{1b}[31m-a\u{1b}[m\n"), "{shown:?}");
    }
}
