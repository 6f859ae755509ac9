//! Waiting, and looking at processes.

use std::{
    fmt::Debug,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;

use super::files::children;

/// How long a test waits for anything before it says what it saw instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Looks again and again until there is a value; says what was there instead when it takes too long.
#[track_caller]
pub(crate) fn until<T, E: Debug>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    until_within(PATIENCE, what, look)
}

/// The same, with another limit.
#[track_caller]
pub(crate) fn until_within<T, E: Debug>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) => assert!(Instant::now() < end, "waited for {what} and saw {seen:#?}"),
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || if holds() { Ok(()) } else { Err(()) });
}

/// Processes whose words satisfy `wanted`.
pub(crate) fn processes(wanted: impl Fn(&[String]) -> bool) -> Vec<Pid> {
    children(Path::new("/proc"))
        .iter()
        .filter_map(|path| {
            let pid = Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?)?;
            let line = fs::read(path.join("cmdline")).ok()?;
            let words: Vec<String> = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            wanted(&words).then_some(pid)
        })
        .collect()
}
