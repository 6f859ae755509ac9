//! The settings of subagents: a switch, or a section.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// How many subagents the agent may have, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Subagents {
    pub(crate) at_once: u32,
    /// How many more can wait.
    pub(crate) queued: u32,
    /// How long one may take.
    pub(crate) seconds: u32,
}

/// What a file says about subagents.
#[derive(Debug, Clone)]
pub(super) enum Switch {
    On(bool),
    With(SubagentsLayer),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubagentsLayer {
    #[serde(default, deserialize_with = "at_once")]
    at_once: Option<u32>,
    #[serde(default, deserialize_with = "queued")]
    queued: Option<u32>,
    #[serde(default, deserialize_with = "time_limit")]
    time_limit: Option<u32>,
}

/// The user's settings over the defaults; `None` where there are to be no subagents.
pub(super) fn resolve(user: Option<Switch>, base: Option<Switch>) -> Option<Subagents> {
    let layer = |switch| match switch {
        Some(Switch::With(layer)) => layer,
        Some(Switch::On(_)) | None => SubagentsLayer::default(),
    };
    if matches!(user, Some(Switch::On(false))) {
        return None;
    }
    let (user, base) = (layer(user), layer(base));
    Some(Subagents {
        at_once: user.at_once.or(base.at_once)?,
        queued: user.queued.or(base.queued)?,
        seconds: user.time_limit.or(base.time_limit)?,
    })
}

pub(super) fn switch<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Switch>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = Switch;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`true`, `false` or a section `[subagents]`")
        }
        fn visit_bool<E: Error>(self, on: bool) -> Result<Switch, E> {
            Ok(Switch::On(on))
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Switch, A::Error> {
            SubagentsLayer::deserialize(MapAccessDeserializer::new(map)).map(Switch::With)
        }
    }
    from.deserialize_any(Either).map(Some)
}

fn at_once<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    number(u32::deserialize(from)?, 1, 16)
}

fn queued<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    number(u32::deserialize(from)?, 0, 64)
}

fn number<E: Error>(number: u32, least: u32, most: u32) -> Result<Option<u32>, E> {
    if (least..=most).contains(&number) {
        Ok(Some(number))
    } else {
        Err(E::custom(format!("{number} is not a number from {least} to {most}")))
    }
}

fn time_limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(from)?;
    seconds(&text).map(Some).ok_or_else(|| {
        let text = text.escape_debug();
        Error::custom(format!(
            "`{text}` is no time up to \"24h\": write a number and one of s, m, h, as in `30m`"
        ))
    })
}

fn seconds(text: &str) -> Option<u32> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let number: u32 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    number.checked_mul(unit).filter(|seconds| (1..=24 * 3600).contains(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_is_a_number_with_its_unit() {
        assert_eq!(["30m", "90s", "24h"].map(seconds), [Some(1800), Some(90), Some(86400)]);
        for text in ["", "30", "m", "0s", "25h", "-1s", "1.5h", "99999999999h", "3ü", "+1s"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
