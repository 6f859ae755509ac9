//! What is the launcher's and what is the agent's, and what is neither.

use super::misuse;
use crate::world::World;

/// What the agent's container is told to run, the briefing, the house rules and our extension left out.
fn command(words: &[&str]) -> Vec<String> {
    let world = World::fake();
    let plan = world.plan(words);
    let words = plan["agent"]["command"].as_array().unwrap().iter();
    let mut words: Vec<String> = words.map(|word| word.as_str().unwrap().to_owned()).collect();
    let ours = |word: &String| word == "--append-system-prompt" || word == "--extension";
    while words.get(1).is_some_and(ours) {
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
        misuse(words, said, &hint);
    }
}

#[test]
fn bad_values_of_options_are_usage_errors() {
    let see = "see `pi --help`";
    let ports = "invalid value '0' for '--publish <[HOST_PORT:]PORT>': `0` is not a port, 1 to 65535";
    misuse(&["--publish", "0"], ports, see);
    misuse(
        &["--publish", "65536"],
        "invalid value '65536' for '--publish <[HOST_PORT:]PORT>': `65536` is not a port, 1 to 65535",
        see,
    );
    let twice = "`--publish 80:1` and `--publish 80` want the same port of this machine";
    misuse(&["--publish", "80:1", "--publish", "80"], twice, "");
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
        &["--no-network", "--publish", "80"],
        "`--publish` needs a network, and `--no-network` gives none; `--proxy` has one",
        "",
    );
    misuse(
        &["--no-network", "--env", "https_proxy=x"],
        "the variable `https_proxy` cannot be given to the agent: it belongs to the restricted network",
        "",
    );
}

#[test]
fn a_command_that_this_agent_does_not_have_yet_is_no_prompt() {
    let hint = "`agent_version` under `[images]` in the settings chooses the agent; to say this to it, write `pi -p mcp";
    let message = "the agent 0.87.1 has no command `mcp`; newer agents do";
    misuse(&["mcp"], message, &format!("{hint}`"));
    misuse(&["mcp", "list"], message, &format!("{hint} list`"));
    let world = World::fake();
    world.run_pi(&["-p", "mcp list"]).has_code(0);
    world.configure("[images]\nagent_version = \"1.5.2\"\n");
    let plan = world.plan(&["mcp", "list"]);
    assert_eq!(plan["agent"]["command"], serde_json::json!(["pi", "mcp", "list"]));
}

#[test]
fn help_for_what_is_no_verb_is_no_prompt() {
    misuse(
        &["help", "install"],
        "`install` is the agent's own command",
        "`pi install --help` shows its help",
    );
    misuse(
        &["help", "sehll"],
        "`sehll` is no verb of `pi`",
        "did you mean `pi shell`? To say it to the agent, write `pi -- help sehll`",
    );
    assert_eq!(command(&["help", "me"]), ["pi", "help", "me"]);
}
