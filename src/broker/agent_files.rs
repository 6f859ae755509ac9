//! What the agent gets in place of the user's keys: its `models.json`, its `auth.json`, its variables.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{
    Broker, credentials,
    headers::without_secrets,
    route::{Delivery, Route},
};

/// When the placeholder of a login ends: never, as far as the agent can tell.
const NEVER: i64 = 9_007_199_254_740_991;

/// None of this is secret; it opens the session's own broker and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AgentFiles {
    pub(crate) models: String,
    pub(crate) auth: String,
    pub(crate) env: BTreeMap<String, String>,
}

impl AgentFiles {
    /// `models` and `auth` are the user's own files, as text; of the providers in `inside` everything stays as it is.
    pub(crate) fn new(
        broker: &Broker,
        models: Option<&str>,
        auth: Option<&str>,
        inside: &BTreeSet<String>,
    ) -> anyhow::Result<Self> {
        let mut models = credentials::object("models.json", models)?;
        let mut providers = match models.remove("providers") {
            Some(Value::Object(providers)) => providers,
            _ => Map::new(),
        };
        for (id, entry) in &mut providers {
            if !inside.contains(id) {
                *entry = without_secrets(entry);
            }
        }
        // What is left of an entry that only named a key would be an error to the agent.
        providers.retain(|_, entry| entry.as_object().is_none_or(|entry| !entry.is_empty()));
        for route in &broker.routes {
            providers.insert(route.provider.clone(), route.entry.clone());
        }
        models.insert("providers".to_owned(), Value::Object(providers));
        let mut auth = credentials::object("auth.json", auth)?;
        auth.retain(|id, _| inside.contains(id));
        auth.values_mut().for_each(keep_from_renewing);
        auth.extend(
            broker.routes.iter().filter_map(|route| Some((route.provider.clone(), credential(route)?))),
        );
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        for route in &broker.routes {
            env.extend(route.env.clone());
            if let Delivery::Variable(name) = route.delivery {
                env.insert(name.to_owned(), route.placeholder.clone());
            }
        }
        Ok(Self { models: pretty(models)?, auth: pretty(auth)?, env })
    }
}

/// Whoever renews a login makes its other copies worthless, and what a session renews is gone with the session.
fn keep_from_renewing(entry: &mut Value) {
    if let Some(entry) = entry.as_object_mut().filter(|entry| entry.get("type") == Some(&json!("oauth"))) {
        entry.insert("refresh".to_owned(), json!("not-in-the-sandbox"));
    }
}

fn credential(route: &Route) -> Option<Value> {
    let placeholder = &route.placeholder;
    match route.delivery {
        Delivery::Key if route.settings.is_empty() => Some(json!({ "type": "api_key", "key": placeholder })),
        Delivery::Key => Some(json!({ "type": "api_key", "key": placeholder, "env": route.settings })),
        Delivery::Login => {
            Some(json!({ "type": "oauth", "access": placeholder, "refresh": placeholder, "expires": NEVER }))
        }
        Delivery::Variable(_) => None,
    }
}

fn pretty(object: Map<String, Value>) -> anyhow::Result<String> {
    serde_json::to_string_pretty(&Value::Object(object))
        .map(|text| text + "\n")
        .context("could not write JSON")
}
