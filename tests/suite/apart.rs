//! Sessions on engines that mount nothing of this machine, by `--on`. Here that is this machine's own engine; `tests/on` runs
//! the same against engines that are reached by ssh and by TLS.

mod attach;
mod contexts;
mod cut;
mod lost;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::world::{
    World,
    call::{Call, Outcome},
    files::{PROGRAMS, write},
    wait::until,
};

/// A world, and another engine.
struct Apart {
    world: World,
    context: String,
}

const KEY: &str = "sk-proj-0123456789abcdefghijklmnopqrstuvwxyz";

impl Apart {
    fn new() -> Self {
        let context = std::env::var("PI_TEST_ON").unwrap_or_else(|_| "default".to_owned());
        let apart = Self { world: World::with_model(), context };
        apart.world.prepare(crate::world::files::myself(), &["--allow", "allowed.test"]);
        let here = apart.world.plan(&[])["record"]["engine"].as_str().unwrap().to_owned();
        let there = apart.plan(&[])["record"]["engine"].as_str().unwrap().to_owned();
        if here != there {
            apart.world.knows_on(&here, &there);
        }
        write(apart.world.repo().join("a"), "one\n");
        apart.world.git(apart.world.repo(), &["add", "."]);
        apart.world.git(apart.world.repo(), &["commit", "--quiet", "--message", "first"]);
        write(apart.world.repo().join("a"), "one\nmine\n");
        write(apart.world.repo().join("untracked"), "untracked\n");
        apart
    }

