use proptest::prelude::*;
use serde_json::json;

use super::*;

fn merged(before: &str, after: &str, live: &str) -> (Option<String>, Vec<String>) {
    let Merged { text, notices } = merge(before, after, live, Scope::Session);
    (text, notices.into_iter().map(|notice| notice.text).collect())
}

/// Whether a value of a setting comes back.
fn comes_back(key: &str, value: &Value) -> bool {
    let after = json!({ "theme": "dark", key: value }).to_string();
    let (text, _) = merged(r#"{"theme":"dark"}"#, &after, r#"{"theme":"dark"}"#);
    text.is_some()
}

#[test]
fn what_was_chosen_inside_comes_back_and_the_rest_stays_as_it_is_in_its_order() {
    let before =
        r#"{"zeta":1,"defaultModel":"a","terminal":{"showImages":true,"custom":1},"packages":["npm:x"]}"#;
    let after = r#"{"zeta":1,"defaultModel":"b","defaultProvider":"p","defaultThinkingLevel":"high",
        "terminal":{"showImages":false,"custom":1},"packages":["npm:x"],"compaction":{"enabled":false}}"#;
    let live = "\u{feff}{\"zeta\":2,\"defaultModel\":\"a\",\"terminal\":{\"showImages\":true,\"custom\":2},\"alpha\":1}";
    let (text, said) = merged(before, after, live);
    let expected = r#"{
  "zeta": 2,
  "defaultModel": "b",
  "terminal": {
    "showImages": false,
    "custom": 2
  },
  "alpha": 1,
  "defaultProvider": "p",
  "defaultThinkingLevel": "high",
  "compaction": {
    "enabled": false
  }
}"#;
    assert_eq!((text.as_deref(), said), (Some(expected), vec![]));
}

#[test]
fn what_runs_opens_leads_away_or_unprotects_does_not_come_back() {
    for (key, value) in [
        ("shellPath", json!("/repo/sh")),
        ("shellCommandPrefix", json!("id;")),
        ("npmCommand", json!(["/repo/npm"])),
        ("externalEditor", json!("/repo/vi")),
        ("packages", json!(["git:evil"])),
        ("extensions", json!(["/repo/x.ts"])),
        ("skills", json!(["/repo"])),
        ("prompts", json!(["/repo"])),
        ("themes", json!(["/repo"])),
        ("httpProxy", json!("http://evil")),
        ("sessionDir", json!("/repo")),
        ("defaultProjectTrust", json!("always")),
        ("defaultTools", json!(["bash"])),
        ("cacheWarming", json!("idle")),
        ("enableInstallTelemetry", json!(true)),
        ("enableAnalytics", json!(true)),
        ("trackingId", json!("x")),
        ("selfUpdateCommand", json!("id")),
        ("apiKeys", json!({ "a": "b" })),
        ("markdown", json!({ "codeBlockIndent": "\u{1b}]0;x" })),
        ("images", json!({ "blockImages": false })),
        ("warnings", json!({ "anthropicExtraUsage": false })),
        ("terminal", json!({ "showImages": true, "command": "id" })["x"].clone()),
        ("__proto__", json!({ "shellPath": "/repo/sh" })),
        ("constructor", json!({ "prototype": { "shellPath": "/repo/sh" } })),
        ("theme.shellPath", json!("x")),
        ("defaultModel\u{0}", json!("x")),
        ("lastChangelogVersion", json!("\u{1b}[2J")),
        ("lastChangelogVersion", json!("1.2")),
        ("defaultThinkingLevel", json!("highest")),
        ("modelThinkingLevels", json!({ "a/b": "id" })),
        ("modelThinkingLevels", json!({ "a\u{1b}": "high" })),
        ("editorPaddingX", json!(-1)),
        ("editorPaddingX", json!(1e300)),
        ("quietStartup", json!("true")),
        ("tuiMode", json!(["regular"])),
        ("enabledModels", json!(vec!["a"; 501])),
        ("enabledModels", json!([["a"]])),
        ("terminal", json!({ "images": true })),
    ] {
        assert!(!comes_back(key, &value), "{key}: {value}");
    }
    for name in [
        "../x",
        "a/../b",
        "/etc/x",
        "~/x",
        "-x",
        "",
        "a\nb",
        "a\u{202e}b",
        "$(id)",
        "a`b",
        "a\"b",
        &"x".repeat(201),
    ] {
        assert!(!comes_back("defaultModel", &json!(name)), "{name:?}");
    }
}

