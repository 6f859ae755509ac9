//! A port of the agent's container that this machine can reach.

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use serde::Serialize;

/// A port of the agent's container, and the port of 127.0.0.1 that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Published {
    pub(crate) host: u16,
    pub(crate) agent: u16,
}

/// Reads `[HOST_PORT:]PORT`.
impl FromStr for Published {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, agent) = text.split_once(':').unwrap_or((text, text));
        Ok(Self { host: port(host)?, agent: port(agent)? })
    }
}

impl Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, agent } = self;
        if host == agent { write!(f, "{agent}") } else { write!(f, "{host}:{agent}") }
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| format!("`{}` is not a port, 1 to 65535", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_have_another_on_this_machine() {
        for (text, host, agent) in [("3000", 3000, 3000), ("8080:3000", 8080, 3000)] {
            let published: Published = text.parse().unwrap();
            assert_eq!(published, Published { host, agent });
            assert_eq!(published.to_string(), text);
        }
        assert_eq!("80:80".parse::<Published>().unwrap().to_string(), "80");
        for text in ["", "0", "65536", "+80", "80:", ":80", "0.0.0.0:80:80", "80:80/udp", "a"] {
            assert!(text.parse::<Published>().is_err(), "{text}");
        }
    }
}
