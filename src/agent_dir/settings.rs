//! The agent's `settings.json`: what a session gets of it, and which of its changes may come back.
//!
//! A setting may come back if the worst that an agent can do with it is to annoy: what looks how, which model answers.
//! None names a command, a path or an address, opens a project's own code, changes what may be done without asking,
//! or turns off something that protects the user. Each value has a form that is checked.

use serde_json::{Map, Value};

use super::notice::{Notice, list};

/// A file of settings or of decisions about trust is a few kilobytes.
pub(crate) const LARGEST: u64 = 1 << 20;

/// Which changes may come back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    #[default]
    Session,
    /// `pi install`, `remove`, `update` and `config`, typed by the user: packages and what is loaded of them too.
    SetUp,
    /// `pi login`: none, but a login.
    Login,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Bool,
    /// A switch that a session may only set to the side that protects the user.
    Only(bool),
    Number(f64),
    OneOf(&'static [&'static str]),
    /// The name of a provider, a model or a theme.
    Name,
    Names,
    Version,
    /// Whether images are shown: a protocol, or none.
    Images,
    BoolOrAuto,
    Level,
    /// A level for each model.
    Levels,
    /// Sources and patterns, which the agent checks.
    Sources,
}

/// The levels of thinking that the agent knows.
const LEVELS: &[&str] = &["off", "minimal", "low", "medium", "high", "xhigh", "max"];

/// The settings that may come back: those that `/model`, `/settings` and their like change, at most one level deep.
const HARMLESS: &[(&str, Form)] = &[
    ("defaultProvider", Form::Name),
    ("defaultModel", Form::Name),
    ("defaultThinkingLevel", Form::Level),
    ("modelThinkingLevels", Form::Levels),
    ("enabledModels", Form::Names),
    ("hideThinkingBlock", Form::Bool),
    ("showCacheMissNotices", Form::Bool),
    ("transport", Form::OneOf(&["auto", "sse", "websocket", "websocket-cached"])),
    ("steeringMode", Form::OneOf(&["all", "one-at-a-time"])),
    ("followUpMode", Form::OneOf(&["all", "one-at-a-time"])),
    ("doubleEscapeAction", Form::OneOf(&["tree", "fork", "none"])),
    ("treeFilterMode", Form::OneOf(&["default", "no-tools", "user-only", "labeled-only", "all"])),
    ("theme", Form::Name),
    ("quietStartup", Form::Bool),
    ("collapseChangelog", Form::Bool),
    ("lastChangelogVersion", Form::Version),
    ("tuiMode", Form::OneOf(&["regular", "fullscreen"])),
    ("fullscreenExitOutput", Form::OneOf(&["transcript", "resume-hint"])),
    ("fullscreenScrollbar", Form::OneOf(&["auto", "always", "hidden"])),
    ("fullscreenCopyOnSelect", Form::Bool),
    ("editorPaddingX", Form::Number(3.0)),
    ("outputPad", Form::Number(1.0)),
    ("autocompleteMaxVisible", Form::Number(20.0)),
    ("showHardwareCursor", Form::Bool),
    ("enableSkillCommands", Form::Bool),
    ("httpIdleTimeoutMs", Form::Number(86_400_000.0)),
    ("compaction.enabled", Form::Bool),
    ("retry.enabled", Form::Bool),
    ("branchSummary.skipPrompt", Form::Bool),
    ("terminal.showImages", Form::Bool),
    ("terminal.imageWidthCells", Form::Number(1000.0)),
    ("terminal.clearOnShrink", Form::Bool),
    ("terminal.showTerminalProgress", Form::Bool),
    ("terminal.hyperlinks", Form::BoolOrAuto),
    ("terminal.trueColor", Form::BoolOrAuto),
    ("terminal.images", Form::Images),
    ("markdown.mermaid", Form::OneOf(&["off", "final", "streaming"])),
    ("images.autoResize", Form::Bool),
    ("images.blockImages", Form::Only(true)),
    ("enableInstallTelemetry", Form::Only(false)),
    ("enableAnalytics", Form::Only(false)),
    ("warnings.anthropicExtraUsage", Form::Only(true)),
];

