//! The command line: options of the launcher, its verbs, and words for the agent.

pub(crate) mod examples;
mod models;
mod published;
mod restrictions;
mod split;
mod verb;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum, builder::NonEmptyStringValueParser,
};

use crate::{lang::Lang, report::Hinted};

use self::split::Split;
pub(crate) use self::{
    models::{ModelsVerb, OllamaVerb},
    published::Published,
    split::leading_options,
    verb::Verb,
};

/// Start the pi coding agent in a locked-down Docker container for this repository
#[derive(Debug, Parser)]
#[command(
    name = "pi",
    args_override_self = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs of the launcher",
    override_usage = "pi [OPTIONS] [PROMPT]...          run the agent in this repository
       pi [OPTIONS] -- AGENT_ARGS...    the same; everything after -- reaches the agent untouched
       pi [OPTIONS] AGENT_COMMAND ...   the agent's own: install remove uninstall update list config auth (mcp from 0.99 on)
       pi VERB ...                      the launcher's own verbs, below",
    after_help = "The agent's own flags (`pi -p \"fix it\"`, `pi -c`, `pi --model M`) need no `--`; `pi -- --help` lists \
                  them. Put options of the launcher before the first word for the agent.\n\n\
                  Exit status: the agent's own; 128+n when signal n ended the run; 125 when the launcher failed; 2 for a \
                  usage error."
)]
struct Parsed {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Options of a session, for `pi` and `pi shell`.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "these are the flags as typed; `Config` has the policies")]
pub(crate) struct Options {
    /// Image variant: base, go, php, php8.4, php8.5 or auto
    ///
    /// `auto`, the default, looks for `go.mod`, then for `composer.json`. `php` is the newest PHP. Config key: `lang`.
    #[arg(long, value_name = "LANG")]
    pub(crate) lang: Option<Lang>,
    /// Renew the images of this session, then run
    ///
    /// Newest bases, packages and agent of the configured version, tag or range. `pi --build build --all` renews the
    /// images of every variant and runs nothing. If it fails, the session has the images of before. With `registry` under
    /// `[images]` in the settings, they also go to that registry.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) build: bool,
    /// Restrict the network to an allowlist
    ///
    /// Off by default. Config key: `proxy`.
    #[arg(long, conflicts_with_all = ["no_proxy", "no_network"])]
    pub(crate) proxy: bool,
    /// Do not restrict the network, whatever the config says
    #[arg(long, conflicts_with_all = ["allowed_domains", "allow", "no_network"])]
    pub(crate) no_proxy: bool,
    /// Read the allowlist from FILE; implies --proxy
    ///
    /// Default: `~/.agents/proxy_allowed_domains.txt`. Config key: `allowed_domains`.
    #[arg(long, value_name = "FILE", conflicts_with = "no_network")]
    pub(crate) allowed_domains: Option<PathBuf>,
    /// Allow the agent to reach HOST (can be repeated); implies --proxy
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "no_network")]
    pub(crate) allow: Vec<String>,
    /// Allow every public host on port 443 this once, and propose an allowlist at the end
    ///
    /// The local network stays closed. Implies --proxy.
    #[arg(long, conflicts_with_all = ["no_proxy", "no_network"])]
    pub(crate) learn: bool,
    /// With --learn: write the proposal into the allowlist
    #[arg(long, requires = "learn")]
    pub(crate) save: bool,
    /// Give the agent no network but its model
    ///
    /// With `--no-keys`, not even that.
    #[arg(long)]
    pub(crate) no_network: bool,
    /// Give the agent no keys and no logins of model providers
    ///
    /// By default they stay outside, and the agent uses them through the session's broker. Config key: `keys`.
    #[arg(long)]
    pub(crate) no_keys: bool,
    /// Do not let the agent push to GitHub, or change issues and pull requests there
    ///
    /// Config key: `github_push`.
    #[arg(long)]
    pub(crate) no_push: bool,
    /// Let the agent work on a copy; its work becomes the branch `pi/NAME`
    ///
    /// The repository is not mounted. The copy stays for later sessions of the same NAME, until `pi drop`. Default: the
    /// name of the session, or `copy`. See also `pi diff` and `pi apply`.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) clone: Option<String>,
    /// Run on the engine of a docker context, on this machine or another; implies --clone
    ///
    /// Nothing of this machine is mounted there: what the session needs goes over docker's API, and its work comes back the
    /// same way. The engine is reached by ssh, by TCP with TLS, or at a socket of this machine. `docker context ls` lists the
    /// contexts. Of several, separated by commas, the one is taken that has most memory and processors left, if its containers
    /// use all that they may; or the one that has the copy. Config key: `on`.
    #[arg(long, value_name = "CONTEXT[,CONTEXT]", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) on: Option<String>,
    /// Mount a file or directory of the host (can be repeated)
    ///
    /// Without DST, the target is SRC. `:ro` mounts read-only. Config key: `mounts`.
    #[arg(long, value_name = "SRC[:DST][:ro]")]
    pub(crate) mount: Vec<OsString>,
    /// Pass a variable to the agent, or set it (can be repeated)
    ///
    /// `NAME` alone passes the value from your environment. Config key: `env`.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<OsString>,
    /// Let this machine reach a port of the agent's, by 127.0.0.1 (can be repeated)
    ///
    /// `8080:3000` makes port 3000 of the agent's container port 8080 of this machine. In a restricted session the agent
    /// still reaches nothing by it. The agent's server must listen on all addresses (0.0.0.0).
    #[arg(long, value_name = "[HOST_PORT:]PORT")]
    pub(crate) publish: Vec<Published>,
    /// Limit memory and swap together, such as `512m` or `4g`; 0 is no limit
    ///
    /// Default: 4g. Config key: `memory`.
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) memory: Option<String>,
    /// Limit the number of processors; 0 is no limit
    ///
    /// Default: 2, or 1 if the machine has no more. Config key: `cpus`.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = processors)]
    pub(crate) cpus: Option<f64>,
    /// Limit the number of processes; 0 is no limit
    ///
    /// Default: 1024. Config key: `pids`.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = processes)]
    pub(crate) pids: Option<u32>,
    /// Limit the agent's home, which is in memory, such as `512m` or `4g`
    ///
    /// It counts as memory. Default: 2g, or half of `--memory` if that is less. /tmp has 1g, or a quarter of `--memory`.
    /// Caches of a project's packages are on disk. Config key: `disk`.
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) disk: Option<String>,
    /// Use this OCI runtime of the engine, such as `runsc`
    ///
    /// Default: the engine's. Config key: `runtime`.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) runtime: Option<String>,
    /// Name the session for `pi ps`, `pi stop`, `pi shell --session`
    #[arg(long, value_name = "NAME")]
    pub(crate) session_name: Option<String>,
    /// Read settings from FILE
    ///
    /// Default: `~/.config/pi/config.toml`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print each docker command before running it
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Print errors only
    #[arg(long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print the commands as a shell script, or the plan as JSON, and run nothing
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "script")]
    pub(crate) dry_run: Option<DryRun>,
    /// All of these as they were typed.
    #[arg(skip)]
    pub(crate) typed: Vec<OsString>,
}

