//! What is measured from within a container: the agent's start, and the sidecar's answers.

use std::{fs, path::Path, process::Command};

use crate::{
    Effort, row,
    time::middle,
    world::{World, docker, said},
};

/// Where the same package is, installed as anybody would.
const PLAIN: &str = "/opt/plain";

/// Compares the agent's start in our image with a plain installation of the same package, which has no compile cache in a
/// fresh container.
pub(crate) fn agent(world: &World, effort: &Effort) {
    let plan = world.plan(&[]);
    let image = plan["agent"]["image"].as_str().unwrap();
    let Some(installed) = plain_image(world, image) else {
        println!(
            "| the agent's start | the same package plainly installed | it could not be installed | | | | |"
        );
        return;
    };
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = "set -e; mkdir -p /tmp/home/.pi/agent /tmp/work; cd /tmp/work
        sed 's|{{BASE_URL}}|http://127.0.0.1:8080/v1|' /demo/models.json >/tmp/home/.pi/agent/models.json
        node /demo/model.mjs >/tmp/model & until grep -q listening /tmp/model; do sleep 0.1; done
        exec perl /bench/turns.pl \"$@\"";
    let mut run = Command::new("docker");
    run.args([
        "run", "--rm", "--init", "--network=none", "--read-only", "--tmpfs=/tmp:exec", "--entrypoint=sh",
    ]);
    run.args(["--env=HOME=/tmp/home", "--env=TMPDIR=/tmp", "--env=PI_OFFLINE=1", "--env=PI_TELEMETRY=0"]);
    for (from, to) in [("assets/demo", "/demo"), ("tests/bench", "/bench")] {
        run.arg(format!("--volume={}:{to}:ro", sources.join(from).display()));
    }
    run.args([&installed, "-c", script, "sh", &effort.runs.to_string()]);
    let starts = ["--version", "--help", "-p --model demo/echo hello"];
    for start in starts {
        run.arg(format!("pi {start}"));
        run.arg(format!("env -u NODE_COMPILE_CACHE {PLAIN}/bin/pi {start}"));
    }
    let figures: Vec<f64> = said(run).split_whitespace().map(|word| word.parse().unwrap()).collect();
    for (start, pair) in starts.iter().zip(figures.chunks_exact(2)) {
        let start = start.split(" --model").next().unwrap_or(start);
        row(
            &format!("the agent's start in our image, `{start}`"),
            "the same package plainly installed",
            [pair[0], pair[1]],
            "ms",
            "0.70",
            None,
        );
    }
    docker(&["image", "rm", &installed]);
}

/// Our image with a plain installation beside ours.
fn plain_image(world: &World, image: &str) -> Option<String> {
    let context = world.another_repository();
    let user = docker(&["image", "inspect", "--format={{.Config.User}}", image]);
    let text = format!(
        "FROM {image}\nUSER root\nRUN set -e; cd /usr/local/lib/node_modules/@*/pi-coding-agent; export HOME=/tmp/home; \
         npm install --global --prefix {PLAIN} --no-audit --no-fund \"$(node -p \"p=require('./package.json'),p.name+'@'+p.version\")\"; \
         rm -rf /tmp/home\nUSER {user}\n"
    );
    fs::write(context.join("Dockerfile"), text).unwrap();
    let tag = format!("pi-bench:{}", std::process::id());
    let built =
        Command::new("docker").args(["build", "--quiet", "--tag", &tag]).arg(&context).output().unwrap();
    built.status.success().then_some(tag)
}

/// Compares how fast names are refused by a long and by a short list.
pub(crate) fn rules(world: &World, effort: &Effort) {
    let program = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/refused.pl")).unwrap();
    fs::write(world.repo().join("refused.pl"), program).unwrap();
    let mut seen = [10, 10_000].map(|entries| (entries, vec![]));
    for _ in 0..effort.rounds {
        for (entries, seen) in &mut seen {
            world.write_list(*entries);
            let answer = said(world.pi(&[
                "--allowed-domains",
                "list",
                "shell",
                "--",
                "perl",
                "refused.pl",
                &effort.seconds.to_string(),
            ]));
            seen.push(answer.parse::<f64>().unwrap());
        }
    }
    let [short, long] = seen.map(|(_, seen)| middle(seen));
    row("refused with 10 000 entries", "10 entries", [long, short], "/s", "0.30", None);
}
