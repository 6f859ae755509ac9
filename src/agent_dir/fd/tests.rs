use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;
use crate::agent_dir::tests::World;

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

/// `in`, where an agent can write, and `out`, where nothing is to be reached.
fn new_world() -> World {
    let world = World::with(&["in", "out"]);
    world.write("out/secret", "secret");
    world
}

impl World {
    fn inside(&self) -> Dir {
        self.dir("in")
    }

    fn outside(&self) -> Vec<(OsString, u32, String)> {
        let mut found: Vec<_> = fs::read_dir(self.at("out"))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let mode = fs::metadata(&path).unwrap().permissions().mode();
                (path.file_name().unwrap().to_owned(), mode, fs::read_to_string(&path).unwrap_or_default())
            })
            .collect();
        found.sort();
        found
    }
}

#[test]
fn no_link_on_the_way_is_followed() {
    let world = new_world();
    symlink(world.at("out"), world.at("in/link")).unwrap();
    symlink(world.at("in"), world.at("way")).unwrap();
    fs::create_dir(world.at("in/deep")).unwrap();
    for path in ["in/link", "way", "way/deep", "in/deep/../deep"] {
        assert!(Dir::open(&world.at(path)).is_err(), "{path}");
    }
    let step_by_step = |path: &str| Dir::open(Path::new("/")).unwrap().down(&world.at(path));
    for path in ["in/link", "way", "way/deep"] {
        assert!(step_by_step(path).is_err(), "{path}");
    }
    let deep = Dir::open(&world.at("in/deep")).unwrap().identity().unwrap();
    assert_eq!(step_by_step("in/deep").unwrap().identity().unwrap(), deep);
    assert!(Dir::open(&world.at("in/deep")).is_ok());
    assert!(Dir::open(Path::new("/")).is_ok());
    assert!(Dir::open(Path::new("in")).is_err());
    let inside = world.inside();
    assert!(inside.dir(name("link")).is_err());
    assert!(inside.ensure_dir(name("link"), Made::ours(PRIVATE_DIR)).is_err());
    symlink(world.at("out/secret"), world.at("in/file")).unwrap();
    assert!(inside.file(name("file")).is_err());
    let said = inside.read(name("file"), 10).unwrap_err().to_string();
    assert!(said.contains("it is a link"), "{said}");
}

#[test]
fn a_name_is_one_component() {
    let inside = new_world().inside();
    for odd in ["", ".", "..", "/", "a/b", "a/", "./a", "../out", "a/../../out"] {
        assert!(one(name(odd)).is_err(), "{odd}");
        assert!(inside.write(name(odd), b"x", Made::ours(TEXT)).is_err(), "{odd}");
        assert!(inside.ensure_dir(name(odd), Made::ours(PRIVATE_DIR)).is_err(), "{odd}");
    }
    assert_eq!(inside.names(10).unwrap(), Vec::<OsString>::new());
}

#[test]
fn a_write_replaces_a_planted_link_and_leaves_what_it_led_to() {
    let world = new_world();
    let before = world.outside();
    symlink(world.at("out/secret"), world.at("in/file")).unwrap();
    let inside = world.inside();
    inside.write(name("file"), b"ours", Made::ours(PRIVATE_FILE)).unwrap();
    assert_eq!(inside.read(name("file"), 4).unwrap().unwrap(), b"ours");
    assert!(inside.read(name("file"), 3).is_err());
    assert_eq!(world.outside(), before);
    assert_eq!(inside.names(10).unwrap(), ["file"]);
    assert!(inside.write(name("file/x"), b"", Made::ours(TEXT)).is_err());
}

#[test]
fn a_pipe_and_a_socket_are_no_files_and_nobody_waits_for_them() {
    let world = new_world();
    let inside = world.inside();
    let made = std::process::Command::new("mkfifo").arg(world.at("in/pipe")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(world.at("in/socket")).unwrap();
    for other in ["pipe", "socket"] {
        assert!(inside.read(name(other), 10).is_err(), "{other}");
        assert_eq!(inside.kind(name(other)).unwrap(), Some(Kind::Other));
    }
    assert_eq!(inside.read(name("none"), 10).unwrap(), None);
    assert_eq!(inside.kind(name("none")).unwrap(), None);
}

#[test]
fn a_rename_to_a_name_that_is_taken_fails_and_an_exchange_exchanges() {
    let world = new_world();
    let inside = world.inside();
    for dir in ["a", "b"] {
        inside.ensure_dir(name(dir), Made::ours(PRIVATE_DIR)).unwrap();
        fs::write(world.at("in").join(dir).join(dir), dir).unwrap();
    }
    let taken = inside.rename_new(name("a"), &inside, name("b")).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    let [a, b] = ["a", "b"].map(|dir| inside.dir(name(dir)).unwrap().identity().unwrap());
    inside.exchange(name("a"), &inside, name("b")).unwrap();
    assert_eq!([b, a], ["a", "b"].map(|dir| inside.dir(name(dir)).unwrap().identity().unwrap()));
    assert_eq!(fs::read_to_string(world.at("in/a/b")).unwrap(), "b");
}

#[test]
fn a_directory_that_two_make_at_once_is_one() {
    let world = new_world();
    let identities: Vec<Identity> = thread::scope(|scope| {
        let make =
            || world.inside().ensure_dir(name("dir"), Made::ours(PRIVATE_DIR)).unwrap().identity().unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(identities.iter().all(|one| *one == identities[0]));
    assert_eq!(world.inside().names(10).unwrap(), ["dir"]);
}

/// The attacker of a shared directory: whatever appears in it is replaced by a link out of it, as fast as can be.
#[test]
fn whoever_plants_links_at_every_moment_reaches_nothing_outside() {
    let world = new_world();
    let before = world.outside();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let inside = world.at("in");
            let trash = world.at("trash");
            fs::create_dir(&trash).unwrap();
            for count in 0_u64.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                for entry in fs::read_dir(&inside).into_iter().flatten().flatten() {
                    let _ = fs::rename(entry.path(), trash.join(count.to_string()));
                    let to = if count % 2 == 0 { "out" } else { "out/secret" };
                    let _ = symlink(world.at(to), entry.path());
                }
                for planted in ["dir", "file"] {
                    let _ = symlink(world.at("out"), inside.join(planted));
                }
            }
        });
        let inside = world.inside();
        let made = Made::ours(PROGRAM);
        for _ in 0..200 {
            if let Ok(dir) = inside.ensure_dir(name("dir"), made) {
                let _ = dir.set(made);
                let _ = dir.write(name("planted"), b"x", made);
            }
            let _ = inside.write(name("file"), b"x", made);
            let _ = inside.read(name("file"), 10);
            if let Ok((temporary, dir)) = inside.new_dir("test", made) {
                let _ = dir.new_file(name("planted"), made);
                let _ = inside.exchange(&temporary, &inside, name("dir"));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(world.outside(), before);
}
