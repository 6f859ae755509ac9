//! What the proof in `tests/broker` starts from.

use super::{github::github, *};
use crate::broker::{github::Write, route::Route};

/// What `user.json` says of GitHub.
fn github_of(value: &Value, listen: SocketAddrV4) -> GitHub {
    let text = |name: &str| value[name].as_str().unwrap();
    let write = if value["write"] == true { Write::Allowed } else { Write::Refused };
    let github = github(text("token"), write, &[text("repository")]);
    GitHub { address: format!("{}:{}", listen.ip(), listen.port() + 1), ..github }
}

/// What to write to the admin socket for HAProxy to use another key from now on, as one line. Requests under way keep
/// theirs.
fn exchange(route: &Route, secret: &[u8], place: &Place<'_>) -> Vec<u8> {
    let mut line = format!("set map {}/{KEYS} {} ", place.directory, route.name).into_bytes();
    for byte in secret {
        // The socket's language splits at these.
        if matches!(byte, b' ' | b'\\' | b';') {
            line.push(b'\\');
        }
        line.push(*byte);
    }
    line.push(b'\n');
    line
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
    let listen: SocketAddrV4 = place["listen"].as_str().unwrap().parse().unwrap();
    let user = User {
        env,
        auth: user.get("auth").map(Value::to_string),
        models: user.get("models").map(Value::to_string),
        github: user.get("github").map(|github| github_of(github, listen)),
        ..User::default()
    };
    let setting = Setting::new(&user.env, Path::new("/"), "/usr/bin:/bin".into(), |_| true);
    let mut run = |command: &str| setting.run(command, LIMIT);
    let broker = user.broker_with(&listen.to_string(), &mut run);
    let [directory, authorities] = ["directory", "authorities"].map(|name| place[name].as_str().unwrap());
    let place = Place { listen, directory, authorities };
    let files = Files::new(&broker, &place);
    let side = broker.github.as_ref().map(GitHub::agent);
    let mut env =
        AgentFiles::new(&broker, user.models.as_deref(), user.auth.as_deref(), &user.inside).unwrap().env;
    for (at, (key, value)) in side.iter().flat_map(|side| &side.git).enumerate() {
        env.insert(format!("GIT_CONFIG_KEY_{at}"), key.clone());
        env.insert(format!("GIT_CONFIG_VALUE_{at}"), value.clone());
        env.insert("GIT_CONFIG_COUNT".to_owned(), (at + 1).to_string());
    }
    env.extend(side.iter().flat_map(|side| side.env.clone()));
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
        json!({ "env": env, "routes": routes, "unserved": broker.unserved, "failed": broker.failed });
    let exchange = broker
        .routes
        .iter()
        .find(|route| route.provider == "groq")
        .map(|route| exchange(route, b"a \"new\" secret; \\ $5 # '", &place));
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
