//! Bringing a session up: its network and its containers, side by side where they do not need each other.

use std::{path::Path, sync::Arc, thread};

use super::{Needs, cache, prepare::prepare, sidecar::Sidecar};
use crate::{
    docker::{Created, Docker},
    plan::{Choices, Plan},
    record::Claim,
    report::Hinted,
};

/// How many subnets are tried.
const SUBNET_ATTEMPTS: u32 = 16;

/// What exists of a session so far.
#[derive(Debug, Default)]
struct Made {
    network: bool,
    sidecar: bool,
    agent: bool,
}

impl Made {
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
    running: &mut Option<Arc<Sidecar>>,
) -> anyhow::Result<Plan> {
    let mut made = Made::default();
    loop {
        needs.signals.check()?;
        let plan = (needs.plan)(&choices)?;
        prepare(&plan)?;
        plan.record.save(&claim.dir)?;
        let [network, sidecar, agent] = create(needs, &plan, &made, claim, running)?;
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
    claim: &Claim,
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
    let dir = &claim.dir;
    thread::scope(|scope| {
        let starts = is_there && running.is_none();
        let started = starts.then(|| scope.spawn(move || start_sidecar(docker, plan, dir)));
        let agent = if made.agent { Ok(None) } else { create_agent(needs, plan).map(Some) };
        if let Some(started) = started {
            *running = started.join().expect("starting a container does not panic")?;
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

fn start_sidecar(docker: &Docker, plan: &Plan, dir: &Path) -> anyhow::Result<Option<Arc<Sidecar>>> {
    let (Some(network), Some(sidecar), Some(address), Some(told)) =
        (&plan.network, &plan.sidecar, plan.sidecar_address, &plan.told)
    else {
        return Ok(None);
    };
    docker.connect(network, sidecar, address)?;
    let sidecar = Sidecar::start(docker, sidecar, &plan.agent.name, dir, told)?;
    if plan.away.is_some() {
        sidecar.beat();
    }
    Ok(Some(Arc::new(sidecar)))
}
