//! Logins that end while a session runs: renewed in time, and given to its broker.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::sidecar::Sidecar;
use crate::{
    agent_dir::login::{SOON, Token},
    broker::Broker,
    report,
};

/// How often tokens are looked at, at least: a machine may have slept.
const OFTEN: Duration = Duration::from_secs(20);

/// After how long a login is tried again that could not be renewed.
const AGAIN: Duration = Duration::from_secs(120);

/// What renews logins.
#[derive(Clone, Copy)]
pub(crate) struct Renewal<'a> {
    pub(crate) broker: &'a Broker,
    /// The token of a provider, renewed if it ends soon.
    pub(crate) renew: &'a (dyn Fn(&str) -> anyhow::Result<Token> + Sync),
}

/// Whether the session is over.
#[derive(Debug, Default)]
pub(super) struct Over(Mutex<bool>, Condvar);

impl Over {
    pub(super) fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    /// Waits for the end, for so long.
    fn within(&self, time: Duration) -> bool {
        let over = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.1.wait_timeout_while(over, time, |over| !*over);
        *outcome.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Renewal<'_> {
    /// Keeps the broker's tokens good until the session is over.
    pub(super) fn run(self, sidecar: &Sidecar, over: &Over) {
        let mut broker = self.broker.clone();
        let mut failed: BTreeMap<String, Instant> = BTreeMap::new();
        while !over.within(until_next(&broker)) {
            for provider in due(&broker) {
                if failed.get(&provider).is_some_and(|then| then.elapsed() < AGAIN) {
                    continue;
                }
                let outcome = (self.renew)(&provider).and_then(|Token { access, expires }| {
                    let next = broker.with_token(&provider, &access, expires).map_err(anyhow::Error::msg)?;
                    sidecar.change_keys(&next.keys())?;
                    Ok(next)
                });
                match outcome {
                    Ok(next) => {
                        broker = next;
                        failed.remove(&provider);
                    }
                    // Told once. The session goes on, and the others stay good.
                    Err(error) => {
                        if failed.insert(provider, Instant::now()).is_none() {
                            report::warn(format_args!("{error:#}"));
                        }
                    }
                }
            }
        }
    }
}

/// Providers whose token ends soon.
fn due(broker: &Broker) -> Vec<String> {
    let soon = now().saturating_add(millis(SOON));
    let routes = broker.routes.iter().filter(|route| route.expires.is_some_and(|end| end < soon));
    routes.map(|route| route.provider.clone()).collect()
}

/// How long nothing is due, and not for long.
fn until_next(broker: &Broker) -> Duration {
    let next = broker.routes.iter().filter_map(|route| route.expires).min();
    let left = next.map(|end| end.saturating_sub(millis(SOON)).saturating_sub(now()));
    let left = left.and_then(|left| u64::try_from(left).ok()).map_or(Duration::ZERO, Duration::from_millis);
    // What could not be renewed is due all the time.
    left.clamp(Duration::from_millis(500), OFTEN)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn now() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
