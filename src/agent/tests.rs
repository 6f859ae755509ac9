use std::collections::BTreeSet;

use super::*;

#[test]
fn the_help_tells_the_names_of_a_flag_and_its_value() {
    for (name, names, arity) in [
        ("-xt", &["--exclude-tools", "-xt"][..], Arity::One),
        ("--export", &["--export"], Arity::One),
        ("--use-theme", &["--use-theme"], Arity::One),
        ("--list-models", &["--list-models"], Arity::Optional),
        ("-p", &["--print", "-p"], Arity::Optional),
        ("--no-mcp", &["--no-mcp"], Arity::None),
    ] {
        assert_eq!(flag(name), Some(&Flag { names: names.to_vec(), arity }));
    }
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
    let flags = FLAGS.iter().flat_map(|flag| &flag.names);
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
        "install -l npm:x", "config --local", "list", "mcp list", "mcp", "auth login", "fix it", "-c install",
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