#[test]
fn what_the_agents_own_menus_set_comes_back() {
    for (key, value) in [
        ("defaultModel", json!("anthropic/claude-opus-4.5:beta")),
        ("enabledModels", json!(["openai/gpt-5*:high", "sonnet"])),
        ("modelThinkingLevels", json!({ "anthropic/claude": "max" })),
        ("lastChangelogVersion", json!("0.87.1")),
        ("tuiMode", json!("fullscreen")),
        ("terminal", json!({ "images": false, "hyperlinks": "auto", "imageWidthCells": 80 })),
        ("images", json!({ "blockImages": true })),
        ("enableInstallTelemetry", json!(false)),
        ("warnings", json!({ "anthropicExtraUsage": true })),
        ("outputPad", json!(0)),
    ] {
        assert!(comes_back(key, &value), "{key}: {value}");
    }
}

#[test]
fn what_is_dropped_is_told_by_name_and_never_by_value() {
    let after = r#"{"shellPath":"hunter2","\u001b]0;x\u0007":1,"theme":"../x","packages":[]}"#;
    let (text, said) = merged("{}", after, "{}");
    assert_eq!(text, None);
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("`shellPath`") && said[0].contains("`theme`"), "{said:?}");
    assert!(!said[0].contains("hunter2") && !said[0].contains('\u{1b}'), "{said:?}");
    // What the agent changes without being asked is not.
    let before = r#"{"queueMode":"all","skills":{"enableSkillCommands":true,"customDirectories":["a"]}}"#;
    let after = r#"{"steeringMode":"all","enableSkillCommands":true,"skills":["a"]}"#;
    assert_eq!(merged(before, after, before).1, Vec::<String>::new());
    let many: Map<String, Value> = (0..100_000).map(|n| (format!("key{n}"), json!(n))).collect();
    let said = merged("{}", &text_of(&many), "{}").1;
    assert!(said.len() == 1 && said[0].len() < 1000, "{said:?}");
}

