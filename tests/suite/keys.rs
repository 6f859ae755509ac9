//! Keys stay outside: the real agent talks to its model through the broker, and an agent that means ill finds no key.

mod company;
pub(crate) mod provider;

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use provider::{KEY, Provider, with_provider};

use crate::world::{
    World,
    call::Call,
    files::{children, make_dir, write},
    model::{docker, source},
    wait::until_true,
};

/// A world whose user has a key for the provider.
fn world(settings: &str) -> (World, &'static Provider) {
    let (world, provider) = with_provider(settings);
    models(&world, "$CORP_KEY");
    (world, provider)
}

fn models(world: &World, key: &str) {
    let text = serde_json::json!({ "providers": { "corp": {
        "baseUrl": "https://llm.test/v1", "api": "openai-completions", "apiKey": key,
        "models": [{ "id": "echo" }, { "id": "bash" }, { "id": "slow" }],
    } } });
    write(world.agent_dir().join("models.json"), text.to_string());
}

fn with_key<'a>(world: &World, call: Call<'a>) -> Call<'a> {
    call.env("CORP_KEY", KEY).env("NODE_EXTRA_CA_CERTS", world.root().join("ca.pem"))
}

fn pi<'a>(world: &'a World, words: &[&str]) -> Call<'a> {
    with_key(world, world.pi(words))
}

/// The sidecar's container of the one session.
fn sidecar(world: &World) -> String {
    let id = world.session().file_name().unwrap().to_str().unwrap().to_owned();
    docker(&[
        "ps",
        "--quiet",
        "--filter",
        &format!("label=pi.session={id}"),
        "--filter",
        "label=pi.role=proxy",
    ])
}

#[test]
fn a_turn_with_a_tool_goes_through_the_broker_whatever_the_network() {
    let (world, provider) = world("");
    // Tests beside this one ask the same provider.
    let key = format!("{KEY}-of-turns");
    write(world.root().join("list"), "other.test\n");
    let list = format!("--allowed-domains={}", world.root().join("list").display());
    let prompt = "run: echo it ran; echo $OPENAI_API_KEY$CORP_KEY; cat ~/.pi/agent/*.json; exit 3";
    for options in [&[][..], &[list.as_str()], &["--no-network"]] {
        let before = provider.requests(&key).len();
        let outcome = pi(&world, &[options, &["-p", "--model", "corp/bash", prompt]].concat())
            .env("OPENAI_API_KEY", "sk-another-key-of-the-user")
            .env("CORP_KEY", &key)
            .run();
        assert!(outcome.code == Some(0) && outcome.out.contains("it ran"), "{options:?}: {outcome:?}");
        assert!(!outcome.out.contains(&key) && !outcome.out.contains("sk-another"), "{outcome:?}");
        assert!(outcome.out.contains("pi-placeholder-"), "{outcome:?}");
        let requests = provider.requests(&key);
        let seen = &requests[before..];
        let expected = format!("POST /v1/chat/completions {key}");
        assert!(seen.len() == 2 && seen.iter().all(|request| *request == expected), "{options:?}: {seen:?}");
    }
    let log = world.pi(&["logs"]).good();
    assert!(log.contains("broker custom0-corp POST llm.test 200 "), "{log}");
    assert!(!log.contains(KEY));
    world.assert_nothing_left();
}

