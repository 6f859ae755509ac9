//! The launcher's messages on stderr, its data on stdout, and its exit status. Only this module writes to them.

mod ask;
mod travel;

use std::{
    cell::Cell,
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicU8, Ordering},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(crate) use self::{
    ask::{ask, ask_for, ask_hidden, ask_while, input_is_open},
    travel::Travel,
};

/// The launcher itself failed. `docker run` and `timeout` use the same number.
pub(crate) const FAILED: u8 = 125;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;

const QUIET: u8 = 0;
const NORMAL: u8 = 1;
const VERBOSE: u8 = 2;

static VERBOSITY: AtomicU8 = AtomicU8::new(NORMAL);

thread_local! {
    static ON_THE_SIDE: Cell<bool> = const { Cell::new(false) };
}

/// Sets the verbosity of the process. `--verbose` wins over `--quiet`.
pub(crate) fn set_verbosity(verbose: bool, quiet: bool) {
    let level = match (verbose, quiet) {
        (true, _) => VERBOSE,
        (false, true) => QUIET,
        (false, false) => NORMAL,
    };
    VERBOSITY.store(level, Ordering::Relaxed);
}

/// Whether `--quiet` asked for errors only, or this thread does something on the side.
pub(crate) fn is_quiet() -> bool {
    ON_THE_SIDE.get() || VERBOSITY.load(Ordering::Relaxed) == QUIET
}

/// Whether to print docker commands before they run.
pub(crate) fn is_verbose() -> bool {
    VERBOSITY.load(Ordering::Relaxed) == VERBOSE
}

/// Does something without notes and warnings, in this thread; a session may run beside it.
pub(crate) fn quietly<T>(act: impl FnOnce() -> T) -> T {
    let before = ON_THE_SIDE.replace(!is_verbose());
    let outcome = act();
    ON_THE_SIDE.set(before);
    outcome
}

/// Prints a line that is neither a warning nor an error.
pub(crate) fn note(message: impl Display) {
    if !is_quiet() {
        line("pi: ", &message);
    }
}

/// Prints a warning.
pub(crate) fn warn(message: impl Display) {
    if !is_quiet() {
        line("pi: warning: ", &message);
    }
}

/// Prints an error that cannot be returned to `main`, as in a teardown.
pub(crate) fn complain(message: impl Display) {
    line("pi: error: ", &message);
}

/// Prints what to do about the message before.
fn hint(message: impl Display) {
    line("pi: hint: ", &message);
}

/// Prints a line with `--verbose` only.
pub(crate) fn detail(message: impl Display) {
    if is_verbose() {
        line("pi: ", &message);
    }
}

/// Prints a docker command with `--verbose` only.
pub(crate) fn trace(command: impl Display) {
    if is_verbose() {
        line("+ ", &command);
    }
}

/// Passes on a child's output unchanged.
pub(crate) fn progress(bytes: &[u8]) {
    // A closed terminal must not end a teardown, so this module ignores failures to write to stderr.
    let _ = io::stderr().lock().write_all(bytes);
}

/// Prints the requested data to stdout. Nothing else goes there.
pub(crate) fn data(text: impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        // A reader such as `head` stops early.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| anyhow::anyhow!("could not write to stdout: {error}")),
    }
}

/// Whether stdout is a pipe without a reader.
pub(crate) fn nobody_reads() -> bool {
    let stdout = io::stdout();
    let mut ask = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut ask, Some(&Timespec::default())).is_ok() && ask[0].revents().contains(PollFlags::ERR)
}

/// A value as JSON. Characters that control a terminal are escaped.
pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    use std::fmt::Write as _;

    let text = serde_json::to_string_pretty(value)?;
    let mut plain = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if (c.is_control() && c != '\n') || turns_text(c) {
            let _ = write!(plain, "\\u{:04x}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    Ok(plain + "\n")
}

/// Prints the program's error, if any, and returns its exit status.
pub(crate) fn exit(outcome: anyhow::Result<u8>) -> ExitCode {
    ExitCode::from(settle(outcome))
}

/// The same, as a number.
pub(crate) fn settle(outcome: anyhow::Result<u8>) -> u8 {
    outcome.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &anyhow::Error) -> u8 {
    let code = code(error);
    if error.is::<Interrupted>() {
        return code;
    }
    tell(error);
    code
}

/// Prints an error with its hint.
pub(crate) fn tell(error: &anyhow::Error) {
    line("pi: error: ", &format!("{error:#}"));
    match hinted(error) {
        Some(hinted) => hinted.hint().iter().for_each(hint),
        None if is_full(error) => {
            hint("make room on the disk of that file; `df -h` shows how full it is");
        }
        None if error.chain().any(|cause| is_io(cause, &CLOSED)) => {
            hint(
                "you must be able to write there: `ls -ld` shows whose it is, and `df` whether it can be written at all",
            );
        }
        None => {}
    }
}

/// The hint for a full disk.
pub(crate) const MAKE_ROOM: &str = "make room on that disk; `pi clean --images --caches` and `docker system prune` remove what can be rebuilt";

fn hinted(error: &anyhow::Error) -> Option<&Hinted> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// The exit status for an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(Interrupted(signal)) => 128 + signal,
        None => hinted(error).map_or(FAILED, |hinted| hinted.code),
    }
}

