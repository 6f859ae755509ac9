//! A git directory of the agent's own: how it is laid out, how the agent's commits come over to the host's repository, and
//! what is looked at in the work tree afterwards.
//!
//! ```text
//! decide ──► Private { binds } ──► lay_out ──► State      before the container
//!                                                │
//!                    Takeover::pass ◄────────────┘        while it runs, at its end, after a crash
//!                    scan::look                           at the start and at the end
//! ```
//!
//! What always holds:
//! - The host's git is started by [`command`] alone: with an environment from nothing, without hooks, bounded in time and
//!   output.
//! - It never has a directory that an agent could write as its repository or as its source. The agent's objects come
//!   through git's own protocol, from a git that runs inside of a container.
//! - They land in a store of the launcher's, and move into the repository when git has checked them.

pub(crate) mod command;
pub(crate) mod config;
pub(crate) mod copy;
pub(crate) mod discard;
mod follow;
mod give;
pub(crate) mod given;
pub(crate) mod left;
mod names;
pub(crate) mod private;
pub(crate) mod programs;
mod quarantine;
pub(crate) mod repository;
pub(crate) mod risky;
pub(crate) mod scan;
pub(crate) mod state;
mod swap;
pub(crate) mod takeover;
pub(crate) mod trees;

#[cfg(test)]
mod tests;
