//! A small internet on this machine, sessions that try to reach it, and sessions with a defence taken away.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{Outcome, Running, World, own, until, write};

/// The resolver of the sessions, in a private range as most of them are.
pub(crate) const RESOLVER: &str = "10.77.77.53";

/// All addresses of the other end; the last one tells its servers that they may listen.
const ADDRESSES: [&str; 13] = [
    "198.51.100.53",
    "198.51.100.66",
    "198.51.100.80",
    "169.254.77.7",
    "10.77.77.7",
    "10.77.77.8",
    "10.77.77.53",
    "10.77.77.90",
    "172.31.77.7",
    "192.168.177.7",
    "192.168.177.8",
    "100.64.77.7",
    "198.18.77.7",
];

/// What everybody who was reached has written down.
type Log = Arc<Mutex<String>>;

/// The internet, the machine's own listeners and a stranger's container; as long as this program lives.
pub(crate) struct Internet {
    log: Log,
    pub(crate) victim: Ipv4Addr,
    /// The engine's own address on its default bridge.
    pub(crate) bridge: Ipv4Addr,
    pub(crate) uplink: Ipv4Addr,
    /// Whether the kernel checks where datagrams come from.
    pub(crate) checks_sources: bool,
    host: String,
    /// Certificates of the web servers.
    pub(crate) authority: String,
    // Each of them ends with its standard input, and its network with it.
    _held: Vec<Child>,
    _lock: fs::File,
}

