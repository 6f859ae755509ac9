//! The restricted network's configuration: the sources of the allowlist, and the sidecar's files.

mod told;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

pub(crate) use self::told::{Brokered, Told};
use crate::{
    config::Config,
    domain::{self, Allowlist, Problems, Source, upstream::Upstream},
    files::{private_dir, small_bytes},
    host::Host,
    report::{self, Hinted},
    secret::{Secret, Value},
};

/// The name of the default list in messages, before there is a file.
const BUILT_IN: &str = "the built-in list";

/// The hint for a list with bad entries.
const FORMS: &str = "an entry is `example.com`, `*.example.com` or `host:port`";

const TEMPLATE: &str = include_str!("../proxy/tinyproxy.conf");

/// The sources of a session's allowlist. The launcher keeps them, to read the list again while the session runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sources {
    pub(crate) file: PathBuf,
    /// From `--allow`, and from `pi allow`.
    pub(crate) allow: Vec<String>,
    /// From `lan` in the config.
    pub(crate) lan: Vec<String>,
    /// Whether every public name is admitted, to learn which ones are needed.
    pub(crate) learns: bool,
    /// Names for which nobody but the broker may ask.
    pub(crate) brokered: BTreeSet<String>,
    /// The text of the file when it was read. Later the agent may have changed the file.
    pub(crate) text: Option<String>,
}

/// What the sidecar is told of an allowlist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Rendered {
    /// A secret if it has the address of the host's own proxy, which may hold a password.
    pub(crate) conf: Value,
    pub(crate) filter: String,
    pub(crate) lan: String,
}

/// The sidecar takes no longer file, in bytes.
const LONGEST_FILE: usize = 2 << 20;

impl Rendered {
    /// The files that change with the rules.
    fn rules(&self) -> [(&'static str, &[u8]); 2] {
        [("tinyproxy.conf", self.conf.bytes()), ("filter", self.filter.as_bytes())]
    }

    /// The rules, as a running sidecar reads them.
    pub(crate) fn new_rules(&self) -> Vec<u8> {
        words(&self.rules(), "apply")
    }
}

/// For each file `file NAME LENGTH` and its bytes, then a word.
fn words(files: &[(&str, &[u8])], word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, text) in files {
        bytes.extend(format!("file {name} {}\n", text.len()).bytes());
        bytes.extend_from_slice(text);
    }
    bytes.extend(format!("{word}\n").bytes());
    bytes
}

