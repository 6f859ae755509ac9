//! The broker as a whole, without a container: what goes to the sidecar, and what to the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    Broker, Inputs,
    agent_files::AgentFiles,
    command::{Failure, LIMIT, Setting},
    credentials::Run,
    haproxy::{CONFIG, Egress, Files, KEYS, Place, exchange},
    placeholder::Placeholder,
};
use crate::docker::Secret;

const PLACE: Place<'_> = Place {
    directory: "/run/keys",
    authorities: "/etc/ssl/certs/ca-certificates.crt",
    egress: Egress::Direct,
};

/// A user, with what there is in the environment and in the two files.
#[derive(Default)]
struct User {
    env: BTreeMap<OsString, OsString>,
    auth: Option<String>,
    models: Option<String>,
    inside: BTreeSet<String>,
}

impl User {
    fn with(names: &[(&str, &str)]) -> Self {
        let env = names.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { env, ..Self::default() }
    }

    fn auth(mut self, value: &Value) -> Self {
        self.auth = Some(value.to_string());
        self
    }

    fn models(mut self, value: &Value) -> Self {
        self.models = Some(value.to_string());
        self
    }

    fn broker(&self) -> Broker {
        let mut run = |command: &str| match command {
            "key" => Ok(Secret::new("from-a-command".into())),
            _ => Err(Failure::Silent),
        };
        self.broker_with(SocketAddrV4::new(Ipv4Addr::new(10, 9, 8, 7), 8440), &mut run)
    }

    fn broker_with(&self, listen: SocketAddrV4, run: &mut Run<'_>) -> Broker {
        let placeholder = Placeholder::from([7; 16]);
        let inputs = Inputs {
            listen,
            placeholder: &placeholder,
            env: &self.env,
            auth: self.auth.as_deref(),
            models: self.models.as_deref(),
            inside: &self.inside,
        };
        Broker::new(&inputs, run).unwrap()
    }

    fn agent(&self) -> AgentFiles {
        AgentFiles::new(&self.broker(), self.models.as_deref(), self.auth.as_deref(), &self.inside).unwrap()
    }
}

/// Writes what the proof in `tests/broker` needs into the directory that it names, which has a user and a place in it.
#[test]
#[ignore = "a part of `tests/broker/run`, which names the directory"]
fn write_for_the_proof() {
    let out = PathBuf::from(std::env::var_os("BROKER_PROOF").expect("`BROKER_PROOF` names a directory"));
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(out.join(name)).unwrap()).unwrap() };
    let (user, place) = (read("user.json"), read("place.json"));
    let env: BTreeMap<OsString, OsString> = user["env"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.into(), value.as_str().unwrap().into()))
        .collect();
    let user = User {
        auth: user.get("auth").map(Value::to_string),
        models: user.get("models").map(Value::to_string),
        env,
        ..User::default()
    };
    let setting = Setting::new(&user.env, Path::new("/"), "/usr/bin:/bin".into(), |_| true);
    let mut run = |command: &str| setting.run(command, LIMIT);
    let broker = user.broker_with(place["listen"].as_str().unwrap().parse().unwrap(), &mut run);
    let [directory, authorities] = ["directory", "authorities"].map(|name| place[name].as_str().unwrap());
    let place = Place { authorities, directory, ..PLACE };
    let files = Files::new(&broker, &place);
    let agent = AgentFiles::new(&broker, user.models.as_deref(), user.auth.as_deref(), &user.inside).unwrap();
    let routes = broker.routes.iter().map(|route| {
        json!({
            "name": route.name,
            "provider": route.provider,
            "placeholder": route.placeholder,
            "authority": route.endpoints[0].base.authority(),
            "hosts": route.endpoints.iter().map(|endpoint| endpoint.base.host.to_string()).collect::<Vec<_>>(),
        })
    });
    let routes: Vec<Value> = routes.collect();
    let summary =
        json!({ "env": agent.env, "routes": routes, "unserved": broker.unserved, "failed": broker.failed });
    let exchange = broker.routes.iter().find(|route| route.provider == "groq").map(|route| {
        exchange(route, &Secret::new("a \"new\" secret; \\ $5 # '".into()), &place).bytes().to_vec()
    });
    for (name, bytes) in [
        (CONFIG, files.config.as_bytes()),
        (KEYS, files.keys.bytes()),
        ("models.json", agent.models.as_bytes()),
        ("auth.json", agent.auth.as_bytes()),
        ("summary.json", summary.to_string().as_bytes()),
        ("exchange", &exchange.unwrap_or_default()),
    ] {
        fs::write(out.join(name), bytes).unwrap();
    }
}
