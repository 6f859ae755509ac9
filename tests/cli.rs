//! What can be said on the command line, what is answered, and every refusal that needs no engine.

mod common;

use std::{fs, os::unix::fs::symlink, os::unix::net::UnixListener, process::Command};

use common::{Outcome, World, fake::shell, write};

/// Runs `pi` with these words in a world of its own.
fn pi(words: &[&str]) -> Outcome {
    World::fake().run_pi(words)
}

/// A usage error: status 2, nothing on stdout, nothing asked of docker.
#[track_caller]
fn misuse(words: &[&str], message: &str, hint: &str) {
    let world = World::fake();
    let outcome = world.run_pi(words);
    let hint = if hint.is_empty() { String::new() } else { format!("pi: hint: {hint}\n") };
    outcome.is(2, "", &format!("pi: error: {message}\n{hint}"));
    assert_eq!(world.docker().kinds(), [""; 0]);
    assert_eq!(world.sessions(), [""; 0].map(std::path::PathBuf::from));
}

/// A failure of the launcher's: status 125, nothing on stdout.
#[track_caller]
fn failure(outcome: &Outcome, message: &str, hint: &str) {
    let hint = if hint.is_empty() { String::new() } else { format!("pi: hint: {hint}\n") };
    outcome.is(125, "", &format!("pi: error: {message}\n{hint}"));
}

/// What the agent's container is told to run, the briefing left out.
fn command(words: &[&str]) -> Vec<String> {
    let world = World::fake();
    let plan = world.plan(words);
    let words = plan["agent"]["command"].as_array().unwrap().iter();
    let mut words: Vec<String> = words.map(|word| word.as_str().unwrap().to_owned()).collect();
    if words.get(1).is_some_and(|word| word == "--append-system-prompt") {
        words.drain(1..3);
    }
    words
}

#[test]
fn what_is_the_agents_reaches_the_agent() {
    for (words, expected) in [
        (&[][..], &["pi"][..]),
        (&["fix it"], &["pi", "fix it"]),
        (&["-p", "fix it"], &["pi", "-p", "fix it"]),
        (&["-c"], &["pi", "-c"]),
        (&["--model", "--proxy", "x"], &["pi", "--model", "--proxy", "x"]),
        (&["--lang", "go", "--model", "m", "x"], &["pi", "--model", "m", "x"]),
        (&["--", "--help"], &["pi", "--help"]),
        (&["--", "--proxy", "clean"], &["pi", "--proxy", "clean"]),
        (&["install", "npm:x", "--proxy"], &["pi", "install", "npm:x", "--proxy"]),
        (&["-p", "--", "- a list"], &["pi", "-p", "--", "- a list"]),
        (&["shell"], &["/bin/bash"]),
        (&["shell", "--", "ls", "-l"], &["ls", "-l"]),
        (&["shell", "--lang", "go", "--", "go", "version"], &["go", "version"]),
    ] {
        assert_eq!(command(words), expected, "{words:?}");
    }
}

#[test]
fn a_flag_that_nobody_knows_names_the_nearest_and_how_to_force_it() {
    misuse(
        &["--proxi"],
        "neither the launcher nor the agent knows the flag `--proxi`",
        "did you mean `--proxy`? to pass it to the agent anyway, write `pi -- --proxi`",
    );
    misuse(
        &["--frobnicate", "x"],
        "neither the launcher nor the agent knows the flag `--frobnicate`",
        "to pass it to the agent anyway, write `pi -- --frobnicate`",
    );
    misuse(
        &["x", "--modle", "y"],
        "neither the launcher nor the agent knows the flag `--modle`",
        "did you mean `--model`? to pass it to the agent anyway, write `pi -- --modle`",
    );
}

#[test]
fn an_option_after_the_first_word_for_the_agent_is_refused() {
    for words in [&["fix it", "--proxy"][..], &["-p", "x", "--proxy"], &["-c", "--proxy"]] {
        misuse(
            words,
            "`--proxy` comes after the first word for the agent, so it would have no effect",
            "write `pi --proxy …`, with the words for the agent last",
        );
    }
}

#[test]
fn a_verb_with_words_that_are_not_its_arguments_acts_on_nothing() {
    for (words, said) in [
        (&["clean", "up", "dead", "code"][..], "`pi clean`: unexpected argument 'up' found"),
        (&["build", "the", "project"], "`pi build`: unexpected argument 'the' found"),
        (&["demo", "me"], "`pi demo`: unexpected argument 'me' found"),
        (&["ps", "aux"], "`pi ps`: unexpected argument 'aux' found"),
        (&["stop", "the", "server"], "`pi stop`: unexpected argument 'server' found"),
    ] {
        let verb = words[0];
        let hint = format!(
            "`{verb}` is a verb of the launcher; to say this to the agent, quote it or write `pi -- …`"
        );
        if verb == "stop" {
            misuse(words, "`pi stop`: unexpected argument 'server' found", &hint);
        } else {
            misuse(words, said, &hint);
        }
    }
}

