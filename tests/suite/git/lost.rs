//! A disk that is full, and an engine that kills the agent's container: what was committed is here, then or later.

use std::fs;

use super::{Steps, git, status, world};
use crate::world::{disk::SmallDisk, files::write, model::docker, wait::until};

#[test]
fn what_does_not_fit_on_a_full_disk_comes_over_when_there_is_room() {
    let world = world();
    let Some(_disk) = SmallDisk::make(world.repo(), 4, &world) else { return };
    world.configure("git = \"private\"\nmin_free = \"0\"\n");
    git(&world, &["init", "--quiet"]);
    write(world.repo().join("a"), "1");
    write(world.repo().join("filler"), vec![b'x'; 3 << 20]);
    git(&world, &["add", "a"]);
    git(&world, &["commit", "--quiet", "--message", "first"]);
    let script = "head -c 2M /dev/urandom >~/large; blob=$(git hash-object -w ~/large); \
                  git update-index --add --cacheinfo 100644,$blob,large; git commit --quiet -m large; \
                  git checkout --quiet -b beside; git commit --quiet --allow-empty -m beside";
    let said = world.shell(&[], script).run();
    said.says(0, "the agent's commits did not come over: could not write the repository's objects: No space left on device");
    said.says(0, "nothing is lost: the next `pi`, or `pi clean`, tries it again");
    assert_eq!(git(&world, &["log", "--all", "--format=%s"]), "first");
    // Nothing has changed, and nothing is given up.
    world.run_pi(&["clean"]).says(125, "No space left on device");
    assert_eq!(world.sessions().len(), 1);
    fs::remove_file(world.repo().join("filler")).unwrap();
    assert_eq!(world.shell(&[], "git log --format=%s").good(), "beside\nlarge\nfirst\n");
    assert_eq!(status(&world), "## beside\n D large");
    git(&world, &["fsck", "--strict"]);
    world.assert_nothing_left();
}

#[test]
fn commits_of_a_container_that_the_engine_has_killed_are_here() {
    let world = world();
    let agent = Steps::begin(&world, &[]);
    let plan = world.plan(&[]);
    let label = format!("label=pi.state={}", plan["agent"]["labels"]["pi.state"].as_str().unwrap());
    let id = until("the agent's container", || {
        let id = docker(&["ps", "--quiet", "--filter", &label, "--filter", "label=pi.role=agent"]);
        if id.is_empty() { Err(()) } else { Ok(id) }
    });
    agent.step("git checkout --quiet -b x; git commit --quiet --allow-empty -m last; git tag t; touch .git/index.lock");
    docker(&["kill", &id]);
    agent.running.wait();
    assert_eq!(git(&world, &["log", "-1", "--format=%s"]), "last");
    assert_eq!((status(&world), git(&world, &["tag"])), ("## x".to_owned(), "t".to_owned()));
    world.assert_nothing_left();
}
