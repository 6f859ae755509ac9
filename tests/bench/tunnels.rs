//! How fast the sidecar passes on, compared with tinyproxy alone between the same two networks.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

use crate::{
    Effort, row,
    time::middle,
    world::{World, docker, said, shell_quiet},
};

/// What `tunnels.pl` prints, and the target of each.
const FIGURES: [(&str, &str, &str); 6] = [
    ("through the sidecar, 1 tunnel", "MB/s", "0.90"),
    ("16 tunnels", "MB/s", "0.90"),
    ("100 tunnels", "MB/s", "0.90"),
    ("new tunnels, 1 at a time", "/s", "0.70"),
    ("16 at once", "/s", "0.70"),
    ("100 at once", "/s", "0.50"),
];

pub(crate) fn rows(world: &World, effort: &Effort) {
    let listener = TcpListener::bind((docker0().as_str(), 0));
    let Ok(listener) = listener else {
        println!("| through the sidecar | tinyproxy alone | the engine is on another machine | | | | |");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || serve(&listener));
    let program = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/tunnels.pl")).unwrap();
    fs::write(world.repo().join("tunnels.pl"), program).unwrap();
    let allow = format!("host.docker.internal:{port}");
    let words = ["tunnels.pl".to_owned(), port.to_string(), effort.seconds.to_string()];
    let alone = Alone::start(world, &allow);
    let mut seen = [vec![], vec![]];
    for _ in 0..effort.rounds {
        let session: Vec<&str> = ["--allow", &allow, "--proxy", "shell", "--", "perl"]
            .into_iter()
            .chain(words.iter().map(String::as_str))
            .collect();
        let ours = said(world.pi(&session));
        let theirs = said(alone.client(world, &words));
        for (seen, said) in seen.iter_mut().zip([ours, theirs]) {
            seen.push(said.split_whitespace().map(|word| word.parse::<f64>().unwrap()).collect::<Vec<_>>());
        }
    }
    let figure = |who: usize, at: usize| middle(seen[who].iter().map(|figures| figures[at]).collect());
    for (at, (what, unit, target)) in FIGURES.into_iter().enumerate() {
        row(what, "tinyproxy alone", [figure(0, at), figure(1, at)], unit, target, None);
    }
    let beside = [figure(0, FIGURES.len()), figure(0, 0)];
    row("one active tunnel with 200 idle ones", "with none", beside, "MB/s", "0.95", None);
}

/// The machine's address for containers: old engines do not name it, and it is the first of their network.
fn docker0() -> String {
    let of_network = "--format={{with index .IPAM.Config 0}}{{.Gateway}} {{.Subnet}}{{end}}";
    let said = docker(&["network", "inspect", of_network, "bridge"]);
    match said.split_once(' ') {
        Some((gateway, _)) => gateway.to_owned(),
        None => format!("{}.1", said.rsplit_once('.').map_or("", |(above, _)| above)),
    }
}

/// Does what the first byte of a connection says.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || serve_one(stream));
    }
}

fn serve_one(mut stream: TcpStream) {
    let mut word = [0];
    let _ = stream.read_exact(&mut word);
    match &word {
        b"d" => {
            let chunk = vec![0; 1 << 18];
            while stream.write_all(&chunk).is_ok() {}
        }
        b"c" => drop(stream.write_all(b"x")),
        // Until the other side ends it.
        _ => drop(stream.read(&mut word)),
    }
}

/// A tinyproxy with the session's own settings and rules, and nothing in front of it.
struct Alone {
    name: String,
    address: String,
    image: String,
}

impl Alone {
    fn start(world: &World, allow: &str) -> Self {
        let plan = world.plan(&["--allow", allow, "--proxy", "--", "--version"]);
        let text = |pointer: &str| plan.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let dir = world.repo().join("alone");
        fs::create_dir_all(&dir).unwrap();
        let own = "\nPort 8888\nListen 0.0.0.0\nAllow 0.0.0.0/0\nFilter \"/alone/filter\"\n";
        fs::write(dir.join("conf"), text("/told/rules/conf") + own).unwrap();
        fs::write(dir.join("filter"), text("/told/rules/filter")).unwrap();
        let name = format!("pi-bench-{}", std::process::id());
        docker(&["network", "create", "--internal", &name]);
        let volume = format!("--volume={}:/alone:ro", dir.display());
        let hosts = "--add-host=host.docker.internal:host-gateway";
        docker(&[
            "create",
            "--rm",
            "--init",
            "--name",
            &name,
            "--user=65534:65534",
            "--cap-drop=ALL",
            "--cpus=1",
            &volume,
            hosts,
            "--entrypoint=tinyproxy",
            &text("/sidecar/image"),
            "-d",
            "-c",
            "/alone/conf",
        ]);
        docker(&["network", "connect", &name, &name]);
        docker(&["start", &name]);
        let format = format!("--format={{{{(index .NetworkSettings.Networks \"{name}\").IPAddress}}}}");
        let address = docker(&["inspect", &format, &name]);
        Self { name, address, image: text("/agent/image") }
    }

    /// A container that asks it.
    fn client(&self, world: &World, words: &[String]) -> Command {
        let mut client = Command::new("docker");
        client
            .args(["run", "--rm", "--init", "--network", &self.name, "--workdir=/repo", "--entrypoint=perl"]);
        client.arg(format!("--volume={}:/repo:ro", world.repo().display()));
        client.arg(format!("--env=HTTPS_PROXY=http://{}:8888", self.address));
        client.arg(&self.image).args(words);
        client
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let name = &self.name;
        shell_quiet(&format!("docker rm --force {name}; docker network rm {name}"));
    }
}
