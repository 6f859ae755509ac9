//! A small internet on this machine, sessions that try to reach it, and sessions with a defence taken away.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    World,
    model::{Held, docker, source},
    wait::until,
};

/// The resolver of the sessions, in a private range as most of them are.
pub(crate) const RESOLVER: &str = "10.77.77.53";

/// The settings that name it.
pub(crate) const DNS: &str = "dns = [\"10.77.77.53\"]";

/// All addresses of the other end; the last one tells its servers that they may listen.
const ADDRESSES: &str = "198.51.100.53 198.51.100.66 198.51.100.80 198.51.100.90 169.254.77.7 10.77.77.7 10.77.77.8 10.77.77.53 \
    10.77.77.90 172.31.77.7 192.168.177.7 192.168.177.8 100.64.77.7 198.18.77.7";

/// The internet, the machine's own listeners and a stranger's container; as long as this program lives.
pub(crate) struct Internet {
    pub(crate) victim: Ipv4Addr,
    /// The engine's own address on its default bridge.
    pub(crate) bridge: Ipv4Addr,
    pub(crate) uplink: Ipv4Addr,
    /// Whether the kernel checks where datagrams come from.
    pub(crate) checks_sources: bool,
    host: String,
    /// Certificates of the web servers.
    pub(crate) authority: String,
    // The network of each goes with it.
    held: Mutex<[Held; 3]>,
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
        let files = ["tests/network", "assets/demo", "tests/broker"].map(source);
        let places = ["/network", "/demo", "/broker"];
        let own = files.iter().map(PathBuf::as_path).zip(places);
        let mounts: Vec<_> = own.chain([(dir.path(), "/world")]).collect();
        let launch = |role: &str, options: &[&str]| {
            let options = [&["--user=0:0"], options].concat();
            Held::start(role, &agent, &options, &mounts, &["/network/internet.mjs", role])
        };
        let held = [
            launch("wan", &["--network=none"]),
            launch("host", &["--network=host"]),
            launch("victim", &["--publish=18996:8080", "--publish=127.0.0.1:18995:8081"]),
        ];
        let [wan, host, victim] = &held;
        let pid = until("the internet's container", || {
            let said = Command::new("docker")
                .args(["inspect", "--format", "{{.State.Pid}}", &wan.name])
                .output()
                .unwrap();
            let pid = String::from_utf8(said.stdout).unwrap().trim().to_owned();
            if pid.is_empty() || pid == "0" { Err(said.stderr) } else { Ok(pid) }
        });
        connect(&wan.name, &pid, &wiring);
        let facts = until("the internet's servers", || {
            let logs = held.each_ref().map(Held::log);
            if logs.iter().all(|log| log.contains("ready ")) { Ok(logs) } else { Err(logs) }
        });
        let facts = facts[1].lines().find_map(|line| line.strip_prefix("ready ")).unwrap();
        let facts: Value = serde_json::from_str(facts).unwrap();
        let address = |of: &Value| of.as_str().unwrap().parse::<Ipv4Addr>().unwrap();
        let uplink = facts["interfaces"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| {
                !["lo", "docker", "br-", "veth", "piwan"].iter().any(|own| name.starts_with(own))
            })
            .flat_map(|(_, all)| all.as_array().unwrap())
            .find(|one| one["family"] == "IPv4");
        let gateway = "{{.NetworkSettings.Networks.bridge.Gateway}}";
        let bridge = docker(&["inspect", "--format", gateway, &victim.name]).parse().unwrap();
        Self {
            victim: victim.address().parse().unwrap(),
            bridge,
            uplink: uplink.map_or(bridge, |one| address(&one["address"])),
            checks_sources: facts["filter"].as_u64().unwrap() > 0,
            host: host.name.clone(),
            authority: fs::read_to_string(dir.path().join("ca.pem")).unwrap(),
            held: Mutex::new(held),
            marks: AtomicU32::new(0),
            _lock: lock,
        }
    }

    /// All lines so far, also those that are on their way.
    pub(crate) fn log(&self) -> String {
        let mark = format!("{}.", self.marks.fetch_add(1, Ordering::Relaxed));
        let mut held = self.held.lock().unwrap();
        held.iter_mut().for_each(|held| held.tell(&mark));
        let is_back = |log: &String| {
            log.lines().any(|line| line.starts_with("mark ") && line.contains(&format!(" {mark}")))
        };
        until("what was written before", || {
            let logs = held.each_ref().map(Held::log);
            if logs.iter().all(is_back) { Ok(logs.concat()) } else { Err(logs) }
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
