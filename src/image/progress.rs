//! How far a build is: one line on a terminal, nothing elsewhere. The log has all of what docker says.

use std::{sync::Mutex, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report;

/// A line is never longer; what is behind says nothing about steps.
const LONGEST_LINE: usize = 4096;

/// Takes what docker prints, and shows the step and the time.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// The beginning of a line whose end has not come yet.
    line: Mutex<Vec<u8>>,
}

impl Progress {
    /// `on_terminal`: whether somebody looks. With `--verbose` docker's own words are shown instead.
    pub(super) fn of(image: &str, on_terminal: bool) -> Self {
        let shows = on_terminal && !report::is_quiet() && !report::is_verbose();
        let bar = shows.then(|| {
            let style =
                ProgressStyle::with_template("pi: {prefix} [{bar:16}] {pos}/{len} {elapsed} {wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(4));
            bar.set_style(style);
            bar.set_prefix(image.to_owned());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar, line: Mutex::default() }
    }

    /// Docker printed this.
    pub(super) fn take(&self, bytes: &[u8]) {
        if report::is_verbose() {
            report::progress(bytes);
        }
        let Some(bar) = &self.bar else { return };
        let Ok(mut line) = self.line.lock() else { return };
        for byte in bytes {
            if *byte == b'\n' {
                if let Some(Step { done, all, what }) = Step::read(&String::from_utf8_lossy(&line)) {
                    bar.set_length(all);
                    bar.set_position(done);
                    bar.set_message(report::one_line(&what));
                }
                line.clear();
            } else if line.len() < LONGEST_LINE {
                line.push(*byte);
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A step that has begun.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// How many are done.
    done: u64,
    all: u64,
    what: String,
}

impl Step {
    /// Reads `Step 5/14 : RUN …` of the builder in the engine, and `#9 [base 5/14] RUN …` of buildx.
    fn read(line: &str) -> Option<Self> {
        let (numbers, what) = match line.strip_prefix("Step ") {
            Some(rest) => rest.split_once(" : ")?,
            None => line.strip_prefix('#')?.split_once(" [")?.1.split_once("] ")?,
        };
        let (step, all) = numbers.rsplit(' ').next()?.split_once('/')?;
        let (step, all): (u64, u64) = (step.parse().ok()?, all.parse().ok()?);
        (1..=all).contains(&step).then(|| Self { done: step - 1, all, what: what.trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_builders_say_which_step_it_is() {
        let step = |done, all, what: &str| Some(Step { done, all, what: what.to_owned() });
        assert_eq!(Step::read("Step 5/14 : RUN sh install"), step(4, 14, "RUN sh install"));
        assert_eq!(Step::read("#9 [stage-1 2/3] COPY a b\r"), step(1, 3, "COPY a b"));
        assert_eq!(Step::read("#9 [1/3] FROM x"), step(0, 3, "FROM x"));
        for other in [
            "#9 0.3 Get:1 [1,234 B]", " ---> Running in 1/2", "Step 0/3 : X", "Step 4/3 : X",
            "#1 [internal] load", "",
        ] {
            assert_eq!(Step::read(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_build_prints_the_bar_stays_within_its_length(text in "(#|Step |[0-9/ \\[\\]:]|.){0,60}") {
            if let Some(Step { done, all, .. }) = Step::read(&text) {
                prop_assert!(done < all);
            }
        }
    }
}