    fn on<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        [&["--on", self.context.as_str()], words].concat()
    }

    fn shell(&self, options: &[&str], script: &str) -> Call<'_> {
        self.world.shell(&self.on(options), script)
    }

    fn plan(&self, options: &[&str]) -> Value {
        let words = [&["--dry-run=json", "--quiet"], self.on(options).as_slice()].concat();
        let outcome = self.world.run_pi(&words);
        outcome.has_code(0);
        serde_json::from_str(&outcome.out).unwrap()
    }

    /// The other engine's own answer.
    #[track_caller]
    fn docker(&self, words: &[&str]) -> String {
        let mut docker = Command::new("timeout");
        docker.args(["60", "docker"]);
        if let Some(settings) = std::env::var_os("PI_TEST_DOCKER_CONFIG") {
            docker.arg("--config").arg(settings).args(["--context", &self.context]);
        }
        let shared = PROGRAMS.read().unwrap();
        let said =
            docker.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        drop(shared);
        let said = said.unwrap().wait_with_output().unwrap();
        assert!(said.status.success(), "docker {words:?}: {said:?}");
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    fn label(&self) -> String {
        let plan = self.world.plan(&[]);
        format!("label=pi.state={}", plan["agent"]["labels"]["pi.state"].as_str().unwrap())
    }

    /// The ids of this world's containers there.
    fn containers(&self) -> Vec<String> {
        let ids = self.docker(&["ps", "--all", "--quiet", "--filter", &self.label()]);
        ids.lines().map(str::to_owned).collect()
    }

    /// The running agent's container, from the engine.
    fn agent(&self) -> String {
        until("an agent's container", || {
            let list = ["ps", "--quiet", "--filter", &self.label(), "--filter", "label=pi.role=agent"];
            match self.docker(&list) {
                ids if ids.is_empty() => Err("none".to_owned()),
                id => Ok(id),
            }
        })
    }

    /// Everything of this world's sessions on the other engine.
    fn left(&self) -> Vec<String> {
        let label = self.label();
        let lists: [&[&str]; 3] = [
            &["container", "ls", "--all", "--format={{.Names}}"],
            &["network", "ls", "--format={{.Name}}"],
            &["volume", "ls", "--format={{.Name}}"],
        ];
        let all = lists.iter().map(|list| self.docker(&[list, &["--filter", &label][..]].concat()));
        all.flat_map(|names| names.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// Drops the copy, and looks that nothing is left on either engine.
    fn end(&self) {
        let dropped = self.world.run_pi(&["drop", "copy"]);
        dropped.has_code(0);
        assert_eq!(self.left(), [""; 0]);
        self.world.assert_nothing_left();
    }
}

fn is(outcome: &Outcome, out: &str) {
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(0), out), "{outcome:?}");
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn everything_goes_to_another_engine_and_comes_back_and_nothing_is_mounted_or_left_there() {
    let apart = Apart::new();
    let (world, repo) = (&apart.world, apart.world.repo().to_owned());
    let live = world.agent_dir();
    write(live.join("extensions/deep/index.js"), "export default () => {};\n");
    write(live.join("AGENTS.md"), "rules\n");
    write(live.join("secret.bin"), "not for sessions\n");
    write(live.join("settings.json"), "{ \"theme\": \"dark\" }\n");
    write(world.home().join(".agents/skills/one/SKILL.md"), "a skill\n");
    let transcripts =
        live.join("sessions").join(format!("-{}--", repo.display().to_string().replace('/', "-")));
    write(transcripts.join("old.jsonl"), "old\n");
    let script = "cd ~/.pi/agent && cat AGENTS.md extensions/deep/index.js ~/.agents/skills/one/SKILL.md sessions/*/old.jsonl; \
                  ls secret.bin 2>/dev/null; cd - >/dev/null; git status --porcelain; \
                  echo agent >>a; git commit --quiet --all --message second; echo left >left; \
                  echo new >\"$(echo ~/.pi/agent/sessions/*)/new.jsonl\"; ln -s /etc/passwd \"$(echo ~/.pi/agent/sessions/*)/link\"; \
                  echo evil >~/.pi/agent/extensions/evil.js; echo '{ \"theme\": \"light\", \"shellPath\": \"/evil\" }' >~/.pi/agent/settings.json; \
                  cat >/dev/null";
    let running = apart.shell(&[], script).stdin(Stdio::piped()).start();
    let agent = apart.agent();
    let mounts: Value =
        serde_json::from_str(&apart.docker(&["inspect", "--format", "{{json .}}", &agent])).unwrap();
    let kinds: Vec<&str> =
        mounts["Mounts"].as_array().unwrap().iter().map(|mount| mount["Type"].as_str().unwrap()).collect();
    assert!(kinds.len() >= 2 && kinds.iter().all(|kind| *kind == "volume"), "{mounts}");
    assert_eq!(mounts["HostConfig"]["Binds"], Value::Null);
    let security = mounts["HostConfig"]["SecurityOpt"].to_string();
    assert!(security.contains("no-new-privileges") && security.contains("SCMP_ACT_ERRNO"), "{security}");
    // The verbs find it, whatever its engine.
    let listed = world.run_pi(&["ps", "--json"]);
    let engine = apart.plan(&[])["record"]["engine"].as_str().unwrap().to_owned();
    assert!(listed.out.contains(&format!("\"engine\": \"{engine}\"")), "{listed:?}");
    let listed = world.run_pi(&apart.on(&["ps", "--json"]));
    let name = serde_json::from_str::<Value>(&listed.out).unwrap()[0]["name"].as_str().unwrap().to_owned();
    let entered = world.run_pi(&["shell", "--session", &name, "--", "cat", "left"]);
    let entered = if entered.out.is_empty() {
        until("the agent's work", || {
            match world.run_pi(&["shell", "--session", &name, "--", "cat", "left"]) {
                outcome if outcome.code == Some(0) => Ok(outcome),
                outcome => Err(format!("{outcome:?}")),
            }
        })
    } else {
        entered
    };
    is(&entered, "left\n");
    let done = running.release();
    let expected = "rules\nexport default () => {};\na skill\nold\n M a\n?? untracked\n";
    is(&done, expected);
    assert!(done.err.contains("pi: the agent's work is the branch `pi/copy`: 2 commits"), "{done:?}");
    assert_eq!(world.git(&repo, &["log", "--format=%s", "pi/copy"]), "wip\nsecond\nfirst\n");
    // What is for the user came back, and what would run here did not.
    assert_eq!(read(transcripts.join("new.jsonl")), "new\n");
    assert!(!transcripts.join("link").is_symlink() && !live.join("extensions/evil.js").exists());
    let settings = read(live.join("settings.json"));
    assert!(settings.contains("light") && !settings.contains("evil"), "{settings}");
    // Only the copy stays, for `pi diff` and the next session.
    let left = apart.left();
    assert!(left.iter().all(|name| name.starts_with("pi-copy-")) && left.len() == 1, "{left:?}");
    let shown = world.run_pi(&["diff"]);
    assert!(shown.code == Some(0) && shown.out.contains("+agent\n"), "{shown:?}");
    world.run_pi(&["apply"]).says(0, "nothing is staged or committed");
    assert_eq!(read(repo.join("a")), "one\nmine\nagent\n");
    // A copy is of one engine.
    if apart.context != "default" {
        world.run_pi(&["--clone", "shell", "--", "true"]).says(125, "the copy `copy` is on another engine");
    }
    // A turn of the agent.
    let wrote = world.pi(&apart.on(&["-p", "--model", "demo/write", "write"])).run();
    is(&wrote, "The file is written.\n");
    assert_eq!(world.git(&repo, &["show", "pi/copy:hello.txt"]), "hello from the model\n");
    apart.end();
}

#[test]
fn on_another_engine_a_key_is_with_the_broker_and_nowhere_else_and_the_walls_stand() {
    let apart = Apart::new();
    let world = &apart.world;
    let script = "curl -sS --max-time 20 -o /dev/null -w '%{http_code}\\n' http://refused.test/; \
                  curl -sS --max-time 5 http://1.1.1.1/ --noproxy '*' 2>&1 | grep -c 'onnect'; \
                  env | grep -c 9abc''defg; grep -rc 9abc''defg ~/.pi | grep -v ':0' | wc -l; cat >/dev/null";
    let running = apart
        .shell(&["--allow", "allowed.test", "--env", "MARK=seen-0123456789"], script)
        .env("OPENAI_API_KEY", KEY)
        .stdin(Stdio::piped())
        .start();
    apart.agent();
    until("the script's last line", || {
        if running.out().lines().count() >= 4 { Ok(()) } else { Err(running.out()) }
    });
    // All that the engine tells of its containers and volumes, and all that is in the volumes.
    let containers = apart.containers();
    assert!(containers.len() >= 2, "{containers:?}");
    let mut told = String::new();
    for id in &containers {
        told += &apart.docker(&["inspect", id]);
    }
    // A variable that the agent has shows that a key would have been found.
    assert!(told.contains("seen-0123456789") && told.contains("PI_BOX_BROKER"));
    assert!(!told.contains(KEY) && !told.contains("9abcdefg"), "{told}");
    let sidecar = ["ps", "--quiet", "--filter", &apart.label(), "--filter", "label=pi.role=proxy"];
    let sidecar = apart.docker(&sidecar);
    // The pattern does not find the command line that it is in.
    let kept = "cat /proc/1/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '9abc[d]efg'; \
                grep ' /tmp ' /proc/mounts";
    let kept = apart.docker(&["exec", &sidecar, "sh", "-c", kept]);
    assert!(kept.starts_with("0\ntmpfs "), "{kept}");
    let logs = world.run_pi(&["logs"]);
    assert!(logs.out.contains("refused.test"), "{logs:?}");
    world.run_pi(&["allow", "more.test"]).has_code(0);
    let blocked = world.run_pi(&["blocked"]);
    assert!(blocked.out.contains("refused.test"), "{blocked:?}");
    let done = running.release();
    is(&done, "403\n1\n0\n0\n");
    // Nothing of it is in what stays.
    let offline = apart.shell(
        &["--no-network"],
        "grep -rc 9abc''defg . | grep -v ':0$' | wc -l; cat /sys/class/net/*/flags | wc -l; cat >/dev/null",
    );
    let running = offline.env("OPENAI_API_KEY", KEY).stdin(Stdio::piped()).start();
    apart.agent();
    world.run_pi(&["stop", "--all"]).has_code(0);
    running.wait();
    assert_eq!(world.sessions(), [""; 0].map(std::path::PathBuf::from));
    apart.end();
}

#[test]
fn the_gate_refuses_a_mount_of_the_machine_that_the_engine_runs_on() {
    let apart = Apart::new();
    let world = &apart.world;
    let docker = world.root().join("tampering-docker");
    for (change, why) in [
        (
            "words+=(); words=(create --mount type=bind,source=/var/tmp,target=/var/tmp \"${words[@]:1}\")",
            "nobody has asked for what is mounted at `/var/tmp`",
        ),
        (
            "for n in \"${!words[@]}\"; do case ${words[n]} in *target=/home/pi/.pi/agent*) words[n]=type=bind,source=/var/tmp,target=/home/pi/.pi/agent ;; esac; done",
            "what is mounted at `/home/pi/.pi/agent` is not the volume of this session",
        ),
        (
            "for n in \"${!words[@]}\"; do case ${words[n]} in *target=/home/pi/.pi/agent*) words[n]=type=volume,source=pi-e2e-foreign,target=/home/pi/.pi/agent ;; esac; done",
            "what is mounted at `/home/pi/.pi/agent` is not the volume of this session",
        ),
        (
            "for n in \"${!words[@]}\"; do case ${words[n]} in --tmpfs=/home/pi:*) words[n]=--mount=type=bind,source=/var/tmp,target=/home/pi ;; esac; done",
            "what is mounted at `/home/pi` is not in memory",
        ),
    ] {
        let text = format!(
            "#!/bin/bash\nset -u\nwords=(\"$@\")\ncase \" $* \" in *' pi.role=agent '*) {change} ;; esac\nexec docker \"${{words[@]}}\"\n"
        );
        crate::world::files::write_program(&docker, text);
        world.configure(&format!("docker = \"{}\"\n", docker.display()));
        let refused = apart.shell(&[], "echo started").run();
        assert_eq!((refused.code, refused.out.as_str()), (Some(125), ""), "{refused:?}");
        assert!(refused.err.contains(why), "{why}: {refused:?}");
    }
    world.configure("");
    apart.docker(&["volume", "rm", "--force", "pi-e2e-foreign"]);
    is(&apart.shell(&[], "echo started").run(), "started\n");
    apart.end();
}

#[test]
fn the_demonstration_runs_there_and_leaves_nothing() {
    let apart = Apart::new();
    let demo = apart.world.run_pi(&apart.on(&["demo"]));
    demo.says(0, "all attempts came out as expected");
    assert!(demo.out.lines().count() > 15 && !demo.out.contains("BAD"), "{demo:?}");
    assert_eq!(apart.left(), [""; 0]);
    let copies = apart.world.run_pi(&["ps", "--all", "--json"]);
    assert!(copies.out.contains("\"copies\": []"), "{copies:?}");
    apart.world.assert_nothing_left();
}
