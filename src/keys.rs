//! The keys of a session: which of them its broker holds, which are inside, and what the agent gets in place of the others.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
};

use anyhow::Context as _;
use serde_json::{Map, Value};

use crate::{
    agent_dir::notice::{Notice, list},
    broker::{
        self, Broker,
        agent_files::AgentFiles,
        command::{LIMIT, Setting},
        credentials::{self, Run},
        github::GitHub,
        haproxy::{Files, Place},
        placeholder::Placeholder,
        provider::{self, PROVIDERS, Provider, UNSERVED},
        route::Reach,
    },
    config::{self, Config},
    domain::upstream::Upstream,
    egress::{self, Brokered},
    files::read_small_bytes,
    host::Host,
    models::Server,
    purpose::Purpose,
    secret::Secret,
    written::Written,
};

/// By this name the agent finds the broker.
pub(crate) const NAME: &str = "pi-keys";

/// Where the broker listens on the session's network. The ports up to 8449 are the broker's too.
pub(crate) const PORT: u16 = 8440;

/// In the settings, this name stands for the logins of MCP servers.
pub(crate) const MCP: &str = "mcp";

/// A literal key that is shorter and goes over plain HTTP is no secret: it is what servers without keys are given.
const SHORTEST: usize = 16;

/// Everything about the keys of one session, decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// `None` where there is no key that it could hold.
    pub(crate) broker: Option<Broker>,
    pub(crate) agent: AgentFiles,
    /// Providers whose credentials the agent has itself.
    inside: BTreeSet<String>,
    /// Whether some of the agent's files have a key in them.
    pub(crate) has_some_inside: bool,
    /// Certificates of the user's, as text, by which the broker knows a provider besides the system's.
    pub(crate) authorities: String,
    pub(crate) notices: Vec<Notice>,
    /// What is told at each start.
    pub(crate) note: Option<String>,
}

/// What keys are gathered from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) config: &'a Config,
    pub(crate) host: &'a Host,
    pub(crate) written: &'a Written,
    /// The text of `auth.json`.
    pub(crate) auth: Option<&'a str>,
    /// The text of `models.json`.
    pub(crate) models: Option<&'a str>,
    /// What of that is from `pi models`.
    pub(crate) servers: &'a BTreeMap<String, Server>,
    pub(crate) github: Option<&'a GitHub>,
    pub(crate) purpose: Purpose,
    pub(crate) commands: Commands,
}

/// What becomes of the commands that stand for keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commands {
    Run,
    /// A dry run shows no key, so it needs none.
    Skip,
}

impl Keys {
    /// Finds all keys, and decides where each is.
    ///
    /// # Errors
    /// A file of the agent's cannot be written as JSON, or there is no randomness.
    pub(crate) fn gather(sources: &Sources<'_>) -> anyhow::Result<Self> {
        let mut notices = Vec::new();
        let auth = readable("auth.json", sources.auth, &mut notices);
        let models = readable("models.json", sources.models, &mut notices);
        let texts = Texts { auth: object(auth), models: providers(models) };
        let policy = match sources.purpose {
            Purpose::Work | Purpose::Shell | Purpose::Proof => &sources.config.keys,
            Purpose::SetUp | Purpose::Login | Purpose::Renew | Purpose::Demo => &config::Keys::None,
        };
        // In every network the broker alone passes on to these, and nothing but what a conversation needs.
        let own = texts.own(sources.servers);
        let local: BTreeSet<String> = texts.local().collect();
        let wanted = &(&texts.inside(policy, &mut notices) - &own) - &local;
        let inside = &(&local | &wanted) - &own;
        let mut broker = Broker { address: format!("{NAME}:{PORT}"), ..Broker::default() };
        let has_own = !own.is_empty() || sources.github.is_some();
        if matches!(policy, config::Keys::Broker { .. }) || (*policy == config::Keys::Env && has_own) {
            let env = &sources.host.env;
            let placeholder = Placeholder::from(sources.host.random);
            let (upstream, without) = upstream(sources.host);
            let inputs = broker::Inputs {
                address: &broker.address,
                placeholder: &placeholder,
                env,
                auth,
                models,
                inside: &inside,
                github: sources.github,
                loopback: match &sources.host.engine {
                    engine if engine.is_apart() => None,
                    engine if engine.shares_our_kernel() => Some(Reach::Socket),
                    _ => Some(Reach::Machine),
                },
                upstream: upstream.as_ref(),
            };
            broker = Broker::new(&inputs, &mut *sources.run())?;
            if !broker.routes.is_empty() || broker.github.is_some() {
                notices.extend(without);
            }
        }
        notices.extend(told(&broker));
        let agent = AgentFiles::new(&broker, models, auth, &inside)?;
        let present: Vec<&str> =
            wanted.iter().map(String::as_str).filter(|id| texts.has_key(id, sources.host)).collect();
        let note = (!present.is_empty()).then(|| {
            format!("the keys of {} are in the sandbox, where the agent can read them", list(&present))
        });
        let broker = Some(broker).filter(|broker| !broker.routes.is_empty() || broker.github.is_some());
        let asks = broker.is_some() || sources.purpose.is_login();
        let authorities = if asks { sources.authorities(&mut notices) } else { String::new() };
        Ok(Self { broker, agent, has_some_inside: !present.is_empty(), inside, authorities, notices, note })
    }

