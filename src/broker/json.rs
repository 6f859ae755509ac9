//! The agent's dialect of JSON: `//` comments, trailing commas, a byte order mark.

use serde_json::Value;

/// Reads what the agent reads, in the same way.
pub(crate) fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&plain(text))
}

/// The text without its comments and trailing commas; strings stay as they are.
fn plain(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let taken = match next {
            '"' => string(rest),
            '/' if rest.starts_with("//") => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            '}' | ']' => {
                drop_comma(&mut out);
                1
            }
            _ => next.len_utf8(),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

/// The length of the string that this begins with, its quotes included.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn drop_comma(out: &mut String) {
    let end = out.trim_end().len();
    if out[..end].ends_with(',') {
        out.remove(end - 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn comments_and_trailing_commas_go_and_strings_stay() {
        let text = "\u{feff}// top\n{ \"a\": \"http://x,]\\\"//\", // end\n \"b\": [1, 2, // two\n ], }";
        assert_eq!(parse(text).unwrap(), json!({ "a": "http://x,]\"//", "b": [1, 2] }));
    }

    #[test]
    fn what_is_broken_stays_broken() {
        for text in ["", "{", "{\"a\": \"", "{\"a\": \"\\", "[,]x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn plain_json_means_the_same(keys in proptest::collection::vec("\\PC{0,12}", 0..4)) {
            let value = json!({ "list": keys, "nested": { "text": keys.join("//,}\"\\") } });
            prop_assert_eq!(parse(&value.to_string()).unwrap(), value);
        }

        #[test]
        fn no_text_is_too_odd_to_be_read(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }
    }
}
