//! The floor: the containers, networks and mounts of a session by as few docker commands as that takes, side by side where
//! they need not wait for each other. In its containers runs nothing of ours: no gate, no proxy, no broker.

use std::fmt::Write as _;

use crate::world::{shell_quiet, with_files};

/// A script that does what the dry run in `script` does, and no more than docker needs for that. Any number of them can run
/// at once. The files that it mounts are made here, once.
pub(crate) fn floor(script: &str) -> String {
    let script = &with_files(script);
    let commands = |words: &str| -> Vec<&str> {
        script
            .lines()
            .filter_map(|line| line.strip_prefix(words))
            .map(|line| line.trim_end_matches(" >/dev/null"))
            .collect()
    };
    let creates = commands("docker create ");
    let connects = commands("docker network connect ");
    let (agent, companions) = creates.split_last().unwrap();
    // From 10.202.0.0/16, so that it is in nobody's way.
    let mut text = "set -e\nexport a=$(($$ / 32 % 256)) b=$(($$ % 32 * 8))\n".to_owned();
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    if let [network] = commands("docker network create ")[..] {
        line(format!("docker network create {network} >/dev/null & network=$!"));
    }
    if let [sidecar] = companions {
        // `cat` ends with its input, as a sidecar does, and takes no word.
        let (sidecar, _) = sidecar.rsplit_once(' ').unwrap();
        line(format!("docker create --entrypoint=cat {sidecar} >/dev/null & sidecar=$!"));
        line("wait $network".to_owned());
    }
    line(format!("docker create --entrypoint=env {agent} >/dev/null & agent=$!"));
    if let Some(connect) = connects.first() {
        line(format!("wait $sidecar; docker network connect {connect}"));
        line("in=/tmp/pi-floor-$$; mkfifo $in".to_owned());
        line(
            "docker start --attach --interactive pi-floor-$$-proxy <$in >/dev/null 2>&1 & sidecar=$!"
                .to_owned(),
        );
        line("exec 9>$in; rm $in".to_owned());
    }
    line("wait $agent".to_owned());
    if let Some(connect) = connects.get(1) {
        line(format!("docker network connect {connect}"));
    }
    line("docker start --attach pi-floor-$$ 9>&-".to_owned());
    if !connects.is_empty() {
        line("exec 9>&-; wait $sidecar; docker network rm pi-floor-$$ >/dev/null".to_owned());
    }
    renamed(&text, script)
}

/// The same with names and addresses that are each run's own.
fn renamed(text: &str, script: &str) -> String {
    let id = script.split_once("--label pi.session=").unwrap().1.split_whitespace().next().unwrap();
    let mut text = text
        .replace(&format!("pi-{id}"), "pi-floor-$$")
        .replace(&format!("pi.session={id}"), "pi.session=floor");
    if let Some((_, rest)) = script.split_once("--subnet ") {
        let subnet = rest.split_once('/').unwrap().0;
        let (above, first) = subnet.rsplit_once('.').unwrap();
        let first: u8 = first.parse().unwrap();
        text = text.replace(&format!("{subnet}/29"), "10.202.$a.$b/29");
        for host in (1..8).rev() {
            text = text.replace(&format!("{above}.{}", first + host), &format!("10.202.$a.$((b + {host}))"));
        }
    }
    text
}

/// Removes what a floor that was killed has left.
pub(crate) fn sweep() {
    shell_quiet(
        "docker ps --all --quiet --filter name=pi-floor- | xargs --no-run-if-empty docker rm --force
        docker network ls --quiet --filter name=pi-floor- | xargs --no-run-if-empty docker network rm",
    );
}
