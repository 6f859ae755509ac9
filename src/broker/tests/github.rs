//! GitHub, and what a company's proxy changes.

use serde_json::json;

use super::{User, config, keys};
use crate::{
    broker::{
        github::{GitHub, Graph, Repository, Write},
        placeholder::Placeholder,
        relay::Relay,
    },
    domain::upstream::Upstream,
    secret::Secret,
};

pub(super) fn github(token: &str, write: Write, repositories: &[&str]) -> GitHub {
    let token = Secret::new(token.into());
    GitHub {
        address: "pi-keys:8441".to_owned(),
        placeholder: Placeholder::from([7; 16]),
        graph: Graph::for_token(&token),
        token,
        repositories: repositories.iter().map(|text| Repository::parse(text).unwrap()).collect(),
        write,
    }
}

#[test]
fn github_is_asked_about_the_named_repositories_only() {
    let of = |token: &str, write: Write| {
        let user =
            User { github: Some(github(token, write, &["me/proj", "our/other.x"])), ..User::default() };
        assert_eq!(keys(&user), format!("github {token}\n"));
        let config = config(&user);
        assert!(!config.contains(token));
        config
    };
    let config = of("ghp_secret", Write::Refused);
    assert!(!config.contains("receive-pack") && !config.contains("POST PATCH PUT"));
    assert!(!config.contains("{ method POST } { pathq -m str /graphql }"));
    for path in ["/github.com/me/proj/git-upload-pack", "/github.com/our/other.x.git/git-upload-pack"] {
        assert!(config.contains(&format!("{{ method POST }} {{ pathq -i -m str '{path}' }}")), "{config}");
    }
    let config = of("github_pat_secret", Write::Allowed);
    assert!(config.contains("'/github.com/me/proj/info/refs?service=git-receive-pack'"));
    assert!(config.contains("{ method POST } { pathq -m str /graphql } !{ req.body -m sub mutation }"));
    assert!(config.contains("mutation [A-Za-z]+") && config.contains(r"'\\u00[4567]'"));
    let config = of("github_pat_secret", Write::Refused);
    assert!(config.contains("{ pathq -m str /graphql }") && !config.contains("mutation [A-Za-z]+"));
}

#[test]
fn through_a_companys_proxy_each_server_has_a_socket_of_its_own() {
    let models = json!({ "providers": {
        "near": { "baseUrl": "https://llm.corp.example/v1", "api": "openai-completions", "apiKey": "key-1" },
        "plain": { "baseUrl": "http://llm.example/v1", "api": "openai-completions", "apiKey": "key-2" },
        "local": { "baseUrl": "http://127.0.0.1:1234/v1", "api": "openai-completions", "apiKey": "key-3" },
    } });
    let user = User {
        upstream: Some(Upstream::parse("http://me:hunter2@proxy.example:3128", ".corp.example").unwrap()),
        github: Some(github("github_pat_x", Write::Allowed, &["me/proj"])),
        ..User::with(&[("GROQ_API_KEY", "key")]).models(&models)
    };
    let text = config(&user);
    let servers: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("server provider ")?.split(' ').next())
        .collect();
    let sockets = ["127.0.0.1-1234", "api.github.com-443", "api.groq.com-443", "github.com-443"];
    let at = |name: &str| format!("unix@/run/pi-relay/{name}");
    assert_eq!(
        servers,
        [
            at(sockets[2]),
            at(sockets[0]),
            "0.0.0.0:443".into(),
            "0.0.0.0:80".into(),
            at(sockets[3]),
            at(sockets[1])
        ]
    );
    let broker = user.broker();
    let relays: Vec<String> = broker.relays().iter().map(Relay::socket).collect();
    assert_eq!(relays, sockets);
    // The name leaves the allowlist all the same.
    assert_eq!(broker.hosts(), ["api.groq.com".to_owned()].into());
    assert_eq!(broker.addresses_of_the_users(), "llm.corp.example 443\nllm.example 80\n");
    assert!(!text.contains("hunter2") && !format!("{broker:?}").contains("hunter2"));
    assert!(
        Upstream::parse("http://p:1", "*").is_ok_and(|all| all.serves("x")),
        "`egress` knows what `*` means"
    );
}