/// The output of a dry run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// A shell script that does the same as `pi`.
    Script,
    /// The plan.
    Json,
}

/// The watcher's verb, with the session's directory as its argument. The launcher itself runs it, so help and
/// completions do not list it.
pub(crate) const WATCH: &str = "__watch";

/// The verb of a task's own process, with where its outcome belongs, its mark and the words of a session. `pi batch` runs it,
/// so help and completions do not list it.
pub(crate) const TASK: &str = "__task";

/// A parsed command line.
#[derive(Debug, Clone)]
pub(crate) struct Cli {
    pub(crate) options: Options,
    pub(crate) action: Action,
}

/// What the launcher should do.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Run the agent with these arguments.
    Agent(Vec<OsString>),
    /// Run a verb of the launcher.
    Verb(Verb),
    /// Print this text.
    Help(String),
    /// Print the versions of the launcher and of the agent.
    Version,
    /// Watch the session in this directory.
    Watch(PathBuf),
    /// Do what these words say, and write down with the mark what has come of it.
    Task { outcome: PathBuf, mark: String, words: Vec<OsString> },
}

impl Cli {
    /// Parses the arguments after the program's name. A usage error says what to type instead.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let args: Vec<OsString> = args.into_iter().collect();
        if let [word, directory] = args.as_slice()
            && word == WATCH
        {
            return Ok(Self { options: Options::default(), action: Action::Watch(directory.into()) });
        }
        if let [word, outcome, mark, words @ ..] = args.as_slice()
            && word == TASK
        {
            let (outcome, mark) = (outcome.into(), mark.to_string_lossy().into_owned());
            return Ok(Self {
                options: Options::default(),
                action: Action::Task { outcome, mark, words: words.to_vec() },
            });
        }
        let split = Split::of(args)?;
        let typed = split.options.clone();
        let given: Vec<String> = split
            .options
            .iter()
            .filter_map(|option| Some(option.to_str()?.strip_prefix("--")?.split('=').next()?.to_owned()))
            .collect();
        let to_clap = std::iter::once(OsString::from("pi"))
            .chain(split.options)
            .chain(split.verb.iter().map(OsString::from))
            .chain(split.verb_args);
        let parsed = Self::grammar().try_get_matches_from(to_clap);
        let parsed = match parsed.and_then(|matches| Parsed::from_arg_matches(&matches)) {
            Ok(parsed) => parsed,
            Err(error) => return refused(&error, split.verb.as_deref()),
        };
        if let Some(verb) = &split.verb {
            check_honoured(verb, parsed.verb.as_ref(), &given)?;
        }
        let action = match parsed.verb {
            _ if split.version => Action::Version,
            Some(verb) => Action::Verb(verb),
            None => Action::Agent(split.agent),
        };
        Ok(Self { options: Options { typed, ..parsed.options }, action })
    }

    /// The grammar, with examples.
    pub(crate) fn grammar() -> clap::Command {
        examples::shown(Parsed::command())
    }
}

