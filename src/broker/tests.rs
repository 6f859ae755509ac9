//! The broker as a whole, without a container: what goes to the sidecar, and what to the agent.

mod github;
mod proof;
mod properties;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    Broker, Inputs,
    agent_files::AgentFiles,
    command::{Failure, LIMIT, Setting},
    credentials::Run,
    github::GitHub,
    haproxy::{CONFIG, Files, KEYS, Place},
    placeholder::Placeholder,
    provider::PROVIDERS,
    relay::{Relay, Way},
    route::{Delivery, Reach},
};
use crate::{domain::upstream::Upstream, secret::Secret};

const PLACE: Place<'_> = Place {
    listen: SocketAddrV4::new(Ipv4Addr::new(10, 9, 8, 7), 8440),
    directory: "/run/keys",
    authorities: "/etc/ssl/certs/ca-certificates.crt",
};

/// A user, with what there is in the environment and in the two files.
#[derive(Default)]
struct User {
    env: BTreeMap<OsString, OsString>,
    auth: Option<String>,
    models: Option<String>,
    inside: BTreeSet<String>,
    github: Option<GitHub>,
    upstream: Option<Upstream>,
}

impl User {
    fn with(names: &[(&str, &str)]) -> Self {
        let env = names.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { env, ..Self::default() }
    }

    fn auth(mut self, value: &Value) -> Self {
        self.auth = Some(value.to_string());
        self
    }

    fn models(mut self, value: &Value) -> Self {
        self.models = Some(value.to_string());
        self
    }

    fn broker(&self) -> Broker {
        let mut run = |command: &str| match command {
            "key" => Ok(Secret::new("from-a-command".into())),
            _ => Err(Failure::Silent),
        };
        self.broker_with("pi-keys:8440", &mut run)
    }

    fn broker_with(&self, address: &str, run: &mut Run<'_>) -> Broker {
        let placeholder = Placeholder::from([7; 16]);
        let inputs = Inputs {
            address,
            placeholder: &placeholder,
            env: &self.env,
            auth: self.auth.as_deref(),
            models: self.models.as_deref(),
            inside: &self.inside,
            github: self.github.as_ref(),
            loopback: Some(Reach::Socket),
            upstream: self.upstream.as_ref(),
        };
        Broker::new(&inputs, run).unwrap()
    }

    fn agent(&self) -> AgentFiles {
        AgentFiles::new(&self.broker(), self.models.as_deref(), self.auth.as_deref(), &self.inside).unwrap()
    }
}

/// Someone with a key for every provider.
fn rich() -> User {
    let settings =
        ["AWS_REGION", "AZURE_OPENAI_RESOURCE_NAME", "CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_GATEWAY_ID"];
    let secrets = PROVIDERS
        .iter()
        .flat_map(|provider| provider.variables)
        .map(|name| (*name, format!("secret-{name}")));
    let settings = settings.map(|name| (name, "mine".to_owned()));
    let env = secrets.chain(settings).map(|(name, value)| (name.into(), value.into())).collect();
    User { env, ..User::default() }.auth(&json!({
        "openai-codex": { "type": "oauth", "access": "secret-codex", "refresh": "secret-refresh", "expires": 1,
            "accountId": "secret-account" },
    }))
}

fn config(user: &User) -> String {
    Files::new(&user.broker(), &PLACE).config
}

fn keys(user: &User) -> String {
    String::from_utf8(Files::new(&user.broker(), &PLACE).keys.bytes().to_vec()).unwrap()
}

#[test]
fn no_key_reaches_the_agent_or_the_configuration() {
    let user = rich();
    let broker = user.broker();
    assert_eq!(
        (broker.routes.len(), &broker.unserved, &broker.failed),
        (PROVIDERS.len(), &BTreeMap::new(), &BTreeMap::new())
    );
    let AgentFiles { models, auth, env } = user.agent();
    let agent = format!("{models}{auth}{env:?}");
    for text in [agent, config(&user), format!("{broker:?}")] {
        assert!(!text.contains("secret-"));
    }
    assert_eq!(keys(&user).lines().count(), PROVIDERS.len() + 1);
}

