//! What a container is made for: it decides what of the host goes along.

use crate::agent;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The agent works on the repository.
    Work,
    /// The user looks around where the agent would be.
    Shell,
    /// A command of the agent's own changes its set-up: without the repository, whose settings and extensions would run
    /// there as well.
    SetUp,
    /// A scripted model tries the walls, in a repository that does not last.
    Demo,
}

/// What runs inside, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) purpose: Purpose,
    /// The agent's arguments, or a command with its arguments in a shell's session.
    pub(crate) words: Vec<String>,
}

impl Program {
    /// The agent with these arguments; `version` is the agent's.
    pub(crate) fn agent(words: Vec<String>, version: &str) -> Self {
        let sets_up = agent::changes_its_setup(&words, version);
        Self { purpose: if sets_up { Purpose::SetUp } else { Purpose::Work }, words }
    }

    /// A set-up command that names a path may read the repository.
    pub(crate) fn reads_the_repository(&self) -> bool {
        self.purpose == Purpose::SetUp && agent::names_a_path(&self.words)
    }
}
