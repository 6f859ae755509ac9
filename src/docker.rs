//! The only module that knows docker's flags and messages: commands as values, how they run, and their outcomes.
//!
//! Every flag here exists in CLI 20.10.

mod about;
mod failure;
mod outcome;
mod program;
mod registry;
mod render;
mod run;
mod script;
mod share;
mod stream;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::{self, Display},
    path::Path,
    time::Duration,
};

use serde::{Serialize, Serializer};

use crate::{inside, plan::Streams, record::SessionId, report::quote, secret::Secret};

pub(crate) use self::{
    about::{About, Free},
    failure::{build_failure, known_refusal},
    outcome::{Created, Ended, From, Shown},
    program::Docker,
    registry::{Described, Refusal, complaint, is_found, push, tag},
    script::script,
    stream::Up,
};

/// A docker command that has not been run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a command does nothing until a `Docker` runs it"]
pub(crate) struct Cmd {
    /// Its purpose, for messages: "could not …".
    pub(crate) purpose: String,
    args: Vec<OsString>,
    secrets: BTreeMap<OsString, Secret>,
}

impl Cmd {
    fn new(purpose: impl Into<String>, args: &[&str]) -> Self {
        Self {
            purpose: purpose.into(),
            args: args.iter().map(OsString::from).collect(),
            secrets: BTreeMap::new(),
        }
    }

    fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    fn pair(self, flag: &str, value: impl Into<OsString>) -> Self {
        self.arg(flag).arg(value)
    }

    /// How long to wait for its end after a signal; `None` for what tidies up, which is waited for in any case.
    fn grace(&self) -> Option<Duration> {
        let has = |words: &[&str]| self.args.iter().take(2).any(|arg| words.iter().any(|word| arg == word));
        match () {
            () if has(&["rm", "stop"]) => None,
            // The engine may be about to do it, and then there is something to take down.
            () if has(&["create", "start", "connect"]) => Some(Duration::from_secs(3)),
            () => Some(Duration::ZERO),
        }
    }

    /// Whether it creates something.
    fn makes_something(&self) -> bool {
        self.args.iter().take(2).any(|arg| arg == "create")
    }

    /// The arguments, without the program.
    #[cfg(test)]
    pub(crate) fn args(&self) -> &[OsString] {
        &self.args
    }
}

/// The command as a line for a shell, without secrets.
impl Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("docker")?;
        for arg in &self.args {
            write!(f, " {}", quote(&arg.to_string_lossy()))?;
        }
        Ok(())
    }
}

impl Serialize for Cmd {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let words: Vec<_> = std::iter::once("docker".into())
            .chain(self.args.iter().map(|arg| arg.to_string_lossy()))
            .collect();
        words.serialize(to)
    }
}

/// The commands that take a session down. They need only its id, and can run again.
pub(crate) fn down(id: &SessionId) -> [Cmd; 2] {
    [remove_containers(&id.containers()), remove_network(&id.network())]
}

/// Removes containers, even running ones. Missing ones are no failure.
pub(crate) fn remove_containers(names: &[String]) -> Cmd {
    let mut cmd = Cmd::new("remove the session's containers", &["rm", "--force", "--volumes"]);
    cmd.args.extend(names.iter().map(OsString::from));
    cmd
}

/// The ids of all containers of a session, even of nameless ones.
pub(crate) fn containers_of(session: &str) -> Cmd {
    Cmd::new("list the session's containers", &["ps", "--all", "--quiet", "--no-trunc"])
        .pair("--filter", format!("label=pi.session={session}"))
}

/// Everything about a volume, as JSON.
fn inspect_volume(name: &str) -> Cmd {
    Cmd::new(format!("look at the volume `{name}`"), &["volume", "inspect", "--format", "{{json .}}", name])
}

/// The volumes in which older releases kept the home of a session. The engine lists one for each name.
pub(crate) fn homes_of(session: &str) -> Cmd {
    list("volume", &format!("pi.session={session}"), "pi.role").pair("--filter", "label=pi.role=home")
}

fn remove_network(name: &str) -> Cmd {
    Cmd::new("remove the session's network", &["network", "rm", name])
}

pub(crate) fn remove_volume(name: &str) -> Cmd {
    Cmd::new(format!("remove the volume `{name}`"), &["volume", "rm", "--force", name])
}

/// Asks a container to end and gives it five seconds: the agent may be writing down a login.
pub(crate) fn stop(name: &str) -> Cmd {
    Cmd::new("stop the agent", &["stop", "-t", "5", name])
}

/// The events of a container since `since`, oldest first, with a line of `NAME ACTION STATUS` each. The engine also
/// returns events of containers whose names begin like this one.
fn events(name: &str, since: &str, until: &str) -> Cmd {
    Cmd::new("ask the engine how the agent ended", &["events"])
        .pair("--since", since)
        .pair("--until", until)
        .pair("--filter", format!("container={name}"))
        .pair("--format", "{{.Actor.Attributes.name}} {{.Action}} {{.Actor.Attributes.exitCode}}")
}

