//! What the agent holds instead of keys: one random text a session, in the shapes that the agent insists on.

/// Worth nothing outside its session: it opens this session's broker, which can be reached from nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placeholder(String);

/// How a placeholder has to look for the agent to treat it as what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    /// The agent sends what it sends for a Claude subscription when the key contains `sk-ant-oat`.
    Claude,
    /// The agent reads the account out of a token for ChatGPT, which it decodes; the broker replaces it.
    ChatGpt,
    /// Newer `gh` takes no token of another shape.
    GitHub,
}

/// `{"alg":"none"}` and `{"https://api.openai.com/auth":{"chatgpt_account_id":"pi-placeholder"}}`
const JWT: &str = "eyJhbGciOiJub25lIn0.\
    eyJodHRwczovL2FwaS5vcGVuYWkuY29tL2F1dGgiOnsiY2hhdGdwdF9hY2NvdW50X2lkIjoicGktcGxhY2Vob2xkZXIifX0";

impl Placeholder {
    pub(crate) fn text(&self, shape: Shape) -> String {
        let Self(random) = self;
        match shape {
            Shape::Plain => format!("pi-placeholder-{random}"),
            Shape::Claude => format!("sk-ant-oat01-pi-placeholder-{random}"),
            Shape::ChatGpt => format!("{JWT}.{random}"),
            Shape::GitHub => format!("ghp_{random}"),
        }
    }

    /// Stands for the value of one header that is not the key.
    pub(crate) fn header(&self, number: usize) -> String {
        format!("pi-placeholder-{}-{number}", self.0)
    }
}

impl From<[u8; 16]> for Placeholder {
    fn from(bytes: [u8; 16]) -> Self {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
        Self(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_has_its_own_and_each_shape_contains_it() {
        let one = Placeholder::from([1; 16]);
        assert_ne!(one, Placeholder::from([2; 16]));
        for shape in [Shape::Plain, Shape::Claude, Shape::ChatGpt, Shape::GitHub] {
            assert!(one.text(shape).contains(&one.0));
        }
        assert_eq!(one.text(Shape::ChatGpt).split('.').count(), 3);
    }
}
