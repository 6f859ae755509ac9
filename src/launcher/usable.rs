//! Whether the agent will have a model at all: told in a line before it starts, and asked on a terminal.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Launcher, Prepared};
use crate::{
    agent,
    agent_dir::{
        entry::{MODELS, PACKAGES},
        login::store::{self, Logins},
        take_back,
    },
    host::Host,
    purpose::Purpose,
    report,
    written::real,
};

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lack {
    /// What it is about, where the user's answer is remembered.
    about: String,
    text: String,
}

impl Launcher {
    /// Tells what the agent lacks to use a model. On a terminal it asks whether to start it all the same, until the user
    /// has said so for this project. It never asks without one.
    ///
    /// # Errors
    /// A signal came, or the answer cannot be remembered.
    pub(crate) fn may_begin(&self, prepared: &Prepared) -> anyhow::Result<bool> {
        let state = real(&self.host.state_dir());
        let mut lacks = lacks(prepared, &self.host);
        lacks.retain(|lack| !take_back::is_told(&lack.about, &state));
        let terminal = self.host.terminal;
        if lacks.is_empty() || report::is_quiet() {
            return Ok(true);
        }
        if !terminal.stdin || !terminal.stderr {
            for lack in &lacks {
                report::warn(&lack.text);
            }
            return Ok(true);
        }
        let all: Vec<&str> = lacks.iter().map(|lack| lack.text.as_str()).collect();
        let question = format!("pi: {}; start the agent all the same? [y/N]", all.join("; "));
        if !report::ask_while(&question, || self.signals.check())? {
            return Ok(false);
        }
        lacks.iter().try_for_each(|lack| take_back::tell(&lack.about, &state))?;
        Ok(true)
    }
}

fn lacks(prepared: &Prepared, host: &Host) -> Vec<Lack> {
    let Prepared { facts, config, program, workspace, .. } = prepared;
    let runs = agent::runs_a_model(&program.words, &config.images.agent_version);
    // What cannot be read is told when the session begins.
    let Ok(logins) = store::read(&facts.agent_dir) else { return vec![] };
    if program.purpose != Purpose::Work || !runs {
        return vec![];
    }
    let is_set = |name: &str| host.var(name).is_some();
    let passed = |name: &&str| config.env.iter().any(|text| text.split('=').next() == Some(name));
    let by_environment = agent::SECRETS
        .iter()
        .chain(agent::CREDENTIAL_PATHS)
        .chain(agent::SETTINGS)
        .any(|name| is_set(name) || passed(name));
    let by_option = program.words.iter().any(|word| word == "--api-key");
    let models = facts.layout.copies.iter().find(|copy| copy.name == MODELS);
    let by_models = models.is_some_and(|copy| String::from_utf8_lossy(copy.text.bytes()).contains("apiKey"));
    // Extensions can bring providers of their own.
    let by_extensions = facts
        .layout
        .read
        .iter()
        .any(|read| read.name == "extensions" || PACKAGES.contains(&read.name.as_str()));
    let others = by_environment || by_option || by_models || by_extensions;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    of_logins(&logins, others, now, &workspace.root.to_string_lossy())
}

/// What is missing with these logins; `others` is whether there is anything else. `now` is in milliseconds.
fn of_logins(logins: &Logins, others: bool, now: u128, root: &str) -> Vec<Lack> {
    if logins.is_empty() && !others {
        return vec![Lack {
            about: format!("no-key {root}"),
            text: "no model provider has a key or a login: `pi login` makes one, or set a key such as `ANTHROPIC_API_KEY`"
                .to_owned(),
        }];
    }
    let expired = logins.iter().filter(|(_, entry)| is_over(entry, now));
    expired
        .map(|(provider, entry)| Lack {
            about: format!("expired {provider} {} {root}", entry["expires"]),
            text: format!(
                "the login of `{0}` has expired and could not be renewed: `pi login {0}` makes a new one",
                report::one_line(provider)
            ),
        })
        .collect()
}

/// Whether an entry is a login that has expired. What could be renewed has been.
fn is_over(entry: &Value, now: u128) -> bool {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a millisecond more or less")]
    let past = |at: f64| at < now as f64;
    text("type") == "oauth" && entry.get("expires").and_then(Value::as_f64).is_some_and(past)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(logins: &Value, others: bool) -> Vec<String> {
        let lacks = of_logins(logins.as_object().unwrap(), others, 2000, "/r");
        lacks.into_iter().map(|lack| lack.text.split(':').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_is_missing_is_told_in_a_line_each() {
        assert_eq!(said(&json!({}), false), ["no model provider has a key or a login"]);
        assert!(said(&json!({}), true).is_empty());
        let login =
            |refresh: &str, expires: u32| json!({"type": "oauth", "refresh": refresh, "expires": expires});
        let logins = json!({
            "a": login("", 1000), "b": login("r", 1000), "c": login("", 3000), "d": {"type": "api_key", "key": "k"},
        });
        let over = |id| format!("the login of `{id}` has expired and could not be renewed");
        assert_eq!(said(&logins, false), [over("a"), over("b")]);
        assert_eq!(said(&logins, true), said(&logins, false));
    }
}
