//! The proxy's log in a session's directory: the newest part of it, since what it says most of is the agent's to choose.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use anyhow::Context as _;

use crate::files::replace;

/// The log's name in a running session's directory.
pub(super) const PROXY_LOG: &str = "proxy.log";

/// How long it may become.
const LIMIT: usize = 5 << 20;

/// Stands where older lines were.
const LEFT_OUT: &[u8] = b"pi: older lines were left out here\n";

/// How many pieces of the log may wait for one who reads it slowly.
const WAITING: usize = 1024;

pub(super) struct ProxyLog {
    path: PathBuf,
    file: fs::File,
    size: usize,
    limit: usize,
    /// Those who read along. One that is too slow is left behind.
    readers: Vec<SyncSender<Vec<u8>>>,
}

impl ProxyLog {
    pub(super) fn create(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(PROXY_LOG);
        let file =
            fs::File::create(&path).with_context(|| format!("could not create `{}`", path.display()))?;
        Ok(Self { path, file, size: 0, limit: LIMIT, readers: vec![] })
    }

    /// Adds a line. The log is a help and no promise, so a full disk is no failure.
    pub(super) fn add(&mut self, line: &[u8]) {
        self.readers.retain(|reader| reader.try_send(line.to_vec()).is_ok());
        if self.size + line.len() > self.limit && self.shorten().is_err() {
            return;
        }
        self.size += line.len();
        let _ = self.file.write_all(line);
    }

    /// The log so far, and what comes.
    pub(super) fn read(&mut self) -> (Vec<u8>, Receiver<Vec<u8>>) {
        let (send, more) = sync_channel(WAITING);
        self.readers.push(send);
        (fs::read(&self.path).unwrap_or_default(), more)
    }

    /// Nothing more will come.
    pub(super) fn end(&mut self) {
        self.readers.clear();
    }

    /// Keeps the newer half.
    fn shorten(&mut self) -> io::Result<()> {
        let text = fs::read(&self.path)?;
        let newer = &text[text.len().saturating_sub(self.limit / 2)..];
        // Whole lines, where there are any.
        let start = newer.iter().position(|byte| *byte == b'\n').map_or(newer.len(), |end| end + 1);
        let kept = [LEFT_OUT, &newer[start..]].concat();
        replace(&self.path, &kept)?;
        self.file = fs::OpenOptions::new().append(true).open(&self.path)?;
        self.size = kept.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = ProxyLog { limit: 1000, ..ProxyLog::create(dir.path()).unwrap() };
        for n in 0..1000 {
            log.add(format!("line {n}\n").as_bytes());
        }
        let text = fs::read_to_string(dir.path().join(PROXY_LOG)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(text.len() <= 1000);
        assert_eq!(lines.first(), Some(&"pi: older lines were left out here"));
        assert_eq!(lines.last(), Some(&"line 999"));
        let first: usize = lines[1].strip_prefix("line ").unwrap().parse().unwrap();
        let expected: Vec<String> = (first..1000).map(|n| format!("line {n}")).collect();
        assert_eq!(lines[1..], expected);
    }

    #[test]
    fn bytes_without_an_end_of_line_do_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = ProxyLog { limit: 1000, ..ProxyLog::create(dir.path()).unwrap() };
        for _ in 0..1000 {
            log.add(&[b'x'; 400]);
        }
        assert!(fs::metadata(dir.path().join(PROXY_LOG)).unwrap().len() <= 1000);
    }
}
