//! The agent's directory: what a session gets of the live `~/.pi/agent`, and what comes back into it.
//!
//! A session never has the live directory. Inside, `~/.pi/agent` lies in memory of the container's own; into it come,
//! one by one:
//!
//! - single files of the session's own, in the session's state directory: copies of the settings, of this repository's
//!   trust decisions, of the key bindings and the models;
//! - what is code or text, from the live directory, read-only;
//! - this project's transcripts, the files of logins, and what the user's settings say that sessions may write.
//!
//! So the agent's locks and caches need no place on the host, and nothing that an agent writes is a directory tree that
//! the launcher would have to read or remove. The files are on the host's disk, so what was set inside is there when the
//! launcher was killed: [`take_back::take_back`] needs the session's directory and nothing else.
//!
//! | module | knows |
//! |---|---|
//! | [`entry`] | what each name in the directory stands for |
//! | [`live`], [`layout`] | what is there, and what a session gets of it (pure) |
//! | [`laid`] | the layout on the disk, and how it is found again |
//! | [`settings`], [`trust`] | what of these texts may come back (pure) |
//! | [`take_back`], [`lock`] | bringing it back beside a running agent of the host's |
//! | [`login`] | logins: what may come out of a session that makes one, and the live file |
//! | [`staged`], [`tree`] | packages that are installed or removed, and how a tree is copied without trusting it |
//! | [`fd`] | directories by descriptor |
//! | [`notice`] | what is told, and what was told before |

pub(crate) mod entry;
pub(crate) mod fd;
pub(crate) mod laid;
pub(crate) mod layout;
pub(crate) mod live;
pub(crate) mod lock;
pub(crate) mod login;
pub(crate) mod notice;
pub(crate) mod settings;
pub(crate) mod staged;
pub(crate) mod take_back;
pub(crate) mod tree;
pub(crate) mod trust;

#[cfg(test)]
mod tests;
