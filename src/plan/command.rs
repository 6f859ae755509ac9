//! The agent's command line, and what its subagents are told.

use serde::Serialize;

use super::{Copied, Inputs, Purpose, Reach};
use crate::{agent, config::Published, facts::Rules, git::given::Given, inside};

/// The command of the agent's container.
pub(super) fn command(inputs: &Inputs<'_>) -> Vec<String> {
    let Inputs { program, config, .. } = inputs;
    let args = &program.words;
    if matches!(program.purpose, Purpose::Shell | Purpose::Proof) {
        return args.clone();
    }
    if program.purpose == Purpose::Renew {
        let script = agent::login::RENEW.map(str::to_owned);
        return script.into_iter().chain(args.iter().cloned()).collect();
    }
    if program.is_acli() {
        return agent::login::ACLI_WORDS.map(str::to_owned).into();
    }
    let mut words = vec!["pi".to_owned()];
    if program.purpose == Purpose::Login {
        words.extend(agent::login::LOGIN_WORDS.map(str::to_owned));
        return words;
    }
    if agent::runs_a_model(args, &config.images.agent_version) {
        words.extend(
            prompts(inputs).into_iter().flat_map(|prompt| ["--append-system-prompt".to_owned(), prompt]),
        );
        let ours = subagents(inputs).map(|_| inside::SUBAGENTS.to_owned());
        let watched = inputs.host.terminal.stdin && inputs.host.terminal.stdout;
        let says = watched && program.purpose == Purpose::Work && !agent::has_flag(args, "--no-extensions");
        let ours = ours.into_iter().chain(says.then(|| inside::OUTSIDE.to_owned()));
        let extensions = extensions(inputs).into_iter().chain(ours);
        words.extend(extensions.flat_map(|extension| ["--extension".to_owned(), extension]));
    }
    words.extend(args.iter().cloned());
    if program.reads_the_repository() {
        words.push(agent::WITHOUT_PROJECT.to_owned());
    }
    words
}

/// Texts, and files with texts, for the model's system prompt.
fn prompts(inputs: &Inputs<'_>) -> Vec<String> {
    let Inputs { program, reach, facts, config, git, .. } = inputs;
    let args = &program.words;
    let mut prompts = Vec::new();
    // The flag replaces the user's own file, so that is passed along, unless the user's flags do the same.
    let own = facts.layout.read.iter().any(|entry| entry.name == "APPEND_SYSTEM.md");
    if own && !args.iter().any(|arg| arg == "--append-system-prompt") {
        prompts.push(format!("{}/APPEND_SYSTEM.md", inside::AGENT_DIR));
    }
    prompts.push(briefing(reach, &config.publish, git, inputs.copy));
    if program.purpose == Purpose::Work && !agent::has_flag(args, "--no-context-files") {
        match facts.house.rules {
            Rules::Theirs => {}
            Rules::Own(_) => prompts.push(inside::RULES.to_owned()),
            Rules::Ours => prompts.push(inside::OUR_RULES.to_owned()),
        }
    }
    prompts
}

/// The user's extensions for repositories that bring none.
fn extensions(inputs: &Inputs<'_>) -> Vec<String> {
    let Inputs { program, facts, .. } = inputs;
    let Some((_, names)) = &facts.house.extensions else { return vec![] };
    if agent::has_flag(&program.words, "--no-extensions") {
        return vec![];
    }
    names.iter().map(|name| format!("{}/{name}", inside::EXTENSIONS)).collect()
}

/// What the extension that starts subagents has to know.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    at_once: u32,
    queued: u32,
    seconds: u32,
    /// For their system prompts, as for the agent's own.
    prompts: Vec<String>,
    extensions: Vec<String>,
}

/// `None` where the agent can start none.
pub(super) fn subagents(inputs: &Inputs<'_>) -> Option<Told> {
    let Inputs { program, config, git, .. } = inputs;
    let settings = config.subagents?;
    // Without commits there is nothing to hand over.
    let starts = program.purpose == Purpose::Work
        && git.is_private() != Some(false)
        && agent::runs_a_model(&program.words, &config.images.agent_version)
        && !agent::has_flag(&program.words, "--no-extensions");
    starts.then(|| Told {
        at_once: settings.at_once,
        queued: settings.queued,
        seconds: settings.seconds,
        prompts: prompts(inputs),
        extensions: extensions(inputs),
    })
}

/// Where the agent is, told to the model.
fn briefing(reach: &Reach, published: &[Published], git: &Given, copy: Option<&Copied>) -> String {
    let network = match reach {
        Reach::Open => "The network is open.",
        Reach::None => "There is no network but your model.",
        Reach::Demo => "There is no network but the model.",
        Reach::Proxy(..) => {
            "The network is restricted to an allowlist, through the HTTP proxy that the environment names; any other \
             connection and DNS fail. When a host is refused (403 from the proxy), do not look for a way around: ask \
             your user to run `pi allow HOST` in another terminal on their machine, then try again."
        }
    };
    let copy = copy.map_or_else(String::new, |copy| {
        format!(
            " The repository is a copy: at the end your user gets what you have changed in it, committed or not, as the \
             branch `pi/{}`.",
            copy.name
        )
    });
    let ports: Vec<String> = published.iter().map(|one| one.agent.to_string()).collect();
    let ports = match ports.as_slice() {
        [] => String::new(),
        ports => format!(
            " Your user can reach servers of yours on port {} that listen on 0.0.0.0.",
            ports.join(", ")
        ),
    };
    let git = match git.is_private() {
        Some(true) => {
            " `.git` is a git directory of your own; your commits appear in your user's repository by themselves."
        }
        Some(false) => " `.git` is read-only, so you cannot commit.",
        None => "",
    };
    format!(
        "You run inside a locked-down container: no root, no capabilities, a read-only system. You can write the \
         repository, your home directory and /tmp; only the repository, the agent's settings, logins and transcripts, \
         and the caches of packages outlast the session. The user's other files, the container engine and `sudo` are not \
         there.{git}{copy} {network}{ports}"
    )
}
