//! What a login can make the agent do besides logging in: run a command, set a variable, give a variable away.
//!
//! The agent takes a `key` that begins with `!` for a command, one with `$NAME` for a variable's value, and hands `env` to
//! all that it does for that provider. More is looked at here than it reads today: a string that begins with `!` is a
//! command wherever it stands, as whoever reads the file tomorrow may see it so.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};

use crate::report::one_line;

/// The file's entries, by the names of their providers.
pub(super) type Login = Map<String, Value>;

/// Reads as the agent does: of two entries of one name the last one counts, and a byte order mark is passed over.
pub(super) fn parse(text: &str) -> serde_json::Result<Login> {
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// One thing that an entry makes the agent do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deed {
    kind: Kind,
    /// Where in the entry it stands.
    field: String,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Command,
    Setting,
    Reference,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Command => write!(f, "a command (`{}`)", shown(&self.text, 80)),
            // A value may be a secret.
            Kind::Setting => write!(f, "a setting (`{}`)", shown(&self.field, 80)),
            Kind::Reference => write!(f, "a reference to a variable (`{}`)", shown(&self.text, 80)),
        }
    }
}

/// What others wrote, as a part of a sentence.
pub(super) fn shown(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    one_line(&shown)
}

/// A deed of one provider's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) provider: String,
    pub(super) deed: Deed,
}

/// The first deed of each entry that none of the `known` logins has for the same provider.
pub(super) fn foreign(now: &Login, known: &[Login]) -> Vec<Foreign> {
    let one = |(provider, entry): (&String, &Value)| {
        let mut deeds = deeds(entry);
        for login in known {
            if let Some(entry) = login.get(provider) {
                deeds = &deeds - &self::deeds(entry);
            }
        }
        Some(Foreign { provider: provider.clone(), deed: deeds.pop_first()? })
    };
    now.iter().filter_map(one).collect()
}

/// Puts the entries back that have got a deed which they did not have before, and leaves all others as they are.
pub(super) fn undo(before: &Login, now: &mut Login) -> Vec<Foreign> {
    let found = foreign(now, std::slice::from_ref(before));
    for Foreign { provider, .. } in &found {
        match before.get(provider) {
            Some(entry) => now.insert(provider.clone(), entry.clone()),
            None => now.remove(provider),
        };
    }
    found
}

fn deeds(entry: &Value) -> BTreeSet<Deed> {
    let mut found = BTreeSet::new();
    collect(entry, "", &mut found);
    found
}

fn collect(value: &Value, field: &str, found: &mut BTreeSet<Deed>) {
    let mut note = |kind, text: &str| {
        found.insert(Deed { kind, field: field.to_owned(), text: text.to_owned() });
    };
    match value {
        Value::String(text) if is_command(text) => note(Kind::Command, text),
        Value::String(text) if field.eq_ignore_ascii_case("key") && is_reference(text) => {
            note(Kind::Reference, text);
        }
        Value::Array(values) => {
            for value in values {
                collect(value, &format!("{field}[]"), found);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let inner = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                let setting = match name.to_ascii_lowercase().as_str() {
                    "env" => !is_of_a_login(value),
                    // No agent reads these yet.
                    "headers" => true,
                    name => name.ends_with("command"),
                };
                if setting {
                    found.insert(Deed { kind: Kind::Setting, field: inner.clone(), text: value.to_string() });
                }
                collect(value, &inner, found);
            }
        }
        _ => {}
    }
}

/// The agent looks at the very first character; whoever trims before looking sees a command here too.
fn is_command(text: &str) -> bool {
    text.trim_start_matches(|c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}').starts_with('!')
}

fn is_reference(text: &str) -> bool {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        match after.bytes().next() {
            // `$$` and `$!` stand for the characters themselves.
            Some(b'$' | b'!') => rest = &after[1..],
            Some(b'{' | b'_' | b'a'..=b'z' | b'A'..=b'Z') => return true,
            _ => rest = after,
        }
    }
    false
}

/// The variables that the agent's own `/login` asks for and that name an account and nothing else: no file, no host, no
/// profile that could name a command.
const OF_A_LOGIN: [&str; 4] =
    ["CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_GATEWAY_ID", "GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_PROJECT"];

