//! Packages of strangers, which the user installs.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
};

use crate::world::{
    World,
    files::{own, write},
    model::docker,
};

/// Serves the files below a directory to containers, as long as this program lives; returns its address.
fn serve(root: PathBuf) -> String {
    // The engine's own address on its default network is the first one there.
    let network = docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", "bridge"]);
    let first: Ipv4Addr = network.split('/').next().unwrap().parse().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::from_bits(first.to_bits() | 1), 0)).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let root = root.clone();
            thread::spawn(move || answer(client, &root));
        }
    });
    address
}

fn answer(mut client: TcpStream, root: &Path) -> io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let (status, bytes) = match fs::read(root.join(path.trim_start_matches('/'))) {
        Ok(bytes) => ("200 OK", bytes),
        Err(_) => ("404 Not Found", vec![]),
    };
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len())?;
    client.write_all(&bytes)
}

/// Publishes a package of the agent's with what the script adds to it.
fn publish(world: &World, site: &Path, name: &str, script: &str) {
    let work = world.root().join("packages").join(name);
    write(
        work.join("package.json"),
        r#"{ "name": "p", "version": "1.0.0", "pi": { "extensions": ["index.ts"] } }"#,
    );
    write(work.join("index.ts"), "export default () => {};\n");
    own(&world.root().join("packages"), world.owner());
    world.script(script).cwd(&work).run().has_code(0);
    world.git(&work, &["init", "--quiet"]);
    world.git(&work, &["add", "."]);
    world.git(&work, &["commit", "--quiet", "--message", "package"]);
    let bare = site.join("me").join(name);
    world.git(&work, &["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    world.git(&bare, &["update-server-info"]);
}

#[test]
fn what_a_package_brings_besides_files_is_not_installed() {
    let world = World::with_model();
    let site = world.root().join("site");
    fs::create_dir(&site).unwrap();
    own(&site, world.owner());
    let address = serve(site.clone());
    let live = world.agent_dir();
    write(live.join("auth.json"), "{}\n");
    write(live.join("settings.json"), "{}\n");
    own(&world.home(), world.owner());
    let before = fs::read_to_string(live.join("settings.json")).unwrap();
    let attacks = [
        ("absolute", "ln -s /etc/passwd link"),
        ("login", "ln -s ../../../../auth.json link"),
        ("directory", "ln -s ../../../../sessions link"),
        ("two-steps", "mkdir -p a/b && ln -s ../../.. a/b/up && ln -s a/b/up/../.. link"),
    ];
    for (name, script) in attacks {
        publish(&world, &site, name, script);
        let said = world.run_pi(&["install", &format!("{address}/me/{name}")]);
        said.says(125, "is a link out of it");
        said.says(125, "nothing was changed: the packages and the settings are what they were");
        assert_eq!(fs::read_to_string(live.join("settings.json")).unwrap(), before, "{name}");
        assert!(!live.join("git").exists() && !live.join("npm").exists(), "{name}");
    }
    // The same way, a package that has nothing but files and links among them is there.
    publish(&world, &site, "good", "mkdir a && ln -s ../index.ts a/link");
    world.run_pi(&["install", &format!("{address}/me/good")]).has_code(0);
    assert!(fs::read_to_string(live.join("settings.json")).unwrap().contains("/me/good"));
    let listed = world.run_pi(&["list"]);
    assert!(listed.code == Some(0) && listed.out.contains("/me/good"), "{listed:?}");
    world.assert_nothing_left();
}
