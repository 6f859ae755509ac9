//! The repository in which the user stands.

use super::Line;
use crate::{
    config::Config,
    egress::Sources,
    facts::{self, Facts},
    keys::{Commands, Keys},
    launcher::Launcher,
    purpose::Purpose,
    workspace::Workspace,
};

/// The workspace, what would go into a session there, and the allowlist.
pub(super) fn look(launcher: &Launcher, config: &Config, workspace: anyhow::Result<Workspace>) -> Vec<Line> {
    let mut lines = vec![allowlist(config)];
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
        [] => Line::note("keys", "no key that could stay outside was found", "`pi login`, or set one"),
        held => Line::fine("keys", format!("outside, with the broker: {}", held.join(", "))),
    };
    let inside = keys.note.iter().map(|note| Line::fine("keys", note.clone()));
    let notices = keys.notices.iter().map(|notice| Line::found("keys", &notice.finding()));
    [held].into_iter().chain(inside).chain(notices).collect()
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