/// One for all tests of a program, and at most one on an engine.
pub(crate) fn internet() -> &'static Internet {
    static INTERNET: LazyLock<Internet> = LazyLock::new(Internet::start);
    &INTERNET
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs docker itself and returns what it printed.
#[track_caller]
pub(crate) fn docker(args: &[&str]) -> String {
    let said = Command::new("docker").args(args).stdin(Stdio::null()).output().unwrap();
    assert!(said.status.success(), "docker {args:?}: {said:?}");
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

impl Internet {
    fn start() -> Self {
        let lock = only_one();
        let world = World::real();
        configure(&world, "");
        let [agent, wiring] = images(&world);
        let dir = tempfile::Builder::new().prefix("pi-internet-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let me = std::process::id();
        let name = |role: &str| format!("pi-test-{role}-{me}");
        let log = Log::default();
        let launch = |role: &str, options: &[&str]| {
            let mut command = Command::new("docker");
            command.args(["run", "--rm", "--interactive", "--init", "--log-driver=none", "--user=0:0"]);
            command.args(["--label=pi.e2e=internet", "--entrypoint=node", "--name", &name(role)]);
            for (from, to) in [
                (dir.path().to_owned(), "/world"),
                (source("tests/network"), "/network"),
                (source("assets/demo"), "/demo"),
            ] {
                command.arg("--mount").arg(format!("type=bind,source={},target={to}", from.display()));
            }
            command.args(options).args([&agent, "/network/internet.mjs", role]);
            let mut held = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (lines, log) = (BufReader::new(held.stdout.take().unwrap()), log.clone());
            thread::spawn(move || {
                for line in lines.lines().map_while(Result::ok) {
                    let _ = writeln!(log.lock().unwrap(), "{line}");
                }
            });
            held
        };
        let held = vec![
            launch("wan", &["--network=none"]),
            launch("host", &["--network=host"]),
            launch("victim", &["--publish=18996:8080", "--publish=127.0.0.1:18995:8081"]),
        ];
        let pid = until("the internet's container", || {
            let said = Command::new("docker")
                .args(["inspect", "--format", "{{.State.Pid}}", &name("wan")])
                .output()
                .unwrap();
            let pid = String::from_utf8(said.stdout).unwrap().trim().to_owned();
            if pid.is_empty() || pid == "0" { Err(said.stderr) } else { Ok(pid) }
        });
        connect(&name("wan"), &pid, &wiring);
        let facts = until("the internet's servers", || {
            let log = log.lock().unwrap().clone();
            let found: Vec<Value> = log
                .lines()
                .filter_map(|line| line.strip_prefix("ready "))
                .map(|facts| serde_json::from_str(facts).unwrap())
                .collect();
            if found.len() == held.len() { Ok(found) } else { Err(log) }
        });
        let host = facts.iter().find(|facts| facts["role"] == "host").unwrap();
        let address = |of: &Value| of.as_str().unwrap().parse::<Ipv4Addr>().unwrap();
        let uplink = host["interfaces"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| {
                !["lo", "docker", "br-", "veth", "piwan"].iter().any(|own| name.starts_with(own))
            })
            .flat_map(|(_, all)| all.as_array().unwrap())
            .find(|one| one["family"] == "IPv4");
        let victim = |what: &str| -> Ipv4Addr {
            let format = format!("{{{{.NetworkSettings.Networks.bridge.{what}}}}}");
            docker(&["inspect", "--format", &format, &name("victim")]).parse().unwrap()
        };
        let bridge = victim("Gateway");
        Self {
            victim: victim("IPAddress"),
            bridge,
            uplink: uplink.map_or(bridge, |one| address(&one["address"])),
            checks_sources: host["filter"].as_u64().unwrap() > 0,
            host: name("host"),
            authority: fs::read_to_string(dir.path().join("ca.pem")).unwrap(),
            log,
            _held: held,
            _lock: lock,
        }
    }

    /// All lines so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Where a request with this token was reached, and what was asked for in its name.
    pub(crate) fn arrivals(&self, token: &str) -> Vec<String> {
        let (hit, leak) = (format!("hit {token} "), format!("{token}x."));
        self.log()
            .lines()
            .filter(|line| line.starts_with(&hit) || line.starts_with("dns ") && line.contains(&leak))
            .map(str::to_owned)
            .collect()
    }

    /// The machine's link-local address on the bridge of a network.
    fn link_local(&self, network: &str) -> String {
        let id = docker(&["network", "inspect", "--format", "{{.Id}}", network]);
        let table = docker(&["exec", &self.host, "cat", "/proc/net/if_inet6"]);
        let bridge = format!("br-{}", &id[..12]);
        let found = table.lines().find(|line| line.ends_with(&bridge)).map(|line| &line[..32]);
        let digits = found.unwrap_or("fe800000000000000000000000000001");
        let groups: Vec<&str> = (0..8).map(|n| &digits[n * 4..n * 4 + 4]).collect();
        groups.join(":")
    }
}

/// Makes the images of both containers, where they are not there yet, and names them.
fn images(world: &World) -> [String; 2] {
    let words = ["--allow", "allowed.test", "shell", "--", "true"];
    world.run(&mut pi(world, &words)).has_code(0);
    let dry = world.run(&mut pi(world, &[&["--dry-run=json", "--quiet"][..], &words].concat()));
    let plan: Value = serde_json::from_str(&dry.out).unwrap();
    ["agent", "sidecar"].map(|part| plan[part]["image"].as_str().unwrap().to_owned())
}

/// Lays a cable from the engine's namespace into that of a container. It is gone when that container is.
fn connect(container: &str, pid: &str, image: &str) {
    let mut here = format!(
        "ip link add piwan0 type veth peer name wan0 netns {pid}\n\
         ip addr add 198.51.100.1/24 dev piwan0\nip link set piwan0 up\n"
    );
    let mut there = "ip link set lo up\nip addr add 198.51.100.2/24 dev wan0\nip link set wan0 up\n\
                     ip route add default via 198.51.100.1\n"
        .to_owned();
    for address in ADDRESSES {
        let _ = writeln!(here, "ip route add {address}/32 via 198.51.100.2");
        let _ = writeln!(there, "ip addr add {address}/32 dev wan0");
    }
    for (network, script) in [("host", here), (&format!("container:{container}"), there)] {
        let network = format!("--network={network}");
        let run = ["run", "--rm", "--user=0:0", "--cap-add=NET_ADMIN", "--pid=host", "--entrypoint=sh"];
        docker(&[&run[..], &[&network, image, "-ec", &script]].concat());
    }
}

/// The addresses are the same for every internet on an engine.
fn only_one() -> fs::File {
    let engine = std::env::var("DOCKER_HOST").unwrap_or_default();
    let name: String = engine.chars().filter(char::is_ascii_alphanumeric).collect();
    let path = std::env::temp_dir().join(format!("pi-internet-{name}.lock"));
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).unwrap();
    // A run of the same tests by somebody else takes a few minutes.
    for _ in 0..6000 {
        if file.try_lock().is_ok() {
            return file;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("another run holds `{}`", path.display());
}

/// Gives a world the settings of this machine, the internet's resolver, and more keys.
pub(crate) fn configure(world: &World, more: &str) {
    let settings = fs::read_to_string(source("target/setup/config.toml")).unwrap();
    world.configure(&format!("dns = [\"{RESOLVER}\"]\n{more}\n{settings}"));
}

/// `pi` with the world's own settings.
pub(crate) fn pi(world: &World, args: &[&str]) -> Command {
    let mut pi = Command::new(env!("CARGO_BIN_EXE_pi"));
    world.surround(&mut pi);
    pi.args(args).current_dir(world.repo());
    pi
}

/// An attempt, and what must become of it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The session in which it must succeed, and the outcome there if it is not an arrival.
    pub(crate) control: String,
    pub(crate) expected: String,
    pub(crate) how: String,
}

/// Reads `NAME | CONTROL | EXPECTED | HOW`.
pub(crate) fn cases(text: &str) -> Vec<Case> {
    let all: Vec<Case> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let parts: Vec<&str> = line.splitn(4, " | ").collect();
            let [name, control, expected, how] = parts[..] else { panic!("no case: {line}") };
            let [name, control, expected, how] = [name, control, expected, how].map(str::to_owned);
            Case { name, control, expected, how }
        })
        .collect();
    for (n, case) in all.iter().enumerate() {
        assert!(all[..n].iter().all(|other| other.name != case.name), "twice: {}", case.name);
    }
    all
}

