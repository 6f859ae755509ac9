//! A machine that gets out by a proxy only.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::{
    KEY, models, pi,
    provider::{provider, with_provider},
};
use crate::world::files::write;

/// `someone:secret`, as a proxy is told it.
const LOGIN: &str = "Proxy-Authorization: Basic c29tZW9uZTpzZWNyZXQ=";

/// A company's proxy on this machine's loopback, which knows the way to the provider and wants a login.
struct Company {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Company {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let company = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = company.asked.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let asked = asked.clone();
                thread::spawn(move || tunnel(client, &asked));
            }
        });
        company
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn tunnel(mut client: TcpStream, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    asked.lock().unwrap().push(head.lines().next().unwrap().to_owned());
    if !head.lines().any(|line| line == LOGIN) {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    }
    let mut server = TcpStream::connect((provider().address.as_str(), 443))?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

#[test]
fn a_machine_behind_a_proxy_has_its_broker_go_through_it_with_tls_to_the_provider_itself() {
    let (world, provider) = with_provider("");
    models(&world, "$CORP_KEY");
    // Without the proxy nobody knows where the provider is.
    let file = world.agent_dir().join("models.json");
    write(&file, fs::read_to_string(&file).unwrap().replace("llm.test", "behind.example"));
    let company = Company::start();
    let key = format!("{KEY}-behind-a-proxy");
    let address = |login: &str| format!("http://{login}@127.0.0.1:{}", company.port);
    let through = |options: &[&str], proxy: &str, prompt: &str| {
        pi(&world, &[options, &["-p", "--model", "corp/bash", prompt]].concat())
            .env("CORP_KEY", &key)
            .env("HTTPS_PROXY", proxy)
            .run()
    };
    write(world.root().join("list"), "behind.example\n");
    let list = format!("--allowed-domains={}", world.root().join("list").display());
    let prompt = "run: echo it ran; env; cat ~/.pi/agent/*.json";
    for options in [&[][..], &[list.as_str()], &["--no-network"]] {
        let before = provider.requests(&key).len();
        let outcome = through(options, &address("someone:secret"), prompt);
        assert!(outcome.code == Some(0) && outcome.out.contains("it ran"), "{options:?}: {outcome:?}");
        // Neither the key nor the company's password is inside.
        assert!(!outcome.out.contains(&key) && !outcome.out.contains("someone:secret"), "{outcome:?}");
        assert_eq!(provider.requests(&key).len(), before + 2, "{options:?}");
        let asked = company.asked();
        assert!(
            !asked.is_empty() && asked.iter().all(|line| line == "CONNECT behind.example:443 HTTP/1.1"),
            "{asked:?}"
        );
    }
    // One request, since the agent would try again and again.
    let ask = |proxy: &str, direct: &str| {
        let script = "models=~/.pi/agent/models.json; curl --noproxy '*' -sS -d '{}' \
            -H \"authorization: Bearer $(jq -r .providers.corp.apiKey $models)\" \
            $(jq -r .providers.corp.baseUrl $models)/chat/completions";
        let outcome = pi(&world, &["shell", "--", "sh", "-c", script])
            .env("CORP_KEY", &key)
            .env("HTTPS_PROXY", proxy)
            .env("NO_PROXY", direct)
            .run();
        assert!(outcome.code == Some(0) && !outcome.out.contains(&key), "{outcome:?}");
        outcome
    };
    // With a wrong login the user hears what the proxy says.
    let refused = ask(&address("someone:else"), "");
    let said = "pi: warning: the proxy in `HTTPS_PROXY` does not lead to behind.example:443: it answered `HTTP/1.1 407 Proxy \
                Authentication Required`\n";
    assert!(refused.err == said && refused.out.contains("could not be reached"), "{refused:?}");
    company.asked();
    // One of a kind that cannot be used is named, and the keys stay outside.
    let other = ask("socks5://127.0.0.1:1080", "");
    assert!(
        other.err.contains("the broker asks providers directly, since it cannot use the proxy"),
        "{other:?}"
    );
    // What `NO_PROXY` names is asked directly: here, in vain.
    for direct in ["localhost,.example", "*"] {
        let near = ask(&address("someone:secret"), direct);
        assert!(near.out.contains("cannot be resolved"), "{near:?}");
    }
    assert!(company.asked().is_empty());
    world.assert_nothing_left();
}
