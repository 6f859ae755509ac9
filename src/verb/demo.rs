//! `pi demo`: runs a session with a scripted model in a scratch repository, and shows what the sandbox refused.

use std::{collections::BTreeMap, ffi::OsString, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, bail};

use crate::{
    agent,
    files::read_small,
    host::Host,
    launcher::Launcher,
    purpose::{Program, Purpose},
    report,
    scratch::Scratch,
};

const README: &str = include_str!("../../assets/demo/repository/README.md");
const MODELS: &str = include_str!("../../assets/demo/models.json");

/// The scripted agent writes the outcomes of its attempts into this file of its repository.
const CHECKS: &str = "checks.txt";

/// The attempts of the scripted agent (see `assets/demo/check.sh`), and whether they should succeed.
const ATTEMPTS: [(&str, &str, bool); 16] = [
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
    let scratch = Scratch::new(&launcher.host, "demo-")?;
    let repository = fs::canonicalize(scratch.path())?.join("repository");
    set_up(&scratch.path().join("agent"), &repository, &scratch.path().join("another-repository"))?;
    let mut options = launcher.options.clone();
    // The session runs in another directory than the user, so the path must be absolute.
    options.config = options.config.map(|path| launcher.host.cwd.join(path));
    let demo = Launcher {
        options,
        host: demo_host(&launcher.host, &scratch.path().join("agent"), &repository),
        signals: launcher.signals.share(),
    };
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
    let answer = read_small(&repository.join(CHECKS))?.unwrap_or_default();
    let answer = report::printable(&answer);
    let (table, bad) = table(&answer, &repository);
    report::data(table)?;
    match bad {
        0 => report::note("all attempts came out as expected"),
        _ => report::complain(format_args!("{bad} attempts did not come out as expected")),
    }
    Ok(u8::from(bad > 0))
}

/// The same machine without keys, in the scratch repository.
fn demo_host(host: &Host, agent_dir: &Path, repository: &Path) -> Host {
    let mut env = host.env.clone();
    env.retain(|name, _| {
        !agent::SECRETS.iter().chain(agent::CREDENTIAL_PATHS).any(|key| name.to_str() == Some(key))
    });
    env.remove(&OsString::from("PI_GH_TOKEN"));
    env.insert("PI_CODING_AGENT_DIR".into(), agent_dir.into());
    Host { env, cwd: repository.to_owned(), ..host.clone() }
}

fn set_up(agent_dir: &Path, repository: &Path, neighbour: &Path) -> anyhow::Result<()> {
    let models = MODELS.replace("{{BASE_URL}}", "http://model:8080/v1");
    let files = [
        (agent_dir.join("models.json"), models.as_str()),
        (repository.join("README.md"), README),
        // The layout of `git init`: git may not be installed.
        (repository.join(".git/HEAD"), "ref: refs/heads/main\n"),
        (
            repository.join(".git/config"),
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n",
        ),
        (repository.join(".git/objects/info/.keep"), ""),
        (repository.join(".git/refs/heads/.keep"), ""),
        (neighbour.join("secret.txt"), "not for the agent\n"),
    ];
    for (path, text) in files {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("could not create `{}`", parent.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("could not write `{}`", path.display()))?;
    }
    for keep in [".git/objects/info/.keep", ".git/refs/heads/.keep"] {
        fs::remove_file(repository.join(keep)).context("could not tidy the scratch repository")?;
    }
    Ok(())
}

/// The outcomes as a table, and the number of unexpected ones.
fn table(answer: &str, repository: &Path) -> (String, usize) {
    let verdicts: BTreeMap<&str, (&str, &str)> = answer
        .lines()
        .filter_map(|line| {
            let rest = line.trim().strip_prefix("CHECK ")?;
            let (name, rest) = rest.split_once(' ')?;
            let (verdict, detail) = rest.split_once(' ').unwrap_or((rest, ""));
            Some((name, (verdict, detail)))
        })
        .collect();
    let edited = fs::read_to_string(repository.join("README.md")).is_ok_and(|now| now != README);
    let mut rows = vec![Row {
        ok: edited,
        what: "read and edit the README",
        verdict: if edited { "allowed" } else { "refused" },
        detail: "",
    }];
    rows.extend(ATTEMPTS.iter().map(|&(name, what, allowed)| match verdicts.get(name) {
        Some(&(verdict, detail)) => {
            Row { ok: verdict == if allowed { "allowed" } else { "refused" }, what, verdict, detail }
        }
        None => Row { ok: false, what, verdict: "unknown", detail: "it was not tried" },
    }));
    let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for Row { ok, what, verdict, detail } in &rows {
        let (mark, detail) = if *ok { ("ok ", shortened(detail)) } else { ("BAD", (*detail).to_owned()) };
        let line = format!("{mark}  {what:<width$}  {verdict:<7}  {detail}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    (text, rows.iter().filter(|row| !row.ok).count())
}

struct Row<'a> {
    ok: bool,
    what: &'static str,
    verdict: &'a str,
    detail: &'a str,
}

/// The width of a detail in a table of 80 columns.
const DETAIL: usize = 32;

/// Cuts a detail after a whole word.
fn shortened(detail: &str) -> String {
    if detail.chars().count() <= DETAIL {
        return detail.to_owned();
    }
    let cut: String = detail.chars().take(DETAIL - 1).collect();
    let whole = cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words);
    format!("{}…", whole.trim_end())
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
        assert_eq!(table(&all(""), dir.path()).1, 0);
        assert_eq!(table(&all("ssh-keys"), dir.path()).1, 1);
        assert_eq!(table("", dir.path()).1, ATTEMPTS.len());
    }

    #[test]
    fn the_table_fits_a_terminal_of_80_columns_and_cuts_no_word() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("README.md"), "changed").unwrap();
        let long = "a reason which has more to say than any line of a terminal has room for";
        let answer = ATTEMPTS.iter().fold(String::new(), |lines, (name, _, allowed)| {
            lines + &format!("CHECK {name} {} {long}\n", if *allowed { "allowed" } else { "refused" })
        });
        let (text, _) = table(&answer, dir.path());
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
            let told = line.strip_suffix('…').and_then(|line| line.rsplit_once("  "));
            assert!(told.is_none_or(|(_, detail)| long.starts_with(&format!("{detail} "))), "{line}");
        }
    }
}