impl Case {
    fn wants_control(&self) -> bool {
        !(self.control == "-" || self.control == "own" || self.control.starts_with("none: "))
    }

    /// The name of its control, and the outcome there.
    fn control(&self) -> (&str, Option<&str>) {
        match self.control.split_once('=') {
            Some((name, outcome)) => (name, Some(outcome)),
            None => (&self.control, None),
        }
    }
}

const CLOSED: [&str; 9] = [
    "timeout",
    "silent",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "EADDRNOTAVAIL",
    "EACCES",
    "EPERM",
    "ENODEV",
    "EINVAL",
];

fn is(outcome: &str, expected: &str) -> bool {
    expected.split('/').any(|one| match one {
        "closed" | "residue" => CLOSED.contains(&outcome),
        "ok" => outcome == "ok" || outcome.starts_with("ok "),
        one => outcome == one,
    })
}

/// What became of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) token: String,
    pub(crate) outcome: String,
    pub(crate) arrivals: Vec<String>,
    pub(crate) milliseconds: u64,
}

/// A running session whose agent makes attempts.
pub(crate) struct Session<'a> {
    world: &'a World,
    tag: String,
    rounds: Cell<u32>,
    pub(crate) id: String,
    pub(crate) running: Option<Running>,
    pub(crate) names: BTreeMap<String, String>,
}

/// What an agent of these tests runs.
const AGENT: [&str; 4] = ["shell", "--", "sh", "agent.sh"];

impl<'a> Session<'a> {
    /// A real one.
    pub(crate) fn start(world: &'a World, options: &[&str]) -> Self {
        Self::start_with(world, options, |_| {})
    }

    /// The same, with something more about the launcher.
    pub(crate) fn start_with(world: &'a World, options: &[&str], more: impl FnOnce(&mut Command)) -> Self {
        prepare(world);
        let mut command = pi(world, &[options, &AGENT].concat());
        more(&mut command);
        let running = world.start(&mut command);
        let id = world.session().file_name().unwrap().to_str().unwrap().to_owned();
        Self::attached(world, id, running)
    }

