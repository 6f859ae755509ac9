//! What files in commits hold, and how large they are, asked of git by their names.

use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::git::{
    command::{Call, Failure, Git},
    repository::Repository,
};

/// How much git may print of them: two files of a gibibyte each, and more.
const OUTPUT: u64 = (2 << 30) + (64 << 20);

/// A command that answers about each of these objects.
fn about<'o>(
    git: &Git,
    repository: &Repository,
    mode: &str,
    oids: impl IntoIterator<Item = &'o str>,
) -> Call {
    let asked = oids.into_iter().fold(String::new(), |text, oid| text + oid + "\n");
    git.within(repository).args(["cat-file", mode]).stdin(asked.into_bytes())
}

/// How large files are, without those that are none or not there.
pub(super) fn sizes<'o>(
    git: &Git,
    repository: &Repository,
    oids: impl IntoIterator<Item = &'o str>,
) -> Result<BTreeMap<String, u64>, Failure> {
    let said = about(git, repository, "--batch-check", oids).text()?;
    let size = |line: &str| match line.split(' ').collect::<Vec<_>>().as_slice() {
        [oid, "blob", size] => Some(((*oid).to_owned(), size.parse().ok()?)),
        _ => None,
    };
    Ok(said.lines().filter_map(size).collect())
}

/// What is in files, by their names.
///
/// # Errors
/// One of them is not there, or is no file.
pub(super) fn contents<'o>(
    git: &Git,
    repository: &Repository,
    oids: impl IntoIterator<Item = &'o str>,
) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut oids = oids.into_iter().peekable();
    if oids.peek().is_none() {
        return Ok(BTreeMap::new());
    }
    let said = about(git, repository, "--batch", oids).output(OUTPUT).run()?;
    parse(&said).context("git left out a file")
}

/// `OID blob SIZE`, newline, contents, newline.
fn parse(said: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut rest = said;
    let mut all = BTreeMap::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let words: Vec<&str> = std::str::from_utf8(&rest[..end]).ok()?.split(' ').collect();
        let [oid, "blob", size] = words.as_slice() else { return None };
        let size: usize = size.parse().ok()?;
        let bytes = rest.get(end + 1..end + 1 + size)?;
        all.insert((*oid).to_owned(), bytes.to_vec());
        rest = rest.get(end + 2 + size..)?;
    }
    Some(all)
}
