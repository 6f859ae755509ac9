//! How a single value is spelled, wherever it was written.

use anyhow::bail;

use crate::agent;

/// From a relative path, whoever writes the repository would choose the file.
pub(super) fn absolute(path: &str) -> anyhow::Result<()> {
    if path.starts_with('/') || path == "~" || path.starts_with("~/") {
        return Ok(());
    }
    Err(Relative(path.escape_debug().to_string()).into())
}

#[derive(Debug)]
pub(super) struct Relative(String);

impl std::fmt::Display for Relative {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is a relative path, which would mean another file in each repository", self.0)
    }
}

impl std::error::Error for Relative {}

pub(super) fn variable(name: &str) -> anyhow::Result<()> {
    match agent::unfit(name) {
        Some(why) => bail!("the variable `{}` cannot be given to the agent: it {why}", name.escape_debug()),
        None => Ok(()),
    }
}

pub(super) fn package(name: &str) -> anyhow::Result<()> {
    let ok = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:=~".contains(c));
    if !ok {
        bail!("`{}` is not the name of a Debian package", name.escape_debug());
    }
    Ok(())
}

/// The name of an image, as far as its characters go; whether there is such an image, docker says.
pub(super) fn image(name: &str) -> anyhow::Result<()> {
    let ok = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@+[]".contains(c));
    if !ok {
        bail!("`{}` is not the name of an image", name.escape_debug());
    }
    Ok(())
}

/// `NAME` or `@SCOPE/NAME`. Whatever else npm takes, a file or an address, would not be the agent of a version.
pub(super) fn npm_package(name: &str) -> anyhow::Result<()> {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._~-".contains(c))
    };
    let ok = match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
        None => part(name),
    };
    if !ok {
        bail!("`{}` is not the name of an npm package", name.escape_debug());
    }
    Ok(())
}

/// A version, a tag, or a range such as `^1.2`.
pub(super) fn npm_version(text: &str) -> anyhow::Result<()> {
    let ok = !text.is_empty()
        && text.trim() == text
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+^~<>=*| ".contains(c));
    if !ok {
        bail!("`{}` is not a version of an npm package", text.escape_debug());
    }
    Ok(())
}

/// Suites with blanks between them, a whole `deb …` line, or nothing.
pub(super) fn apt_source(text: &str) -> anyhow::Result<()> {
    let ok = match text.strip_prefix("deb ") {
        Some(line) => {
            line.split(' ').filter(|word| !word.is_empty()).count() >= 2
                && line.chars().all(|c| c.is_ascii_alphanumeric() || " :/._~+=,@%[]-".contains(c))
        }
        None => text.split(' ').all(|suite| {
            suite.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c)) && !suite.starts_with('-')
        }),
    };
    if !ok {
        bail!("`{}` is neither suites of a Debian mirror nor a `deb …` line", text.escape_debug());
    }
    Ok(())
}

/// A name that the engine knows, or the path of a program.
pub(super) fn runtime(name: &str) -> anyhow::Result<()> {
    let ok = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
    if !ok {
        bail!("`{}` is not the name of a runtime", name.escape_debug());
    }
    Ok(())
}

/// How many processors make sense; an engine takes less for no limit at all.
pub(super) const PROCESSORS: std::ops::RangeInclusive<f64> = 0.01..=10_000.0;

/// How few processes leave room for the init, the gate and a shell.
const FEWEST_PROCESSES: u32 = 16;

pub(super) fn processes(limit: u32) -> anyhow::Result<()> {
    match limit {
        1..FEWEST_PROCESSES => bail!(
            "a limit of {limit} processes is too small: take at least {FEWEST_PROCESSES}, or 0 for no limit"
        ),
        4_194_305.. => bail!("a limit of {limit} processes is more than a machine can have; 0 is no limit"),
        _ => Ok(()),
    }
}

/// A size as docker takes it, such as `512m`.
pub(super) fn size(text: &str) -> anyhow::Result<String> {
    let digits = text.trim_end_matches(|c: char| "bkmgBKMG".contains(c));
    if digits.is_empty() || text.len() - digits.len() > 1 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        bail!("`{text}` is not a size: write a number and one of b, k, m, g, as in `512m`");
    }
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => 1,
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(0) => Ok("0".to_owned()),
        // Docker's own least is 6 MiB; nothing of ours fits into less than this.
        Some(bytes) if (16 << 20..1 << 62).contains(&bytes) => Ok(text.to_ascii_lowercase()),
        _ => bail!("`{text}` is no size to work with: take at least `16m`, or `0` for no limit"),
    }
}

pub(super) fn session_name(text: &str) -> anyhow::Result<String> {
    let ok = !text.is_empty()
        && text.len() <= 64
        && text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !ok {
        bail!(crate::report::Hinted::usage(
            "a session's name is up to 64 letters, digits, `.`, `_` and `-`, and begins with a letter or digit"
        ));
    }
    Ok(text.to_owned())
}
