//! Properties of every plan, on random machines, repositories and settings.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::LazyLock,
};

use proptest::prelude::*;

use super::*;
use crate::{
    agent,
    agent_dir::{
        fd::Kind,
        layout::{Kept, Layout, Read},
    },
    cli::Options,
    config::{Access, Config, Limits, Published},
    egress::{Rendered, Sources},
    facts::Facts,
    files::Identity,
    git::given::Given,
    git::private::Bind,
    host::{Host, Owner},
    plan::{Choices, Container, Inputs, Plan, Reach, Source},
    purpose::{Program, Purpose},
    secret::{Secret, Value},
    workspace::Workspace,
};

/// Part of every secret value, and of nothing else.
const SECRET: &str = "hunter2";

/// The inputs of a plan.
#[derive(Debug, Clone)]
struct World {
    config: Config,
    host: Host,
    workspace: Workspace,
    facts: Facts,
    who: Owner,
    program: Program,
    reach: Reach,
}

impl World {
    fn plan(&self) -> Plan {
        let id = SessionId::parse("abcdefghijklmnop").unwrap();
        Plan::new(Inputs {
            id: &id,
            config: &self.config,
            host: &self.host,
            workspace: &self.workspace,
            facts: &self.facts,
            copy: None,
            git: &Given::shared(&self.workspace),
            who: self.who,
            caches: Some("go"),
            choices: &Choices {
                name: "name".to_owned(),
                attempt: 0,
                agent_image: "pi-agent:base-0123456789ab".to_owned(),
                sidecar_image: "pi-proxy:0123456789ab".to_owned(),
                started: 1_700_000_000,
                laid: None,
            },
            image: "pi-agent:base-0123456789ab",
            program: &self.program,
            reach: &self.reach,
            state: std::path::Path::new("/state/abcdefghijklmnop"),
        })
        .unwrap()
    }
}

fn containers(plan: &Plan) -> impl Iterator<Item = &Container> {
    [Some(&plan.agent), plan.sidecar.as_ref(), plan.model.as_ref()].into_iter().flatten()
}

fn creates(plan: &Plan) -> Vec<Cmd> {
    containers(plan).map(render::create).collect()
}

/// Every command of a session.
fn commands(plan: &Plan) -> Vec<Cmd> {
    let mut all = creates(plan);
    if let Some(network) = &plan.network {
        all.push(render::create_network(network));
        all.push(render::connect(network, &plan.agent, std::net::Ipv4Addr::LOCALHOST));
    }
    for container in containers(plan) {
        all.extend([render::attach(container), render::start(container)]);
    }
    all.extend(down(&plan.record.id));
    all
}

fn words_of(cmd: &Cmd) -> Vec<String> {
    cmd.args().iter().map(|arg| arg.to_string_lossy().into_owned()).collect()
}

/// A path of any characters that a path can have.
fn path() -> impl Strategy<Value = PathBuf> {
    "(/[^/\0\r]{1,12}){1,3}".prop_filter("no dots", |path| !path.contains("/.")).prop_map(PathBuf::from)
}

fn reach() -> impl Strategy<Value = Reach> {
    let proxy = any::<bool>().prop_map(|secret| {
        let conf = format!("Upstream http u:{SECRET}@proxy.example:3128\n");
        let rendered = Rendered {
            conf: if secret {
                Value::Secret(Secret::new(conf.into()))
            } else {
                Value::Plain("x\nEOF\n".into())
            },
            filter: "^example\\.com:443$\n".into(),
            lan: String::new(),
        };
        Reach::Proxy(Box::new(rendered), Sources::default())
    });
    prop_oneof![Just(Reach::Open), Just(Reach::None), Just(Reach::Demo), proxy]
}

fn config() -> impl Strategy<Value = Config> {
    let limits = (
        proptest::option::of("[1-9][0-9]{0,3}[kmg]"),
        proptest::option::of(0.1..64.0),
        proptest::option::of(1..9999u32),
    );
    let env = proptest::collection::vec("[B-D][A-Z0-9_]{0,8}", 0..4);
    let publish = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(host, agent)| Published { host, agent });
    let publish = proptest::collection::vec(publish, 0..3);
    (limits, env, publish, proptest::option::of("[a-z]{1,8}")).prop_map(
        |((memory, cpus, pids), env, publish, runtime)| {
            static DEFAULT: LazyLock<Config> =
                LazyLock::new(|| Config::load(&Options::default(), &Host::for_tests(), None).unwrap());
            Config {
                limits: Limits { memory, cpus, pids },
                env: env.iter().map(|name| format!("{name}={SECRET}")).collect(),
                publish,
                runtime,
                ..DEFAULT.clone()
            }
        },
    )
}

