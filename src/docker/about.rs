//! What an engine says about itself, as far as it matters for sessions.

use serde::Deserialize;

use super::{Cmd, Docker};

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
