//! Model servers of the user's own.

use std::{collections::BTreeSet, fs, net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};

use crate::world::{
    World,
    call::Outcome,
    files::{children, write},
    ollama::Ollama,
    wait::{until, until_true},
};

fn enable(world: &World, ollama: &Ollama) -> Outcome {
    let host = format!("127.0.0.1:{}", ollama.port);
    let outcome = world.run_pi(&["models", "ollama", "enable", "--host", &host]);
    outcome.has_code(0);
    outcome
}

/// What the file has of Ollama.
fn entry(world: &World) -> Value {
    let text = fs::read_to_string(world.agent_dir().join("models.json")).unwrap();
    let plain: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    serde_json::from_str::<Value>(&plain).unwrap()["providers"]["ollama"].clone()
}

#[test]
fn ollamas_models_come_into_the_file_and_go_again_and_the_rest_stays() {
    let world = World::fake();
    let ollama = Ollama::start(&["qwen:7b", "nomic-embed:latest", "vision:latest"]);
    let file = world.agent_dir().join("models.json");
    let before = "// Mine.\n{\n  \"providers\": {\n    // At work.\n    \"corp\": { \"baseUrl\": \"https://llm.corp\" }\n  }\n}\n";
    write(&file, before);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let told = "pi: the agent knows 2 models of `ollama`; `/model` inside chooses one\n";
    enable(&world, &ollama).is(0, "", told);
    let entry_now = |models: Value| {
        let url = format!("http://127.0.0.1:{}/v1", ollama.port);
        json!({ "baseUrl": url, "api": "openai-completions", "apiKey": "ollama", "models": models })
    };
    let vision = json!({ "id": "vision:latest", "input": ["text", "image"] });
    assert_eq!(entry(&world), entry_now(json!([{ "id": "qwen:7b" }, vision])));
    let text = fs::read_to_string(&file).unwrap();
    assert!(before.lines().take(4).all(|line| text.contains(line)), "{text}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);

    ollama.has(&["qwen:7b", "phi:latest"]);
    let listed = world.pi(&["models", "ollama", "list"]).good();
    let rows: Vec<Vec<&str>> = listed.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["phi:latest", "no"]);
    assert_eq!(rows[1], ["qwen:7b", "yes"]);
    assert_eq!(rows[2][..2], ["vision:latest", "yes,"]);
    let status = world.pi(&["models", "status"]).good();
    assert!(status.contains("answers"), "{status}");
    // What the user adds to a model by hand stays.
    write(&file, text.replace("\"id\": \"qwen:7b\"", "\"id\": \"qwen:7b\", \"contextWindow\": 8192"));
    world.run_pi(&["models", "ollama", "add", "phi"]).is(0, "", "pi: the agent knows `phi:latest`\n");
    world.run_pi(&["models", "ollama", "remove", "vision"]).has_code(0);
    let qwen = json!({ "id": "qwen:7b", "contextWindow": 8192 });
    assert_eq!(entry(&world), entry_now(json!([qwen, { "id": "phi:latest" }])));
    ollama.has(&["qwen:7b", "new"]);
    world.run_pi(&["models", "ollama", "sync"]).has_code(0);
    assert_eq!(entry(&world), entry_now(json!([qwen, { "id": "new" }])));
    world.run_pi(&["models", "ollama", "disable"]).is(0, "", "pi: Ollama is used no longer\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    let again = world.run_pi(&["models", "ollama", "disable"]);
    assert!(again.code == Some(125) && again.err.contains("there is no server `ollama`"), "{again:?}");
}

#[test]
fn another_server_is_called_what_it_is() {
    let world = World::fake();
    let server = Ollama::start(&["a", "b"]);
    let url = format!("http://127.0.0.1:{}", server.port);
    world.run_pi(&["models", "add-server", &url]).is(
        0,
        "",
        "pi: the agent knows 2 models of `vllm`; `/model` inside chooses one\n",
    );
    let text = fs::read_to_string(world.agent_dir().join("models.json")).unwrap();
    let models: Value = serde_json::from_str(&text).unwrap();
    let model = |id: &str| json!({ "id": id, "contextWindow": 4096 });
    assert_eq!(models["providers"]["vllm"]["models"], json!([model("a"), model("b")]));
    world.run_pi(&["models", "remove-server", "vllm"]).has_code(0);
    assert!(!world.agent_dir().join("models.json").exists());
}

#[test]
fn a_server_that_does_not_answer_as_it_should_is_an_error_with_the_next_step() {
    let world = World::fake();
    let refused = |words: &[&str], said: &str, hint: &str| {
        let outcome = world.run_pi(&[&["models"], words].concat());
        assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{outcome:?}");
        assert!(outcome.err.contains(said) && outcome.err.contains(hint), "{outcome:?}");
        assert!(!world.agent_dir().join("models.json").exists());
    };
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    refused(
        &["ollama", "enable", "--host", &format!("127.0.0.1:{nobody}")],
        "does not tell its models",
        "`ollama serve`",
    );
    let server = Ollama::start(&["a"]);
    let odd = format!("http://127.0.0.1:{}/odd", server.port);
    refused(&["add-server", &odd], "but not as a server with `/v1/models` does", "name the path too");
    refused(&["ollama", "list"], "Ollama is not in use", "`pi models ollama enable`");
    let outcome = world.run_pi(&["models", "ollama", "enable", "--host", "a b"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    // One that says nothing, and one that has no end.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap().to_string();
    refused(&["ollama", "enable", "--host", &host], "does not tell its models: timeout", "");
    let endless = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = endless.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut client, _) = endless.accept().unwrap();
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n[");
        while client.write_all(&[b' '; 4096]).is_ok() {}
    });
    refused(&["ollama", "enable", "--host", &host], "does not tell its models", "");
}

/// Sockets that a process listens on, by TCP.
fn listens(pid: i32) -> BTreeSet<String> {
    let own: BTreeSet<String> = children(Path::new(&format!("/proc/{pid}/fd")))
        .iter()
        .filter_map(|fd| {
            fs::read_link(fd).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default());
    let listening = tables.iter().flat_map(|table| table.lines()).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(3) == Some(&"0A")).then(|| words[9].to_owned())
    });
    listening.filter(|inode| own.contains(inode)).collect()
}

