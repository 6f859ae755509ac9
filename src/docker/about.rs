//! What an engine says about itself, as far as it matters for sessions.

use serde::Deserialize;

use super::{Cmd, Docker};
use crate::report::Hinted;

/// What an engine can and cannot do, from `docker info`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct About {
    /// The engine's version, such as `28.5.2`.
    #[serde(rename = "ServerVersion")]
    pub(crate) version: String,
    /// The storage driver.
    pub(crate) driver: String,
    /// `1` or `2`; empty before 20.10.
    pub(crate) cgroup_version: String,
    pub(crate) operating_system: String,
    pub(crate) architecture: String,
    /// Where the engine keeps images and volumes, on its own machine.
    pub(crate) docker_root_dir: String,
    /// Bytes.
    pub(crate) mem_total: u64,
    #[serde(rename = "NCPU")]
    pub(crate) cpus: u64,
    memory_limit: Option<bool>,
    pids_limit: Option<bool>,
    #[serde(rename = "CpuCfsQuota")]
    cpu_quota: Option<bool>,
    swap_limit: Option<bool>,
    security_options: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    server_errors: Vec<String>,
}

/// An engine writes `null` for an empty list.
fn or_default<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(from).map(Option::unwrap_or_default)
}

impl About {
    /// The limits of a session that this engine cannot keep.
    pub(crate) fn missing_limits(&self) -> Vec<&'static str> {
        [
            (self.memory_limit, "memory"),
            (self.swap_limit, "swap"),
            (self.cpu_quota, "processors"),
            (self.pids_limit, "processes"),
        ]
        .into_iter()
        .filter(|(known, _)| *known == Some(false))
        .map(|(_, what)| what)
        .collect()
    }

    /// Whether the engine has this property: `rootless`, `userns`, `seccomp`, `apparmor`, `selinux`.
    pub(crate) fn has(&self, property: &str) -> bool {
        self.security_options
            .iter()
            .any(|option| option.split(',').any(|part| part == format!("name={property}")))
    }

    /// Major and minor version; `None` for an engine with other versions.
    pub(crate) fn release(&self) -> Option<(u32, u32)> {
        let mut numbers = self.version.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

impl Docker {
    /// Asks the engine about itself.
    ///
    /// # Errors
    /// The engine does not answer, or says what cannot be understood.
    pub(crate) fn about(&self) -> anyhow::Result<About> {
        let cmd = Cmd::new("ask the engine about itself", &["info", "--format", "{{json .}}"]);
        let said = self.run(&cmd)?;
        let about: About = serde_json::from_str(&said).map_err(|error| {
            anyhow::anyhow!("could not understand what the engine says about itself: {error}")
        })?;
        // The client prints its own half, and exits with 0, when the engine does not answer.
        anyhow::ensure!(
            !about.version.is_empty(),
            "the engine at `{}` does not answer: {}",
            self.address(),
            about.server_errors.join("; ")
        );
        Ok(about)
    }

    /// Fails if no session can use this engine. Asked where an image is built, so before the first session on an engine:
    /// one that begins to map users has other images from then on.
    ///
    /// Podman's networks have none of the options by which a restricted session has no way to this machine. With
    /// `userns-remap`, the user in a container is another one outside, and cannot write what is mounted.
    pub(crate) fn check_fit(&self) -> anyhow::Result<()> {
        let cmd = Cmd::new("ask the engine for its version", &["version", "--format", "{{json .}}"]);
        let said = self.run(&cmd)?;
        let is_its_program = serde_json::from_str(&said).is_ok_and(|said: Versions| said.server.is_none());
        if is_its_program || said.contains("Podman Engine") {
            return Err(Hinted::error(
                format!("the engine at `{}` is Podman, and `pi` needs Docker Engine", self.address()),
                "install Docker Engine 20.10 or newer, with root or rootless, and choose it with `docker context use`",
            ));
        }
        if self.about()?.has("userns") {
            return Err(Hinted::error(
                format!(
                    "the engine at `{}` maps users of containers to others (userns-remap), so an agent could not \
                     write in your repository",
                    self.address()
                ),
                "use a rootless engine, or one without `userns-remap` in `/etc/docker/daemon.json`",
            ));
        }
        Ok(())
    }
}

/// What a client says of itself and of the engine.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Versions {
    /// Podman's program is its own engine.
    server: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_cannot_limit_is_named() {
        let about: About = serde_json::from_str(
            r#"{"ServerVersion":"20.10.24+dfsg1","MemoryLimit":true,"PidsLimit":false,"SwapLimit":false,
                "SecurityOptions":["name=seccomp,profile=default","name=rootless"],"ServerErrors":null}"#,
        )
        .unwrap();
        assert_eq!(about.missing_limits(), ["swap", "processes"]);
        assert!(about.has("rootless") && about.has("seccomp") && !about.has("userns"));
        assert_eq!(about.release(), Some((20, 10)));
        assert_eq!(About { version: "dev".into(), ..About::default() }.release(), None);
    }
}
