//! Which settings are in force, and where each comes from.

use std::path::Path;

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::{Config, DEFAULTS, PROJECT_FILE, file::read, place::line_of};
use crate::{cli::Options, host::Host};

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct InForce {
    /// The key, such as `images.base`.
    pub(crate) key: String,
    /// The value as it is written in a settings file.
    pub(crate) value: String,
    /// The file and the line; `None` for a default.
    pub(crate) from: Option<String>,
}

/// Every setting in force, by the order of the default ones. A command line that sets one is not looked at.
///
/// # Errors
/// A file cannot be read. Files are expected to have been understood before, by [`Config::load`].
pub(crate) fn in_force(
    options: &Options,
    host: &Host,
    project: Option<&Path>,
) -> anyhow::Result<Vec<InForce>> {
    let mut layers = Vec::new();
    for path in project.map(|root| root.join(PROJECT_FILE)).into_iter().chain([Config::path(options, host)]) {
        if let Some(text) = read(&path)? {
            layers.push((path, text));
        }
    }
    let texts: Vec<(Option<&Path>, &str)> = layers
        .iter()
        .map(|(path, text)| (Some(path.as_path()), text.as_str()))
        .chain([(None, DEFAULTS)])
        .collect();
    let mut all: Vec<InForce> = Vec::new();
    for (path, text) in texts.into_iter().rev() {
        let mut found = Vec::new();
        each(DeTable::parse_recoverable(text).0.get_ref(), "", &mut |key, span| {
            let from = path.map(|path| format!("{}:{}", path.display(), line_of(text, &span)));
            found.push(InForce { key, value: text[span].to_owned(), from });
        });
        for new in found {
            match all.iter_mut().find(|old| old.key == new.key) {
                Some(old) => *old = new,
                None => all.push(new),
            }
        }
    }
    Ok(all)
}

fn each(table: &DeTable<'_>, section: &str, see: &mut impl FnMut(String, std::ops::Range<usize>)) {
    for (key, value) in table {
        let key = format!("{section}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(below) => each(below, &format!("{key}."), see),
            _ => see(key, value.span()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_setting_names_the_file_and_line_that_decides() {
        let home = tempfile::tempdir().unwrap();
        let host = Host { home: home.path().to_owned(), ..Host::for_tests() };
        let own = host.config_file();
        fs::create_dir_all(own.parent().unwrap()).unwrap();
        fs::write(&own, "lang = \"php\"\n\n[images]\nbase = \"mine\"\n").unwrap();
        let repository = home.path().join("repository");
        fs::create_dir_all(repository.join(".pi")).unwrap();
        fs::write(repository.join(PROJECT_FILE), "# ours\nlang = \"go\"\n").unwrap();
        let all = in_force(&Options::default(), &host, Some(&repository)).unwrap();
        let found = |key: &str| {
            let one = all.iter().find(|setting| setting.key == key).unwrap();
            (one.value.clone(), one.from.clone())
        };
        let project = format!("{}:2", repository.join(PROJECT_FILE).display());
        assert_eq!(found("lang"), ("\"go\"".to_owned(), Some(project)));
        assert_eq!(found("images.base"), ("\"mine\"".to_owned(), Some(format!("{}:4", own.display()))));
        assert_eq!(found("proxy").1, None);
    }
}
