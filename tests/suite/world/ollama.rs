//! A server that speaks Ollama's API on this machine's loopback. The scripted model answers behind it.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

use super::model::model;

/// Lives as long as the test program.
pub(crate) struct Ollama {
    pub(crate) port: u16,
    models: Arc<Mutex<Vec<&'static str>>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Ollama {
    pub(crate) fn start(models: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ollama = Self { port, models: Arc::new(Mutex::new(models.to_vec())), log: Arc::default() };
        let (models, log) = (ollama.models.clone(), ollama.log.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (models, log) = (models.clone(), log.clone());
                thread::spawn(move || answer(client, &models, &log));
            }
        });
        ollama
    }

    /// What it has from now on.
    pub(crate) fn has(&self, models: &[&'static str]) {
        *self.models.lock().unwrap() = models.to_vec();
    }

    /// The requests so far, each as `METHOD PATH HOST`, and forgets them.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

fn answer(
    mut client: TcpStream,
    models: &Mutex<Vec<&'static str>>,
    log: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut said = Vec::new();
    let mut buffer = [0; 8192];
    let end = loop {
        if let Some(at) = said.windows(4).position(|part| part == b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut buffer)? {
            0 => return Ok(()),
            n => said.extend_from_slice(&buffer[..n]),
        }
    };
    let head = String::from_utf8_lossy(&said[..end]).into_owned();
    let of =
        |name: &str| head.lines().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned));
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    log.lock().unwrap().push(format!("{line} {}", of("host: ").unwrap_or_default()));
    if line == "POST /v1/chat/completions" {
        let mut server = TcpStream::connect((model().address.as_str(), 8080))?;
        server.write_all(&said)?;
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || io::copy(&mut from, &mut to));
        io::copy(&mut server, &mut client)?;
        return client.shutdown(std::net::Shutdown::Both);
    }
    let length: usize = of("content-length: ").map_or(0, |text| text.parse().unwrap());
    while said.len() < end + length {
        match client.read(&mut buffer)? {
            0 => break,
            n => said.extend_from_slice(&buffer[..n]),
        }
    }
    let body: Value = serde_json::from_slice(&said[end..]).unwrap_or_default();
    let models = models.lock().unwrap().clone();
    let answer = match line.as_str() {
        "GET /api/tags" => {
            json!({ "models": models.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>() })
        }
        "POST /api/show" => match body["model"].as_str() {
            Some(name) if name.contains("embed") => json!({ "capabilities": ["embedding"] }),
            Some(name) if name.contains("vision") => json!({ "capabilities": ["completion", "vision"] }),
            _ => json!({ "capabilities": ["completion", "tools"] }),
        },
        "GET /v1/models" => {
            let one = |name: &&str| json!({ "id": name, "owned_by": "vllm", "max_model_len": 4096 });
            json!({ "data": models.iter().map(one).collect::<Vec<_>>() })
        }
        _ => json!({ "status": "success" }),
    };
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
    client.write_all((head + &answer).as_bytes())
}
