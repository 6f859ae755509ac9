//! `models.json` as a text with comments: changes one provider's entry and leaves every other character as it is.

use anyhow::{Context as _, bail};
use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstObject, CstRootNode},
};
use serde_json::Value;

/// The text, taken apart.
pub(super) struct Document {
    root: CstRootNode,
}

/// What the agent takes: comments and trailing commas, and JSON else.
const TAKEN: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

impl Document {
    /// # Errors
    /// The text is not what the agent can read, or has no place for providers. The text is in no error: it may hold keys.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let text = if text.trim().is_empty() { "{}\n" } else { text };
        let root = CstRootNode::parse(text, &TAKEN)
            .map_err(|error| anyhow::anyhow!("line {}: {}", error.line_display(), error.kind()))?;
        let object = root.object_value().context("it is not an object")?;
        if object.get("providers").is_some_and(|prop| prop.object_value().is_none()) {
            bail!("its `providers` is not an object");
        }
        Ok(Self { root })
    }

    fn providers(&self) -> Option<CstObject> {
        self.root.object_value()?.object_value("providers")
    }

    /// A provider's entry.
    pub(super) fn entry(&self, name: &str) -> Option<Value> {
        self.providers()?.get(name)?.value()?.to_serde_value()
    }

    /// Adds an entry, or changes those parts of it that are ours: what the user added to it or to a model stays.
    pub(super) fn set(&self, name: &str, entry: &Value) {
        let providers = self.root.object_value_or_set().object_value_or_set("providers");
        let Some(there) = providers.object_value(name) else {
            if let Some(odd) = providers.get(name) {
                odd.remove();
            }
            providers.append(name, input(entry));
            return;
        };
        for (key, value) in entry.as_object().into_iter().flatten() {
            match (there.get(key), value) {
                (Some(prop), Value::Array(models)) if prop.array_value().is_some() => {
                    merge(&prop.array_value_or_set(), models);
                }
                (Some(prop), _)
                    if prop.value().and_then(|node| node.to_serde_value()).as_ref() != Some(value) =>
                {
                    prop.set_value(input(value));
                }
                (Some(_), _) => {}
                (None, _) => drop(there.append(key, input(value))),
            }
        }
    }

    /// Removes an entry, and `providers` with the last one.
    pub(super) fn remove(&self, name: &str) {
        let Some(providers) = self.providers() else { return };
        if let Some(prop) = providers.get(name) {
            prop.remove();
        }
    }

    /// Whether no provider is left, and nothing else.
    pub(super) fn is_empty(&self) -> bool {
        let is_empty = |object: &CstObject| object.properties().is_empty();
        let Some(object) = self.root.object_value() else { return true };
        object.properties().iter().all(|prop| {
            prop.decoded_name().as_deref() == Some("providers")
                && prop.object_value().as_ref().is_none_or(is_empty)
        })
    }
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.root.fmt(f)
    }
}

/// Makes these the models of a list. A model that is there already stays as it stands.
fn merge(there: &jsonc_parser::cst::CstArray, models: &[Value]) {
    let id = |value: &Value| value.get("id").and_then(Value::as_str).map(str::to_owned);
    let wanted: Vec<String> = models.iter().filter_map(id).collect();
    let mut present = Vec::new();
    for node in there.elements() {
        match node.to_serde_value().as_ref().and_then(id) {
            Some(id) if wanted.contains(&id) && !present.contains(&id) => present.push(id),
            _ => node.remove(),
        }
    }
    for model in models.iter().filter(|model| id(model).is_some_and(|id| !present.contains(&id))) {
        there.append(input(model));
    }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(is) => CstInputValue::Bool(*is),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(all) => CstInputValue::Array(all.iter().map(input).collect()),
        Value::Object(all) => {
            CstInputValue::Object(all.iter().map(|(key, value)| (key.clone(), input(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "// Mine.\n{\n\t\"providers\": {\n\t\t// Work.\n\t\t\"corp\": { \"baseUrl\": \"https://x/\", }, // odd\n\t},\n\t\"other\": 1\n}\n";

    fn entry(models: &[&str]) -> Value {
        let models: Vec<Value> = models.iter().map(|id| json!({ "id": id })).collect();
        json!({ "baseUrl": "http://127.0.0.1:1/v1", "models": models })
    }

    #[test]
    fn an_entry_comes_and_goes_and_the_rest_stays() {
        let document = Document::parse(TEXT).unwrap();
        document.set("ollama", &entry(&["a", "b"]));
        let text = document.to_string();
        for line in TEXT.lines() {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let again = Document::parse(&text).unwrap();
        assert_eq!(again.entry("ollama"), Some(entry(&["a", "b"])));
        again.remove("ollama");
        assert_eq!(again.to_string(), TEXT);
    }

    #[test]
    fn what_the_user_added_to_a_model_stays() {
        let document = Document::parse(
            "{\"providers\": {\"ollama\": {\"baseUrl\": \"http://127.0.0.1:1/v1\", \"compat\": {}, \"models\": [\n\
             {\"id\": \"a\", \"contextWindow\": 8192}, // small\n{\"id\": \"gone\"}]}}}",
        )
        .unwrap();
        document.set("ollama", &entry(&["a", "new"]));
        let text = document.to_string();
        assert!(text.contains("{\"id\": \"a\", \"contextWindow\": 8192}, // small"), "{text}");
        assert!(text.contains("\"compat\": {}") && !text.contains("gone"), "{text}");
        let ids = Document::parse(&text).unwrap().entry("ollama").unwrap()["models"].clone();
        assert_eq!(ids, json!([{ "id": "a", "contextWindow": 8192 }, { "id": "new" }]));
    }

    #[test]
    fn a_text_that_the_agent_cannot_read_is_not_changed() {
        for text in ["{", "[]", "{'a': 1}", "{\"providers\": []}", "{\"providers\": {} \"a\": 1}", "x"] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
        let error = Document::parse("{\n\"apiKey\": hunter2\n}").err().unwrap().to_string();
        assert!(error.starts_with("line 2: ") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn nothing_is_empty_and_an_entry_is_not() {
        for text in ["", "{}", "{\"providers\": {}}", "// A.\n{ }\n"] {
            assert!(Document::parse(text).unwrap().is_empty(), "{text}");
        }
        assert!(!Document::parse(TEXT).unwrap().is_empty());
    }
}
