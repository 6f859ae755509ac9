//! Images in a registry: what an engine says when it fetches one or brings one there.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Cmd, Docker};

/// Pushes an image to its registry.
pub(crate) fn push(image: &str) -> Cmd {
    Cmd::new(format!("push the image `{image}`"), &["push", image])
}

/// Gives an image one more name.
pub(crate) fn tag(image: &str, name: &str) -> Cmd {
    Cmd::new(format!("name an image `{name}`"), &["tag", image, name])
}

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Described {
    pub(crate) id: String,
    /// Such as `amd64`.
    pub(crate) architecture: String,
    config: Labelled,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Labelled {
    labels: Option<BTreeMap<String, String>>,
}

impl Described {
    /// The value of a label; empty if there is none.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.config.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str)
    }
}

/// Why an image did not come from a registry, or did not get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not there, or not for this engine's processor.
    Absent,
    /// The registry wants another login.
    Login,
    /// The engine asks by TLS, and the registry does not speak it.
    Plain,
    /// The engine does not trust the registry's certificate.
    Untrusted,
    /// Anything else.
    Other,
}

impl Refusal {
    /// Reads what docker has said.
    pub(crate) fn read(said: &str) -> Self {
        let said = said.to_ascii_lowercase();
        let has = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
        match () {
            // Some registries do not tell a stranger what there is not; the push will tell.
            () if has(&[
                "manifest unknown", "repository does not exist", "name unknown", "no matching manifest",
                ": not found",
            ]) =>
            {
                Self::Absent
            }
            () if has(&[
                "denied", "unauthorized", "no basic auth", "authentication required", "forbidden",
            ]) =>
            {
                Self::Login
            }
            () if has(&["server gave http response to https client"]) => Self::Plain,
            () if has(&["x509:"]) => Self::Untrusted,
            () => Self::Other,
        }
    }
}

/// Whether the first words of a pull say that the registry has the image.
pub(crate) fn is_found(said: &str) -> bool {
    said.contains("Pulling from")
}

/// Docker's complaint: the last line that it has said, without what stands before each.
pub(crate) fn complaint(said: &str) -> &str {
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("docker said nothing");
    last.trim_start_matches("Error response from daemon: ").trim_start_matches("error: ")
}

impl Docker {
    /// What the image of this name says of itself.
    pub(crate) fn described(&self, image: &str) -> anyhow::Result<Described> {
        let cmd = Cmd::new(
            format!("look at the image `{image}`"),
            &["image", "inspect", "--format", "{{json .}}", image],
        );
        let said = self.run(&cmd)?;
        serde_json::from_str(&said)
            .map_err(|error| anyhow::anyhow!("could not understand what `{image}` says of itself: {error}"))
    }

    /// The architecture of the engine's machine, as images have it, such as `amd64`.
    pub(crate) fn architecture(&self) -> anyhow::Result<String> {
        self.run(&Cmd::new(
            "ask the engine for its architecture",
            &["version", "--format", "{{.Server.Arch}}"],
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_says_of_a_registry_is_understood() {
        for (said, expected) in [
            (
                "Error response from daemon: manifest for h:1/pi-agent:x not found: manifest unknown: manifest unknown",
                Refusal::Absent,
            ),
            (
                "Error response from daemon: failed to resolve reference \"h:1/pi-agent:x\": h:1/pi-agent:x: not found",
                Refusal::Absent,
            ),
            (
                "Error response from daemon: pull access denied for h/pi-agent, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                Refusal::Absent,
            ),
            ("no matching manifest for linux/arm64/v8 in the manifest list entries", Refusal::Absent),
            ("denied: requested access to the resource is denied", Refusal::Login),
            (
                "Error response from daemon: Get \"https://h/v2/x/manifests/y\": no basic auth credentials",
                Refusal::Login,
            ),
            ("unauthorized: authentication required", Refusal::Login),
            (
                "Error response from daemon: Get \"https://h:1/v2/\": http: server gave HTTP response to HTTPS client",
                Refusal::Plain,
            ),
            ("Get \"https://h:1/v2/\": x509: certificate signed by unknown authority", Refusal::Untrusted),
            (
                "Error response from daemon: Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                Refusal::Other,
            ),
        ] {
            assert_eq!(Refusal::read(said), expected, "{said}");
        }
        assert_eq!(complaint("a\nError response from daemon: nope\n\n"), "nope");
        assert_eq!(complaint(""), "docker said nothing");
    }

    #[test]
    fn an_image_says_what_it_is() {
        let said =
            r#"{"Id":"sha256:1","Architecture":"arm64","Config":{"Labels":{"pi.digest":"d"}},"Os":"linux"}"#;
        let image: Described = serde_json::from_str(said).unwrap();
        assert_eq!((image.id.as_str(), image.architecture.as_str()), ("sha256:1", "arm64"));
        assert_eq!((image.label("pi.digest"), image.label("pi.image")), ("d", ""));
        let bare: Described =
            serde_json::from_str(r#"{"Id":"1","Architecture":"a","Config":{"Labels":null}}"#).unwrap();
        assert_eq!(bare.label("pi.digest"), "");
    }
}
