//! The login that sessions share.

use std::{fs, path::Path};

use rustix::process::Signal;

use super::{OWN, at_work, clients, gone, kill_watchers, world};
use crate::world::{World, fake::shell, files::write, wait::until_true};

#[test]
fn a_login_that_was_cut_short_is_restored() {
    let world = world();
    let login = world.agent_dir().join("auth.json");
    write(&login, "{\"key\":1}");
    let cut = format!("printf '{{\"ke' >{}; exits {OWN}", shell(login.to_str().unwrap()));
    world.docker().rule("start-agent", &cut);
    let login_path = login.display();
    world.run_pi(&["-p", "x"]).is(
        OWN,
        "",
        &format!("pi: warning: `{login_path}` was cut short; it is again as it was when the session began\n"),
    );
    assert_eq!(fs::read_to_string(&login).unwrap(), "{\"key\":1}");
    // One that the agent has changed as a whole stays.
    let changed = format!("printf '{{\"key\":2}}' >{}; exits {OWN}", shell(login.to_str().unwrap()));
    world.docker().rule("start-agent", &changed);
    world.run_pi(&["-p", "x"]).is(OWN, "", "");
    assert_eq!(fs::read_to_string(&login).unwrap(), "{\"key\":2}");
}

#[test]
fn a_login_that_was_cut_short_by_a_kill_is_restored_too() {
    let world = world();
    let login = world.agent_dir().join("auth.json");
    write(&login, "{\"key\":1}");
    let pi = at_work(&world, &["-p", "x"]);
    fs::write(&login, "").unwrap();
    pi.signal_group(Signal::KILL);
    pi.wait();
    gone(&world);
    assert_eq!(fs::read_to_string(&login).unwrap(), "{\"key\":1}");
}

/// A login of the user's own, and what an agent makes of it: a token is rotated, a login is new, and two run a command.
const BEFORE: &str = r#"{"mine":{"key":"!op read mine"},"plain":{"refresh":"1"}}"#;
const AFTER: &str =
    r#"{"mine":{"key":"!op read mine; id"},"plain":{"refresh":"2"},"new":{"key":"k"},"worse":{"key":"!id"}}"#;
const MENDED: &str = r#"{"mine":{"key":"!op read mine"},"plain":{"refresh":"2"},"new":{"key":"k"}}"#;

#[track_caller]
fn holds(login: &Path, expected: &str) {
    let [found, expected] = [&fs::read_to_string(login).unwrap(), expected]
        .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
    assert_eq!(found, expected);
}

/// A login that the agent writes.
fn poisoned(world: &World) -> std::path::PathBuf {
    let login = world.agent_dir().join("auth.json");
    write(&login, BEFORE);
    let rule = format!("printf %s {} >{}; exits {OWN}", shell(AFTER), shell(login.to_str().unwrap()));
    world.docker().rule("start-agent", &rule);
    login
}

#[test]
fn a_command_that_a_session_puts_into_the_login_does_not_outlive_it() {
    let world = world();
    let login = poisoned(&world);
    let said = format!(
        "pi: warning: the session, or you beside it, put a command (`!op read mine; id`) for `mine` into `{0}`; that entry \
         is as it was before\n\
         pi: warning: the session, or you beside it, put a command (`!id`) for `worse` into `{0}`; that entry is removed\n",
        login.display()
    );
    world.run_pi(&["-p", "x"]).is(OWN, "", &said);
    holds(&login, MENDED);
    world.assert_nothing_left();
    // What the user writes between two sessions is the user's own.
    write(&login, AFTER);
    world.run_pi(&["-p", "x"]).is(OWN, "", "");
    holds(&login, AFTER);
}

#[test]
fn a_command_of_a_session_that_was_killed_does_not_outlive_it_either() {
    let world = world();
    let login = poisoned(&world);
    let pi = at_work(&world, &["-p", "x"]);
    fs::write(&login, AFTER).unwrap();
    pi.signal_group(Signal::KILL);
    pi.wait();
    gone(&world);
    holds(&login, MENDED);
}

#[test]
fn the_next_session_does_not_see_the_command_of_a_dead_one() {
    let world = world();
    let login = poisoned(&world);
    let pi = at_work(&world, &["-p", "x"]);
    fs::write(&login, AFTER).unwrap();
    kill_watchers(&world);
    pi.signal_group(Signal::KILL);
    pi.wait();
    until_true("the end of the clients", || clients(&world).is_empty());
    let seen = world.root().join("seen");
    let [from, to] = [&login, &seen].map(|path| shell(path.to_str().unwrap()));
    // However long the engine takes to remove what is dead.
    world.docker().rule("rm", "late 0.5");
    world.docker().rule("start-agent", &format!("cat {from} >{to}; exits {OWN}"));
    world.run_pi(&["-p", "y"]).has_code(OWN);
    holds(&seen, MENDED);
    gone(&world);
}

#[test]
fn no_session_starts_on_a_command_that_came_while_another_one_runs() {
    let world = world();
    let login = poisoned(&world);
    let first = at_work(&world, &["-p", "x"]);
    // The user's own command was there before, so a second session may run beside the first one.
    world.docker().rule("start-agent", &format!("exits {OWN}"));
    world.run_pi(&["-p", "y"]).is(OWN, "", "");
    fs::write(&login, AFTER).unwrap();
    let calls = world.docker().kinds().len();
    let said = format!(
        "pi: error: `{}` has got a command (`!op read mine; id`) for `mine` since the other sessions began: one of them \
         has put it there, or you have\n\
         pi: hint: `pi stop --all` ends the other sessions, which undoes it; if you wrote it yourself, do so again after that\n",
        login.display()
    );
    world.run_pi(&["-p", "y"]).is(125, "", &said);
    assert_eq!(world.docker().kinds().len(), calls);
    first.signal(Signal::TERM);
    first.wait().has_code(143);
    holds(&login, MENDED);
    world.run_pi(&["-p", "y"]).is(OWN, "", "");
    world.assert_nothing_left();
}
