//! The outcomes of docker commands, so that no other module reads docker's messages.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Deserialize;
use shared_child::SharedChild;

use super::{
    Cmd, Docker, clock, events, failure::Failure, image_ages, image_exists, inspect_volume, is_running,
    remove_containers, render, share, stop,
};
use crate::{
    plan::{Container, Network, Streams},
    report,
    signals::Answers,
};

/// How often something is looked at that the engine is removing.
const GOING: Duration = Duration::from_millis(200);

/// The outcome of creating a container or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    Yes,
    /// The engine does not have the image.
    NoImage,
    /// Another network uses the addresses.
    AddressTaken,
}

/// How an attached container ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It exited with this status.
    Exited(u8),
    /// This signal ended the docker client.
    ClientKilled(i32),
    /// The docker client ended first, and the engine is well: nobody reads the output any more.
    ClientGone,
    /// The engine was lost or did not answer. The error says why, if that is known.
    LostEngine(Option<anyhow::Error>),
    /// It never started.
    NeverStarted(anyhow::Error),
}

/// Where a look at a container begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// It is started.
    Start,
    /// It runs.
    Now,
}

/// The end of an attached docker client.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The client's status, which is the container's or docker's own.
    status: ExitStatus,
    /// Docker's complaint, if its stderr began with one.
    complaint: String,
}

impl Shown {
    pub(super) fn new(status: ExitStatus, complaint: String) -> Self {
        Self { status, complaint }
    }

    /// The client's status.
    pub(crate) fn status(&self) -> ExitStatus {
        self.status
    }

    /// Prints docker's complaint.
    pub(crate) fn tell(&self) {
        report::progress(self.complaint.as_bytes());
    }
}

impl Docker {
    /// Creates a container from an image that is named by its id. A missing image is no error.
    pub(crate) fn create(&self, container: &Container) -> anyhow::Result<Created> {
        // Anybody can move a tag, so the plan uses one only for an image that is not built yet.
        if !container.image.starts_with("sha256:") {
            return Ok(Created::NoImage);
        }
        self.make(&render::create(container))
    }

    /// Creates a session's own network. Taken addresses are no error.
    pub(crate) fn create_network(&self, network: &Network) -> anyhow::Result<Created> {
        self.make(&render::create_network(network))
    }

    fn make(&self, create: &Cmd) -> anyhow::Result<Created> {
        match self.try_run(create) {
            Ok(_) => Ok(Created::Yes),
            Err(failure) if failure.lacks_image() => Ok(Created::NoImage),
            Err(failure) if failure.is_overlap() => Ok(Created::AddressTaken),
            Err(failure) => Err(failure.explain(&create.purpose)),
        }
    }

    /// Connects a container to a second network.
    pub(crate) fn connect(
        &self,
        network: &Network,
        container: &Container,
        address: std::net::Ipv4Addr,
    ) -> anyhow::Result<()> {
        self.run(&render::connect(network, container, address)).map(drop)
    }

    /// Starts a container and returns.
    pub(crate) fn start(&self, container: &Container) -> anyhow::Result<()> {
        self.run(&render::start(container)).map(drop)
    }

    /// Starts a container, with its streams as pipes for the caller.
    pub(crate) fn start_held(&self, container: &Container) -> anyhow::Result<SharedChild> {
        self.hold(&render::attach(container))
    }

    /// Runs a container on the launcher's own streams to its end, from its start or from where it is now.
    pub(crate) fn show(
        &self,
        container: &Container,
        from: From,
        running: impl FnOnce(Arc<SharedChild>),
    ) -> anyhow::Result<Shown> {
        let cmd = match from {
            From::Start => render::attach(container),
            From::Now => render::attach_again(container),
        };
        self.attach(&cmd, container.streams == Streams::Silent, |client| {
            // Without a limit of its own, the session may have all.
            if let Some(processors) = container.limits.cpus {
                share::keep(client.clone(), processors);
            }
            running(client);
        })
    }