impl Sources {
    /// The sources that this configuration names.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            file: config.allowed_domains.clone(),
            allow: config.allow.clone(),
            lan: config.lan.clone(),
            learns: config.learns,
            brokered: BTreeSet::new(),
            text: None,
        }
    }

    /// Writes the commented default file if the user has none and named none. It fails if the user named a missing
    /// file.
    pub(crate) fn provide_file(&self, config: &Config) -> anyhow::Result<()> {
        if self.file.exists() {
            return Ok(());
        }
        let path = self.file.display();
        if !config.allowed_domains_is_default || self.file != config.allowed_domains {
            return Err(self.missing());
        }
        if let Some(dir) = self.file.parent() {
            private_dir(dir)?;
        }
        if self.file.is_symlink() {
            return Err(Hinted::error(
                format!("the allowlist `{path}` is a link to a missing file"),
                "correct the link, or remove it: then `pi` writes a commented default",
            ));
        }
        self.write_default().with_context(|| format!("could not write `{path}`"))?;
        report::note(format_args!("wrote a commented allowlist to `{path}`; edit it as you like"));
        Ok(())
    }

    /// Writes the whole file or nothing: half a list would refuse nearly everything.
    fn write_default(&self) -> io::Result<()> {
        let dir = self.file.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::Builder::new()
            .prefix(".proxy_allowed_domains")
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)?;
        file.as_file_mut().write_all(domain::DEFAULT.as_bytes())?;
        // Some disks report only here that they are full.
        file.as_file().sync_all()?;
        file.persist(&self.file)?;
        Ok(())
    }

    fn missing(&self) -> anyhow::Error {
        Hinted::error(
            format!("there is no allowlist `{}`", self.file.display()),
            "write it with one domain a line; without `--allowed-domains`, `pi` uses a commented default",
        )
    }

    /// Reads and checks every entry. The error names all bad entries, each with file, line and reason.
    pub(crate) fn read(&mut self, default_if_missing: bool) -> anyhow::Result<Allowlist> {
        let path = self.file.display().to_string();
        let (name, text) = match self.text()? {
            Some(text) => (path.as_str(), text),
            None if default_if_missing => (BUILT_IN, domain::DEFAULT.as_bytes().to_vec()),
            None => return Err(self.missing()),
        };
        self.keep(name, &text, |problems| {
            if problems.are_of_the_command_line() {
                return Hinted::usage_hinted(problems.to_string(), FORMS);
            }
            Hinted::error(format!("the allowlist has entries that cannot be used\n{problems}"), FORMS)
        })
    }

    /// Reads the file again while the session runs. If it is gone or has bad entries, the session keeps its list.
    pub(crate) fn reread(&mut self) -> anyhow::Result<Allowlist> {
        let path = self.file.display().to_string();
        let text = self.text()?.ok_or_else(|| {
            Hinted::error(
                format!("the allowlist `{path}` is gone; the session keeps its entries"),
                "write the file again and run `pi allow`, or name entries with `pi allow DOMAIN`",
            )
        })?;
        self.keep(&path, &text, |problems| {
            Hinted::error(
                format!("the allowlist has entries that cannot be used\n{problems}"),
                format!("{FORMS}; the session keeps its list until you correct them"),
            )
        })
    }

    /// The bytes of the file, unless there is none.
    fn text(&self) -> anyhow::Result<Option<Vec<u8>>> {
        match small_bytes(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other
                .map(Some)
                .with_context(|| format!("could not read the allowlist `{}`", self.file.display())),
        }
    }

    fn keep(
        &mut self,
        name: &str,
        text: &[u8],
        explain: impl FnOnce(Problems) -> anyhow::Error,
    ) -> anyhow::Result<Allowlist> {
        let list = self.parse(name, text).map_err(explain)?;
        self.text = Some(String::from_utf8_lossy(text).into_owned());
        Ok(list)
    }

    /// Checks every entry of the text that was read before.
    pub(crate) fn again(&self) -> anyhow::Result<Allowlist> {
        let name = self.file.display().to_string();
        Ok(self.parse(&name, self.text.as_deref().unwrap_or_default().as_bytes())?)
    }

    fn parse(&self, name: &str, text: &[u8]) -> Result<Allowlist, Problems> {
        let mut sources = vec![Source::File { name, text }];
        sources.extend(self.allow.iter().map(|text| Source::Option(text)));
        sources.extend(self.lan.iter().map(|text| Source::Lan(text)));
        let list = Allowlist::read(&sources)?;
        Ok(if self.learns { list.learning() } else { list })
    }
}

/// Renders an allowlist for the sidecar, which uses the host's own proxy if there is one. For the names in `closed` it asks
/// nobody.
pub(crate) fn render(list: &Allowlist, host: &Host, closed: &BTreeSet<String>) -> anyhow::Result<Rendered> {
    let upstream = upstream(host)?;
    let lan = list.lan() + &upstream.as_ref().map(Upstream::lan).unwrap_or_default();
    let conf = domain::upstream::conf(TEMPLATE, list, upstream.as_ref(), closed);
    let conf = if upstream.is_some() { Value::Secret(Secret::new(conf.into())) } else { Value::Plain(conf) };
    let rendered = Rendered { conf, filter: list.filter(), lan };
    if rendered.rules().iter().any(|(_, text)| text.len() > LONGEST_FILE) || rendered.lan.len() > LONGEST_FILE
    {
        return Err(Hinted::error(
            "the allowlist is too long: the proxy takes no more than 2 MiB of it",
            "name whole zones, such as `*.example.com`, instead of every host",
        ));
    }
    Ok(rendered)
}

/// The proxy that this machine uses itself.
///
/// # Errors
/// It is of a kind that cannot be used here.
pub(crate) fn upstream(host: &Host) -> anyhow::Result<Option<Upstream>> {
    let var = |name: &str| host.var(&name.to_ascii_lowercase()).or_else(|| host.var(name));
    let Some(proxy) = var("HTTPS_PROXY") else { return Ok(None) };
    let direct = var("NO_PROXY").unwrap_or_default();
    if direct.split([',', ' ']).any(|name| name == "*") {
        return Ok(None);
    }
    Upstream::parse(proxy, direct)
        .map(Some)
        .map_err(|why| anyhow::anyhow!("cannot use the proxy in `HTTPS_PROXY`: {why}"))
}
