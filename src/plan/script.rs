//! The plan as a shell script: the dry run.

use std::fmt::Write as _;

use super::{Directory, File, Keep, Plan, Text, down};
use crate::docker::{Value, quote};

impl Plan {
    /// The plan as a shell script that does what the launcher would do; secrets are expected in the environment.
    pub(crate) fn script(&self) -> String {
        let mut text =
            String::from("#!/bin/sh\n# What `pi` would run here, now. The image is `pi build`'s.\nset -eu\n");
        let mut line = |words: &str| {
            let _ = writeln!(text, "{words}");
        };
        line(&format!("export DOCKER_HOST={}", quote(&self.record.engine)));
        for (name, value) in &self.agent.env {
            if matches!(value, Value::Secret(_)) {
                line(&format!(": \"${{{name}?set it to the secret that goes into the container}}\""));
                line(&format!("export {name}"));
            }
        }
        let state = quote(&self.state.to_string_lossy());
        line("down() {");
        line("  trap - EXIT; exec 9>&- || true");
        for cmd in down(&self.record.id) {
            line(&format!("  {cmd} >/dev/null 2>&1 || true"));
        }
        line(&format!("  rm -rf {state}"));
        line("}");
        line("trap down EXIT");
        line("trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM");
        line(&format!("umask 077; mkdir -p {state}"));
        for Directory { path, owner } in &self.directories {
            let path = quote(&path.to_string_lossy());
            let chown = owner
                .map(|owner| format!(" && chown {}:{} {path}", owner.uid, owner.gid))
                .unwrap_or_default();
            line(&format!("[ -d {path} ] || {{ mkdir -p {path}{chown}; }}"));
        }
        for file in &self.files {
            line(&file.script());
        }
        if let Some(network) = &self.network {
            line(&format!("{} >/dev/null", network.create()));
        }
        if let Some(sidecar) = &self.sidecar {
            line(&format!("{} >/dev/null", sidecar.create()));
            if let (Some(network), Some(address)) = (&self.network, self.sidecar_address) {
                line(&network.connect(&sidecar.name, address).to_string());
            }
            line(&format!("mkfifo {state}/stdin"));
            line(&format!("{} <{state}/stdin >{state}/proxy.log 2>&1 &", sidecar.attach()));
            line(&format!("exec 9>{state}/stdin"));
        }
        if let Some(model) = &self.model {
            line(&format!("{} >/dev/null", model.create()));
            line(&format!("{} >/dev/null", model.start()));
        }
        line(&format!("{} >/dev/null", self.agent.create()));
        line("code=0");
        line(&format!("{} 9>&- || code=$?", self.agent.attach()));
        line("exit $code");
        text
    }
}

impl File {
    fn script(&self) -> String {
        let Self { path, text, keep, owner } = self;
        let text = match text {
            Text::Plain(text) => text.as_str(),
            Text::Secret(_) => "# Left out: it holds a password.\n",
        };
        let dir = path.parent().map(|dir| quote(&dir.to_string_lossy())).unwrap_or_default();
        let path = quote(&path.to_string_lossy());
        let mut end = String::from("EOF");
        while text.lines().any(|line| line == end) {
            end.push('_');
        }
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        match keep {
            Keep::Session => {
                format!("(umask 022; mkdir -p {dir}; cat >{path} <<'{end}'\n{text}{newline}{end}\n)")
            }
            Keep::Existing => {
                let chown =
                    owner.map(|to| format!("chown {}:{} {path}\n", to.uid, to.gid)).unwrap_or_default();
                format!("[ -e {path} ] || {{\ncat >{path} <<'{end}'\n{text}{newline}{end}\n{chown}}}")
            }
        }
    }
}
