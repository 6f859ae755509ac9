//! Containers under other names.

use rustix::process::Signal;

use crate::world::{World, model::docker, wait::until_true};

#[test]
fn a_container_that_was_given_another_name_ends_with_its_session() {
    let world = World::with_model();
    for signal in [Signal::TERM, Signal::KILL] {
        let running = world.shell(&[], "touch up; sleep 600").start();
        until_true("the session", || world.repo().join("up").exists());
        std::fs::remove_file(world.repo().join("up")).unwrap();
        let id = world.session().file_name().unwrap().to_string_lossy().into_owned();
        let other = format!("pi-renamed-{id}");
        docker(&["rename", &format!("pi-{id}"), &other]);
        running.signal(signal);
        running.wait();
        let named = format!("name={other}");
        until_true("its end", || docker(&["ps", "--all", "--quiet", "--filter", &named]).is_empty());
        until_true("its watcher's end", || world.watchers().is_empty());
    }
    world.assert_nothing_left();
}
