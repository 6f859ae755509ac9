//! Reads and checks a settings file.

use std::{collections::BTreeSet, io::ErrorKind, net::IpAddr, ops::Range, path::Path};

use anyhow::{Context as _, anyhow, bail};
use serde::{
    Deserialize, Deserializer,
    de::{IntoDeserializer as _, value::StringDeserializer},
};
use toml::{Spanned, de::DeTable};

use super::{
    DEFAULTS, GitAccess, GitHubToken, Keys, MinFree, MountSpec, OpenUrls, Pattern, Pull, WipeAuth,
    place::{A_SETTING, Place, line_of},
    subagents::{Switch, switch},
    value::{
        PROCESSORS, absolute, apt_source, image, npm_package, npm_version, package, processes, registry,
        room, runtime, size, variable,
    },
};
use crate::{
    agent_dir::entry::Persist,
    broker::github::Repository,
    domain::{Allowlist, Source},
    files::{read_plain, read_small_bytes},
    lang::Lang,
    report::{self, Hinted},
};

/// Values with their place in the file: they are checked after parsing.
pub(super) type Values = Option<Vec<Spanned<String>>>;

/// One settings file. The layer below fills in what is missing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layer {
    #[serde(default, deserialize_with = "choice")]
    pub(super) lang: Option<Lang>,
    pub(super) proxy: Option<bool>,
    pub(super) strict: Option<bool>,
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
    #[serde(default, deserialize_with = "disk")]
    pub(super) disk: Option<String>,
    #[serde(default, deserialize_with = "min_free")]
    pub(super) min_free: Option<MinFree>,
    pub(super) pids: Option<Spanned<u32>>,
    pub(super) runtime: Option<Spanned<String>>,
    pub(super) persist: Values,
    #[serde(default, deserialize_with = "keys")]
    pub(super) keys: Option<Keys>,
    pub(super) github: Values,
    #[serde(default, deserialize_with = "choice")]
    pub(super) github_token: Option<GitHubToken>,
    pub(super) github_push: Option<bool>,
    #[serde(default, deserialize_with = "choice")]
    pub(super) git: Option<GitAccess>,
    #[serde(default, deserialize_with = "wipe_auth")]
    pub(super) wipe_auth: Option<WipeAuth>,
    #[serde(default, deserialize_with = "choice")]
    pub(super) open_urls: Option<OpenUrls>,
    pub(super) hide: Values,
    pub(super) copy_ignored: Values,
    /// Older releases had this; it is refused with what to use.
    agent_dir: Option<Spanned<toml::Value>>,
    pub(super) on: Option<String>,
    pub(super) docker: Option<String>,
    /// `false`, or a section.
    #[serde(default, deserialize_with = "switch")]
    pub(super) subagents: Option<Switch>,
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
    #[serde(default, deserialize_with = "acli")]
    pub(super) acli: Option<Acli>,
    pub(super) ca_certificates: Option<Spanned<String>>,
    pub(super) check_agent: Option<bool>,
    pub(super) registry: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "choice")]
    pub(super) pull: Option<Pull>,
}

/// Where Atlassian's command line tool comes from, if it is wanted.
#[derive(Debug, Clone)]
pub(super) struct Acli(pub(super) Option<String>);

/// Where its vendor publishes it.
const ATLASSIAN: &str = "https://acli.atlassian.com/linux/latest/acli_linux_{arch}/acli";

#[derive(Debug, Clone, Copy)]
pub(super) struct Cpus(pub(super) Option<f64>);

pub(super) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let Some(bytes) = read_small_bytes(path)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        anyhow!("{}:{line}: it is not valid UTF-8", path.display())
    })
}