#[test]
fn a_key_is_taken_from_where_the_agent_would_take_it() {
    let user = User::with(&[
        ("GROQ_API_KEY", "of-env"),
        ("MISTRAL_API_KEY", "of-env"),
        ("XAI_API_KEY", "of-env"),
    ])
    .auth(&json!({ "groq": { "type": "api_key", "key": "of-auth" } }))
    .models(
        &json!({ "providers": { "groq": { "apiKey": "of-models" }, "mistral": { "apiKey": "of-models" } } }),
    );
    assert_eq!(keys(&user), "groq of-auth\nmistral of-models\nxai of-env\n");
}

#[test]
fn a_renewed_token_takes_the_place_of_the_one_before() {
    let user = User::with(&[("GROQ_API_KEY", "old"), ("XAI_API_KEY", "other")]);
    let broker = user.broker();
    let renewed = |provider: &str, token: &str| broker.with_token(provider, &Secret::new(token.into()), 7);
    assert_eq!(renewed("groq", "new").unwrap().keys().bytes(), b"groq new\nxai other\n");
    assert!(renewed("mistral", "new").is_err());
    assert!(renewed("groq", "a\nb").is_err());
}

#[test]
fn a_key_can_be_a_reference_or_a_command() {
    let user = User::with(&[("ONE", "1"), ("GROQ_API_KEY", "of-env")]).auth(&json!({
        "groq": { "type": "api_key", "key": "$MISSING" },
        "mistral": { "type": "api_key", "key": "a-${ONE}-$TWO", "env": { "TWO": "2" } },
        "xai": { "type": "api_key", "key": "!key" },
    }));
    assert_eq!(keys(&user), "groq of-env\nmistral a-1-2\nxai from-a-command\n");
}

#[test]
fn a_command_that_fails_takes_its_provider_only() {
    let user = User::with(&[("GROQ_API_KEY", "of-env"), ("XAI_API_KEY", "of-env")])
        .auth(&json!({ "groq": { "type": "api_key", "key": "!broken" }, "mistral": "odd", "meta": { "type": "x" } }));
    assert_eq!(keys(&user), "xai of-env\n");
    let failed = user.broker().failed;
    assert_eq!(failed.keys().collect::<Vec<_>>(), ["groq", "meta", "mistral"]);
    assert_eq!(failed["groq"], "its command printed nothing that can be a key");
}

#[test]
fn the_agent_still_sees_what_kind_of_key_it_has_for_anthropic() {
    let placeholder = |user: User| {
        let broker = user.broker();
        let [route] = &broker.routes[..] else { panic!("one route") };
        (route.placeholder.contains("sk-ant-oat"), route.delivery, keys(&user))
    };
    let variables = [
        ("ANTHROPIC_AUTH_TOKEN", "bearer"),
        ("ANTHROPIC_OAUTH_TOKEN", "sk-ant-oat01-x"),
        ("ANTHROPIC_API_KEY", "key"),
    ];
    let variable = Delivery::Variable("ANTHROPIC_AUTH_TOKEN");
    assert_eq!(placeholder(User::with(&variables)), (false, variable, "anthropic bearer\n".to_owned()));
    assert_eq!(
        placeholder(User::with(&variables[1..])),
        (true, Delivery::Key, "anthropic sk-ant-oat01-x\n".to_owned())
    );
    assert_eq!(
        placeholder(User::with(&variables[2..])),
        (false, Delivery::Key, "anthropic key\n".to_owned())
    );
    let login = json!({ "anthropic": { "type": "oauth", "access": "token", "refresh": "r", "expires": 5 } });
    let user = User::default().auth(&login);
    assert_eq!(user.broker().routes[0].expires, Some(5));
    assert_eq!(placeholder(user), (true, Delivery::Login, "anthropic token\n".to_owned()));
}

