//! The restricted network's configuration: which files and words make up the allowlist, and what of it the sidecar
//! gets.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    config::Config,
    domain::{self, Allowlist, Problems, Source, upstream::Upstream},
    files::{private_dir, small_bytes},
    host::Host,
    report::{self, Hinted},
    secret::{Secret, Value},
};

/// How messages call the list that holds where there is no file yet.
const BUILT_IN: &str = "the built-in list";

/// What is said below every list with bad entries.
const FORMS: &str = "an entry is `example.com`, `*.example.com` or `host:port`";

const TEMPLATE: &str = include_str!("../proxy/tinyproxy.conf");

/// Where a session's allowlist comes from: its launcher keeps it, so that it can be read again while the session runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sources {
    pub(crate) file: PathBuf,
    /// From `--allow`, and from `pi allow`.
    pub(crate) allow: Vec<String>,
    /// From `lan` in the config.
    pub(crate) lan: Vec<String>,
    /// What the file held when it was read: the agent may be able to write the file itself.
    pub(crate) text: Option<String>,
}

/// What the sidecar reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// A secret where it names the host's own proxy, whose address may hold a password.
    pub(crate) conf: Value,
    pub(crate) filter: String,
    pub(crate) lan: String,
    pub(crate) closed: String,
}

impl Sources {
    /// What this configuration names.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            file: config.allowed_domains.clone(),
            allow: config.allow.clone(),
            lan: config.lan.clone(),
            text: None,
        }
    }

    /// Writes the commented default file where the user has none and has named none.
    ///
    /// # Errors
    /// The user named a file that is not there.
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
                format!("the allowlist `{path}` is a link which leads nowhere"),
                "correct the link, or remove it to have a commented default written",
            ));
        }
        self.write_default().with_context(|| format!("could not write `{path}`"))?;
        report::note(format_args!("wrote a commented allowlist to `{path}`; edit it as you like"));
        Ok(())
    }

    /// Writes the whole file or none: half of it would be a list by which nearly everything is refused.
    fn write_default(&self) -> io::Result<()> {
        let dir = self.file.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::Builder::new()
            .prefix(".proxy_allowed_domains")
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)?;
        file.as_file_mut().write_all(domain::DEFAULT.as_bytes())?;
        // A disk that turns out to be full at a later moment says so here.
        file.as_file().sync_all()?;
        file.persist(&self.file)?;
        Ok(())
    }

    fn missing(&self) -> anyhow::Error {
        Hinted::error(
            format!("there is no allowlist `{}`", self.file.display()),
            "write it, one domain a line; without `--allowed-domains` a commented default is used",
        )
    }

    /// Reads and checks every entry.
    ///
    /// # Errors
    /// All bad entries at once, each with file, line and reason.
    pub(crate) fn read(&mut self, default_if_missing: bool) -> anyhow::Result<Allowlist> {
        let (name, text) = match small_bytes(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && default_if_missing => {
                (BUILT_IN.to_owned(), domain::DEFAULT.as_bytes().to_vec())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.missing()),
            other => (
                self.file.display().to_string(),
                other.with_context(|| format!("could not read the allowlist `{}`", self.file.display()))?,
            ),
        };
        let list = self.parse(&name, &text).map_err(|problems| {
            if problems.are_of_the_command_line() {
                return Hinted::usage_hinted(problems.to_string(), FORMS);
            }
            Hinted::error(format!("the allowlist has entries that cannot be used\n{problems}"), FORMS)
        })?;
        self.text = Some(String::from_utf8_lossy(&text).into_owned());
        Ok(list)
    }

    /// Reads the file once more, for a session that has begun with it.
    ///
    /// # Errors
    /// It is gone or has bad entries: then the session keeps its list.
    pub(crate) fn reread(&mut self) -> anyhow::Result<Allowlist> {
        let path = self.file.display();
        let text = match small_bytes(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Hinted::error(
                    format!("the allowlist `{path}` is gone; the session keeps what it held"),
                    "write the file again and then `pi allow`, or name entries with `pi allow DOMAIN`",
                ));
            }
            other => other.with_context(|| format!("could not read the allowlist `{path}`"))?,
        };
        let list = self.parse(&path.to_string(), &text).map_err(|problems| {
            Hinted::error(
                format!("the allowlist has entries that cannot be used\n{problems}"),
                format!("{FORMS}; until they are corrected, the session keeps the list that it has"),
            )
        })?;
        self.text = Some(String::from_utf8_lossy(&text).into_owned());
        Ok(list)
    }

    /// Checks every entry of what was read before.
    pub(crate) fn again(&self) -> anyhow::Result<Allowlist> {
        let name = self.file.display().to_string();
        Ok(self.parse(&name, self.text.as_deref().unwrap_or_default().as_bytes())?)
    }

    fn parse(&self, name: &str, text: &[u8]) -> Result<Allowlist, Problems> {
        let mut sources = vec![Source::File { name, text }];
        sources.extend(self.allow.iter().map(|text| Source::Option(text)));
        sources.extend(self.lan.iter().map(|text| Source::Lan(text)));
        Allowlist::read(&sources)
    }
}

/// Renders an allowlist for the sidecar, behind the host's own proxy where it has one.
pub(crate) fn render(list: &Allowlist, host: &Host) -> anyhow::Result<Rendered> {
    let upstream = upstream(host)?;
    let lan = list.lan() + &upstream.as_ref().map(Upstream::lan).unwrap_or_default();
    let conf = domain::upstream::conf(TEMPLATE, list, upstream.as_ref());
    let conf = if upstream.is_some() { Value::Secret(Secret::new(conf.into())) } else { Value::Plain(conf) };
    let closed =
        host.addresses.iter().fold(String::new(), |lines, address| lines + &address.to_string() + "\n");
    Ok(Rendered { closed, conf, filter: list.filter(), lan })
}

fn upstream(host: &Host) -> anyhow::Result<Option<Upstream>> {
    let var = |name: &str| host.var(&name.to_ascii_lowercase()).or_else(|| host.var(name));
    let Some(proxy) = var("HTTPS_PROXY") else { return Ok(None) };
    Upstream::parse(proxy, var("NO_PROXY").unwrap_or_default())
        .map(Some)
        .map_err(|why| anyhow::anyhow!("the proxy that `HTTPS_PROXY` names cannot be used: {why}"))
}
