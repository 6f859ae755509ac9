//! What the launcher knows of the agent's command line and environment, and nothing else does.
//!
//! The tables describe the agent from 0.87 to 1.5. A flag which an older release lacks does no harm here: that agent
//! itself says so.

use std::ffi::OsStr;
use std::iter;

/// How many words follow a flag as its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    /// The flag stands alone.
    None,
    /// The next word is the value, whatever it looks like.
    One,
    /// The next word is the value unless it begins with `-` or `@`.
    Optional,
}

/// One flag of the agent, under all its names.
#[derive(Debug)]
pub(crate) struct Flag {
    /// The long name first. The agent knows neither `--name=value` nor `-xy` for `-x -y`.
    pub(crate) names: &'static [&'static str],
    pub(crate) arity: Arity,
}

/// Every flag of the agent, in the order of its help. Flags that extensions add are not known here: they need `--`.
pub(crate) const FLAGS: &[Flag] = &[
    one(&["--provider"]),
    one(&["--model"]),
    one(&["--api-key"]),
    one(&["--system-prompt"]),
    one(&["--append-system-prompt"]),
    one(&["--mode"]),
    // The help shows no value, but a word which follows is the prompt, never anything else.
    optional(&["--print", "-p"]),
    none(&["--continue", "-c"]),
    none(&["--resume", "-r"]),
    one(&["--session"]),
    one(&["--session-id"]),
    one(&["--fork"]),
    one(&["--session-dir"]),
    none(&["--no-session"]),
    one(&["--name", "-n"]),
    one(&["--models"]),
    none(&["--no-tools", "-nt"]),
    none(&["--no-builtin-tools", "-nbt"]),
    one(&["--tools", "-t"]),
    one(&["--exclude-tools", "-xt"]),
    one(&["--thinking"]),
    one(&["--extension", "-e"]),
    none(&["--no-extensions", "-ne"]),
    none(&["--no-mcp"]),
    one(&["--skill"]),
    none(&["--no-skills", "-ns"]),
    one(&["--prompt-template"]),
    none(&["--no-prompt-templates", "-np"]),
    one(&["--theme"]),
    one(&["--use-theme"]),
    none(&["--no-themes"]),
    none(&["--no-context-files", "-nc"]),
    // The output file is an ordinary word: the agent takes the first one on the line.
    one(&["--export"]),
    optional(&["--list-models"]),
    none(&["--verbose"]),
    one(&["--tui-mode"]),
    none(&["--approve", "-a"]),
    none(&["--no-approve", "-na"]),
    none(&["--offline"]),
    none(&["--help", "-h"]),
    none(&["--version", "-v"]),
];

/// The agent's own commands. One counts only as the very first word: after any flag it is a prompt.
pub(crate) const COMMANDS: &[&str] =
    &["install", "remove", "uninstall", "update", "list", "config", "auth", "mcp"];

/// Flags with which the agent answers a question and ends, without a session.
const ANSWERED: &[&str] = &["--help", "--version", "--list-models", "--export"];

