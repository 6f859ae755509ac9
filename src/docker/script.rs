//! The plan as a shell script, for a dry run.

use std::fmt::Write as _;

use super::{Cmd, down, render};
use crate::{
    config::Access,
    egress::{Brokered, Rendered, Told},
    plan::{Container, File, Mount, Needed, Needs, Plan, Streams},
    report::{self, quote},
    secret::Value,
};

/// A shell script that does the same as the launcher. It expects secrets in the environment.
pub(crate) fn script(plan: &Plan) -> String {
    let mut text =
        String::from("#!/bin/sh\n# What `pi` would run here, now. The image is `pi build`'s.\nset -eu\n");
    let mut line = |words: &str| {
        let _ = writeln!(text, "{words}");
    };
    line(&format!("export DOCKER_HOST={}", quote(&plan.record.engine)));
    for (name, value) in &plan.agent.env {
        if matches!(value, Value::Secret(_)) {
            line(&format!(": \"${{{name}?set it to the secret that goes into the container}}\""));
            line(&format!("export {name}"));
        }
    }
    let state = quote(&plan.state.to_string_lossy());
    if let Some(copied) = &plan.copied {
        for told in copied.lines() {
            line(&format!("# {}", report::one_line(told)));
        }
    }
    line("down() {");
    line("  trap - EXIT; exec 9>&- || true");
    for cmd in down(&plan.record.id) {
        line(&format!("  {cmd} >/dev/null 2>&1 || true"));
    }
    line(&format!("  rm -rf {state}"));
    line("}");
    line("trap down EXIT");
    line("trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM");
    line(&format!("umask 077; mkdir -p {state}"));
    line(
        "# The agent's own directory: what is set in these copies, `pi` would take back at the end, and this does not.",
    );
    let is_read_only = |mount: &Mount| mount.access == Access::ReadOnly && mount.target.ends_with(".git");
    if plan.agent.mounts.iter().any(is_read_only) {
        line(
            "# Git is read-only here: `pi` gives the agent a git directory of its own, and brings its commits over.",
        );
    }
    for needed in &plan.needed {
        line(&needed_script(needed));
    }
    for file in &plan.files {
        line(&file_script(file));
    }
    if let Some(network) = &plan.network {
        line(&format!("{} >/dev/null", render::create_network(network)));
    }
    if let Some(sidecar) = &plan.sidecar {
        line(&format!("{} >/dev/null", render::create(sidecar)));
        if let (Some(network), Some(address)) = (&plan.network, plan.sidecar_address) {
            line(&render::connect(network, sidecar, address).to_string());
        }
        line(&format!("mkfifo {state}/stdin"));
        line(&format!("{} <{state}/stdin >{state}/proxy.log 2>&1 &", render::attach(sidecar)));
        line(&format!("exec 9>{state}/stdin"));
    }
    if !plan.relays.is_empty() {
        line("# `pi` itself passes on to model servers on 127.0.0.1, and this does not.");
    }
    if let Some(all) = &plan.told {
        line(&told(all));
    }
    if let Some(model) = &plan.model {
        line(&format!("{} >/dev/null", render::create(model)));
        line(&format!("{} >/dev/null", render::start(model)));
    }
    if plan.agent.streams != Streams::Silent {
        line(STREAMS);
    }
    line(&format!("{} >/dev/null", on_streams(&plan.agent, render::create)));
    if let (Some(network), Some(address)) = (&plan.network, plan.agent_address) {
        line(&render::connect(network, &plan.agent, address).to_string());
    }
    line("code=0");
    line(&format!("{} 9>&- || code=$?", on_streams(&plan.agent, render::attach)));
    line("exit $code");
    text
}

/// What a session's streams are, decided where the script runs, and as `pi` does.
const STREAMS: &str = "input=--interactive terminal=\nif [ -t 0 ] && [ -t 1 ]; then terminal=--tty; elif [ -t 0 ]; then input=; fi";

