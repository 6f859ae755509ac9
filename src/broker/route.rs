//! What the broker does for one provider: where its requests go, which of them may, and what is put into them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
};

use serde_json::{Map, Value, json};

use super::{
    api::{Api, Carrier},
    base::Base,
    credentials::{Credential, Kind, Origin, Run, header_value},
    headers::Swap,
    placeholder::{Placeholder, Shape},
    provider::{Login, Provider},
};
use crate::secret::Secret;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Lower-case letters, digits and `-`: the first segment of its paths, and its name in maps and logs.
    pub(crate) name: String,
    /// The agent's name for the provider.
    pub(crate) provider: String,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) carriers: BTreeSet<Carrier>,
    /// What the agent holds instead of the key.
    pub(crate) placeholder: String,
    pub(crate) secret: Secret,
    /// Headers that the broker sets, whatever the agent says.
    pub(crate) fixed: Vec<(&'static str, Secret)>,
    pub(crate) swaps: Vec<Swap>,
    pub(crate) delivery: Delivery,
    /// When a login's token ends, in milliseconds since 1970.
    pub(crate) expires: Option<i64>,
    /// The provider's entry in the agent's `models.json`.
    pub(crate) entry: Value,
    /// Variables of the agent's environment that go with it.
    pub(crate) env: BTreeMap<String, String>,
    /// The entry's settings in `auth.json`, which the agent still needs.
    pub(crate) settings: BTreeMap<String, String>,
}

/// One place to which the route's requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) base: Base,
    pub(crate) apis: BTreeSet<Api>,
    pub(crate) moves: &'static [(&'static str, &'static str)],
    pub(crate) reach: Reach,
}

/// Where a name may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// A provider of the table is on the internet: an answer that says otherwise is refused.
    Public,
    /// The user wrote the address down.
    Anywhere,
    /// On this machine's loopback, by a socket of the launcher's.
    Socket,
    /// The same where the engine has a name for this machine's loopback.
    Machine,
}

/// How the agent comes to its placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// A key in `auth.json`.
    Key,
    /// A login in `auth.json` that never expires.
    Login,
    /// A variable, which the agent sends in another header than a key.
    Variable(&'static str),
}

/// What routes are made from, but for the credentials.
pub(crate) struct Making<'a, 'r> {
    pub(crate) address: &'a str,
    pub(crate) placeholder: &'a Placeholder,
    pub(crate) env: &'a BTreeMap<OsString, OsString>,
    /// How the sidecar reaches servers on this machine's loopback.
    pub(crate) loopback: Reach,
    pub(crate) run: &'a mut Run<'r>,
}

/// Why a provider has no route.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    Unserved(String),
    Failed(String),
}

impl Making<'_, '_> {
    /// `number` tells custom providers apart whose names are spelled alike in a path.
    pub(crate) fn route(
        &mut self,
        number: usize,
        id: &str,
        credential: &Credential,
        configured: Option<&Value>,
    ) -> Result<Route, NoRoute> {
        let builtin = Provider::named(id);
        let name =
            builtin.map_or_else(|| format!("custom{number}-{}", plain(id)), |known| known.id.to_owned());
        let mut entry = configured.and_then(Value::as_object).cloned().unwrap_or_default();
        let mut endpoints = endpoints(builtin, credential, &entry, self.env).map_err(NoRoute::Unserved)?;
        for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.base.is_loopback()) {
            endpoint.reach = self.loopback;
        }
        let (shape, delivery) = shape(builtin, credential);
        let placeholder = self.placeholder.text(shape);
        let mut carriers: BTreeSet<Carrier> = endpoints
            .iter()
            .flat_map(|endpoint| &endpoint.apis)
            .flat_map(|api| api.carriers())
            .copied()
            .collect();
        if id == "cloudflare-ai-gateway" {
            carriers = BTreeSet::from([Carrier::Gateway]);
        }
        if entry.get("authHeader") == Some(&Value::Bool(true)) {
            carriers.insert(Carrier::Bearer);
        }
        let swaps = self.swaps(&mut entry, credential).map_err(NoRoute::Failed)?;
        let url = |base: &Base| format!("http://{}/{name}/{}{}", self.address, base.authority(), base.path);
        redirect(&mut entry, &endpoints, &url);
        if entry.contains_key("apiKey") {
            entry.insert("apiKey".to_owned(), placeholder.clone().into());
        }
        let first = endpoints.first().map(|endpoint| url(&endpoint.base)).unwrap_or_default();
        let fixed = match &credential.kind {
            Kind::Login { account: Some(account), .. } if shape == Shape::ChatGpt => {
                let account = header_value(&Secret::new(account.into())).map_err(NoRoute::Failed)?;
                vec![("chatgpt-account-id", account)]
            }
            _ if shape == Shape::ChatGpt => {
                return Err(NoRoute::Failed("its login in `auth.json` names no account".to_owned()));
            }
            _ => Vec::new(),
        };
        let mut settings = credential.settings.clone();
        settings.retain(|name, _| SETTINGS.contains(&name.as_str()));
        Ok(Route {
            carriers,
            delivery,
            fixed,
            swaps,
            expires: match credential.kind {
                Kind::Login { expires, .. } => Some(expires),
                Kind::Key => None,
            },
            env: env(id, &first),
            provider: id.to_owned(),
            entry: Value::Object(entry),
            secret: credential.secret.clone(),
            settings,
            name,
            endpoints,
            placeholder,
        })
    }
}

