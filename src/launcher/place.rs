//! Where the logins are of sessions that are started where the user stands.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use anyhow::Context as _;

use crate::{
    agent::{CREDENTIAL_PATHS, SECRETS},
    facts,
    host::{Host, Owner},
    report::Hinted,
    workspace::Workspace,
    written::Written,
};

/// The place of logins, and whose sessions use them.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) owner: Owner,
    /// The agent's directory.
    pub(crate) live: PathBuf,
}

impl Place {
    /// # Errors
    /// The way there leads over a link that an agent may have made.
    pub(crate) fn of(host: &Host) -> anyhow::Result<Self> {
        let home = || {
            let meta = fs::metadata(&host.home)
                .with_context(|| format!("could not look at `{}`", host.home.display()))?;
            Workspace::empty(&host.home, Owner { uid: meta.uid(), gid: meta.gid() })
        };
        // One logs in from anywhere.
        let workspace = Workspace::find(host).or_else(|_| home())?;
        let (who, _) = facts::who(host, &workspace);
        let (dir, _) = facts::agent_dir(host, who);
        let live = Written::load(host).and_around(host).follow(&dir).map_err(|astray| {
            Hinted::error(astray.to_string(), "`~/.pi/agent` must not depend on it; remove the link")
        })?;
        Ok(Self { owner: workspace.owner, live })
    }
}

/// The same machine without keys: a session that logs in needs none.
pub(crate) fn without_keys(host: &Host) -> Host {
    let mut env = host.env.clone();
    let is_key =
        |name: &str| SECRETS.contains(&name) || CREDENTIAL_PATHS.contains(&name) || name == "PI_GH_TOKEN";
    env.retain(|name, _| !name.to_str().is_some_and(is_key));
    Host { env, ..host.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_logs_in_gets_no_key() {
        let mut host = Host::for_tests();
        for name in
            ["ANTHROPIC_API_KEY", "PI_GH_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "TERM", "https_proxy"]
        {
            host.env.insert(name.into(), "x".into());
        }
        let left = without_keys(&host).env;
        assert_eq!(left.keys().collect::<Vec<_>>(), ["TERM", "https_proxy"]);
    }
}
