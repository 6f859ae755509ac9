//! GitHub with the user's token outside: git over HTTP and `gh`, for the repositories that the user names.
//!
//! Git is sent to the broker by `url.….insteadOf`, `gh` by a socket in the file system to which it speaks plain HTTP;
//! `forward` in the agent's container passes that on; the gate starts it and writes the config of `gh`. Git LFS and uploads of releases go to other hosts and stay outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
};

use super::{
    base::{Base, Host, Scheme},
    placeholder::{Placeholder, Shape},
    route::{Endpoint, Reach},
};
use crate::secret::Secret;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitHub {
    /// `HOST:PORT`, where git finds the broker; another port than the providers'.
    pub(crate) address: String,
    pub(crate) placeholder: Placeholder,
    pub(crate) token: Secret,
    pub(crate) repositories: Vec<Repository>,
    pub(crate) write: Write,
    pub(crate) graph: Graph,
}

/// Whether the agent may push, and change issues and pull requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Allowed,
    Refused,
}

/// Whether the agent may ask GraphQL, as most commands of `gh` do. No rule can tell there which repository is meant, so
/// whatever the token may read, the agent may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Graph {
    Allowed,
    Refused,
}

/// `OWNER/NAME`, of the characters that GitHub takes, as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Repository {
    owner: String,
    name: String,
}

/// What the agent gets. None of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentSide {
    /// Settings for git, some of them with several values.
    pub(crate) git: Vec<(String, String)>,
    pub(crate) env: BTreeMap<String, String>,
}

/// Where git asks, and where `gh` does.
pub(super) const GIT: &str = "github.com";
pub(super) const API: &str = "api.github.com";

/// GitHub under this name.
pub(super) fn endpoint(host: &str) -> Endpoint {
    let base =
        Base { scheme: Scheme::Https, host: Host::Name(host.to_owned()), port: 443, path: String::new() };
    Endpoint { base, apis: BTreeSet::new(), moves: &[], reach: Reach::Public }
}

impl Graph {
    /// A fine-grained token is itself limited to repositories; any other is worth all that its owner can see.
    pub(crate) fn for_token(token: &Secret) -> Self {
        if token.bytes().starts_with(b"github_pat_") { Self::Allowed } else { Self::Refused }
    }
}

impl Repository {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (owner, name) = text.split_once('/')?;
        let name = name.strip_suffix(".git").unwrap_or(name);
        let is_owner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let fits = (1..=39).contains(&owner.len())
            && owner.bytes().all(is_owner)
            && (1..=100).contains(&name.len())
            && name.bytes().all(|b| is_owner(b) || b == b'.')
            && !matches!(name, "." | "..")
            && !name.contains("..");
        fits.then(|| Self { owner: owner.to_owned(), name: name.to_owned() })
    }

    /// The repository of GitHub's that a remote leads to.
    pub(crate) fn of_remote(url: &str) -> Option<Self> {
        let rest = [
            "https://github.com/", "http://github.com/", "git://github.com/", "ssh://git@github.com/",
            "ssh://git@github.com:22/", "ssh://git@ssh.github.com:443/", "git@github.com:",
        ]
        .iter()
        .find_map(|prefix| url.strip_prefix(prefix))?;
        Self::parse(rest.trim_matches('/'))
    }
}

impl Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, name } = self;
        write!(f, "{owner}/{name}")
    }
}

impl GitHub {
    pub(crate) fn token_placeholder(&self) -> String {
        self.placeholder.text(Shape::GitHub)
    }

    pub(crate) fn agent(&self) -> AgentSide {
        let Self { address, repositories, .. } = self;
        let token = self.token_placeholder();
        let mut git = vec![(format!("http.http://{address}/.extraHeader"), format!("x-api-key: {token}"))];
        for repository in repositories {
            // A prefix, as git takes it: `me/proj-2` comes to the broker as well, which says that it is another.
            for remote in ["https://github.com/", "git@github.com:", "ssh://git@github.com/"] {
                git.push((
                    format!("url.http://{address}/github.com/{repository}.insteadOf"),
                    format!("{remote}{repository}"),
                ));
            }
        }
        let env = [("GH_TOKEN", token.as_str()), ("GH_NO_UPDATE_NOTIFIER", "1"), ("GH_PROMPT_DISABLED", "1")];
        AgentSide { git, env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_remote_of_githubs_names_its_repository() {
        for url in [
            "https://github.com/me/proj",
            "https://github.com/me/proj.git",
            "https://github.com/me/proj/",
            "git@github.com:me/proj.git",
            "ssh://git@github.com/me/proj",
            "ssh://git@ssh.github.com:443/me/proj.git",
        ] {
            assert_eq!(Repository::of_remote(url).unwrap().to_string(), "me/proj", "{url}");
        }
        for url in [
            "https://github.com.evil.example/me/proj",
            "https://gitlab.com/me/proj",
            "https://github.com/me",
            "https://github.com/me/..",
            "https://github.com/me/a..b",
            "https://github.com/me/proj/tree",
            "https://github.com/me/pr'oj",
            "/srv/git/proj",
        ] {
            assert_eq!(Repository::of_remote(url), None, "{url}");
        }
    }

    #[test]
    fn only_a_fine_grained_token_opens_graphql() {
        for (token, graph) in
            [("github_pat_x", Graph::Allowed), ("ghp_x", Graph::Refused), ("gho_x", Graph::Refused)]
        {
            assert_eq!(Graph::for_token(&Secret::new(token.into())), graph);
        }
    }

    proptest! {
        #[test]
        fn a_repository_can_be_written_between_single_quotes(text in "\\PC{0,12}/\\PC{0,12}") {
            if let Some(repository) = Repository::parse(&text) {
                let text = repository.to_string();
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b)));
            }
        }
    }
}