pub(super) fn layer(path: &Path, text: &str) -> anyhow::Result<Layer> {
    let at = |span: &Range<usize>| format!("{}:{}", path.display(), line_of(text, span));
    let layer: Layer = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let (at, said) = (at(&span), said(&error));
        match Place::of(text, &span) {
            Place::Value(key) => Hinted::error(format!("{at}: `{key}`: {said}"), A_SETTING),
            Place::Key(key) => match key.nearest() {
                Some(near) => Hinted::error(format!("{at}: {said}"), near),
                None => anyhow!("{at}: {said}"),
            },
            Place::Nowhere => Hinted::error(format!("{at}: {said}"), A_SETTING),
        }
    })?;
    check(&layer).map_err(|(span, error)| {
        let hint = error.downcast_ref().and_then(Hinted::hint).unwrap_or(A_SETTING);
        Hinted::error(format!("{}: {error}", at(&span)), hint)
    })?;
    Ok(layer)
}

/// The parser's message, in words for people who do not write Rust.
fn said(error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', "; ");
    [
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected a boolean", "expected `true` or `false`"),
        ("expected a sequence", "expected a list"),
        ("expected struct ImagesLayer", "expected a section `[images]`"),
        ("expected struct SubagentsLayer", "expected a section `[subagents]`"),
    ]
    .iter()
    .fold(message, |message, (theirs, ours)| message.replace(theirs, ours))
}

/// Checks the values that the types do not. The error has the place of the first bad one.
fn check(layer: &Layer) -> Result<(), (Range<usize>, anyhow::Error)> {
    if let Some(old) = &layer.agent_dir {
        let error = Hinted::error(
            "there is no `agent_dir` any more: no session writes `~/.pi/agent` itself",
            "remove it; `persist = [\"NAME\"]` names entries of `~/.pi/agent` that sessions may write",
        );
        return Err((old.span(), error));
    }
    each(layer.persist.iter().flatten(), |name| Persist::parse(name).map(drop))?;
    each(layer.hide.iter().chain(&layer.copy_ignored).flatten(), |text| Pattern::parse(text).map(drop))?;
    let images = &layer.images;
    let given = |value: &&Spanned<String>| !value.get_ref().is_empty();
    each([&layer.allowed_domains, &images.ca_certificates].into_iter().flatten().filter(given), absolute)?;
    each(layer.runtime.iter().filter(given), runtime)?;
    each([&images.base, &images.go, &images.proxy].into_iter().flatten(), image)?;
    each(images.registry.iter().filter(given), registry)?;
    each(&images.php_apt, apt_source)?;
    each(&images.agent_package, npm_package)?;
    each(&images.agent_version, npm_version)?;
    if let Some(pids) = &layer.pids {
        processes(*pids.get_ref()).map_err(|error| (pids.span(), error))?;
    }
    each(layer.mounts.iter().flatten(), |text| {
        MountSpec::split(text).and_then(|(source, _, _)| absolute(&source))
    })?;
    each(layer.env.iter().flatten(), |text| variable(text.split('=').next().unwrap_or(text)))?;
    each(layer.packages.iter().flatten(), package)?;
    each(layer.github.iter().flatten(), |text| match Repository::parse(text) {
        Some(_) => Ok(()),
        None => bail!("`{}` is not a repository on GitHub, `owner/name`", text.escape_debug()),
    })?;
    each(layer.dns.iter().flatten(), |text| match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => bail!("`{}` is not the IP address of a DNS server", text.escape_debug()),
    })?;
    each(layer.lan.iter().flatten(), |text| Ok(Allowlist::read(&[Source::Lan(text)]).map(drop)?))
}

fn each<'a>(
    values: impl IntoIterator<Item = &'a Spanned<String>>,
    rule: fn(&str) -> anyhow::Result<()>,
) -> Result<(), (Range<usize>, anyhow::Error)> {
    values.into_iter().try_for_each(|value| rule(value.get_ref()).map_err(|error| (value.span(), error)))
}

