//! Times of whole processes.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The times of one process.
pub(crate) struct Timed {
    /// From its start to its end.
    pub(crate) whole: Duration,
    /// From the last that it printed to its end.
    pub(crate) exit: Duration,
}

/// The times of commands that take turns, so that a machine which slows down slows all of them.
pub(crate) fn alternate<const N: usize>(runs: usize, commands: [&dyn Fn() -> Command; N]) -> [Vec<Timed>; N] {
    let mut all = commands.map(|_| vec![]);
    for run in 0..=runs {
        for (command, times) in commands.iter().zip(&mut all) {
            let timed = time(command());
            if run > 0 {
                times.push(timed);
            }
        }
    }
    all
}

/// How much memory a process has had at most, in KiB, when it prints: what it prints to is full, so it waits there. Nothing
/// of one that prints nothing.
pub(crate) fn peak(mut command: Command) -> Option<u64> {
    let (reader, mut full) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while full.write(&[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    command.stdin(Stdio::null()).stdout(full.try_clone().unwrap()).stderr(full);
    let mut child = command.spawn().unwrap();
    let of_child =
        |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(2);
    while !of_child("wchan").contains("pipe_write") && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    let status = of_child("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    let peak = peak.and_then(|kib| kib.parse().ok());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(reader);
    peak
}

/// How long so many processes take together.
pub(crate) fn at_once(count: u32, command: &(dyn Fn() -> Command + Sync)) -> Duration {
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| time(command()));
        }
    });
    begun.elapsed()
}

/// The middle one.
pub(crate) fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// In milliseconds.
pub(crate) fn median(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

fn time(mut command: Command) -> Timed {
    let begun = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = child.stderr.take().unwrap();
    let errors = thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let mut out = child.stdout.take().unwrap();
    let (mut buffer, mut last) = ([0; 8192], begun);
    while let Ok(1..) = out.read(&mut buffer) {
        last = Instant::now();
    }
    let status = child.wait().unwrap();
    let end = Instant::now();
    let errors = errors.join().unwrap();
    assert!(status.success(), "{command:?}: {status}: {errors}");
    Timed { whole: end - begun, exit: end - last }
}
