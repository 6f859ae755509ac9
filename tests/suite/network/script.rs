//! Sessions with a defence taken away.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::world::{World, call::Running, files::write_program, model::source};

/// The script of a dry run, to be changed.
pub(crate) struct Script {
    pub(crate) text: String,
    pub(crate) id: String,
}

impl Script {
    pub(crate) fn of(world: &World, options: &[&str], command: &[&str]) -> Self {
        let args = [&["--dry-run", "--quiet"], options, command].concat();
        let said = world.pi(&args).run();
        said.has_code(0);
        let id = said.out.split("--name pi-").nth(1).unwrap()[..16].to_owned();
        Self { text: said.out, id }
    }

    /// Replaces what must be there.
    #[track_caller]
    pub(crate) fn replace(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "the script has no `{from}`:\n{}", self.text);
        self.text = self.text.replace(from, to);
    }

    /// Replaces in the one line that creates the container of this role.
    #[track_caller]
    pub(crate) fn container(&mut self, role: &str, from: &str, to: &str) {
        let label = format!("--label pi.role={role}");
        let line = self.text.lines().find(|line| line.starts_with("docker create") && line.contains(&label));
        let line = line.unwrap_or_else(|| panic!("no {role}:\n{}", self.text)).to_owned();
        assert!(line.contains(from), "no `{from}` in {line}");
        self.text = self.text.replace(&line, &line.replacen(from, to, 1));
    }

    /// Leaves out the check that the agent's container begins with.
    pub(crate) fn without_gate(&mut self) {
        self.container("agent", "docker create ", "docker create --entrypoint /usr/bin/env ");
    }

    /// Gives the sidecar other programs.
    pub(crate) fn sidecar_runs(&mut self, programs: &Path) {
        let mount = format!(
            "docker create --mount type=bind,source={},target=/usr/local/lib/pi,readonly ",
            programs.display()
        );
        self.container("proxy", "docker create ", &mount);
    }

    pub(crate) fn start(&self, world: &World) -> Running {
        world.script(&self.text).start()
    }
}

/// The sidecar's programs with parts replaced, each of which must be there.
pub(crate) fn weak_sidecar(world: &World, changes: &[(&str, &str)]) -> PathBuf {
    let dir = world.root().join("weak-sidecar");
    let files = [
        "proxy/routes", "proxy/supervisor", "proxy/sidecar.pl", "proxy/haproxy.cfg",
        "images/shared/sandbox.pl", "images/shared/socket.pl",
    ];
    let mut texts = files.map(|path| fs::read_to_string(source(path)).unwrap());
    for (from, to) in changes {
        assert!(texts.iter().any(|text| text.contains(from)), "the sidecar has no `{from}`");
        texts = texts.map(|text| text.replace(from, to));
    }
    for (path, text) in files.iter().zip(texts) {
        write_program(&dir.join(Path::new(path).file_name().unwrap()), &text);
    }
    dir
}
