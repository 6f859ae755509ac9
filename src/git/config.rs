//! A repository's config, and what of it goes into the box.

use std::{path::Path, time::Duration};

use anyhow::Context as _;

use super::command::Git;
use crate::{files::read_small_bytes, host::Host};

/// How long git may take to read the user's own settings.
const PATIENCE: Duration = Duration::from_secs(2);

/// A config as git reads it: names in lower case but for their middle, in order, one name any number of times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(super) entries: Vec<(String, Option<String>)>,
}

/// What changes how files, commits and names are read or written, and who makes them. Programs, credentials and other
/// files are not among it.
const PLAIN: [&str; 59] = [
    "core.repositoryformatversion", "core.filemode", "core.bare", "core.symlinks", "core.ignorecase",
    "core.precomposeunicode", "core.protecthfs", "core.protectntfs", "core.trustctime", "core.checkstat",
    "core.logallrefupdates", "core.autocrlf", "core.eol", "core.safecrlf", "core.quotepath", "core.abbrev",
    "core.whitespace", "core.commentchar", "core.commentstring", "core.sparsecheckout",
    "core.sparsecheckoutcone", "core.worktree", "core.bigfilethreshold", "core.untrackedcache",
    "core.preloadindex", "core.sharedrepository", "index.sparse", "index.version", "index.skiphash",
    "feature.manyfiles", "extensions.objectformat", "extensions.partialclone", "extensions.noop",
    "extensions.preciousobjects", "user.name", "user.email", "author.name", "author.email", "committer.name",
    "committer.email", "user.useconfigonly", "init.defaultbranch", "merge.conflictstyle", "merge.ff",
    "merge.renames", "diff.algorithm", "diff.renames", "diff.mnemonicprefix", "pull.rebase", "pull.ff",
    "push.default", "push.autosetupremote", "push.followtags", "fetch.prune", "rebase.autosquash",
    "rebase.autostash", "rebase.updaterefs", "i18n.commitencoding", "i18n.logoutputencoding",
];

/// The same with a name in their middle.
const NAMED: [(&str, &[&str]); 3] = [
    (
        "remote",
        &["url", "pushurl", "fetch", "push", "tagopt", "prune", "promisor", "partialclonefilter", "mirror"],
    ),
    ("branch", &["remote", "merge", "rebase", "pushremote", "description", "mergeoptions"]),
    ("submodule", &["url", "active", "branch", "ignore", "fetchrecursesubmodules"]),
];

/// Extensions of the format that a private directory takes over, or has no need of.
const EXTENSIONS: [&str; 7] = [
    "extensions.objectformat", "extensions.partialclone", "extensions.noop", "extensions.preciousobjects",
    // References, the work tree's config and the links between work trees are laid out anew.
    "extensions.refstorage", "extensions.worktreeconfig", "extensions.relativeworktrees",
];

impl Config {
    /// Reads a config file without what it includes: what a repository says must not make git read elsewhere.
    ///
    /// # Errors
    /// It is no small file, or git does not understand it.
    pub(crate) fn read(git: &Git, file: &Path) -> anyhow::Result<Self> {
        let Some(text) = read_small_bytes(file)? else { return Ok(Self::default()) };
        let list = git
            .at(Path::new("/dev/null"))
            .args(["config", "--null", "--no-includes", "--file", "-", "--list"])
            .stdin(text)
            .run()
            .with_context(|| format!("could not read `{}`", file.display()))?;
        Ok(Self::parse(&list))
    }

    /// The user's own, which holds for all repositories.
    pub(crate) fn of_user(git: &Git, host: &Host) -> Self {
        // What it includes may be a pipe by now, and then git does not end.
        let call = git.outside(host).args(["config", "--null", "--list"]).patience(PATIENCE);
        call.run().map(|list| Self::parse(&list)).unwrap_or_default()
    }

