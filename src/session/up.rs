//! Bringing a session up: its network and its containers, side by side where they do not need each other.

use std::{path::Path, sync::Arc, thread};

use super::{
    Needs, cache,
    prepare::prepare,
    sidecar::{Agents, Sidecar},
};
use crate::{
    docker::Created,
    plan::{Choices, Plan},
    record::{Claim, WayBack},
    report::Hinted,
};

/// How many subnets are tried.
const SUBNET_ATTEMPTS: u32 = 16;

/// What exists of a session so far.
#[derive(Debug, Default)]
pub(super) struct Made {
    network: bool,
    sidecar: bool,
    agent: bool,
}

impl Made {
    /// Everything but the sidecar, whose agent runs.
    pub(super) fn all_but_the_sidecar() -> Self {
        Self { network: true, sidecar: false, agent: true }
    }

    fn is_complete(&self, plan: &Plan) -> bool {
        self.agent && (self.network || plan.network.is_none()) && (self.sidecar || plan.sidecar.is_none())
    }
}

/// Creates what the plan names. Where the engine lacks an image or finds the addresses taken, the session is planned
/// anew with others, and goes on with what exists already. Starts the sidecar, which is in `running` from then on. Returns
/// the plan that was carried out.
///
/// # Errors
/// The engine said no, an image could not be made, or a signal came.
pub(super) fn up(
    needs: &Needs<'_>,
    mut choices: Choices,
    claim: &Claim,
    mut made: Made,
    running: &mut Option<Arc<Sidecar>>,
) -> anyhow::Result<Plan> {
    let agents = if made.agent { Agents::Runs } else { Agents::Waits };
    loop {
        needs.signals.check()?;
        let plan = (needs.plan)(&choices)?;
        prepare(&plan)?;
        plan.record.save(&claim.dir)?;
        if let Some(words) = needs.words {
            let way_back = WayBack {
                words: words.to_vec(),
                attempt: choices.attempt,
                agent_image: choices.agent_image.clone(),
                sidecar_image: choices.sidecar_image.clone(),
                random: needs.host.random,
                has_keys: plan.has_keys(),
            };
            way_back.save(&claim.dir)?;
        }
        let [network, sidecar, agent] = create(needs, &plan, &made, agents, &claim.dir, running)?;
        needs.signals.check()?;
        made.network |= network == Some(Created::Yes);
        made.sidecar |= sidecar == Some(Created::Yes);
        made.agent |= agent == Some(Created::Yes);
        if made.is_complete(&plan) {
            return Ok(plan);
        }
        if network == Some(Created::AddressTaken) {
            choices.attempt += 1;
            if choices.attempt == SUBNET_ATTEMPTS {
                return Err(Hinted::error(
                    format!(
                        "could not create the session's network: {SUBNET_ATTEMPTS} ranges of addresses are all taken"
                    ),
                    "remove unused networks with `docker network prune`",
                ));
            }
        }
        if sidecar == Some(Created::NoImage) {
            choices.sidecar_image = (needs.sidecar_image)()?;
        }
        if agent == Some(Created::NoImage) {
            choices.agent_image = (needs.agent_image)()?;
        }
    }
}

/// What came of network, sidecar and agent; `None` for what exists, is not wanted, or has to wait for another. The sidecar
/// starts as soon as it is on the network, beside the creation of the agent's container.
fn create(
    needs: &Needs<'_>,
    plan: &Plan,
    made: &Made,
    agents: Agents,
    dir: &Path,
    running: &mut Option<Arc<Sidecar>>,
) -> anyhow::Result<[Option<Created>; 3]> {
    let docker = needs.docker;
    let (network, sidecar) = thread::scope(|scope| {
        let sidecar = plan.sidecar.as_ref().filter(|_| !made.sidecar);
        let sidecar = sidecar.map(|sidecar| scope.spawn(move || docker.create(sidecar)));
        let network = plan.network.as_ref().filter(|_| !made.network);
        let network = network.map(|network| docker.create_network(network));
        (network, sidecar.map(|thread| thread.join().expect("creating a container does not panic")))
    });
    let (network, sidecar) = (network.transpose()?, sidecar.transpose()?);
    if network.is_some_and(|network| network != Created::Yes) {
        return Ok([network, sidecar, None]);
    }
    needs.signals.check()?;
    let is_there = made.sidecar || sidecar == Some(Created::Yes);
    thread::scope(|scope| {
        let starts = is_there && running.is_none();
        let started = starts.then(|| scope.spawn(move || Sidecar::start(docker, plan, agents, dir)));
        let agent = if made.agent { Ok(None) } else { create_agent(needs, plan).map(Some) };
        if let Some(started) = started {
            *running = started.join().expect("starting a container does not panic")?.map(Arc::new);
        }
        Ok([network, sidecar, agent?])
    })
}

fn create_agent(needs: &Needs<'_>, plan: &Plan) -> anyhow::Result<Created> {
    let docker = needs.docker;
    let created = docker.create(&plan.agent)?;
    if created == Created::Yes {
        cache::check(plan, docker, needs.host)?;
        if let (Some(network), Some(address)) = (&plan.network, plan.agent_address) {
            docker.connect(network, &plan.agent, address)?;
        }
    }
    Ok(created)
}
