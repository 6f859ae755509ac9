//! What an entry of `auth.json` may be when it comes out of a session: a token or a key as it is, which runs nothing,
//! refers to nothing, and leads to no host but the provider's own.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::super::notice::shown;
use crate::agent::login::{Login, is_provider};

/// Longer than any token.
const LONGEST: usize = 16 << 10;

/// How many models one login can name.
const MODELS: usize = 1000;

/// The settings that the agent asks for when it is given a key. They name an account, and no host, file or program.
const SETTINGS: [&str; 4] =
    ["CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_GATEWAY_ID", "GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_PROJECT"];

/// An entry that was looked over.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential(Map<String, Value>);

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<Credential> for Value {
    fn from(credential: Credential) -> Self {
        Self::Object(credential.0)
    }
}

impl Credential {
    /// A key as the user typed it.
    ///
    /// # Errors
    /// It cannot be one.
    pub(crate) fn key(key: &str) -> anyhow::Result<Self> {
        let entry = Map::from_iter([
            ("type".to_owned(), Value::from("api_key")),
            ("key".to_owned(), Value::from(key)),
        ]);
        check_key(&entry)?;
        Ok(Self(entry))
    }

    /// Whether it ends before another entry of the same provider, or is that one.
    pub(super) fn is_older_than(&self, other: &Value) -> bool {
        let ends = |entry: Option<&Value>| entry.and_then(Value::as_f64);
        match (ends(self.0.get("expires")), ends(other.get("expires"))) {
            (Some(own), Some(other)) => own <= other,
            _ => false,
        }
    }

    /// What a user is told about it.
    pub(super) fn said(&self, provider: &str) -> String {
        let is_key = self.0.get("type").and_then(Value::as_str) == Some("api_key");
        let name = Login::of(provider).map_or(provider, |login| login.name);
        if is_key {
            format!("the key for `{provider}` is stored; sessions use it from now on")
        } else {
            format!("logged in to {name} (`{provider}`); sessions use it from now on")
        }
    }
}

/// The only entry of a file, looked over. Nothing for a file that has none, or is being written.
///
/// # Errors
/// There are several, or it is not what a login leaves.
pub(crate) fn only_one(text: &str) -> anyhow::Result<Option<(String, Credential)>> {
    let Ok(Value::Object(entries)) = serde_json::from_str(text.trim_start_matches('\u{feff}')) else {
        return Ok(None);
    };
    let count = entries.len();
    let Some((provider, entry)) = entries.into_iter().next() else { return Ok(None) };
    if count > 1 {
        bail!("the login was not kept: the session wrote {count} entries instead of one");
    }
    let refused = || format!("the login was not kept: the entry of `{}`", shown(&provider));
    let checked = check(&provider, entry).with_context(refused)?;
    Ok(Some((provider, checked)))
}

/// Looks an entry over.
///
/// # Errors
/// It is not what a login leaves.
pub(crate) fn check(provider: &str, entry: Value) -> anyhow::Result<Credential> {
    if !is_provider(provider) && !is_plain_name(provider) {
        bail!("that is no provider's name");
    }
    let Value::Object(entry) = entry else { bail!("it is not an object") };
    match entry.get("type").and_then(Value::as_str) {
        Some("oauth") => check_login(provider, &entry)?,
        Some("api_key") => check_key(&entry)?,
        _ => bail!("it is neither a login nor a key"),
    }
    Ok(Credential(entry))
}

/// A newer agent may know more providers.
fn is_plain_name(name: &str) -> bool {
    name.len() <= 60
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
}

fn check_login(provider: &str, entry: &Map<String, Value>) -> anyhow::Result<()> {
    for name in ["access", "refresh"] {
        let token = entry.get(name).and_then(Value::as_str).with_context(|| format!("it has no `{name}`"))?;
        check_token(name, token)?;
        check_hosts_in(token)?;
    }
    if entry["access"] == "" {
        bail!("its token is empty");
    }
    if !entry.get("expires").and_then(Value::as_f64).is_some_and(|at| (0.0..1e16).contains(&at)) {
        bail!("it does not say until when it is good");
    }
    for (name, value) in entry {
        match (name.as_str(), value) {
            ("type" | "access" | "refresh" | "expires", _)
            | (_, Value::Bool(_) | Value::Number(_) | Value::Null) => {}
            ("enterpriseUrl", Value::String(host)) => check_company(provider, host)?,
            (_, Value::String(text)) => check_detail(name, text)?,
            (_, Value::Array(texts)) if texts.len() <= MODELS => {
                for text in texts {
                    check_detail(
                        name,
                        text.as_str().with_context(|| format!("`{}` is a table", shown(name)))?,
                    )?;
                }
            }
            _ => bail!("`{}` is a table", shown(name)),
        }
    }
    Ok(())
}

