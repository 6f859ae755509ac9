//! Times of whole processes.

use std::{
    io::Read as _,
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

/// How long so many processes take together.
pub(crate) fn at_once(count: usize, command: &(dyn Fn() -> Command + Sync)) -> Duration {
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| time(command()));
        }
    });
    begun.elapsed()
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