    /// What `pi --dry-run` would do, changed.
    pub(crate) fn changed(world: &'a World, options: &[&str], change: impl FnOnce(&mut Script)) -> Self {
        prepare(world);
        let mut script = Script::of(world, options, &AGENT);
        change(&mut script);
        let running = script.start(world);
        Self::attached(world, script.id, running)
    }

    fn attached(world: &'a World, id: String, running: Running) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("s{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        until("the agent", || {
            if world.repo().join("up").exists() { Ok(()) } else { Err((running.out(), running.err())) }
        });
        let mut session =
            Self { world, tag, rounds: Cell::new(0), id, running: Some(running), names: BTreeMap::new() };
        session.names = session.names();
        session
    }

    /// What stands for what in a case.
    fn names(&self) -> BTreeMap<String, String> {
        let internet = internet();
        let agent = addresses(&format!("pi-{}", self.id));
        let sidecar = addresses(&format!("pi-{}-proxy", self.id));
        let own = format!("pi-{}", self.id);
        let of = |all: &BTreeMap<String, Ipv4Addr>, name: &str| all.get(name).copied();
        let base = of(&sidecar, &own).map_or(0, u32::from) & !7;
        let inner = of(&agent, &own);
        let gateway = if inner.is_some() { Ipv4Addr::from(base + 1) } else { internet.bridge };
        let mut names: BTreeMap<String, String> = [
            ("gateway", gateway),
            ("broadcast", Ipv4Addr::from(base + 7)),
            ("bridge", internet.bridge),
            ("bridge_broadcast", Ipv4Addr::from(u32::from(internet.bridge) | 0xffff)),
            ("uplink", internet.uplink),
            ("victim", internet.victim),
            ("agent", inner.unwrap_or(internet.bridge)),
            ("sidecar", of(&sidecar, &own).unwrap_or(internet.bridge)),
            ("own_outer", of(&sidecar, "bridge").unwrap_or(internet.bridge)),
        ]
        .map(|(name, address)| (name.to_owned(), address.to_string()))
        .into();
        names.insert("resolver".to_owned(), RESOLVER.to_owned());
        names.insert("bridge6".to_owned(), internet.link_local(&own));
        names
    }

    /// Has the agent make attempts, all at once.
    pub(crate) fn attempt(&self, cases: &[Case]) -> BTreeMap<String, Seen> {
        let round = self.rounds.get() + 1;
        self.rounds.set(round);
        let mut text = String::new();
        let token = |n: usize| format!("{}-{round}-{n}", self.tag);
        for (n, case) in cases.iter().enumerate() {
            let how = self
                .named(&case.how)
                .replace("{leak}", &format!("{}x", token(n)))
                .replace("{token}", &token(n));
            let words = match how.split_once(' ').unwrap() {
                (kind @ ("raw" | "head" | "shell"), rest) => format!("{kind}\t{rest}"),
                (kind, rest) => format!("{kind}\t{}", rest.replace(' ', "\t")),
            };
            let _ = writeln!(text, "{}\t{}\t{words}", case.name, token(n));
        }
        let repo = self.world.repo();
        let next = repo.join("next");
        write(&next, &text);
        own(&next);
        fs::rename(next, repo.join(format!("cases.{round}"))).unwrap();
        let results = repo.join(format!("results.{round}"));
        let said = until("the agent's results", || {
            fs::read_to_string(&results).map_err(|_| {
                let so_far = fs::read_to_string(repo.join(format!("out.{round}")));
                (so_far, self.running.as_ref().map(|running| (running.out(), running.err())))
            })
        });
        let outcomes: BTreeMap<&str, (&str, u64)> = said
            .lines()
            .filter_map(|line| {
                let parts: Vec<&str> = line.split('\t').collect();
                let [name, outcome, time] = parts[..] else { return None };
                Some((name, (outcome, time.parse().unwrap())))
            })
            .collect();
        assert!(said.ends_with("done\n") && outcomes.len() == cases.len(), "{said}");
        // What was sent last may still be on its way to the log.
        thread::sleep(Duration::from_millis(50));
        cases
            .iter()
            .enumerate()
            .map(|(n, case)| {
                let (outcome, milliseconds) = outcomes[case.name.as_str()];
                let arrivals = internet().arrivals(&token(n));
                (
                    case.name.clone(),
                    Seen { token: token(n), outcome: outcome.to_owned(), arrivals, milliseconds },
                )
            })
            .collect()
    }

    /// One attempt, made now.
    pub(crate) fn one(&self, how: &str) -> Seen {
        let case = Case {
            name: "one".to_owned(),
            control: "-".to_owned(),
            expected: String::new(),
            how: how.to_owned(),
        };
        self.attempt(&[case]).remove("one").unwrap()
    }

    pub(crate) fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.names {
            text = text.replace(&format!("{{{name}}}"), value);
            text = text.replace(&format!("{{at {name}}}"), &at(value));
        }
        text
    }

    pub(crate) fn sidecar(&self) -> String {
        format!("pi-{}-proxy", self.id)
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Lets the agent end.
    pub(crate) fn end(self) -> Outcome {
        self.end_with("")
    }

    /// The same, with a status of its own.
    pub(crate) fn end_with(mut self, status: &str) -> Outcome {
        let (next, end) = (self.world.repo().join("next"), self.world.repo().join("end"));
        write(&next, status);
        own(&next);
        fs::rename(next, end).unwrap();
        self.running.take().unwrap().wait()
    }

    /// Asks the launcher to stop.
    pub(crate) fn stop(mut self) -> Outcome {
        let running = self.running.take().unwrap();
        running.signal(Signal::TERM);
        running.wait()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // A test that failed half-way: the agent ends by itself, and all the rest with it.
        if let Some(running) = self.running.take() {
            write(&self.world.repo().join("end"), "");
            if !thread::panicking() {
                running.wait();
            }
        }
    }
}