#[test]
fn a_verb_to_come_is_not_a_prompt() {
    misuse(
        &["login"],
        "`pi login` does not exist yet",
        "run `pi` and type /login; to say `login` to the agent, write `pi -- login`",
    );
}

#[test]
fn bad_values_of_options_are_usage_errors() {
    let see = "see `pi --help`";
    let ports = "invalid value '0' for '--publish <PORT>': 0 is not in 1..=65535";
    misuse(&["--publish", "0"], ports, see);
    misuse(
        &["--publish", "65536"],
        "invalid value '65536' for '--publish <PORT>': 65536 is not in 1..=65535",
        see,
    );
    misuse(
        &["--lang", "rust"],
        "invalid value 'rust' for '--lang <LANG>' [possible values: base, go, php, php8.4, php8.5, auto]",
        see,
    );
    misuse(
        &["--memory", "lots"],
        "`lots` is not a size: write a number and one of b, k, m, g, as in `512m`",
        "",
    );
    misuse(&["--cpus=-1"], "`--cpus -1` is not a number of processors", "");
    misuse(&["--lang"], "`--lang` needs a value", see);
    misuse(&["--mount", "/a:b"], "the mount `/a:b` is not `SRC[:DST][:ro]` with an absolute DST", "");
    misuse(
        &["--mount", "/a:/b:/c"],
        "the mount `/a:/b:/c` has more parts than `SRC[:DST][:ro]`; write a colon in a path as `\\:`",
        "",
    );
    misuse(&["--runtime", "a b"], "`a b` is not the name of a runtime", "");
    misuse(
        &["--session-name", ".x"],
        "a session's name has up to 64 letters, digits, `.`, `_` and `-`, and begins with a letter or digit",
        "",
    );
    for (name, why) in [
        ("DOCKER_HOST", "is read by docker itself"),
        ("LD_PRELOAD=x", "is set by the sandbox"),
        ("HOME", "is set by the sandbox"),
        ("1A", "is not the name of a variable"),
        ("A B=1", "is not the name of a variable"),
    ] {
        let shown = name.split('=').next().unwrap();
        misuse(
            &["--env", name],
            &format!("the variable `{shown}` cannot be given to the agent: it {why}"),
            "",
        );
    }
}

#[test]
fn contradictions_are_usage_errors() {
    let see = "see `pi --help`";
    misuse(
        &["--no-proxy", "--allow", "example.com"],
        "the argument '--no-proxy' cannot be used with '--allow <HOST[:PORT]>'",
        see,
    );
    misuse(&["--build", "--dry-run"], "the argument '--build' cannot be used with '--dry-run[=<FORM>]'", see);
    misuse(&["--proxy", "--no-network"], "the argument '--proxy' cannot be used with '--no-network'", see);
    misuse(
        &["--proxy", "--publish", "80"],
        "`--publish` needs the open network: nothing can reach into a restricted one",
        "",
    );
    misuse(
        &["--no-network", "--env", "https_proxy=x"],
        "the variable `https_proxy` cannot be given to the agent: it belongs to the restricted network",
        "",
    );
}

#[test]
fn versions_and_help_are_data() {
    let version = pi(&["--version"]);
    assert_eq!((version.code, version.err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = version.out.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], format!("pi {} (launcher)", env!("CARGO_PKG_VERSION")));
    assert!(lines[1].ends_with("(agent)"), "{version:?}");
    for words in [&["--help"][..], &["-h"], &["shell", "--help"], &["clean", "--help"]] {
        let help = pi(words);
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "{words:?}");
        assert!(help.out.contains("Usage:"), "{words:?}: {}", help.out);
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = pi(&["completions", shell]);
        assert_eq!((script.code, script.err.as_str()), (Some(0), ""), "{shell}");
        assert!(script.out.contains("allowed-domains"), "{shell}");
        assert!(!script.out.contains("__watch"), "{shell} completes a verb that is not for people");
    }
}

#[test]
fn help_and_versions_need_no_docker_and_no_home() {
    let world = World::fake();
    for words in [["--help"], ["--version"]] {
        let mut pi = world.pi(&words);
        assert_eq!(world.run(pi.env("PATH", world.root().join("empty"))).code, Some(0));
    }
}