/// One word that no reader takes for a command or a reference.
fn check_token(name: &str, token: &str) -> anyhow::Result<()> {
    if token.len() > LONGEST {
        bail!("its `{name}` is longer than {LONGEST} characters");
    }
    if token.starts_with(['!', '$']) || !token.bytes().all(|b| b.is_ascii_graphic()) {
        bail!("its `{name}` begins like a command or a variable, or has a character that none has");
    }
    Ok(())
}

/// A token of GitHub's says where it is to be used, and the agent believes it.
fn check_hosts_in(token: &str) -> anyhow::Result<()> {
    for part in token.split(';') {
        if let Some((name, host)) = part.split_once('=')
            && name.ends_with("-ep")
            && !is_of(host, &["githubcopilot.com", "ghe.com"])
        {
            bail!("its token leads to `{}`, which is not GitHub's", shown(host));
        }
    }
    Ok(())
}

fn check_company(provider: &str, host: &str) -> anyhow::Result<()> {
    if provider != "github-copilot" || !is_of(host, &["github.com", "ghe.com"]) {
        bail!("it leads to `{}`, which is not known to be the provider's", shown(host));
    }
    Ok(())
}

fn is_of(host: &str, domains: &[&str]) -> bool {
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    let below =
        |domain: &&str| host == *domain || host.strip_suffix(domain).is_some_and(|left| left.ends_with('.'));
    plain && domains.iter().any(below)
}

/// What stands beside the token: an account, a scope, a model.
fn check_detail(name: &str, text: &str) -> anyhow::Result<()> {
    let lower = name.to_ascii_lowercase();
    let names_a_place = ["url", "host", "endpoint", "domain", "base", "command", "header", "env", "proxy"]
        .iter()
        .any(|place| lower.contains(place));
    let plain = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if names_a_place || !plain || text.len() > LONGEST || text.trim_start().starts_with(['!', '$']) {
        bail!("`{}` is not something that a login has", shown(name));
    }
    // Scopes of Google's are addresses.
    if text.contains("://") && !lower.contains("scope") {
        bail!("`{}` leads to another host", shown(name));
    }
    Ok(())
}

