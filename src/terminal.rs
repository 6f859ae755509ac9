//! The user's terminal: as it was, once the agent has had it.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use nix::unistd::getpgrp;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcgetpgrp, tcsetattr},
};

use crate::report;

/// Turns off what a program may have turned on, and was perhaps killed before it turned it off. None of it moves the
/// cursor or clears what stands there.
const RESET: &str = concat!(
    // The alternate screen; the code that also moves the cursor would move it where no alternate screen was.
    "\x1b[?1047l",
    // The mouse, the focus, pastes, output in one piece, changes of colours.
    "\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l",
    "\x1b[?2004l\x1b[?2026l\x1b[?2031l\x1b[?2048l",
    // Keyboards: kitty's protocol, xterm's, keys for applications.
    "\x1b[<99u\x1b[=0u\x1b[>4m\x1b[?1l\x1b>",
    // A part of the screen that scrolls; the cursor stays.
    "\x1b7\x1b[r\x1b8",
    // Colours, letters, inserting, wrapping, the cursor.
    "\x1b[0m\x1b(B\x0f\x1b[4l\x1b[?7h\x1b[?25h\x1b[0 q",
    // A link.
    "\x1b]8;;\x1b\\",
);

/// Asks whether the terminal is well. It answers in turn, so what it had to say before comes first.
const QUESTION: &str = "\x1b[5n";
const ANSWER: &[u8] = b"\x1b[0n";

/// How long to wait for the answer: a busy machine or a line around the world takes hundreds of milliseconds, and an answer
/// that comes later is typed into the shell. Few terminals have none.
const MOMENT: Duration = Duration::from_secs(1);

/// The terminal's settings before a program had it.
pub(crate) struct Kept {
    before: Termios,
    /// Whether the program can also write to it, and it obeys.
    shows: bool,
}

impl Kept {
    /// Notes them, where stdin is a terminal; `draws` says that it is one that obeys codes.
    pub(crate) fn now(draws: bool) -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        Some(Self { before, shows: draws && io::stdout().is_terminal() })
    }

    /// Makes the terminal what it was, and swallows what it still has to say to the program: the shell would take it for
    /// the user's words.
    pub(crate) fn restore(self) {
        // Who is in the background would be stopped here. A terminal that was closed has nobody in the foreground.
        if !tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground.as_raw_pid() == getpgrp().as_raw()) {
            return;
        }
        if self.shows {
            let mut raw = self.before.clone();
            raw.make_raw();
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
            let _ = report::data(format_args!("{RESET}{QUESTION}"));
            swallow(MOMENT);
        }
        let _ = tcflush(io::stdin(), QueueSelector::IFlush);
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Reads until the terminal's answer, for a moment.
fn swallow(moment: Duration) {
    let end = Instant::now() + moment;
    let mut last = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let stdin = io::stdin();
        let mut ask = [PollFd::new(&stdin, PollFlags::IN)];
        if !matches!(poll(&mut ask, Some(&left)), Ok(1..)) || !ask[0].revents().contains(PollFlags::IN) {
            return;
        }
        // Past the standard library's own buffer, which would keep some for itself.
        match rustix::io::read(&stdin, &mut buffer) {
            Ok(n @ 1..) => last.extend_from_slice(&buffer[..n]),
            _ => return,
        }
        if last.windows(ANSWER.len()).any(|window| window == ANSWER) {
            return;
        }
        let surplus = last.len().saturating_sub(ANSWER.len());
        last.drain(..surplus);
    }
}