#[test]
fn without_docker_it_is_said_what_to_install() {
    let world = World::fake();
    let outcome = world.run(world.pi(&["-p", "x"]).env("PATH", world.root().join("empty")));
    failure(
        &outcome,
        "there is no program `docker` on the `PATH`",
        "install Docker Engine 20.10 or newer: docs.docker.com/engine/install",
    );
    world.assert_nothing_left();
}

#[test]
fn what_docker_says_becomes_a_sentence_and_the_next_step() {
    for (call, said, message, hint) in [
        (
            "all",
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "docker is installed but its engine does not answer",
            "start it with `sudo systemctl start docker`, or start Docker Desktop",
        ),
        (
            "all",
            "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            "you may not use docker's socket",
            "add yourself to its group with `sudo usermod -aG docker \"$USER\"` and log in again (it gives root's \
             power over this machine), or use a rootless engine",
        ),
        (
            "create-agent",
            "Error response from daemon: write /var/lib/docker/x: no space left on device",
            "could not create the agent's container: write /var/lib/docker/x: no space left on device",
            "the disk is full: `pi clean --images --caches` and `docker system prune` make room",
        ),
    ] {
        let world = World::fake();
        world.docker().rule(call, &format!("refuse {}", shell(said)));
        failure(&world.run_pi(&["-p", "x"]), message, hint);
        world.assert_nothing_left();
    }
}

#[test]
fn what_is_not_a_workspace_is_refused() {
    let world = World::fake();
    let next = "change into a repository or a project's own directory and try again";
    for (dir, why) in [
        (world.home(), "it is your home directory, with your keys and all your other projects"),
        (world.root().to_owned(), "it holds your home directory"),
        ("/".into(), "it holds your home directory"),
        ("/etc".into(), "it is a directory of the system"),
        ("/proc/self".into(), "it belongs to the kernel"),
    ] {
        let outcome = world.run(&mut world.pi_in(&dir, &["-p", "x"]));
        let shown = fs::canonicalize(&dir).unwrap();
        if shown.starts_with("/proc") {
            assert!(outcome.err.contains(why), "{outcome:?}");
        } else {
            failure(&outcome, &format!("`{}` cannot be the workspace: {why}", shown.display()), next);
        }
    }
    assert_eq!(world.docker().kinds(), [""; 0]);
}

#[test]
fn a_directory_without_a_repository_works_with_a_warning() {
    let world = World::fake();
    let plain = world.home().join("plain");
    write(&plain.join("a.txt"), "");
    world.run(&mut world.pi_in(&plain, &["-p", "x"])).is(
        0,
        "",
        &format!(
            "pi: warning: `{}`: it is not in a git repository; the session has this directory and no undo (`git init` makes it a repository)\n",
            plain.display()
        ),
    );
}

#[test]
fn a_repository_that_is_the_home_gives_the_current_directory_only() {
    let world = World::fake();
    let below = world.home().join("below");
    write(&world.home().join(".git/HEAD"), "ref: refs/heads/main\n");
    write(&below.join("a.txt"), "");
    let plan = world.run(&mut world.pi_in(&below, &["--dry-run=json"]));
    let data: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
    assert_eq!(data["record"]["repository"], below.to_str().unwrap());
    assert!(plan.err.contains("is not used as a whole: it is your home directory"), "{plan:?}");
}

#[test]
fn a_mount_must_exist_and_hold_no_engine() {
    let world = World::fake();
    let missing = world.root().join("missing");
    failure(
        &world.run_pi(&["--mount", missing.to_str().unwrap()]),
        &format!("could not mount `{}`: there is no such file or directory", missing.display()),
        "a mount's source must exist; create it, or correct `--mount` or `mounts` in the config",
    );
    let run = world.root().join("run");
    fs::create_dir(&run).unwrap();
    let socket = run.join("docker.sock");
    let _engine = UnixListener::bind(&socket).unwrap();
    symlink(&run, world.root().join("link")).unwrap();
    for source in ["run", "run/docker.sock", "link"] {
        let source = world.root().join(source);
        let mount = format!("{}:/mnt/x", source.display());
        let address = format!("unix://{}", socket.display());
        let outcome = world.run(world.pi(&["--mount", &mount]).env("DOCKER_HOST", address));
        failure(
            &outcome,
            &format!(
                "`{}` is or holds the engine's socket `{}`",
                fs::canonicalize(&source).unwrap().display(),
                socket.display()
            ),
            "with that, the agent would be root on this machine; mount a smaller directory",
        );
    }
    for target in ["/usr", "/proc/x", "/home/pi", "/"] {
        misuse(
            &["--mount", &format!("/opt:{target}")],
            &format!("`{target}` cannot be mounted there: it would hide what the sandbox consists of"),
            "name another place with `--mount SRC:DST`, or work in another directory",
        );
    }
    assert_eq!(world.docker().kinds(), [""; 0]);
}

