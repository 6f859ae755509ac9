//! `pi demo`: a whole session with a scripted model, in a scratch repository, and what the sandbox made of it.

use std::{collections::BTreeMap, ffi::OsString, fmt::Write as _, fs, path::Path, sync::Mutex};

use anyhow::{Context as _, bail};

use crate::{
    agent,
    config::{AgentDir, Network},
    host::{Host, Terminal},
    launcher::Launcher,
    plan::{Program, Reach},
    report,
    scratch::Scratch,
};

const README: &str = include_str!("../../assets/demo/repository/README.md");
const MODELS: &str = include_str!("../../assets/demo/models.json");

/// What the scripted agent attempts (see `assets/demo/check.sh`), in words, and what ought to come of it.
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

/// Runs the demonstration and prints its table; the exit status is 1 where a wall did not hold.
pub(crate) fn run(launcher: &Launcher) -> anyhow::Result<u8> {
    let scratch = Scratch::new(&launcher.host, "demo-")?;
    let repository = fs::canonicalize(scratch.path())?.join("repository");
    set_up(&scratch.path().join("agent"), &repository, &scratch.path().join("another-repository"))?;
    let mut options = launcher.options.clone();
    // The session stands elsewhere than the user who typed the path.
    options.config = options.config.map(|path| launcher.host.cwd.join(path));
    let demo = Launcher {
        options,
        host: demo_host(&launcher.host, &scratch.path().join("agent"), &repository),
        signals: launcher.signals.share(),
    };
    let mut prepared = demo.prepare()?;
    prepared.config.network = Network::None;
    prepared.config.mounts.clear();
    prepared.config.env.clear();
    prepared.config.agent_dir = AgentDir::Guarded;
    prepared.config.session_name = Some("demo".to_owned());
    prepared.facts.mounts.clear();
    prepared.facts.skills = None;
    prepared.facts.acli = None;
    prepared.reach = Reach::Demo;
    prepared.sources = None;
    let words = [
        "-p",
        "--model",
        "demo/demo",
        "Look at this repository, leave a trace in it, and try the walls around you.",
    ];
    let program = Program::Agent(words.map(str::to_owned).into());
    if demo.options.dry_run.is_some() {
        bail!(report::Usage::error("`pi demo` has no dry run"));
    }
    report::note("a scripted model drives the real agent in a scratch repository; this takes a few seconds");
    let answer = Mutex::new(Vec::new());
    let code = demo.run_capturing(&prepared, &program, &answer)?;
    let answer = answer.into_inner().unwrap_or_default();
    let answer = report::printable(&String::from_utf8_lossy(&answer));
    if code != 0 {
        bail!("the agent ended with status {code}: {}", answer.trim());
    }
    let (table, held) = table(&answer, &repository);
    report::data(table)?;
    Ok(u8::from(!held))
}

/// The machine as it is, seen from the scratch repository, without keys.
fn demo_host(host: &Host, agent_dir: &Path, repository: &Path) -> Host {
    let mut env = host.env.clone();
    env.retain(|name, _| {
        !agent::SECRETS.iter().chain(agent::CREDENTIAL_PATHS).any(|key| name.to_str() == Some(key))
    });
    env.remove(&OsString::from("PI_GH_TOKEN"));
    env.insert("PI_CODING_AGENT_DIR".into(), agent_dir.into());
    let terminal = Terminal { stdin: true, stdout: false, ..host.terminal };
    Host { env, cwd: repository.to_owned(), terminal, ..host.clone() }
}

fn set_up(agent_dir: &Path, repository: &Path, neighbour: &Path) -> anyhow::Result<()> {
    let models = MODELS.replace("{{BASE_URL}}", "http://model:8080/v1");
    let files = [
        (agent_dir.join("models.json"), models.as_str()),
        (repository.join("README.md"), README),
        // As `git init` lays it out; git itself may not be installed.
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

/// What happened, as a table, and whether it is what ought to have happened.
fn table(answer: &str, repository: &Path) -> (String, bool) {
    let verdicts: BTreeMap<&str, (&str, &str)> = answer
        .lines()
        .filter_map(|line| {
            let rest = line.trim().strip_prefix("CHECK ")?;
            let (name, rest) = rest.split_once(' ')?;
            let (verdict, detail) = rest.split_once(' ').unwrap_or((rest, ""));
            Some((name, (verdict, detail)))
        })
        .collect();
    let mut text = String::new();
    let mut held = !verdicts.is_empty();
    let mut row = |ok: bool, what: &str, verdict: &str, detail: &str| {
        held &= ok;
        let mark = if ok { "ok  " } else { "BAD " };
        let detail: String = detail.chars().take(48).collect();
        let _ = writeln!(text, "{mark} {what:<36} {verdict:<8} {detail}");
    };
    let edited = fs::read_to_string(repository.join("README.md")).is_ok_and(|now| now != README);
    row(edited, "read and edit the repository's README", if edited { "allowed" } else { "refused" }, "");
    for (name, what, allowed) in ATTEMPTS {
        let want = if allowed { "allowed" } else { "refused" };
        match verdicts.get(name) {
            Some((verdict, detail)) => row(*verdict == want, what, verdict, detail),
            None => row(false, what, "unknown", "it was not tried"),
        }
    }
    (text, held)
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
        assert!(table(&all(""), dir.path()).1);
        assert!(!table(&all("ssh-keys"), dir.path()).1);
        assert!(!table("", dir.path()).1);
    }
}
