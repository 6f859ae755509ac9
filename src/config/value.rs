//! How a single value is spelled, in a file or on the command line.

use anyhow::{bail, ensure};

use crate::{agent, report::Hinted};

/// Refuses a relative path: the repository would choose the file.
pub(super) fn absolute(path: &str) -> anyhow::Result<()> {
    if path.starts_with('/') || path == "~" || path.starts_with("~/") {
        return Ok(());
    }
    let path = path.escape_debug();
    Err(Hinted::error(
        format!("`{path}` is a relative path, which would mean another file in each repository"),
        "begin it with `/` or `~/`",
    ))
}

pub(super) fn variable(name: &str) -> anyhow::Result<()> {
    match agent::unfit(name) {
        Some(why) => bail!("the variable `{}` cannot be given to the agent: it {why}", name.escape_debug()),
        None => Ok(()),
    }
}

pub(super) fn package(name: &str) -> anyhow::Result<()> {
    expect(is_made_of(name, "", "+-.:=~"), name, "the name of a Debian package")
}

/// Checks the characters only; docker says whether the image exists.
pub(super) fn image(name: &str) -> anyhow::Result<()> {
    expect(is_made_of(name, "[", "._-/:@+[]"), name, "the name of an image")
}

/// `HOST[:PORT]/PATH`. Docker takes a first part without a dot and without a port for a directory of its usual registry.
pub(super) fn registry(text: &str) -> anyhow::Result<()> {
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let (name, port) = host.split_once(':').unwrap_or((host, "1"));
    let is_host = name == "localhost" || name.contains('.') || host.contains(':');
    let is_part = |part: &str| {
        is_made_of(part, "", "._-") && part.ends_with(|c: char| c.is_ascii_alphanumeric()) && part.is_ascii()
    };
    let is_lower = !path.contains(|c: char| c.is_ascii_uppercase());
    let is_path = path.is_empty() && !text.ends_with('/') || path.split('/').all(is_part);
    if is_host && is_part(name) && port.parse::<u16>().is_ok_and(|port| port != 0) && is_path && is_lower {
        return Ok(());
    }
    Err(Hinted::error(
        format!("`{}` is not a place in a registry", text.escape_debug()),
        "write `HOST/PATH` or `HOST:PORT/PATH`, without `https://` and without a tag",
    ))
}

/// `NAME` or `@SCOPE/NAME`. npm also takes files and addresses, but those have no version of the agent.
pub(super) fn npm_package(name: &str) -> anyhow::Result<()> {
    let part = |part: &str| is_made_of(part, "", "._~-");
    let ok = match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
        None => part(name),
    };
    expect(ok, name, "the name of an npm package")
}

/// A version, a tag, or a range such as `^1.2`.
pub(super) fn npm_version(text: &str) -> anyhow::Result<()> {
    let ok = !text.is_empty()
        && text.trim() == text
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+^~<>=*| ".contains(c));
    expect(ok, text, "a version of an npm package")
}

/// Suites with blanks between them, a whole `deb …` line, or nothing.
pub(super) fn apt_source(text: &str) -> anyhow::Result<()> {
    let ok = match text.strip_prefix("deb ") {
        Some(line) => {
            line.split(' ').filter(|word| !word.is_empty()).count() >= 2
                && line.chars().all(|c| c.is_ascii_alphanumeric() || " :/._~+=,@%[]-".contains(c))
        }
        None => text.split(' ').all(|suite| suite.is_empty() || is_made_of(suite, "._/", "._/-")),
    };
    ensure!(ok, "`{}` is neither suites of a Debian mirror nor a `deb …` line", text.escape_debug());
    Ok(())
}

/// A name that the engine knows, or the path of a program.
pub(super) fn runtime(name: &str) -> anyhow::Result<()> {
    expect(is_made_of(name, "/", "._/-"), name, "the name of a runtime")
}

/// Whether `text` begins with a letter, a digit or one of `first`, and has only letters, digits and `others`.
fn is_made_of(text: &str, first: &str, others: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || first.contains(c))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

fn expect(ok: bool, text: &str, what: &str) -> anyhow::Result<()> {
    ensure!(ok, "`{}` is not {what}", text.escape_debug());
    Ok(())
}

/// Sensible numbers of processors. An engine takes a smaller number for no limit.
pub(super) const PROCESSORS: std::ops::RangeInclusive<f64> = 0.01..=10_000.0;

/// The init, the gate and a shell need this many processes.
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
        // Docker takes 6 MiB, but a session does not fit into less than this.
        Some(bytes) if (16 << 20..1 << 62).contains(&bytes) => Ok(text.to_ascii_lowercase()),
        _ => bail!("a limit of `{text}` is too small or too large: take at least `16m`, or `0` for no limit"),
    }
}

/// The bytes of a size that [`size`] has taken.
pub(super) fn bytes(size: &str) -> u64 {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &size[digits.len()..] {
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => 1,
    };
    digits.parse::<u64>().unwrap_or_default().saturating_mul(unit)
}

/// A size of something in memory, which always has a limit.
pub(super) fn room(text: &str) -> anyhow::Result<String> {
    match size(text)?.as_str() {
        "0" => bail!("the agent's home is in memory, so it needs a limit, such as `2g`"),
        size => Ok(size.to_owned()),
    }
}

pub(super) fn session_name(text: &str) -> anyhow::Result<String> {
    if text.len() > 64 || !is_made_of(text, "", "._-") {
        bail!(Hinted::usage(
            "a session's name has up to 64 letters, digits, `.`, `_` and `-`, and begins with a letter or digit"
        ));
    }
    Ok(text.to_owned())
}

/// The name of a copy, which becomes a branch.
pub(super) fn copy_name(text: &str) -> anyhow::Result<String> {
    let is_odd = text.contains("..") || text.ends_with('.') || text.to_ascii_lowercase().ends_with(".lock");
    if text.len() > 64 || !is_made_of(text, "", "._-") || is_odd {
        bail!(Hinted::usage(
            "a copy's name has up to 64 letters, digits, `.`, `_` and `-`, begins with a letter or digit, and can be the \
             name of a branch"
        ));
    }
    Ok(text.to_owned())
}
