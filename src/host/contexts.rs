//! Docker's contexts: engines by name, as `docker context create` has written them down.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::hex;
use crate::report::Hinted;

/// One engine's address, and how docker reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) address: String,
    pub(super) tls: Tls,
}

/// How a connection to an engine is secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tls {
    None,
    /// Docker does not look whose certificate it is.
    Unverified,
    /// By `ca.pem`, `cert.pem` and `key.pem` in this directory.
    Verified(PathBuf),
}

/// The directory of docker's own settings.
pub(super) fn settings(env: &BTreeMap<OsString, OsString>, home: &Path) -> PathBuf {
    let named = env.get(OsStr::new("DOCKER_CONFIG")).filter(|path| !path.is_empty());
    named.map_or_else(|| home.join(".docker"), PathBuf::from)
}

/// How docker reaches the engine that `DOCKER_HOST` names.
pub(super) fn tls_of_environment(env: &BTreeMap<OsString, OsString>, home: &Path) -> Tls {
    let set = |name: &str| env.get(OsStr::new(name)).filter(|value| !value.is_empty());
    match (set("DOCKER_TLS_VERIFY"), set("DOCKER_TLS")) {
        (Some(_), _) => {
            Tls::Verified(set("DOCKER_CERT_PATH").map_or_else(|| settings(env, home), PathBuf::from))
        }
        (None, Some(_)) => Tls::Unverified,
        (None, None) => Tls::None,
    }
}

/// The context in use, unless it is the default one.
pub(super) fn current(settings: &Path) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct File {
        current_context: Option<String>,
    }
    let text = fs::read_to_string(settings.join("config.json")).ok()?;
    let file: File = serde_json::from_str(&text).ok()?;
    file.current_context.filter(|name| !name.is_empty() && name != DEFAULT)
}

/// Docker's own choice where nobody has made one.
pub(super) const DEFAULT: &str = "default";

/// The context of this name.
///
/// # Errors
/// There is none, or it cannot be read.
pub(super) fn named(settings: &Path, name: &str) -> anyhow::Result<Context> {
    let own = hex(&Sha256::digest(name));
    let path = settings.join("contexts/meta").join(&own).join("meta.json");
    let text = fs::read_to_string(&path).map_err(|error| {
        let name = name.escape_debug();
        Hinted::error(
            match error.kind() {
                io::ErrorKind::NotFound => format!("docker has no context `{name}`"),
                _ => format!("could not read docker's context `{name}` from `{}`: {error}", path.display()),
            },
            "`docker context ls` lists them; `docker context create` makes one",
        )
    })?;
    read(settings, &own, &text)
        .with_context(|| format!("could not understand `{}`", path.display()))?
        .with_context(|| format!("docker's context `{}` names no engine", name.escape_debug()))
}

/// The names of all contexts, in their order.
pub(super) fn names(settings: &Path) -> Vec<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Meta {
        name: String,
    }
    let metas = fs::read_dir(settings.join("contexts/meta")).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("meta.json")).ok()?;
        serde_json::from_str(&text).ok().map(|meta: Meta| meta.name)
    };
    let mut names: Vec<String> = metas.filter_map(name).collect();
    names.sort();
    names
}

fn read(settings: &Path, own: &str, text: &str) -> anyhow::Result<Option<Context>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Meta {
        endpoints: BTreeMap<String, Endpoint>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Endpoint {
        host: Option<String>,
        #[serde(rename = "SkipTLSVerify", default)]
        skip_tls_verify: bool,
    }
    let mut meta: Meta = serde_json::from_str(text)?;
    let Some(endpoint) = meta.endpoints.remove("docker") else { return Ok(None) };
    let Some(address) = endpoint.host else { return Ok(None) };
    let certificates = settings.join("contexts/tls").join(own).join("docker");
    let tls = if endpoint.skip_tls_verify {
        Tls::Unverified
    } else if certificates.join("ca.pem").is_file() {
        Tls::Verified(certificates)
    } else {
        Tls::None
    };
    Ok(Some(Context { address, tls }))
}

/// The directories with the certificates of the engines that this machine knows, by the engine's address.
pub(super) fn certificates(env: &BTreeMap<OsString, OsString>, home: &Path) -> BTreeMap<String, PathBuf> {
    let settings = settings(env, home);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(settings.join("contexts/meta")).into_iter().flatten().flatten() {
        let own = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path().join("meta.json")).unwrap_or_default();
        if let Ok(Some(Context { address, tls: Tls::Verified(directory) })) = read(&settings, &own, &text) {
            found.insert(address, directory);
        }
    }
    if let (Some(host), Tls::Verified(directory)) =
        (env.get(OsStr::new("DOCKER_HOST")).and_then(|host| host.to_str()), tls_of_environment(env, home))
    {
        found.insert(host.to_owned(), directory);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Engine;

    fn write(settings: &Path, name: &str, docker: &str, tls: &[&str]) {
        let own = hex(&Sha256::digest(name));
        let meta = settings.join("contexts/meta").join(&own);
        fs::create_dir_all(&meta).unwrap();
        let text = format!(r#"{{"Name":"{name}","Endpoints":{{"docker":{docker}}}}}"#);
        fs::write(meta.join("meta.json"), text).unwrap();
        let certificates = settings.join("contexts/tls").join(&own).join("docker");
        fs::create_dir_all(&certificates).unwrap();
        for file in tls {
            fs::write(certificates.join(file), "").unwrap();
        }
    }

    #[test]
    fn the_context_that_docker_would_use_is_followed() {
        let settings = tempfile::tempdir().unwrap();
        write(settings.path(), "far", r#"{"Host":"ssh://far"}"#, &[]);
        write(settings.path(), "plain", r#"{"Host":"tcp://192.0.2.1:2375"}"#, &[]);
        fs::write(settings.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        let mut env = BTreeMap::from([("DOCKER_CONFIG".into(), settings.path().into())]);
        let found =
            |env: &BTreeMap<OsString, OsString>| Engine::find(env, Path::new("/nowhere"), 1000).unwrap();
        assert_eq!(found(&env).address, "ssh://far");
        env.insert("DOCKER_CONTEXT".into(), "plain".into());
        assert!(found(&env).check().is_err());
        env.insert("DOCKER_HOST".into(), "ssh://near".into());
        assert_eq!(found(&env).address, "ssh://near");
        assert!(Engine::named(&env, Path::new("/nowhere"), 1000, "nothing").is_err());
    }

    #[test]
    fn the_certificates_of_a_context_are_found_by_its_name_and_by_its_address() {
        let settings = tempfile::tempdir().unwrap();
        let (safe, skips) = ("tcp://192.0.2.1:2376", "tcp://192.0.2.2:2376");
        write(settings.path(), "safe", &format!(r#"{{"Host":"{safe}","SkipTLSVerify":false}}"#), &["ca.pem"]);
        write(
            settings.path(),
            "skips",
            &format!(r#"{{"Host":"{skips}","SkipTLSVerify":true}}"#),
            &["ca.pem"],
        );
        let tls = |name: &str| named(settings.path(), name).unwrap().tls;
        assert_eq!(names(settings.path()), ["safe", "skips"]);
        assert!(names(Path::new("/nowhere")).is_empty());
        assert!(matches!(tls("safe"), Tls::Verified(_)) && tls("skips") == Tls::Unverified);
        let env = BTreeMap::from([("DOCKER_CONFIG".into(), settings.path().into())]);
        assert_eq!(certificates(&env, Path::new("/")).into_keys().collect::<Vec<_>>(), [safe]);
    }
}
