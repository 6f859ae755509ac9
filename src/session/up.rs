//! Bringing a session up: its network and its containers, side by side where they do not need each other.

use std::thread;

use super::{Needs, cache, prepare::prepare};
use crate::{
    docker::Created,
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
/// anew with others, and goes on with what exists already. Returns the plan that was carried out.
///
/// # Errors
/// The engine said no, an image could not be made, or a signal came.
pub(super) fn up(needs: &Needs<'_>, mut choices: Choices, claim: &Claim) -> anyhow::Result<Plan> {
    let mut made = Made::default();
    loop {
        needs.signals.check()?;
        let plan = (needs.plan)(&choices)?;
        prepare(&plan)?;
        plan.record.save(&claim.dir)?;
        let [network, sidecar, agent] = create(needs, &plan, &made)?;
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

/// What came of network, sidecar and agent; `None` for what exists, is not wanted, or has to wait for another.
fn create(needs: &Needs<'_>, plan: &Plan, made: &Made) -> anyhow::Result<[Option<Created>; 3]> {
    let docker = needs.docker;
    thread::scope(|scope| {
        let sidecar = plan
            .sidecar
            .as_ref()
            .filter(|_| !made.sidecar)
            .map(|sidecar| scope.spawn(move || docker.create(sidecar)));
        let first = || {
            let network = plan.network.as_ref().filter(|_| !made.network);
            let network = network.map(|network| docker.create_network(network)).transpose()?;
            let waits = made.agent || network.is_some_and(|network| network != Created::Yes);
            let agent = if waits { None } else { Some(docker.create(&plan.agent)?) };
            if agent == Some(Created::Yes) {
                cache::check(plan, docker, needs.host)?;
            }
            anyhow::Ok((network, agent))
        };
        let outcome = first();
        let sidecar = sidecar.map(|thread| thread.join().expect("creating a container does not panic"));
        let (network, agent) = outcome?;
        Ok([network, sidecar.transpose()?, agent])
    })
}