/// Runs a command in a running container. All that it starts has the mark.
pub(crate) fn exec(name: &str, streams: Streams, workdir: &Path, mark: &str, command: &[String]) -> Cmd {
    let mut cmd = Cmd::new("enter the session", &["exec", "--env"]).arg(format!("PI_BOX_WITHIN={mark}"));
    cmd = match streams {
        Streams::Tty => cmd.arg("--interactive").arg("--tty"),
        Streams::Pipe => cmd.arg("--interactive"),
        Streams::Output | Streams::Silent => cmd,
    };
    cmd = cmd.arg("--detach-keys=ctrl-^,ctrl-@").pair("--workdir", workdir).arg(name);
    cmd.args.extend(command.iter().map(OsString::from));
    cmd
}

/// Ends what a command with this mark has started in a running container.
pub(crate) fn end_marked(name: &str, mark: &str) -> Cmd {
    Cmd::new("end what was started in the session", &["exec", name, inside::ENTRY, "--end", mark])
}

/// Runs a script with these words in a running container.
pub(crate) fn run_inside(name: &str, purpose: &str, script: &str, words: &[&str]) -> Cmd {
    let cmd = Cmd::new(purpose, &["exec", "--interactive", name, "sh", "-c", script, "sh"]);
    words.iter().fold(cmd, |cmd, word| cmd.arg(*word))
}

/// The containers that have a volume, with a line of `ID<tab>SESSION` each.
pub(crate) fn users_of(volume: &str) -> Cmd {
    Cmd::new(format!("see who uses the volume `{volume}`"), &["ps", "--all", "--no-trunc"])
        .pair("--filter", format!("volume={volume}"))
        .pair("--format", "{{.ID}}\t{{.Label \"pi.session\"}}")
}

/// The objects of a kind that have a label, with a line of `NAME<tab>VALUE` each. `kind` is `container`, `network` or
/// `volume`.
pub(crate) fn list(kind: &str, label: &str, value_of: &str) -> Cmd {
    let mut cmd = Cmd::new(format!("list the {kind}s of sessions"), &[kind, "ls"]);
    if kind == "container" {
        cmd = cmd.arg("--all");
    }
    let name = if kind == "container" { "{{.Names}}" } else { "{{.Name}}" };
    cmd.pair("--filter", format!("label={label}"))
        .pair("--format", format!("{name}\t{{{{.Label \"{value_of}\"}}}}"))
}

/// The size of every volume, with a line of `NAME SIZE` each, as people read it. The engine looks at all that it has.
pub(crate) fn volume_sizes() -> Cmd {
    Cmd::new(
        "learn the sizes of volumes",
        &["system", "df", "--verbose", "--format", "{{range .Volumes}}{{println .Name .Size}}{{end}}"],
    )
}

/// The tags of our images, of all users or of one.
pub(crate) fn list_images(reference: &str, user: Option<u32>) -> Cmd {
    let cmd = Cmd::new("list images", &["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"])
        .pair("--filter", format!("reference={reference}"));
    match user {
        Some(user) => cmd.pair("--filter", format!("label=pi.user={user}")),
        None => cmd,
    }
}

/// The images of a name, with a line of `ID<tab>AGE` each; the age is in words, such as `3 weeks ago`.
fn image_ages(reference: &str) -> Cmd {
    let columns = "{{.ID}}\t{{.CreatedSince}}";
    Cmd::new("look at the age of the images", &["image", "ls", "--no-trunc", "--format", columns])
        .pair("--filter", format!("reference={reference}"))
}

pub(crate) fn remove_image(tag: &str) -> Cmd {
    Cmd::new(format!("remove the image `{tag}`"), &["image", "rm", tag])
}

/// The value of one label of an image.
pub(crate) fn image_label(tag: &str, label: &str) -> Cmd {
    Cmd::new(format!("look at the image `{tag}`"), &["image", "inspect", "--format"])
        .arg(format!("{{{{index .Config.Labels \"{label}\"}}}}"))
        .arg(tag)
}

/// The engine's own time.
fn clock() -> Cmd {
    Cmd::new("ask the engine for its time", &["info", "--format", "{{.SystemTime}}"])
}

fn is_running(name: &str) -> Cmd {
    Cmd::new(
        "look at the session's container",
        &["container", "inspect", "--format", "{{.State.Running}}", name],
    )
}

fn image_exists(tag: &str) -> Cmd {
    Cmd::new(format!("look for the image `{tag}`"), &["image", "inspect", "--format", "{{.Id}}", tag])
}

/// Pulls an image from its registry.
pub(crate) fn pull(image: &str) -> Cmd {
    Cmd::new(format!("pull the image `{image}`"), &["pull", image])
}

/// Builds an image from a directory, and writes its id into a file; `anew` repeats steps that an earlier build has done.
pub(crate) fn build(
    tag: &str,
    id: &Path,
    context: &Path,
    args: &BTreeMap<&str, String>,
    labels: &[(&str, &str)],
    anew: bool,
) -> Cmd {
    let mut cmd = Cmd::new(format!("build the image `{tag}`"), &["build", "--force-rm"])
        .pair("--tag", tag)
        .pair("--iidfile", id);
    if anew {
        cmd = cmd.arg("--no-cache");
    }
    for (key, value) in args {
        cmd = cmd.pair("--build-arg", format!("{key}={value}"));
    }
    for (key, value) in labels {
        cmd = cmd.pair("--label", format!("{key}={value}"));
    }
    cmd.arg(context)
}

#[cfg(test)]
mod tests;