#[test]
fn a_session_of_any_network_reaches_ollama_on_the_loopback_and_nothing_else_of_it() {
    let world = World::with_model();
    let ollama = Ollama::start(&["write", "echo"]);
    enable(&world, &ollama);
    ollama.asked();
    let list = world.root().join("allowlist");
    write(&list, "example.com\n");
    let list = format!("--allowed-domains={}", list.display());
    for options in [&[][..], &[&*list], &["--no-network"]] {
        let file = world.repo().join("hello.txt");
        let words = [options, &["-p", "--model", "ollama/write", "write the file"]].concat();
        world.run_pi(&words).is(0, "The file is written.\n", "");
        assert_eq!(fs::read_to_string(&file).unwrap(), "hello from the model\n", "{options:?}");
        fs::remove_file(&file).unwrap();
        let asked = ollama.asked();
        let host = format!("127.0.0.1:{}", ollama.port);
        assert!(!asked.is_empty(), "{options:?}");
        assert!(asked.iter().all(|line| *line == format!("POST /v1/chat/completions {host}")), "{asked:?}");
    }
    // What an agent could ask besides: it may not fetch, remove or read anything else there.
    let script = "
        base=$(node -p 'JSON.parse(require(\"fs\").readFileSync(process.env.HOME + \"/.pi/agent/models.json\")).providers.ollama.baseUrl')
        key=$(node -p 'JSON.parse(require(\"fs\").readFileSync(process.env.HOME + \"/.pi/agent/models.json\")).providers.ollama.apiKey')
        top=${base%/v1}
        ask() { curl --noproxy '*' -s -m 10 --path-as-is -o /dev/null -w '%{http_code}\\n' -H \"Authorization: Bearer $key\" \"$@\"; }
        ask -d '{\"model\":\"x\"}' $top/api/pull
        ask -X DELETE -d '{\"model\":\"x\"}' $top/api/delete
        ask $top/api/tags
        ask $base/models
        ask -d '{}' $base/../api/pull
        ask -d '{}' $base/chat/completions/../../api/pull
        ask -d '{}' $base/%2e%2e/api/pull
        ask -d '{}' -H 'Host: 127.0.0.1' http://pi-keys:8440/api/pull
        ask -X GET $base/chat/completions
        key=another; ask -d '{}' $base/chat/completions
        echo $top | sed 's/[0-9]*$//'
    ";
    for options in [&[][..], &[&*list], &["--no-network"]] {
        let said = world.shell(options, script).good();
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[..10].iter().all(|code| ["400", "403", "421"].contains(code)), "{options:?}: {said}");
        assert!(
            lines[10].starts_with("http://pi-keys:8440/") && lines[10].ends_with("/127.0.0.1:"),
            "{said}"
        );
        let asked = ollama.asked();
        assert!(asked.is_empty(), "{options:?}: {asked:?}");
    }
    world.assert_nothing_left();
}