    /// The broker for the sidecar, listening at this address.
    pub(crate) fn brokered(&self, listen: Ipv4Addr) -> Option<Brokered> {
        let broker = self.broker.as_ref()?;
        let place = Place {
            listen: SocketAddrV4::new(listen, PORT),
            directory: "/tmp/pi-broker",
            authorities: "/tmp/pi-broker/ca.pem",
        };
        let Files { config, keys } = Files::new(broker, &place);
        let authorities = self.authorities.clone();
        Some(Brokered { config, keys, authorities, lan: broker.addresses_of_the_users() })
    }

    /// Whether the agent gets a variable with a credential.
    pub(crate) fn gives(&self, variable: &str) -> bool {
        provider::is_of(variable, &self.inside)
    }

    /// Whether the agent gets the logins of MCP servers.
    pub(crate) fn gives_mcp(&self) -> bool {
        self.inside.contains(MCP)
    }
}

impl Sources<'_> {
    fn run(&self) -> Box<Run<'_>> {
        if self.commands == Commands::Skip {
            return Box::new(|_| Ok(Secret::new("left-out".into())));
        }
        let Self { host, written, .. } = self;
        let path = written.search_path(host);
        let setting = Setting::new(&host.env, &host.home, path, |path| written.is_fit(path));
        Box::new(move |command| setting.run(command, LIMIT))
    }

    /// The certificates that the settings and Node's own variable name.
    fn authorities(&self, notices: &mut Vec<Notice>) -> String {
        const NODES: &str = "NODE_EXTRA_CA_CERTS";
        let nodes = self.host.var(NODES).map(|path| self.host.expand(path));
        let mut all = String::new();
        for path in self.config.images.ca_certificates.iter().chain(&nodes) {
            match self.certificates(path) {
                Ok(text) => all += &(text + "\n"),
                Err(error) => notices.push(Notice::plain(format!(
                    "the certificates in `{}` are not used for model providers: {error:#}",
                    path.display()
                ))),
            }
        }
        all
    }

    fn certificates(&self, path: &Path) -> anyhow::Result<String> {
        let real = self.written.follow(path)?;
        if let Some(dir) = self.written.holds(&real) {
            anyhow::bail!("an agent can write in `{}`", dir.display());
        }
        let bytes = read_small_bytes(&real)?.context("there is no such file")?;
        String::from_utf8(bytes).context("they are not text")
    }
}

