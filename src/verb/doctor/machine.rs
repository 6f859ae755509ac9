//! The machine and the launcher itself.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::statvfs;

use super::Line;
use crate::{
    launcher::Launcher,
    record::{self, Dead, Live},
};

/// The launcher, other programs of its name, the kernel, the disk, and leftovers of sessions.
pub(super) fn look(launcher: &Launcher) -> Vec<Line> {
    let host = &launcher.host;
    let mut lines = own(launcher);
    if cfg!(target_os = "linux") {
        lines.push(landlock(fs::read_to_string("/sys/kernel/security/lsm").ok().as_deref()));
        lines.push(if host.filters_sources {
            Line::fine("machine", "the kernel filters packets by their source (rp_filter)")
        } else {
            Line::note(
                "machine",
                "rp_filter is 0: an agent with a restricted network can send single UDP datagrams to its listeners, \
                 and gets no answer",
                "`sysctl net.ipv4.conf.all.rp_filter=2` prevents that",
            )
        });
    }
    lines.extend(room(&host.home));
    let lost = record::lost(host);
    let is_lost = |dead: &Dead| lost.iter().any(|session| session.record.id == dead.id);
    lines.extend(lost.iter().map(|Live { record, .. }| {
        let what = format!("the session `{}` has lost its launcher", record.name);
        Line::note("sessions", what, record::what_next(&record.name))
    }));
    lines.push(match record::all(host) {
        Ok((live, dead)) => match dead.iter().filter(|dead| !is_lost(dead)).count() {
            0 => Line::fine("sessions", format!("{} running, none left over", live.len())),
            left => Line::note(
                "sessions",
                format!("{} running; {left} that did not end properly", live.len()),
                "`pi clean` removes what they left; the next `pi` does too",
            ),
        },
        Err(error) => Line::failed("sessions", &error, "make that directory yours and readable"),
    });
    lines
}

/// This program, and others called `pi`: the agent's own is one of them.
fn own(launcher: &Launcher) -> Vec<Line> {
    let me = env::current_exe().and_then(fs::canonicalize).unwrap_or_default();
    let mut lines =
        vec![Line::fine("launcher", format!("pi {}, `{}`", env!("CARGO_PKG_VERSION"), me.display()))];
    let path = launcher.host.env.get(std::ffi::OsStr::new("PATH"));
    let named: Vec<PathBuf> = path
        .into_iter()
        .flat_map(env::split_paths)
        .map(|dir| dir.join("pi"))
        .filter(|file| is_program(file))
        .collect();
    let is_me = |file: &PathBuf| fs::canonicalize(file).is_ok_and(|real| real == me);
    let first_own = named.iter().position(is_me);
    for (at, other) in named.iter().enumerate().filter(|(_, file)| !is_me(file)) {
        let other = other.display();
        lines.push(if first_own.is_none_or(|own| at < own) {
            Line::note(
                "launcher",
                format!("`pi` runs `{other}`, which is another program: the agent's own is called `pi` too, and runs unprotected"),
                format!("put `{}` before it on the `PATH`, or remove it", me.parent().unwrap_or(&me).display()),
            )
        } else {
            Line::fine("launcher", format!("another program `{other}` comes later on the `PATH`"))
        });
    }
    lines
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Landlock, from the list of the kernel's security modules.
fn landlock(modules: Option<&str>) -> Line {
    match modules {
        Some(list) if list.trim().split(',').any(|name| name == "landlock") => {
            Line::fine("machine", "the kernel has Landlock, a second wall around files")
        }
        Some(_) => Line::note(
            "machine",
            "the kernel runs without Landlock, so one of two walls around files is missing",
            "add `landlock` to the kernel's `lsm=` list; it is in Linux since 5.13",
        ),
        None => Line::note(
            "machine",
            "the kernel's security modules cannot be read, so it is not known whether it has Landlock",
            "`pi demo` tries the walls; `mount -t securityfs none /sys/kernel/security` lets `pi doctor` read them",
        ),
    }
}

/// Below this many bytes a build or a session may fail.
const LITTLE: u64 = 5 << 30;

fn room(home: &Path) -> Option<Line> {
    let found = statvfs(home).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let device = fs::metadata(home).ok()?.dev();
    let what = format!("{} GiB free where your home is (device {device})", free >> 30);
    Some(if free < LITTLE {
        Line::note("machine", what, crate::report::MAKE_ROOM)
    } else {
        Line::fine("machine", what)
    })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_kernel_without_landlock_is_named() {
        assert_eq!(landlock(Some("capability,landlock,bpf\n")).state, State::Fine);
        assert_eq!(landlock(Some("capability,bpf\n")).state, State::Note);
        assert_eq!(landlock(None).state, State::Note);
    }
}
