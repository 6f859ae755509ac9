//! Atlassian's command line tool: in the image, logged in by a session of its own, and read-only for others. What stands in for
//! it is ours; the engine is real.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::{
    keys::provider::provider,
    world::{
        World,
        files::write_program,
        model::{docker, settings},
        terminal::Terminal,
    },
};

/// Settings with a vendor of the tests' own.
fn configure(world: &World, path: &str) {
    let vendor = format!("acli = \"http://{}:8081/{path}\"", provider().address);
    crate::world::files::write(world.config_file(), format!("{}\n{vendor}\n", settings()));
}

/// The page in the browser leads back at once.
const BROWSER: &str = "#!/bin/sh
echo \"$1\" >>@LOG
case \"$1\" in https://auth.atlassian.com/*) exec curl -s \"${1##*redirect_uri=}?code=abc&state=s\" ;; esac
";

#[test]
fn acli_logs_in_in_a_session_of_its_own_and_others_only_read_its_login() {
    let world = World::with_model();
    world.run_pi(&["login", "acli"]).says(125, "acli is not in the image");
    configure(&world, "acli-{arch}");
    let image = world.image(&[]);
    world.run_pi(&["build"]).has_code(0);
    let (opened, bin) = (world.root().join("opened"), world.root().join("browser"));
    write_program(&bin.join("xdg-open"), BROWSER.replace("@LOG", opened.to_str().unwrap()));
    let terminal = Terminal::open(&world);
    terminal
        .line(&format!("clear; PATH={}:$PATH pi login acli --host-network; echo \"code=$?\"", bin.display()));
    let screen = terminal.wait("the end of the login", |screen| screen.contains("code=0"));
    let said: String = screen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("this session shares your machine's network"), "{screen}");
    assert!(said.contains("pi: logged in to Atlassian"), "{screen}");
    assert_eq!(fs::read_to_string(&opened).unwrap().lines().count(), 1);
    let login = world.home().join(".config/acli");
    assert_eq!(fs::metadata(&login).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(login.join("jira_config.yaml")).unwrap(), "token: token-for-abc\n");
    let list = world.run_pi(&["login", "--list"]);
    assert!(list.out.lines().any(|line| line.starts_with("acli ") && line.contains("logged in")), "{list:?}");
    let script = "acli jira auth status; for f in jira_config.yaml new; do echo x >~/.config/acli/$f; done 2>/dev/null; \
                  rm -rf ~/.config/acli/* 2>/dev/null; acli jira auth status";
    let token = "token: token-for-abc\n";
    world.shell(&[], script).run().is(0, &token.repeat(2), "");
    // Without the setting it is not there.
    world.configure("");
    world.shell(&[], "cat ~/.config/acli/*").run().has_code(1);
    // One that nobody can fetch is a plain word, and no session.
    configure(&world, "gone-{arch}");
    let gone = world.run_pi(&["build"]);
    assert_eq!(gone.code, Some(125), "{gone:?}");
    assert!(gone.err.contains("set `acli = false` to build without it"), "{gone:?}");
    drop(terminal);
    world.assert_nothing_left();
    docker(&["image", "rm", &image]);
}