/// Harmless variables that reach the agent as they are, when they are set.
///
/// Left out on purpose: paths of the host (`PI_CODING_AGENT_DIR`, `PI_PACKAGE_DIR`, `PI_TUI_WRITE_LOG`), commands that
/// the agent would run (`PI_SELF_UPDATE_COMMAND`), what the launcher decides (`PI_TELEMETRY`,
/// `PI_SKIP_VERSION_CHECK`, `PI_OAUTH_CALLBACK_HOST`), `COLUMNS` and `LINES`, which would outlive a resize, and
/// `DISPLAY`, `WAYLAND_DISPLAY` and `WSL_*`: they promise a clipboard that the container does not have, and keep the
/// agent from using the terminal's.
pub(crate) const PASS: &[&str] = &[
    // The terminal and its colours.
    "TERM",
    "COLORTERM",
    "COLORFGBG",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "TERMINAL_EMULATOR",
    "ALACRITTY_WINDOW_ID",
    "GHOSTTY_RESOURCES_DIR",
    "ITERM_SESSION_ID",
    "KITTY_WINDOW_ID",
    "WARP_SESSION_ID",
    "WARP_TERMINAL_SESSION_UUID",
    "WEZTERM_PANE",
    "WT_SESSION",
    // What stands between the terminal and the agent: a multiplexer swallows images, a remote line delays keys.
    "TMUX",
    "STY",
    "ZELLIJ",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "MOSH_CONNECTION",
    // The user's say on what the agent makes of all that.
    "PI_CLEAR_ON_SHRINK",
    "PI_CLIPBOARD_OSC52",
    "PI_HARDWARE_CURSOR",
    "PI_HYPERLINKS",
    "PI_IMAGE_PROTOCOL",
    "PI_PROGRAM_STATUS",
    "PI_TRUE_COLOR",
    "PI_TUI_ESC_TIMEOUT",
    // The agent's behaviour.
    "PI_CACHE_RETENTION",
    "PI_CODEMODE_MAX_WORKERS",
    "PI_EXPERIMENTAL",
    "PI_OFFLINE",
    "PI_RADIUS_GATEWAY",
    "PI_SHARE_VIEWER_URL",
    "PI_STARTUP_BENCHMARK",
    "PI_TIMING",
    "TZ",
];

/// Variables whose value is a credential of a model provider.
pub(crate) const SECRETS: &[&str] = &[
    "AI_GATEWAY_API_KEY",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_OAUTH_TOKEN",
    "ANT_LING_API_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_OPENAI_API_KEY",
    "BASETEN_API_KEY",
    "CEREBRAS_API_KEY",
    "CLOUDFLARE_API_KEY",
    "COPILOT_GITHUB_TOKEN",
    "DEEPSEEK_API_KEY",
    "FIREWORKS_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_CLOUD_API_KEY",
    "GROQ_API_KEY",
    "HF_TOKEN",
    "KIMI_API_KEY",
    "LLAMA_API_KEY",
    "META_API_KEY",
    "MINIMAX_API_KEY",
    "MINIMAX_CN_API_KEY",
    "MISTRAL_API_KEY",
    "MOONSHOT_API_KEY",
    "NVIDIA_API_KEY",
    "OPENAI_API_KEY",
    "OPENCODE_API_KEY",
    "OPENROUTER_API_KEY",
    "QWEN_TOKEN_PLAN_API_KEY",
    "QWEN_TOKEN_PLAN_CN_API_KEY",
    "RADIUS_API_KEY",
    "TOGETHER_API_KEY",
    "TYPESAFE_API_KEY",
    "XAI_API_KEY",
    "XIAOMI_API_KEY",
    "XIAOMI_TOKEN_PLAN_AMS_API_KEY",
    "XIAOMI_TOKEN_PLAN_CN_API_KEY",
    "XIAOMI_TOKEN_PLAN_SGP_API_KEY",
    "ZAI_API_KEY",
    "ZAI_CODING_CN_API_KEY",
];

/// Plain settings that go with a provider's credential: names, regions, addresses, switches.
pub(crate) const SETTINGS: &[&str] = &[
    "ANTHROPIC_FEDERATION_RULE_ID",
    "ANTHROPIC_ORGANIZATION_ID",
    "ANTHROPIC_SERVICE_ACCOUNT_ID",
    "ANTHROPIC_WORKSPACE_ID",
    "AWS_BEDROCK_FORCE_CACHE",
    "AWS_BEDROCK_FORCE_HTTP1",
    "AWS_BEDROCK_SKIP_AUTH",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AZURE_OPENAI_API_VERSION",
    "AZURE_OPENAI_BASE_URL",
    "AZURE_OPENAI_DEPLOYMENT_NAME_MAP",
    "AZURE_OPENAI_RESOURCE_NAME",
    "CLOUDFLARE_ACCOUNT_ID",
    "CLOUDFLARE_GATEWAY_ID",
    "GCLOUD_PROJECT",
    "GOOGLE_CLOUD_LOCATION",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_QUOTA_PROJECT",
    "KIMI_CODE_OAUTH_HOST",
    "KIMI_OAUTH_HOST",
    "LLAMA_BASE_URL",
];

