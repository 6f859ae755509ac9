use serde_json::json;

use super::*;

#[test]
fn a_server_without_a_real_key_is_asked_by_the_agent_itself() {
    let keyless = |entry: Value| is_keyless(&entry);
    assert!(keyless(json!({ "baseUrl": "http://host.docker.internal:11434/v1", "apiKey": "ollama" })));
    assert!(keyless(json!({ "baseUrl": "HTTP://10.0.0.1/v1" })));
    for entry in [
        json!({ "baseUrl": "https://10.0.0.1/v1", "apiKey": "ollama" }),
        json!({ "baseUrl": "http://10.0.0.1/v1", "apiKey": "a-key-of-sixteen" }),
        json!({ "baseUrl": "http://10.0.0.1/v1", "apiKey": "$KEY" }),
        json!({ "baseUrl": "http://10.0.0.1/v1", "apiKey": "!key" }),
        json!({ "baseUrl": "http://10.0.0.1/v1", "apiKey": "x", "headers": { "X-Team": "secret" } }),
        json!({ "baseUrl": "http://10.0.0.1/v1", "apiKey": "x", "models": [{ "baseUrl": "https://a.example" }] }),
    ] {
        assert!(!keyless(entry.clone()), "{entry}");
    }
}