/// A name that leads to an address.
pub(crate) fn at(address: &str) -> String {
    format!("a-{}", address.replace('.', "-"))
}

/// A container's address on each of its networks.
pub(crate) fn addresses(container: &str) -> BTreeMap<String, Ipv4Addr> {
    let text = docker(&["inspect", "--format", "{{json .NetworkSettings.Networks}}", container]);
    let all: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    all.into_iter().filter_map(|(name, one)| Some((name, one["IPAddress"].as_str()?.parse().ok()?))).collect()
}

/// Puts into the repository what the agent runs.
pub(crate) fn prepare(world: &World) {
    let repo = world.repo();
    for (name, text) in [
        ("agent.sh", include_str!("../../network/agent.sh")),
        ("attempts.pl", include_str!("../../network/attempts.pl")),
        ("internet.mjs", include_str!("../../network/internet.mjs")),
        ("ca.pem", &internet().authority),
    ] {
        write(&repo.join(name), text);
    }
    own(&repo);
}

/// The script of a dry run, to be changed.
pub(crate) struct Script {
    pub(crate) text: String,
    pub(crate) id: String,
}

impl Script {
    pub(crate) fn of(world: &World, options: &[&str], command: &[&str]) -> Self {
        let args = [&["--dry-run", "--quiet"], options, command].concat();
        let said = world.run(&mut pi(world, &args));
        said.has_code(0);
        let id = said.out.split("--name pi-").nth(1).unwrap()[..16].to_owned();
        Self { text: said.out, id }
    }

