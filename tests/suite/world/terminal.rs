//! A terminal with a shell in it, looked at through tmux.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::{World, wait::until};

/// After how long a key is pressed again of which nothing came.
const AGAIN: Duration = Duration::from_secs(2);

/// A terminal with a shell in it, in the repository of a world.
pub(crate) struct Terminal<'a> {
    world: &'a World,
    socket: String,
}

impl<'a> Terminal<'a> {
    pub(crate) fn open(world: &'a World) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let socket = format!("pi-e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let terminal = Self { world, socket };
        let shell = ["new-session", "-d", "-x", "100", "-y", "30", "PS1='ready$ ' sh -i"];
        terminal.tmux(&[&["-f", "/dev/null"], &shell[..]].concat());
        terminal.wait("the shell's prompt", |screen| screen.contains("ready$"));
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let program = Path::new(env!("CARGO_BIN_EXE_pi")).parent().unwrap();
        let tmux = self.world.call("tmux").path_first(program).env("LANG", "C.UTF-8");
        // Where its socket goes.
        let tmux = tmux.env("TMUX_TMPDIR", self.world.root()).args(&["-L", &self.socket]);
        let done = tmux.args(args).run();
        assert_eq!(done.code, Some(0), "tmux {args:?}: {done:?}");
        done.out
    }

    /// Types text.
    pub(crate) fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Presses keys by name, such as `Enter` and `C-c`.
    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Presses keys until the screen shows what is expected: again after a while, as a person would.
    pub(crate) fn insist(&self, keys: &[&str], what: &str, shows: impl Fn(&str) -> bool) -> String {
        let mut pressed: Option<Instant> = None;
        self.wait(what, |screen| {
            let done = shows(screen);
            if !done && pressed.is_none_or(|then| then.elapsed() > AGAIN) {
                for key in keys {
                    self.keys(&[key]);
                }
                pressed = Some(Instant::now());
            }
            done
        })
    }

    /// Types a line to the shell.
    pub(crate) fn line(&self, line: &str) {
        self.text(line);
        self.keys(&["Enter"]);
    }

    /// Pastes, as a terminal does which was asked to tell pasting from typing.
    pub(crate) fn paste(&self, text: &str) {
        self.tmux(&["set-buffer", text]);
        self.tmux(&["paste-buffer", "-p"]);
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What tmux knows of the terminal, in its own format language.
    pub(crate) fn ask(&self, format: &str) -> String {
        self.tmux(&["display-message", "-p", format])
    }

    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen with what makes its colours.
    pub(crate) fn colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen shows what is expected, and returns it.
    pub(crate) fn wait(&self, what: &str, mut shows: impl FnMut(&str) -> bool) -> String {
        until(what, || {
            let screen = self.screen();
            if shows(&screen) { Ok(screen) } else { Err(screen) }
        })
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .env("TMUX_TMPDIR", self.world.root())
            .args(["-L", &self.socket, "kill-server"])
            .output();
    }
}
