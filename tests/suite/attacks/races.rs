//! Attackers who exchange what the launcher is about to make, give away or mount: one inside a session, with all that
//! sessions can write, and one on this machine, who can write the agent's whole directory, which no session can. The launcher
//! is root where the tests are.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::world::{
    World,
    call::Running,
    files::{children, make_dir, owner_of, write},
    model::source,
    wait::until_true,
};

const SECRET: &str = "the-users-own-secret-5e8a";

/// A directory of the user's that no session has, and what it is like.
fn outside(world: &World) -> PathBuf {
    let dir = world.home().join(".ssh");
    write(dir.join("id"), SECRET);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o710)).unwrap();
    dir
}

/// Its mode, its owner, what is in it, and the secret.
type State = (u32, (u32, u32), Vec<PathBuf>, String);

fn state(dir: &Path) -> State {
    let meta = fs::metadata(dir).unwrap();
    let secret = fs::read_to_string(dir.join("id")).unwrap_or_default();
    (meta.permissions().mode(), (meta.uid(), meta.gid()), children(dir), secret)
}

/// The attacker on this machine, as the owner of the agent's directory.
fn attack(world: &World, stop: &Path, outside: &Path, dir: &Path) -> Running {
    let words = [source("tests/suite/attacks/swap.pl"), stop.to_owned(), outside.to_owned(), dir.to_owned()];
    world.as_owner("perl").args(&words).limit(Duration::from_secs(900)).start()
}

/// Looks through everything that is mounted, and tries to leave something there.
const LOOK: &str = "
    for p in $(cut -d' ' -f5 /proc/self/mountinfo | grep -v '^/proc\\|^/sys\\|^/dev\\|^/$'); do
        find \"$p\" -xdev -maxdepth 3 -type f -size -100k -exec cat {} + 2>/dev/null
        [ -d \"$p\" ] && : >\"$p/planted\" 2>/dev/null
    done | grep -c @SECRET
    for p in ~/.pi/agent/* ~/.pi/agent/sessions/*; do cat \"$p/id\" 2>/dev/null; done; echo looked
";

/// `PI_TEST_RACES=100` is the whole test; the suite has a few starts of it.
#[test]
fn starts_that_race_with_attackers_reach_nothing_outside() {
    let count: u32 = std::env::var("PI_TEST_RACES").ok().map_or(4, |text| text.parse().unwrap());
    let world = World::with_model();
    world.configure("persist = [\"memory\"]");
    make_dir(&world.agent_dir().join("memory"));
    make_dir(&world.agent_dir().join("sessions"));
    let outside = outside(&world);
    let before = state(&outside);
    let own = world.repo().join("swap.pl");
    write(&own, fs::read(source("tests/suite/attacks/swap.pl")).unwrap());
    let inside = format!(
        "touch up; perl swap.pl stop {} ~/.pi/agent/memory ~/.pi/agent/sessions ~/.pi/agent ~/.pi/agent/sessions/--* .",
        outside.display()
    );
    let session = world.shell(&[], &inside).limit(Duration::from_secs(900)).start();
    until_true("the attacker inside", || world.repo().join("up").exists());
    let stop = world.root().join("stop");
    let attacker = attack(&world, &stop, &outside, &world.agent_dir());
    let script = LOOK.replace("@SECRET", SECRET);
    let (mut began, mut refused) = (0, 0);
    for n in 0..count {
        let outcome = world.shell(&[], &script).run();
        assert!(!format!("{outcome:?}").contains(SECRET), "{n}: {outcome:#?}");
        match outcome.code {
            Some(0) => {
                began += 1;
                assert!(
                    outcome.out.starts_with("0\n") && outcome.out.ends_with("looked\n"),
                    "{n}: {outcome:#?}"
                );
            }
            // What was exchanged at that moment ends the start.
            Some(125) => refused += 1,
            _ => panic!("{n}: {outcome:#?}"),
        }
        assert_eq!(state(&outside), before, "{n}: {outcome:#?}");
    }
    write(&stop, "");
    write(world.repo().join("stop"), "");
    attacker.wait().has_code(0);
    session.wait();
    assert_eq!(state(&outside), before);
    println!(
        "{count} starts beside two attackers: {began} began, {refused} were refused, none reached anything"
    );
    control(&world, &outside, &before);
    world.assert_nothing_left();
}

/// The attack is real: somebody who makes and gives away by name, as older releases did, hands over what is outside.
fn control(world: &World, outside: &Path, before: &State) {
    let dir = world.root().join("unprotected");
    make_dir(&dir);
    fs::set_permissions(outside, fs::Permissions::from_mode(0o777)).unwrap();
    let stop = world.root().join("stop-control");
    let attacker = attack(world, &stop, outside, &dir);
    let naive = format!(
        "d={}; n=0; while [ $n -lt 3000 ]; do n=$((n+1)); mkdir -p $d/sessions 2>/dev/null; chmod 755 $d/sessions \
         2>/dev/null; cat $d/sessions/id 2>/dev/null && : >$d/read; echo planted 2>/dev/null >$d/sessions/planted; \
         [ -e $d/read ] && [ -e {}/planted ] && exit 0; done; exit 1",
        dir.display(),
        outside.display()
    );
    let victim = world.script(&naive).limit(Duration::from_secs(120)).run();
    write(&stop, "");
    attacker.wait().has_code(0);
    assert!(victim.code == Some(0) && victim.out.starts_with(SECRET), "the attack is none: {victim:?}");
    let after = state(outside);
    assert_eq!(after.2.len(), before.2.len() + 1, "{after:?}");
    assert_eq!(owner_of(outside), world.owner());
}