fn is_of_a_login(env: &Value) -> bool {
    // They become part of an address, so they must not be able to lead to another host.
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    env.as_object().is_some_and(|env| {
        env.iter()
            .all(|(name, value)| OF_A_LOGIN.contains(&name.as_str()) && value.as_str().is_some_and(plain))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn login(text: &str) -> Login {
        parse(text).unwrap()
    }

    /// What is left of `now` after a session that began with `before`, and what is said.
    fn undone(before: &str, now: &str) -> (String, Vec<String>) {
        let mut now = login(now);
        let found = undo(&login(before), &mut now);
        let said = found.iter().map(|Foreign { provider, deed }| format!("{provider}: {deed}")).collect();
        (serde_json::to_string(&now).unwrap(), said)
    }

    #[test]
    fn logins_and_tokens_stay() {
        let before = r#"{"a":{"type":"oauth","refresh":"1"},"b":{"key":"!op read b"},"gone":{"key":"k"}}"#;
        for now in [
            r#"{"a":{"refresh":"2","type":"oauth"},"b":{"key":"!op read b"}}"#,
            r#"{"a":{"key":"sk-1","type":"api_key"},"b":{"access":"t","type":"oauth"},"new":{"key":"k$$x"}}"#,
            r#"{"b":{"expires":1790000000000,"key":"!op read b"}}"#,
            r#"{"cf":{"env":{"CLOUDFLARE_ACCOUNT_ID":"0af-1"},"key":"k","type":"api_key"},"odd":17}"#,
        ] {
            assert_eq!(undone(before, now), (now.to_owned(), vec![]));
        }
    }

    #[test]
    fn a_command_is_undone_and_nothing_else_is() {
        let before = r#"{"a":{"key":"sk-1"},"b":{"key":"!op read b"}}"#;
        let now = r#"{"a":{"key":"!id"},"b":{"key":"!op read b; id"},"c":{"key":"!id"},"d":{"refresh":"2"}}"#;
        let left = r#"{"a":{"key":"sk-1"},"b":{"key":"!op read b"},"d":{"refresh":"2"}}"#;
        let said = ["a: a command (`!id`)", "b: a command (`!op read b; id`)", "c: a command (`!id`)"];
        assert_eq!(undone(before, now), (left.to_owned(), said.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_command_is_seen_wherever_and_however_it_stands() {
        for entry in [
            r#"{"key":"!id"}"#,
            r#"{"key":"\u0021id"}"#,
            r#"{"KEY":" \t\r\n!id"}"#,
            "{\"key\":\"\u{feff}!id\"}",
            r#"{"key":"sk","key":"!id"}"#,
            r#"{"type":"oauth","access":"!id"}"#,
            r#"{"env":{"AWS_PROFILE":"x"}}"#,
            r#"{"Env":{"CLOUDFLARE_ACCOUNT_ID":"x/../../evil"}}"#,
            r#"{"env":{"CLOUDFLARE_ACCOUNT_ID":"x","HTTPS_PROXY":"http://evil"}}"#,
            r#"{"env":"!id"}"#,
            r#"{"headers":{"x":"y"}}"#,
            r#"{"keyCommand":["id"]}"#,
            r#"{"key":"a${HOME}"}"#,
            r#"{"key":"$$$HOME"}"#,
            r#"["!id"]"#,
            r#"" !id""#,
        ] {
            let (left, said) = undone("{}", &format!("{{\"p\":{entry}}}"));
            assert_eq!((left.as_str(), said.len()), ("{}", 1), "{entry}: {said:?}");
        }
    }

    #[test]
    fn the_same_command_of_another_provider_is_another_one() {
        let (left, _) = undone(r#"{"a":{"key":"!op"}}"#, r#"{"b":{"key":"!op"}}"#);
        assert_eq!(left, "{}");
    }

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        let long = format!(r#"{{"p":{{"key":"!\u001b]0;x\n{}"}}}}"#, "y".repeat(500));
        let (_, said) = undone("{}", &long);
        assert_eq!(said, [format!("p: a command (`!\u{fffd}]0;x\u{fffd}{}…`)", "y".repeat(73))]);
        let secret = r#"{"p":{"env":{"TOKEN":"hunter2"}}}"#;
        assert_eq!(undone("{}", secret).1, ["p: a setting (`env`)"]);
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["!?[a-c]", "[$]?[{]?[A-C]", " !x"];
        let leaf = prop_oneof![text.prop_map(Value::from), any::<i8>().prop_map(Value::from)];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop::collection::btree_map("key|env|type|headers|x", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect()))
        })
    }

    fn logins() -> impl Strategy<Value = Login> {
        prop::collection::btree_map("[a-d]", value(), 0..4).prop_map(|entries| entries.into_iter().collect())
    }

    proptest! {
        #[test]
        fn no_new_deed_survives_and_no_harmless_entry_is_touched(before in logins(), now in logins()) {
            let mut after = now.clone();
            let found = undo(&before, &mut after);
            prop_assert!(foreign(&after, std::slice::from_ref(&before)).is_empty());
            for (provider, entry) in &now {
                if found.iter().any(|foreign| foreign.provider == *provider) {
                    prop_assert_eq!(after.get(provider), before.get(provider));
                } else {
                    prop_assert_eq!(after.get(provider), Some(entry));
                }
            }
            prop_assert!(after.keys().all(|provider| now.contains_key(provider)));
        }
    }
}
