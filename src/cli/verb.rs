//! The launcher's own verbs.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Subcommand;

use super::models::ModelsVerb;

/// The launcher's own verbs.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Verb {
    /// Open a shell, or run CMD, in the same sandbox as the agent
    #[command(override_usage = "pi shell [OPTIONS] [-- CMD...]\n       pi shell --session NAME [-- CMD...]")]
    Shell {
        /// Enter a running session instead
        #[arg(long, value_name = "NAME")]
        session: Option<String>,
        /// The command; without one, a shell
        #[arg(last = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Build the image for this repository, if it is missing, without running it
    ///
    /// `pi --build build` renews it.
    Build {
        /// Build every variant
        #[arg(long)]
        all: bool,
        /// Also print a list of what is in the images: a software bill of materials (SBOM) in JSON
        ///
        /// In the format `CycloneDX`, of this repository's image and the sidecar's: packages of Debian and npm, and runtimes that came
        /// otherwise. With `--all` it lists every image.
        #[arg(long)]
        sbom: bool,
        /// Build nothing, but ask npm's registry whether there is a newer agent
        ///
        /// Open sessions ask by themselves once a week, and one line a day tells of a newer one. Config key: `check_agent`
        /// under `[images]`.
        #[arg(long, conflicts_with_all = ["all", "sbom"])]
        check: bool,
    },
    /// Log in to a model provider, or store a key for it
    ///
    /// The agent's own login runs in a session without a repository, tools or extensions. It ends by itself when the login
    /// is there. No other session can leave a login.
    Login {
        /// The provider, such as anthropic, openai-codex or github-copilot, or acli for Atlassian; without one, the agent asks
        #[arg(value_name = "PROVIDER")]
        provider: Option<String>,
        /// List providers and the state of each login, and ask nobody
        #[arg(long, conflicts_with_all = ["provider", "key", "timeout", "host_network"])]
        list: bool,
        /// Read a key from the terminal or from stdin, and store it
        #[arg(long, requires = "provider", conflicts_with_all = ["timeout", "host_network"])]
        key: bool,
        /// Let this login session share this machine's network
        ///
        /// For a login whose page in the browser leads back to a port that nobody knows before, as acli's may. The session
        /// then reaches everything that this machine reaches, its loopback included. Docker Desktop has it only with "Enable
        /// host networking" in its settings.
        #[arg(long)]
        host_network: bool,
        /// Give up after this time, such as `90s` or `10m`
        #[arg(long, value_name = "TIME", default_value = "3m", value_parser = time)]
        timeout: Duration,
    },
    /// Remove the login or the key of a provider
    Logout {
        /// The provider, as `pi login --list` names it
        #[arg(value_name = "PROVIDER")]
        provider: String,
    },
    /// Look at addresses that sessions want to have opened, and open them in your browser
    Open {
        /// Name or id of the session; without one, all of them
        #[arg(long, value_name = "NAME")]
        session: Option<String>,
    },
    /// Run a session with a scripted model, without a key and without internet
    Demo,
    /// Look at everything that a session needs, and say what to do about what is not fine
    Doctor {
        /// Print JSON instead of a table
        #[arg(long, conflicts_with = "prove")]
        json: bool,
        /// Attack throw-away sessions from inside, one for each kind of network, and show which walls held
        #[arg(long)]
        prove: bool,
        /// Also ask each provider whether it takes your key, with a request that costs nothing
        ///
        /// Without this, nobody is asked anything.
        #[arg(long, conflicts_with = "prove")]
        ask: bool,
    },
    /// Allow hosts in a running session, or reload its allowlist
    Allow {
        /// Entries to allow: a domain, `*.domain` or `host:port`
        #[arg(value_name = "DOMAIN")]
        entries: Vec<String>,
        /// Name or id of the session; needed only if several run here
        #[arg(long, value_name = "NAME")]
        session: Option<String>,
        /// Also append the entries to the allowlist file
        #[arg(long)]
        save: bool,
    },
    /// List the hosts that the proxy refused, in a running session or the last one
    Blocked {
        /// Name or id of the session; needed only if several run here
        #[arg(long, value_name = "NAME")]
        session: Option<String>,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
        /// Add the exact names to the allowlist, and let a running session read it
        ///
        /// A host where anybody can publish is added as a comment.
        #[arg(long, conflicts_with = "json")]
        save: bool,
    },
    /// Check whether the allowlist allows an address, and show the entry
    Check {
        /// Addresses as the agent would request them
        #[arg(value_name = "URL|HOST[:PORT]", required = true)]
        targets: Vec<String>,
    },
    /// List running sessions
    Ps {
        /// Also list the copies of `--clone`, with what is only in them, and the subagents of this repository
        #[arg(long)]
        all: bool,
        /// Also ask the engines of all docker contexts for sessions that have lost their launcher
        #[arg(long)]
        all_contexts: bool,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show the proxy's log, of a running session or the last one
    Logs {
        /// Name or id of the session; needed only if several run here
        #[arg(value_name = "NAME")]
        session: Option<String>,
        /// Follow the log until the session ends
        #[arg(short, long)]
        follow: bool,
    },
    /// Come back to a session on another engine that has lost its launcher
    ///
    /// A session that was started with `--on` lives on when the line to its engine is cut for good, or this machine goes down. Its
    /// way out is closed a minute later, and this opens it again. An agent without a launcher is ended after a day. `pi stop`
    /// ends it at once; either way its work comes back.
    Attach {
        /// Name or id of the session, from `pi ps`; needed only if there are several
        #[arg(value_name = "NAME")]
        session: Option<String>,
    },
    /// Stop a running session
    Stop {
        /// Name or id of the session, from `pi ps`
        #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
        session: Option<String>,
        /// Stop all your sessions, on whichever engine; with `--on`, those on that one
        #[arg(long, visible_alias = "all-contexts")]
        all: bool,
    },
    /// Show what an agent has changed in a copy of `--clone`, or what it has left that runs on this machine
    Diff {
        /// Name of the copy; needed only if this repository has several
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// List all new and changed files that commonly run on this machine
        ///
        /// Without NAME, those that sessions have left in the work tree in the last 30 days: settings of editors, hooks,
        /// build scripts, workflows and the like.
        #[arg(long)]
        risky: bool,
    },
    /// Run a session on a copy for each line of FILE, several at a time
    ///
    /// A line is a prompt, with options of its own before it if need be: `--lang go --clone=NAME Fix the tests`. Empty lines and
    /// those that begin with `#` are left out. The agent's work becomes the branch `pi/NAME`; without a name, the prompt's first
    /// words make one. With `--on A,B,C`, all of these engines get tasks. The same command again goes on with what is not
    /// done. Exit status: 0 if all is done, 1 if not.
    #[command(override_usage = "pi [OPTIONS] batch [--jobs N] FILE [-- AGENT_ARGS...]")]
    Batch {
        /// The file with the tasks
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Run at most N tasks at a time on each engine
        ///
        /// Default: as many as fit into the free memory of an engine with `--memory` each, one for each of its free processors,
        /// 8 at most.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
        jobs: Option<u16>,
        /// Words for each agent, such as `--model M`
        #[arg(last = true, value_name = "AGENT_ARGS")]
        agent: Vec<OsString>,
    },
    /// Bring what an agent has changed in a copy into your files
    ///
    /// Nothing is staged or committed. It applies exactly the commit that `pi diff` has shown last, and nothing at all if a
    /// file is not what was copied.
    Apply {
        /// Name of the copy; needed only if this repository has several
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Apply this commit of the copy's branch without a look at it
        #[arg(long, value_name = "COMMIT")]
        commit: Option<String>,
    },
    /// Remove a copy of `--clone`; its branch stays
    Drop {
        /// Name of the copy
        #[arg(value_name = "NAME")]
        name: String,
        /// Also remove work that could not be brought in
        #[arg(long)]
        force: bool,
    },
    /// Remove leftovers of sessions that did not end properly
    ///
    /// With `--dry-run`, only list what would be removed.
    Clean {
        /// Also remove images that the current settings do not need
        #[arg(long)]
        images: bool,
        /// Look on the engines of all docker contexts
        #[arg(long)]
        all_contexts: bool,
        /// Also remove the caches of Go, npm and composer, of all projects
        #[arg(long)]
        caches: bool,
        /// Only those caches that were not used for AGE, such as `30d` or `12h`
        #[arg(long, value_name = "AGE", requires = "caches", value_parser = age)]
        older_than: Option<Duration>,
    },
    /// Use model servers of your own: Ollama, LM Studio, llama.cpp, vLLM
    ///
    /// Writes their models into `~/.pi/agent/models.json` and leaves everything else there as it is.
    #[command(disable_help_subcommand = true)]
    Models {
        #[command(subcommand)]
        what: ModelsVerb,
    },
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the manual page; `pi man | man -l -` shows it
    Man,
}

/// A time of one second to one hour: a number of seconds, or with `s` or `m` behind it.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("it is a time from `1s` to `60m`".to_owned()),
    }
}

/// A number of minutes, hours, days or weeks.
fn age(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => 0,
    };
    match number.parse::<u32>() {
        Ok(number) if seconds > 0 => Ok(Duration::from_secs(u64::from(number) * seconds)),
        _ => Err("write a number and one of m, h, d and w, as in `30d`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_seconds_or_minutes() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("60m", 3600), ("1", 1)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "m", "0", "61m", "1h", "-5", "1.5m", "99999999999999999999m"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