fn processors(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "write a number of processors, such as 2 or 0.5".to_owned())
}

fn processes(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "write a number of processes, such as 1024".to_owned())
}

/// Refuses an option that the verb would ignore: `pi stop --dry-run` must not stop anything.
fn check_honoured(name: &str, verb: Option<&Verb>, given: &[String]) -> anyhow::Result<()> {
    let heeds: &[&str] = match verb {
        None | Some(Verb::Shell { session: None, .. }) => return Ok(()),
        Some(Verb::Build { .. }) => &["lang", "build", "on"],
        Some(Verb::Batch { .. }) => &[
            "lang", "on", "proxy", "no-proxy", "allowed-domains", "allow", "no-network", "no-keys",
            "no-push", "env", "memory", "cpus", "pids", "disk", "runtime",
        ],
        Some(Verb::Login { list: false, key: false, .. }) => &["build", "runtime", "lang"],
        Some(Verb::Demo) => &["on", "build", "runtime", "memory", "cpus", "pids", "disk"],
        Some(Verb::Allow { .. } | Verb::Blocked { .. } | Verb::Doctor { .. }) => &["allowed-domains"],
        Some(Verb::Check { .. }) => &["allowed-domains", "allow"],
        Some(Verb::Clean { all_contexts: true, .. }) => &["dry-run"],
        Some(Verb::Clean { .. }) => &["dry-run", "on"],
        Some(Verb::Ps { all_contexts: false, .. } | Verb::Stop { all: true, .. }) => &["on"],
        Some(_) => &[],
    };
    let always = ["config", "verbose", "quiet"];
    match given.iter().find(|option| !always.contains(&option.as_str()) && !heeds.contains(&option.as_str()))
    {
        None => Ok(()),
        Some(option) => Err(Hinted::usage_hinted(
            format!("`--{option}` has no effect on this `pi {name}`"),
            format!("nothing was done; leave it out, or see `pi {name} --help`"),
        )),
    }
}

fn refused(error: &clap::Error, verb: Option<&str>) -> anyhow::Result<Cli> {
    use clap::error::ErrorKind::{
        DisplayHelp, InvalidSubcommand, InvalidValue, TooManyValues, UnknownArgument, ValueValidation,
    };
    if error.kind() == DisplayHelp {
        return Ok(Cli { options: Options::default(), action: Action::Help(error.render().to_string()) });
    }
    let text = error.render().to_string();
    let message = text
        .trim_start_matches("error: ")
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let own = Options::augment_args(clap::Command::new("options"));
    let about_option = own
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .any(|long| message.contains(&format!("'--{long}")));
    Err(match (verb.filter(|_| !about_option), error.kind()) {
        (
            Some(verb),
            UnknownArgument | InvalidSubcommand | TooManyValues | InvalidValue | ValueValidation,
        ) => Hinted::usage_hinted(
            format!("`pi {verb}`: {message}"),
            if verb == "shell" {
                "put the command after `--`, as in `pi shell -- ls`".to_owned()
            } else {
                format!(
                    "`{verb}` is a verb of the launcher; to say this to the agent, quote it or write `pi -- …`"
                )
            },
        ),
        (Some(verb), _) => {
            Hinted::usage_hinted(format!("`pi {verb}`: {message}"), format!("see `pi {verb} --help`"))
        }
        (None, _) => Hinted::usage_hinted(message, "see `pi --help`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(args: &[&str]) -> String {
        let error = Cli::parse(args.iter().map(OsString::from)).unwrap_err();
        assert_eq!(crate::report::code(&error), crate::report::USAGE, "{error:?}");
        format!("{error:#}")
    }

    #[test]
    fn the_grammar_holds() {
        Parsed::command().debug_assert();
    }

    #[test]
    fn an_option_that_comes_too_late_is_refused() {
        assert_eq!(
            refusal(&["fix it", "--proxy"]),
            "`--proxy` comes after the first word for the agent, so it would have no effect"
        );
    }

    #[test]
    fn a_flag_that_nobody_knows_names_its_neighbour() {
        let error = Cli::parse(["--proxi"].map(OsString::from)).unwrap_err();
        assert_eq!(format!("{error}"), "neither the launcher nor the agent knows the flag `--proxi`");
    }

    #[test]
    fn a_verb_with_words_that_are_not_its_arguments_acts_on_nothing() {
        assert_eq!(refusal(&["clean", "up", "dead", "code"]), "`pi clean`: unexpected argument 'up' found");
    }

    #[test]
    fn no_proxy_contradicts_an_allowlist() {
        assert!(refusal(&["--no-proxy", "--allow", "example.com"]).contains("cannot be used with"));
    }
}
