//! What the user has to offer to providers: keys and logins in `auth.json`, `models.json` and the environment, in the
//! agent's order.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use anyhow::Context as _;
use serde_json::{Map, Value};

use super::{
    command, json,
    provider::{Login, PROVIDERS, Provider, UNSERVED},
    value::{self, ConfigValue},
};
use crate::secret::Secret;

/// Where credentials can come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) env: &'a BTreeMap<OsString, OsString>,
    /// The text of `auth.json`.
    pub(crate) auth: Option<&'a str>,
    /// The text of `models.json`.
    pub(crate) models: Option<&'a str>,
    /// Providers whose keys the user wants inside; nobody asks for theirs here.
    pub(crate) inside: &'a BTreeSet<String>,
}

/// How a command of the user's becomes a value.
pub(crate) type Run<'a> = dyn FnMut(&str) -> Result<Secret, command::Failure> + 'a;

/// A key or a token, whose it is and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) secret: Secret,
    pub(crate) kind: Kind,
    pub(crate) origin: Origin,
    /// The entry's own settings in `auth.json`, which win over the environment.
    pub(crate) settings: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Key,
    Login {
        /// Milliseconds since 1970.
        expires: i64,
        /// Whose token it is, for ChatGPT.
        account: Option<String>,
        /// GitHub's domain, for Copilot in a company.
        enterprise: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Stored,
    Models,
    Variable(&'static str),
}

/// All of it, by the agent's name for the provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) credentials: BTreeMap<String, Credential>,
    /// What the user has and no broker can hold, with the reason.
    pub(crate) unserved: BTreeMap<String, String>,
    /// What the user has written down and nobody can resolve, with the reason.
    pub(crate) failed: BTreeMap<String, String>,
}

enum Outcome {
    Found(Credential),
    Unserved(String),
    Failed(String),
    Nothing,
}

impl Found {
    /// # Errors
    /// `auth.json` or `models.json` is not what the agent can read.
    pub(crate) fn gather(sources: &Sources<'_>, run: &mut Run<'_>) -> anyhow::Result<Self> {
        let auth = object("auth.json", sources.auth)?;
        let mut models = object("models.json", sources.models)?;
        let models = match models.remove("providers") {
            Some(Value::Object(providers)) => providers,
            _ => Map::new(),
        };
        let mut ids: BTreeSet<&str> = PROVIDERS.iter().map(|provider| provider.id).collect();
        ids.extend(UNSERVED.iter().map(|(_, id, _)| *id));
        ids.extend(auth.keys().chain(models.keys()).map(String::as_str));
        let mut found = Self::default();
        // The agent runs the same command once, too.
        let mut ran = BTreeMap::new();
        for id in ids.into_iter().filter(|id| !sources.inside.contains(*id)) {
            let mut search = Search {
                id,
                builtin: Provider::named(id),
                stored: auth.get(id),
                configured: models.get(id),
                env: sources.env,
                run: &mut *run,
                ran: &mut ran,
            };
            match search.outcome() {
                Outcome::Found(credential) => drop(found.credentials.insert(id.to_owned(), credential)),
                Outcome::Unserved(why) => drop(found.unserved.insert(id.to_owned(), why)),
                Outcome::Failed(why) => drop(found.failed.insert(id.to_owned(), why)),
                Outcome::Nothing => {}
            }
        }
        Ok(found)
    }
}

/// Neither file's text gets into an error: it is full of secrets.
pub(crate) fn object(name: &str, text: Option<&str>) -> anyhow::Result<Map<String, Value>> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return Ok(Map::new());
    };
    match json::parse(text).with_context(|| format!("could not read `{name}`"))? {
        Value::Object(object) => Ok(object),
        _ => anyhow::bail!("could not read `{name}`: it is not an object"),
    }
}

struct Search<'a, 'r> {
    id: &'a str,
    builtin: Option<&'static Provider>,
    stored: Option<&'a Value>,
    configured: Option<&'a Value>,
    env: &'a BTreeMap<OsString, OsString>,
    run: &'a mut Run<'r>,
    ran: &'a mut BTreeMap<String, Result<Secret, String>>,
}

