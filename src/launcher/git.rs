//! How a session has the repository's git directory, and what its user is told of it first.

use std::path::Path;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::{Launcher, Prepared};
use crate::{
    agent_dir::{notice::Notice, take_back::untold},
    cli::DryRun,
    config::{Access, GitAccess, Network},
    git::{
        given::{Asked, DIRECTORY, Given},
        scan::{Seen, Top},
    },
    host::hex,
    purpose::Purpose,
    record::{self, SessionId},
    report::{self, Hinted},
    written::{Written, real},
};

/// How many programs and sockets are named.
const NAMED: usize = 6;

/// Decides it, and tells what is to be told.
pub(super) fn given(launcher: &Launcher, prepared: &Prepared, id: &SessionId) -> anyhow::Result<Given> {
    let Prepared { workspace, config, program, .. } = prepared;
    let host = &launcher.host;
    // The repository of a demonstration is removed with it, and a set-up command writes in none.
    if matches!(program.purpose, Purpose::Demo | Purpose::SetUp | Purpose::Login | Purpose::Renew) {
        return Ok(Given::shared(workspace));
    }
    // A copy has a git directory of its own.
    if prepared.cloning.is_some() {
        let given = Given::default();
        look_for_sockets(prepared, &given)?;
        return Ok(given);
    }
    if config.git != GitAccess::Shared && launcher.options.dry_run == Some(DryRun::Script) {
        return Given::to_read(workspace);
    }
    let given = Given::of(&Asked {
        host,
        workspace,
        written: &Written::load(host).and(workspace.dirs()).and_around(host),
        access: config.git,
        dir: &real(&record::directory(host, id)).join(DIRECTORY),
    })?;
    if let Some(reason) = &given.reason {
        report::warn(format_args!("the agent can read this repository's history, but not commit: {reason}"));
    }
    check_mounts(prepared, &given)?;
    tell_programs(launcher, &workspace.root, &given.programs)?;
    look_for_sockets(prepared, &given)?;
    Ok(given)
}

/// Refuses mounts by which the agent could write the repository's git directory after all, or that would take the place of
/// what guards it.
fn check_mounts(prepared: &Prepared, given: &Given) -> anyhow::Result<()> {
    let Prepared { workspace, config, facts, .. } = prepared;
    let Some(common) = workspace.git_config.as_ref().and_then(|file| file.parent()) else { return Ok(()) };
    if config.git == GitAccess::Shared {
        return Ok(());
    }
    for bind in &facts.binds {
        if given.binds.iter().any(|own| own.target == bind.target) {
            return Err(Hinted::usage_hinted(
                format!(
                    "`{}` cannot be mounted there: the session has what belongs to git at that place",
                    bind.target.display()
                ),
                "name another place with `--mount SRC:DST`",
            ));
        }
        if bind.access == Access::ReadOnly {
            continue;
        }
        // At its own path, what is above the git directory has the session's own below it.
        let is_covered = bind.source == bind.target && common.starts_with(&bind.source);
        if bind.source.starts_with(common) || common.starts_with(&bind.source) && !is_covered {
            return Err(Hinted::error(
                format!(
                    "`{}` cannot be writable for the agent: it is or holds this repository's git directory",
                    bind.source.display()
                ),
                "what the agent writes there would run on this machine; mount it with `:ro`",
            ));
        }
        if !bind.source.starts_with(&workspace.root) && bind.source.join(".git").exists() {
            report::warn(format_args!(
                "the agent can write `{}`, and what it writes there can run on this machine; `:ro` prevents that",
                bind.source.join(".git").display()
            ));
        }
    }
    Ok(())
}

/// Names the programs that a repository has git run on this machine: somebody else may have written its config. Each state
/// of it is told once.
fn tell_programs(launcher: &Launcher, root: &Path, programs: &[String]) -> anyhow::Result<()> {
    if programs.is_empty() {
        return Ok(());
    }
    let about = Sha256::digest(format!("{}\n{}", root.display(), programs.join("\n")));
    let lines: Vec<&str> = programs.iter().map(String::as_str).collect();
    let notice = Notice::new(
        format!("git on this machine runs programs that `{}` names: {}", root.display(), some(&lines, "\n")),
        "if this repository came from somebody else, look at its `.git/config` and `.git/hooks` first",
    )
    .once(format!("programs {}", hex(&about)));
    let fresh = match launcher.options.dry_run {
        Some(_) => vec![notice],
        None => untold(vec![notice], &real(&launcher.host.state_dir()))?,
    };
    fresh.iter().for_each(Notice::say);
    Ok(())
}

/// A socket leads to whoever listens on it, also from a session without a network, and also where it is mounted read-only.
fn look_for_sockets(prepared: &Prepared, given: &Given) -> anyhow::Result<()> {
    let Prepared { workspace, config, facts, .. } = prepared;
    let is_restricted = config.network != Network::Open;
    let mut found: Vec<_> = given.sockets.iter().map(|path| workspace.root.join(path)).collect();
    // A socket that was asked for by its own name is meant.
    for bind in facts.binds.iter().filter(|bind| is_restricted && bind.source.is_dir()) {
        let seen = Seen::look(&bind.source, Top::Directory)
            .with_context(|| format!("could not look at `{}`", bind.source.display()))?;
        found.extend(seen.sockets.iter().map(|path| bind.source.join(path)));
    }
    if found.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = found.iter().map(|path| format!("`{}`", path.display())).collect();
    let names = some(&names.iter().map(String::as_str).collect::<Vec<_>>(), ", ");
    if is_restricted {
        return Err(Hinted::error(
            format!("the agent could leave its network by a socket: {names}"),
            "end what listens there and remove it, or have it elsewhere; `--mount SOCKET` gives one on purpose",
        ));
    }
    report::warn(format_args!("the agent can talk to what listens on {names}"));
    Ok(())
}

/// The first of many.
fn some(all: &[&str], between: &str) -> String {
    let first = all.iter().take(NAMED).copied().collect::<Vec<_>>().join(between);
    match all.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first}{between}and {more} more"),
    }
}
