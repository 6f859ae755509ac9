//! The allowlist: its lines, its file, and what `pi check` says of it.

use std::{fs, os::unix::fs::symlink};

use super::{failure, misuse};
use crate::world::{World, files::write};

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
    let script = "trap '' XFSZ; ulimit -f 2; exec \"$0\" --proxy -p x";
    let outcome = world.call("sh").args(&["-c", script, env!("CARGO_BIN_EXE_pi")]).run();
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
    let said = format!("pi: `{list}` has d.example a.example\n");
    world.run_pi(&["--allowed-domains", list, "allow", "--save", "d.example", "a.example"]).is(0, "", &said);
    assert_eq!(fs::read_to_string(&file).unwrap(), "a.example\nd.example\n");
}

#[test]
fn check_names_the_built_in_list_where_there_is_no_file() {
    let world = World::fake();
    let outcome = world.run_pi(&["check", "github.com"]);
    outcome.has_code(0);
    let line =
        include_str!("../../../assets/allowed_domains.txt").lines().position(|line| line == "*.github.com");
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
