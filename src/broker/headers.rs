//! Headers that the user puts into `models.json`: each value that may be secret becomes a placeholder, for which the broker
//! puts the value back.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    base::Base,
    credentials::{self, Credential, header_value},
    route::Making,
    value::{ConfigValue, Part},
};
use crate::secret::Secret;

/// The value of a header of the user's, which the agent sends as a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Swap {
    pub(crate) header: String,
    pub(crate) placeholder: String,
    pub(crate) secret: Secret,
}

/// Headers that say nothing of the user, when their value is plain text.
const HARMLESS: &[&str] = &[
    "accept", "accept-language", "anthropic-beta", "anthropic-version", "editor-plugin-version",
    "editor-version", "copilot-integration-id", "http-referer", "openai-beta", "openai-organization",
    "openai-project", "originator", "referer", "user-agent", "x-app", "x-title",
];

/// Headers that make up the request itself.
const STRUCTURAL: &[&str] = &[
    "connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding",
    "upgrade",
];

impl Making<'_, '_> {
    /// Takes the values of headers out of the entry.
    pub(super) fn swaps(
        &mut self,
        entry: &mut Map<String, Value>,
        credential: &Credential,
    ) -> Result<Vec<Swap>, String> {
        let mut swaps: Vec<(String, Swap)> = Vec::new();
        let mut ran = BTreeMap::new();
        for headers in header_lists(entry) {
            for (header, value) in headers.iter_mut() {
                let Some(raw) = value.as_str().map(str::to_owned) else { continue };
                let name = header.to_ascii_lowercase();
                check_name(&name)?;
                if HARMLESS.contains(&name.as_str()) && is_plain(&raw) {
                    continue;
                }
                let known = swaps.iter().find(|(of, swap)| *of == raw && swap.header == name);
                let placeholder = if let Some((_, swap)) = known {
                    swap.placeholder.clone()
                } else {
                    let secret =
                        credentials::resolve(&raw, &credential.settings, self.env, &mut *self.run, &mut ran)
                            .and_then(|secret| secret.ok_or_else(|| "a variable in it is not set".to_owned()))
                            .and_then(|secret| header_value(&secret))
                            .map_err(|why| format!("its header `{name}` cannot be made: {why}"))?;
                    let placeholder = self.placeholder.header(swaps.len());
                    swaps.push((raw, Swap { header: name, placeholder: placeholder.clone(), secret }));
                    placeholder
                };
                *value = placeholder.into();
            }
        }
        Ok(swaps.into_iter().map(|(_, swap)| swap).collect())
    }
}

/// An entry of `models.json` for the agent, of a provider for which nothing is brokered: without what may be secret.
pub(crate) fn without_secrets(entry: &Value) -> Value {
    let mut entry = entry.as_object().cloned().unwrap_or_default();
    entry.remove("apiKey");
    let models = entry.get_mut("models").and_then(Value::as_array_mut).into_iter().flatten();
    let models = models.filter_map(Value::as_object_mut).filter_map(|model| model.get_mut("baseUrl"));
    models.for_each(without_password);
    entry.get_mut("baseUrl").into_iter().for_each(without_password);
    for headers in header_lists(&mut entry) {
        headers.retain(|name, value| {
            HARMLESS.contains(&name.to_ascii_lowercase().as_str()) && value.as_str().is_some_and(is_plain)
        });
    }
    Value::Object(entry)
}

/// An address that is not plain may hold a password or a key.
fn without_password(address: &mut Value) {
    if address.as_str().is_none_or(|text| Base::parse(text).is_err()) {
        *address = "https://left-out.invalid".into();
    }
}

fn header_lists(entry: &mut Map<String, Value>) -> Vec<&mut Map<String, Value>> {
    let mut lists = Vec::new();
    for (name, value) in entry.iter_mut() {
        match (name.as_str(), value) {
            ("headers", Value::Object(headers)) => lists.push(headers),
            ("models", Value::Array(models)) => lists.extend(models.iter_mut().filter_map(own_headers)),
            ("modelOverrides", Value::Object(models)) => {
                lists.extend(models.values_mut().filter_map(own_headers));
            }
            _ => {}
        }
    }
    lists
}

fn own_headers(model: &mut Value) -> Option<&mut Map<String, Value>> {
    model.get_mut("headers")?.as_object_mut()
}

fn is_plain(raw: &str) -> bool {
    matches!(ConfigValue::parse(raw), ConfigValue::Template(parts) if parts.iter().all(|part| matches!(part, Part::Literal(_))))
}

fn check_name(name: &str) -> Result<(), String> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_token) || STRUCTURAL.contains(&name) {
        return Err("it sets a header that no client could set".to_owned());
    }
    Ok(())
}
