//! Whatever the user writes down, a configuration stays one.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_key_is_one_line_of_the_map_or_none(key in "(\\PC|[\"$ \\\\#;'\\n\\r\\t%]){0,30}") {
        let user = User::default().auth(&json!({ "groq": { "type": "api_key", "key": key.replace('$', "$$") } }));
        let is_plain = key.trim_ascii().bytes().all(|b| (b' '..=b'~').contains(&b));
        let expected = if key.starts_with('!') || key.trim_ascii().is_empty() || !is_plain {
            String::new()
        } else {
            format!("groq {}\n", key.trim_ascii())
        };
        prop_assert_eq!(keys(&user), expected);
    }

    #[test]
    fn nothing_of_the_users_can_add_a_line_to_the_configuration(
        id in "\\PC{1,20}",
        base in "https?://[a-z.:0-9]{1,12}(/[\\PC\\n]{0,20})?",
        header in "(\\PC|[\\n'\"]){0,20}",
        value in "(\\PC|[\\n'\"%]){0,20}",
    ) {
        let user = User::default().models(&json!({ "providers": { id: {
            "baseUrl": base, "api": "anthropic-messages", "apiKey": "key", "headers": { header: value },
        } } }));
        let routes = user.broker().routes.len();
        let plain = config(&User::with(&[("ANTHROPIC_API_KEY", "key")])).lines().count();
        let lines = config(&user);
        let words = ["global", "resolvers", "defaults", "frontend", "backend", "    "];
        prop_assert!(lines.lines().all(|line| line.is_empty() || words.iter().any(|word| line.starts_with(word))));
        prop_assert!(lines.is_ascii());
        prop_assert!(routes == 0 || lines.lines().count() <= plain + 3);
        prop_assert_eq!(lines.matches("\nbackend ").count(), routes + 1);
    }
}