fn check_key(entry: &Map<String, Value>) -> anyhow::Result<()> {
    for (name, value) in entry {
        match (name.as_str(), value) {
            ("type", _) => {}
            ("key", Value::String(key)) => {
                if key.is_empty() {
                    bail!("the key is empty");
                }
                check_token("key", key)?;
                if key.contains('$') {
                    bail!(
                        "the agent would take the `$` in the key for a variable; write `$$` for it in `auth.json` yourself"
                    );
                }
            }
            ("env", Value::Object(env)) => {
                let plain = |value: &Value| {
                    value.as_str().is_some_and(|text| {
                        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
                    })
                };
                if !env.iter().all(|(name, value)| SETTINGS.contains(&name.as_str()) && plain(value)) {
                    bail!("it sets variables");
                }
            }
            _ => bail!("`{}` is not something that a key has", shown(name)),
        }
    }
    if !entry.contains_key("key") && !entry.contains_key("env") {
        bail!("it has no key");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn login(more: &Value) -> Value {
        let mut entry =
            json!({"type": "oauth", "access": "a.b-c", "refresh": "r", "expires": 1_790_000_000_000_i64});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    }

    fn outcome(provider: &str, entry: &Value) -> Result<(), String> {
        let text = json!({ provider: entry }).to_string();
        only_one(&text)
            .map(|one| assert_eq!(Value::from(one.unwrap().1), *entry))
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_the_agents_logins_leave_is_taken() {
        for (provider, more) in [
            ("anthropic", json!({})),
            ("openai-codex", json!({"accountId": "0af-1"})),
            ("openai", json!({"clientId": "app_x", "scopes": ["openid", "https://api.example/x.read"]})),
            (
                "github-copilot",
                json!({"access": "tid=1;exp=2;proxy-ep=proxy.individual.githubcopilot.com;8kp=1:x",
                "availableModelIds": ["gpt-5", "claude"], "enterpriseUrl": "corp.ghe.com"}),
            ),
            ("openrouter", json!({"refresh": "", "expires": 9_007_199_254_740_991_i64})),
            ("radius", json!({"scope": "a b"})),
            ("brand-new", json!({})),
        ] {
            assert_eq!(outcome(provider, &login(&more)), Ok(()), "{provider}");
        }
        assert_eq!(outcome("groq", &json!({"type": "api_key", "key": "gsk_x"})), Ok(()));
        let cloudflare = json!({"type": "api_key", "key": "k", "env": {"CLOUDFLARE_ACCOUNT_ID": "0a"}});
        assert_eq!(outcome("cloudflare-workers-ai", &cloudflare), Ok(()));
    }

    #[test]
    fn what_would_run_something_or_lead_elsewhere_is_refused() {
        for more in [
            json!({"access": "!id"}),
            json!({"access": "$HOME"}),
            json!({"access": ""}),
            json!({"access": "a\nb"}),
            json!({"access": "a b"}),
            json!({"access": 1}),
            json!({"refresh": "!id"}),
            json!({"refresh": "tid=1;proxy-ep=evil.example"}),
            json!({"access": "tid=1;proxy-ep=evil.example;x=1"}),
            json!({"access": "tid=1;proxy-ep=githubcopilot.com.evil.example"}),
            json!({"access": "tid=1;proxy-ep=evilgithubcopilot.com"}),
            json!({"access": "x".repeat(LONGEST + 1)}),
            json!({"expires": "soon"}),
            json!({"expires": -1}),
            json!({"enterpriseUrl": "evil.example"}),
            json!({"enterpriseUrl": "x/../ghe.com"}),
            json!({"enterpriseUrl": "evil.example/.ghe.com"}),
            json!({"baseUrl": "evil.example"}),
            json!({"apiHost": "evil.example"}),
            json!({"note": "https://evil.example"}),
            json!({"env": {"HTTPS_PROXY": "http://evil.example"}}),
            json!({"headers": {"x": "y"}}),
            json!({"keyCommand": "id"}),
            json!({"note": " !id"}),
            json!({"list": [["x"]]}),
        ] {
            assert!(outcome("github-copilot", &login(&more)).is_err(), "{more}");
        }
        assert!(outcome("anthropic", &login(&json!({"enterpriseUrl": "corp.ghe.com"}))).is_err());
        for key in [
            json!({"type": "api_key", "key": "!id"}),
            json!({"type": "api_key", "key": "a${HOME}"}),
            json!({"type": "api_key", "key": ""}),
            json!({"type": "api_key"}),
            json!({"type": "api_key", "key": "k", "env": {"AWS_PROFILE": "x"}}),
            json!({"type": "api_key", "key": "k", "env": {"CLOUDFLARE_ACCOUNT_ID": "x/../evil"}}),
            json!({"type": "api_key", "key": "k", "baseUrl": "x"}),
            json!({"key": "k"}),
            json!("!id"),
        ] {
            assert!(outcome("groq", &key).is_err(), "{key}");
        }
        for provider in ["!id", "a b", "A", "", "x/y", &"x".repeat(61)] {
            assert!(outcome(provider, &login(&json!({}))).is_err(), "{provider:?}");
        }
    }

    #[test]
    fn one_entry_is_a_login_and_none_or_several_are_not() {
        for nothing in ["", "{}", "{\"a\":{\"ty", "[]", "17", "\u{feff}{}\n"] {
            assert!(only_one(nothing).unwrap().is_none(), "{nothing:?}");
        }
        let two = json!({"groq": {"type": "api_key", "key": "k"}, "xai": {"type": "api_key", "key": "k"}});
        assert!(only_one(&two.to_string()).unwrap_err().to_string().contains("2 entries"));
    }

    #[test]
    fn no_secret_is_in_what_is_said() {
        let secret = json!({"groq": {"type": "api_key", "key": "hunter 2"}}).to_string();
        assert!(!format!("{:#}", only_one(&secret).unwrap_err()).contains("hunter"));
        let good =
            only_one(&json!({"groq": {"type": "api_key", "key": "hunter2"}}).to_string()).unwrap().unwrap();
        assert!(!format!("{:?} {}", good.1, good.1.said("groq")).contains("hunter"));
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[!$]?[a-c:/.]{0,6}", "proxy-ep=[a-c.]{0,5}", "[a-z]{0,3}\\.ghe\\.com"];
        let leaf = prop_oneof![text.prop_map(Value::from), any::<i32>().prop_map(Value::from)];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop::collection::btree_map("key|env|access|enterpriseUrl|x", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn whatever_is_taken_has_no_command_and_no_table_but_plain_settings(
            fields in prop::collection::btree_map("type|key|access|refresh|expires|env|enterpriseUrl|note", value(), 0..6),
            kind in prop_oneof![Just("oauth"), Just("api_key")],
        ) {
            let mut entry: Map<String, Value> = fields.into_iter().collect();
            entry.insert("type".to_owned(), kind.into());
            if let Ok(Credential(taken)) = check("github-copilot", Value::Object(entry)) {
                for (name, value) in taken {
                    if let Some(text) = value.as_str() {
                        prop_assert!(!text.trim_start().starts_with(['!', '$']), "{name}");
                    }
                    prop_assert!(!value.is_object() || name == "env");
                }
            }
        }
    }
}
