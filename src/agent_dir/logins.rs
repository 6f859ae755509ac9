//! The agent's `auth.json` in a session: what was logged in there, which does not come back.

use serde_json::{Map, Value};

use super::notice::{Notice, list};

/// What is told about logins that a session made or changed. Their values are looked at by nobody.
pub(crate) fn made_inside(before: &str, after: &str) -> Vec<Notice> {
    let parse = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    if before == after {
        return vec![];
    }
    let (before, after) = (parse(before), parse(after));
    let made = |(name, login): &(&String, &Value)| login.is_object() && before.get(*name) != Some(*login);
    let names: Vec<&str> = after.iter().filter(made).map(|(name, _)| name.as_str()).collect();
    if names.is_empty() {
        return vec![];
    }
    vec![Notice::new(
        format!(
            "the login for {} that was made in the session was not kept: logins stay outside",
            list(&names)
        ),
        "`pi login` logs in for all sessions",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_made_inside_is_told_without_what_is_in_it() {
        let before = r#"{"a":{"key":"placeholder"}}"#;
        let after = r#"{"a":{"key":"placeholder"},"b":{"type":"oauth","access":"hunter2"},"c":17}"#;
        let said = made_inside(before, after);
        assert_eq!(said.len(), 1);
        assert!(said[0].text.contains("for `b` that") && !said[0].text.contains("hunter2"), "{said:?}");
        for nothing in [before, "{}", "", "[", &"[".repeat(100_000)] {
            assert_eq!(made_inside(before, nothing), vec![], "{nothing:.20}");
        }
    }
}