fn host() -> impl Strategy<Value = Host> {
    let secrets = proptest::sample::subsequence(agent::SECRETS.to_vec(), 0..6);
    let settings = proptest::sample::subsequence(agent::SETTINGS.to_vec(), 0..6);
    (secrets, settings, any::<[bool; 4]>(), prop_oneof![Just(0), Just(1000), 1..70_000u32]).prop_map(
        |(secrets, settings, [stdin, stdout, token, proxy], uid)| {
            let mut host = Host { uid, gid: uid, ..Host::for_tests() };
            host.terminal.stdin = stdin;
            host.terminal.stdout = stdout;
            host.env.extend(secrets.into_iter().map(|name| (name.into(), SECRET.into())));
            host.env.extend(settings.into_iter().map(|name| (name.into(), "a 'setting'".into())));
            if token {
                host.env.insert("PI_GH_TOKEN".into(), SECRET.into());
            }
            if proxy {
                host.env.insert("https_proxy".into(), format!("http://u:{SECRET}@proxy.example").into());
            }
            host
        },
    )
}

fn facts() -> impl Strategy<Value = Facts> {
    let entries = proptest::collection::btree_set("[a-r][a-zA-Z. -]{0,10}", 0..5);
    let bind = (path(), any::<bool>()).prop_map(|(path, read_only)| {
        let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
        Bind { source: path.clone(), target: path, access }
    });
    let read = |name| Read { name, kind: Kind::Directory, identity: Identity { device: 3, inode: 4 } };
    (entries, proptest::collection::vec(bind, 0..3), proptest::option::of(path()), path()).prop_map(
        move |(entries, binds, skills, agent_dir)| Facts {
            agent_dir,
            layout: Layout {
                read: entries.into_iter().map(read).collect(),
                kept: vec![Kept::OtherLogins, Kept::Transcripts("--r--".into())],
                ..Layout::default()
            },
            skills: skills.clone(),
            acli: skills,
            binds,
            identity: vec![("user.name".into(), "A \"B\" O'C".into())],
            ..Facts::default()
        },
    )
}

fn program() -> impl Strategy<Value = Program> {
    let words = proptest::collection::vec("[^\0]{0,12}", 0..4);
    let purpose = proptest::sample::select(vec![
        Purpose::Work,
        Purpose::Shell,
        Purpose::SetUp,
        Purpose::Login,
        Purpose::Renew,
        Purpose::Demo,
        Purpose::Proof,
    ]);
    (words, purpose).prop_map(|(words, purpose)| Program { purpose, words })
}

fn world() -> impl Strategy<Value = World> {
    (config(), host(), path(), facts(), any::<bool>(), program(), reach()).prop_map(
        |(config, host, root, facts, owned, program, reach)| {
            let who = Owner { uid: if owned { 1000 } else { host.uid }, gid: 1000 };
            let workspace = Workspace {
                cwd: root.join("below"),
                root,
                git_dirs: vec![],
                git_config: None,
                alternates: vec![],
                identity: Identity { device: 1, inode: 2 },
                owner: who,
                findings: vec![],
            };
            World { config, host, workspace, facts, who, program, reach }
        },
    )
}

