//! GitHub for a session: which repositories it reaches, and with whose token. The token stays with the broker.

mod remembered;
mod remotes;
mod token;

use std::collections::BTreeSet;

use self::{remembered::Remembered, remotes::remotes, token::token};
use crate::{
    agent_dir::notice::{Notice, list},
    broker::{
        github::{GitHub, Graph, Repository, Write},
        placeholder::Placeholder,
    },
    config::{self, Config, Network},
    host::Host,
    keys::{self, Commands},
    purpose::Purpose,
    report::Hinted,
    workspace::Workspace,
    written::Written,
};

/// Where the broker listens for git and `gh`, on the session's network.
pub(crate) const PORT: u16 = keys::PORT + 1;

/// What a session has of GitHub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) github: Option<GitHub>,
    pub(crate) notices: Vec<Notice>,
}

/// What that is decided from.
pub(crate) struct Sources<'a> {
    pub(crate) config: &'a Config,
    pub(crate) host: &'a Host,
    pub(crate) workspace: &'a Workspace,
    pub(crate) purpose: Purpose,
    pub(crate) commands: Commands,
    /// Asks the user a question, where there is one to ask.
    pub(crate) ask: Option<&'a dyn Fn(&str) -> bool>,
}

const HOW: &str =
    "`PI_GH_TOKEN`, or a fine-grained token in `~/.config/pi/gh-token` (mode 600), lets git and `gh` use it";

/// Finds the repositories and the token.
///
/// # Errors
/// The token's file can be read by others, or the user did not want to go on.
pub(crate) fn find(sources: &Sources<'_>) -> anyhow::Result<Found> {
    let Sources { config, host, workspace, .. } = sources;
    let has_keys = config.keys != config::Keys::None;
    let works = matches!(sources.purpose, Purpose::Work | Purpose::Shell) && has_keys;
    if !works || matches!(config.network, Network::None | Network::Demo) {
        return Ok(Found::default());
    }
    let named: BTreeSet<Repository> = config.github.iter().cloned().collect();
    let own = remotes(workspace)?;
    if named.is_empty() && own.is_empty() {
        return Ok(Found::default());
    }
    let mut notices = Vec::new();
    let written = Written::load(host).and(workspace.dirs()).and_around(host);
    let mut remembered = Remembered::load(host, &workspace.root)?;
    let Some(token) = token(sources, &written, &mut notices)? else {
        notices.extend(sources.without_token(&own, &mut remembered)?);
        return Ok(Found { github: None, notices });
    };
    let own = sources.known(own, &named, &mut remembered, &mut notices)?;
    let repositories: Vec<Repository> = own.union(&named).cloned().collect();
    let github = GitHub {
        address: format!("{}:{PORT}", keys::NAME),
        placeholder: Placeholder::from(host.random),
        graph: Graph::for_token(&token),
        token,
        repositories,
        write: if config.github_push { Write::Allowed } else { Write::Refused },
    };
    Ok(Found { github: Some(github).filter(|github| !github.repositories.is_empty()), notices })
}

impl Sources<'_> {
    /// Tells that there is no token, or asks whether to go on; either once for a project.
    fn without_token(
        &self,
        own: &BTreeSet<Repository>,
        remembered: &mut Remembered<'_>,
    ) -> anyhow::Result<Option<Notice>> {
        let Some(first) = own.first() else { return Ok(None) };
        if remembered.project.goes_without {
            return Ok(None);
        }
        let text = format!("there is no token for GitHub, so git and `gh` cannot push to `{first}` inside");
        let Some(ask) = self.ask.filter(|_| self.purpose == Purpose::Work) else {
            return Ok(Some(
                Notice::new(text, HOW).once(format!("github {}", self.workspace.root.display())),
            ));
        };
        if !ask(&format!("pi: {text}. Go on without one? [y/N]")) {
            return Err(Hinted::error("stopped: there is no token for GitHub", HOW));
        }
        remembered.project.goes_without = true;
        remembered.save()?;
        Ok(None)
    }

    /// The remotes that the repository had when the user first gave a session of it a token. A later one may be an
    /// agent's, who could write the repository's config.
    fn known(
        &self,
        own: BTreeSet<Repository>,
        named: &BTreeSet<Repository>,
        remembered: &mut Remembered<'_>,
        notices: &mut Vec<Notice>,
    ) -> anyhow::Result<BTreeSet<Repository>> {
        let seen = remembered.project.repositories();
        let Some(seen) = seen else {
            if self.commands == Commands::Run {
                remembered.project.set(&own);
                remembered.save()?;
            }
            return Ok(own);
        };
        let (mut known, new): (BTreeSet<_>, BTreeSet<_>) =
            own.into_iter().partition(|one| seen.contains(one) || named.contains(one));
        if new.is_empty() {
            return Ok(known);
        }
        let texts: Vec<String> = new.iter().map(ToString::to_string).collect();
        let new_ones: Vec<&str> = texts.iter().map(String::as_str).collect();
        let question = format!(
            "pi: the repository has new remotes on GitHub: {}. May sessions use your token for them? [y/N]",
            list(&new_ones)
        );
        if self.commands == Commands::Run && self.ask.is_some_and(|ask| ask(&question)) {
            known.extend(new);
            remembered.project.set(&known);
            remembered.save()?;
        } else {
            notices.push(Notice::new(
                format!(
                    "the remotes {} came after the first session, so your token is not used for them",
                    list(&new_ones)
                ),
                format!(
                    "if you added them, name them in the config: `github = [\"{}\"]`",
                    texts.join("\", \"")
                ),
            ));
        }
        Ok(known)
    }
}