/// Variables that name a file with a credential in it. The name alone is of no use inside the container.
pub(crate) const CREDENTIAL_PATHS: &[&str] = &[
    "ANTHROPIC_IDENTITY_TOKEN_FILE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HF_TOKEN_PATH",
];

/// The agent's flag that `arg` names, if it is one. `--model=x` is none, to the agent as well.
pub(crate) fn flag(arg: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.names.contains(&arg))
}

/// The flag of the agent, or the one of `also`, that the writer of `arg` most likely meant.
///
/// A value after `=` and the number of dashes are left out of the comparison. Names of one or two letters are never
/// guessed: each is as near to every other.
pub(crate) fn nearest<'a>(arg: &str, also: &[&'a str]) -> Option<&'a str> {
    let meant = bare(arg).to_lowercase();
    let length = meant.chars().count();
    if length < 3 {
        return None;
    }
    let names = || {
        let agent = FLAGS.iter().flat_map(|flag| flag.names).copied();
        agent.chain(also.iter().copied())
    };
    names()
        .filter(|name| bare(name).len() >= 3)
        .map(|name| (strsim::osa_distance(&meant, bare(name)), name))
        .filter(|(distance, _)| *distance <= length.div_ceil(3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
        .or_else(|| names().find(|name| bare(name).starts_with(&meant)))
}

/// The command of this version of the agent that `args` begin with.
fn command<S: AsRef<OsStr>>(args: &[S], version: &str) -> Option<&'static str> {
    let first = args.first()?.as_ref();
    // Releases before 0.99 have no `mcp`: there it begins a prompt. What is no number, such as a tag, is newer.
    let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    let is_old = matches!(numbers[..], [0, minor, ..] if minor < 99);
    COMMANDS.iter().copied().find(|name| first == *name && !(is_old && *name == "mcp"))
}

/// Whether `args` change the agent's own set-up, rather than that of a project (`--local`), or run a model.
pub(crate) fn changes_its_setup(args: &[String], version: &str) -> bool {
    let changes = match command(args, version) {
        Some("install" | "remove" | "uninstall" | "update" | "config") => true,
        Some("mcp") => args.get(1).is_some_and(|word| word != "list"),
        _ => false,
    };
    changes && !args.iter().any(|arg| arg == "-l" || arg == "--local")
}

/// Whether `args` install or remove something that lies in a directory, rather than what is fetched.
pub(crate) fn names_a_path(args: &[String]) -> bool {
    const FETCHED: [&str; 6] = ["npm:", "git:", "http://", "https://", "ssh://", "builtin:"];
    let [command, sources @ ..] = args else { return false };
    let is_path =
        |word: &String| !word.starts_with('-') && !FETCHED.iter().any(|kind| word.starts_with(kind));
    matches!(command.as_str(), "install" | "remove" | "uninstall") && sources.iter().any(is_path)
}

/// Has such a command pass over what the repository itself would load.
pub(crate) const WITHOUT_PROJECT: &str = "--no-approve";

/// Whether `args` start a session, so that `--append-system-prompt` may stand before them.
pub(crate) fn runs_a_model<S: AsRef<OsStr>>(args: &[S], version: &str) -> bool {
    command(args, version).is_none() && !options(args).any(|flag| ANSWERED.contains(&flag.names[0]))
}