    /// Replaces what must be there.
    #[track_caller]
    pub(crate) fn replace(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "the script has no `{from}`:\n{}", self.text);
        self.text = self.text.replace(from, to);
    }

    /// Replaces in the one line that creates the container of this role.
    #[track_caller]
    pub(crate) fn container(&mut self, role: &str, from: &str, to: &str) {
        let label = format!("--label pi.role={role}");
        let line = self.text.lines().find(|line| line.starts_with("docker create") && line.contains(&label));
        let line = line.unwrap_or_else(|| panic!("no {role}:\n{}", self.text)).to_owned();
        assert!(line.contains(from), "no `{from}` in {line}");
        self.text = self.text.replace(&line, &line.replacen(from, to, 1));
    }

    /// Leaves out the check that the agent's container begins with.
    pub(crate) fn without_gate(&mut self) {
        self.container("agent", "docker create ", "docker create --entrypoint /usr/bin/env ");
    }

    /// Gives the sidecar another first program.
    pub(crate) fn sidecar_runs(&mut self, entry: &Path) {
        let mount = format!(
            "docker create --mount type=bind,source={},target=/usr/local/lib/pi/proxy-entry,readonly ",
            entry.display()
        );
        self.container("proxy", "docker create ", &mount);
    }

    pub(crate) fn start(&self, world: &World) -> Running {
        let path = world.root().join("session.sh");
        write(&path, &self.text);
        let mut command = Command::new("sh");
        world.surround(&mut command);
        command.arg(path).current_dir(world.repo());
        world.start(&mut command)
    }
}

/// The sidecar's first program with parts replaced, each of which must be there.
pub(crate) fn weak_sidecar(world: &World, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = fs::read_to_string(source("proxy/proxy-entry")).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "`proxy/proxy-entry` has no `{from}`");
        text = text.replace(from, to);
    }
    let path = world.root().join("proxy-entry");
    write(&path, &text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// All cases with their verdicts.
pub(crate) struct Matrix {
    rows: Vec<[String; 3]>,
    failed: Vec<String>,
}

impl Matrix {
    /// Holds what became of each case against what must become of it, here and in its control.
    pub(crate) fn of(
        cases: &[Case],
        results: &BTreeMap<String, Seen>,
        controls: &BTreeMap<String, BTreeMap<String, Seen>>,
    ) -> Self {
        let mut matrix = Self { rows: Vec::new(), failed: Vec::new() };
        for case in cases {
            let Seen { outcome, arrivals, .. } = &results[&case.name];
            let residue = case.expected == "residue" && !internet().checks_sources;
            let must_arrive = outcome.starts_with("200 ");
            let arrived = !arrivals.is_empty();
            // And nowhere else than where the answer came from.
            let place = outcome.strip_prefix("200 ").unwrap_or_default();
            let only_there = !must_arrive || arrivals.iter().all(|line| line.ends_with(place));
            let good = is(outcome, &case.expected) && (residue || arrived == must_arrive) && only_there;
            let known = if residue && arrived { " (known residue: one way, rp_filter is 0)" } else { "" };
            let verdict = format!("{}{outcome}{known}", if good { "" } else { "FAILED: " });
            let mut control = case.control.clone();
            let mut proven = true;
            if case.wants_control() {
                let (name, wanted) = case.control();
                let seen = &controls[name][&case.name];
                proven = match wanted {
                    Some(wanted) => is(&seen.outcome, wanted),
                    None => !seen.arrivals.is_empty(),
                };
                let mark = if proven { "" } else { "FAILED: " };
                control = format!("{mark}{name}: {} {}", seen.outcome, seen.arrivals.join(", "));
            }
            if !good || !proven {
                let arrivals = arrivals.join(", ");
                matrix.failed.push(format!(
                    "{} | {verdict} [{arrivals}], not {} | {control}",
                    case.name, case.expected
                ));
            }
            matrix.rows.push([case.name.clone(), verdict, control]);
        }
        matrix
    }

    /// Shows the table and asserts that it is good.
    #[expect(clippy::print_stdout, reason = "the table is shown with `--nocapture`")]
    pub(crate) fn settle(&self, title: &str) {
        println!("\n{title}: {} cases, {} failed", self.rows.len(), self.failed.len());
        for [name, verdict, control] in &self.rows {
            println!("  {name} | {verdict} | {}", control.trim_end());
        }
        assert!(self.failed.is_empty(), "{}: {:#?}", title, self.failed);
    }
}

/// Only those that want this control.
pub(crate) fn wanting(cases: &[Case], control: &str) -> Vec<Case> {
    cases.iter().filter(|case| case.wants_control() && case.control().0 == control).cloned().collect()
}
