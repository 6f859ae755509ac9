use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    process::Command,
};

use proptest::prelude::*;

use super::*;
use crate::agent_dir::tests::World;

const FEW: Limits = Limits { entries: 1000, bytes: 1 << 20, depth: 10 };

fn new_world() -> World {
    let world = World::with(&["from", "to", "out"]);
    world.write("out/secret", "secret");
    world
}

impl World {
    fn copy(&self) -> anyhow::Result<()> {
        copy(&self.dir("from"), &self.dir("to"), FEW, None)
    }

    fn refusal(&self) -> String {
        format!("{:#}", self.copy().unwrap_err())
    }
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn an_installation_of_npms_is_copied_as_it_is() {
    let world = new_world();
    let bin = world.at("from/node_modules/.bin");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(world.at("from/node_modules/@a/b")).unwrap();
    fs::write(world.at("from/node_modules/@a/b/cli.js"), "#!").unwrap();
    fs::set_permissions(world.at("from/node_modules/@a/b/cli.js"), fs::Permissions::from_mode(0o6777))
        .unwrap();
    symlink("../@a/b/cli.js", bin.join("b")).unwrap();
    symlink("node_modules/@a", world.at("from/short")).unwrap();
    symlink("nowhere", world.at("from/dangling")).unwrap();
    fs::write(world.at("from/private"), "x").unwrap();
    fs::set_permissions(world.at("from/private"), fs::Permissions::from_mode(0o600)).unwrap();
    world.copy().unwrap();
    assert_eq!(fs::read_to_string(world.at("to/node_modules/.bin/b")).unwrap(), "#!");
    let mode = |path: &str| fs::metadata(world.at(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("to/node_modules/@a/b/cli.js"), 0o755);
    assert_eq!(mode("to/private"), 0o600);
    assert_eq!(fs::read_link(world.at("to/dangling")).unwrap(), Path::new("nowhere"));
}

#[test]
fn what_is_no_file_and_what_leads_out_is_refused() {
    for target in ["/etc", "..", "../out/secret", "a/../../out", "../from/../out", "a/../..", "x/../y", ""] {
        let world = new_world();
        if symlink(target, world.at("from/link")).is_ok() {
            let said = world.refusal();
            assert!(said.contains("`link` is a link out of it"), "{target}: {said}");
        }
    }
    let world = new_world();
    fifo(&world.at("from/pipe"));
    assert!(world.refusal().contains("neither a file nor a directory"));
    let world = new_world();
    let _socket = UnixListener::bind(world.at("from/socket")).unwrap();
    assert!(world.refusal().contains("neither a file nor a directory"));
}

/// A step down by way of a link, and up from where it leads: by the text it stays inside.
#[test]
fn a_link_that_leads_out_by_way_of_another_is_refused() {
    let world = new_world();
    fs::create_dir_all(world.at("from/d/e")).unwrap();
    fs::create_dir(world.at("from/t")).unwrap();
    symlink("../t", world.at("from/d/m")).unwrap();
    symlink("../m/../../out/secret", world.at("from/d/e/l")).unwrap();
    assert_eq!(fs::read_to_string(world.at("from/d/e/l")).unwrap(), "secret");
    assert!(world.refusal().contains("is a link out of it"));
}

#[test]
fn a_copy_shares_nothing_with_a_file_of_two_names() {
    let world = new_world();
    fs::write(world.at("from/a"), "a").unwrap();
    fs::hard_link(world.at("from/a"), world.at("out/a")).unwrap();
    world.copy().unwrap();
    fs::write(world.at("out/a"), "changed").unwrap();
    assert_eq!(fs::read_to_string(world.at("to/a")).unwrap(), "a");
    assert_eq!(fs::metadata(world.at("to/a")).unwrap().nlink(), 1);
}

#[test]
fn more_than_the_limits_is_refused() {
    let world = new_world();
    for count in 0..=FEW.entries {
        fs::write(world.at("from").join(count.to_string()), "").unwrap();
    }
    assert!(world.refusal().contains("more than 1000 files"));
    let world = new_world();
    fs::create_dir_all(world.at("from").join("d/".repeat(FEW.depth + 1))).unwrap();
    assert!(world.refusal().contains("more than 10 directories"));
    assert!(fingerprint(&world.dir("from"), FEW).is_err());
    let world = new_world();
    // Nothing of it is on the disk.
    File::create(world.at("from/sparse")).unwrap().set_len(1 << 40).unwrap();
    assert!(world.refusal().contains("larger than 1 MiB"));
    let world = new_world();
    for name in ["a", "b"] {
        fs::write(world.at("from").join(name), vec![0; 600 << 10]).unwrap();
    }
    assert!(world.refusal().contains("larger than 1 MiB"));
}

type Change = fn(&World);

#[test]
fn a_fingerprint_tells_every_change() {
    let world = new_world();
    fs::create_dir(world.at("from/d")).unwrap();
    fs::write(world.at("from/d/f"), "1").unwrap();
    symlink("d/f", world.at("from/l")).unwrap();
    let look = || fingerprint(&world.dir("from"), FEW).unwrap();
    let first = look();
    assert_eq!(look(), first);
    let changes: [Change; 5] = [
        |world| fs::write(world.at("from/d/f"), "2").unwrap(),
        |world| fs::write(world.at("from/d/g"), "").unwrap(),
        |world| fs::remove_file(world.at("from/d/g")).unwrap(),
        |world| {
            fs::remove_file(world.at("from/l")).unwrap();
            symlink("d", world.at("from/l")).unwrap();
        },
        |world| {
            fs::write(world.at("from/new"), "2").unwrap();
            fs::rename(world.at("from/new"), world.at("from/d/f")).unwrap();
        },
    ];
    let mut last = first;
    for change in changes {
        change(&world);
        let now = look();
        assert_ne!(now, last);
        last = now;
    }
    fs::rename(world.at("from"), world.at("to/moved")).unwrap();
    assert_eq!(fingerprint(&world.dir("to/moved"), FEW).unwrap(), last);
}

#[test]
fn what_an_agent_left_is_removed_and_what_it_links_to_is_not() {
    let world = new_world();
    let top = world.at("from/tree");
    fs::create_dir_all(top.join("a/closed/b")).unwrap();
    fs::set_permissions(top.join("a/closed"), fs::Permissions::from_mode(0o000)).unwrap();
    symlink(world.at("out"), top.join("a/link")).unwrap();
    fs::hard_link(world.at("out/secret"), top.join("a/hard")).unwrap();
    fifo(&top.join("pipe"));
    remove(&world.dir("from"), "tree".as_ref()).unwrap();
    remove(&world.dir("from"), "tree".as_ref()).unwrap();
    assert_eq!(fs::read_dir(world.at("from")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(world.at("out/secret")).unwrap(), "secret");
}

/// Deeper than a path can be long, and than a process may have descriptors.
fn nest(dir: &Dir, levels: usize) {
    let mut here = dir.ensure_dir("top".as_ref(), Made::ours(PRIVATE_DIR)).unwrap();
    for _ in 0..levels {
        here.make_new("d".as_ref()).unwrap();
        here.new_file("f".as_ref(), Made::ours(TEXT)).unwrap();
        here = here.dir("d".as_ref()).unwrap();
    }
}

#[test]
fn five_thousand_nested_directories_are_removed() {
    let world = new_world();
    let dir = world.dir("from");
    nest(&dir, 5_000);
    assert!(copy(&dir, &world.dir("to"), FEW, None).is_err());
    remove(&dir, "top".as_ref()).unwrap();
    assert_eq!(dir.names(10).unwrap(), Vec::<OsString>::new());
}

#[test]
fn twenty_thousand_files_are_refused_and_removed() {
    let world = new_world();
    fs::create_dir(world.at("from/top")).unwrap();
    for count in 0..20_000 {
        File::create(world.at("from/top").join(count.to_string())).unwrap();
    }
    assert!(copy(&world.dir("from"), &world.dir("to"), FEW, None).is_err());
    remove(&world.dir("from"), "top".as_ref()).unwrap();
}

#[test]
fn whoever_exchanges_files_for_links_during_a_copy_gets_nothing_copied_from_outside() {
    let world = new_world();
    fs::create_dir(world.at("from/d")).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for (name, target) in [("f", "out/secret"), ("d", "out")] {
                    let path = world.at("from").join(name);
                    let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
                    let _ = symlink(world.at(target), &path);
                    let _ = fs::remove_file(&path);
                    let _ = if name == "d" { fs::create_dir(&path) } else { fs::write(&path, "mine") };
                }
            }
        });
        for count in 0..500 {
            let name = OsString::from(count.to_string());
            let to = world.dir("to").ensure_dir(&name, Made::ours(PRIVATE_DIR)).unwrap();
            let _ = copy(&world.dir("from"), &to, FEW, None);
            for path in ["f", "d/secret"] {
                let copied = world.at("to").join(&name).join(path);
                assert_ne!(fs::read_to_string(&copied).unwrap_or_default(), "secret", "{}", copied.display());
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Trees of directories and links of every kind: what was copied, read through all its links, is in the copy.
    #[test]
    fn no_link_that_was_copied_leads_out(links in prop::collection::vec(
        ("(a|a/b|a/b/c|d)/[x-z]", "(\\.\\./|a/|b/|c/|d/|x/|y/|\\./){0,5}(a|b|x|y|\\.\\.|secret)"), 1..8)
    ) {
        let world = new_world();
        for dir in ["a/b/c", "d"] {
            fs::create_dir_all(world.at("from").join(dir)).unwrap();
        }
        for (at, target) in &links {
            let _ = symlink(target, world.at("from").join(at));
        }
        if world.copy().is_ok() {
            for (at, _) in &links {
                if let Ok(real) = fs::canonicalize(world.at("to").join(at)) {
                    prop_assert!(real.starts_with(world.at("to")), "{} {}", at, real.display());
                }
            }
        }
    }
}
