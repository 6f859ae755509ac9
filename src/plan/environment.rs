//! The variables of the agent, built from nothing.

use std::{collections::BTreeMap, ffi::OsStr};

use anyhow::bail;

use super::{Inputs, Mount, PROXY_PORT, Reach, command::subagents, mounts::expected_mounts};
use crate::{
    agent,
    agent_dir::laid::AUTHORITIES,
    github,
    host::Host,
    inside, keys,
    purpose::Purpose,
    report::Hinted,
    secret::{Secret, Value},
};

const PROXY_VARIABLES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// Every proxy variable in both cases: docker would inject the ones of its own config where we say nothing.
fn proxies(value: impl Fn(&str) -> Value) -> BTreeMap<String, Value> {
    PROXY_VARIABLES
        .iter()
        .flat_map(|name| {
            let value = value(name);
            [((*name).to_owned(), value.clone()), (name.to_ascii_lowercase(), value)]
        })
        .collect()
}

pub(super) fn no_proxies() -> BTreeMap<String, Value> {
    proxies(|_| Value::from(""))
}

/// The variables of the agent, built from nothing.
pub(super) fn environment(inputs: &Inputs<'_>, mounts: &[Mount]) -> anyhow::Result<BTreeMap<String, Value>> {
    let Inputs { config, host, facts, reach, program, .. } = inputs;
    let subnet = inputs.subnet();
    let mut env = match reach {
        // This machine's loopback is there where the session shares its network.
        Reach::Open if config.host_network => proxies(|name| host_proxy(host, name, Loopback::There)),
        Reach::Open => proxies(|name| match (name, host_proxy(host, name, Loopback::Elsewhere)) {
            // The agent would ask the proxy for the broker.
            ("NO_PROXY", value) if inputs.broker().is_some() => with_broker(&value),
            (_, value) => value,
        }),
        Reach::None | Reach::Demo => no_proxies(),
        Reach::Proxy(..) => {
            let ours = format!("http://{}:{PROXY_PORT}", subnet.sidecar());
            proxies(|name| match name {
                "HTTP_PROXY" | "HTTPS_PROXY" => Value::from(ours.as_str()),
                "NO_PROXY" => with_broker(&Value::from("localhost,127.0.0.1,::1")),
                _ => Value::from(""),
            })
        }
    };
    for name in agent::PASS.iter().chain(agent::SETTINGS) {
        if let Some(value) = host.var(name) {
            env.insert((*name).to_owned(), value.into());
        }
    }
    for name in agent::SECRETS.iter().filter(|name| facts.keys.gives(name)) {
        if let Some(value) = host.env.get(OsStr::new(name)).filter(|value| !value.is_empty()) {
            env.insert((*name).to_owned(), Value::Secret(Secret::new(value.clone())));
        }
    }
    env.extend(facts.keys.agent.env.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
    for (name, path) in &facts.credentials {
        env.insert((*name).to_owned(), path.to_string_lossy().into_owned().into());
    }
    env.extend(git(inputs));
    for (name, value) in [
        ("HOME", inside::HOME),
        ("USER", "pi"),
        ("LOGNAME", "pi"),
        ("LANG", "C.UTF-8"),
        ("PI_SKIP_VERSION_CHECK", "1"),
        ("PI_TELEMETRY", "0"),
    ] {
        env.insert(name.to_owned(), value.into());
    }
    if let Some(zone) = &host.timezone {
        env.insert("TZ".to_owned(), zone.as_str().into());
    }
    if let Some(editor) = host.var("VISUAL").or_else(|| host.var("EDITOR")) {
        // Others are not in the image, and the agent falls back to nano by itself.
        if matches!(editor.rsplit('/').next(), Some("nano")) {
            env.insert("EDITOR".to_owned(), "nano".into());
        }
    }
    env.extend(way_out(inputs));
    if inputs.facts.layout.has_authorities() {
        let path = format!("{}/{AUTHORITIES}", inside::AGENT_DIR);
        env.insert("NODE_EXTRA_CA_CERTS".to_owned(), path.into());
    }
    if let Some(told) = subagents(inputs) {
        env.insert("PI_BOX_SUBAGENTS".to_owned(), serde_json::to_string(&told)?.into());
    }
    if program.purpose == Purpose::Login {
        env.insert(agent::login::LOGIN_PROVIDER.to_owned(), program.words.concat().into());
        if !config.publish.is_empty() {
            // A port is published to the container's own address, and not to its loopback.
            env.insert("PI_OAUTH_CALLBACK_HOST".to_owned(), "0.0.0.0".into());
        }
    }
    let expected = expected_mounts(inputs, mounts);
    if !expected.is_empty() {
        env.insert("PI_BOX_MOUNTS".to_owned(), expected.into());
    }
    for text in &config.env {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.into())),
            None => (text.as_str(), host.env.get(OsStr::new(text)).cloned()),
        };
        check_variable(name, reach)?;
        // A variable that is not set here stays unset there.
        if let Some(value) = value {
            env.insert(name.to_owned(), Value::Secret(Secret::new(value)));
        }
    }
    Ok(env)
}

