use std::{fs, os::unix::fs::symlink};

use super::*;

struct World {
    _dir: tempfile::TempDir,
    live: PathBuf,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let live = fs::canonicalize(dir.path()).unwrap().join("agent");
        fs::create_dir_all(live.join("npm/node_modules/a")).unwrap();
        fs::write(live.join("npm/node_modules/a/index.js"), "1").unwrap();
        fs::write(live.join("auth.json"), "keys").unwrap();
        Self { _dir: dir, live }
    }

    fn stage(&self) -> Stage {
        Stage::make(&self.live, None).unwrap()
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.live.join(path)).ok()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.live)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Where a session writes.
fn work(stage: &Stage, package: &str) -> PathBuf {
    stage.mounts().unwrap().into_iter().find(|laid| laid.target == Path::new(package)).unwrap().source
}

#[test]
fn what_was_installed_is_exchanged_for_the_live_packages_and_nothing_else_is() {
    let world = World::new();
    let stage = world.stage();
    let npm = work(&stage, "npm");
    assert_eq!(fs::read_to_string(npm.join("node_modules/a/index.js")).unwrap(), "1");
    fs::create_dir_all(npm.join("node_modules/b")).unwrap();
    fs::write(npm.join("node_modules/b/index.js"), "2").unwrap();
    fs::remove_dir_all(npm.join("node_modules/a")).unwrap();
    fs::create_dir_all(work(&stage, "git").join("host/x")).unwrap();
    stage.swap_in().unwrap();
    assert_eq!(world.read("npm/node_modules/b/index.js").as_deref(), Some("2"));
    assert_eq!(world.read("npm/node_modules/a/index.js"), None);
    assert!(world.live.join("git/host/x").is_dir());
    assert_eq!(world.names(), ["auth.json", "git", "npm"]);
}

#[test]
fn what_was_not_changed_is_not_exchanged() {
    let world = World::new();
    let before = fs::metadata(world.live.join("npm")).unwrap();
    world.stage().swap_in().unwrap();
    let after = fs::metadata(world.live.join("npm")).unwrap();
    assert_eq!(crate::files::Identity::from(&before), crate::files::Identity::from(&after));
    assert_eq!(world.names(), ["auth.json", "npm"]);
}

#[test]
fn a_container_that_still_lives_has_nothing_of_what_is_live_now() {
    let world = World::new();
    let stage = world.stage();
    let open = fs::File::create(work(&stage, "npm").join("late.js")).unwrap();
    stage.swap_in().unwrap();
    io::Write::write_all(&mut &open, b"late").unwrap();
    assert_eq!(world.read("npm/late.js").as_deref(), Some(""));
}

#[test]
fn what_is_no_package_is_refused_as_a_whole() {
    let world = World::new();
    let stage = world.stage();
    fs::write(work(&stage, "npm").join("new.js"), "").unwrap();
    fs::create_dir(work(&stage, "git").join("x")).unwrap();
    symlink("../../auth.json", work(&stage, "git").join("x/link")).unwrap();
    symlink("../auth.json", work(&stage, "npm").join("link")).unwrap();
    let said = format!("{:#}", stage.swap_in().unwrap_err());
    assert!(said.contains("a link out of it"), "{said}");
    assert_eq!(world.names(), ["auth.json", "npm"]);
    assert_eq!(world.read("npm/new.js"), None);
}

type Change = fn(&World);

#[test]
fn a_change_that_somebody_else_made_meanwhile_is_not_lost() {
    let changes: [Change; 3] = [
        |world| fs::write(world.live.join("npm/theirs.js"), "theirs").unwrap(),
        |world| {
            fs::remove_dir_all(world.live.join("npm")).unwrap();
            fs::create_dir(world.live.join("npm")).unwrap();
            fs::write(world.live.join("npm/theirs.js"), "theirs").unwrap();
        },
        |world| {
            fs::create_dir(world.live.join("git")).unwrap();
            fs::write(world.live.join("npm/theirs.js"), "theirs").unwrap();
        },
    ];
    for change in changes {
        let world = World::new();
        let stage = world.stage();
        for package in PACKAGES {
            fs::write(work(&stage, package).join("ours.js"), "ours").unwrap();
        }
        change(&world);
        let said = format!("{:#}", stage.swap_in().unwrap_err());
        assert!(said.contains("somebody else has changed"), "{said}");
        assert_eq!(world.read("npm/theirs.js").as_deref(), Some("theirs"));
        assert_eq!(world.read("npm/ours.js"), None);
        assert_eq!(world.read("git/ours.js"), None);
        assert!(world.names().iter().all(|name| !name.starts_with('.')));
    }
}

#[test]
fn one_is_at_work_at_a_time_and_what_a_killed_one_left_is_removed() {
    let world = World::new();
    let stage = world.stage();
    let said = Stage::make(&world.live, None).unwrap_err().to_string();
    assert!(said.contains("another `pi`"), "{said}");
    drop(stage);
    let left = world.live.join(".pi-stage-0");
    fs::create_dir_all(left.join("work/npm/deep")).unwrap();
    fs::write(left.join(LOCK), "").unwrap();
    drop(world.stage());
    assert_eq!(world.names(), ["auth.json", "npm"]);
    fs::create_dir(&left).unwrap();
    assert_eq!(sweep(&Dir::open(&world.live).unwrap()).unwrap(), 1);
}

#[test]
fn packages_that_are_a_link_are_told() {
    let world = World::new();
    symlink("npm", world.live.join("git")).unwrap();
    let said = format!("{:#}", Stage::make(&world.live, None).unwrap_err());
    assert!(said.contains("not a directory"), "{said}");
    assert_eq!(world.names(), ["auth.json", "git", "npm"]);
}

#[test]
fn without_an_exchange_in_one_step_there_is_one_in_three() {
    let world = World::new();
    let live = Dir::open(&world.live).unwrap();
    let aside = Dir::ensure(&world.live.join("x"), Made::ours(PRIVATE_DIR)).unwrap();
    fs::create_dir(world.live.join("x/npm")).unwrap();
    in_three_steps(&aside, &live, "npm".as_ref()).unwrap();
    assert!(world.live.join("x/npm/node_modules").is_dir() && !world.live.join("npm/node_modules").exists());
}
