//! What a file of settings may say.

use std::{io, net::IpAddr, ops::Range, path::Path};

use anyhow::{Context as _, anyhow, bail};
use serde::{
    Deserialize, Deserializer,
    de::{IntoDeserializer as _, value::StringDeserializer},
};
use toml::{Spanned, de::DeTable};

use super::{
    AgentDir, DEFAULTS, MountSpec, Pull,
    place::{A_SETTING, Place, line_of},
    value::{
        PROCESSORS, Relative, absolute, apt_source, image, npm_package, npm_version, package, processes,
        runtime, size, variable,
    },
};
use crate::{
    domain::{Allowlist, Source},
    files::{read_small, small_bytes},
    lang::Lang,
    report::{self, Hinted},
};

/// Values which are checked after the file was read, and are then named by their place in it.
pub(super) type Values = Option<Vec<Spanned<String>>>;

/// One file of settings: whatever it does not say is left to the layer below.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layer {
    #[serde(default, deserialize_with = "choice")]
    pub(super) lang: Option<Lang>,
    pub(super) proxy: Option<bool>,
    pub(super) allowed_domains: Option<Spanned<String>>,
    pub(super) lan: Values,
    pub(super) dns: Values,
    pub(super) mounts: Values,
    pub(super) env: Values,
    pub(super) packages: Values,
    #[serde(default, deserialize_with = "memory")]
    pub(super) memory: Option<String>,
    #[serde(default, deserialize_with = "cpus")]
    pub(super) cpus: Option<Cpus>,
    pub(super) pids: Option<Spanned<u32>>,
    pub(super) runtime: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "choice")]
    pub(super) agent_dir: Option<AgentDir>,
    pub(super) docker: Option<String>,
    #[serde(default)]
    pub(super) images: ImagesLayer,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImagesLayer {
    pub(super) base: Option<Spanned<String>>,
    pub(super) go: Option<Spanned<String>>,
    pub(super) proxy: Option<Spanned<String>>,
    pub(super) php_apt: Option<Spanned<String>>,
    pub(super) agent_package: Option<Spanned<String>>,
    pub(super) agent_version: Option<Spanned<String>>,
    pub(super) acli: Option<bool>,
    pub(super) ca_certificates: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "choice")]
    pub(super) pull: Option<Pull>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Cpus(pub(super) Option<f64>);

pub(super) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let bytes = match small_bytes(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("could not read `{}`", path.display())),
    };
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        anyhow!("{}:{line}: it is not valid UTF-8", path.display())
    })
}

pub(super) fn layer(path: &Path, text: &str) -> anyhow::Result<Layer> {
    let place = |span: &Range<usize>| Place::of(text, span);
    let at = |span: &Range<usize>| format!("{}:{}", path.display(), line_of(text, span));
    let layer: Layer = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let said = said(&error);
        match place(&span) {
            Place::Value(key) => Hinted::error(format!("{}: `{key}`: {said}", at(&span)), A_SETTING),
            Place::Key(key) => match key.nearest() {
                Some(near) => Hinted::error(format!("{}: {said}", at(&span)), near),
                None => anyhow!("{}: {said}", at(&span)),
            },
            Place::Nowhere => Hinted::error(format!("{}: {said}", at(&span)), A_SETTING),
        }
    })?;
    check(&layer).map_err(|(span, error)| {
        let hint = if error.is::<Relative>() { "begin it with `/` or `~/`" } else { A_SETTING };
        Hinted::error(format!("{}: {error}", at(&span)), hint)
    })?;
    Ok(layer)
}

/// What the parser says, in words for people who do not write Rust.
fn said(error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', "; ");
    [
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected a boolean", "expected `true` or `false`"),
        ("expected a sequence", "expected a list"),
        ("expected struct ImagesLayer", "expected a section `[images]`"),
    ]
    .iter()
    .fold(message, |message, (theirs, ours)| message.replace(theirs, ours))
}

