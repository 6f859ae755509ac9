//! `pi demo`: runs a session with a scripted model in a scratch repository, and shows what the sandbox refused.

use anyhow::{Context as _, bail};

use super::{
    attempts::{self, Attempt, CHECKS, Place, README, Row},
    copy::At,
};
use crate::{
    launcher::{Launcher, place::without_keys},
    purpose::{Program, Purpose},
    report,
};

const MODELS: &str = include_str!("../../assets/demo/models.json");

/// The attempts of the scripted agent (see `assets/demo/walls.sh`), and whether they should succeed.
const ATTEMPTS: [Attempt; 16] = [
    ("repository-write", "write in the repository", true),
    ("home-write", "write in its own home", true),
    ("model", "talk to its model", true),
    ("etc-write", "write in /etc", false),
    ("usr-write", "replace a program in /usr/bin", false),
    ("host-home-write", "write in your home directory", false),
    ("ssh-keys", "read your SSH keys", false),
    ("other-repositories", "see a repository next to this one", false),
    ("root", "get a capability of root", false),
    ("mounting", "mount a file system", false),
    ("user-namespace", "make a namespace of its own", false),
    ("devices", "open a device of the machine", false),
    ("host-processes", "see processes of the machine", false),
    ("engine-socket", "find the engine's socket", false),
    ("engine-port", "reach the engine over TCP", false),
    ("internet", "reach the internet", false),
];

/// Runs the demo and prints its table. The exit status is 1 if a wall did not hold.
pub(crate) fn run(launcher: &Launcher) -> anyhow::Result<u8> {
    let launcher = &launcher.on()?;
    let models = MODELS.replace("{{BASE_URL}}", "http://model:8080/v1");
    let place = Place::new(&launcher.host, "demo-", &models)?;
    let host = place.host(without_keys(&launcher.host));
    let demo = place.launcher(launcher, launcher.options.clone(), host);
    if demo.options.dry_run.is_some() {
        bail!(report::Hinted::usage("`pi demo` has no dry run"));
    }
    let words = [
        "-p",
        "--model",
        "demo/demo",
        "Look at this repository, leave a trace in it, and try the walls around you.",
    ];
    let program = Program { purpose: Purpose::Demo, words: words.map(str::to_owned).into() };
    let prepared = demo.prepare(program)?;
    report::note("a scripted model drives the real agent in a scratch repository; this takes a few seconds");
    let outcome = demo.run(&prepared);
    let came = match &prepared.cloning {
        None => Ok([place.answer("README.md")?, place.answer(CHECKS)?]),
        Some(_) => from_the_copy(&demo),
    };
    // Why a session failed says more.
    let code = outcome?;
    if code != 0 {
        bail!("the agent ended with status {code}");
    }
    let [readme, checks] = came?;
    let answer = report::printable(&checks);
    let rows = outcomes(&answer, &readme);
    report::data(attempts::table(&rows))?;
    Ok(attempts::conclude(attempts::bad(&rows), "all attempts came out as expected"))
}

/// The README and the outcomes in the copy that a session on another engine works on, and the end of the copy.
fn from_the_copy(demo: &Launcher) -> anyhow::Result<[String; 2]> {
    let at = At::find(demo, None)?;
    let held = at.bring_in(demo)?;
    let read = |name: &str| {
        let (branch, _) = at.result(held.as_ref())?;
        let show = at.git.within(&at.repository).args(["show", &format!("{branch}:{name}")]);
        show.text().with_context(|| format!("the agent has left no `{name}`"))
    };
    let came = read("README.md").and_then(|readme| Ok([readme, read(CHECKS)?]));
    if let Some(held) = held {
        at.reach(demo).drop_copy(held)?;
    }
    came
}

/// The attempts, after whether the agent edited the README.
fn outcomes<'a>(answer: &'a str, readme: &str) -> Vec<Row<'a>> {
    let edited = !readme.is_empty() && readme.trim_end() != README.trim_end();
    let readme = Row {
        ok: edited,
        what: "read and edit the README",
        verdict: if edited { "allowed" } else { "refused" },
        detail: "",
    };
    std::iter::once(readme).chain(attempts::rows(&ATTEMPTS, answer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_that_did_not_hold_or_was_not_tried_shows() {
        let all = |broken: &str| {
            ATTEMPTS.iter().fold(String::new(), |lines, (name, _, allowed)| {
                let allowed = *allowed != (*name == broken);
                lines + &format!("CHECK {name} {} because\n", if allowed { "allowed" } else { "refused" })
            })
        };
        let bad = |answer: &str| attempts::bad(&outcomes(answer, "changed"));
        assert_eq!(bad(&all("")), 0);
        assert_eq!(bad(&all("ssh-keys")), 1);
        assert_eq!(bad(""), ATTEMPTS.len());
    }

    #[test]
    fn the_table_fits_a_terminal_of_80_columns_and_cuts_no_word() {
        let long = "a reason which has more to say than any line of a terminal has room for";
        let answer = ATTEMPTS.iter().fold(String::new(), |lines, (name, _, allowed)| {
            lines + &format!("CHECK {name} {} {long}\n", if *allowed { "allowed" } else { "refused" })
        });
        let text = attempts::table(&outcomes(&answer, "changed"));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
            let told = line.strip_suffix('…').and_then(|line| line.rsplit_once("  "));
            assert!(told.is_none_or(|(_, detail)| long.starts_with(&format!("{detail} "))), "{line}");
        }
    }
}
