//! A software bill of materials of images, as `CycloneDX` JSON: Debian's packages, npm's, and runtimes that came otherwise.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Context as _;
use serde_json::{Value, json};

/// Prints what an image is made of, for [`document`].
pub(crate) const SCRIPT: &str = include_str!("contents.sh");

/// An image, and what [`SCRIPT`] has printed in it.
pub(crate) struct Listed {
    pub(crate) tag: String,
    pub(crate) id: String,
    pub(crate) said: String,
}

/// A list of everything in these images. Each image is a component that depends on what it is made of.
///
/// # Errors
/// A line cannot be understood, or there are no random numbers.
pub(crate) fn document(images: &[Listed]) -> anyhow::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("could not get random numbers: {error}"))?;
    let (mut made, mut components, mut dependencies) = ("", vec![], vec![]);
    for Listed { tag, id, said } in images {
        let contents = Contents::read(said).with_context(|| format!("could not read the image `{tag}`"))?;
        made = made.max(contents.date);
        let (name, version) = tag.split_once(':').unwrap_or((tag, ""));
        components.push(json!({
            "type": "container", "bom-ref": tag, "name": name, "version": version,
            "properties": [{ "name": "pi:image:id", "value": id }],
        }));
        let parts = contents.parts.into_iter().map(|(key, mut part)| {
            let reference = format!("{tag}#{key}");
            part["bom-ref"] = reference.clone().into();
            components.push(part);
            Value::from(reference)
        });
        let parts: Vec<Value> = parts.collect();
        dependencies.push(json!({ "ref": tag, "dependsOn": parts }));
    }
    let pi = json!({ "type": "application", "name": "pi", "version": env!("CARGO_PKG_VERSION") });
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": format!("urn:uuid:{}", uuid(random)),
        "version": 1,
        "metadata": { "timestamp": made, "tools": { "components": [pi] } },
        "components": components,
        "dependencies": dependencies,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// What an image is made of: components by what is unique to each.
struct Contents<'a> {
    date: &'a str,
    parts: BTreeMap<String, Value>,
}

impl<'a> Contents<'a> {
    fn read(said: &'a str) -> anyhow::Result<Self> {
        let (mut date, mut system) = ("", "");
        let (mut distribution, mut parts) = (String::new(), BTreeMap::new());
        for line in said.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let (key, part) = match fields[..] {
                ["date", when] => {
                    date = when;
                    continue;
                }
                ["os", id, version] => {
                    system = id;
                    distribution = format!("{id}-{version}");
                    let part = json!({ "type": "operating-system", "name": id, "version": version });
                    (distribution.clone(), part)
                }
                ["deb", name, version, architecture, source, source_version] => {
                    let upstream = match (source == name, source_version == version) {
                        (true, true) => String::new(),
                        (_, true) => format!("&upstream={}", encoded(source)),
                        _ => format!("&upstream={}", encoded(&format!("{source}@{source_version}"))),
                    };
                    let purl = format!(
                        "pkg:deb/{}/{}@{}?arch={}&distro={}{upstream}",
                        encoded(system),
                        encoded(name),
                        encoded(version),
                        encoded(architecture),
                        encoded(&distribution)
                    );
                    let part = json!({ "type": "library", "name": name, "version": version, "purl": purl });
                    (purl, part)
                }
                ["run", name, version] => {
                    let purl = format!("pkg:generic/{}@{}", encoded(name), encoded(version));
                    let mut part =
                        json!({ "type": "application", "name": name, "version": version, "purl": purl });
                    if let Some(known) = known(name) {
                        part["cpe"] = format!("cpe:2.3:a:{known}:{version}:*:*:*:*:*:*:*").into();
                    }
                    (purl, part)
                }
                ["npm", package] => npm(package)?,
                _ => anyhow::bail!("what it said cannot be understood: `{}`", crate::report::one_line(line)),
            };
            parts.insert(key, part);
        }
        anyhow::ensure!(!date.is_empty() && !system.is_empty(), "it did not say what it is");
        Ok(Self { date, parts })
    }
}

/// A package of npm's, from its name, its version and its licence.
fn npm(package: &str) -> anyhow::Result<(String, Value)> {
    let (name, version, licence): (String, String, Option<String>) = serde_json::from_str(package)?;
    let purl = match name.split_once('/') {
        Some((scope, name)) => {
            format!("pkg:npm/{}/{}@{}", encoded(scope), encoded(name), encoded(&version))
        }
        None => format!("pkg:npm/{}@{}", encoded(&name), encoded(&version)),
    };
    let mut part = json!({ "type": "library", "name": name, "version": version, "purl": purl });
    if let Some(licence) = licence {
        part["licenses"] = json!([{ "license": { "name": licence } }]);
    }
    Ok((purl, part))
}

/// By this name lists of vulnerabilities know a runtime: its maker and its product.
fn known(name: &str) -> Option<&'static str> {
    Some(match name {
        "node" => "nodejs:node.js",
        "go" => "golang:go",
        "php" => "php:php",
        "composer" => "getcomposer:composer",
        _ => return None,
    })
}

/// A part of a package's address.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut done, byte| {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            done.push(char::from(byte));
        } else {
            let _ = write!(done, "%{byte:02X}");
        }
        done
    })
}

/// These bytes as a random UUID (version 4).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = crate::host::hex(&bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(said: &str) -> anyhow::Result<Value> {
        let image = Listed { tag: "pi-agent:base-0".into(), id: "sha256:1".into(), said: said.into() };
        document(&[image]).map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn each_kind_of_package_has_its_own_address() {
        let said = "date\t2026-01-02T03:04:05Z\nos\tdebian\t13.1\n\
                    deb\tlibstdc++6\t14.2.0-19\tamd64\tgcc-14\t14.2.0-19\n\
                    deb\tdash\t1:0.5+1\tamd64\tdash\t0.5\nrun\tgo\t1.26.1\n\
                    npm\t[\"@a/b\",\"1.0.0\",\"MIT\"]\nnpm\t[\"c\",\"2.0.0\",null]\nnpm\t[\"c\",\"2.0.0\",null]";
        let bom = listed(said).unwrap();
        let components = bom["components"].as_array().unwrap();
        let mut purls: Vec<&str> = components.iter().filter_map(|part| part["purl"].as_str()).collect();
        purls.sort_unstable();
        assert_eq!(
            purls,
            [
                "pkg:deb/debian/dash@1:0.5%2B1?arch=amd64&distro=debian-13.1&upstream=dash%400.5",
                "pkg:deb/debian/libstdc%2B%2B6@14.2.0-19?arch=amd64&distro=debian-13.1&upstream=gcc-14",
                "pkg:generic/go@1.26.1",
                "pkg:npm/%40a/b@1.0.0",
                "pkg:npm/c@2.0.0",
            ]
        );
        let parts: Vec<&Value> = components[1..].iter().map(|part| &part["bom-ref"]).collect();
        let depends = bom["dependencies"][0]["dependsOn"].as_array().unwrap();
        assert_eq!(depends.iter().collect::<Vec<_>>(), parts);
        assert_eq!(bom["metadata"]["timestamp"], "2026-01-02T03:04:05Z");
        let go = components.iter().find(|part| part["name"] == "go").unwrap();
        assert_eq!(go["cpe"], "cpe:2.3:a:golang:go:1.26.1:*:*:*:*:*:*:*");
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_and_no_shorter_list() {
        for said in ["", "date\tx", "date\tx\nos\tdebian\t13\nE: broken", "date\tx\nos\ta\tb\nnpm\t{}"] {
            assert!(listed(said).is_err(), "{said}");
        }
    }

    #[test]
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