/// The proxy by which this machine gets out, or why the broker does without.
fn upstream(host: &Host) -> (Option<Upstream>, Option<Notice>) {
    let why = match egress::upstream(host) {
        Ok(None) => return (None, None),
        Ok(upstream) if host.engine.shares_our_kernel() => return (upstream, None),
        Ok(_) => "cannot use the proxy in `HTTPS_PROXY`: the engine runs in a machine of its own".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    let hint = "`keys = \"env\"` in the config puts keys into the sandbox, where the agent may use that proxy itself";
    (None, Some(Notice::new(format!("the broker asks providers directly, since it {why}"), hint)))
}

/// The user's two files, as values.
struct Texts {
    auth: Map<String, Value>,
    models: Map<String, Value>,
}

impl Texts {
    /// Providers whose keys the user wants inside.
    fn inside(&self, policy: &config::Keys, notices: &mut Vec<Notice>) -> BTreeSet<String> {
        match policy {
            config::Keys::None => BTreeSet::new(),
            config::Keys::Broker { inside } => {
                notices.extend(inside.iter().filter(|id| !self.knows(id)).map(|id| unknown(id)));
                inside.clone()
            }
            config::Keys::Env => self.everybody(),
        }
    }

    fn everybody(&self) -> BTreeSet<String> {
        let built_in = PROVIDERS.iter().map(|known| known.id);
        let ids = built_in.chain(UNSERVED.iter().map(|(_, id, _)| *id)).chain([MCP]);
        ids.chain(self.auth.keys().chain(self.models.keys()).map(String::as_str)).map(str::to_owned).collect()
    }

    fn knows(&self, id: &str) -> bool {
        id == MCP
            || Provider::named(id).is_some()
            || UNSERVED.iter().any(|(_, known, _)| *known == id)
            || self.auth.contains_key(id)
            || self.models.contains_key(id)
    }

    fn has_key(&self, id: &str, host: &Host) -> bool {
        let is_set = |name: &str| host.env.get(OsStr::new(name)).is_some_and(|value| !value.is_empty());
        self.auth.contains_key(id)
            || self.models.get(id).is_some_and(|entry| entry.get("apiKey").is_some())
            || Provider::named(id).is_some_and(|known| known.variables.iter().any(|name| is_set(name)))
            || UNSERVED.iter().any(|(names, known, _)| *known == id && names.iter().all(|name| is_set(name)))
    }

    /// Servers from `pi models`, as far as the user has not changed where they are.
    fn own(&self, servers: &BTreeMap<String, Server>) -> BTreeSet<String> {
        let is_same = |(id, server): &(&String, &Server)| {
            let there = self.models.get(*id).and_then(|entry| entry.get("baseUrl")?.as_str());
            !self.auth.contains_key(*id) && there == Some(server.address.to_string().as_str())
        };
        servers.iter().filter(is_same).map(|(id, _)| id.clone()).collect()
    }

    /// Servers without real keys: the agent asks them itself.
    fn local(&self) -> impl Iterator<Item = String> {
        let is_local = |(id, entry): &(&String, &Value)| {
            !self.auth.contains_key(*id) && Provider::named(id).is_none() && is_keyless(entry)
        };
        self.models.iter().filter(is_local).map(|(id, _)| id.clone())
    }
}

/// Whether an entry of `models.json` is of a server that needs no key: a short literal, sent over plain HTTP.
fn is_keyless(entry: &Value) -> bool {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let models = entry.get("models").and_then(Value::as_array).into_iter().flatten();
    let has_headers =
        entry.get("headers").is_some() || models.clone().any(|model| model.get("headers").is_some());
    let mut bases = models.filter_map(|model| text(model, "baseUrl")).chain(text(entry, "baseUrl"));
    let key = text(entry, "apiKey").unwrap_or_default();
    !has_headers
        && key.len() < SHORTEST
        && !key.contains('$')
        && !key.starts_with('!')
        && bases.all(|base| base.trim().to_ascii_lowercase().starts_with("http://"))
}

/// A file of the agent's, unless nobody can read it.
fn readable<'a>(name: &str, text: Option<&'a str>, notices: &mut Vec<Notice>) -> Option<&'a str> {
    match credentials::object(name, text) {
        Ok(_) => text,
        Err(error) => {
            notices.push(Notice::plain(format!("{error:#}; the session begins without it")));
            None
        }
    }
}

fn object(text: Option<&str>) -> Map<String, Value> {
    credentials::object("", text).unwrap_or_default()
}

fn providers(models: Option<&str>) -> Map<String, Value> {
    match object(models).remove("providers") {
        Some(Value::Object(providers)) => providers,
        _ => Map::new(),
    }
}

fn unknown(id: &str) -> Notice {
    Notice::new(
        format!("there is no provider `{id}`, which `keys` in the settings names"),
        "providers are named as in the agent's `/model`, such as `openai`",
    )
}

/// What is to be told of keys that are not used.
fn told(broker: &Broker) -> Vec<Notice> {
    let Broker { unserved, failed, .. } = broker;
    let failed = failed
        .iter()
        .map(|(id, why)| Notice::plain(format!("the key of {} is not used: {why}", list(&[id]))));
    let unserved = unserved.iter().map(|(id, why)| {
        Notice::new(
            format!("the agent cannot use your key of {}: {why}", list(&[id])),
            format!("`keys = {{ {id} = \"env\" }}` in the config puts it into the sandbox"),
        )
        .once(format!("unserved {id} {why}"))
    });
    failed.chain(unserved).collect()
}