/// What `pi install` and its like change besides.
const PACKAGES: &[(&str, Form)] = &[
    ("packages", Form::Sources),
    ("extensions", Form::Sources),
    ("skills", Form::Sources),
    ("prompts", Form::Sources),
    ("themes", Form::Sources),
];

/// What the agent itself renames or writes without being asked.
const UNASKED: &[&str] = &["queueMode", "websockets", "trackingId", "apiKeys"];

/// What a session does not get: keys that agents of long ago kept here, and a place for transcripts that would be the
/// same for all projects.
const KEPT_OUTSIDE: &[&str] = &["apiKeys", "sessionDir"];

/// Reads as the agent does: a byte order mark is passed over, and of two settings of one name the last one counts.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, String> {
    if text.len() as u64 > LARGEST {
        return Err("it is larger than 1 MiB".to_owned());
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The settings of a session.
///
/// # Errors
/// The live settings cannot be read, which the agent would not do either.
pub(crate) fn for_session(live: &str) -> Result<String, String> {
    let mut settings = parse(live)?;
    if !KEPT_OUTSIDE.iter().any(|key| settings.contains_key(*key)) {
        return Ok(live.to_owned());
    }
    settings.retain(|key, _| !KEPT_OUTSIDE.contains(&key.as_str()));
    Ok(text(&settings))
}

/// Whether the user has transcripts in a place for all projects, which sessions do not get.
pub(crate) fn has_own_place_for_transcripts(live: &str) -> bool {
    parse(live).is_ok_and(|settings| settings.contains_key("sessionDir"))
}

fn text(settings: &Map<String, Value>) -> String {
    // As the agent writes it.
    serde_json::to_string_pretty(settings).unwrap_or_default()
}

/// What comes back: the live settings as they are to become, where something changes, and what is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Merged {
    pub(crate) text: Option<String>,
    pub(crate) notices: Vec<Notice>,
}

/// Brings what a session has changed into the live settings: what it had at its start is `before`, what it left is
/// `after`. What it did not change stays as it is now, whoever changed that meanwhile.
pub(crate) fn merge(before: &str, after: &str, live: &str, scope: Scope) -> Merged {
    if before == after {
        return Merged::default();
    }
    let dropped = |why: &str| Merged {
        text: None,
        notices: vec![Notice::plain(format!("nothing of the session's settings could be kept: {why}"))],
    };
    let Ok(before) = parse(before) else { return dropped("those that it began with cannot be read") };
    let after = match parse(after) {
        Ok(after) if !after.is_empty() || before.is_empty() => after,
        // The agent was killed while it wrote: it empties the file first.
        Ok(_) => return dropped("its `settings.json` is empty"),
        Err(error) => return dropped(&format!("its `settings.json` cannot be read ({error})")),
    };
    let Ok(mut live) = parse(live) else {
        return dropped("those outside cannot be read; mend your own `settings.json`");
    };
    let old = live.clone();
    let mut refused = Vec::new();
    let more = if scope == Scope::SetUp { PACKAGES } else { &[] };
    for (path, form) in HARMLESS.iter().chain(more) {
        let value = find(&after, path);
        if find(&before, path) == value || find(&live, path) == value {
            continue;
        }
        match value {
            Some(value) if form.takes(value) => put(&mut live, path, value),
            Some(_) => refused.push(*path),
            None => take_away(&mut live, path),
        }
    }
    refused.extend(others(&before, &after, scope));
    Merged {
        text: (live != old).then(|| text(&live)),
        notices: if refused.is_empty() { vec![] } else { vec![dropped_settings(&refused, scope)] },
    }
}

fn dropped_settings(names: &[&str], scope: Scope) -> Notice {
    let packages = |name: &&str| PACKAGES.iter().any(|(key, _)| key == name);
    let hint = if scope == Scope::Session && names.iter().all(packages) {
        "`pi install`, `pi remove` and `pi config` change it for all sessions"
    } else {
        "to have it in all sessions, write it into `~/.pi/agent/settings.json` yourself"
    };
    let mut about: Vec<&str> = names.iter().copied().take(20).collect();
    about.sort_unstable();
    Notice::new(format!("the session's change of {} was not kept", list(names)), hint)
        .once(format!("settings {}", about.join(" ")))
}

