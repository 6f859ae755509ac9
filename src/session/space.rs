//! The free space of this machine's file systems: a session is stopped before it fills one.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use rustix::fs::statvfs;

use crate::{
    config::{Access, MinFree},
    host::{EngineKind, Host},
    plan::{Mount, Plan},
    report::Hinted,
};

/// What a fast disk can take in a second.
const FASTEST: u64 = 4 << 30;

/// A file system with fewer free entries than this is as good as full.
const FEWEST_FILES: u64 = 10_000;

/// The file systems that a session can fill, each by one path, and what must stay free on them.
#[derive(Debug, Clone)]
pub(super) struct Space {
    places: Vec<PathBuf>,
    min_free: MinFree,
}

/// What is free on one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    bytes: u64,
    floor: u64,
    /// Free entries for files, and how many there must be; none where a file system does not count them.
    files: Option<(u64, u64)>,
}

impl Space {
    /// What this session can write: its mounts, its own directory, and the engine's volumes where they are to be seen.
    pub(super) fn of(plan: &Plan, host: &Host, min_free: MinFree) -> Self {
        let writable = plan.agent.mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
        let engines = match host.engine.kind {
            _ if !host.engine.shares_our_kernel() => None,
            EngineKind::Rootful => Some(PathBuf::from("/var/lib/docker")),
            EngineKind::Rootless => Some(host.home.join(".local/share/docker")),
        };
        let paths = writable.filter_map(Mount::path).chain([plan.state.as_path()]).chain(engines.as_deref());
        let mut seen = BTreeSet::new();
        let is_new = |path: &&Path| fs::metadata(path).is_ok_and(|meta| seen.insert(meta.dev()));
        Self { places: paths.filter(is_new).map(Path::to_owned).collect(), min_free }
    }

    /// Fails where less is free than there must be. Otherwise returns when to look again.
    fn look(&self) -> anyhow::Result<Duration> {
        if self.min_free == MinFree::Bytes(0) {
            return Ok(LONGEST);
        }
        let mut pause = LONGEST;
        for place in &self.places {
            let Some(free) = free(place, self.min_free) else { continue };
            free.check(place)?;
            pause = pause.min(free.pause());
        }
        Ok(pause)
    }

    /// Fails where less is free than there must be.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.look().map(drop)
    }
}

fn free(place: &Path, min_free: MinFree) -> Option<Free> {
    let found = statvfs(place).ok()?;
    let block = found.f_frsize;
    let files = (found.f_files > 0).then(|| (found.f_favail, FEWEST_FILES.min(found.f_files / 20)));
    Some(Free {
        bytes: found.f_bavail.saturating_mul(block),
        floor: min_free.of(found.f_blocks.saturating_mul(block)),
        files,
    })
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

impl Free {
    fn check(self, place: &Path) -> anyhow::Result<()> {
        let Self { bytes, floor, files } = self;
        let what = match files {
            _ if bytes < floor => {
                format!("only {} are free, less than {}", mebibytes(bytes), mebibytes(floor))
            }
            Some((files, least)) if files < least => format!("there is room for only {files} more files"),
            _ => return Ok(()),
        };
        Err(Hinted::error(
            format!("the file system of `{}` is nearly full: {what}", place.display()),
            "make room on it, `pi clean --caches` and `docker system df` help; or set a lower `min_free`",
        ))
    }

    /// Until the fastest disk could have filled what is left.
    fn pause(self) -> Duration {
        let seconds = self.bytes.saturating_sub(self.floor) / FASTEST;
        Duration::from_secs(seconds).clamp(SHORTEST, LONGEST)
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// A look at the free space from time to time, as long as this value lives.
#[derive(Debug)]
pub(super) struct Watch {
    reason: Arc<OnceLock<anyhow::Error>>,
    _end: mpsc::Sender<()>,
}

impl Watch {
    /// Calls `stop` when a file system is nearly full.
    pub(super) fn start(space: Space, stop: impl FnOnce() + Send + 'static) -> Self {
        let reason = Arc::new(OnceLock::new());
        let (end, ended) = mpsc::channel();
        let found = reason.clone();
        // Nobody waits for its end: a look at a file system of the network may hang.
        thread::spawn(move || {
            let mut pause = SHORTEST;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                match space.look() {
                    Ok(next) => pause = next,
                    Err(error) => {
                        let _ = found.set(error);
                        return stop();
                    }
                }
            }
        });
        Self { reason, _end: end }
    }

    /// Fails if it has stopped the session.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self.reason.get() {
            None => Ok(()),
            Some(error) => {
                let hint = error.downcast_ref().and_then(Hinted::hint).unwrap_or_default();
                Err(Hinted::error(format!("the session was stopped: {error}"), hint))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_full_before_its_last_byte_or_file() {
        let place = Path::new("/disk");
        let check = |bytes, files| Free { bytes, floor: 1 << 30, files }.check(place).err();
        assert!(check(1 << 30, Some((10, 5))).is_none());
        assert!(check(1 << 30, None).is_none());
        let said = check((1 << 30) - 1, None).unwrap().to_string();
        assert_eq!(
            said,
            "the file system of `/disk` is nearly full: only 1023 MiB are free, less than 1024 MiB"
        );
        let said = check(1 << 40, Some((4, 5))).unwrap().to_string();
        assert!(said.ends_with("there is room for only 4 more files"), "{said}");
    }

    #[test]
    fn the_nearer_the_end_the_more_often_it_looks() {
        let pause = |bytes| Free { bytes, floor: 1 << 30, files: None }.pause();
        assert_eq!(
            [pause(1 << 40), pause(13 << 30), pause(2 << 30)],
            [LONGEST, Duration::from_secs(3), SHORTEST]
        );
    }

    #[test]
    fn the_watch_stops_once_and_says_why() {
        let space = Space { places: vec!["/".into()], min_free: MinFree::Bytes(u64::MAX) };
        let (stopped, was_stopped) = mpsc::channel();
        let watch = Watch::start(space, move || stopped.send(()).unwrap());
        was_stopped.recv_timeout(Duration::from_secs(10)).unwrap();
        let said = watch.check().unwrap_err().to_string();
        assert!(said.starts_with("the session was stopped: the file system of `/` is nearly full"), "{said}");
        let nothing = Space { places: vec!["/".into()], min_free: MinFree::Bytes(0) };
        nothing.check().unwrap();
    }
}
