//! Logins from beginning to end, with the real agent: the pages for logging in and the hosts that give tokens are the tests'
//! own, under their real names. (What the agent's other logins send is not tried here; their ports and the way of their pages
//! are, in `through` and `browser`.)

use std::fs;

use serde_json::{Value, json};

use super::{PORTS, logins, text};
use crate::{
    keys::provider::with_provider,
    world::{
        World,
        files::{write, write_program},
        terminal::Terminal,
    },
};

/// Types `pi login PROVIDER`, with this browser on the host.
fn begin<'a>(world: &'a World, provider: &str, browser: &str) -> Terminal<'a> {
    let bin = world.root().join("browser");
    write_program(&bin.join("xdg-open"), browser);
    let terminal = Terminal::open(world);
    terminal.line(&format!(
        "clear; NODE_EXTRA_CA_CERTS={} PATH={}:$PATH pi login {provider}; echo \"code=$?\"",
        world.root().join("ca.pem").display(),
        bin.display()
    ));
    terminal
}

/// The page of Anthropic's: it leads back with a code for whom the session asked.
const PAGE: &str = r#"#!/bin/sh
case $1 in https://claude.ai/oauth/authorize\?*) ;; *) exit 1 ;; esac
of() { printf %s "$1" | tr '?&' '\n\n' | sed -n "s/^$2=//p"; }
back=$(of "$1" redirect_uri | sed 's/%3A/:/g; s/%2F/\//g')
exec curl -s "$back?code=whole.$(of "$1" code_challenge)&state=$(of "$1" state)"
"#;

#[test]
fn a_login_in_the_browser_is_made_kept_and_used() {
    let _ports = PORTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (world, provider) = with_provider("");
    let terminal = begin(&world, "anthropic", PAGE);
    terminal.wait("the agent's question", |screen| screen.contains("Sign in with an account"));
    terminal.insist(&["Enter"], "the end of the login", |screen| screen.contains("code=0"));
    assert!(terminal.screen().contains("pi: logged in to Claude Pro or Max"), "{}", terminal.screen());
    assert_eq!(provider.of_logins("whole"), ["login whole"]);
    let stored: Value = serde_json::from_str(&text(&world)).unwrap();
    assert_eq!(stored["anthropic"]["access"], "sk-ant-oat01-whole-0");
    assert_eq!(stored["anthropic"]["refresh"], "r-whole-0");
    drop(terminal);
    // A session uses it, and does not have it.
    let models = json!({"providers": {"anthropic": {"baseUrl": "https://llm.test"}}});
    write(world.agent_dir().join("models.json"), models.to_string());
    let turn = "cat ~/.pi/agent/auth.json; pi -p --model anthropic/claude-sonnet-4-5 --no-session hello";
    let turn = world.shell(&[], turn).env("NODE_EXTRA_CA_CERTS", world.root().join("ca.pem")).run();
    assert!(turn.code == Some(0) && turn.out.ends_with("the model has answered\n"), "{turn:?}");
    assert!(!turn.out.contains("whole-0"), "{turn:?}");
    assert_eq!(provider.requests("sk-ant-oat01-whole-0").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn a_login_by_a_code_on_another_device_is_made_and_kept() {
    let (world, provider) = with_provider("");
    let terminal = begin(&world, "github-copilot", "#!/bin/sh\n");
    terminal.insist(&["Enter"], "the code", |screen| screen.contains("ABCD-1234"));
    // Somebody looks at the page, on whatever device, and the code is good.
    let page = "https://github.com/login/device";
    let resolve = format!("github.com:443:{}", provider.address);
    let authority = world.root().join("ca.pem");
    let words =
        ["-s", "--noproxy", "*", "--resolve", &resolve, "--cacert", authority.to_str().unwrap(), page];
    world.call("curl").args(&words).run().has_code(0);
    terminal.wait("the end of the login", |screen| screen.contains("code=0"));
    let stored: Value = serde_json::from_str(&fs::read_to_string(logins(&world)).unwrap()).unwrap();
    let login = &stored["github-copilot"];
    assert_eq!(login["refresh"], "gho_of-the-device", "{stored}");
    assert!(login["access"].as_str().unwrap().contains("for=gho_of-the-device"), "{stored}");
    drop(terminal);
    world.assert_nothing_left();
}
