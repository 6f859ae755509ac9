//! Values of `auth.json` and `models.json`: a literal, `$NAME` or `${NAME}` within text, or a `!command`.

/// Such a value, as the agent reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConfigValue {
    /// Run by a shell; what it prints is the value.
    Command(String),
    Template(Vec<Part>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(String),
    Variable(String),
}

impl ConfigValue {
    /// Nothing is an error here, as in the agent: what is no reference stands for itself.
    pub(crate) fn parse(text: &str) -> Self {
        if let Some(command) = text.strip_prefix('!') {
            return Self::Command(command.to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal(&mut parts, before);
            rest = reference(&mut parts, after);
        }
        literal(&mut parts, rest);
        Self::Template(parts)
    }
}

/// Fills in the variables; none if one is not set or empty.
pub(crate) fn fill(parts: &[Part], lookup: impl Fn(&str) -> Option<String>) -> Option<String> {
    parts
        .iter()
        .map(|part| match part {
            Part::Literal(text) => Some(text.clone()),
            Part::Variable(name) => lookup(name).filter(|value| !value.is_empty()),
        })
        .collect()
}

/// Takes what stands behind a `$`, and gives back the rest.
fn reference<'a>(parts: &mut Vec<Part>, after: &'a str) -> &'a str {
    if let Some(escaped @ ('$' | '!')) = after.chars().next() {
        literal(parts, escaped.encode_utf8(&mut [0; 4]));
        return &after[1..];
    }
    if let Some(braced) = after.strip_prefix('{') {
        let Some((name, rest)) = braced.split_once('}') else {
            literal(parts, "$");
            return after;
        };
        if name_length(name) == name.len() && !name.is_empty() {
            parts.push(Part::Variable(name.to_owned()));
        } else {
            literal(parts, &format!("${{{name}}}"));
        }
        return rest;
    }
    let (name, rest) = after.split_at(name_length(after));
    if name.is_empty() {
        literal(parts, "$");
    } else {
        parts.push(Part::Variable(name.to_owned()));
    }
    rest
}

/// How much of the text, from its beginning, is the name of a variable.
fn name_length(text: &str) -> usize {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return 0;
    }
    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
}

fn literal(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Literal(last)) => last.push_str(text),
        _ => parts.push(Part::Literal(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(text: &str) -> Option<String> {
        match ConfigValue::parse(text) {
            ConfigValue::Template(parts) => fill(&parts, |name| match name {
                "NAME" => Some("value".to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            }),
            ConfigValue::Command(command) => Some(format!("ran {command}")),
        }
    }

    #[test]
    fn a_value_is_read_as_the_agent_reads_it() {
        for (text, value) in [
            ("plain", Some("plain")),
            ("$NAME", Some("value")),
            ("${NAME}", Some("value")),
            ("a-${NAME}-$NAME.b", Some("a-value-value.b")),
            ("$$NAME", Some("$NAME")),
            ("$!x", Some("!x")),
            ("!op read x", Some("ran op read x")),
            ("${NA-ME}", Some("${NA-ME}")),
            ("${}", Some("${}")),
            ("${NAME", Some("${NAME")),
            ("5$", Some("5$")),
            ("$5", Some("$5")),
            ("$EMPTY", None),
            ("$MISSING", None),
            ("$NAME$MISSING", None),
        ] {
            assert_eq!(filled(text).as_deref(), value, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_references_stands_for_itself(text in "[^$!][^$]{0,20}") {
            prop_assert_eq!(filled(&text), Some(text));
        }

        #[test]
        fn doubled_dollars_are_dollars(text in "[^!]\\PC{0,20}") {
            prop_assert_eq!(filled(&text.replace('$', "$$")), Some(text));
        }
    }
}
