//! Images: the variants, the build contexts that the binary carries, tags that are hashes of what goes in, and how one
//! comes to exist.

use std::{
    collections::BTreeMap, fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path, sync::Mutex,
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    config::{Images, Pull},
    docker::{self, Docker},
    files::read_small,
    host::{Host, Owner, hex},
    report::{self, Hinted},
    scratch::Scratch,
    session::Signals,
};

static CONTEXTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/images");
static PROXY: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/proxy");

/// What a user may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
pub(crate) enum Lang {
    #[serde(rename = "base")]
    Base,
    #[serde(rename = "go")]
    Go,
    #[serde(rename = "php")]
    Php,
    #[serde(rename = "php8.4")]
    #[value(name = "php8.4")]
    Php84,
    #[serde(rename = "php8.5")]
    #[value(name = "php8.5")]
    Php85,
    #[serde(rename = "auto")]
    Auto,
}

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Variant {
    #[serde(rename = "base")]
    Base,
    #[serde(rename = "go")]
    Go,
    #[serde(rename = "php8.4")]
    Php84,
    #[serde(rename = "php8.5")]
    Php85,
}

impl Variant {
    pub(crate) const ALL: [Self; 4] = [Self::Base, Self::Go, Self::Php84, Self::Php85];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Go => "go",
            Self::Php84 => "php8.4",
            Self::Php85 => "php8.5",
        }
    }
}

impl Lang {
    /// The variant for a project, and by which file it was chosen when that was left to us.
    pub(crate) fn variant(self, cwd: &Path, root: &Path) -> (Variant, Option<&'static str>) {
        match self {
            Self::Base => (Variant::Base, None),
            Self::Go => (Variant::Go, None),
            Self::Php | Self::Php85 => (Variant::Php85, None),
            Self::Php84 => (Variant::Php84, None),
            Self::Auto => [cwd, root].iter().find_map(|dir| detect(dir)).unwrap_or((Variant::Base, None)),
        }
    }
}

fn detect(dir: &Path) -> Option<(Variant, Option<&'static str>)> {
    if dir.join("go.mod").is_file() {
        return Some((Variant::Go, Some("go.mod")));
    }
    let composer = dir.join("composer.json");
    fs::metadata(&composer).ok().filter(fs::Metadata::is_file)?;
    let constraint = composer_constraint(&composer);
    let variant = match constraint {
        Some(text) if !admits(&text, 5) && admits(&text, 4) => Variant::Php84,
        _ => Variant::Php85,
    };
    Some((variant, Some("composer.json")))
}

fn composer_constraint(path: &Path) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(&read_small(path).ok()??).ok()?;
    json.get("require")?.get("php")?.as_str().map(str::to_owned)
}

/// Whether a simple composer constraint admits some PHP 8.`minor`.
fn admits(constraint: &str, minor: u32) -> bool {
    constraint
        .split('|')
        .filter(|part| !part.trim().is_empty())
        .any(|part| part.replace(',', " ").split_whitespace().all(|term| term_admits(term, minor)))
}

fn term_admits(term: &str, minor: u32) -> bool {
    let at = term.find(|c: char| c.is_ascii_digit() || c == '*').unwrap_or(term.len());
    let (operator, version) = term.split_at(at);
    let parts: Vec<Option<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    let given = parts.iter().take_while(|part| part.is_some()).count();
    let [want_major, want_minor] = [0, 1].map(|i| parts.get(i).copied().flatten().unwrap_or(0));
    let this = (8, minor);
    let that = (want_major, want_minor);
    match operator.trim_start_matches('v') {
        _ if given == 0 => true,
        ">=" => this >= that,
        ">" if given > 2 => this >= that,
        ">" => this > that,
        "<=" => this <= that,
        // Below 8.5.3 there is an 8.5.2; below 8.5 there is no 8.5.
        "<" if given > 2 && parts[2] != Some(0) => this <= that,
        "<" => this < that,
        "~" if given > 2 => this == that,
        "^" | "~" => this.0 == that.0 && this >= that,
        "!=" => true,
        _ if given == 1 => this.0 == that.0,
        _ => this == that,
    }
}

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
    let bytes = fs::read(path)
        .with_context(|| format!("could not read `ca_certificates` from `{}`", path.display()))?;
    if !bytes.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
        bail!("`ca_certificates`: `{}` holds no certificate in PEM form", path.display());
    }
    Ok(bytes)
}

/// How much is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// What does not exist.
    Missing,
    /// Everything, on the newest bases there are.
    Everything,
}

/// The builder: an engine, and where its lock and its log are.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    pub(crate) docker: &'a Docker,
    pub(crate) host: &'a Host,
    pub(crate) images: &'a Images,
    pub(crate) ca: &'a [u8],
    pub(crate) signals: &'a Signals,
}