/// What the agent and the gate have to know of the ways out.
fn way_out(inputs: &Inputs<'_>) -> BTreeMap<String, Value> {
    let Inputs { host, reach, .. } = inputs;
    let subnet = inputs.subnet();
    let mut env = BTreeMap::new();
    match reach {
        Reach::Open => {}
        Reach::None | Reach::Demo => {
            env.insert("PI_OFFLINE".to_owned(), "1".into());
        }
        Reach::Proxy(..) => {
            env.insert("PI_BOX_PROXY".to_owned(), format!("{}:{PROXY_PORT}", subnet.sidecar()).into());
        }
    }
    if inputs.broker().is_some() {
        env.insert("PI_BOX_BROKER".to_owned(), format!("{}:{}", subnet.sidecar(), keys::PORT).into());
    }
    let is_behind = matches!(reach, Reach::Proxy(..)) || inputs.broker().is_some();
    if is_behind && !matches!(reach, Reach::Open) {
        let own = host.addresses.iter().filter(|address| address.is_ipv4());
        let mut probe: Vec<String> = own.map(ToString::to_string).take(16).collect();
        probe.push(subnet.host(1).to_string());
        env.insert("PI_BOX_PROBE".to_owned(), probe.join(" ").into());
    }
    env
}

/// Settings of git, and what git and `gh` need to find the broker.
fn git(inputs: &Inputs<'_>) -> BTreeMap<String, Value> {
    let mut env = BTreeMap::new();
    let mut git = git_settings();
    git.extend(inputs.facts.identity.iter().cloned());
    if let Some(github) = inputs.broker().and_then(|broker| broker.github.as_ref()) {
        let side = github.agent();
        git.extend(side.git);
        env.extend(side.env.into_iter().map(|(name, value)| (name, value.into())));
        let address = format!("{}:{}", inputs.subnet().sidecar(), github::PORT);
        env.insert("PI_BOX_GITHUB".to_owned(), address.into());
    }
    env.insert("GIT_CONFIG_COUNT".to_owned(), git.len().to_string().into());
    for (n, (key, value)) in git.into_iter().enumerate() {
        env.insert(format!("GIT_CONFIG_KEY_{n}"), key.into());
        env.insert(format!("GIT_CONFIG_VALUE_{n}"), value.into());
    }
    env
}

/// The value of `NO_PROXY` with the broker.
fn with_broker(value: &Value) -> Value {
    match value {
        Value::Plain(text) if text.is_empty() => keys::NAME.into(),
        Value::Plain(text) => format!("{text},{}", keys::NAME).into(),
        Value::Secret(secret) => {
            let mut text = secret.expose().to_owned();
            text.push(format!(",{}", keys::NAME));
            Value::Secret(Secret::new(text))
        }
    }
}

/// What git is told in every session.
fn git_settings() -> Vec<(String, String)> {
    [
        ("safe.directory", "*"),
        ("commit.gpgsign", "false"),
        ("tag.gpgsign", "false"),
        ("push.default", "current"),
        ("branch.autoSetupMerge", "false"),
        // One that cleans up while another works could take away what that one needs.
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Whether the machine's loopback is the container's too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loopback {
    There,
    Elsewhere,
}

/// The host's own proxy, for a session that may use the host's network; one on loopback mostly is not there for a container.
fn host_proxy(host: &Host, name: &str, loopback: Loopback) -> Value {
    let value =
        host.env.get(OsStr::new(&name.to_ascii_lowercase())).or_else(|| host.env.get(OsStr::new(name)));
    match value {
        Some(value) if !value.is_empty() => {
            let text = value.to_string_lossy();
            let is_own =
                name != "NO_PROXY" && ["localhost", "127.", "[::1]"].iter().any(|own| text.contains(own));
            // It may hold a password.
            if is_own && loopback == Loopback::Elsewhere {
                Value::from("")
            } else {
                Value::Secret(Secret::new(value.clone()))
            }
        }
        _ => Value::from(""),
    }
}

/// Refuses what no session can have, and what this one cannot.
fn check_variable(name: &str, reach: &Reach) -> anyhow::Result<()> {
    let why = if let Some(why) = agent::unfit(name) {
        why
    } else if !matches!(reach, Reach::Open) && PROXY_VARIABLES.contains(&name.to_ascii_uppercase().as_str()) {
        "belongs to the restricted network"
    } else {
        return Ok(());
    };
    bail!(Hinted::usage(format!(
        "the variable `{}` cannot be given to the agent: it {why}",
        name.escape_debug()
    )))
}
