//! Mounts that the user asks for.

use std::path::PathBuf;

use anyhow::bail;

use super::usage;
use crate::{host::Host, inside::Access, report::one_line};

/// A mount that the user asked for, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountSpec {
    pub(crate) source: PathBuf,
    pub(crate) target: Option<PathBuf>,
    pub(crate) access: Access,
}

impl MountSpec {
    /// `SRC[:DST][:ro]`. A colon in a path is written `\:`, and a backslash before a colon or a backslash `\\`.
    pub(super) fn parse(text: &str, host: &Host) -> anyhow::Result<Self> {
        let (source, target, access) = usage(Self::split(text))?;
        Ok(Self { source: host.expand(&source), target: target.map(PathBuf::from), access })
    }

    pub(super) fn split(text: &str) -> anyhow::Result<(String, Option<String>, Access)> {
        let mut parts = fields(text);
        let last = if parts.len() > 1 { parts.last().map(String::as_str) } else { None };
        let access = if last == Some("ro") { Access::ReadOnly } else { Access::ReadWrite };
        if matches!(last, Some("ro" | "rw")) {
            parts.pop();
        }
        let mut parts = parts.into_iter();
        let (source, target) = (parts.next().unwrap_or_default(), parts.next());
        let shown = one_line(text);
        if parts.next().is_some() {
            bail!(
                "the mount `{shown}` has more parts than `SRC[:DST][:ro]`; write a colon in a path as `\\:`"
            );
        }
        if source.is_empty() || target.as_ref().is_some_and(|target| !target.starts_with('/')) {
            bail!("the mount `{shown}` is not `SRC[:DST][:ro]` with an absolute DST");
        }
        Ok((source, target, access))
    }
}

/// Splits at colons that have no backslash before them.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next_if(|next| matches!(next, ':' | '\\')) } else { None };
        match fields.last_mut() {
            Some(field) if c != ':' => field.push(escaped.unwrap_or(c)),
            _ => fields.push(String::new()),
        }
    }
    fields
}
