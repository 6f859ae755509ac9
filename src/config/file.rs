//! What a file of settings may say, and where in it something else stands.

use std::{fs, io, net::IpAddr, ops::Range, path::Path};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{
    AgentDir, MountSpec, Pull,
    value::{PROCESSORS, Relative, absolute, package, processes, size, variable},
};
use crate::{
    domain::{Allowlist, Source},
    files::read_small,
    image::variant::Lang,
    report::Hinted,
};

/// Values which are checked after the file was read, and are then named by their place in it.
pub(super) type Values = Option<Vec<Spanned<String>>>;

/// One file of settings: whatever it does not say is left to the layer below.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layer {
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
    pub(super) runtime: Option<String>,
    pub(super) agent_dir: Option<AgentDir>,
    pub(super) docker: Option<String>,
    #[serde(default)]
    pub(super) images: ImagesLayer,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImagesLayer {
    pub(super) base: Option<String>,
    pub(super) go: Option<String>,
    pub(super) proxy: Option<String>,
    pub(super) php_apt: Option<String>,
    pub(super) agent_package: Option<String>,
    pub(super) agent_version: Option<String>,
    pub(super) acli: Option<bool>,
    pub(super) ca_certificates: Option<Spanned<String>>,
    pub(super) pull: Option<Pull>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Cpus(pub(super) Option<f64>);

pub(super) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("could not read `{}`", path.display())),
    }
}

pub(super) fn layer(path: &Path, text: &str) -> anyhow::Result<Layer> {
    let layer: Layer = toml::from_str(text).map_err(|error| located(path, text, &error))?;
    check(&layer).map_err(|(span, error)| {
        Hinted::error(
            format!("{}:{}: {error}", path.display(), line_of(text, &span)),
            match error.downcast_ref::<Relative>() {
                Some(_) => "begin it with `/` or `~/`",
                None => WHAT_IS_ALLOWED,
            },
        )
    })?;
    Ok(layer)
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
    if let Some(pids) = &layer.pids {
        processes(*pids.get_ref()).map_err(|error| (pids.span(), error))?;
    }
    each(&layer.mounts, |text| MountSpec::split(text).and_then(|(source, _, _)| absolute(source)))?;
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

const WHAT_IS_ALLOWED: &str =
    "the commented default is `assets/config.toml` of the project, and `pi --help` names the keys";

fn line_of(text: &str, span: &Range<usize>) -> usize {
    1 + text[..span.start.min(text.len())].matches('\n').count()
}

fn located(path: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let line = error.span().map_or(1, |span| line_of(text, &span));
    let message = error.message().trim().replace('\n', "; ");
    Hinted::error(format!("{}:{line}: {message}", path.display()), WHAT_IS_ALLOWED)
}

/// Reads the one key that a repository may set. It is written by whoever writes the repository, the agent included,
/// so it has no struct with more keys that could be filled by mistake.
pub(super) fn project_lang(path: &Path) -> anyhow::Result<Option<Lang>> {
    let Some(text) = read_small(path)? else { return Ok(None) };
    let table: toml::Table = toml::from_str(&text).map_err(|error| located(path, &text, &error))?;
    if let Some(key) = table.keys().find(|key| *key != "lang") {
        let line = 1 + text
            .lines()
            .take_while(|line| !line.trim_start().trim_start_matches('[').starts_with(key))
            .count();
        return Err(Hinted::error(
            format!("{}:{line}: a repository may set `lang` and nothing else, not `{key}`", path.display()),
            format!("`{key}` belongs in your own `~/.config/pi/config.toml`"),
        ));
    }
    let project: Project = toml::from_str(&text).map_err(|error| located(path, &text, &error))?;
    Ok(project.lang)
}

#[derive(Deserialize)]
struct Project {
    lang: Option<Lang>,
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
        _ => Err(serde::de::Error::custom("`cpus` is a number of processors, or \"\" for the default")),
    }
}