proptest! {
    #[test]
    fn a_secret_never_reaches_a_command_line_a_dry_run_or_a_debug(world in world()) {
        let plan = world.plan();
        for cmd in commands(&plan) {
            prop_assert!(!words_of(&cmd).concat().contains(SECRET), "{cmd}");
            prop_assert!(!cmd.to_string().contains(SECRET), "{cmd}");
            let shown = format!("{cmd:?}");
            prop_assert!(!shown.contains(SECRET), "{}", shown);
        }
        prop_assert!(!script(&plan).contains(SECRET));
        prop_assert!(!serde_json::to_string(&plan).unwrap().contains(SECRET));
        prop_assert!(!serde_json::to_string(&plan.record).unwrap().contains(SECRET));
        let shown = format!("{plan:?}");
        prop_assert!(!shown.contains(SECRET), "{}", shown);
    }

    #[test]
    fn every_container_is_hardened(world in world()) {
        let plan = world.plan();
        for cmd in creates(&plan) {
            let words = words_of(&cmd);
            let image = words.iter().position(|word| word.starts_with("pi-agent:") || word.starts_with("pi-proxy:")).unwrap();
            let flags = &words[..image];
            for flag in [
                "--rm", "--init", "--pull=never", "--read-only", "--cap-drop=ALL", "--log-driver=none",
                "--security-opt=no-new-privileges", "--ipc=none", "--cgroupns=private", "--ulimit=core=0",
            ] {
                prop_assert!(flags.iter().any(|word| word == flag), "{flag}: {cmd}");
            }
            prop_assert!(flags.iter().any(|word| word.starts_with("--security-opt=seccomp=/")), "{cmd}");
            let loosened = ["--privileged", "--device", "--pid", "--uts", "--userns", "--volume", "-v", "--cgroup-parent"];
            prop_assert!(!flags.iter().any(|word| loosened.iter().any(|loose| word == loose || word.starts_with(&format!("{loose}=")))), "{cmd}");
            prop_assert!(!flags.iter().any(|word| word.contains("unconfined") || word == "--network=host"), "{cmd}");
            let added: Vec<_> = flags.iter().filter(|word| word.starts_with("--cap-add")).collect();
            prop_assert!(added.is_empty() || words[image].starts_with("pi-proxy:"), "{cmd}");
        }
    }

    #[test]
    fn whatever_comes_up_carries_the_sessions_label_and_is_named_by_its_teardown(world in world()) {
        let plan = world.plan();
        let gone: Vec<String> = down(&plan.record.id).iter().flat_map(words_of).collect();
        let label = format!("pi.session={}", plan.record.id.as_str());
        for cmd in creates(&plan) {
            let words = words_of(&cmd);
            let name = words.iter().position(|word| word == "--name").unwrap() + 1;
            prop_assert!(gone.contains(&words[name]), "{cmd}");
            prop_assert!(words.contains(&label), "{cmd}");
        }
        if let Some(network) = &plan.network {
            prop_assert!(gone.contains(&network.name));
            prop_assert!(words_of(&render::create_network(network)).contains(&label));
        }
        for container in containers(&plan) {
            for mount in &container.mounts {
                if let Source::Volume { name, labels } = &mount.source {
                    // The cache outlives the session on purpose.
                    let lasts = labels.get("pi.role").is_some_and(|role| role == "cache");
                    prop_assert_eq!(gone.contains(name), !lasts);
                    prop_assert_eq!(labels.contains_key("pi.session"), !lasts);
                    prop_assert!(labels.contains_key("pi.state"));
                }
            }
        }
    }

    #[test]
    fn no_two_mounts_have_one_target(world in world()) {
        let plan = world.plan();
        let mut targets: Vec<_> = plan.agent.mounts.iter().map(|mount| &mount.target).collect();
        targets.sort();
        let all = targets.len();
        targets.dedup();
        prop_assert_eq!(targets.len(), all);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_dry_run_is_a_script_that_a_shell_understands(world in world()) {
        let script = script(&world.plan());
        let mut sh =
            Command::new("sh").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = sh.wait_with_output().unwrap();
        prop_assert!(output.status.success(), "{}\n{script}", String::from_utf8_lossy(&output.stderr));
    }
}

proptest::proptest! {
    #[test]
    fn a_printed_command_survives_a_shell(words in proptest::collection::vec("[^\0]{0,12}", 1..6)) {
        let cmd = Cmd::new("x", &words.iter().map(String::as_str).collect::<Vec<_>>());
        let line = cmd.to_string().replacen("docker", "printf '%s\\0'", 1);
        let out = std::process::Command::new("sh").arg("-c").arg(line).output().unwrap();
        let got: Vec<_> = String::from_utf8_lossy(&out.stdout).split_terminator('\0').map(str::to_owned).collect();
        proptest::prop_assert_eq!(got, words);
    }
}
