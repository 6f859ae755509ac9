//! The agent's own locks: a directory `FILE.lock` beside the file, which counts for some time after it was touched.
//! (The agent uses `proper-lockfile`; it touches a lock that it keeps for longer.)

use std::{
    ffi::{OsStr, OsString},
    io, thread,
    time::{Duration, Instant, SystemTime},
};

use super::{entry::LOGINS, fd::Dir};

/// After this a lock belongs to somebody who was killed. An agent that renews a token touches its lock less often.
fn stale(file: &str) -> Duration {
    Duration::from_secs(if file == LOGINS { 30 } else { 10 })
}

/// A lock of the agent's that we hold.
#[derive(Debug)]
pub(crate) struct AgentLock {
    dir: Dir,
    name: OsString,
}

impl AgentLock {
    /// Waits for the lock of a file in this directory.
    ///
    /// # Errors
    /// `TimedOut` where an agent holds it for longer; as the system has it.
    pub(crate) fn take(dir: &Dir, file: &str, patience: Duration) -> io::Result<Self> {
        let name = OsString::from(format!("{file}.lock"));
        let begun = Instant::now();
        loop {
            match dir.make_new(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.and_then(|()| Ok(Self { dir: dir.again()?, name })),
            }
            if is_stale(dir, &name, stale(file))? {
                match dir.remove_dir(&name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => continue,
                }
            }
            if begun.elapsed() > patience {
                let why = format!("an agent has held `{}` for {} s", name.display(), patience.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Shows that it is still held.
    pub(crate) fn touch(&self) {
        let _ = self.dir.touch(&self.name);
    }
}

impl Drop for AgentLock {
    fn drop(&mut self) {
        let _ = self.dir.remove_dir(&self.name);
    }
}

fn is_stale(dir: &Dir, name: &OsStr, after: Duration) -> io::Result<bool> {
    let touched = match dir.dir(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?.metadata()?.modified()?,
    };
    Ok(SystemTime::now().duration_since(touched).is_ok_and(|age| age > after))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_one_that_was_left_is_taken_over() {
        let base = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(base.path()).unwrap();
        let dir = Dir::open(&path).unwrap();
        let held = AgentLock::take(&dir, "settings.json", Duration::ZERO).unwrap();
        assert!(path.join("settings.json.lock").is_dir());
        let late = AgentLock::take(&dir, "settings.json", Duration::from_millis(30)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        drop(held);
        assert!(!path.join("settings.json.lock").exists());
        fs::create_dir(path.join("settings.json.lock")).unwrap();
        let old = SystemTime::now() - Duration::from_secs(11);
        fs::File::open(path.join("settings.json.lock")).unwrap().set_modified(old).unwrap();
        AgentLock::take(&dir, "settings.json", Duration::ZERO).unwrap();
    }
}