fn text_of(settings: &Map<String, Value>) -> String {
    let text = serde_json::to_string(settings).unwrap();
    if text.len() as u64 > LARGEST { r#"{"x":1}"#.to_owned() } else { text }
}

#[test]
fn a_setting_that_was_taken_away_inside_is_taken_away() {
    let before = r#"{"theme":"x","terminal":{"showImages":true},"shellPath":"/bin/zsh"}"#;
    let (text, said) = merged(before, r#"{"quietStartup":true}"#, before);
    assert_eq!(
        serde_json::from_str::<Value>(&text.unwrap()).unwrap(),
        json!({ "shellPath": "/bin/zsh", "quietStartup": true })
    );
    assert!(said[0].contains("`shellPath`"), "{said:?}");
}

#[test]
fn a_set_up_brings_its_packages_and_a_session_does_not() {
    let after =
        r#"{"packages":["npm:x",{"source":"git:y","skills":[]}],"extensions":["-a.ts"],"npmCommand":["id"]}"#;
    let set_up = merge("{}", after, "{}", Scope::SetUp);
    let live: Value = serde_json::from_str(&set_up.text.unwrap()).unwrap();
    assert_eq!(
        live,
        json!({ "packages": ["npm:x", { "source": "git:y", "skills": [] }], "extensions": ["-a.ts"] })
    );
    assert!(set_up.notices[0].text.contains("`npmCommand`"));
    let session = merge("{}", after, "{}", Scope::Session);
    assert_eq!(session.text, None);
    assert_eq!(merge("{}", r#"{"packages":"id"}"#, "{}", Scope::SetUp).text, None);
}

#[test]
fn hostile_text_changes_nothing() {
    let live = r#"{"theme":"dark"}"#;
    let deep = format!("{{\"theme\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let long = format!("{{\"theme\":\"{}\"}}", "x".repeat(2 << 20));
    for after in [
        "", " ", "[]", "17", "null", "{", r#"{"theme":"light""#, r#"{"theme":"light"}x"#, "\u{0}", &deep,
        &long,
    ] {
        let (text, said) = merged(live, after, live);
        assert_eq!((text, said.len()), (None, 1), "{after:.40}");
    }
    // Of two the last one counts, as for the agent.
    let twice = r#"{"theme":"light","theme":{"shellPath":"x"}}"#;
    assert_eq!(merged("{}", twice, "{}").0, None);
    // What the user has that is no table, and what cannot be read, stays.
    assert_eq!(merged("{}", r#"{"terminal":{"showImages":true}}"#, r#"{"terminal":7}"#).0, None);
    assert_eq!(merged("{}", r#"{"theme":"light"}"#, "{").0, None);
    assert_eq!(merged("{}", r#"{"theme":"light"}"#, "").0.unwrap(), "{\n  \"theme\": \"light\"\n}");
}

#[test]
fn keys_and_a_place_for_all_transcripts_stay_outside_and_are_not_missed() {
    let live = r#"{"apiKeys":{"a":"hunter2"},"theme":"x","sessionDir":"~/all"}"#;
    let session = for_session(live).unwrap();
    assert!(!session.contains("hunter2") && !session.contains("sessionDir"), "{session}");
    assert_eq!(merge(&session, &session, live, Scope::Session), Merged::default());
    let changed = session.replace("\"x\"", "\"y\"");
    let text = merge(&session, &changed, live, Scope::Session).text.unwrap();
    assert!(text.contains("hunter2") && text.contains("~/all") && text.contains("\"y\""), "{text}");
    let plain = "{ \"theme\":\"x\" }";
    assert_eq!(for_session(plain).unwrap(), plain);
    assert!(for_session("{").is_err());
}

/// A table of settings, of which some are known, with values of every kind.
fn settings() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z/.]{0,4}|high|regular|auto".prop_map(Value::from),
    ];
    let key = "theme|defaultModel|terminal|showImages|packages|shellPath|npmCommand|images|blockImages|x|__proto__|\
               modelThinkingLevels|extensions|defaultProjectTrust|markdown|codeBlockIndent";
    let value = leaf.prop_recursive(3, 12, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    prop::collection::btree_map(key, value, 0..6).prop_map(|all| all.into_iter().collect())
}

proptest! {
    #[test]
    fn whatever_a_session_leaves_only_harmless_settings_change(
        before in settings(), after in settings(), live in settings()
    ) {
        let text = |all: &Map<String, Value>| serde_json::to_string(all).unwrap();
        let Merged { text: new, .. } = merge(&text(&before), &text(&after), &text(&live), Scope::Session);
        let new: Map<String, Value> = new.map_or_else(|| live.clone(), |new| serde_json::from_str(&new).unwrap());
        for key in live.keys().chain(new.keys()) {
            // Without what may come back, each is what it was.
            let listed = HARMLESS.iter().any(|(path, _)| path == key);
            if !listed {
                prop_assert_eq!(without_listed(key, new.get(key)), without_listed(key, live.get(key)), "{}", key);
            }
        }
        for (path, form) in HARMLESS {
            if let Some(value) = find(&new, path) {
                prop_assert!(find(&live, path) == Some(value) || form.takes(value), "{} {}", path, value);
            }
            if find(&before, path) == find(&after, path) {
                prop_assert_eq!(find(&new, path), find(&live, path), "{}", path);
            }
        }
        // Done twice it is done once.
        let again = merge(&text(&before), &text(&after), &text(&new), Scope::Session);
        prop_assert_eq!(again.text, None);
    }

    #[test]
    fn no_text_makes_it_fail(after in "\\PC{0,60}", live in "\\PC{0,60}") {
        let _ = merge("{}", &after, &live, Scope::Session);
    }
}
