//! Files of the repository that sessions must not see.

use std::{fs, os::unix::fs::symlink};

use crate::world::{World, files::write};

#[test]
fn hidden_files_are_empty_inside_and_as_they_were_outside() {
    let world = World::with_model();
    for path in [".env", "app/.env.local", ".env.example", "private/key", "real.txt"] {
        write(world.repo().join(path), "secret\n");
    }
    symlink("../real.txt", world.repo().join("app/.env.link")).unwrap();
    world.configure("hide = [\".env*\", \"!.env.example\", \"/private\"]\n");
    // Whatever an agent does: read, write, remove, put another in its place, move what is above.
    let script = "cat .env app/.env.local .env.example app/.env.link real.txt; ls private; \
                  for deed in 'echo x >.env' 'rm -f .env' 'mv .env x' 'echo x >y && mv y .env' 'echo x >private/x' \
                  'rm -r app'; do (eval \"$deed\") 2>/dev/null && echo \"did $deed\"; done; \
                  mv app moved; cat moved/.env.local; mv moved app; git stash -u >/dev/null 2>&1; cat .env; echo end";
    let done = world.shell(&[], script).run();
    done.is(0, "secret\nend\n", "");
    for path in [".env", "app/.env.local", "private/key", "real.txt"] {
        assert_eq!(fs::read_to_string(world.repo().join(path)).unwrap(), "secret\n", "{path}");
    }
    // The user's own mount is seen.
    let own = format!("{}:{}", world.repo().join("real.txt").display(), world.repo().join(".env").display());
    assert_eq!(world.shell(&["--mount", &own], "cat .env").good(), "secret\n");
    // A restricted session, and a script of a dry run.
    assert_eq!(world.shell(&["--no-network"], "cat .env app/.env.local").good(), "");
    let dry = world.run_pi(&["--dry-run", "shell", "--", "cat", ".env", "app/.env.local"]);
    world.script(&dry.out).run().is(0, "", "");
    world.assert_nothing_left();
}

#[test]
fn a_hint_names_a_file_of_secrets_once() {
    let world = World::with_model();
    write(world.repo().join("app/.env"), "secret\n");
    let hint = "pi: warning: the agent can read `app/.env`\npi: hint: `hide = [\".env*\"]` in the settings shadows such \
                files with empty ones; `hide = []` says that you want them seen\n";
    world.shell(&[], "cat app/.env").run().is(0, "secret\n", hint);
    world.shell(&[], "cat app/.env").run().is(0, "secret\n", "");
    for n in 0..300 {
        write(world.repo().join(format!("{n}.key")), "");
    }
    world.configure("hide = [\"*.key\"]\n");
    world.shell(&[], "true").run().is(
        125,
        "",
        "pi: error: `hide` in the settings matches more than 256 files of this repository\npi: hint: name the directory \
         that holds them, as in `hide = [\"private/\"]`, or write narrower patterns\n",
    );
    world.configure("hide = [\"~/x\"]\n");
    world.shell(&[], "true").run().says(125, "`~/x` is a path of your home");
    world.configure("");
}