#[test]
fn while_a_session_runs_nobody_else_gets_at_the_loopback_by_it() {
    let world = World::with_model();
    let ollama = Ollama::start(&["slow"]);
    enable(&world, &ollama);
    let running =
        world.pi(&["shell", "--", "sh", "-c", "touch up; while [ ! -e end ]; do sleep 0.1; done"]).start();
    until_true("the agent", || world.repo().join("up").exists());
    // The launcher listens on no address, and its socket is where only this user and the sidecar can go.
    assert_eq!(listens(running.pid().as_raw_nonzero().get()), BTreeSet::new());
    // This process does, for the server.
    assert!(!listens(i32::try_from(std::process::id()).unwrap()).is_empty());
    let session = world.session();
    let sockets = children(&session.join("relay"));
    assert_eq!(sockets, [session.join(format!("relay/127.0.0.1-{}", ollama.port))]);
    let private = session
        .ancestors()
        .take(3)
        .any(|dir| dir.metadata().unwrap().permissions().mode().trailing_zeros() >= 6);
    assert!(private, "{}", session.display());
    write(world.repo().join("end"), "");
    running.wait().is(0, "", "");
    world.assert_nothing_left();
}

#[test]
fn a_server_that_is_gone_is_said_inside_and_one_that_was_moved_by_hand_is_the_users() {
    let world = World::with_model();
    let port = {
        let ollama = Ollama::start(&["echo"]);
        enable(&world, &ollama);
        ollama.port
    };
    let file = world.agent_dir().join("models.json");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = fs::read_to_string(&file).unwrap();
    let moved = text.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{nobody}"));
    // The records say the same, as if the server had ended.
    for state in children(&world.states()) {
        let path = state.join("models.json");
        if let Ok(text) = fs::read_to_string(&path) {
            write(&path, text.replace(&format!("\"port\":{port}"), &format!("\"port\":{nobody}")));
        }
    }
    write(&file, &moved);
    let outcome = world.run_pi(&["-p", "--model", "ollama/echo", "hello"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(1), ""), "{outcome:?}");
    assert!(
        outcome.err.contains(&format!("pi: no server answers at 127.0.0.1:{nobody} of your machine")),
        "{outcome:?}"
    );
    write(&file, moved.replace("127.0.0.1", "10.255.255.1"));
    let plan = world.plan(&["-p", "x"]);
    assert_eq!(plan["relays"], json!([]));
    until("nothing", || if world.sessions().is_empty() { Ok(()) } else { Err(()) });
}