#[test]
fn an_agent_that_means_ill_finds_no_key() {
    let (world, provider) = world("");
    let key = &format!("{KEY}-of-the-hunt");
    // What a session before this one had is worth nothing now.
    let former = pi(&world, &["shell", "--", "jq", "-r", ".providers.corp.apiKey"])
        .args(&["/home/pi/.pi/agent/models.json"])
        .good();
    fs::copy(source("tests/keys/look.sh"), world.repo().join("look.sh")).unwrap();
    let control = "a-value-that-is-there";
    let [halves, controls] = [key.as_str(), control].map(|text| text.split_at(text.len() / 2));
    let words = ["shell", "--", "bash", "look.sh", halves.0, halves.1, controls.0, controls.1, former.trim()];
    let outcome = pi(&world, &words).env("CORP_KEY", key).limit(Duration::from_secs(120)).run();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let said: BTreeMap<&str, &str> = outcome.out.lines().filter_map(|line| line.split_once(' ')).collect();
    let all: Vec<_> = said.iter().filter(|(name, _)| !name.contains("control")).collect();
    assert!(all.len() >= 60, "{}: {outcome:?}", all.len());
    let without =
        all.iter().find(|(name, _)| **name != "ports" && !said.contains_key(&*format!("control-{name}")));
    assert_eq!(without, None);
    for (name, result) in &said {
        let expected: &[&str] = match *name {
            "ports" => &["8440"],
            // What is odd about the others goes no further than the broker.
            "ask-host-header" | "ask-forwarded" | "ask-upgrade" | "ask-twice" => &["200"],
            _ if name.starts_with("control-ask-") || name.starts_with("control-raw-") => &["200"],
            _ if name.starts_with("control-") => &["found"],
            _ if name.starts_with("ask-") => &["400", "403", "404", "411", "421", "000"],
            _ => &["nothing"],
        };
        let result = result.rsplit(' ').next().unwrap_or(result);
        assert!(expected.contains(&result), "{name}: {result}: {:#?}", outcome.out);
    }
    // Whatever it was asked, the key went with one kind of request to one place.
    let requests = provider.requests(key);
    let astray = requests.iter().find(|one| **one != format!("POST /v1/chat/completions {key}"));
    assert!(astray.is_none() && requests.len() >= all.len() / 2, "{astray:?}");
    world.assert_nothing_left();
}

/// Says whether the key, which comes in two halves, is in the memory of another process.
const MEMORY: &str = r#"
    my $key = $ARGV[0] . $ARGV[1];
    my $said = "nothing";
    for my $process (grep { $_ ne "/proc/$$" } glob "/proc/[0-9]*") {
        open(my $maps, "<", "$process/maps") && open(my $memory, "<", "$process/mem") or next;
        while (<$maps>) {
            my ($from, $to) = /^([0-9a-f]+)-([0-9a-f]+) r/ or next;
            ($from, $to) = (hex $from, hex $to);
            next if $to - $from > 64 << 20;
            my $bytes = "";
            sysseek($memory, $from, 0) && sysread($memory, $bytes, $to - $from);
            $said = "found" if index($bytes, $key) >= 0;
        }
    }
    print "$said\n";
"#;

#[test]
fn a_key_is_nowhere_on_the_host_but_where_it_was() {
    let (world, _) = world("");
    let running = pi(&world, &["shell", "--", "sh", "-c", "touch up; sleep 600"]).start();
    until_true("the session", || world.repo().join("up").exists());
    let id = world.session().file_name().unwrap().to_str().unwrap().to_owned();
    let containers = docker(&["ps", "--all", "--quiet", "--filter", &format!("label=pi.session={id}")]);
    let containers: [&str; 2] = containers.lines().collect::<Vec<_>>().try_into().unwrap();
    let inspected = docker(&[&["inspect"], &containers[..]].concat());
    assert!(inspected.contains("PI_BOX_BROKER") && !inspected.contains(KEY), "{inspected}");
    let tops = containers.map(|container| docker(&["top", container, "-eo", "pid,args"])).concat();
    assert!(tops.contains("haproxy") && tops.contains("sleep 600") && !tops.contains(KEY), "{tops}");
    let sidecar = sidecar(&world);
    // As the user of tinyproxy, who is as strange as the agent.
    let look =
        "cat /tmp/pi-broker/* /proc/*/environ /proc/*/cmdline 2>/dev/null; ls -ld /tmp/pi-broker; id -u";
    let seen = docker(&["exec", "--user=65534:65534", &sidecar, "sh", "-c", look]);
    assert!(
        !seen.contains(KEY) && seen.contains("drwx------ 2 65532 65532") && seen.ends_with("65534"),
        "{seen}"
    );
    // Nor is it in any memory that this user can read; the broker's own user finds it there.
    let [head, tail] = [&KEY[..12], &KEY[12..]];
    let memory = |user: &str| {
        docker(&["exec", &format!("--user={user}:{user}"), &sidecar, "perl", "-e", MEMORY, head, tail])
    };
    assert_eq!((memory("65534").as_str(), memory("65533").as_str()), ("nothing", "nothing"));
    assert_eq!(memory("65532"), "found");
    let mut pending = vec![world.states()];
    let mut placeholders = 0;
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(children(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!has(KEY), "{}", path.display());
            placeholders += u32::from(has("pi-placeholder-"));
        }
    }
    assert!(placeholders > 0, "nothing was looked at");
    for form in ["--dry-run", "--dry-run=json"] {
        let shown = pi(&world, &[form, "-p", "x"]).run();
        assert!(shown.code == Some(0) && shown.out.contains("llm.test"), "{shown:?}");
        assert!(!shown.out.contains(KEY) && !shown.err.contains(KEY), "{form}");
    }
    world.run_pi(&["stop", "--all"]).has_code(0);
    running.wait().has_code(143);
    world.assert_nothing_left();
}

