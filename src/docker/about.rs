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

/// What an engine has left for one more session, if its containers use all that they may.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Free {
    pub(crate) memory: u64,
    pub(crate) cpus: f64,
}

/// What a container without limits counts for.
const UNLIMITED: (u64, f64) = (1 << 30, 1.0);

impl Free {
    /// How many sessions with these limits fit in; for comparing engines.
    pub(crate) fn sessions(self, memory: u64, cpus: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 bytes")]
        let by_memory = self.memory as f64 / memory.max(1) as f64;
        by_memory.min(self.cpus / cpus.max(0.01))
    }

    /// What is left when containers with these limits, a line of bytes and billionths of a processor each, use them.
    fn beside(about: &About, containers: &str) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
        let mut free = Self { memory: about.mem_total, cpus: about.cpus as f64 };
        for line in containers.lines() {
            let mut fields = line.split_whitespace().map(|field| field.parse::<u64>().unwrap_or_default());
            let mut limit = || fields.next().filter(|limit| *limit > 0);
            free.memory = free.memory.saturating_sub(limit().unwrap_or(UNLIMITED.0));
            #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
            let cpus = limit().map_or(UNLIMITED.1, |billionths| billionths as f64 / 1e9);
            free.cpus -= cpus;
        }
        free
    }
}

impl Docker {
    /// Asks the engine what it has left.
    pub(crate) fn free(&self) -> anyhow::Result<Free> {
        let about = self.about()?;
        let ids = self.run(&Cmd::new("list the engine's containers", &["ps", "--quiet"]))?;
        if ids.is_empty() {
            return Ok(Free::beside(&about, ""));
        }
        let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}";
        let mut look = Cmd::new("look at the engine's containers", &["inspect", "--format", format]);
        for id in ids.lines() {
            look = look.arg(id);
        }
        match self.try_run(&look) {
            Ok(limits) => Ok(Free::beside(&about, &limits)),
            // One has just ended.
            Err(failure) if failure.is_missing() => {
                Ok(Free::beside(&about, &"0 0\n".repeat(ids.lines().count())))
            }
            Err(failure) => Err(failure.explain(&look.purpose)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containers_may_use_is_taken() {
        let about = About { mem_total: 8 << 30, cpus: 4, ..About::default() };
        let free = Free::beside(&about, "4294967296 2000000000\n0 0\n");
        assert_eq!(free, Free { memory: 3 << 30, cpus: 1.0 });
        assert!(Free::beside(&about, "").sessions(4 << 30, 2.0) > free.sessions(4 << 30, 2.0));
        assert!(
            Free::beside(&about, "").sessions(4 << 30, 2.0)
                < Free { memory: 9 << 30, cpus: 8.0 }.sessions(4 << 30, 2.0)
        );
    }

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