/// A request that costs nothing and tells whether the provider takes the key: one with nothing in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) url: String,
    /// A header with the placeholder.
    pub(crate) header: String,
    /// Who is asked.
    pub(crate) host: String,
}

impl Route {
    /// What to ask the broker at this address. `None` where no plain request is passed.
    pub(crate) fn question(&self, address: &str) -> Option<Question> {
        let Endpoint { base, apis, .. } = self.endpoints.first()?;
        let rule = apis.iter().flat_map(|api| api.rules()).find(|rule| !rule.websocket)?;
        let carriers: Vec<&Carrier> = self.carriers.iter().collect();
        // Where two headers carry keys, a login is in the first.
        let is_key = |carrier: &&Carrier| **carrier == Carrier::ApiKey;
        let carrier = match self.delivery {
            Delivery::Key if !self.placeholder.contains("sk-ant-oat") => {
                carriers.iter().find(|one| is_key(one))
            }
            _ => None,
        };
        let carrier = carrier.or(carriers.first())?;
        let tail = ["{model}", "{arn}", "{version}"]
            .iter()
            .fold(rule.tail.to_owned(), |tail, name| tail.replace(name, "x"));
        Some(Question {
            url: format!("http://{address}/{}/{}{}{tail}", self.name, base.authority(), base.path),
            header: format!("{}: {}{}", carrier.header(), carrier.scheme(), self.placeholder),
            host: base.authority(),
        })
    }
}

/// Settings of an entry in `auth.json` that are no secrets and lead nowhere.
const SETTINGS: &[&str] = &[
    "AWS_DEFAULT_REGION", "AWS_REGION", "AZURE_OPENAI_API_VERSION", "AZURE_OPENAI_DEPLOYMENT_NAME_MAP",
    "CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_GATEWAY_ID", "GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_PROJECT",
];

fn shape(builtin: Option<&Provider>, credential: &Credential) -> (Shape, Delivery) {
    let login = builtin.map_or(Login::None, |known| known.login);
    match (&credential.kind, login) {
        (Kind::Login { .. }, Login::Token(shape)) => (shape, Delivery::Login),
        (Kind::Key, Login::Token(Shape::Claude)) => match credential.origin {
            // The agent sends this one as `Bearer`, whatever it looks like.
            Origin::Variable(name @ "ANTHROPIC_AUTH_TOKEN") => (Shape::Plain, Delivery::Variable(name)),
            _ if contains(&credential.secret, b"sk-ant-oat") => (Shape::Claude, Delivery::Key),
            _ => (Shape::Plain, Delivery::Key),
        },
        _ => (Shape::Plain, Delivery::Key),
    }
}

fn contains(secret: &Secret, needle: &[u8]) -> bool {
    secret.bytes().windows(needle.len()).any(|part| part == needle)
}

/// The agent's SDKs take these from the environment before anything else.
fn env(id: &str, url: &str) -> BTreeMap<String, String> {
    let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    match id {
        // Else it would speak HTTP/2 without asking, which needs a port of its own.
        "amazon-bedrock" => pair("AWS_BEDROCK_FORCE_HTTP1", "1"),
        "azure" | "azure-openai-responses" => pair("AZURE_OPENAI_BASE_URL", url),
        _ => BTreeMap::new(),
    }
}

