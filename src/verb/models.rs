//! `pi models`: model servers of the user's own, in the agent's `models.json`.

use std::fmt::Write as _;

use anyhow::Context as _;

use crate::{
    cli::{ModelsVerb, OllamaVerb},
    host::Host,
    launcher::Launcher,
    models::{Kind, Model, Models, OLLAMA, Ours, Server, address::Address, ask},
    report::{self, Hinted},
};

pub(crate) fn run(launcher: &Launcher, what: &ModelsVerb) -> anyhow::Result<u8> {
    let host = &launcher.host;
    match what {
        ModelsVerb::Ollama { what } => ollama(host, what)?,
        ModelsVerb::AddServer { url, name } => add_server(host, url, name.as_deref())?,
        ModelsVerb::RemoveServer { name } => {
            Models::open(host)?.remove_known(name)?;
            report::note(format_args!("`{name}` is used no longer"));
        }
        ModelsVerb::Status => status(host)?,
    }
    Ok(0)
}

fn ollama(host: &Host, what: &OllamaVerb) -> anyhow::Result<()> {
    match what {
        OllamaVerb::Enable { host: typed } => {
            let text = typed.as_deref().or(host.var("OLLAMA_HOST")).unwrap_or("127.0.0.1");
            let address = Address::ollama(text).map_err(|error| Hinted::usage(error.to_string()))?;
            let server = Server { kind: Kind::Ollama, address };
            use_all(host, OLLAMA, &server, &ask(&server)?)
        }
        OllamaVerb::Disable => {
            Models::open(host)?.remove_known(OLLAMA)?;
            report::note("Ollama is used no longer");
            Ok(())
        }
        OllamaVerb::List => {
            let server = known(host)?;
            let listed = Models::open(host)?.listed(OLLAMA);
            let models = ask(&server)?;
            let mut table = format!("{:<40} {}\n", "MODEL", "THE AGENT KNOWS IT");
            for model in &models {
                let knows = if listed.contains(&model.id) { "yes" } else { "no" };
                let _ = writeln!(table, "{:<40} {knows}", model.id);
            }
            for gone in listed.iter().filter(|id| !models.iter().any(|model| model.id == **id)) {
                let _ = writeln!(table, "{:<40} yes, but Ollama has it no longer", report::one_line(gone));
            }
            report::data(table)
        }
        OllamaVerb::Sync => {
            let server = known(host)?;
            use_all(host, OLLAMA, &server, &ask(&server)?)
        }
        OllamaVerb::Add { model } => {
            let server = known(host)?;
            let found = ask(&server)?.into_iter().find(|found| is_called(&found.id, model));
            let found = found.ok_or_else(|| {
                let shown = report::one_line(model);
                Hinted::error(
                    format!("Ollama has no model `{shown}` for conversations"),
                    format!(
                        "`ollama pull {shown}` fetches it; `pi models ollama list` shows those that are there"
                    ),
                )
            })?;
            change(host, &server, |listed| {
                listed.retain(|other| other.id != found.id);
                listed.push(found.clone());
                true
            })?;
            report::note(format_args!("the agent knows `{}`", found.id));
            Ok(())
        }
        OllamaVerb::Remove { model } => {
            let server = known(host)?;
            let mut removed = false;
            change(host, &server, |listed| {
                let before = listed.len();
                listed.retain(|other| !is_called(&other.id, model));
                removed = listed.len() < before;
                removed
            })?;
            let shown = report::one_line(model);
            if !removed {
                return Err(Hinted::error(
                    format!("the agent's list has no model `{shown}` of Ollama's"),
                    "`pi models ollama list` shows them",
                ));
            }
            report::note(format_args!(
                "the agent does not know `{shown}` any more; `pi models ollama sync` brings it back"
            ));
            Ok(())
        }
    }
}

/// Whether a model has this name, of which `:latest` may be left out.
fn is_called(id: &str, name: &str) -> bool {
    id == name || id.strip_suffix(":latest") == Some(name)
}

/// Ollama, if it is in use.
fn known(host: &Host) -> anyhow::Result<Server> {
    let server = Ours::load(host)?.servers.remove(OLLAMA);
    server.ok_or_else(|| Hinted::error("Ollama is not in use", "`pi models ollama enable` changes that"))
}

/// Changes the list of Ollama's models in the file.
fn change(host: &Host, server: &Server, change: impl FnOnce(&mut Vec<Model>) -> bool) -> anyhow::Result<()> {
    let mut models = Models::open(host)?;
    let mut listed: Vec<Model> = models.listed(OLLAMA).iter().map(|id| Model::named(id)).collect();
    if change(&mut listed) { models.put(OLLAMA, server, &listed) } else { Ok(()) }
}

fn add_server(host: &Host, url: &str, name: Option<&str>) -> anyhow::Result<()> {
    let address = Address::parse(url).map_err(|error| Hinted::usage(error.to_string()))?;
    let server = Server { kind: Kind::OpenAi, address };
    let models = ask(&server)?;
    let known = Ours::load(host)?.servers.into_iter().find(|(_, other)| other.address == server.address);
    let name = match (name, known) {
        (Some(name), _) => name.to_owned(),
        (None, Some((name, _))) => name,
        (None, None) => usual_name(&server, &models),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 40 || !name.bytes().all(fits) || name == OLLAMA {
        return Err(Hinted::usage(format!(
            "`{}` cannot be the name of a server: use up to 40 letters, digits, `-`, `_` and `.`, and not `ollama`",
            report::one_line(&name)
        )));
    }
    use_all(host, &name, &server, &models)
}

/// What people call such a server.
fn usual_name(server: &Server, models: &[Model]) -> String {
    let by = models.first().and_then(|model| model.by.as_deref());
    match (by, server.address.port) {
        (Some("vllm"), _) => "vllm".to_owned(),
        (Some("llamacpp"), _) => "llama-server".to_owned(),
        (Some("organization_owner"), _) | (_, 1234) => "lm-studio".to_owned(),
        (_, port) => format!("server-{port}"),
    }
}

fn use_all(host: &Host, name: &str, server: &Server, models: &[Model]) -> anyhow::Result<()> {
    let origin = server.address.origin();
    Models::open(host)?.put(name, server, models).with_context(|| format!("`{origin}` is not used"))?;
    let count = models.len();
    if count == 0 {
        report::warn(format_args!("`{origin}` has no model yet; after fetching one, do this again"));
    } else {
        let plural = if count == 1 { "model" } else { "models" };
        report::note(format_args!(
            "the agent knows {count} {plural} of `{name}`; `/model` inside chooses one"
        ));
    }
    Ok(())
}

fn status(host: &Host) -> anyhow::Result<()> {
    let servers = Ours::load(host)?.servers;
    if servers.is_empty() {
        report::note(
            "no model server is in use; `pi models ollama enable` or `pi models add-server URL` adds one",
        );
        return Ok(());
    }
    let models = Models::open(host)?;
    let listed: Vec<usize> = servers.keys().map(|name| models.listed(name).len()).collect();
    drop(models);
    let mut table = format!("{:<16} {:<36} {:>6}  {}\n", "NAME", "ADDRESS", "MODELS", "STATE");
    for ((name, server), listed) in servers.iter().zip(listed) {
        let state = match ask(server) {
            Ok(models) if models.len() == listed => "answers".to_owned(),
            Ok(models) => format!("answers, and has {} models now", models.len()),
            Err(error) => report::one_line(&format!("{error:#}")),
        };
        let _ = writeln!(table, "{name:<16} {:<36} {listed:>6}  {state}", server.address.to_string());
    }
    report::data(table)
}