/// The settings that have changed and are on no list.
fn others<'a>(before: &'a Map<String, Value>, after: &'a Map<String, Value>, scope: Scope) -> Vec<&'a str> {
    let is_listed = |key: &str| {
        let known = |(path, _): &(&str, Form)| *path == key;
        UNASKED.contains(&key)
            || HARMLESS.iter().any(known)
            || (scope == Scope::SetUp && PACKAGES.iter().any(known))
            // Older agents kept a table here, of which newer ones make a list without being asked.
            || (key == "skills" && before.get(key).is_some_and(Value::is_object))
    };
    let names = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    names
        .map(String::as_str)
        .filter(|key| !is_listed(key))
        .filter(|key| without_listed(key, before.get(*key)) != without_listed(key, after.get(*key)))
        .collect()
}

/// A table without what is looked at on its own; one that has nothing else is none.
fn without_listed(key: &str, value: Option<&Value>) -> Option<Value> {
    let Some(Value::Object(table)) = value else { return value.cloned() };
    let is_listed = |inner: &str| HARMLESS.iter().any(|(path, _)| path.split_once('.') == Some((key, inner)));
    let left: Map<String, Value> = table
        .iter()
        .filter(|(inner, _)| !is_listed(inner))
        .map(|(inner, value)| (inner.clone(), value.clone()))
        .collect();
    (!left.is_empty()).then_some(Value::Object(left))
}

fn find<'a>(settings: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        Some((table, key)) => settings.get(table)?.as_object()?.get(key),
        None => settings.get(path),
    }
}

fn put(settings: &mut Map<String, Value>, path: &str, value: &Value) {
    let Some((table, key)) = path.split_once('.') else {
        settings.insert(path.to_owned(), value.clone());
        return;
    };
    let table = settings.entry(table).or_insert_with(|| Value::Object(Map::new()));
    // What the user has there that is no table stays.
    if let Value::Object(table) = table {
        table.insert(key.to_owned(), value.clone());
    }
}

fn take_away(settings: &mut Map<String, Value>, path: &str) {
    let Some((table, key)) = path.split_once('.') else {
        settings.shift_remove(path);
        return;
    };
    if let Some(Value::Object(inner)) = settings.get_mut(table) {
        inner.shift_remove(key);
        if inner.is_empty() {
            settings.shift_remove(table);
        }
    }
}

/// How many names a list has at most.
const MANY: usize = 500;

impl Form {
    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Bool => value.is_boolean(),
            Self::Only(side) => value.as_bool() == Some(side),
            Self::Number(most) => value.as_f64().is_some_and(|number| (0.0..=most).contains(&number)),
            Self::OneOf(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Self::Name => value.as_str().is_some_and(is_name),
            Self::Names => value.as_array().is_some_and(|names| {
                names.len() <= MANY && names.iter().all(|name| name.as_str().is_some_and(is_name))
            }),
            Self::Version => value.as_str().is_some_and(is_version),
            Self::Images => {
                matches!(value.as_str(), Some("auto" | "kitty" | "iterm2")) || *value == Value::Bool(false)
            }
            Self::BoolOrAuto => value.is_boolean() || value.as_str() == Some("auto"),
            Self::Level => value.as_str().is_some_and(|level| LEVELS.contains(&level)),
            Self::Levels => value.as_object().is_some_and(|levels| {
                levels.len() <= MANY
                    && levels.iter().all(|(model, level)| is_name(model) && Self::Level.takes(level))
            }),
            Self::Sources => value.as_array().is_some_and(|sources| sources.len() <= MANY),
        }
    }
}

/// Names of models have slashes, colons, and in patterns stars; none has a way up, or something a terminal would obey.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || " -_./:@*?[],+~()".contains(c);
    !name.is_empty()
        && name.len() <= 200
        && name.chars().all(is_plain)
        && !name.starts_with(['/', '~', ' ', '-'])
        && !name.split('/').any(|part| part == "..")
}

fn is_version(text: &str) -> bool {
    text.len() <= 40
        && text.split('.').count() == 3
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests;