/// Where the agent would have sent requests of this provider's.
fn endpoints(
    builtin: Option<&Provider>,
    credential: &Credential,
    entry: &Map<String, Value>,
    env: &BTreeMap<OsString, OsString>,
) -> Result<Vec<Endpoint>, String> {
    let mut apis: BTreeSet<Api> = builtin.iter().flat_map(|known| known.apis).copied().collect();
    let models: Vec<&Value> = entry.get("models").and_then(Value::as_array).into_iter().flatten().collect();
    let names = entry.get("api").into_iter().chain(models.iter().filter_map(|model| model.get("api")));
    for name in names.filter_map(Value::as_str) {
        apis.insert(
            Api::named(name).ok_or_else(|| format!("its API `{}` is not known here", name.escape_debug()))?,
        );
    }
    if apis.is_empty() {
        return Err("it names no API".to_owned());
    }
    let own = entry.get("baseUrl").and_then(Value::as_str);
    let mut endpoints = Vec::new();
    if let Some((base, moves, reach)) = first(builtin, credential, own, env)? {
        endpoints.push(Endpoint { base, apis: apis.clone(), moves, reach });
    }
    for text in models.iter().filter_map(|model| model.get("baseUrl")?.as_str()) {
        let base = Base::parse(text)?;
        if !endpoints.iter().any(|endpoint: &Endpoint| endpoint.base == base) {
            endpoints.push(Endpoint { base, apis: apis.clone(), moves: &[], reach: Reach::Anywhere });
        }
    }
    if endpoints.is_empty() {
        return Err("it has no base URL".to_owned());
    }
    Ok(endpoints)
}

type First = (Base, &'static [(&'static str, &'static str)], Reach);

fn first(
    builtin: Option<&Provider>,
    credential: &Credential,
    own: Option<&str>,
    env: &BTreeMap<OsString, OsString>,
) -> Result<Option<First>, String> {
    let setting = |name: &str| {
        let value = credential.settings.get(name).cloned();
        value
            .or_else(|| env.get(std::ffi::OsStr::new(name))?.to_str().map(str::to_owned))
            .filter(|v| !v.is_empty())
    };
    let is_azure = builtin.is_some_and(|known| known.apis == [Api::Azure]);
    match (builtin, own) {
        (None, None) => Ok(None),
        // For Azure alone, the environment comes before `models.json`.
        (Some(known), own) if is_azure => {
            let theirs = known.base_url(setting);
            let text = theirs.or_else(|why| own.map(str::to_owned).ok_or(why))?;
            Ok(Some((Base::parse(&text)?, &[], Reach::Anywhere)))
        }
        (_, Some(own)) => Ok(Some((Base::parse(own)?, &[], Reach::Anywhere))),
        (Some(known), None) => {
            let text = match copilot(known, credential)? {
                Some(text) => text,
                None => known.base_url(setting)?,
            };
            Ok(Some((Base::parse(&text)?, known.moves, Reach::Public)))
        }
    }
}

/// A token for Copilot names the address that takes it.
fn copilot(known: &Provider, credential: &Credential) -> Result<Option<String>, String> {
    let Kind::Login { enterprise, .. } = &credential.kind else { return Ok(None) };
    if known.login != Login::AsKey {
        return Ok(None);
    }
    let domain = enterprise.as_deref().map(|text| text.trim_start_matches("https://").trim_end_matches('/'));
    let token = String::from_utf8_lossy(credential.secret.bytes());
    let named = token.split(';').find_map(|part| part.trim().strip_prefix("proxy-ep="));
    let host = match (named, domain) {
        (Some(named), _) => {
            named.strip_prefix("proxy.").map_or_else(|| named.to_owned(), |rest| format!("api.{rest}"))
        }
        (None, Some(domain)) => format!("copilot-api.{domain}"),
        (None, None) => return Ok(None),
    };
    let is_theirs = |suffix: &str| host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    if ["githubcopilot.com", "ghe.com"].into_iter().chain(domain).any(is_theirs) {
        return Ok(Some(format!("https://{host}")));
    }
    Err("its token names an address that is not GitHub's".to_owned())
}

/// Sends the agent to the broker.
fn redirect(entry: &mut Map<String, Value>, endpoints: &[Endpoint], url: &dyn Fn(&Base) -> String) {
    for model in entry.get_mut("models").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(text) = model.get_mut("baseUrl")
            && let Some(Ok(base)) = text.as_str().map(Base::parse)
        {
            *text = url(&base).into();
        }
    }
    if let Some(endpoint) = endpoints.first() {
        entry.insert("baseUrl".to_owned(), json!(url(&endpoint.base)));
    }
}

/// A name as a segment of a path.
fn plain(id: &str) -> String {
    id.chars()
        .take(32)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect()
}
