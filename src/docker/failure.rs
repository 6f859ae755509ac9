//! Failures of docker commands, and their messages.

use std::{io, path::Path, time::Duration};

use crate::{
    host::DEFAULT_ADDRESS,
    report::{Hinted, Interrupted, MAKE_ROOM},
};

/// The failure of a docker command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The program did not start.
    NotStarted(io::Error),
    /// It did not end in time and was killed.
    Late(Duration),
    /// A signal ended the wait for it.
    Interrupted(Interrupted),
    /// It ended with an error.
    Refused { code: Option<i32>, stderr: String },
}

impl Failure {
    /// Whether the object of the command does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { stderr, .. } if says_missing(stderr))
    }

    /// Whether the engine is just removing the object of the command.
    pub(super) fn is_going(&self) -> bool {
        let said = self.stderr();
        said.contains("removal of container") && said.contains("already in progress")
    }

    /// Whether a container's image does not exist.
    pub(super) fn lacks_image(&self) -> bool {
        self.stderr().contains("No such image")
    }

    /// Whether another network uses the addresses.
    pub(super) fn is_overlap(&self) -> bool {
        let said = self.stderr().to_ascii_lowercase();
        said.contains("overlaps") || said.contains("conflicts with network")
    }

    /// Whether the engine did not get the command.
    pub(crate) fn is_unheard(&self) -> bool {
        let said = self.stderr();
        matches!(self, Self::NotStarted(_))
            || said.contains("Cannot connect to the Docker daemon")
            || said.contains("permission denied while trying to connect")
            || says_unreached(&said.to_ascii_lowercase())
    }

    /// Docker's message; empty if there is none.
    fn stderr(&self) -> &str {
        match self {
            Self::Refused { stderr, .. } => stderr,
            _ => "",
        }
    }

    /// The failure as a message, with a hint if there is one.
    pub(crate) fn explain(&self, purpose: &str) -> anyhow::Error {
        let said = match self {
            Self::NotStarted(error) => {
                return anyhow::anyhow!("could not {purpose}: could not run docker: {error}");
            }
            Self::Interrupted(signal) => return (*signal).into(),
            Self::Late(limit) => {
                return Hinted::error(
                    format!("could not {purpose}: docker did not answer within {} s", limit.as_secs_f32()),
                    "see the engine's own log; `PI_BOX_DEADLINE=300` waits longer",
                );
            }
            Self::Refused { stderr, code } => {
                let said = stderr
                    .lines()
                    .map(str::trim)
                    .filter(|line| {
                        !line.is_empty()
                            && !line.starts_with("See 'docker")
                            && !line.starts_with("Run 'docker")
                            && !line.starts_with("exit status")
                    })
                    .map(|line| {
                        line.trim_start_matches("Error response from daemon: ").trim_start_matches("docker: ")
                    })
                    .collect::<Vec<_>>()
                    .join("; ");
                match code {
                    _ if !said.is_empty() => said,
                    Some(code) => format!("docker ended with status {code} and said nothing"),
                    None => "docker was killed and said nothing".to_owned(),
                }
            }
        };
        if let Some(port) = taken_port(&said) {
            return port_is_taken(port);
        }
        if let Some(address) = silent_engine(&said) {
            return Hinted::error(
                format!("the engine at `{address}` does not answer"),
                "start it, or choose another one: unset `DOCKER_HOST`, or `docker context use default`",
            );
        }
        match hint(&said) {
            Some(("", hint)) => Hinted::error(format!("could not {purpose}: {said}"), hint),
            Some((message, hint)) => Hinted::error(message, hint),
            None => anyhow::anyhow!("could not {purpose}: {said}"),
        }
    }
}

/// The address of an engine that does not answer, unless it is the usual one.
fn silent_engine(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("Cannot connect to the Docker daemon at ")?;
    let address = rest.split(char::is_whitespace).next()?.trim_end_matches('.');
    (!address.is_empty() && address != DEFAULT_ADDRESS).then_some(address)
}

