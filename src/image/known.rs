//! The ids of the images that the launcher has built, or pulled and looked at. Anybody can move a local tag to another image.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;

use crate::{
    files::{read_small, replace},
    host::Host,
};

/// The images that the launcher has built or pulled on one engine.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    path: PathBuf,
    engine: String,
}

/// Ids by engine and by tag.
type Ids = BTreeMap<String, BTreeMap<String, String>>;

impl Known {
    pub(crate) fn of(host: &Host) -> Self {
        Self::at(&host.engine.address, host)
    }

    /// Those on the engine at another address.
    pub(crate) fn at(engine: &str, host: &Host) -> Self {
        Self { path: host.state_dir().join("images.json"), engine: engine.to_owned() }
    }

    fn all(&self) -> Ids {
        let text = read_small(&self.path).ok().flatten().unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The id of the image that the launcher built or pulled with this tag.
    pub(crate) fn id(&self, tag: &str) -> Option<String> {
        self.all().remove(&self.engine)?.remove(tag)
    }

    /// The tags and ids of all images of the launcher's.
    pub(crate) fn images(&self) -> BTreeMap<String, String> {
        self.all().remove(&self.engine).unwrap_or_default()
    }

    /// Records an image. The caller holds the lock of builds.
    pub(super) fn remember(&self, tag: &str, id: &str) -> anyhow::Result<()> {
        let mut all = self.all();
        all.entry(self.engine.clone()).or_default().insert(tag.to_owned(), id.to_owned());
        replace(&self.path, serde_json::to_string_pretty(&all)?.as_bytes())
            .with_context(|| format!("could not write `{}`", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_on_the_engine_that_built_it_and_on_no_other() {
        let home = tempfile::tempdir().unwrap();
        let mut host = Host { home: home.path().to_owned(), ..Host::for_tests() };
        std::fs::create_dir_all(host.state_dir()).unwrap();
        Known::of(&host).remember("pi-proxy:a", "sha256:1").unwrap();
        Known::of(&host).remember("pi-proxy:b", "sha256:2").unwrap();
        Known::of(&host).remember("pi-proxy:a", "sha256:3").unwrap();
        assert_eq!(Known::of(&host).id("pi-proxy:a").as_deref(), Some("sha256:3"));
        assert_eq!(Known::of(&host).id("pi-proxy:b").as_deref(), Some("sha256:2"));
        host.engine.address = "unix:///elsewhere".to_owned();
        assert_eq!(Known::of(&host).id("pi-proxy:a"), None);
    }
}