#[test]
fn what_no_broker_can_hold_says_why() {
    let login = |access: &str| json!({ "type": "oauth", "access": access, "refresh": "r", "expires": 5 });
    let user = User::with(&[("AWS_PROFILE", "work"), ("CLOUDFLARE_API_KEY", "key")])
        .auth(&json!({
            "openai": login("t"),
            "github-copilot": login("tid=1;proxy-ep=proxy.evil.example"),
            "of-an-extension": login("t"),
        }))
        .models(&json!({ "providers": {
            "odd-api": { "baseUrl": "https://x.example", "api": "of-an-extension", "apiKey": "x" },
            "odd-base": { "baseUrl": "https://me:hunter2@x.example/?a", "api": "openai-responses", "apiKey": "x" },
            "none": { "apiKey": "x" },
        } }));
    let broker = user.broker();
    assert!(broker.routes.is_empty() && broker.failed.is_empty());
    assert_eq!(
        broker.unserved.keys().collect::<Vec<_>>(),
        [
            "amazon-bedrock", "cloudflare-ai-gateway", "cloudflare-workers-ai", "github-copilot", "none",
            "odd-api", "odd-base", "of-an-extension", "openai"
        ]
    );
    let models = user.agent().models;
    assert!(!models.contains("apiKey") && !models.contains("hunter2"), "{models}");
}

#[test]
fn copilot_is_asked_where_its_token_says() {
    let host = |token: &str, enterprise: Option<&str>| {
        let mut login = json!({ "type": "oauth", "access": token, "refresh": "r", "expires": 5 });
        login["enterpriseUrl"] = enterprise.into();
        let broker = User::default().auth(&json!({ "github-copilot": login })).broker();
        broker.routes.first().map(|route| route.endpoints[0].base.authority())
    };
    assert_eq!(host("t", None).as_deref(), Some("api.individual.githubcopilot.com"));
    assert_eq!(
        host("a;proxy-ep=proxy.business.githubcopilot.com;b", None).as_deref(),
        Some("api.business.githubcopilot.com")
    );
    assert_eq!(host("t", Some("corp.ghe.com")).as_deref(), Some("copilot-api.corp.ghe.com"));
    assert_eq!(host("proxy-ep=proxy.evilgithubcopilot.com", None), None);
    assert_eq!(host("proxy-ep=proxy.githubcopilot.com/x", None), None);
    assert_eq!(host("proxy-ep=a.githubcopilot.com:1@evil.example", None), None);
}

#[test]
fn headers_of_the_users_go_through_the_broker_and_the_rest_stays() {
    let models = json!({ "theirs": 1, "providers": {
        "corp": {
            "baseUrl": "https://llm.corp.example/v1", "api": "openai-completions", "apiKey": "secret-key",
            "headers": { "X-Team": "secret-team", "User-Agent": "corp", "OpenAI-Project": "$ONE" },
            "compat": { "supportsStore": false },
            "models": [
                { "id": "a", "headers": { "x-team": "secret-team" } },
                { "id": "b", "headers": { "X-Team": "secret-other" }, "baseUrl": "http://10.1.2.3:81/x" },
            ],
        },
        "keyless": { "baseUrl": "http://10.1.2.3/v1", "api": "openai-completions", "models": [{ "id": "c" }],
            "headers": { "X-Secret": "secret", "User-Agent": "corp" } },
    } });
    let user = User::with(&[("ONE", "secret-1")]).models(&models);
    let p = |number: usize| format!("pi-placeholder-07070707070707070707070707070707-{number}");
    let url = "http://pi-keys:8440/custom0-corp";
    let agent: Value = serde_json::from_str(&user.agent().models).unwrap();
    assert_eq!(
        agent,
        json!({ "theirs": 1, "providers": {
            "corp": {
                "baseUrl": format!("{url}/llm.corp.example/v1"), "api": "openai-completions",
                "apiKey": "pi-placeholder-07070707070707070707070707070707",
                "headers": { "X-Team": p(0), "User-Agent": "corp", "OpenAI-Project": p(1) },
                "compat": { "supportsStore": false },
                "models": [
                    { "id": "a", "headers": { "x-team": p(0) } },
                    { "id": "b", "headers": { "X-Team": p(2) }, "baseUrl": format!("{url}/10.1.2.3:81/x") },
                ],
            },
            "keyless": { "baseUrl": "http://10.1.2.3/v1", "api": "openai-completions", "models": [{ "id": "c" }],
                "headers": { "User-Agent": "corp" } },
        } })
    );
    assert_eq!(
        keys(&user),
        "custom0-corp secret-key\ncustom0-corp/0 secret-team\ncustom0-corp/1 secret-1\ncustom0-corp/2 secret-other\n"
    );
    assert_eq!(user.broker().addresses_of_the_users(), "10.1.2.3 81\nllm.corp.example 443\n");
    assert!(user.broker().hosts().is_empty());
}

