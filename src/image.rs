//! Images: their build contexts, which the binary carries, their layers, and tags that are hashes of the inputs.

pub(crate) mod build;
pub(crate) mod known;
mod progress;
pub(crate) mod registry;
pub(crate) mod sbom;

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
static EXTENSIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/assets/extensions");

/// House rules for repositories that have none.
static RULES: &[u8] = include_bytes!("../assets/AGENTS.md");

/// An image as a stack of layers, bottom first.
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
    /// Images of a registry that this layer begins with or copies from.
    sources: Vec<String>,
    labels: Vec<(&'static str, String)>,
    /// Of everything that it is made of.
    digest: String,
}

/// The label with which a layer says what it is made of.
const DIGEST: &str = "pi.digest";

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
            ],
            vec![images.base.clone()],
            ca,
        );
        let below = || ("LAYER", base.tag.clone());
        let php = |name, version: &str, apt: &str| {
            let args = [below(), ("PHP_VERSION", version.to_owned()), ("PHP_APT", apt.to_owned())];
            Layer::new(name, "php", args, vec![], ca)
        };
        let language = match variant {
            Variant::Base => None,
            Variant::Go => {
                let args = [below(), ("GO_IMAGE", images.go.clone())];
                Some(Layer::new("pi-layer:go", "go", args, vec![images.go.clone()], ca))
            }
            // Debian 13 has PHP 8.4 itself.
            Variant::Php84 => Some(php("pi-layer:php8.4", "8.4", "")),
            Variant::Php85 => Some(php("pi-layer:php8.5", "8.5", &images.php_apt)),
        };
        let mut user = Layer::new(
            &format!("pi-agent:{}", variant.name()),
            "user",
            [
                ("LAYER", language.as_ref().unwrap_or(&base).tag.clone()),
                ("PACKAGES", packages.join(" ")),
                ("ACLI", images.acli.clone().unwrap_or_default()),
                ("UID", owner.uid.to_string()),
                ("GID", owner.gid.to_string()),
            ],
            vec![],
            ca,
        );
        user.labels = vec![("pi.image", format!("{}-{}-{}", variant.name(), owner.uid, owner.gid))];
        Self { layers: [Some(base), language, Some(user)].into_iter().flatten().collect() }
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

    /// The tag for containers.
    pub(crate) fn tag(&self) -> &str {
        self.layers.last().map_or("", |layer| &layer.tag)
    }

    /// The tags of all its layers.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|layer| layer.tag.as_str())
    }

    /// The label that older images of the same kind also have.
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
        let tag = format!("{name}{separator}{}", &digest[..12]);
        Self { tag, context, args, sources, labels: vec![], digest }
    }
}

/// The files of a build context by name, without notes for readers.
fn files(context: &str) -> Vec<(String, &'static [u8])> {
    let dir = if context == "proxy" { Some(&PROXY) } else { CONTEXTS.get_dir(context) };
    let mut found: Vec<_> = dir.into_iter().flat_map(|dir| below(dir, "")).collect();
    // What the gate and the sidecar must agree on.
    let shared = CONTEXTS.get_dir("shared").filter(|_| ["user", "proxy"].contains(&context));
    found.extend(shared.into_iter().flat_map(|dir| below(dir, "")));
    if context == "user" {
        found.extend(below(&EXTENSIONS, "extensions/"));
        found.push(("AGENTS.md".to_owned(), RULES));
    }
    found.sort_unstable();
    found
}

fn below(top: &'static Dir<'_>, prefix: &str) -> Vec<(String, &'static [u8])> {
    let mut found = Vec::new();
    let mut pending = vec![top];
    while let Some(next) = pending.pop() {
        pending.extend(next.dirs());
        for file in next.files().filter(|file| file.path().extension().is_none_or(|kind| kind != "md")) {
            let path = file.path().strip_prefix(top.path()).unwrap_or(file.path());
            found.push((format!("{prefix}{}", path.to_string_lossy()), file.contents()));
        }
    }
    found
}

/// The certificates that the user's config names; empty for none.
pub(crate) fn certificates(images: &Images) -> anyhow::Result<Vec<u8>> {
    let Some(path) = &images.ca_certificates else { return Ok(vec![]) };
    let hint = "set `ca_certificates` under `[images]` to a file of certificates, such as your company's";
    let bytes = read_small_bytes(path)
        .and_then(|bytes| bytes.context("there is no such file"))
        .map_err(|error| Hinted::error(format!("could not read `{}`: {error:#}", path.display()), hint))?;
    if !bytes.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
        return Err(Hinted::error(format!("`{}` has no certificate in PEM format", path.display()), hint));
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
        assert_ne!(plain, tag(&Images { acli: Some("https://x".into()), ..images.clone() }, 1000, &[]));
        assert_ne!(plain, tag(&Images { base: "other".into(), ..images.clone() }, 1000, &[]));
        assert_ne!(plain, tag(&Images { agent_version: "1.5.2".into(), ..images }, 1000, &[]));
    }

    #[test]
    fn every_context_has_its_dockerfile() {
        for context in ["base", "go", "php", "user", "proxy"] {
            assert!(files(context).iter().any(|(path, _)| path == "Dockerfile"), "{context}");
        }
    }

    #[test]
    fn the_gate_and_the_sidecar_share_files() {
        for name in ["sandbox.pl", "socket.pl"] {
            let shared = |context| files(context).into_iter().find(|(path, _)| path == name);
            assert!(shared("user").is_some());
            assert_eq!(shared("user"), shared("proxy"));
            assert_eq!(shared("base"), None);
        }
    }
}
