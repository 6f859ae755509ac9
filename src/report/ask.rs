//! Questions to the user.

use std::io::{self, Write as _};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::FileType,
    termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr},
};

use super::printable;

/// Whether stdin is a pipe or a socket that somebody may still write to.
pub(crate) fn input_is_open() -> bool {
    let stdin = io::stdin();
    let is_stream = rustix::fs::fstat(&stdin).is_ok_and(|found| {
        matches!(FileType::from_raw_mode(found.st_mode), FileType::Fifo | FileType::Socket)
    });
    let mut ask = [PollFd::new(&stdin, PollFlags::empty())];
    is_stream
        && poll(&mut ask, Some(&Timespec::default())).is_ok()
        && !ask[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Asks the user; stdin and stderr must be terminals. Only a clear yes is a yes.
pub(crate) fn ask(question: &str) -> bool {
    ask_while(question, || Ok(())).unwrap_or_default()
}

/// Asks the user, for as long as `go_on` agrees; stdin and stderr must be terminals. Only a clear yes is a yes.
///
/// # Errors
/// What `go_on` says.
pub(crate) fn ask_while(question: &str, go_on: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<bool> {
    Ok(matches!(ask_for(question, go_on)?.as_str(), "y" | "Y" | "yes"))
}

/// Asks the user for a line, for as long as `go_on` agrees; stdin and stderr must be terminals.
///
/// # Errors
/// What `go_on` says.
pub(crate) fn ask_for(question: &str, go_on: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<String> {
    let _ = write!(io::stderr().lock(), "{} ", printable(question));
    let stdin = io::stdin();
    let mut answer = String::new();
    wait_for_line(&stdin, go_on).inspect_err(|_| drop(writeln!(io::stderr().lock())))?;
    stdin.read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

/// Asks for a line that is not shown, for as long as `go_on` agrees; stdin must be a terminal.
///
/// # Errors
/// The terminal cannot be read; what `go_on` says.
pub(crate) fn ask_hidden(question: &str, go_on: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<String> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let _ = write!(io::stderr().lock(), "{} ", printable(question));
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let mut answer = String::new();
    let read = wait_for_line(&stdin, go_on).and_then(|()| Ok(stdin.read_line(&mut answer)?));
    let _ = tcsetattr(&stdin, OptionalActions::Flush, &before);
    let _ = writeln!(io::stderr().lock());
    read.map(|_| answer)
}

/// Waits until a line can be read.
fn wait_for_line(stdin: &io::Stdin, go_on: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    loop {
        go_on()?;
        let mut ask = [PollFd::new(stdin, PollFlags::IN)];
        if matches!(poll(&mut ask, Some(&moment)), Ok(1..)) {
            return Ok(());
        }
    }
}
