//! Other programs as children: what they print, and their end together with all that they started.

use std::{
    io::Read,
    sync::mpsc::{Receiver, channel},
    thread,
};

use rustix::process::{Pid, Signal, kill_process_group};
use shared_child::SharedChild;

/// Reads a pipe in a thread, to its end or to a limit of bytes. Says whether that was all.
pub(crate) fn drain(pipe: Option<impl Read + Send + 'static>, limit: u64) -> Receiver<(Vec<u8>, bool)> {
    let (send, receive) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.map_or(Ok(0), |pipe| pipe.take(limit + 1).read_to_end(&mut bytes));
        let whole = read.is_ok() && bytes.len() as u64 <= limit;
        // After an error, the bytes before it are still worth showing.
        let _ = send.send((bytes, whole));
    });
    receive
}

/// Ends all of the process group that a child leads.
pub(crate) fn kill_group(child: &SharedChild) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}
