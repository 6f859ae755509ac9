//! The repository in which the user stands.

use std::{path::Path, time::SystemTime};

use serde_json::Value;

use super::{super::login::state, Line};
use crate::{
    agent_dir::login::store,
    config::Config,
    egress::Sources,
    facts::{self, Facts},
    github,
    host::seconds,
    keys::{Commands, Keys},
    launcher::Launcher,
    models::Ours,
    purpose::Purpose,
    report::one_line,
    workspace::Workspace,
};

/// The workspace, what would go into a session there, and the allowlist.
pub(super) fn look(launcher: &Launcher, config: &Config, workspace: anyhow::Result<Workspace>) -> Vec<Line> {
    let mut lines = vec![allowlist(config)];
    lines.extend(servers(launcher));
    let workspace = match workspace {
        Ok(workspace) => workspace,
        Err(error) => {
            lines.push(Line::note(
                "repository",
                format!("{error:#}"),
                "change into a project's own directory",
            ));
            return lines;
        }
    };
    lines.push(Line::fine("repository", format!("`{}`", workspace.root.display())));
    let (who, as_root) = facts::who(&launcher.host, &workspace);
    lines.extend(workspace.findings.iter().chain(&as_root).map(|finding| Line::found("repository", finding)));
    match Facts::gather(config, &launcher.host, &workspace, who, Purpose::Work, Commands::Run, None) {
        Ok(facts) => {
            lines.extend(facts.findings.iter().map(|finding| Line::found("repository", finding)));
            lines.extend(keys(&facts.keys));
            lines.extend(logins(&facts.agent_dir));
            lines.extend(on_github(launcher, config, &workspace));
        }
        Err(error) => {
            lines.push(Line::failed("repository", &error, "no session starts here before that is mended"));
        }
    }
    lines
}

/// Where the keys of model providers are, and which are of no use.
fn keys(keys: &Keys) -> Vec<Line> {
    let held = keys.broker.iter().flat_map(|broker| &broker.routes).map(|route| route.provider.as_str());
    let held: Vec<&str> = held.collect();
    let held = match held.as_slice() {
        [] if keys.note.is_none() => Line::note(
            "keys",
            "no model provider has a key or a login",
            "`pi login` makes one, or set a key such as `ANTHROPIC_API_KEY`",
        ),
        [] => Line::note("keys", "no key stays outside", "`pi login` makes a login that does"),
        held => Line::fine("keys", format!("outside, with the broker: {}", held.join(", "))),
    };
    let inside = keys.note.iter().map(|note| Line::fine("keys", note.clone()));
    let notices = keys.notices.iter().map(|notice| Line::found("keys", &notice.finding()));
    [held].into_iter().chain(inside).chain(notices).collect()
}

/// The stored logins, and when they end.
fn logins(agent_dir: &Path) -> Vec<Line> {
    let now = seconds(SystemTime::now());
    // What cannot be read is told with the keys.
    let stored = store::read(agent_dir).unwrap_or_default();
    let logins = stored.iter().filter(|(_, entry)| entry.get("type").is_some_and(|kind| kind == "oauth"));
    let line = |(name, entry): (&String, &Value)| {
        let state = state(entry, now);
        let what = format!("login of `{}`: {state}", one_line(name));
        if ["expired", "cannot be read"].contains(&state.as_str()) {
            Line::note("keys", what, format!("`pi login {}` makes a new one", one_line(name)))
        } else {
            Line::fine("keys", what)
        }
    };
    logins.map(line).collect()
}

/// Which repositories of GitHub sessions use the user's token for.
fn on_github(launcher: &Launcher, config: &Config, workspace: &Workspace) -> Vec<Line> {
    let sources = github::Sources {
        config,
        host: &launcher.host,
        workspace,
        purpose: Purpose::Work,
        commands: Commands::Skip,
        ask: None,
    };
    let found = match github::find(&sources) {
        Ok(found) => found,
        Err(error) => return vec![Line::failed("github", &error, "correct that, or unset the token")],
    };
    let used = found.github.map(|github| {
        let names: Vec<String> = github.repositories.iter().map(ToString::to_string).collect();
        let may = if config.github_push { "read and push" } else { "read only" };
        Line::fine("github", format!("your token, outside, with the broker: {} ({may})", names.join(", ")))
    });
    let notices = found.notices.iter().map(|notice| Line::found("github", &notice.finding()));
    used.into_iter().chain(notices).collect()
}

/// The servers of `pi models`.
fn servers(launcher: &Launcher) -> Vec<Line> {
    match Ours::load(&launcher.host) {
        Ok(ours) => {
            let servers = ours.servers.iter();
            servers
                .map(|(name, server)| Line::fine("models", format!("{name} at {}", server.address)))
                .collect()
        }
        Err(error) => vec![Line::failed("models", &error, "make that file yours and readable")],
    }
}

fn allowlist(config: &Config) -> Line {
    let mut sources = Sources::of(config);
    match sources.read(config.allowed_domains_is_default) {
        Ok(list) => Line::fine(
            "allowlist",
            format!("{} entries for `--proxy`, `{}`", list.entries().len(), config.allowed_domains.display()),
        ),
        Err(error) => Line::failed("allowlist", &error, "correct that file"),
    }
}