/// A command for the agent's container, with streams that are decided where the script runs.
fn on_streams(container: &Container, render: fn(&Container) -> Cmd) -> String {
    if container.streams == Streams::Silent {
        return render(container).to_string();
    }
    let mut text = String::from("docker");
    // Docker's own options come before the words for the agent.
    let mut decided = vec![("--tty", "$terminal"), ("--interactive", "$input")];
    for arg in &render(&Container { streams: Streams::Tty, ..container.clone() }).args {
        let found = decided.iter().position(|(option, _)| arg == *option);
        let word = found.map(|at| decided.remove(at).1.to_owned());
        let _ = write!(text, " {}", word.unwrap_or_else(|| quote(&arg.to_string_lossy())));
    }
    text
}

/// Tells the sidecar, on descriptor 9, what the launcher would; without the keys.
fn told(Told { closed, published, rules, broker }: &Told) -> String {
    let mut text = String::from(
        "file() {\n  text=$(cat; echo .); text=${text%.}\n  \
         printf 'file %s %d\\n%s' \"$1\" \"$(printf %s \"$text\" | wc -c)\" \"$text\"\n}\n{\n",
    );
    let mut file = |name: &str, content: &str| {
        let _ = writeln!(text, "file {name} {}", here(content));
    };
    file("closed", closed);
    file("published", published);
    if let Some(Rendered { lan, .. }) = rules {
        file("lan", lan);
    }
    if let Some(Brokered { lan, .. }) = broker {
        file("broker.lan", lan);
    }
    text.push_str("echo routes\n");
    let mut file = |name: &str, content: &str| {
        let _ = writeln!(text, "file {name} {}", here(content));
    };
    if let Some(Rendered { conf, filter, lan: _ }) = rules {
        file("tinyproxy.conf", shown(conf));
        file("filter", filter);
    }
    if let Some(Brokered { config, authorities, keys: _, lan: _ }) = broker {
        file("broker.cfg", config);
        file("keys.map", "# Left out.\n");
        file("ca.pem", authorities);
    }
    text.push_str("echo apply\n} >&9");
    text
}

fn shown(text: &Value) -> &str {
    match text {
        Value::Plain(text) => text,
        Value::Secret(_) => "# Left out: it holds a password.\n",
    }
}

/// A here-document.
fn here(text: &str) -> String {
    let mut end = String::from("EOF");
    while text.lines().any(|line| line == end) {
        end.push('_');
    }
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("<<'{end}'\n{text}{newline}{end}")
}

fn file_script(File { path, text }: &File) -> String {
    let text = here(shown(text));
    let dir = path.parent().map(|dir| quote(&dir.to_string_lossy())).unwrap_or_default();
    let path = quote(&path.to_string_lossy());
    format!("(umask 022; mkdir -p {dir}; cat >{path} {text}\n)")
}

fn needed_script(Needed { path, kind, owner }: &Needed) -> String {
    let dir = path.parent().map(|dir| quote(&dir.to_string_lossy())).unwrap_or_default();
    let is_json = path.extension().is_some_and(|kind| kind == "json");
    let path = quote(&path.to_string_lossy());
    let empty = if is_json { "echo '{}'" } else { ":" };
    let chown =
        owner.map(|owner| format!(" && chown {}:{} {path}", owner.uid, owner.gid)).unwrap_or_default();
    match kind {
        Needs::Directory => format!("[ -d {path} ] || {{ mkdir -p {path}{chown}; }}"),
        Needs::File => format!("[ -e {path} ] || {{ mkdir -p {dir} && {empty} >{path}{chown}; }}"),
        Needs::Copy(of) => {
            let of = quote(&of.to_string_lossy());
            format!("mkdir -p {dir} && {{ cat {of} 2>/dev/null || {empty}; }} >{path}{chown}")
        }
        Needs::Text(Value::Secret(_)) => format!("mkdir -p {dir} && {empty} >{path}{chown} # it holds a key"),
        Needs::Text(Value::Plain(text)) => {
            // What follows a here-document has a line of its own.
            let chown = chown.strip_prefix(" && ").map(|chown| format!("\n{chown}")).unwrap_or_default();
            format!("mkdir -p {dir} && cat >{path} {}{chown}", here(text))
        }
    }
}