/// The flags in `args`, their values passed over as the agent does it.
///
/// A word that is not UTF-8 is no flag, but it can be the value of one.
fn options<S: AsRef<OsStr>>(args: &[S]) -> impl Iterator<Item = &'static Flag> {
    let words = args.iter().map(|word| word.as_ref().to_str().unwrap_or_default());
    let mut words = words.peekable();
    iter::from_fn(move || {
        loop {
            let word = words.next()?;
            if word == "--" {
                return None;
            }
            if let Some(flag) = flag(word) {
                match flag.arity {
                    Arity::None => None,
                    Arity::One => words.next(),
                    Arity::Optional => words.next_if(|next| !next.starts_with(['-', '@'])),
                };
                return Some(flag);
            }
        }
    })
}

/// A flag's name without its dashes and without a value.
fn bare(name: &str) -> &str {
    let name = name.trim_start_matches('-');
    name.split_once('=').map_or(name, |(name, _)| name)
}

const fn none(names: &'static [&'static str]) -> Flag {
    Flag { names, arity: Arity::None }
}

const fn one(names: &'static [&'static str]) -> Flag {
    Flag { names, arity: Arity::One }
}

const fn optional(names: &'static [&'static str]) -> Flag {
    Flag { names, arity: Arity::Optional }
}

