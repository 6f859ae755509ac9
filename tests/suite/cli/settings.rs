//! Settings, the user's and the repository's.

use super::failure;
use crate::world::{World, files::write};

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
        "correct the path after `--config`, or leave it out",
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
    write(world.repo().join("go.mod"), "module x\n");
    world.run_pi(&["build"]).has_code(0);
    world.run_pi(&["-p", "x"]).is(0, "", "pi: using the go image, because there is a `go.mod`\n");
    world.run_pi(&["--quiet", "-p", "x"]).is(0, "", "");
    world.run_pi(&["--lang", "base", "-p", "x"]).is(0, "", "");
}

#[test]
fn a_relative_config_file_is_the_users_wherever_the_session_stands() {
    for words in [&["demo"][..], &["-p", "x"], &["shell", "--", "true"]] {
        let world = World::fake();
        write(world.root().join("own.toml"), "memory = \"3g\"\n");
        world.run_pi(&[&["--config", "../own.toml"], words].concat());
        let create = world.docker().called("create-agent");
        assert!(create.words.windows(2).any(|pair| pair == ["--memory", "3g"]), "{create:?}");
        world.assert_nothing_left();
    }
}
