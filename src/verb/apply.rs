//! `pi apply`: brings what an agent has made of a copy into the work tree.

use crate::{
    copies::Copy,
    git::copy::{apply::apply, compare::Target},
    launcher::Launcher,
    report::{self, Finding, Hinted, one_line, shown_path},
    verb::copy::{At, branch as shown},
};

/// Applies exactly the commit that `pi diff` has shown last, or the one that is named.
pub(crate) fn run(launcher: &Launcher, name: Option<&str>, commit: Option<&str>) -> anyhow::Result<u8> {
    let at = At::find(launcher, name)?;
    let mut held = at.bring_in(launcher)?;
    let (branch, base) = at.result(held.as_ref())?;
    let own = &at.copy.name;
    let tip = at.tip(&branch)?;
    let copy = held.as_ref().and_then(|held| held.copy.as_ref()).unwrap_or(&at.copy).clone();
    let reviewed = copy.shown.clone();
    let is_named = |named: &str| {
        named.len() >= 7
            && named.bytes().all(|byte| byte.is_ascii_hexdigit())
            && tip.starts_with(&named.to_lowercase())
    };
    let short = &tip[..12];
    match (commit, reviewed) {
        (Some(named), _) if is_named(named) => {}
        (Some(named), _) => {
            return Err(Hinted::error(
                format!("{} is at {short}, not at `{}`", shown(&branch), one_line(named)),
                format!("nothing was applied; `pi diff {own}` shows what it has"),
            ));
        }
        (None, Some(reviewed)) if reviewed == tip => {}
        (None, reviewed) => {
            let why = if reviewed.is_some() {
                "has changed since `pi diff` showed it"
            } else {
                "was not shown yet"
            };
            return Err(Hinted::error(
                format!("{} {why}, so nothing was applied", shown(&branch)),
                format!(
                    "look at it with `pi diff {own}`, or name its commit: `pi apply {own} --commit {short}`"
                ),
            ));
        }
    }
    let owner = (launcher.host.uid == 0).then_some(at.workspace.owner);
    let target = Target { git: &at.git, repository: &at.repository };
    // What was applied before is in the files already.
    let bases: Vec<&str> = copy.applied.as_deref().into_iter().chain([base.as_str()]).collect();
    let applied = apply(&target, &target.compare(&bases, &tip)?, owner)?;
    if let Some(held) = &mut held {
        held.save(Copy { applied: Some(tip.clone()), ..copy })?;
    }
    for path in &applied.submodules {
        Finding::plain(format!("the submodule `{}` was left as it is", shown_path(path))).warn();
    }
    let files = applied.files;
    report::note(match files {
        0 => format!("your files have all of {} already", shown(&branch)),
        1 => format!("1 file is as in {} now; nothing is staged or committed", shown(&branch)),
        n => format!("{n} files are as in {} now; nothing is staged or committed", shown(&branch)),
    });
    Ok(0)
}