/// What the types cannot say of a file's values; the place of the first bad one.
fn check(layer: &Layer) -> Result<(), (Range<usize>, anyhow::Error)> {
    let each = |values: &Values, rule: fn(&str) -> anyhow::Result<()>| {
        let mut values = values.iter().flatten();
        values.try_for_each(|value| rule(value.get_ref()).map_err(|error| (value.span(), error)))
    };
    let paths = [&layer.allowed_domains, &layer.images.ca_certificates];
    for path in paths.into_iter().flatten().filter(|path| !path.get_ref().is_empty()) {
        absolute(path.get_ref()).map_err(|error| (path.span(), error))?;
    }
    let images = &layer.images;
    let one = |value: &Option<Spanned<String>>, rule: fn(&str) -> anyhow::Result<()>| {
        value.iter().try_for_each(|value| rule(value.get_ref()).map_err(|error| (value.span(), error)))
    };
    one(&layer.runtime, |name| if name.is_empty() { Ok(()) } else { runtime(name) })?;
    for name in [&images.base, &images.go, &images.proxy] {
        one(name, image)?;
    }
    one(&images.php_apt, apt_source)?;
    one(&images.agent_package, npm_package)?;
    one(&images.agent_version, npm_version)?;
    if let Some(pids) = &layer.pids {
        processes(*pids.get_ref()).map_err(|error| (pids.span(), error))?;
    }
    each(&layer.mounts, |text| MountSpec::split(text).and_then(|(source, _, _)| absolute(&source)))?;
    each(&layer.env, |text| variable(text.split_once('=').map_or(text, |(name, _)| name)))?;
    each(&layer.packages, package)?;
    each(&layer.dns, |text| match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => bail!("`{}` is not the address of a resolver", text.escape_debug()),
    })?;
    each(&layer.lan, |text| match Allowlist::read(&[Source::Lan(text)]) {
        Ok(_) => Ok(()),
        Err(problems) => bail!("{problems}"),
    })
}

/// Reads the one key that a repository may set. It is written by whoever writes the repository, the agent included,
/// so it has no struct with more keys that could be filled by mistake. `config` is the user's own file.
pub(super) fn project_lang(path: &Path, config: &Path) -> anyhow::Result<Option<Lang>> {
    let Some(text) = read_small(path)? else { return Ok(None) };
    let at = |span: &Range<usize>| format!("{}:{}", path.display(), line_of(&text, span));
    let located = |error: toml::de::Error| {
        let span = error.span().unwrap_or_default();
        let key = if matches!(Place::of(&text, &span), Place::Value(_)) { "`lang`: " } else { "" };
        Hinted::error(format!("{}: {key}{}", at(&span), said(&error)), A_REPOSITORYS)
    };
    let table = DeTable::parse(&text).map_err(located)?;
    let other =
        table.get_ref().keys().filter(|key| key.get_ref() != "lang").min_by_key(|key| key.span().start);
    if let Some(key) = other {
        let (defaults, _) = DeTable::parse_recoverable(DEFAULTS);
        let name = report::one_line(key.get_ref());
        return Err(Hinted::error(
            format!("{}: a repository may set `lang` and nothing else, not `{name}`", at(&key.span())),
            if defaults.get_ref().contains_key(key.get_ref().as_ref()) {
                format!("`{name}` belongs in your own `{}`", config.display())
            } else {
                A_REPOSITORYS.to_owned()
            },
        ));
    }
    let project: Project = toml::from_str(&text).map_err(located)?;
    Ok(project.lang)
}

const A_REPOSITORYS: &str =
    "a repository may set `lang` to one of \"base\", \"go\", \"php\", \"php8.4\", \"php8.5\" and \"auto\"";

#[derive(Deserialize)]
struct Project {
    #[serde(default, deserialize_with = "choice")]
    lang: Option<Lang>,
}

/// One of a few words; anything else than text is told as that.
fn choice<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let word: StringDeserializer<D::Error> = String::deserialize(from)?.into_deserializer();
    T::deserialize(word).map(Some)
}

fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    size(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

fn cpus<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cpus>, D::Error> {
    match toml::Value::deserialize(from)? {
        toml::Value::String(text) if text.is_empty() => Ok(Some(Cpus(None))),
        #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
        toml::Value::Integer(n) if (0..=10_000).contains(&n) => Ok(Some(Cpus(Some(n as f64)))),
        toml::Value::Float(n) if n == 0.0 || PROCESSORS.contains(&n) => Ok(Some(Cpus(Some(n)))),
        _ => Err(serde::de::Error::custom("it is a number of processors, or \"\" for the default")),
    }
}
