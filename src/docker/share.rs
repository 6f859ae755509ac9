//! What a session's output may cost the machine. An engine copies each byte several times, and none of that counts as the
//! session's own. Where the client that shows it is held, so is everybody before it, down to the agent.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use shared_child::{SharedChild, unix::SharedChildExt as _};
use signal_hook::consts::{SIGCONT, SIGSTOP};

/// The client's part of what the output costs: the engine, the shim and the launcher's terminal have the rest.
const PART: f64 = 0.25;

/// How often to look.
const OFTEN: Duration = Duration::from_millis(100);

/// How long a client is held at most: what is typed waits for it.
const LONGEST: Duration = Duration::from_secs(2);

/// What may be saved up, in seconds of a processor: a long answer comes at once.
const SAVED: f64 = 0.25;

/// Keeps the client to its part of so many processors, until it ends.
pub(super) fn keep(client: Arc<SharedChild>, processors: f64) {
    thread::spawn(move || {
        let share = processors * PART;
        let mut credit = SAVED;
        let (mut begun, mut before) = (Instant::now(), used(client.id()));
        while matches!(client.wait_timeout(OFTEN), Ok(None)) {
            let now = used(client.id());
            credit = (credit + begun.elapsed().as_secs_f64() * share - (now - before)).min(SAVED);
            (begun, before) = (Instant::now(), now);
            if credit < 0.0 && client.send_signal(SIGSTOP).is_ok() {
                let debt = Duration::try_from_secs_f64(-credit / share).unwrap_or(LONGEST);
                let _ = client.wait_timeout(debt.min(LONGEST));
                let _ = client.send_signal(SIGCONT);
            }
        }
    });
}

/// The processor time that a process has used, in seconds; none where the system does not tell.
fn used(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name comes first, and may hold anything.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    f64::from(ticks) / TICKS
}

/// Linux counts so many in a second, on every machine.
const TICKS: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_too_busy_is_held_and_ends_as_it_would() {
        let busy = |processors: f64| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", "while :; do :; done"]);
            let client = Arc::new(SharedChild::spawn(&mut command).unwrap());
            let begun = Instant::now();
            keep(client.clone(), processors);
            // Until it has had what it may save up, and a good deal of time.
            while used(client.id()) < SAVED || begun.elapsed() < Duration::from_secs(2) {
                assert!(begun.elapsed() < Duration::from_secs(60));
                thread::sleep(OFTEN);
            }
            let share = (used(client.id()) - SAVED) / begun.elapsed().as_secs_f64();
            client.kill().unwrap();
            assert!(!client.wait().unwrap().success());
            share
        };
        let held = busy(0.2);
        assert!(held < 0.12, "{held}");
    }
}