impl Builder<'_> {
    /// Makes an image exist and returns the tag to use, which is an older one where the user accepted that.
    ///
    /// Two launchers at once build once: the second waits for the first.
    ///
    /// # Errors
    /// The build failed: the error has the last lines of the failing step and names the whole log.
    pub(crate) fn ensure(&self, image: &Image, effort: Effort) -> anyhow::Result<String> {
        let state = self.host.state_dir();
        fs::create_dir_all(&state).with_context(|| format!("could not create `{}`", state.display()))?;
        let path = state.join("build.lock");
        let lock =
            fs::File::create(&path).with_context(|| format!("could not create `{}`", path.display()))?;
        if lock.try_lock().is_err() {
            report::note("another `pi` is building an image; waiting for it");
            lock.lock().with_context(|| format!("could not lock `{}`", path.display()))?;
        }
        if effort == Effort::Everything {
            self.refresh(image)?;
        }
        let mut missing = image.layers.len();
        if effort == Effort::Everything {
            missing = 0;
        } else {
            // From the top: what exists needs nothing below it.
            while missing > 0 && !self.exists(&image.layers[missing - 1].tag)? {
                missing -= 1;
            }
        }
        for layer in &image.layers[missing..] {
            self.signals.check()?;
            if let Err(error) = self.build(layer) {
                self.signals.check()?;
                return match self.previous(image) {
                    Some(tag) => self.offer(&tag, error),
                    None => Err(error),
                };
            }
        }
        Ok(image.tag().to_owned())
    }

    /// Asks the registries for newer bases; an unreachable registry is no reason not to work with what is there.
    fn refresh(&self, image: &Image) -> anyhow::Result<()> {
        if self.images.pull == Pull::Missing {
            return Ok(());
        }
        for source in image.layers.iter().flat_map(|layer| &layer.sources) {
            self.signals.check()?;
            let pull = docker::pull(source);
            let status =
                self.docker.foreground(&pull, |child| self.signals.foreground(&child), report::progress)?;
            self.signals.check()?;
            if !status.success() {
                if !self.exists(source)? {
                    return Err(Hinted::error(
                        format!("could not pull the base image `{source}`, and there is no local one"),
                        "check the network, or name a mirror under `[images]` in `~/.config/pi/config.toml`",
                    ));
                }
                report::warn(format_args!("could not pull `{source}`; using the one that is there"));
            }
        }
        Ok(())
    }

    fn exists(&self, tag: &str) -> anyhow::Result<bool> {
        match self.docker.try_run(&docker::image_exists(tag)) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_missing() => Ok(false),
            Err(failure) => Err(failure.explain(&format!("look for the image `{tag}`"))),
        }
    }

    fn build(&self, layer: &Layer) -> anyhow::Result<()> {
        let scratch = Scratch::new(self.host, "build-")?;
        let context = scratch.path().join("context");
        fs::create_dir(&context).with_context(|| format!("could not create `{}`", context.display()))?;
        for (path, bytes) in files(layer.context) {
            write_context_file(&context.join(path), bytes)?;
        }
        write_context_file(&context.join("ca.pem"), self.ca)?;
        let log_path = self.host.state_dir().join("build.log");
        let log = fs::File::create(&log_path)
            .with_context(|| format!("could not create `{}`", log_path.display()))?;
        let kept = Mutex::new((log, Vec::new()));
        let user = self.host.uid.to_string();
        let mut labels: Vec<(&str, &str)> =
            layer.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        labels.push(("pi.user", &user));
        let build = docker::build(&layer.tag, &context, &layer.args, &labels);
        report::note(format_args!("building the image `{}`", layer.tag));
        let status = self.docker.foreground(
            &build,
            |child| self.signals.foreground(&child),
            |bytes| {
                if !report::is_quiet() {
                    report::progress(bytes);
                }
                if let Ok(mut kept) = kept.lock() {
                    // The log is a help, not a promise: a full disk is reported by docker itself.
                    let _ = kept.0.write_all(bytes);
                    kept.1.extend_from_slice(bytes);
                    let surplus = kept.1.len().saturating_sub(16_384);
                    kept.1.drain(..surplus);
                }
            },
        )?;
        if status.success() {
            return Ok(());
        }
        let tail = kept.into_inner().map(|kept| kept.1).unwrap_or_default();
        Err(failed(layer, &String::from_utf8_lossy(&tail), &log_path))
    }

    /// The newest image of the same kind from before a change.
    fn previous(&self, image: &Image) -> Option<String> {
        let list = docker::list_images(&format!("{}:*", image.tag().split(':').next()?), None);
        let kind = image.kind();
        let variant = image.tag().rsplit_once('-').map_or("", |(name, _)| name);
        let tags = self.docker.try_run(&list).ok()?;
        tags.lines()
            .filter(|tag| *tag != image.tag() && tag.starts_with(variant))
            .find(|tag| {
                self.docker.try_run(&docker::image_label(tag, "pi.image")).is_ok_and(|label| label == kind)
            })
            .map(str::to_owned)
    }

    fn offer(&self, tag: &str, error: anyhow::Error) -> anyhow::Result<String> {
        let Host { terminal, .. } = self.host;
        if self.host.var("PI_BOX_PREVIOUS_IMAGE").is_some() {
            report::warn(format_args!("{error:#}"));
            report::warn(format_args!("using the previous image `{tag}`, as `PI_BOX_PREVIOUS_IMAGE` says"));
            return Ok(tag.to_owned());
        }
        if !(terminal.stdin && terminal.stderr) {
            return Err(error.context(format!(
                "the image could not be rebuilt (`PI_BOX_PREVIOUS_IMAGE=1` would use the previous one, `{tag}`)"
            )));
        }
        report::warn(format_args!("{error:#}"));
        if report::ask(&format!(
            "The previous image `{tag}` is still there, built from older files. Use it? [y/N] "
        )) {
            Ok(tag.to_owned())
        } else {
            Err(error)
        }
    }
}

