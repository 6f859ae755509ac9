//! Images: the build contexts that the binary carries, what a variant is made of, and tags that are hashes of what goes
//! in.

pub(crate) mod build;
pub(crate) mod known;

use std::collections::BTreeMap;

use anyhow::Context as _;
use include_dir::{Dir, include_dir};
use sha2::{Digest as _, Sha256};

use crate::{
    config::Images,
    files::read_small_bytes,
    host::{Owner, hex},
    lang::Variant,
    report::Hinted,
};

static CONTEXTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/images");
static PROXY: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/proxy");

/// An image and what it is made of, bottom first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    layers: Vec<Layer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    tag: String,
    /// A directory of `images`, or `proxy`.
    context: &'static str,
    args: BTreeMap<&'static str, String>,
    /// Images of a registry that it begins with or copies from.
    sources: Vec<String>,
    labels: Vec<(&'static str, String)>,
}

impl Image {
    /// The agent's image for a variant and a user.
    pub(crate) fn agent(
        variant: Variant,
        images: &Images,
        packages: &[String],
        owner: Owner,
        ca: &[u8],
    ) -> Self {
        let base = Layer::new(
            "pi-layer:base",
            "base",
            [
                ("BASE_IMAGE", images.base.clone()),
                ("AGENT_PACKAGE", images.agent_package.clone()),
                ("AGENT_VERSION", images.agent_version.clone()),
                ("ACLI", images.acli.to_string()),
            ],
            vec![images.base.clone()],
            ca,
        );
        let mut layers = vec![base];
        let below = layers[0].tag.clone();
        match variant {
            Variant::Base => {}
            Variant::Go => layers.push(Layer::new(
                "pi-layer:go",
                "go",
                [("LAYER", below), ("GO_IMAGE", images.go.clone())],
                vec![images.go.clone()],
                ca,
            )),
            Variant::Php84 | Variant::Php85 => {
                // Debian 13 has 8.4 itself; only what it has not comes from elsewhere.
                let (version, apt) = match variant {
                    Variant::Php84 => ("8.4", String::new()),
                    _ => ("8.5", images.php_apt.clone()),
                };
                layers.push(Layer::new(
                    if variant == Variant::Php84 { "pi-layer:php8.4" } else { "pi-layer:php8.5" },
                    "php",
                    [("LAYER", below), ("PHP_VERSION", version.to_owned()), ("PHP_APT", apt)],
                    vec![],
                    ca,
                ));
            }
        }
        let below = layers.last().map(|layer| layer.tag.clone()).unwrap_or_default();
        let mut user = Layer::new(
            &format!("pi-agent:{}", variant.name()),
            "user",
            [
                ("LAYER", below),
                ("PACKAGES", packages.join(" ")),
                ("UID", owner.uid.to_string()),
                ("GID", owner.gid.to_string()),
            ],
            vec![],
            ca,
        );
        user.labels = vec![("pi.image", format!("{}-{}-{}", variant.name(), owner.uid, owner.gid))];
        layers.push(user);
        Self { layers }
    }

    /// The sidecar's image.
    pub(crate) fn proxy(images: &Images, ca: &[u8]) -> Self {
        let mut layer = Layer::new(
            "pi-proxy",
            "proxy",
            [("PROXY_BASE", images.proxy.clone())],
            vec![images.proxy.clone()],
            ca,
        );
        layer.labels = vec![("pi.image", "proxy".to_owned())];
        Self { layers: vec![layer] }
    }

    /// What a container is created from.
    pub(crate) fn tag(&self) -> &str {
        self.layers.last().map_or("", |layer| &layer.tag)
    }

    /// Every tag that this image needs to stay.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|layer| layer.tag.as_str())
    }

    /// Its label, by which an older one of the same kind is found.
    fn kind(&self) -> &str {
        self.layers.last().and_then(|layer| layer.labels.first()).map_or("", |(_, value)| value)
    }
}

impl Layer {
    fn new<const N: usize>(
        name: &str,
        context: &'static str,
        args: [(&'static str, String); N],
        sources: Vec<String>,
        ca: &[u8],
    ) -> Self {
        let args = BTreeMap::from(args);
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update(bytes.len().to_le_bytes());
            hash.update(bytes);
        };
        for (path, bytes) in files(context) {
            part(path.as_bytes());
            part(bytes);
        }
        for (key, value) in &args {
            part(key.as_bytes());
            part(value.as_bytes());
        }
        part(ca);
        let digest = hex(&hash.finalize());
        let separator = if name.contains(':') { '-' } else { ':' };
        Self { tag: format!("{name}{separator}{}", &digest[..12]), context, args, sources, labels: vec![] }
    }
}

/// The files of a build context, by name; notes for readers do not go into an image.
fn files(context: &str) -> Vec<(String, &'static [u8])> {
    let dir = if context == "proxy" { Some(&PROXY) } else { CONTEXTS.get_dir(context) };
    let mut found = Vec::new();
    let mut pending: Vec<_> = dir.into_iter().collect();
    while let Some(next) = pending.pop() {
        pending.extend(next.dirs());
        for file in next.files().filter(|file| file.path().extension().is_none_or(|kind| kind != "md")) {
            let path = file.path().strip_prefix(context).unwrap_or(file.path());
            found.push((path.to_string_lossy().into_owned(), file.contents()));
        }
    }
    found.sort_unstable();
    found
}

/// Certificates that the user's config names; empty for none.
///
/// # Errors
/// The file cannot be read or holds no certificate.
pub(crate) fn certificates(images: &Images) -> anyhow::Result<Vec<u8>> {
    let Some(path) = &images.ca_certificates else { return Ok(vec![]) };
    let hint = "`ca_certificates` under `[images]` in the settings names a file of certificates, such as your company's";
    let bytes = read_small_bytes(path)
        .and_then(|bytes| bytes.context("there is no such file"))
        .map_err(|error| Hinted::error(format!("could not read `{}`: {error:#}", path.display()), hint))?;
    if !bytes.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
        return Err(Hinted::error(format!("`{}` holds no certificate in PEM form", path.display()), hint));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, host::Host};

    fn images() -> Images {
        Config::load(&crate::cli::Options::default(), &Host::for_tests(), None).unwrap().images
    }

    fn tag(images: &Images, uid: u32, packages: &[&str]) -> String {
        let packages: Vec<String> = packages.iter().map(|&name| name.into()).collect();
        Image::agent(Variant::Go, images, &packages, Owner { uid, gid: 1000 }, b"").tag().to_owned()
    }

    #[test]
    fn a_tag_changes_with_everything_that_goes_in_and_with_nothing_else() {
        let images = images();
        let plain = tag(&images, 1000, &[]);
        assert!(plain.starts_with("pi-agent:go-") && plain.len() == "pi-agent:go-".len() + 12, "{plain}");
        assert_eq!(plain, tag(&images, 1000, &[]));
        assert_ne!(plain, tag(&images, 1001, &[]));
        assert_ne!(plain, tag(&images, 1000, &["vim"]));
        assert_ne!(plain, tag(&Images { base: "other".into(), ..images.clone() }, 1000, &[]));
        assert_ne!(plain, tag(&Images { agent_version: "1.5.2".into(), ..images }, 1000, &[]));
    }

    #[test]
    fn every_context_has_its_dockerfile() {
        for context in ["base", "go", "php", "user", "proxy"] {
            assert!(files(context).iter().any(|(path, _)| path == "Dockerfile"), "{context}");
        }
    }
}
