//! `pi drop`: removes a copy.

use crate::{
    copies::Held,
    launcher::Launcher,
    report::{self, Hinted},
    verb::copy::{At, branch},
};

/// Removes a copy of this repository. What cannot be brought in first is not removed unless the user says so.
pub(crate) fn run(launcher: &Launcher, name: &str, force: bool) -> anyhow::Result<u8> {
    let at = At::find(launcher, Some(name))?;
    let Some(mut held) = Held::take(&at.dir)? else {
        return Err(Hinted::error(
            format!("a session works on the copy `{name}`"),
            "end it with `pi stop` first",
        ));
    };
    let reach = at.reach(launcher);
    // Force does not help against a session that has it.
    reach.wait_until_free(&held)?;
    if let Err(error) = reach.bring_in(&mut held)
        && !force
    {
        let question =
            format!("{error:#}\npi: remove the copy `{name}` all the same, with what is only there?");
        let terminal = launcher.host.terminal;
        if !terminal.stdin || !terminal.stderr {
            return Err(Hinted::error(
                format!("{error:#}, so the copy `{name}` was not removed"),
                format!("`pi drop --force {name}` removes it with what is only there"),
            ));
        }
        if !report::ask(&question) {
            report::note(format_args!("the copy `{name}` stays"));
            return Ok(1);
        }
    }
    let branches: Vec<String> =
        held.copy.iter().flat_map(|copy| copy.branches.values()).map(|(name, _)| branch(name)).collect();
    reach.drop_copy(held)?;
    match branches.as_slice() {
        [] => {}
        [one] => report::note(format_args!("the branch {one} stays; `git branch -D` removes it")),
        several => report::note(format_args!("the branches {} stay", several.join(", "))),
    }
    Ok(0)
}