/// Reads the one key that a repository may set. Agents can write this file, so no struct has room for more keys.
/// `config` is the user's own file, for the hint.
pub(super) fn project_lang(path: &Path, config: &Path) -> anyhow::Result<Option<Lang>> {
    if let Some(link) = path.ancestors().take(2).find(|path| path.is_symlink()) {
        return Err(Hinted::error(
            format!("`{}` is a link, and a repository's settings are no link", link.display()),
            A_REPOSITORYS,
        ));
    }
    let text = match read_plain(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("could not read `{}`", path.display())),
    };
    let at = |span: &Range<usize>| format!("{}:{}", path.display(), line_of(&text, span));
    let located = |error: toml::de::Error| {
        let span = error.span().unwrap_or_default();
        let key = if matches!(Place::of(&text, &span), Place::Value(_)) { "`lang`: " } else { "" };
        Hinted::error(format!("{}: {key}{}", at(&span), report::short(&said(&error))), A_REPOSITORYS)
    };
    let table = DeTable::parse(&text).map_err(located)?;
    let other =
        table.get_ref().keys().filter(|key| key.get_ref() != "lang").min_by_key(|key| key.span().start);
    if let Some(key) = other {
        let (defaults, _) = DeTable::parse_recoverable(DEFAULTS);
        let name = report::short(key.get_ref());
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

/// One of a few words. A value that is not text is reported as such.
fn choice<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let word: StringDeserializer<D::Error> = String::deserialize(from)?.into_deserializer();
    T::deserialize(word).map(Some)
}

fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Keys>, D::Error> {
    let is_inside = |value: &toml::Value| match value.as_str() {
        Some("broker") => Ok(false),
        Some("env") => Ok(true),
        _ => {
            Err(serde::de::Error::custom("expected \"broker\" or \"env\", or one of them for each provider"))
        }
    };
    match toml::Value::deserialize(from)? {
        toml::Value::Table(table) => {
            let mut inside = BTreeSet::new();
            for (provider, value) in table {
                if is_inside(&value)? {
                    inside.insert(provider);
                }
            }
            Ok(Some(Keys::Broker { inside }))
        }
        value if is_inside(&value)? => Ok(Some(Keys::Env)),
        _ => Ok(Some(Keys::default())),
    }
}

fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    size(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

fn disk<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    room(&text).map(Some).map_err(serde::de::Error::custom)
}

fn min_free<'de, D: Deserializer<'de>>(from: D) -> Result<Option<MinFree>, D::Error> {
    MinFree::parse(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

fn wipe_auth<'de, D: Deserializer<'de>>(from: D) -> Result<Option<WipeAuth>, D::Error> {
    match toml::Value::deserialize(from)? {
        toml::Value::Boolean(false) => Ok(Some(WipeAuth::Never)),
        toml::Value::Boolean(true) => Ok(Some(WipeAuth::Logins)),
        toml::Value::String(text) if text == "all" => Ok(Some(WipeAuth::All)),
        _ => Err(serde::de::Error::custom("expected `true`, `false` or \"all\"")),
    }
}

fn acli<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Acli>, D::Error> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/{}%@+".contains(c);
    match toml::Value::deserialize(from)? {
        toml::Value::Boolean(wanted) => Ok(Some(Acli(wanted.then(|| ATLASSIAN.to_owned())))),
        toml::Value::String(url)
            if ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
                && url.chars().all(is_plain) =>
        {
            Ok(Some(Acli(Some(url))))
        }
        _ => {
            Err(serde::de::Error::custom("expected `true`, `false` or the address of a program, `https://…`"))
        }
    }
}

fn cpus<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cpus>, D::Error> {
    match toml::Value::deserialize(from)? {
        toml::Value::String(text) if text.is_empty() => Ok(Some(Cpus(None))),
        #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
        toml::Value::Integer(n) if (0..=10_000).contains(&n) => Ok(Some(Cpus(Some(n as f64)))),
        toml::Value::Float(n) if n == 0.0 || PROCESSORS.contains(&n) => Ok(Some(Cpus(Some(n)))),
        _ => Err(serde::de::Error::custom("expected a number of processors, or \"\" for the default")),
    }
}