    /// Whether this is a volume of the engine's own, without options that lead elsewhere, and has these labels.
    pub(crate) fn is_plain_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> anyhow::Result<bool> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Volume {
            driver: String,
            labels: Option<BTreeMap<String, String>>,
            options: Option<BTreeMap<String, String>>,
        }
        let said = self.run(&inspect_volume(name))?;
        let volume: Volume = serde_json::from_str(&said)
            .with_context(|| format!("could not understand what docker says about the volume `{name}`"))?;
        let found = volume.labels.unwrap_or_default();
        Ok(volume.driver == "local"
            && volume.options.is_none_or(|options| options.is_empty())
            && labels.iter().all(|(key, value)| found.get(key) == Some(value)))
    }

    /// Whether there is a volume of this name.
    pub(crate) fn has_volume(&self, name: &str) -> anyhow::Result<bool> {
        let look = inspect_volume(name);
        match self.try_run(&look) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_missing() => Ok(false),
            Err(failure) => Err(failure.explain(&look.purpose)),
        }
    }

    /// Runs a command that removes something. If that no longer exists, all is well. What the engine removes already is
    /// waited for.
    pub(crate) fn gone_within(&self, cmd: &Cmd, deadline: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match self.try_run_within(cmd, deadline) {
                Err(failure) if failure.is_going() && begun.elapsed() < deadline => thread::sleep(GOING),
                Err(failure) if !failure.is_missing() => return Err(failure.explain(&cmd.purpose)),
                _ => return Ok(()),
            }
        }
    }

    /// Stops a container, and then removes it. The stop gives an agent time to save a login. If a call fails, the
    /// teardown repeats it.
    pub(crate) fn halt(&self, name: &str) -> Answers {
        if matches!(self.try_run_within(&stop(name), Duration::from_secs(10)), Err(Failure::Late(_))) {
            return Answers::No;
        }
        // `stop` ignores a container that has not started yet.
        self.halt_now(name);
        Answers::Yes
    }

    /// Removes a container at once. If that fails, the teardown repeats it.
    pub(crate) fn halt_now(&self, name: &str) {
        let _ = self.try_run_within(&remove_containers(&[name.to_owned()]), Duration::from_secs(30));
    }

    /// Waits until a container runs. It gives up if the container is gone or `go_on` fails.
    pub(crate) fn wait_until_runs(
        &self,
        name: &str,
        go_on: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while self.run(&is_running(name))? != "true" {
            go_on()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether a container runs; one that does not exist does not.
    ///
    /// # Errors
    /// The engine does not say.
    pub(crate) fn runs(&self, name: &str) -> anyhow::Result<bool> {
        let look = is_running(name);
        match self.try_run(&look) {
            Ok(said) => Ok(said == "true"),
            Err(failure) if failure.is_missing() => Ok(false),
            Err(failure) => Err(failure.explain(&look.purpose)),
        }
    }

    /// The id of the image with this tag, if there is one.
    pub(crate) fn image_id(&self, tag: &str) -> anyhow::Result<Option<String>> {
        match self.try_run(&image_exists(tag)) {
            Ok(id) => Ok(Some(id)),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure.explain(&format!("look for the image `{tag}`"))),
        }
    }

    /// The age of each image of these names, in the engine's words such as `3 weeks ago`, by the image's id.
    pub(crate) fn image_ages(&self, references: &[&str]) -> anyhow::Result<BTreeMap<String, String>> {
        let mut ages = BTreeMap::new();
        for reference in references {
            let said = self.run(&image_ages(reference))?;
            let lines = said.lines().filter_map(|line| line.split_once('\t'));
            ages.extend(lines.map(|(id, age)| (id.to_owned(), age.to_owned())));
        }
        Ok(ages)
    }

    /// How an attached container ended. `since` is the start of its session, in seconds since 1970.
    ///
    /// The client's status may be the container's or docker's own. The engine's events tell which.
    pub(crate) fn how_ended(&self, container: &Container, shown: &Shown, since: u64) -> Ended {
        let Shown { status, complaint } = shown;
        let code = status.code();
        if code == Some(0) {
            shown.tell();
            return Ended::Exited(0);
        }
        let said = match self.events_of(&container.name, since) {
            Ok(said) => said,
            Err(failure) => return Ended::LostEngine(Some(failure.explain("learn how the agent ended"))),
        };
        let died = said.iter().rev().find_map(|line| line.strip_prefix("die ")?.trim().parse::<u8>().ok());
        let started = said.iter().any(|line| line.starts_with("start"));
        let refused = || Failure::Refused { code, stderr: complaint.clone() };
        if died.is_some() {
            shown.tell();
        } else if !complaint.is_empty() {
            return if started {
                Ended::LostEngine(Some(refused().explain("show the agent any longer")))
            } else {
                Ended::NeverStarted(refused().explain("start the agent's container"))
            };
        }
        let still_runs = || self.run(&is_running(&container.name)).is_ok_and(|is| is == "true");
        if died.is_none() && code.is_some() && report::nobody_reads() && still_runs() {
            return Ended::ClientGone;
        }
        match (died, code) {
            (Some(own), Some(_)) => Ended::Exited(own),
            (_, None) => Ended::ClientKilled(status.signal().unwrap_or_default()),
            (None, Some(_)) if started => Ended::LostEngine(None),
            (None, Some(code)) => Ended::NeverStarted(anyhow::anyhow!(
                "docker could not start the agent's container (its own status was {code})"
            )),
        }
    }

    /// The events of a container since its session began, oldest first, each as `ACTION STATUS`. The times are the
    /// engine's: the clock of a virtual machine may differ from ours.
    fn events_of(&self, name: &str, started: u64) -> Result<Vec<String>, Failure> {
        let now = self.try_run(&clock())?;
        // Somebody may have set the clock, or the engine's clock may be behind.
        let since = started.saturating_sub(3600).to_string();
        let events = self.try_run(&events(name, &since, &now))?;
        let own = events.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(own.map(str::to_owned).collect())
    }
}