    fn parse(list: &[u8]) -> Self {
        let list = String::from_utf8_lossy(list).into_owned();
        let entries = list
            .split_terminator('\0')
            .map(|entry| match entry.split_once('\n') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (entry.to_owned(), None),
            })
            .collect();
        Self { entries }
    }

    /// This one, and what `other` says after it.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self
    }

    /// The last value of a name.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.entries.iter().rev().find(|(known, _)| known == name).and_then(|(_, value)| value.as_deref())
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.entries
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .is_some_and(|(_, value)| is_on(value.as_deref()))
    }

    /// An extension of the format that a private directory does not know.
    pub(super) fn unknown_extension(&self) -> Option<&str> {
        let names = self.entries.iter().map(|(name, _)| name.as_str());
        names.filter(|name| name.starts_with("extensions.")).find(|name| !EXTENSIONS.contains(name))
    }

    /// Whether something in it turns files into other bytes by a program.
    pub(super) fn has_filter(&self, driver: &str) -> bool {
        let name = format!("filter.{driver}.");
        self.entries.iter().any(|(known, _)| known.starts_with(&name))
    }

    /// Whether objects may be missing that a remote has promised.
    pub(super) fn is_partial(&self) -> bool {
        self.value("extensions.partialclone").is_some()
            || self.entries.iter().any(|(name, value)| {
                name.starts_with("remote.") && name.ends_with(".promisor") && is_on(value.as_deref())
            })
    }

    /// The part that goes into a copy, as a config file: there the references, the index and the work tree are laid out
    /// anew, and nothing is borrowed or promised.
    pub(super) fn of_copy(&self) -> String {
        let format = self.value("extensions.objectformat").filter(|format| *format == "sha256");
        let mut text = format!(
            "[core]\n\trepositoryformatversion = {}\n\tbare = false\n\tlogallrefupdates = true\n",
            u8::from(format.is_some())
        );
        if format.is_some() {
            text.push_str("[extensions]\n\tobjectFormat = sha256\n");
        }
        for (name, value) in &self.entries {
            let (section, middle, key) = split(name);
            let is_laid_out = match section {
                "extensions" | "index" | "feature" | "submodule" => true,
                "core" => matches!(
                    key,
                    "repositoryformatversion"
                        | "bare"
                        | "worktree"
                        | "logallrefupdates"
                        | "sparsecheckout"
                        | "sparsecheckoutcone"
                        | "sharedrepository"
                        | "untrackedcache"
                ),
                "remote" => matches!(key, "promisor" | "partialclonefilter"),
                _ => false,
            };
            let is_local = middle.is_some()
                && matches!(key, "url" | "pushurl")
                && value.as_deref().is_some_and(|value| value.starts_with(['/', '.', '~']));
            if goes_inside(name, value.as_deref()) && !is_laid_out && !is_local {
                text.push_str(&render(name, value.as_deref()));
            }
        }
        text
    }

    /// The part that goes into the box, as a config file.
    pub(super) fn inside(&self) -> String {
        let mut text = String::from("# Laid out for this session; the host keeps its own.\n");
        for (name, value) in &self.entries {
            if goes_inside(name, value.as_deref()) {
                text.push_str(&render(name, value.as_deref()));
            }
        }
        text
    }
}

pub(super) fn is_on(value: Option<&str>) -> bool {
    value.is_none_or(|value| {
        value.eq_ignore_ascii_case("true")
            || value.eq_ignore_ascii_case("yes")
            || value.eq_ignore_ascii_case("on")
            || value.parse::<i64>().is_ok_and(|number| number != 0)
    })
}

/// `section.key` or `section.middle.key`.
pub(super) fn split(name: &str) -> (&str, Option<&str>, &str) {
    let (section, rest) = name.split_once('.').unwrap_or((name, ""));
    match rest.rsplit_once('.') {
        Some((middle, key)) => (section, Some(middle), key),
        None => (section, None, rest),
    }
}

fn goes_inside(name: &str, value: Option<&str>) -> bool {
    let (section, middle, key) = split(name);
    let is_known = match middle {
        None => PLAIN.contains(&name),
        Some(_) => NAMED.iter().any(|(known, keys)| *known == section && keys.contains(&key)),
    };
    is_known && value.is_none_or(|value| !value.contains("::") || key == "description")
}

/// One setting as a section of its own.
fn render(name: &str, value: Option<&str>) -> String {
    let (section, middle, key) = split(name);
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let head = match middle {
        Some(middle) => format!("[{section} \"{}\"]", quoted(middle)),
        None => format!("[{section}]"),
    };
    let Some(value) = value else { return format!("{head}\n\t{key}\n") };
    let value = if matches!(key, "url" | "pushurl") { without_login(value) } else { value.to_owned() };
    let value = quoted(&value).replace('\n', "\\n").replace('\t', "\\t");
    format!("{head}\n\t{key} = \"{value}\"\n")
}

/// An address without the name and password that some keep in it.
fn without_login(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_web = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    match authority.rsplit_once('@') {
        // A name alone is part of an ssh address.
        Some((login, host)) if is_web || login.contains(':') => format!("{scheme}://{host}/{path}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::git::tests::git;

    pub(in crate::git) fn read(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, text).unwrap();
        Config::read(&git(), &file).unwrap()
    }

    #[test]
    fn the_users_own_settings_are_those_of_the_home() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".gitconfig"), "[user]\n\tname = Ada\n").unwrap();
        let mut host = Host::for_tests();
        host.env.insert("HOME".into(), dir.path().into());
        assert_eq!(Config::of_user(&git(), &host).value("user.name"), Some("Ada"));
    }

    #[test]
    fn programs_logins_and_other_files_stay_outside() {
        let config = read(concat!(
            "[core]\n\tfilemode = false\n\tfsmonitor = /x\n\tsshCommand = x\n\thooksPath = h\n\tpager = p\n",
            "[user]\n\tname = \"A \\\"B\\\" \\\\ #C\"\n\tsigningkey = k\n",
            "[remote \"o.x\\\"y\"]\n\turl = https://me:token@git.example/r\n\tfetch = +refs/heads/*:refs/remotes/o/*\n",
            "\tuploadpack = evil\n[remote \"ssh\"]\n\turl = ssh://git@host/r\n[remote \"e\"]\n\turl = ext::sh -c x\n",
            "[http]\n\textraheader = \"AUTHORIZATION: basic x\"\n[include]\n\tpath = /etc/x\n[alias]\n\tx = !y\n",
        ));
        let inside = read(&config.inside());
        let shown: Vec<String> = inside
            .entries
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(
            shown,
            [
                "core.filemode=false",
                "user.name=A \"B\" \\ #C",
                "remote.o.x\"y.url=https://git.example/r",
                "remote.o.x\"y.fetch=+refs/heads/*:refs/remotes/o/*",
                "remote.ssh.url=ssh://git@host/r",
            ]
        );
    }
}
