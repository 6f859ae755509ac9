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
fn an_engine_that_anybody_on_the_way_could_take_over_is_refused() {
    let world = World::fake();
    let context = |name: &str, endpoint: &str| {
        // `printf far | sha256sum`, as docker names a context's directory.
        let sum =
            Command::new("sh").arg("-c").arg(format!("printf {name} | sha256sum | cut -d' ' -f1")).output();
        let sum = String::from_utf8(sum.unwrap().stdout).unwrap();
        let meta = world.home().join(".docker/contexts/meta").join(sum.trim()).join("meta.json");
        write(meta, format!(r#"{{"Name":"{name}","Endpoints":{{"docker":{endpoint}}}}}"#));
    };
    let why = "the engine at `tcp://10.0.0.1:2375` is reached without TLS: whoever is on the way could read everything and be \
               root on its machine";
    let next = "docs.docker.com/engine/security/protect-access shows how to use TLS or ssh; then make a context of it with \
                `docker context create`";
    failure(&world.pi(&["-p", "x"]).env("DOCKER_HOST", "tcp://10.0.0.1:2375").run(), why, next);
    context("plain", r#"{"Host":"tcp://10.0.0.1:2375"}"#);
    failure(&world.run_pi(&["--on", "plain", "-p", "x"]), why, next);
    let chosen = world.pi(&["-p", "x"]).env_remove("DOCKER_HOST").env("DOCKER_CONTEXT", "plain").run();
    failure(&chosen, why, next);
    world.configure("on = \"plain\"\n");
    failure(&world.run_pi(&["-p", "x"]), why, next);
    // What is done without an engine is done all the same.
    world.run_pi(&["ps"]).has_code(0);
    world.configure("");
    context("skips", r#"{"Host":"tcp://10.0.0.1:2376","SkipTLSVerify":true}"#);
    let skips = world.run_pi(&["--on", "skips", "-p", "x"]);
    skips.says(125, "is reached without a look at its certificate");
    world.run_pi(&["--on", "nowhere", "-p", "x"]).says(125, "docker has no context `nowhere`");
    assert_eq!(world.docker().kinds(), [""; 0]);
}

#[test]
fn what_would_be_mounted_or_readable_on_another_engine_is_refused() {
    let world = World::fake();
    let refused = |options: &[&str], code: i32, why: &str| {
        let words = [&["--on", "default"], options, &["-p", "x"]].concat();
        world.pi(&words).env("OPENAI_API_KEY", "sk-0123456789abcdef0123").run().says(code, why);
    };
    refused(&["--mount", "/etc/hosts"], 2, "`--mount` has no effect with `--on`");
    refused(&["--publish", "8080"], 2, "`--publish` does not work with `--on` yet");
    refused(&["--env", "OPENAI_API_KEY"], 125, "`OPENAI_API_KEY` in the agent's environment is a key");
    for keys in ["\"env\"", "{ openai = \"env\" }"] {
        world.configure(&format!("keys = {keys}\n"));
        refused(&[], 125, "everybody who may use the engine");
    }
    world.configure("");
    let refused = world.run_pi(&["--on", "default", "install", "npm:x"]);
    assert!(refused.code == Some(2) || refused.code == Some(125), "{refused:?}");
    assert_eq!(world.docker().kinds(), [""; 0]);
}