/// A clearer message (or an empty one) and a hint for a known complaint of docker's.
fn hint(said: &str) -> Option<(&'static str, &'static str)> {
    let said = said.to_ascii_lowercase();
    let has = |text: &str| said.contains(text);
    if has("permission denied") && has("docker daemon socket")
        || has("permission denied while trying to connect")
    {
        return Some((
            "you may not use docker's socket",
            "add yourself to its group with `sudo usermod -aG docker \"$USER\"` and log in again (it gives root's power \
             over this machine), or use a rootless engine",
        ));
    }
    if says_unreached(&said) {
        return Some((
            "",
            "`docker context ls` lists the engines; see `docker --context NAME version`, and ssh or the certificates",
        ));
    }
    if has("cannot connect to the docker daemon")
        || has("is the docker daemon running")
        || has("connection refused")
    {
        return Some((
            "docker is installed but its engine does not answer",
            "start it with `sudo systemctl start docker`, or start Docker Desktop",
        ));
    }
    if has("no space left on device") {
        return Some(("", MAKE_ROOM));
    }
    if has("address pool") || has("fully subnetted") {
        return Some(("", "remove unused networks with `docker network prune`"));
    }
    if has("unknown or invalid runtime") || has("unknown runtime") {
        return Some(("", "`docker info` lists the engine's runtimes"));
    }
    if has("bind source path does not exist") {
        return Some((
            "",
            "the engine does not see this path; is it a virtual machine that shares only some directories?",
        ));
    }
    if has("range of cpus is from") {
        return Some((
            "",
            "the engine's machine has fewer processors; lower `--cpus`, or `cpus` in the config",
        ));
    }
    if has("error setting rlimit") {
        return Some((
            "",
            "the engine can open fewer files than you can; raise `LimitNOFILE` of its service, or lower `ulimit -Hn`",
        ));
    }
    if has("seccomp") && has("invalid") || has("unknown flag") || has("unknown shorthand") {
        return Some(("", "install docker 20.10 or newer"));
    }
    None
}

/// Whether docker says, in small letters, that the line to an engine elsewhere did not come about.
fn says_unreached(said: &str) -> bool {
    let whys = [
        "stderr=ssh:", "dial tcp", "x509", "tls:", "stderr=host key verification",
        "permission denied (publickey",
    ];
    said.contains("error during connect") && whys.iter().any(|why| said.contains(why))
}

/// The port of 127.0.0.1 that docker could not publish because another program has it.
fn taken_port(said: &str) -> Option<u16> {
    let taken = said.contains("port is already allocated") || said.contains("address already in use");
    let mut after = said.split("127.0.0.1:").skip(1).filter(|_| taken);
    after.find_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
}

fn port_is_taken(port: u16) -> anyhow::Error {
    Hinted::error(
        format!("port {port} of this machine is taken, so it cannot be published"),
        "choose another one, as in `--publish OTHER:3000`, or stop the program that uses it",
    )
}

/// What docker said when a container of ours could not start, as a clearer error, if there is one.
pub(crate) fn known_refusal(said: &str) -> Option<anyhow::Error> {
    taken_port(said).map(port_is_taken)
}

/// Whether docker says, in one of several ways, that a container, network, volume or image does not exist.
fn says_missing(stderr: &str) -> bool {
    // `network rm` of a newer CLI adds a line of its own.
    let mut lines =
        stderr.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("exit status")).peekable();
    lines.peek().is_some()
        && lines.all(|line| {
            let line = line.to_ascii_lowercase();
            line.contains("no such") || line.contains("not found")
        })
}

/// `text` without a terminal's colours. Old builders colour stderr.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(0, |at| at + 1);
        plain + &part[end..]
    })
}

