//! `pi demo`: runs a session with a scripted model in a scratch repository, and shows what the sandbox refused.

use std::{fs, path::Path};

use anyhow::bail;

use super::attempts::{self, Attempt, CHECKS, Place, README, Row};
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
    let code = demo.run(&prepared)?;
    if code != 0 {
        bail!("the agent ended with status {code}");
    }
    let answer = report::printable(&place.answer(CHECKS)?);
    let rows = outcomes(&answer, &place.repository);
    report::data(attempts::table(&rows))?;
    Ok(attempts::conclude(attempts::bad(&rows), "all attempts came out as expected"))
}

/// The attempts, after whether the agent edited the README.
fn outcomes<'a>(answer: &'a str, repository: &Path) -> Vec<Row<'a>> {
    let edited = fs::read_to_string(repository.join("README.md")).is_ok_and(|now| now != README);
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
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("README.md"), "changed").unwrap();
        let all = |broken: &str| {
            ATTEMPTS.iter().fold(String::new(), |lines, (name, _, allowed)| {
                let allowed = *allowed != (*name == broken);
                lines + &format!("CHECK {name} {} because\n", if allowed { "allowed" } else { "refused" })
            })
        };
        let bad = |answer: &str| attempts::bad(&outcomes(answer, dir.path()));
        assert_eq!(bad(&all("")), 0);
        assert_eq!(bad(&all("ssh-keys")), 1);
        assert_eq!(bad(""), ATTEMPTS.len());
    }

    #[test]
    fn the_table_fits_a_terminal_of_80_columns_and_cuts_no_word() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("README.md"), "changed").unwrap();
        let long = "a reason which has more to say than any line of a terminal has room for";
        let answer = ATTEMPTS.iter().fold(String::new(), |lines, (name, _, allowed)| {
            lines + &format!("CHECK {name} {} {long}\n", if *allowed { "allowed" } else { "refused" })
        });
        let text = attempts::table(&outcomes(&answer, dir.path()));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
            let told = line.strip_suffix('…').and_then(|line| line.rsplit_once("  "));
            assert!(told.is_none_or(|(_, detail)| long.starts_with(&format!("{detail} "))), "{line}");
        }
    }
}
