//! `pi doctor --prove`: throw-away sessions, one for each kind of network, and what their walls refused.

use std::{collections::BTreeSet, ffi::OsStr, fs, path::Path};

use anyhow::bail;
use sha2::{Digest as _, Sha256};

use super::super::attempts::{self, Attempt, CHECKS, GIT_CONFIG, Place, Row};
use crate::{
    agent,
    cli::Options,
    host::{Host, hex},
    launcher::Launcher,
    purpose::{Program, Purpose},
    report::{self, Hinted},
};

/// The script that a session runs.
const SCRIPT: &str =
    concat!(include_str!("../../../assets/demo/walls.sh"), include_str!("../../../assets/demo/prove.sh"));

/// What every session must refuse.
const ALWAYS: [Attempt; 15] = [
    ("privileges", "have a privilege or an unfiltered call", false),
    ("system-calls", "use a system call that leads out", false),
    ("etc-write", "write in /etc", false),
    ("usr-write", "replace a program in /usr/bin", false),
    ("root", "get a capability of root", false),
    ("mounting", "mount a file system", false),
    ("user-namespace", "make a namespace of its own", false),
    ("devices", "open a device of the machine", false),
    ("host-processes", "see processes of the machine", false),
    ("other-repositories", "see a repository next to this one", false),
    ("host-home-write", "write in your home directory", false),
    ("ssh-keys", "read your SSH keys", false),
    ("engine-socket", "find the engine's socket", false),
    ("engine-port", "reach the engine over TCP", false),
    ("keys", "find one of your keys", false),
];

/// What a session without an open network must refuse.
const CLOSED: [Attempt; 7] = [
    ("metadata", "reach a cloud's metadata", false),
    ("gateway", "reach this machine", false),
    ("internet", "reach the internet", false),
    ("odd-port", "reach other ports of it", false),
    ("udp", "send a datagram", false),
    ("ipv6", "reach the internet by IPv6", false),
    ("dns", "carry data out by DNS", false),
];

/// What a session behind the proxy must refuse.
const PROXY: [Attempt; 1] = [("proxy", "go past the allowlist by spelling", false)];

/// Runs the sessions and prints a table for each. The exit status is 1 if a wall did not hold.
pub(super) fn run(launcher: &Launcher) -> anyhow::Result<u8> {
    let mut bad = 0;
    for network in ["open", "proxy", "none"] {
        report::note(format_args!("a session with the network `{network}` is attacked from inside"));
        bad += prove(launcher, network)?;
    }
    Ok(attempts::conclude(bad, "every wall held"))
}

/// Attacks one session. Returns the number of walls that did not hold.
fn prove(launcher: &Launcher, network: &'static str) -> anyhow::Result<usize> {
    let place = Place::new(&launcher.host, "proof-", "{}")?;
    let list = place.repository.with_file_name("allowlist");
    fs::write(&list, "example.com\n")?;
    let mut words = ["bash", "-c", SCRIPT, "prove", network].map(str::to_owned).to_vec();
    words.push(launcher.host.home.to_string_lossy().into_owned());
    words.extend(digests(&launcher.host));
    let options = Options {
        proxy: network == "proxy",
        no_proxy: network == "open",
        no_network: network == "none",
        allowed_domains: (network == "proxy").then_some(list),
        ..launcher.options.clone()
    };
    let proof = place.launcher(launcher, options, place.host(launcher.host.clone()));
    let code = report::quietly(|| proof.run(&proof.prepare(Program { purpose: Purpose::Proof, words })?))?;
    if code != 0 {
        bail!(Hinted::error(
            format!(
                "the session with the network `{network}` ended with status {code} before it was attacked"
            ),
            "`pi shell -- true` shows what is wrong with sessions here",
        ));
    }
    let answer = report::printable(&place.answer(CHECKS)?);
    let mut rows = attempts::rows(&ALWAYS, &answer);
    rows.push(git_doors(&place.repository));
    if network != "open" {
        rows.extend(attempts::rows(&CLOSED, &answer));
    }
    if network == "proxy" {
        rows.extend(attempts::rows(&PROXY, &answer));
    }
    report::data(format_args!("{network}\n{}", attempts::table(&rows)))?;
    Ok(attempts::bad(&rows))
}

/// SHA-256 of the user's keys, so that the script can recognize them and does not know them.
fn digests(host: &Host) -> BTreeSet<String> {
    let names = agent::SECRETS.iter().copied().chain(["PI_GH_TOKEN"]);
    let values = names.filter_map(|name| host.env.get(OsStr::new(name)));
    values
        .map(|value| value.as_encoded_bytes())
        .filter(|value| value.len() >= 8)
        .map(|value| hex(&Sha256::digest(value)))
        .collect()
}

/// Whether anything that was planted in the git directory is on the host, where git would run it.
fn git_doors(repository: &Path) -> Row<'static> {
    let git = repository.join(".git");
    let config = fs::read_to_string(git.join("config")).unwrap_or_default();
    let planted = ["hooks/pre-commit", "hooks/post-checkout", "info/attributes"];
    let ok = config == GIT_CONFIG && planted.iter().all(|door| fs::symlink_metadata(git.join(door)).is_err());
    Row {
        ok,
        what: "leave something that git runs here",
        verdict: if ok { "refused" } else { "allowed" },
        detail: if ok { "nothing on this side" } else { "look into `.git` of your repositories" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_is_a_function_of_the_script_that_is_called() {
        for (name, ..) in ALWAYS.iter().chain(&CLOSED).chain(&PROXY) {
            assert!(SCRIPT.contains(&format!("\n{name}() {{")), "{name} is not in the script");
            assert!(SCRIPT.matches(name).count() >= 2, "{name} is not called");
        }
    }

    #[test]
    fn a_planted_hook_shows() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("repository");
        attempts::set_up(&dir.path().join("agent"), "{}", &repository).unwrap();
        assert!(git_doors(&repository).ok);
        fs::create_dir(repository.join(".git/hooks")).unwrap();
        fs::write(repository.join(".git/hooks/pre-commit"), "x").unwrap();
        assert!(!git_doors(&repository).ok);
    }

    #[test]
    fn keys_are_given_as_digests_only() {
        let mut host = Host::for_tests();
        host.env.insert("ANTHROPIC_API_KEY".into(), "sk-something".into());
        let found = digests(&host);
        assert_eq!(found.len(), 1);
        assert!(found.iter().all(|digest| digest.len() == 64 && !digest.contains("something")));
    }
}