fn write_context_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("could not create `{}`", parent.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("could not write `{}`", path.display()))?;
    // Modes count in docker's cache, so they must not depend on the user's umask.
    let mode = if bytes.starts_with(b"#!") { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("could not write `{}`", path.display()))
}

/// Why a build failed, as docker's output has it.
fn failed(layer: &Layer, output: &str, log: &Path) -> anyhow::Error {
    let lower = output.to_ascii_lowercase();
    let log = log.display();
    if lower.contains("no space left on device") {
        return Hinted::error(
            format!("could not build the image `{}`: the disk is full", layer.tag),
            "`pi clean --images --caches` and `docker system prune` make room",
        );
    }
    let unreachable = [
        "pull access denied",
        "manifest unknown",
        "failed to resolve",
        "failed to do request",
        "error from registry",
        "error pulling image",
        "no such host",
        "get \"https://",
    ];
    let lines: Vec<&str> = output.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).collect();
    let last = lines.last().copied().unwrap_or_default();
    if unreachable.iter().any(|sign| last.to_ascii_lowercase().contains(sign))
        && let Some(source) = layer.sources.first()
    {
        return Hinted::error(
            format!("could not pull the base image `{source}`: {}", last.trim()),
            "check the network, or name a mirror under `[images]` in `~/.config/pi/config.toml`",
        );
    }
    if let Some(said) = lines
        .iter()
        .find(|line| line.contains("Cannot connect to the Docker daemon") || line.contains("daemon socket"))
    {
        return docker::Failure::Refused { code: None, stderr: (*said).to_owned() }
            .explain(&format!("build the image `{}`", layer.tag));
    }
    let tail = lines[lines.len().saturating_sub(8)..].join("\n");
    Hinted::error(
        format!("could not build the image `{}`; the last lines were:\n{tail}", layer.tag),
        format!("the whole log is in `{log}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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

    #[test]
    fn the_newest_php_that_the_project_admits_is_taken() {
        for (constraint, wants) in [
            ("^8.2", 5),
            (">=8.1", 5),
            ("~8.4.0", 4),
            ("8.4.*", 4),
            (">=8.2 <8.5", 4),
            ("^8.4 || ^9.0", 5),
            ("8.4", 4),
            ("*", 5),
            ("<8.5.0", 4),
            ("^7.4", 5),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("composer.json"), format!(r#"{{"require":{{"php":"{constraint}"}}}}"#))
                .unwrap();
            let want = if wants == 5 { Variant::Php85 } else { Variant::Php84 };
            assert_eq!(
                Lang::Auto.variant(dir.path(), dir.path()),
                (want, Some("composer.json")),
                "{constraint}"
            );
        }
    }

    #[test]
    fn go_wins_over_php_and_the_nearer_directory_over_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("web");
        fs::create_dir(&below).unwrap();
        fs::write(dir.path().join("go.mod"), "module x").unwrap();
        fs::write(below.join("composer.json"), "{}").unwrap();
        assert_eq!(Lang::Auto.variant(dir.path(), dir.path()).0, Variant::Go);
        assert_eq!(Lang::Auto.variant(&below, dir.path()).0, Variant::Php85);
    }

    #[test]
    fn a_failed_step_shows_its_last_lines_and_the_log() {
        let images = images();
        let image = Image::proxy(&images, b"");
        let error = failed(
            &image.layers[0],
            "Step 2/9\nE: Unable to locate package nope\nexit 100\n",
            Path::new("/l"),
        );
        assert!(error.to_string().ends_with("E: Unable to locate package nope\nexit 100"), "{error}");
        let error =
            failed(&image.layers[0], "failed to resolve source metadata: no such host\n", Path::new("/l"));
        assert!(
            error.to_string().starts_with("could not pull the base image `debian:trixie-slim`"),
            "{error}"
        );
    }
}
