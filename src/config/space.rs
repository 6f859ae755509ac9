//! How much a session may fill, and how much has to stay free on this machine.

use std::fmt::{self, Display};

use anyhow::bail;

use super::{
    Limits,
    value::{bytes, size},
};

/// The sizes of the agent's directories in memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Of its home.
    pub(crate) home: u64,
    /// Of `/tmp`.
    pub(crate) tmp: u64,
}

/// The largest home of a session whose user has said nothing else.
const HOME: u64 = 2 << 30;
const TMP: u64 = 1 << 30;

impl Disk {
    /// What is asked for, or what leaves memory to the agent's processes: files in memory count as its memory.
    pub(super) fn of(asked: Option<&str>, limits: &Limits) -> Self {
        let memory = limits.memory.as_deref().map_or(u64::MAX, bytes);
        Self { home: asked.map_or((memory / 2).min(HOME), bytes), tmp: (memory / 4).min(TMP) }
    }

    /// Whether its home could never be full, because its memory is before.
    pub(crate) fn exceeds(self, limits: &Limits) -> bool {
        limits.memory.as_deref().is_some_and(|memory| self.home > bytes(memory))
    }
}

/// How much must stay free on the machine's file systems while a session runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MinFree {
    /// 1 GiB, or 5 % where that is less.
    Usual,
    Bytes(u64),
    Percent(u8),
}

impl MinFree {
    /// A size such as `2g`, a share such as `10%`, `0` for nothing, or nothing for the usual.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        match text.strip_suffix('%') {
            _ if text.is_empty() => Ok(Self::Usual),
            None if text == "0" => Ok(Self::Bytes(0)),
            None => Ok(Self::Bytes(bytes(&size(text)?))),
            Some(percent) => match percent.parse() {
                Ok(percent @ 0..=99) => Ok(Self::Percent(percent)),
                _ => bail!("`{}` is no share of a file system, as `10%` is", text.escape_debug()),
            },
        }
    }

    /// The bytes that must stay free on a file system of this size.
    pub(crate) fn of(self, total: u64) -> u64 {
        match self {
            Self::Usual => (1 << 30).min(total / 20),
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => total / 100 * u64::from(percent),
        }
    }
}

impl Display for MinFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usual => f.write_str("1 GiB, or 5% if that is less,"),
            Self::Bytes(bytes) => write!(f, "{} MiB", bytes >> 20),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_stay_free_suits_small_and_large_disks() {
        let floor = |text: &str, gib: u64| MinFree::parse(text).unwrap().of(gib << 30) >> 20;
        assert_eq!([floor("", 1000), floor("", 10)], [1024, 512]);
        assert_eq!(
            [floor("2g", 10), floor("10%", 100), floor("0", 100), floor("0%", 9)],
            [2048, 10_240, 0, 0]
        );
        for text in ["x", "100%", "-1%", "%", "1.5%"] {
            assert!(MinFree::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_home_in_memory_leaves_memory_to_processes() {
        let disk = |asked: Option<&str>, memory: Option<&str>| {
            let limits = Limits { memory: memory.map(str::to_owned), cpus: None, pids: None };
            let disk = Disk::of(asked, &limits);
            [disk.home >> 20, disk.tmp >> 20]
        };
        assert_eq!(disk(None, Some("4g")), [2048, 1024]);
        assert_eq!(disk(None, Some("512m")), [256, 128]);
        assert_eq!(disk(None, None), [2048, 1024]);
        assert_eq!(disk(Some("3g"), Some("8g")), [3072, 1024]);
    }
}