/// Whether a full disk, or the end of a quota, is the cause of an error.
pub(crate) fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| is_io(cause, &FULL))
}

const FULL: [io::ErrorKind; 2] = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
const CLOSED: [io::ErrorKind; 2] = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];

fn is_io(cause: &(dyn std::error::Error + 'static), kinds: &[io::ErrorKind]) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| kinds.contains(&error.kind()))
}

fn line(prefix: &str, message: &dyn Display) {
    // A message may quote text of others. Indented lines of it cannot look like our own messages.
    let text = printable(&message.to_string()).replace('\n', "\n  ");
    let mut stderr = io::stderr().lock();
    // While a session has the terminal, nobody but us brings the next line to its left edge.
    let _ = if stderr.is_terminal() {
        write!(stderr, "{}\r\n", format!("{prefix}{text}").replace('\n', "\r\n"))
    } else {
        writeln!(stderr, "{prefix}{text}")
    };
}

/// `text` without characters that control a terminal: messages may quote text of others.
pub(crate) fn printable(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|c| if (c.is_control() && c != '\n' && c != '\t') || turns_text(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Whether a terminal changes the order of text at this mark.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` as one printable line.
pub(crate) fn one_line(text: &str) -> String {
    printable(&text.replace(['\n', '\t'], "\u{fffd}"))
}

/// A path as one printable line.
pub(crate) fn shown_path(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

/// `text` of others as one printable line, cut where it is long.
pub(crate) fn short(text: &str) -> String {
    let line = one_line(text);
    match line.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// `text` as one word of a POSIX shell.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Something that the user should know, and what to do about it, if anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

impl Finding {
    /// A fact without a hint.
    pub(crate) fn plain(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// A fact with a hint.
    pub(crate) fn hinted(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: Some(hint.into()) }
    }

    /// Prints it as a warning.
    pub(crate) fn warn(&self) {
        warn(&self.what);
        if let Some(next) = self.hint.as_ref().filter(|_| !is_quiet()) {
            hint(next);
        }
    }
}

/// A signal ended the launcher, which needs no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupted(pub(crate) u8);

impl Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted by signal {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// An error with an exit status, and perhaps a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hinted {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Hinted {
    /// An error with a hint.
    pub(crate) fn error(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self::new(message, hint).into()
    }

    /// The same, for later.
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), code: FAILED }
    }

    /// A usage error.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self { message: message.into(), hint: None, code: USAGE }.into()
    }

    /// A usage error with a hint.
    pub(crate) fn usage_hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self { message: message.into(), hint: Some(hint.into()), code: USAGE }.into()
    }

    /// What to do next.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl Display for Hinted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hinted {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_in_json_and_comes_back_from_it() {
        let odd = ["a\u{9b}31m\u{202e}b\u{7f}\n\u{1b}", "plain \u{e4}"];
        let text = json(&odd).unwrap();
        assert!(text.chars().all(|c| (!c.is_control() || c == '\n') && !turns_text(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), odd);
    }

    #[test]
    fn nothing_a_terminal_would_obey_survives() {
        assert_eq!(
            printable("a\u{1b}]0;title\u{7}b\r\nc\u{9b}1m"),
            "a\u{fffd}]0;title\u{fffd}b\u{fffd}\nc\u{fffd}1m"
        );
    }

    #[test]
    fn an_interruption_wins_over_the_general_failure() {
        assert_eq!(fail(&Interrupted(15).into()), 143);
        assert_eq!(fail(&Hinted::usage("no")), USAGE);
        assert_eq!(fail(&anyhow::anyhow!("no")), FAILED);
    }
}
