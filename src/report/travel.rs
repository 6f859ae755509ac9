//! How much has gone over to an engine, or has come from it: one line on a terminal where that takes longer than a moment,
//! nothing elsewhere.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// What is over by then is not shown.
const MOMENT: Duration = Duration::from_secs(1);

/// A pipe takes no more at once, and what it has taken is counted.
const AT_ONCE: usize = 1 << 16;

/// Something on its way. Its line is gone when this is dropped.
pub(crate) struct Travel(Option<ProgressBar>);

impl Travel {
    /// `what` is a purpose, as in "could not …". `watched`: whether somebody looks at stderr. With `--verbose` the commands
    /// are shown instead.
    pub(crate) fn begin(what: &str, watched: bool) -> Self {
        if !watched || super::is_quiet() || super::is_verbose() {
            return Self(None);
        }
        let what = super::one_line(what);
        let line = move |state: &ProgressState, to: &mut dyn fmt::Write| {
            let _ = to.write_str(&line(&what, state.pos(), state.elapsed()));
        };
        let style =
            ProgressStyle::with_template("{line}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
        bar.set_style(style.with_key("line", line));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(Some(bar))
    }

    /// The same stream, of which every byte is counted.
    pub(crate) fn counting<W: Write>(&self, to: W) -> Counting<'_, W> {
        Counting { to, travel: self }
    }
}

impl Drop for Travel {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// A stream of which every byte is counted.
pub(crate) struct Counting<'a, W> {
    to: W,
    travel: &'a Travel,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(&bytes[..bytes.len().min(AT_ONCE)])?;
        if let Some(bar) = &self.travel.0 {
            bar.inc(written as u64);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The purpose, the bytes where there are any, and the time.
fn line(what: &str, bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match bytes {
        _ if elapsed < MOMENT => String::new(),
        0 => format!("pi: {what}: {seconds} s"),
        _ => format!("pi: {what}: {}, {seconds} s", BinaryBytes(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_bytes_and_time_and_what_is_over_soon_has_none() {
        let line = |bytes, milliseconds| line("copy it", bytes, Duration::from_millis(milliseconds));
        assert_eq!(line(1 << 20, 900), "");
        assert_eq!(line(0, 2500), "pi: copy it: 2 s");
        assert_eq!(line(3 << 19, 61_000), "pi: copy it: 1.50 MiB, 61 s");
    }

    #[test]
    fn all_that_is_written_goes_through() {
        let travel = Travel::begin("copy it", false);
        let mut all = Vec::new();
        travel.counting(&mut all).write_all(&vec![7; 3 * AT_ONCE + 1]).unwrap();
        assert_eq!(all, vec![7; 3 * AT_ONCE + 1]);
    }
}