/// The error of a failed build of the image `tag` from `source`, read from the build's output. `log` has all of the
/// output.
pub(crate) fn build_failure(tag: &str, source: Option<&String>, output: &str, log: &Path) -> anyhow::Error {
    let output = &without_colours(output);
    let lower = output.to_ascii_lowercase();
    let log = log.display();
    if lower.contains("no space left on device") {
        return Hinted::error(format!("could not build the image `{tag}`: the disk is full"), MAKE_ROOM);
    }
    let unreachable = [
        "pull access denied", "manifest unknown", "failed to resolve", "failed to do request",
        "error from registry", "error pulling image", "no such host", "get \"https://",
    ];
    let lines: Vec<&str> = output.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).collect();
    // Docker's complaint may come before the step that it is about.
    let last = lines.iter().rfind(|line| !line.starts_with("Step ")).copied().unwrap_or_default();
    if unreachable.iter().any(|sign| last.to_ascii_lowercase().contains(sign))
        && let Some(source) = source
    {
        return Hinted::error(
            format!("could not pull the base image `{source}`: {}", last.trim()),
            "check the network, or name a mirror under `[images]` in `~/.config/pi/config.toml`",
        );
    }
    if let Some(said) = lines
        .iter()
        .find(|line| line.contains("Cannot connect to the Docker daemon") || line.contains("daemon socket"))
    {
        return Failure::Refused { code: None, stderr: (*said).to_owned() }
            .explain(&format!("build the image `{tag}`"));
    }
    let tail = lines[lines.len().saturating_sub(8)..].join("\n");
    Hinted::error(
        format!("could not build the image `{tag}`; the last lines were:\n{tail}"),
        format!("the whole log is in `{log}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_there_counts_as_gone() {
        assert!(says_missing("Error response from daemon: network pi-x not found\n"));
        assert!(says_missing("Error: No such container: a\nError: No such container: b\n"));
        assert!(!says_missing("Error: No such container: a\nError: removal in progress\n"));
        assert!(says_missing("Error response from daemon: network pi-x not found\nexit status 1\n"));
        assert!(!says_missing(""));
    }

    #[test]
    fn a_refusal_says_what_was_tried_and_what_docker_said() {
        let failure = Failure::Refused {
            code: Some(1),
            stderr: "Error response from daemon: No command specified\nSee 'docker create --help'.\n".into(),
        };
        assert_eq!(
            failure.explain("create the proxy's container").to_string(),
            "could not create the proxy's container: No command specified"
        );
    }

    #[test]
    fn a_taken_port_is_named() {
        for said in [
            "driver failed programming external connectivity on endpoint pi-x (0f): Bind for 127.0.0.1:3000 failed: port is already allocated",
            "driver failed programming external connectivity on endpoint pi-x (0f): Error starting userland proxy: listen tcp4 127.0.0.1:3000: bind: address already in use",
            "failed to set up container networking: driver failed programming external connectivity on endpoint pi-x (0f): failed to bind host port for 127.0.0.1:3000:172.17.0.2:80/tcp: address already in use",
            "failed to bind host port 127.0.0.1:3000/tcp: address already in use",
        ] {
            assert_eq!(taken_port(said), Some(3000), "{said}");
        }
        assert_eq!(taken_port("dial tcp 127.0.0.1:3000: connection refused"), None);
    }

    #[test]
    fn a_failed_step_shows_its_last_lines_and_the_log() {
        let source = "debian:trixie-slim".to_owned();
        let failed =
            |output: &str| build_failure("pi-proxy:x", Some(&source), output, Path::new("/l")).to_string();
        let error = failed("Step 2/9\nE: Unable to locate package nope\nexit 100\n");
        assert!(error.ends_with("E: Unable to locate package nope\nexit 100"), "{error}");
        for said in [
            "failed to resolve source metadata: no such host\n",
            "Get \"https://x/v2/\": dial tcp: no such host\nStep 1/2 : ARG A\nStep 2/2 : FROM x\n",
        ] {
            let error = failed(said);
            assert!(error.starts_with("could not pull the base image `debian:trixie-slim`"), "{error}");
        }
    }
}
