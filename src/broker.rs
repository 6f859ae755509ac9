//! Keeps keys outside: the agent holds a placeholder, and a broker in the session's sidecar, HAProxy, puts the key in on
//! the way to the provider.
//!
//! ```text
//! env, auth.json, models.json ──► credentials::Found ──► route::Route ──┬──► haproxy::Files      to the sidecar
//!                                   (runs `!command`s)    (pure)        └──► agent_files::AgentFiles  to the agent
//! ```
//!
//! The agent asks `http://ADDRESS/ROUTE/HOST/…`. The route says whose key it is; the host is in the path because the
//! agent looks for it in the base URL. HAProxy lets through what [`api::Api::rules`] names and nothing else, swaps the
//! placeholder for the key in the header where it stands, and speaks TLS with the real host.

pub(crate) mod agent_files;
pub(crate) mod api;
pub(crate) mod base;
pub(crate) mod command;
pub(crate) mod credentials;
pub(crate) mod github;
pub(crate) mod haproxy;
mod headers;
mod json;
pub(crate) mod placeholder;
pub(crate) mod provider;
pub(crate) mod relay;
pub(crate) mod route;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
};

use self::{
    base::Scheme,
    credentials::{Found, Run, Sources},
    github::GitHub,
    placeholder::Placeholder,
    relay::{Relay, Way},
    route::{Endpoint, Making, NoRoute, Reach, Route},
};
use crate::{
    domain::{HOST_NAME, upstream::Upstream},
    secret::Secret,
};

/// What a session's broker is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// `HOST:PORT`, where the agent finds it.
    pub(crate) address: &'a str,
    pub(crate) placeholder: &'a Placeholder,
    pub(crate) env: &'a BTreeMap<OsString, OsString>,
    pub(crate) auth: Option<&'a str>,
    pub(crate) models: Option<&'a str>,
    /// Providers with `keys = "env"`.
    pub(crate) inside: &'a BTreeSet<String>,
    pub(crate) github: Option<&'a GitHub>,
    /// How the sidecar reaches servers on this machine's loopback.
    pub(crate) loopback: Reach,
    /// The proxy by which this machine gets out.
    pub(crate) upstream: Option<&'a Upstream>,
}

/// A session's broker, decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Broker {
    /// `HOST:PORT`, where the agent finds it.
    pub(crate) address: String,
    pub(crate) routes: Vec<Route>,
    pub(crate) github: Option<GitHub>,
    /// The proxy by which this machine gets out.
    pub(crate) upstream: Option<Upstream>,
    /// Providers whose credential no broker can hold, with the reason.
    pub(crate) unserved: BTreeMap<String, String>,
    /// Providers whose credential cannot be resolved, with the reason.
    pub(crate) failed: BTreeMap<String, String>,
}

impl Broker {
    /// # Errors
    /// `auth.json` or `models.json` cannot be read.
    pub(crate) fn new(inputs: &Inputs<'_>, run: &mut Run<'_>) -> anyhow::Result<Self> {
        let Inputs { address, placeholder, env, auth, models, inside, github, loopback, upstream } = *inputs;
        let Found { credentials, mut unserved, mut failed } =
            Found::gather(&Sources { env, auth, models, inside }, run)?;
        let configured = credentials::object("models.json", models)?.remove("providers");
        let mut making = Making { address, placeholder, env, loopback, run };
        let mut routes = Vec::new();
        for (number, (id, credential)) in credentials.iter().enumerate() {
            match making.route(number, id, credential, configured.as_ref().and_then(|all| all.get(id))) {
                Ok(route) => routes.push(route),
                Err(NoRoute::Unserved(why)) => drop(unserved.insert(id.clone(), why)),
                Err(NoRoute::Failed(why)) => drop(failed.insert(id.clone(), why)),
            }
        }
        let upstream = upstream.cloned();
        Ok(Self { address: address.to_owned(), routes, github: github.cloned(), upstream, unserved, failed })
    }

    /// The names of the providers' own hosts, for which nobody but the broker may ask. GitHub is not among them: packages
    /// come from there, where the allowlist has it.
    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        let endpoints = self.routes.iter().flat_map(|route| &route.endpoints);
        let public = endpoints.filter(|endpoint| endpoint.reach == Reach::Public);
        public.map(|endpoint| endpoint.base.host.to_string()).collect()
    }

    /// Addresses that the user wrote down, each with its port as a line: they may be private.
    pub(crate) fn addresses_of_the_users(&self) -> String {
        let endpoints = self.routes.iter().flat_map(|route| &route.endpoints);
        let lines: BTreeSet<String> = endpoints
            .filter(|endpoint| self.relay(endpoint).is_none())
            .filter_map(|endpoint| match endpoint.reach {
                Reach::Public | Reach::Socket => None,
                Reach::Anywhere => Some(format!("{} {}\n", endpoint.base.host, endpoint.base.port)),
                Reach::Machine => Some(format!("{HOST_NAME} {}\n", endpoint.base.port)),
            })
            .collect();
        lines.into_iter().collect()
    }

    /// Servers to which the launcher passes requests on.
    pub(crate) fn relays(&self) -> Vec<Relay> {
        let endpoints = self.routes.iter().flat_map(|route| &route.endpoints).cloned();
        let github = self.github.iter().flat_map(|_| [github::GIT, github::API].map(github::endpoint));
        let relays: BTreeSet<Relay> =
            endpoints.chain(github).filter_map(|endpoint| self.relay(&endpoint)).collect();
        relays.into_iter().collect()
    }

    /// How the launcher passes on to this endpoint; `None` where HAProxy goes there itself.
    fn relay(&self, Endpoint { base, reach, .. }: &Endpoint) -> Option<Relay> {
        let is_behind =
            |upstream: &Upstream| base.scheme == Scheme::Https && upstream.serves(&base.host.to_string());
        match reach {
            Reach::Socket => Some(Relay::to(base, Way::Loopback)),
            Reach::Public | Reach::Anywhere if self.upstream.as_ref().is_some_and(is_behind) => {
                Some(Relay::to(base, Way::Proxy))
            }
            Reach::Public | Reach::Anywhere | Reach::Machine => None,
        }
    }

    /// All keys, as the broker in the sidecar reads them.
    pub(crate) fn keys(&self) -> Secret {
        haproxy::keys(self)
    }

    /// The same with another token for a provider, such as a renewed login.
    ///
    /// # Errors
    /// The provider has no route, or the token cannot stand in a header.
    pub(crate) fn with_token(&self, provider: &str, token: &Secret, expires: i64) -> Result<Self, String> {
        let mut broker = self.clone();
        let route = broker.routes.iter_mut().find(|route| route.provider == provider);
        let route = route.ok_or_else(|| format!("the session has no key for `{provider}`"))?;
        route.secret = credentials::header_value(token)?;
        route.expires = Some(expires);
        Ok(broker)
    }
}