#[test]
fn a_provider_that_the_user_wants_inside_is_left_alone() {
    let entry = json!({ "apiKey": "$OPENCODE_API_KEY", "headers": { "X-Any": "secret" } });
    let stored = json!({ "type": "api_key", "key": "!key" });
    let mut user = User::with(&[("OPENCODE_API_KEY", "of-env")])
        .models(&json!({ "providers": { "opencode": entry } }))
        .auth(&json!({ "opencode": stored, "groq": stored }));
    user.inside = BTreeSet::from(["opencode".to_owned()]);
    let AgentFiles { models, auth, .. } = user.agent();
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(read(&models)["providers"]["opencode"], entry);
    assert_eq!(read(&auth)["opencode"], stored);
    // The other provider with the same variable keeps its route.
    assert_eq!(keys(&user), "groq from-a-command\nopencode-go of-env\n");
}

#[test]
fn a_login_inside_cannot_be_renewed_there() {
    let mut user = User::default()
        .auth(&json!({ "xai": { "type": "oauth", "access": "token", "refresh": "secret", "expires": 5 } }));
    user.inside = BTreeSet::from(["xai".to_owned()]);
    let auth = user.agent().auth;
    assert!(auth.contains("token") && !auth.contains("secret"), "{auth}");
}

#[test]
fn a_backend_lets_through_what_the_agent_asks_for_and_nothing_else() {
    let config = config(&User::with(&[("GEMINI_API_KEY", "key")]));
    let backend = &config[config.find("backend google.0").unwrap()..];
    let lines: Vec<&str> = backend.lines().map(str::trim).filter(|line| line.contains("pathq")).collect();
    let p = r"^\/google\/generativelanguage\.googleapis\.com\/v1beta\/models\/[A-Za-z0-9._~@-]+\:";
    let rule = |tail: &str| {
        format!(
            "http-request set-var(txn.known) bool(true) if {{ method POST }} {{ pathq -m reg '{p}{tail}$' }} \
             !{{ req.hdr(upgrade) -m found }}"
        )
    };
    assert_eq!(
        lines,
        [rule(r"streamGenerateContent\?alt\=sse"), rule("generateContent"), rule("countTokens")]
    );
    assert!(backend.ends_with(
        "    server provider 0.0.0.0:443 ssl verify required ca-file '/etc/ssl/certs/ca-certificates.crt' \
         sni str('generativelanguage.googleapis.com') verifyhost 'generativelanguage.googleapis.com' alpn http/1.1\n"
    ));
}

#[test]
fn a_socket_has_a_short_name() {
    let relay = |host: String| Relay { host, port: 443, way: Way::Proxy };
    let (one, two) =
        (relay("a".repeat(63) + ".openai.azure.com"), relay("b".repeat(63) + ".openai.azure.com"));
    assert!(one.socket().len() < 64 && one.socket() != two.socket());
}

#[test]
fn a_broken_file_is_an_error_that_does_not_quote_it() {
    let placeholder = Placeholder::from([7; 16]);
    let (env, inside) = (BTreeMap::new(), BTreeSet::new());
    for text in ["{\"groq\": secret", "[\"secret\"]", "secret"] {
        for (auth, models) in [(Some(text), None), (None, Some(text))] {
            let inputs = Inputs {
                address: "x:1",
                placeholder: &placeholder,
                env: &env,
                auth,
                models,
                inside: &inside,
                github: None,
                loopback: Some(Reach::Socket),
                upstream: None,
            };
            let error = Broker::new(&inputs, &mut |_| Err(Failure::Silent)).unwrap_err();
            assert!(!format!("{error:#}").contains("secret"), "{error:#}");
        }
    }
}
