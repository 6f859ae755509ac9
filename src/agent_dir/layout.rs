//! What a session gets of the live directory, as a value: decided without looking at anything.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    entry::{
        KEYS, LOGINS, MODELS, OTHER_LOGINS, PACKAGES, Persist, Role, SETTINGS, TRANSCRIPTS, TRUST, fits,
        transcripts_of,
    },
    fd::Kind,
    laid::{AUTHORITIES, OPEN},
    live::{Found, Live},
    login::EMPTY,
    notice::{Notice, in_agent_dir},
    settings::{self, Scope},
    trust::{self, Decisions},
};
use crate::{
    files::Identity,
    inside::Access,
    report::shown_path,
    secret::{Secret, Value},
};

/// Everything that decides about a layout.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) live: &'a Live,
    pub(crate) root: &'a Path,
    /// Where the agent works, as it sees it inside.
    pub(crate) cwd: &'a Path,
    /// The agent's `models.json` and `auth.json` of this session.
    pub(crate) models: Value,
    pub(crate) logins: Value,
    /// Whether the session gets the logins of MCP servers.
    pub(crate) other_logins: OtherLogins,
    pub(crate) persist: &'a [Persist],
    /// What former sessions have decided about trust.
    pub(crate) decisions: &'a Decisions,
    pub(crate) scope: Scope,
}

/// Whether a session gets the logins of MCP servers, which no broker can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherLogins {
    Outside,
    Inside,
}

/// The agent's directory of one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) scope: Scope,
    /// Files of the session's own.
    pub(crate) copies: Vec<Copy>,
    /// What is read where it is, in the live directory.
    pub(crate) read: Vec<Read>,
    /// What is written where it is, in the live directory.
    pub(crate) kept: Vec<Kept>,
    /// What is written in a copy, which is exchanged for the live one afterwards.
    pub(crate) staged: Vec<&'static str>,
    pub(crate) notices: Vec<Notice>,
}

/// A file that the session gets a copy of, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) name: &'static str,
    pub(crate) text: Value,
    pub(crate) access: Access,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) identity: Identity,
}

/// Below the live directory and, inside, below the agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    Transcripts(OsString),
    /// The file itself: a token that the agent renews must be the one that the next session has.
    OtherLogins,
    /// A file or a directory, whichever is there; else what its name looks like.
    Entry(Persist),
}

impl Layout {
    pub(crate) fn new(inputs: &Inputs<'_>) -> Self {
        let Inputs { live, root, cwd, models, logins, other_logins, persist, decisions, scope } = inputs;
        if *scope == Scope::Login {
            return Self::login();
        }
        let mut notices = live.notices.clone();
        let settings = settings::for_session(live.text(SETTINGS)).unwrap_or_else(|why| {
            notices.push(Notice::plain(format!(
                "could not read `{}`, so the session begins without it: {why}",
                in_agent_dir(&live.path, SETTINGS)
            )));
            String::new()
        });
        if settings::has_own_place_for_transcripts(live.text(SETTINGS)) {
            notices.push(
                Notice::new(
                    "`sessionDir` is not used inside: one directory would show a session all projects' transcripts",
                    format!(
                        "transcripts of sessions are in `{}`; `pi --session-dir` on the host reads them",
                        in_agent_dir(&live.path, TRANSCRIPTS)
                    ),
                )
                .once("sessionDir"),
            );
        }
        let host = trust::parse(live.text(TRUST)).unwrap_or_default();
        let secret = |text: &str| Value::Secret(Secret::new(text.into()));
        let copy = |name, text: &str, access| Copy { name, text: secret(text), access };
        let writable = Copy::writable;
        // Two that are always there: an agent that made them itself would leave nothing to take back.
        let settings = if settings.is_empty() { "{}" } else { &settings };
        let trust = trust::text(&trust::for_session(&host, decisions, root));
        let mut copies = vec![writable(SETTINGS, settings), writable(TRUST, &trust)];
        copies.push(Copy { name: LOGINS, text: logins.clone(), access: Access::ReadWrite });
        copies.push(Copy { name: MODELS, text: models.clone(), access: Access::ReadOnly });
        copies.extend(live.texts.get(KEYS).map(|text| copy(KEYS, text, Access::ReadOnly)));
        let mut layout = Self { scope: *scope, copies, read: vec![], kept: vec![], staged: vec![], notices };
        for (name, found) in &live.entries {
            if !persist.iter().any(|entry| entry.name() == name) {
                layout.add(name, *found, live);
            }
        }
        match scope {
            Scope::SetUp => layout.staged.extend(PACKAGES),
            Scope::Session => layout.keep(cwd, persist, *other_logins, live),
            Scope::Login => {}
        }
        layout
    }