#[test]
fn an_engine_on_another_machine_is_refused() {
    let world = World::fake();
    let why = |address: &str| {
        format!("the engine at `{address}` may run on another machine, and mount its paths instead of yours")
    };
    let next = "unset `DOCKER_HOST`, or choose a local engine with `docker context use default`";
    for address in ["ssh://me@box", "tcp://10.0.0.1:2375"] {
        failure(&world.run(world.pi(&["-p", "x"]).env("DOCKER_HOST", address)), &why(address), next);
    }
    // `printf far | sha256sum`, as docker names a context's directory.
    let sum = Command::new("sh").arg("-c").arg("printf far | sha256sum | cut -d' ' -f1").output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let meta = world.home().join(".docker/contexts/meta").join(sum.trim()).join("meta.json");
    write(&meta, r#"{"Name":"far","Endpoints":{"docker":{"Host":"ssh://far"}}}"#);
    failure(
        &world.run(world.pi(&["-p", "x"]).env_remove("DOCKER_HOST").env("DOCKER_CONTEXT", "far")),
        &why("ssh://far"),
        next,
    );
    write(&world.home().join(".docker/config.json"), r#"{"currentContext":"far"}"#);
    failure(&world.run(world.pi(&["-p", "x"]).env_remove("DOCKER_HOST")), &why("ssh://far"), next);
    assert_eq!(world.docker().kinds(), [""; 0]);
}

#[test]
fn a_config_that_says_something_unknown_is_refused_with_file_and_line() {
    let world = World::fake();
    let file = world.config_file();
    for (text, line, contains) in [
        ("lang = \"go\"\nlangg = 1\n", 2, "unknown field `langg`, expected one of `lang`"),
        ("\n\nlang = \"rust\"\n", 3, "`lang`: unknown variant `rust`, expected one of `base`"),
        ("memory = \"lots\"\n", 1, "`memory`: `lots` is not a size"),
        ("pids = -1\n", 1, "`pids`: invalid value: integer `-1`, expected a whole number"),
        ("runtime = \"a b\"\n", 1, "`a b` is not the name of a runtime"),
        ("[images]\nbases = \"x\"\n", 2, "unknown field `bases`, expected one of `base`"),
        ("proxy = maybe\n", 1, ""),
    ] {
        world.configure(text);
        let outcome = world.run_pi(&["-p", "x"]);
        assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{text}");
        let begins = format!("pi: error: {}:{line}: {contains}", file.display());
        assert!(outcome.err.starts_with(&begins), "{text}: {}", outcome.err);
        assert_eq!(outcome.err.lines().count(), 2, "{}", outcome.err);
    }
    let missing = world.root().join("none.toml");
    failure(
        &world.run_pi(&["--config", missing.to_str().unwrap()]),
        &format!("there is no config file `{}`", missing.display()),
        "",
    );
    assert_eq!(world.docker().kinds(), [""; 0]);
}

#[test]
fn a_repository_may_set_its_language_and_nothing_else() {
    let world = World::fake();
    let file = world.repo().join(".pi/sandbox.toml");
    write(&file, "lang = \"go\"\n");
    assert!(world.plan(&[])["agent"]["image"].as_str().unwrap().starts_with("pi-agent:go-"));
    let only = "a repository may set `lang` to one of \"base\", \"go\", \"php\", \"php8.4\", \"php8.5\" and \"auto\"";
    let own = |key: &str| format!("`{key}` belongs in your own `{}`", world.config_file().display());
    let other = |key: &str| format!("a repository may set `lang` and nothing else, not `{key}`");
    for (text, line, message, hint) in [
        ("lang = \"go\"\nmounts = [\"/\"]\n", 2, other("mounts"), own("mounts")),
        ("[images]\nbase = \"x\"\n", 1, other("images"), own("images")),
        ("# ours\n\"langs\" = 1\n", 2, other("langs"), only.to_owned()),
        ("lang = 5\n", 1, "`lang`: invalid type: integer `5`, expected a string".to_owned(), only.to_owned()),
        ("\nlang\n", 2, "key with no value, expected `=`".to_owned(), only.to_owned()),
    ] {
        write(&file, text);
        failure(&world.run_pi(&["-p", "x"]), &format!("{}:{line}: {message}", file.display()), &hint);
    }
    assert_eq!(world.docker().kinds(), [""; 0]);
}

#[test]
fn a_choice_of_image_is_told_in_one_line() {
    let world = World::fake();
    write(&world.repo().join("go.mod"), "module x\n");
    world.run_pi(&["-p", "x"]).is(0, "", "pi: using the go image, because there is a `go.mod`\n");
    world.run_pi(&["--quiet", "-p", "x"]).is(0, "", "");
    world.run_pi(&["--lang", "base", "-p", "x"]).is(0, "", "");
}

#[test]
fn every_bad_line_of_an_allowlist_is_named_at_once() {
    let world = World::fake();
    let file = world.root().join("list.txt");
    write(&file, "example.com\nhttps://example.org\n# fine\n*.com\nexample.net:99999\n10.0.0.1\n");
    let outcome = world.run_pi(&["--allowed-domains", file.to_str().unwrap(), "--allow", "a b"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{outcome:?}");
    for at in [2, 4, 5, 6] {
        assert!(outcome.err.contains(&format!("{}:{at}: ", file.display())), "{at}: {}", outcome.err);
    }
    assert!(outcome.err.contains("--allow"), "{}", outcome.err);
    assert!(!outcome.err.contains(&format!("{}:1: ", file.display())), "{}", outcome.err);
    assert_eq!(world.docker().kinds(), [""; 0]);
}

#[test]
fn a_missing_allowlist_is_written_only_where_nobody_named_it() {
    let world = World::fake();
    let named = world.root().join("none.txt");
    let outcome = world.run_pi(&["--allowed-domains", named.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.err.contains(&format!("`{}`", named.display())), "{outcome:?}");
    assert!(!named.exists());
    let default = world.home().join(".agents/proxy_allowed_domains.txt");
    world.run_pi(&["--proxy", "--dry-run", "--quiet"]).has_code(0);
    assert!(!default.exists(), "a dry run writes nothing");
    let first = world.run_pi(&["--proxy", "-p", "x"]);
    first.has_code(0);
    assert!(first.err.contains(default.to_str().unwrap()), "{first:?}");
    assert_eq!(first.err.lines().count(), 1, "{first:?}");
    let text = fs::read_to_string(&default).unwrap();
    assert!(text.lines().any(|line| line.starts_with('#')), "{text}");
    world.run_pi(&["--proxy", "-p", "x"]).is(0, "", "");
    assert_eq!(fs::read_to_string(&default).unwrap(), text);
}

#[test]
fn a_default_allowlist_is_written_whole_or_not_at_all() {
    let world = World::fake();
    let dir = world.home().join(".agents");
    let file = dir.join("proxy_allowed_domains.txt");
    fs::create_dir(&dir).unwrap();
    symlink("/nonexistent/list", &file).unwrap();
    failure(
        &world.run_pi(&["--proxy", "-p", "x"]),
        &format!("the allowlist `{}` is a link to a missing file", file.display()),
        "correct the link, or remove it: then `pi` writes a commented default",
    );
    fs::remove_file(&file).unwrap();
    // No file may grow beyond a size that the default does not fit into.
    let pi = world.pi(&["--proxy", "-p", "x"]);
    let mut sh = Command::new("sh");
    world.surround(&mut sh);
    sh.args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$0\" --proxy -p x"]).arg(pi.get_program());
    let outcome = world.run(sh.current_dir(world.repo()));
    outcome.has_code(125);
    let message = format!("pi: error: could not write `{}`: ", file.display());
    assert!(outcome.err.starts_with(&message), "{}", outcome.err);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn a_bad_word_for_the_allowlist_is_a_usage_error() {
    let form = "an entry is `example.com`, `*.example.com` or `host:port`";
    let why = "it has a scheme; write the host alone, with `:PORT` if it is not 443";
    misuse(&["--allow", "http://bad", "-p", "x"], &format!("`--allow`: `http://bad`: {why}"), form);
    misuse(
        &["allow", "http://bad"],
        &format!("`pi allow`: `http://bad`: {why}"),
        &format!("{form}; nothing was changed"),
    );
}

#[test]
fn nothing_is_saved_into_a_list_with_bad_lines() {
    let world = World::fake();
    let file = world.root().join("list.txt");
    write(&file, "a.example\nnot a line\n");
    let list = file.to_str().unwrap();
    failure(
        &world.run_pi(&["--allowed-domains", list, "allow", "--save", "d.example"]),
        &format!(
            "nothing was changed: the allowlist has entries that cannot be used\n  {list}:2: `not a line`: it has \
             more than one word; write one entry a line"
        ),
        "an entry is `example.com`, `*.example.com` or `host:port`",
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "a.example\nnot a line\n");
    write(&file, "a.example");
    world.run_pi(&["--allowed-domains", list, "allow", "--save", "d.example", "a.example"]).is(0, "", "");
    assert_eq!(fs::read_to_string(&file).unwrap(), "a.example\nd.example\n");
}

#[test]
fn a_cache_is_named_by_its_repository_and_one_in_use_is_a_failure() {
    let world = World::fake();
    world.docker().rule(
        "volume-ls",
        "case $* in *pi.repo*) printf 'pi-cache-1\\t/src/project\\n';; *pi.role*) printf 'pi-cache-1\\tcache\\n';; \
         esac; finish 0",
    );
    world.docker().rule("volume-rm", "refuse Error response from daemon: volume is in use");
    let cache = "the cache `pi-cache-1` of `/src/project`";
    world.run_pi(&["clean", "--dry-run", "--caches"]).is(0, &format!("would remove {cache}\n"), "");
    let outcome = world.run_pi(&["clean", "--caches"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{outcome:?}");
    assert!(outcome.err.starts_with(&format!("pi: error: could not remove {cache}: ")), "{}", outcome.err);
}

#[test]
fn check_names_the_built_in_list_where_there_is_no_file() {
    let world = World::fake();
    let outcome = world.run_pi(&["check", "github.com"]);
    outcome.has_code(0);
    let line = include_str!("../assets/allowed_domains.txt").lines().position(|line| line == "*.github.com");
    let by = format!("by `*.github.com` (the built-in list:{})\n", line.unwrap() + 1);
    assert!(outcome.out.ends_with(&by), "{}", outcome.out);
}

#[test]
fn check_answers_by_line_and_by_status() {
    let world = World::fake();
    let file = world.root().join("list.txt");
    write(&file, "example.com\n*.example.org\n");
    let list = file.to_str().unwrap();
    world.run_pi(&["--allowed-domains", list, "check", "https://example.com/x", "a.example.org"]).is(
        0,
        &format!(
            "allowed  example.com:443  by `example.com` ({list}:1)\nallowed  a.example.org:443  by `*.example.org` \
             ({list}:2)\n"
        ),
        "",
    );
    world.run_pi(&["--allowed-domains", list, "check", "example.net"]).is(
        1,
        "refused  example.net:443  no entry admits it\n",
        "",
    );
}

const SECRET: &str = "hunter2-do-not-show";

/// What a provider's key, a token and a variable of the user's own are named.
const SECRETS: [&str; 4] = ["ANTHROPIC_API_KEY", "PI_GH_TOKEN", "MINE", "HTTPS_PROXY"];

#[test]
fn a_secret_is_seen_by_docker_alone() {
    for words in [&["--env", "MINE", "-p", "x"][..], &["--proxy", "--env", "MINE", "-p", "x"]] {
        let world = World::fake();
        write(&world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
        let secretly = |first: &[&str]| {
            let mut pi = world.pi(&[first, words].concat());
            for name in SECRETS {
                let value = if name == "HTTPS_PROXY" {
                    format!("http://u:{SECRET}@p.example:3128")
                } else {
                    SECRET.into()
                };
                pi.env(name, value);
            }
            pi
        };
        for form in ["--dry-run", "--dry-run=json", "--verbose"] {
            let outcome = world.run(&mut secretly(&[form]));
            outcome.has_code(0);
            assert!(!outcome.out.contains(SECRET) && !outcome.err.contains(SECRET), "{form}: {outcome:#?}");
        }
        let calls = world.docker().calls();
        assert!(calls.iter().all(|call| !call.words.concat().contains(SECRET)), "{calls:#?}");
        let create = world.docker().called("create-agent");
        let env = world.docker().env(create.n);
        for name in ["ANTHROPIC_API_KEY", "GH_TOKEN", "MINE"] {
            let named = create.words.iter().any(|word| word == name);
            assert!(named, "{name}: {create:?}");
            let line = format!("{name}='{SECRET}'");
            assert!(env.lines().any(|env| env.ends_with(&line)), "{name}: {env}");
        }
        world.assert_nothing_left();
    }
}

#[test]
fn a_dry_run_asks_and_leaves_nothing() {
    let world = World::fake();
    for words in [&["--dry-run"][..], &["--dry-run=json"], &["--proxy", "--dry-run"], &["shell", "--dry-run"]]
    {
        let outcome = world.run_pi(words);
        outcome.has_code(0);
        assert_eq!(outcome.err, "", "{words:?}");
    }
    assert_eq!(world.docker().kinds(), [""; 0]);
    assert!(!world.root().join("state/pi").exists());
    assert!(!world.agent_dir().exists());
}

#[test]
fn the_script_of_a_dry_run_does_what_a_run_does() {
    for words in [&["-p", "it's \"x\""][..], &["--no-network", "-p", "x"], &["--proxy", "-p", "x"]] {
        let world = World::fake();
        write(&world.home().join(".agents/proxy_allowed_domains.txt"), "example.com\n");
        // A first session makes the directories that every other one finds.
        world.run_pi(&["-p", "x"]).has_code(0);
        let before = calls(&world).len();
        let script = world.run_pi(&[&["--dry-run"], words].concat());
        let path = world.root().join("session.sh");
        fs::write(&path, &script.out).unwrap();
        let mut sh = Command::new("sh");
        world.surround(&mut sh);
        world.docker().rule("start-agent", "exits 7");
        world.run(sh.arg(&path).current_dir(world.repo())).is(7, "", "");
        world.assert_nothing_left();
        let scripted = calls(&world)[before..].to_vec();
        world.run_pi(words).has_code(7);
        let real = calls(&world)[before + scripted.len()..].to_vec();
        // Of the teardown the launcher leaves out what it has seen to be gone, and it asks how the agent ended.
        let up = |calls: &[Vec<String>]| {
            let mut up: Vec<Vec<String>> = calls
                .iter()
                .filter(|words| !matches!(words[0].as_str(), "rm" | "events"))
                .filter(|words| !(words[0] == "network" || words[0] == "volume") || words[1] != "rm")
                .cloned()
                .collect();
            up.sort();
            up
        };
        assert_eq!(up(&scripted), up(&real), "{words:?}");
        world.assert_nothing_left();
    }
}

/// The calls, with what differs from one session to the next made the same.
fn calls(world: &World) -> Vec<Vec<String>> {
    let id = regex::Regex::new(r"\b[a-z2-7]{16}\b").unwrap();
    let address = regex::Regex::new(r"10\.201\.\d+\.\d+").unwrap();
    let calls = world.docker().calls().into_iter().map(|call| call.words);
    calls
        .map(|words| {
            words
                .iter()
                .map(|word| address.replace_all(&id.replace_all(word, "ID"), "ADDRESS").into_owned())
                .collect()
        })
        .collect()
}

#[test]
fn verbose_shows_each_command_before_it_runs() {
    let world = World::fake();
    let outcome = world.run_pi(&["--verbose", "-p", "x"]);
    outcome.has_code(0);
    assert_eq!(outcome.out, "");
    let shown: Vec<&str> = outcome.err.lines().filter(|line| line.starts_with("+ docker ")).collect();
    assert_eq!(shown.len(), world.docker().kinds().len(), "{outcome:#?}");
}

#[test]
fn an_image_is_built_when_there_is_none_and_the_session_goes_on() {
    let world = World::fake();
    world.docker().rule("create-agent", "once || return 0; refuse Error: No such image: pi-agent:x");
    world.docker().rule("image-inspect", "refuse Error: No such image: x");
    world.docker().rule("build", "echo Step 1; say Step 2");
    let outcome = world.run_pi(&["-p", "x"]);
    outcome.has_code(0);
    assert_eq!(outcome.out, "", "docker's progress is no data");
    for said in ["pi: building the image `pi-layer:base-", "Step 1\n", "Step 2\n", "`pi-agent:base-"] {
        assert!(outcome.err.contains(said), "{said}: {}", outcome.err);
    }
    let kinds = world.docker().kinds();
    let builds = kinds.iter().filter(|kind| *kind == "build").count();
    let creates = kinds.iter().filter(|kind| *kind == "create-agent").count();
    assert_eq!((builds, creates), (2, 2), "{kinds:?}");
    world.assert_nothing_left();
}

#[test]
fn a_build_that_fails_shows_its_last_lines_and_the_log() {
    for (said, status, message, hint) in [
        (
            "E: Unable to locate package nope",
            1,
            "could not build the image `pi-layer:base-",
            "the whole log is in `",
        ),
        (
            "failed to resolve source metadata for x: no such host",
            1,
            "could not pull the base image `",
            "check the network, or name a mirror under `[images]` in `~/.config/pi/config.toml`",
        ),
        (
            "write /x: no space left on device",
            1,
            "could not build the image `pi-layer:base-",
            "`pi clean --images --caches` and `docker system prune` make room",
        ),
    ] {
        let world = World::fake();
        world.docker().rule("create-agent", "refuse Error: No such image: pi-agent:x");
        world.docker().rule("image-inspect", "refuse Error: No such image: x");
        world.docker().rule("build", &format!("say {}; exit {status}", shell(said)));
        let outcome = world.run_pi(&["--quiet", "-p", "x"]);
        assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{outcome:#?}");
        assert!(outcome.err.starts_with(&format!("pi: error: {message}")), "{}", outcome.err);
        assert!(outcome.err.contains(&format!("pi: hint: {hint}")), "{}", outcome.err);
        if let Some(log) = outcome.err.split("log is in `").nth(1).and_then(|rest| rest.split('`').next()) {
            assert_eq!(fs::read_to_string(log).unwrap(), format!("{said}\n"));
            assert!(outcome.err.contains(said), "{}", outcome.err);
        }
        world.assert_nothing_left();
    }
}

#[test]
fn where_a_changed_image_cannot_be_built_the_previous_one_is_named_and_used_on_demand() {
    let world = World::fake();
    world.docker().rule("image-inspect", "refuse Error: No such image: x");
    world.run_pi(&["build"]).has_code(0);
    let builds = world.docker().calls().into_iter().filter(|call| call.kind() == "build");
    let words = builds.map(|call| call.words).find(|words| words.iter().any(|word| word.starts_with("UID=")));
    let label = words.unwrap().into_iter().find(|word| word.starts_with("pi.image=")).unwrap();
    let kind = label.strip_prefix("pi.image=").unwrap();

    let old = "pi-agent:base-000000000000";
    world.docker().rule("image-ls", &format!("echo pi-agent:go-000000000000; echo {old}; finish 0"));
    let labelled = format!("case $* in *Labels*) echo {}; finish 0;; esac", shell(kind));
    world.docker().rule("image-inspect", &format!("{labelled}; refuse Error: No such image: x"));
    let refuse = "refuse Error: No such image: pi-agent:x";
    world.docker().rule("create-agent", &format!("case $* in *{old}*) return 0;; esac; {refuse}"));
    world.docker().rule("build", "say no network; exit 1");

    let outcome = world.run_pi(&["-p", "x"]);
    outcome.has_code(125);
    let offer = format!("(`PI_BOX_PREVIOUS_IMAGE=1` would use the previous one, `{old}`)");
    assert!(outcome.err.contains(&offer), "{}", outcome.err);
    let outcome = world.run(world.pi(&["-p", "x"]).env("PI_BOX_PREVIOUS_IMAGE", "1"));
    outcome.has_code(0);
    let loudly = format!("pi: warning: using the previous image `{old}`, as `PI_BOX_PREVIOUS_IMAGE` says\n");
    assert!(outcome.err.contains(&loudly), "{}", outcome.err);
    world.assert_nothing_left();
}

#[test]
fn a_base_image_that_cannot_be_pulled_is_an_error_only_where_there_is_no_local_one() {
    let world = World::fake();
    world.docker().rule("pull", "refuse Error response from daemon: no such host");
    let outcome = world.run_pi(&["build", "--all"]);
    outcome.has_code(0);
    assert!(outcome.err.contains("pi: warning: could not pull `"), "{}", outcome.err);
    world.docker().rule("image-inspect", "refuse Error: No such image: x");
    let outcome = world.run_pi(&["--quiet", "build", "--all"]);
    assert_eq!(outcome.code, Some(125), "{outcome:#?}");
    let errors: Vec<&str> = outcome.err.lines().filter(|line| line.starts_with("pi: ")).collect();
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].starts_with("pi: error: could not pull the base image `"), "{errors:#?}");
    assert!(errors[0].ends_with("`, and there is no local one"), "{errors:#?}");
}

#[test]
fn paths_of_every_kind_become_one_mount() {
    let world = World::fake();
    for name in ["a b", "a,b", "a\"b", "a'b", "a:b", "äß", "a\nb", "$(a)", "-a"] {
        let repo = world.repository(name);
        world.run(&mut world.pi_in(&repo, &["-p", "x"])).is(0, "", "");
        let calls = world.docker().calls();
        let create = calls.iter().rfind(|call| call.kind() == "create-agent").unwrap();
        let at = create.words.iter().position(|word| word == "--workdir").unwrap();
        assert_eq!(create.words[at + 1], repo.to_str().unwrap());
    }
}

#[test]
fn a_relative_config_file_is_the_users_wherever_the_session_stands() {
    for words in [&["demo"][..], &["-p", "x"], &["shell", "--", "true"]] {
        let world = World::fake();
        write(&world.root().join("own.toml"), "memory = \"3g\"\n");
        world.run_pi(&[&["--config", "../own.toml"], words].concat());
        let create = world.docker().called("create-agent");
        assert!(create.words.windows(2).any(|pair| pair == ["--memory", "3g"]), "{create:?}");
        world.assert_nothing_left();
    }
}