#[test]
fn a_broker_that_dies_is_replaced() {
    let (world, _) = world("");
    let ask = "curl -sS -o /dev/null -w '%{http_code}\\n' http://pi-keys:8440/";
    let script = format!("touch up; until [ -e down ]; do sleep 0.1; done; until {ask}; do sleep 0.1; done");
    let running = pi(&world, &["shell", "--", "sh", "-c", &script]).start();
    until_true("the session", || world.repo().join("up").exists());
    // All that belongs to this user, but for the one who does it.
    docker(&["exec", "--user=65532:65532", &sidecar(&world), "sh", "-c", "kill -9 -1"]);
    until_true("the news", || running.err().contains("the keys' broker was restarted"));
    write(world.repo().join("down"), "");
    let outcome = running.wait();
    assert!(outcome.code == Some(0) && outcome.out.ends_with("421\n"), "{outcome:?}");
    world.assert_nothing_left();
}

#[test]
fn keys_that_are_of_no_use_are_told() {
    let (world, _) = world("");
    let turn = ["-p", "--model", "corp/echo", "hello"];
    let refused = with_key(&world, world.pi(&turn)).env("CORP_KEY", "not-the-key").run();
    assert!(refused.err.contains("your key for `corp` was refused by llm.test"), "{refused:?}");
    assert!(refused.err.contains("there is no such key"), "{refused:?}");
    // A name of the table is on the internet, and nowhere else.
    let words = [
        "shell",
        "--",
        "sh",
        "-c",
        "curl -sS -d {} -H \"authorization: Bearer $(jq -r .groq.key ~/.pi/agent/auth.json)\" \
        http://pi-keys:8440/groq/api.groq.com/openai/v1/chat/completions",
    ];
    let private = pi(&world, &words).env("GROQ_API_KEY", "gsk_x").run();
    assert!(private.out.contains("leads to an address that is not on the internet"), "{private:?}");
    // A certificate that nobody vouches for.
    let strange = world.pi(&turn).env("CORP_KEY", KEY).run();
    assert!(strange.err.contains("its certificate is not valid"), "{strange:?}");
    models(&world, "!echo oops >&2; exit 3");
    let failed = pi(&world, &["shell", "--", "cat", "/home/pi/.pi/agent/models.json"]).run();
    assert!(
        failed.err.contains("the key of `corp` is not used: its command failed: exit status: 3"),
        "{failed:?}"
    );
    assert!(!failed.out.contains("apiKey") && !failed.out.contains("oops"), "{failed:?}");
    models(&world, "!printf %s \"$(cat key)\"");
    write(world.home().join("key"), KEY);
    let made = with_key(&world, world.pi(&turn)).run();
    assert!(made.code == Some(0) && made.out.contains("hello"), "{made:?}");
    world.assert_nothing_left();
}

