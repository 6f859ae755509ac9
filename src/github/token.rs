//! The user's token for GitHub.

use std::{ffi::OsStr, io::Read as _, os::unix::fs::MetadataExt as _};

use anyhow::Context as _;

use super::Sources;
use crate::{
    agent_dir::notice::Notice,
    broker::{
        command::{LIMIT, Setting},
        credentials::header_value,
    },
    config::GitHubToken,
    files::{Links, open_small},
    keys::Commands,
    report::Hinted,
    secret::Secret,
    written::Written,
};

const VARIABLE: &str = "PI_GH_TOKEN";
const FILE: &str = "gh-token";
const COMMAND: &str = "gh auth token --hostname github.com";

/// From the environment, else from the user's file, else from the host's `gh` where the settings say so.
pub(super) fn token(
    sources: &Sources<'_>,
    written: &Written,
    notices: &mut Vec<Notice>,
) -> anyhow::Result<Option<Secret>> {
    let host = sources.host;
    if let Some(value) = host.env.get(OsStr::new(VARIABLE)).filter(|value| !value.is_empty()) {
        return checked(&Secret::new(value.clone()), VARIABLE).map(Some);
    }
    if let Some(token) = from_file(sources)? {
        return Ok(Some(token));
    }
    if sources.config.github_token != GitHubToken::Gh {
        return Ok(None);
    }
    if sources.commands == Commands::Skip {
        return Ok(Some(Secret::new("left-out".into())));
    }
    let path = written.search_path(host);
    let setting = Setting::new(&host.env, &host.home, path, |path| written.is_fit(path));
    match setting.run(COMMAND, LIMIT) {
        Ok(token) => checked(&token, "`gh auth token`").map(Some),
        Err(failure) => {
            notices.push(Notice::new(
                format!("the token of `gh` for GitHub is not used: {failure}"),
                "`gh auth login` on this machine makes one",
            ));
            Ok(None)
        }
    }
}

fn from_file(Sources { host, .. }: &Sources<'_>) -> anyhow::Result<Option<Secret>> {
    let path = host.config_file().with_file_name(FILE);
    let shown = path.display();
    let file = match open_small(&path, Links::Refuse, false) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("could not open `{shown}`"))?,
    };
    let meta = file.metadata()?;
    let is_ours = meta.uid() == host.uid || host.uid == 0;
    if !is_ours || meta.mode().trailing_zeros() < 6 {
        return Err(Hinted::error(
            format!("`{shown}` can be read by others, or is theirs, so the token in it is not used"),
            format!("`chmod 600 {shown}`, and make a new token if somebody may have read it"),
        ));
    }
    let mut text = String::new();
    file.take(1 << 16).read_to_string(&mut text).with_context(|| format!("could not read `{shown}`"))?;
    checked(&Secret::new(text.into()), &format!("`{shown}`")).map(Some)
}

fn checked(token: &Secret, from: &str) -> anyhow::Result<Secret> {
    header_value(token).map_err(|why| {
        let why = why.replace("its key", "it");
        anyhow::anyhow!("the token for GitHub in {from} cannot be used: {why}")
    })
}
