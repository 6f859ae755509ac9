//! `pi login --list`: the providers and the state of each login, as they are stored; nobody is asked.

use std::{collections::BTreeMap, ffi::OsStr, fmt::Write as _, time::SystemTime};

use serde_json::Value;

use super::acli;
use crate::{
    agent::{
        SECRETS,
        login::{KEYED, LOGINS, Login},
    },
    agent_dir::login::store,
    host::seconds,
    launcher::{Launcher, place::Place},
    purpose::ACLI,
    report,
};

/// Prints the table.
pub(crate) fn list(launcher: &Launcher) -> anyhow::Result<u8> {
    let stored = store::read(&Place::of(&launcher.host)?.live)?;
    let now = seconds(SystemTime::now());
    let mut rows: BTreeMap<&str, (&str, String)> =
        LOGINS.iter().map(|login| (login.id, (login.ways, "-".to_owned()))).collect();
    for (name, entry) in &stored {
        let ways = Login::of(name).map_or("key", |login| login.ways);
        rows.insert(name, (ways, state(entry, now)));
    }
    if launcher.config().is_ok_and(|config| config.images.acli.is_some()) {
        rows.insert(ACLI, ("browser", acli::state(&launcher.host).to_owned()));
    }
    let mut table = format!("{:<20} {:<31} {}\n", "PROVIDER", "LOGIN", "STATE");
    for (name, (ways, state)) in rows {
        let _ = writeln!(table, "{:<20} {ways:<31} {state}", report::one_line(name));
    }
    report::data(table)?;
    let is_set =
        |name: &&&str| launcher.host.env.get(OsStr::new(name)).is_some_and(|value| !value.is_empty());
    let set: Vec<&str> = SECRETS.iter().filter(is_set).copied().collect();
    if !set.is_empty() {
        report::note(format_args!("keys in the environment: {}", set.join(", ")));
    }
    report::note(format_args!("these take a key, with `pi login PROVIDER --key`: {}", KEYED.join(", ")));
    Ok(0)
}

/// What an entry says of itself. `now` is in seconds since 1970.
pub(crate) fn state(entry: &Value, now: u64) -> String {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    match text("type") {
        Some("api_key") => match text("key") {
            Some(key) if key.starts_with('!') => "key from a command".to_owned(),
            Some(key) if key.contains('$') => "key from a variable".to_owned(),
            Some(_) => "key".to_owned(),
            None => "settings without a key".to_owned(),
        },
        Some("oauth") => {
            let Some(expires) = entry.get("expires").and_then(Value::as_f64) else {
                return "cannot be read".to_owned();
            };
            let renewable = text("refresh").is_some_and(|token| !token.is_empty());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "beyond it is never")]
            let left = ((expires / 1000.0) as u64).saturating_sub(now);
            match (left, renewable) {
                (0, true) => "logged in; renewed at the next use".to_owned(),
                (0, false) => "expired".to_owned(),
                (left, _) if left > A_CENTURY => "logged in".to_owned(),
                (left, true) => format!("logged in; renewed in {}", time(left)),
                (left, false) => format!("logged in for {} more", time(left)),
            }
        }
        _ => "cannot be read".to_owned(),
    }
}

const A_CENTURY: u64 = 100 * 365 * 86400;

fn time(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{} min", seconds.div_ceil(60)),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_tells_what_is_to_be_done_and_no_secret() {
        let login = |expires: f64, refresh: &str| {
            state(
                &json!({"type": "oauth", "access": "hunter2", "refresh": refresh, "expires": expires}),
                1000,
            )
        };
        assert_eq!(login(1_000_000.0 + 90_000.0, "r"), "logged in; renewed in 2 min");
        assert_eq!(login(1_000_000.0 + 7_200_000.0, ""), "logged in for 2 h more");
        assert_eq!(login(1.0, "r"), "logged in; renewed at the next use");
        assert_eq!(login(1.0, ""), "expired");
        assert_eq!(login(9_007_199_254_740_991.0, ""), "logged in");
        assert_eq!(state(&json!({"type": "api_key", "key": "hunter2"}), 1), "key");
        assert_eq!(state(&json!({"type": "api_key", "key": "!op"}), 1), "key from a command");
        assert_eq!(state(&json!({"type": "api_key", "key": "$X"}), 1), "key from a variable");
        for odd in [json!(17), json!({}), json!({"type": "oauth", "expires": "x"})] {
            assert_eq!(state(&odd, 1), "cannot be read");
        }
    }
}