/// Why a user's own variable cannot reach an agent in any session: docker itself would read it, the sandbox sets it, or it
/// would be loaded into the programs that check the sandbox before the agent runs.
pub(crate) fn unfit(variable: &str) -> Option<&'static str> {
    let is_name = !variable.is_empty()
        && !variable.starts_with(|c: char| c.is_ascii_digit())
        && variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        Some("is not the name of a variable")
    } else if ["DOCKER_", "BUILDKIT_", "BUILDX_", "COMPOSE_"].iter().any(|own| variable.starts_with(own)) {
        Some("is read by docker itself")
    } else if ["LD_", "PI_BOX_", "GIT_CONFIG_"].iter().any(|own| variable.starts_with(own))
        || matches!(variable, "HOME" | "PATH" | "USER" | "LOGNAME" | "TMPDIR")
    {
        Some("is set by the sandbox")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The left column of the options in the help of the agent's 1.5.2.
    const HELP: &[&str] = &[
        "--provider <name>",
        "--model <pattern>",
        "--api-key <key>",
        "--system-prompt <text>",
        "--append-system-prompt <text>",
        "--mode <mode>",
        "--print, -p",
        "--continue, -c",
        "--resume, -r",
        "--session <path|id>",
        "--session-id <id>",
        "--fork <path|id>",
        "--session-dir <dir>",
        "--no-session",
        "--name, -n <name>",
        "--models <patterns>",
        "--no-tools, -nt",
        "--no-builtin-tools, -nbt",
        "--tools, -t <tools>",
        "--exclude-tools, -xt <tools>",
        "--thinking <level>",
        "--extension, -e <path>",
        "--no-extensions, -ne",
        "--no-mcp",
        "--skill <path>",
        "--no-skills, -ns",
        "--prompt-template <path>",
        "--no-prompt-templates, -np",
        "--theme <path>",
        "--use-theme <name[/name]>",
        "--no-themes",
        "--no-context-files, -nc",
        "--export <file> [output]",
        "--list-models [search]",
        "--verbose",
        "--tui-mode <mode>",
        "--approve, -a",
        "--no-approve, -na",
        "--offline",
        "--help, -h",
        "--version, -v",
    ];

    #[test]
    fn the_table_says_what_the_help_says() {
        let help = HELP.iter().map(|line| {
            let names: Vec<&str> = line.split([' ', ',']).filter(|word| word.starts_with('-')).collect();
            let arity = match line.find(['<', '[']).map(|at| &line[at..=at]) {
                Some("<") => Arity::One,
                Some(_) => Arity::Optional,
                None if names[0] == "--print" => Arity::Optional,
                None => Arity::None,
            };
            (names, arity)
        });
        let table = FLAGS.iter().map(|flag| (flag.names.to_vec(), flag.arity));
        assert_eq!(table.collect::<Vec<_>>(), help.collect::<Vec<_>>());
    }

    #[test]
    fn a_flag_is_found_under_each_of_its_names_and_no_other() {
        assert_eq!(flag("-nbt").unwrap().names[0], "--no-builtin-tools");
        assert_eq!(flag("--no-builtin-tools").unwrap().arity, Arity::None);
        assert_eq!(flag("-t").unwrap().arity, Arity::One);
        for unknown in ["--model=x", "-pc", "--proxy", "--", "-", "", "model"] {
            assert!(flag(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        let flags = FLAGS.iter().flat_map(|flag| flag.names);
        let names = [PASS, SECRETS, SETTINGS, CREDENTIAL_PATHS, COMMANDS].concat();
        let mut seen = BTreeSet::new();
        for name in flags.chain(&names) {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn the_nearest_flag_is_the_one_that_was_meant() {
        let ours = ["--proxy", "--no-proxy", "--allow", "--allowed-domains", "--dry-run"];
        for (typed, meant) in [
            ("--modle", Some("--model")),
            ("--model=sonnet", Some("--model")),
            ("-model", Some("--model")),
            ("--Resume", Some("--resume")),
            ("--contiune", Some("--continue")),
            ("--no-context", Some("--no-context-files")),
            ("--prooxy", Some("--proxy")),
            ("--noproxy", Some("--no-proxy")),
            ("--allowed-domain", Some("--allowed-domains")),
            ("--dryrun", Some("--dry-run")),
            ("--frobnicate", None),
            ("-q", None),
            ("--", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, &ours), meant, "{typed}");
        }
    }

    #[test]
    fn a_model_runs_unless_the_agent_only_answers() {
        for args in [
            &[] as &[&str],
            &["fix it"],
            &["-p", "install"],
            &["fix", "install"],
            &["--model", "--help"],
            &["--name", "list", "-c"],
            &["--", "--help"],
            &["--mode", "rpc"],
            &["-p", "--", "-v"],
        ] {
            assert!(runs_a_model(args, "1.5.0"), "{args:?}");
        }
        for args in [
            &["install", "npm:x"] as &[&str],
            &["mcp", "list"],
            &["auth"],
            &["--help"],
            &["fix it", "-h"],
            &["-p", "fix it", "--version"],
            &["--list-models", "sonnet"],
            &["--export", "a.jsonl", "a.html"],
        ] {
            assert!(!runs_a_model(args, "1.5.0"), "{args:?}");
        }
    }

    #[test]
    fn the_set_up_is_changed_by_its_own_commands_where_there_are_any() {
        let changes = |text: &str, version| {
            let args: Vec<String> = text.split(' ').map(str::to_owned).collect();
            changes_its_setup(&args, version)
        };
        for text in ["install npm:x", "remove x", "uninstall x", "update", "config", "mcp add x"] {
            assert!(changes(text, "1.5.0"), "{text}");
        }
        for text in [
            "install -l npm:x",
            "config --local",
            "list",
            "mcp list",
            "mcp",
            "auth login",
            "fix it",
            "-c install",
        ] {
            assert!(!changes(text, "1.5.0"), "{text}");
        }
        let path = |text: &str| names_a_path(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(path("install ./x.ts") && path("remove --force ext") && path("uninstall /a"));
        assert!(
            !path("install npm:./x") && !path("install git:a.b/c -l") && !path("update x") && !path("remove")
        );
        for (version, knows) in [("0.87.1", false), ("0.99.1", true), ("1.5.0", true), ("latest", true)] {
            assert_eq!(changes("mcp add x", version), knows, "{version}");
            assert_eq!(runs_a_model(&["mcp", "list"], version), !knows, "{version}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_word_that_is_not_utf8_is_read_over() {
        use std::os::unix::ffi::OsStrExt as _;

        let odd = OsStr::from_bytes(b"\xff");
        assert!(runs_a_model(&[odd], "1.5.0"));
        assert!(!runs_a_model(&[OsStr::new("--name"), odd, OsStr::new("--help")], "1.5.0"));
    }
}
