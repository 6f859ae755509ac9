//! The repository in which the user stands.

use super::Line;
use crate::{
    config::Config,
    egress::Sources,
    facts::{self, Facts},
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
    match Facts::gather(config, &launcher.host, &workspace, who, Purpose::Work) {
        Ok(facts) => lines.extend(facts.findings.iter().map(|finding| Line::found("repository", finding))),
        Err(error) => {
            lines.push(Line::failed("repository", &error, "no session starts here before that is mended"));
        }
    }
    lines
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
