//! What providers answered, from the broker's log: which of them refuse the user's key.
//!
//! A line is `broker ROUTE METHOD HOST STATUS BYTES MILLISECONDS END`. Only the method is the agent's, and only a line of
//! the right form counts.

use std::collections::BTreeMap;

use crate::{broker::haproxy::LOG, report::Finding};

/// How many providers are remembered: more than a session has.
const MANY: usize = 200;

/// Providers whose last answer was that the key is not good, and the host that said so.
#[derive(Debug, Default)]
pub(super) struct Answers {
    refusing: BTreeMap<String, String>,
}

impl Answers {
    /// Takes one line of the log.
    pub(super) fn line(&mut self, line: &[u8]) {
        let Some((route, host, status)) = std::str::from_utf8(line).ok().and_then(answer) else { return };
        if status != 401 {
            self.refusing.remove(route);
        } else if self.refusing.len() < MANY {
            self.refusing.insert(route.to_owned(), host.to_owned());
        }
    }

    /// What is told at the end.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let refusing = self.refusing.iter();
        let finding = |(route, host): (&String, &String)| {
            let provider = named(route);
            Finding::hinted(
                format!("your key for `{provider}` was refused by {host}"),
                format!("look whether it is still good; `pi login {provider}` makes a new login"),
            )
        };
        refusing.map(finding).collect()
    }
}

/// The route, the host and the status, where the provider itself has answered.
fn answer(line: &str) -> Option<(&str, &str, u16)> {
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let [first, route, _, host, status, _, _, end] = words[..] else { return None };
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    let counts = first == LOG && end == "--" && is_plain(route) && is_plain(host);
    Some((route, host, status.parse().ok().filter(|_| counts)?))
}

/// The agent's name for a provider that is not built in, as far as a route has it.
fn named(route: &str) -> &str {
    let own = route.strip_prefix("custom").and_then(|rest| rest.split_once('-'));
    own.filter(|(number, _)| number.bytes().all(|b| b.is_ascii_digit())).map_or(route, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_of_each_provider_counts() {
        let mut answers = Answers::default();
        for line in [
            "broker openai POST api.openai.com 401 120 80 --\n",
            "broker openai POST api.openai.com 200 120 80 --\n",
            "broker groq POST api.groq.com 401 120 80 --\n",
            // Refused by the broker itself, and by nobody.
            "broker xai POST api.x.ai 401 120 80 PR\n",
            "broker xai GET x broker xai POST api.x.ai 401 120 80 --\n",
            "broker x\u{1b}ai POST api.x.ai 401 120 80 --\n",
            "401\n",
        ] {
            answers.line(line.as_bytes());
        }
        answers.line(b"broker \xff POST api.x.ai 401 1 1 --\n");
        assert_eq!(answers.refusing.keys().collect::<Vec<_>>(), ["groq"]);
        assert_eq!(answers.findings().len(), 1);
    }

    #[test]
    fn a_provider_of_the_users_is_named_as_the_agent_names_it() {
        assert_eq!(
            ["custom12-corp-llm", "openai", "customary-x"].map(named),
            ["corp-llm", "openai", "customary-x"]
        );
    }
}