impl Search<'_, '_> {
    fn outcome(&mut self) -> Outcome {
        let settings = match self.stored {
            None => BTreeMap::new(),
            Some(Value::Object(entry)) => match entry.get("type").and_then(Value::as_str) {
                Some("oauth") => return self.login(entry),
                Some("api_key") => {
                    let settings = strings(entry.get("env"));
                    if let Some(key) = entry.get("key").and_then(Value::as_str) {
                        match self.resolve(key, &settings) {
                            Ok(Some(secret)) => return found(&secret, Origin::Stored, settings),
                            Ok(None) => {}
                            Err(why) => return Outcome::Failed(why),
                        }
                    }
                    settings
                }
                _ => {
                    return Outcome::Failed(
                        "its entry in `auth.json` is neither a key nor a login".to_owned(),
                    );
                }
            },
            Some(_) => return Outcome::Failed("its entry in `auth.json` is not an object".to_owned()),
        };
        // A stored entry, even one without a key, keeps the agent from looking into `models.json`.
        let configured = self.configured.filter(|_| self.stored.is_none());
        if let Some(key) = configured.and_then(|entry| entry.get("apiKey")).and_then(Value::as_str) {
            return match self.resolve(key, &BTreeMap::new()) {
                Ok(Some(secret)) => found(&secret, Origin::Models, settings),
                Ok(None) => Outcome::Nothing,
                Err(why) => Outcome::Failed(why),
            };
        }
        for name in self.builtin.map_or(&[][..], |provider| provider.variables) {
            if let Some(value) = self.env.get(OsStr::new(name)).filter(|value| !value.is_empty()) {
                return found(&Secret::new(value.clone()), Origin::Variable(name), settings);
            }
        }
        self.unserved(&settings)
    }

    fn unserved(&self, settings: &BTreeMap<String, String>) -> Outcome {
        let is_set = |name: &&str| {
            settings.contains_key(*name)
                || self.env.get(OsStr::new(name)).is_some_and(|value| !value.is_empty())
        };
        let why = UNSERVED.iter().find(|(names, id, _)| *id == self.id && names.iter().all(is_set));
        why.map_or(Outcome::Nothing, |(.., why)| Outcome::Unserved((*why).to_owned()))
    }

    fn login(&self, entry: &Map<String, Value>) -> Outcome {
        match self.builtin.map_or(Login::None, |provider| provider.login) {
            Login::None => {
                return Outcome::Unserved("only an extension of the agent knows this login".to_owned());
            }
            Login::Unserved(why) => return Outcome::Unserved(why.to_owned()),
            Login::Token(_) | Login::AsKey => {}
        }
        let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
        #[expect(clippy::cast_possible_truncation, reason = "a float beyond it means never")]
        let expires =
            entry.get("expires").and_then(|at| at.as_i64().or_else(|| at.as_f64().map(|at| at as i64)));
        let (Some(access), Some(expires)) = (text("access"), expires) else {
            return Outcome::Failed("its login in `auth.json` has no token or no end".to_owned());
        };
        let secret = match header_value(&Secret::new(access.into())) {
            Ok(secret) => secret,
            Err(why) => return Outcome::Failed(why),
        };
        Outcome::Found(Credential {
            secret,
            kind: Kind::Login { expires, account: text("accountId"), enterprise: text("enterpriseUrl") },
            origin: Origin::Stored,
            settings: BTreeMap::new(),
        })
    }

    /// The value that a text of the user's stands for; none if a variable in it is not set.
    fn resolve(&mut self, text: &str, settings: &BTreeMap<String, String>) -> Result<Option<Secret>, String> {
        resolve(text, settings, self.env, self.run, self.ran)
    }
}

pub(super) fn resolve(
    text: &str,
    settings: &BTreeMap<String, String>,
    env: &BTreeMap<OsString, OsString>,
    run: &mut Run<'_>,
    ran: &mut BTreeMap<String, Result<Secret, String>>,
) -> Result<Option<Secret>, String> {
    let parts = match ConfigValue::parse(text) {
        ConfigValue::Template(parts) => parts,
        ConfigValue::Command(command) => {
            let result = ran
                .entry(command)
                .or_insert_with_key(|command| run(command).map_err(|failure| failure.to_string()));
            return result.clone().map(Some);
        }
    };
    let lookup = |name: &str| {
        let own = settings.get(name).filter(|value| !value.is_empty()).cloned();
        own.or_else(|| env.get(OsStr::new(name)).and_then(|value| value.to_str()).map(str::to_owned))
    };
    Ok(value::fill(&parts, lookup).filter(|text| !text.is_empty()).map(|text| Secret::new(text.into())))
}

fn found(secret: &Secret, origin: Origin, settings: BTreeMap<String, String>) -> Outcome {
    match header_value(secret) {
        Ok(secret) => Outcome::Found(Credential { secret, kind: Kind::Key, origin, settings }),
        Err(why) => Outcome::Failed(why),
    }
}

/// A secret as it can stand in a header: what is around it that no client would send goes, what is in it that none
/// could send is refused.
pub(crate) fn header_value(secret: &Secret) -> Result<Secret, String> {
    let text = secret.bytes().trim_ascii();
    if text.is_empty() {
        return Err("its key is empty".to_owned());
    }
    if !text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return Err("its key contains a character that no key has".to_owned());
    }
    if text.len() > LONGEST {
        return Err(format!("its key is longer than {LONGEST} characters"));
    }
    Ok(Secret::new(OsStr::from_bytes(text).to_owned()))
}

/// Longer than any token, and short enough for a line of HAProxy's.
const LONGEST: usize = 8192;

fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