    /// Nothing of the live directory, not even the other logins.
    fn login() -> Self {
        let copies =
            vec![Copy::writable(SETTINGS, "{}"), Copy::writable(TRUST, "{}"), Copy::writable(LOGINS, EMPTY)];
        Self { scope: Scope::Login, copies, ..Self::default() }.that_opens()
    }

    /// The same with these logins.
    pub(crate) fn with_logins(mut self, text: &str) -> Self {
        self.copies.retain(|copy| copy.name != LOGINS);
        self.copies.push(Copy::writable(LOGINS, text));
        self
    }

    /// The same with certificates by which the agent knows providers.
    pub(crate) fn with_authorities(mut self, text: &str) -> Self {
        let text = Value::Plain(text.to_owned());
        self.copies.push(Copy { name: AUTHORITIES, text, access: Access::ReadOnly });
        self
    }

    pub(crate) fn has_authorities(&self) -> bool {
        self.copies.iter().any(|copy| copy.name == AUTHORITIES)
    }

    /// The same for a session that may ask for addresses to be opened.
    pub(crate) fn that_opens(mut self) -> Self {
        self.copies.push(Copy::writable(OPEN, ""));
        self
    }

    fn add(&mut self, name: &str, Found { kind, identity }: Found, live: &Live) {
        let role = Role::of(name);
        let shown = in_agent_dir(&live.path, name);
        let real = live.links.get(name).map_or_else(|| shown.clone(), |to| shown_path(to));
        let by_hand = format!(
            "`mounts = [\"{real}:/home/pi/.pi/agent/{name}:ro\"]` in the config lets sessions read it"
        );
        match (role, kind) {
            // Staged, and so mounted from there.
            (Role::Package, _) if self.scope == Scope::SetUp => {}
            (Role::Copied | Role::Login, Kind::Link) => self.notices.push(
                Notice::new(
                    format!("`{shown}` is a link, so sessions have none of it and keep nothing in it"),
                    "put the file itself there",
                )
                .once(format!("link {name}")),
            ),
            (Role::Read | Role::Package | Role::Unknown, Kind::Link) => self.notices.push(
                Notice::new(format!("`{shown}` is a link, so sessions do not have it"), by_hand)
                    .once(format!("link {name}")),
            ),
            (Role::Read | Role::Package, Kind::File | Kind::Directory) => match identity {
                Some(identity) => self.read.push(Read { name: name.to_owned(), kind, identity }),
                None => self.notices.push(Notice::plain(format!(
                    "`{shown}` cannot be opened, so the session does not have it"
                ))),
            },
            (Role::Unknown, Kind::File | Kind::Directory) => self.notices.push(
                Notice::new(
                    format!("sessions do not have `{shown}`: it may be a login of an extension's"),
                    format!("`persist = [\"{name}\"]` in the config lets them read and write it; {by_hand}"),
                )
                .once(format!("unknown {name}")),
            ),
            (Role::Dropped | Role::Login | Role::Transcripts, _)
            | (_, Kind::Other)
            | (Role::Copied, Kind::File | Kind::Directory) => {}
        }
    }

    fn keep(&mut self, cwd: &Path, persist: &[Persist], other_logins: OtherLogins, live: &Live) {
        match other_logins {
            _ if !live.entries.contains_key(OTHER_LOGINS) => {}
            OtherLogins::Inside => self.kept.push(Kept::OtherLogins),
            OtherLogins::Outside => self.notices.push(
                Notice::new(
                    format!("sessions do not have `{}`", in_agent_dir(&live.path, OTHER_LOGINS)),
                    "`keys = { mcp = \"env\" }` in the config lets them use these logins of MCP servers",
                )
                .once(OTHER_LOGINS),
            ),
        }
        let transcripts = transcripts_of(cwd);
        if fits(&transcripts) {
            self.kept.push(Kept::Transcripts(transcripts));
        } else {
            self.notices.push(Notice::plain(format!(
                "the path `{}` is too long for the agent to keep transcripts of it",
                cwd.display()
            )));
        }
        self.kept.extend(persist.iter().cloned().map(Kept::Entry));
    }
}

impl Copy {
    fn writable(name: &'static str, text: &str) -> Self {
        Self { name, text: Value::Secret(Secret::new(text.into())), access: Access::ReadWrite }
    }
}

impl Kept {
    /// Where it is below the agent's directory.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Transcripts(name) => Path::new(TRANSCRIPTS).join(name),
            Self::OtherLogins => OTHER_LOGINS.into(),
            Self::Entry(persist) => persist.name().into(),
        }
    }
}

#[cfg(test)]
mod tests;
