//! The purpose of a session, which decides what it gets of the host.

use crate::agent;

/// The name of Atlassian's command line tool, which logs in by itself.
pub(crate) const ACLI: &str = "acli";

/// The purpose of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The agent works on the repository.
    Work,
    /// The user works in the agent's sandbox.
    Shell,
    /// A command of the agent changes its own set-up. It does not get the repository, whose settings and extensions
    /// would also run.
    SetUp,
    /// The user logs in to a provider. It gets nothing of the host, and alone can leave a login.
    Login,
    /// The agent renews the login of one provider, and does nothing else.
    Renew,
    /// A scripted model tries the walls of the sandbox, in a scratch repository.
    Demo,
    /// A script tries the walls of each kind of network, in a scratch repository.
    Proof,
}

impl Purpose {
    /// Whether it has to do with logins, and with nothing else.
    pub(crate) fn is_login(self) -> bool {
        matches!(self, Self::Login | Self::Renew)
    }

    /// Whether it is not for the user's work, and gets nothing of the user's own.
    pub(crate) fn is_bare(self) -> bool {
        matches!(self, Self::Login | Self::Renew | Self::Demo | Self::Proof)
    }
}

/// The program of a session, and its purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) purpose: Purpose,
    /// The agent's arguments. For a shell, the command with its arguments; for a login, the provider, if one was
    /// named.
    pub(crate) words: Vec<String>,
}

impl Program {
    /// The agent of this version, with these arguments.
    pub(crate) fn agent(words: Vec<String>, version: &str) -> Self {
        let sets_up = agent::changes_its_setup(&words, version);
        Self { purpose: if sets_up { Purpose::SetUp } else { Purpose::Work }, words }
    }

    /// Whether it is Atlassian's command line tool that logs in.
    pub(crate) fn is_acli(&self) -> bool {
        self.purpose == Purpose::Login && self.words == [ACLI]
    }

    /// Whether the session has the repository.
    pub(crate) fn sees_the_repository(&self) -> bool {
        !matches!(self.purpose, Purpose::SetUp | Purpose::Login | Purpose::Renew)
            || self.reads_the_repository()
    }

    /// Whether it is a set-up command with a path, which may read the repository.
    pub(crate) fn reads_the_repository(&self) -> bool {
        self.purpose == Purpose::SetUp && agent::names_a_path(&self.words)
    }
}