#[test]
fn a_provider_is_asked_about_a_key_where_the_user_wants_that_and_never_else() {
    let (world, provider) = world("");
    let key = format!("{KEY}-of-the-doctor");
    let doctor =
        |words: &[&str], key: &str| pi(&world, &[&["doctor"], words].concat()).env("CORP_KEY", key).run();
    let login = |name: &str, refresh: &str, expires: u64| {
        let login =
            serde_json::json!({ "type": "oauth", "access": "t", "refresh": refresh, "expires": expires });
        write(world.agent_dir().join("auth.json"), serde_json::json!({ name: login }).to_string());
    };
    login("somebody", "", 1);
    let plain = doctor(&[], &key);
    assert!(plain.out.contains("outside, with the broker: corp"), "{plain:?}");
    assert!(plain.out.contains("login of `somebody`: expired"), "{plain:?}");
    assert!(provider.requests(&key).is_empty());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    login("anthropic", "r", (now + 10_000) * 1000);
    let asked = doctor(&["--ask"], &key);
    assert!(asked.out.contains("llm.test takes your key for `corp`"), "{asked:?}");
    assert!(asked.out.contains("login of `anthropic`: logged in; renewed in"), "{asked:?}");
    assert_eq!(provider.requests(&key), [format!("POST /v1/chat/completions {key}")]);
    fs::remove_file(world.agent_dir().join("auth.json")).unwrap();
    let refused = doctor(&["--ask", "--json"], "not-the-key");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.out.contains("your key for `corp` was refused by llm.test (401)"), "{refused:?}");
    world.assert_nothing_left();
}

#[test]
fn the_settings_and_an_option_say_where_keys_are() {
    let (world, provider) = world("");
    let script = "cat ~/.pi/agent/auth.json; echo $GROQ_API_KEY; cat /etc/hosts";
    let look = |options: &[&str]| {
        pi(&world, &[options, &["shell", "--", "sh", "-c", script]].concat())
            .env("GROQ_API_KEY", "gsk_secret")
            .run()
    };
    make_dir(&world.agent_dir());
    write(world.agent_dir().join("auth.json"), r#"{"groq":{"type":"api_key","key":"gsk_stored"}}"#);
    let brokered = look(&[]);
    assert!(brokered.out.contains("pi-placeholder") && brokered.out.contains("pi-keys"), "{brokered:?}");
    assert!(!brokered.out.contains("gsk_") && brokered.err.is_empty(), "{brokered:?}");
    let none = look(&["--no-keys"]);
    assert!(none.out.starts_with("{}\n\n") && !none.out.contains("pi-keys"), "{none:?}");
    // Without a network and without keys there is nothing at all beside the agent.
    let alone =
        pi(&world, &["--no-network", "--no-keys", "--dry-run=json", "shell"]).env("GROQ_API_KEY", "k").good();
    let alone: serde_json::Value = serde_json::from_str(&alone).unwrap();
    assert_eq!((&alone["network"], &alone["sidecar"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    assert_eq!(alone["agent"]["network"], "none");
    world.configure(&format!("dns = [\"{}\"]\nkeys = {{ groq = \"env\" }}", provider.address));
    let inside = look(&[]);
    assert!(inside.out.contains("gsk_stored") && inside.out.contains("gsk_secret\n"), "{inside:?}");
    let told = "pi: the keys of `groq` are in the sandbox, where the agent can read them\n";
    assert!(inside.err.contains(told), "{inside:?}");
    world.configure("keys = \"env\"");
    let all = look(&[]);
    assert!(all.out.contains("gsk_stored") && !all.out.contains("pi-keys"), "{all:?}");
    assert!(all.err.contains("the keys of `corp`, `groq` are in the sandbox"), "{all:?}");
    world.assert_nothing_left();
}
