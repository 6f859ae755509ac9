//! What came of a docker command, so that nobody else has to read docker's words.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Child, ExitStatus},
    sync::Arc,
    thread,
    time::Duration,
};

use shared_child::SharedChild;

use super::{
    Cmd, Docker, clock, events, failure::Failure, image_exists, is_running, remove_containers, render, stop,
};
use crate::{
    plan::{Container, Network, Streams},
    report,
};

/// What came of making a container or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    Yes,
    /// The engine does not have the image.
    NoImage,
    /// Another network has the addresses.
    AddressTaken,
}

/// How an attached container ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// With this status of its own.
    Exited(u8),
    /// This signal ended the docker program that showed it.
    ClientKilled(i32),
    /// The docker program that showed it ended first, and the engine is well: nobody reads the output any more.
    ClientGone,
    /// The engine was lost, or could not be asked; the error says why where that is known.
    LostEngine(Option<anyhow::Error>),
    /// It never started.
    NeverStarted(anyhow::Error),
}

/// A container that was shown to its end.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Of docker's client, which ends with the container's status and with statuses of its own.
    status: ExitStatus,
    /// What docker itself complained of, before anything else was said.
    complaint: String,
}

impl Shown {
    pub(super) fn new(status: ExitStatus, complaint: String) -> Self {
        Self { status, complaint }
    }

    /// The status of docker's client.
    pub(crate) fn status(&self) -> ExitStatus {
        self.status
    }

    /// Passes on what docker complained of.
    pub(crate) fn tell(&self) {
        report::progress(self.complaint.as_bytes());
    }
}

impl Docker {
    /// Makes a container, of an image that is named by its id.
    ///
    /// # Errors
    /// The engine said no for another reason than a missing image.
    pub(crate) fn create(&self, container: &Container) -> anyhow::Result<Created> {
        // A tag is anybody's, so it stands for an image that is still to be made.
        if !container.image.starts_with("sha256:") {
            return Ok(Created::NoImage);
        }
        self.make(&render::create(container))
    }

    /// Makes a session's own network.
    ///
    /// # Errors
    /// The engine said no for another reason than taken addresses.
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

    /// Attaches a container that was created elsewhere to a network.
    pub(crate) fn connect(
        &self,
        network: &Network,
        container: &str,
        address: std::net::Ipv4Addr,
    ) -> anyhow::Result<()> {
        self.run(&render::connect(network, container, address)).map(drop)
    }

    /// Starts a container and returns.
    pub(crate) fn start(&self, container: &Container) -> anyhow::Result<()> {
        self.run(&render::start(container)).map(drop)
    }

    /// Starts a container whose stdin and output the caller holds.
    pub(crate) fn start_held(&self, container: &Container) -> anyhow::Result<Child> {
        self.hold(&render::attach(container))
    }

    /// Starts a container and shows it on the launcher's own streams to its end.
    pub(crate) fn show(
        &self,
        container: &Container,
        running: impl FnOnce(Arc<SharedChild>),
    ) -> anyhow::Result<Shown> {
        self.attach(&render::attach(container), container.streams == Streams::Silent, running)
    }

    /// Runs a command whose object need not exist any more.
    ///
    /// # Errors
    /// The engine said no, or did not answer.
    pub(crate) fn gone_within(&self, cmd: &Cmd, deadline: Duration) -> anyhow::Result<()> {
        match self.try_run_within(cmd, deadline) {
            Err(failure) if !failure.is_missing() => Err(failure.explain(&cmd.purpose)),
            _ => Ok(()),
        }
    }

    /// Ends a container, whatever it is doing: gently first, which gives an agent time to write down a login. Both calls
    /// may fail; a teardown does it again.
    pub(crate) fn halt(&self, name: &str) {
        let _ = self.try_run_within(&stop(name), Duration::from_secs(15));
        // A container that was created and not yet started is left alone by `stop`.
        self.halt_now(name);
    }

    /// Removes a container at once; where that fails, a teardown does it again.
    pub(crate) fn halt_now(&self, name: &str) {
        let _ = self.try_run_within(&remove_containers(&[name.to_owned()]), Duration::from_secs(30));
    }

    /// Waits for a container that is about to run.
    ///
    /// # Errors
    /// The engine does not answer, the container is gone, or `go_on` says so.
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

    /// The id of the image that has this tag, if there is one.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(crate) fn image_id(&self, tag: &str) -> anyhow::Result<Option<String>> {
        match self.try_run(&image_exists(tag)) {
            Ok(id) => Ok(Some(id)),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure.explain(&format!("look for the image `{tag}`"))),
        }
    }

    /// How a container ended that was shown; `since` is when its session began, in seconds since 1970.
    ///
    /// Docker's client ends with the container's own status, and with statuses of its own; the engine's events tell them
    /// apart.
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

    /// What became of a container since its session began, oldest first, a line each: `ACTION STATUS`. The engine's clock
    /// counts: that of a virtual machine may be another than ours.
    fn events_of(&self, name: &str, started: u64) -> Result<Vec<String>, Failure> {
        let now = self.try_run(&clock())?;
        // Far enough back for a clock that was set, and for an engine whose clock is behind.
        let since = started.saturating_sub(3600).to_string();
        let events = self.try_run(&events(name, &since, &now))?;
        let own = events.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(own.map(str::to_owned).collect())
    }
}
