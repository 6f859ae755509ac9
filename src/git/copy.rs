//! A copy of a repository, on which an agent works in a volume: what goes into it, what comes back, and how that gets into
//! the user's files.
//!
//! The host's git never sees the copy's own git directory. Commits go in and come back through git's own protocol, by a git
//! that runs in a container with nothing but the copy.

pub(crate) mod apply;
pub(crate) mod back;
pub(crate) mod compare;
pub(crate) mod contents;
pub(crate) mod lfs;
mod objects;
pub(crate) mod tar;

use std::path::PathBuf;

use super::risky::Ground;

/// Run in the container when all files are there: makes the index, remembers what was copied, and prints its commit.
pub(crate) const FILL: &str = include_str!("../../assets/copy/fill.sh");

/// Run in the container at the end: what is uncommitted becomes a commit.
pub(crate) const WIP: &str = include_str!("../../assets/copy/wip.sh");

/// Run in a container that has the copy: counts what has not come over.
pub(crate) const COUNT: &str = include_str!("../../assets/copy/count.sh");

/// Under these names the copy's git directory keeps what the launcher looks for.
const BASE: &str = "refs/pi/base";
const RESULT: &str = "refs/pi/result";
const OTHERS: &str = "refs/pi/other/";

/// Whether a file commonly runs on the host.
pub(crate) fn commonly_runs(path: &std::path::Path) -> bool {
    let mut parts: Vec<_> = path.iter().map(std::os::unix::ffi::OsStrExt::as_bytes).collect();
    let Some(name) = parts.pop() else { return false };
    parts.into_iter().fold(Ground::Ordinary, Ground::below).runs(name)
}

/// Paths as git prints them with `-z`.
fn paths(list: &[u8]) -> impl Iterator<Item = PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    list.split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}
