//! A docker that is missing, far away or unwilling.

use std::process::Command;

use super::failure;
use crate::world::{World, fake::shell, files::write};

#[test]
fn without_docker_it_is_said_what_to_install() {
    let world = World::fake();
    let outcome = world.pi(&["-p", "x"]).env("PATH", world.root().join("empty")).run();
    failure(
        &outcome,
        "there is no program `docker` on the `PATH`",
        "install Docker Engine 20.10 or newer: docs.docker.com/engine/install",
    );
    world.assert_nothing_left();
}

#[test]
fn what_docker_says_becomes_a_sentence_and_the_next_step() {
    for (call, said, message, hint) in [
        (
            "all",
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "docker is installed but its engine does not answer",
            "start it with `sudo systemctl start docker`, or start Docker Desktop",
        ),
        (
            "all",
            "Cannot connect to the Docker daemon at unix:///run/mine.sock. Is the docker daemon running?",
            "the engine at `unix:///run/mine.sock` does not answer",
            "start it, or choose another one: unset `DOCKER_HOST`, or `docker context use default`",
        ),
        (
            "all",
            "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            "you may not use docker's socket",
            "add yourself to its group with `sudo usermod -aG docker \"$USER\"` and log in again (it gives root's \
             power over this machine), or use a rootless engine",
        ),
        (
            "create-agent",
            "Error response from daemon: write /var/lib/docker/x: no space left on device",
            "could not create the agent's container: write /var/lib/docker/x: no space left on device",
            "make room on that disk; `pi clean --images --caches` and `docker system prune` remove what can be rebuilt",
        ),
    ] {
        let world = World::fake();
        world.docker().rule(call, &format!("refuse {}", shell(said)));
        failure(&world.run_pi(&["-p", "x"]), message, hint);
        world.assert_nothing_left();
    }
}

#[test]
fn an_engine_on_another_machine_is_refused() {
    let world = World::fake();
    let why = |address: &str| {
        format!("the engine at `{address}` may run on another machine, and mount its paths instead of yours")
    };
    let next = "unset `DOCKER_HOST`, or choose a local engine with `docker context use default`";
    for address in ["ssh://me@box", "tcp://10.0.0.1:2375"] {
        failure(&world.pi(&["-p", "x"]).env("DOCKER_HOST", address).run(), &why(address), next);
    }
    // `printf far | sha256sum`, as docker names a context's directory.
    let sum = Command::new("sh").arg("-c").arg("printf far | sha256sum | cut -d' ' -f1").output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let meta = world.home().join(".docker/contexts/meta").join(sum.trim()).join("meta.json");
    write(&meta, r#"{"Name":"far","Endpoints":{"docker":{"Host":"ssh://far"}}}"#);
    failure(
        &world.pi(&["-p", "x"]).env_remove("DOCKER_HOST").env("DOCKER_CONTEXT", "far").run(),
        &why("ssh://far"),
        next,
    );
    write(world.home().join(".docker/config.json"), r#"{"currentContext":"far"}"#);
    failure(&world.pi(&["-p", "x"]).env_remove("DOCKER_HOST").run(), &why("ssh://far"), next);
    assert_eq!(world.docker().kinds(), [""; 0]);
}
