//! Asks a model server for its models, within bounds of time and size.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{Kind, Model, Server};
use crate::report::Hinted;

const CONNECT: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(10);

/// For all models of one server together.
const DETAILS: Duration = Duration::from_secs(20);

const LARGEST: u64 = 4 << 20;
const MOST: usize = 500;

/// The models that a server has now.
///
/// # Errors
/// It does not answer, or not as such a server does.
pub(crate) fn ask(server: &Server) -> anyhow::Result<Vec<Model>> {
    let mut models = match server.kind {
        Kind::Ollama => ollama(server)?,
        Kind::OpenAi => open_ai(server)?,
    };
    models.sort_by(|a, b| a.id.cmp(&b.id));
    models.dedup_by(|a, b| a.id == b.id);
    if models.len() > MOST {
        bail!("`{}` has more than {MOST} models", server.address.origin());
    }
    Ok(models)
}

fn ollama(server: &Server) -> anyhow::Result<Vec<Model>> {
    let client = client();
    let url = |path: &str| format!("{}{path}", server.address.origin());
    let answer = get(&client, &url("/api/tags")).map_err(|error| unreachable(server, &error))?;
    let names = list(&answer, "models", "name").ok_or_else(|| no_such_server(server))?;
    let begun = std::time::Instant::now();
    let mut models = Vec::new();
    for (name, _) in names.into_iter().take(MOST + 1) {
        // An old server does not tell, and a slow one is not worth the time.
        let told = if begun.elapsed() < DETAILS {
            post(&client, &url("/api/show"), &json!({ "model": name })).unwrap_or_default()
        } else {
            Value::Null
        };
        let can = |what: &str| {
            told["capabilities"].as_array().map(|all| all.iter().any(|one| one.as_str() == Some(what)))
        };
        if can("completion") != Some(false) {
            models.push(Model {
                sees_images: can("vision") == Some(true),
                thinks: can("thinking") == Some(true),
                ..Model::named(&name)
            });
        }
    }
    Ok(models)
}

fn open_ai(server: &Server) -> anyhow::Result<Vec<Model>> {
    let url = format!("{}/models", server.address);
    let answer = get(&client(), &url).map_err(|error| unreachable(server, &error))?;
    let names = list(&answer, "data", "id").ok_or_else(|| no_such_server(server))?;
    let model = |(id, told): (String, &Value)| Model {
        context: told["max_model_len"].as_u64().filter(|length| *length > 0),
        by: told["owned_by"].as_str().map(str::to_owned),
        ..Model::named(&id)
    };
    Ok(names.into_iter().take(MOST + 1).map(model).collect())
}

/// The names in a list, with what is said of each. Names of odd characters are left out.
fn list<'a>(answer: &'a Value, key: &str, name: &str) -> Option<Vec<(String, &'a Value)>> {
    let all = answer[key].as_array()?;
    let plain = |name: &&str| is_plain(name);
    Some(all.iter().filter_map(|one| Some((one[name].as_str().filter(plain)?.to_owned(), one))).collect())
}

/// Whether this can be the name of a model.
pub(super) fn is_plain(name: &str) -> bool {
    (1..=200).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

fn client() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(PATIENCE))
        // The user named this server, and no other.
        .max_redirects(0)
        .proxy(None);
    config.build().into()
}

fn get(client: &ureq::Agent, url: &str) -> anyhow::Result<Value> {
    read(client.get(url).call()?)
}

fn post(client: &ureq::Agent, url: &str, body: &Value) -> anyhow::Result<Value> {
    read(client.post(url).header("content-type", "application/json").send(body.to_string())?)
}

fn read(mut answer: ureq::http::Response<ureq::Body>) -> anyhow::Result<Value> {
    let text = answer.body_mut().with_config().limit(LARGEST).read_to_string()?;
    serde_json::from_str(&text).context("the answer is not JSON")
}

fn unreachable(server: &Server, error: &anyhow::Error) -> anyhow::Error {
    let hint = match server.kind {
        Kind::Ollama => "start it with `ollama serve`, or name where it listens with `--host HOST:PORT`",
        Kind::OpenAi => "start the server, or correct the address; `/v1/models` must answer there",
    };
    let said = format!("{error:#}").trim_start_matches("io: ").to_owned();
    Hinted::error(format!("`{}` does not tell its models: {said}", server.address.origin()), hint)
}

fn no_such_server(server: &Server) -> anyhow::Error {
    let (what, hint) = match server.kind {
        Kind::Ollama => ("Ollama", "for another server, use `pi models add-server URL`"),
        Kind::OpenAi => ("a server with `/v1/models`", "name the path too, as in `http://localhost:1234/v1`"),
    };
    Hinted::error(format!("`{}` answers, but not as {what} does", server.address.origin()), hint)
}
