//! A small internet on this machine, sessions that try to reach it, and sessions with a defence taken away.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    World,
    model::{docker, source},
    wait::until,
};

/// The resolver of the sessions, in a private range as most of them are.
pub(crate) const RESOLVER: &str = "10.77.77.53";

/// The settings that name it.
pub(crate) const DNS: &str = "dns = [\"10.77.77.53\"]";

/// All addresses of the other end; the last one tells its servers that they may listen.
const ADDRESSES: &str = "198.51.100.53 198.51.100.66 198.51.100.80 198.51.100.90 169.254.77.7 10.77.77.7 10.77.77.8 10.77.77.53 \
    10.77.77.90 172.31.77.7 192.168.177.7 192.168.177.8 100.64.77.7 198.18.77.7";

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
    held: Mutex<Vec<Child>>,
    marks: AtomicU32,
    _lock: fs::File,
}

/// One for all tests of a program, and at most one on an engine.
pub(crate) fn internet() -> &'static Internet {
    static INTERNET: LazyLock<Internet> = LazyLock::new(Internet::start);
    &INTERNET
}

impl Internet {
    fn start() -> Self {
        let lock = only_one();
        let world = World::real();
        world.configure(DNS);
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
                (source("tests/broker"), "/broker"),
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
            held: Mutex::new(held),
            marks: AtomicU32::new(0),
            _lock: lock,
        }
    }

    /// All lines so far, also those that are on their way.
    pub(crate) fn log(&self) -> String {
        let mark = format!("{}.", self.marks.fetch_add(1, Ordering::Relaxed));
        let everybody = {
            let mut held = self.held.lock().unwrap();
            for other in held.iter_mut() {
                writeln!(other.stdin.as_mut().unwrap(), "{mark}").unwrap();
            }
            held.len()
        };
        until("what was written before", || {
            let log = self.log.lock().unwrap().clone();
            let back =
                log.lines().filter(|line| line.starts_with("mark ") && line.contains(&format!(" {mark}")));
            if back.count() >= everybody { Ok(log) } else { Err(log) }
        })
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
    pub(crate) fn link_local(&self, network: &str) -> String {
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
    world.run_pi(&words).has_code(0);
    let plan = world.plan(&words);
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
    for address in ADDRESSES.split(' ') {
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
