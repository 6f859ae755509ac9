//! The agent, as the bare one would behave.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
};

use rustix::process::Signal;

use super::ECHO;
use crate::world::{
    World,
    files::{make_dir, own, owner_of, write, write_program},
    wait::until_true,
};

/// The lines of a section of the agent's help.
fn section<'a>(help: &'a str, title: &str) -> Vec<&'a str> {
    let lines = help.lines().skip_while(|line| *line != title).skip(1);
    lines.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("      ")).collect()
}

#[test]
fn every_flag_and_every_command_of_the_real_agent_is_known_for_what_it_is() {
    let world = World::with_model();
    let help = world.pi(&["--", "--help"]).good();
    let flags: Vec<&str> = section(&help, "Options:")
        .iter()
        .flat_map(|line| line.trim_start().split("  ").next().unwrap().split([',', ' ', '<', '[']))
        .filter(|word| word.len() > 1 && word.starts_with('-') && *word != "--")
        .collect();
    assert!(flags.contains(&"--model") && flags.contains(&"-nt") && flags.len() > 40, "{flags:?}");
    // These the launcher answers itself, for both.
    for flag in flags.iter().filter(|flag| !["--help", "-h", "--version", "-v", "--verbose"].contains(flag)) {
        let passed = world.run_pi(&["--dry-run=json", flag, "word"]);
        assert_eq!(passed.code, Some(0), "{flag}: {passed:?}");
        let plan: serde_json::Value = serde_json::from_str(&passed.out).unwrap();
        let words: Vec<&str> =
            plan["agent"]["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert!(words.ends_with(&[flag, "word"]), "{words:?}");
    }
    let commands: Vec<&str> =
        section(&help, "Commands:").iter().filter_map(|line| line.trim_start().split(' ').nth(1)).collect();
    assert!(commands.contains(&"install") && commands.len() > 5, "{commands:?}");
    for command in commands.iter().filter(|command| !command.starts_with('<')) {
        let plan = world.pi(&["--dry-run=json", command, "npm:word"]).good();
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        assert_eq!(plan["agent"]["command"], serde_json::json!(["pi", command, "npm:word"]));
    }
    // A shell that completes offers these and no others of the agent's.
    let complete = world.call(env!("CARGO_BIN_EXE_pi")).args(&["--", "pi", ""]);
    let offered = complete
        .env("PI_BOX_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "1")
        .env("_CLAP_IFS", "\n")
        .good();
    for command in ["install", "remove", "uninstall", "update", "list", "config", "auth", "mcp"] {
        let is_offered = offered.split_whitespace().any(|word| word == command);
        assert_eq!(is_offered, commands.contains(&command), "{command}: {offered}");
    }
}

#[test]
fn the_agent_answers_however_it_is_asked_and_its_status_is_ours() {
    let world = World::with_model();
    let ask = |words: &[&str], stdin: &str| world.pi(words).input(stdin).run();
    ask(&[&ECHO[..], &["hello there"]].concat(), "").is(0, "hello there\n", "");
    ask(&["--model", "demo/echo", "--print", "hello"], "").is(0, "hello\n", "");
    let piped = ask(&ECHO, "from a pipe\n");
    assert_eq!((piped.code, piped.out.trim(), piped.err.as_str()), (Some(0), "from a pipe", ""));
    // Without a terminal the agent prints and ends by itself.
    ask(&["--model", "demo/echo", "hello"], "").is(0, "hello\n", "");
    ask(&["--", "-p", "--model", "demo/echo", "hello"], "").is(0, "hello\n", "");
    let failed = ask(&["-p", "--model", "demo/unknown", "hello"], "");
    assert_eq!((failed.code, failed.out.as_str()), (Some(1), ""), "{failed:?}");
    assert!(failed.err.contains("no script for unknown"), "{failed:?}");
    let help = ask(&["--", "--help"], "");
    help.is(0, &world.shell(&[], "cat /usr/local/share/pi/agent-help.txt").good(), "");
}

#[test]
fn a_command_in_the_sandbox_ends_with_its_own_status() {
    let world = World::with_model();
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("exit 125", 125), ("kill -9 $$", 137), ("kill -15 $$", 143)]
    {
        world.shell(&[], script).run().is(code, "", "");
    }
    let missing = world.run_pi(&["shell", "--", "no-such-program"]);
    assert_eq!((missing.code, missing.out.as_str()), (Some(127), ""), "{missing:?}");
    assert!(missing.err.contains("no-such-program"), "{missing:?}");
}

#[test]
fn the_agent_edits_the_repository_and_runs_commands_in_it() {
    let world = World::with_model();
    assert_eq!(world.pi(&["-p", "--model", "demo/write", "write the file"]).good(), "The file is written.\n");
    let file = world.repo().join("hello.txt");
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello from the model\n");
    assert_eq!(owner_of(&file), world.owner());
    let sub = world.repo().join("below/here");
    make_dir(&sub);
    let said = world.pi(&["-p", "--model", "demo/bash", "run: pwd; cat ../../hello.txt"]).cwd(&sub).good();
    assert_eq!(said, format!("{}\nhello from the model\n\n", sub.display()));
}

#[test]
fn sessions_last_are_continued_and_are_kept_apart_per_project() {
    let world = World::with_model();
    let other = world.repository("home/projects/other");
    world.pi(&[&ECHO[..], &["remember the first word"]].concat()).good();
    world.pi(&["-c", "-p", "--model", "demo/echo", "and the second"]).good();
    world.pi(&["-c", "-p", "--model", "demo/echo", "elsewhere"]).cwd(&other).good();
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    for project in fs::read_dir(world.home().join(".pi/agent/sessions")).unwrap() {
        for file in fs::read_dir(project.unwrap().path()).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            let head: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            let said = ["remember the first word", "and the second", "elsewhere"];
            found.push((
                head["cwd"].as_str().unwrap().to_owned(),
                said.into_iter().filter(|words| text.contains(words)).collect(),
            ));
        }
    }
    found.sort();
    let expected = [
        (other.to_str().unwrap().to_owned(), vec!["elsewhere"]),
        (world.repo().to_str().unwrap().to_owned(), vec!["remember the first word", "and the second"]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_the_user_installs_lasts_and_what_a_session_installs_does_not() {
    let world = World::with_model();
    let agent = world.agent_dir();
    let extension = "export default (pi) => pi.registerCommand(\"hi\", { description: \"x\", handler: async () => {} });\n";
    write(world.repo().join("extension.ts"), extension);
    write(agent.join("extensions/old.ts"), extension);
    let settings = agent.join("settings.json");
    let installed = world.run_pi(&["install", "./extension.ts"]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let after = fs::read_to_string(&settings).unwrap();
    assert!(after.contains("extension.ts"), "{after}");
    assert_eq!(owner_of(&settings).uid, world.owner().uid);
    let listed = world.run_pi(&["list"]);
    assert!(listed.code == Some(0) && listed.out.contains("extension.ts"), "{listed:?}");
    let tried = world.shell(
        &[],
        "cd ~/.pi/agent
         try() { if (eval \"$2\") 2>/dev/null; then echo \"$1 done\"; else echo \"$1 refused\"; fi; }
         try settings-away 'mv settings.json y'
         try settings-removed 'rm -f settings.json'
         try models 'echo x >>models.json'
         try extension 'echo x >extensions/old.ts'
         try new-extension 'echo x >extensions/new.ts'
         try extensions-away 'mv extensions elsewhere'
         try new-prompts 'mkdir prompts && echo x >prompts/x.md'
         try login 'echo {\\\"a\\\":{}} >auth.json'
         try session 'echo x >sessions/x'",
    );
    let expected = "settings-away refused\nsettings-removed refused\nmodels refused\n\
                    extension refused\nnew-extension refused\nextensions-away refused\nnew-prompts done\n\
                    login done\nsession done\n";
    let tried = tried.run();
    assert_eq!((tried.code, tried.out.as_str()), (Some(0), expected), "{tried:?}");
    assert!(tried.err.contains("what the session put into `~/.pi/agent/prompts` was not kept"), "{tried:?}");
    assert_eq!(fs::read_to_string(&settings).unwrap(), after);
    assert_eq!(fs::read_to_string(agent.join("extensions/old.ts")).unwrap(), extension);
    assert!(
        tried.err.contains("the login for `a` that was made in the session is gone with it"),
        "{tried:?}"
    );
    let names: BTreeSet<String> = fs::read_dir(&agent)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = ["extensions", "models.json", "sessions", "settings.json"];
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// Sets a key of the settings inside, in place as the agent does.
fn set(key: &str, value: &str) -> String {
    format!(
        "node -e 'const fs = require(\"fs\"), f = \"/home/pi/.pi/agent/settings.json\"; \
         const s = JSON.parse(fs.readFileSync(f)); s[\"{key}\"] = {value}; fs.writeFileSync(f, JSON.stringify(s))'\n"
    )
}

fn settings(world: &World) -> serde_json::Value {
    let text = fs::read_to_string(world.agent_dir().join("settings.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_is_set_inside_is_there_at_the_next_start() {
    let world = World::with_model();
    write(world.agent_dir().join("settings.json"), "{\"shellPath\": \"/bin/bash\", \"theme\": \"dark\"}\n");
    own(&world.home(), world.owner());
    let script = [
        set("defaultModel", "\"echo\""),
        set("defaultProvider", "\"demo\""),
        set("defaultThinkingLevel", "\"high\""),
        set("theme", "\"light\""),
        // What would run on the host does not come back.
        set("shellPath", "\"/tmp/x\""),
        set("packages", "[\"npm:evil\"]"),
        format!("echo '{{\"{0}\": true, \"/\": true}}' >~/.pi/agent/trust.json", world.repo().display()),
    ];
    let set = world.shell(&[], &script.concat()).run();
    assert_eq!(set.code, Some(0), "{set:?}");
    assert_eq!(
        settings(&world),
        serde_json::json!({
            "shellPath": "/bin/bash", "theme": "light", "defaultModel": "echo", "defaultProvider": "demo",
            "defaultThinkingLevel": "high",
        })
    );
    // The real agent takes it from there.
    assert_eq!(world.pi(&["-p", "without a model's name"]).good(), "without a model's name\n");
    let seen = world.shell(&[], "cat ~/.pi/agent/trust.json; grep -c light ~/.pi/agent/settings.json").good();
    assert_eq!(seen, format!("{{\n  \"{}\": true\n}}\n1\n", world.repo().display()));
    // For the agent on the host, to trust a project is to run its code.
    assert!(!world.agent_dir().join("trust.json").exists());
    world.assert_nothing_left();
}

#[test]
fn what_was_set_inside_is_kept_though_the_launcher_is_killed() {
    let world = World::with_model();
    let script = format!("{}echo set >ready; sleep 600", set("theme", "\"light\""));
    let pi = world.shell(&[], &script).start();
    until_true("the agent's work", || world.repo().join("ready").exists());
    pi.signal(Signal::KILL);
    pi.wait();
    until_true("the end of the session", || world.sessions().is_empty() && world.watchers().is_empty());
    assert_eq!(settings(&world)["theme"], "light");
    world.assert_nothing_left();
}

#[test]
fn another_projects_transcripts_are_not_there_and_what_persists_is() {
    let world = World::with_model();
    let other = world.repository("home/projects/other");
    world.pi(&[&ECHO[..], &["the other's secret"]].concat()).cwd(&other).good();
    let look = "cd ~/.pi/agent; grep -r secret . ; ls sessions; echo more >>memory/notes && cat memory/notes";
    world.configure("persist = [\"memory\"]\n");
    let own = format!("--{}--", world.repo().display().to_string()[1..].replace('/', "-"));
    assert_eq!(world.shell(&[], look).good(), format!("{own}\nmore\n"));
    assert_eq!(world.shell(&[], look).good(), format!("{own}\nmore\nmore\n"));
    assert_eq!(owner_of(&world.agent_dir().join("memory/notes")), world.owner());
}

#[test]
fn a_link_that_was_planted_in_the_agents_directory_is_not_followed() {
    let world = World::with_model();
    let outside = world.root().join("outside");
    fs::create_dir_all(&outside).unwrap();
    write(outside.join("file"), "{}");
    let before = (owner_of(&outside), owner_of(&outside.join("file")));
    let transcripts = format!("sessions/--{}--", world.repo().display().to_string()[1..].replace('/', "-"));
    for (name, to) in [
        ("sessions", &outside),
        (transcripts.as_str(), &outside),
        ("mcp-auth.json", &outside.join("file")),
        ("memory", &outside),
    ] {
        world.configure("persist = [\"memory\"]\nkeys = { mcp = \"env\" }\n");
        let link = world.agent_dir().join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        own(&world.agent_dir(), world.owner());
        // What the first session has made.
        let _ = fs::remove_file(&link).or_else(|_| fs::remove_dir_all(&link));
        symlink(to, &link).unwrap();
        let refused = world.shell(&[], "true").run();
        assert_eq!(refused.code, Some(125), "{name}: {refused:?}");
        assert!(refused.err.contains(name), "{refused:?}");
        assert_eq!(before, (owner_of(&outside), owner_of(&outside.join("file"))), "{name}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{name}");
        fs::remove_file(&link).unwrap();
    }
    // What can be done without is, and that is told once.
    symlink(&outside, world.agent_dir().join("extensions")).unwrap();
    symlink(outside.join("file"), world.agent_dir().join("settings.json")).unwrap();
    symlink(outside.join("file"), world.agent_dir().join("auth.json")).unwrap();
    let told = world.shell(&[], "ls ~/.pi/agent/extensions 2>&1; true").run();
    assert!(told.code == Some(0) && told.out.contains("No such file"), "{told:?}");
    assert!(
        ["extensions", "settings.json", "auth.json"]
            .iter()
            .all(|name| told.err.contains(&format!("{name}` is a link"))),
        "{told:?}"
    );
    world.shell(&[], "true").good();
    world.assert_nothing_left();
}

/// A `docker` that does something in the moment in which the launcher has looked at everything.
fn docker_after(world: &World, body: &str) {
    let path = world.root().join("bin/docker");
    write_program(
        &path,
        format!("#!/bin/sh\ncase $1 in create) {body} ;; esac\nexec {} \"$@\"\n", "/usr/bin/docker"),
    );
}

#[test]
fn what_is_exchanged_after_the_launchers_look_is_refused() {
    let world = World::with_model();
    world.shell(&[], "true").good();
    let keys = world.home().join(".ssh");
    write(keys.join("id"), "secret");
    write(world.agent_dir().join("prompts/x.md"), "x");
    own(&world.home(), world.owner());
    let live = world.agent_dir();
    let own_transcripts =
        format!("sessions/--{}--", world.repo().display().to_string()[1..].replace('/', "-"));
    for name in [own_transcripts.as_str(), "sessions", "prompts"] {
        let place = live.join(name);
        let to = keys.clone();
        docker_after(&world, &format!("mv {0} {0}-away; ln -s {1} {0}", place.display(), to.display()));
        let script = "cat ~/.pi/agent/auth.json ~/.pi/agent/prompts/id ~/.pi/agent/sessions/*/id";
        let outcome = world.shell(&[], script).path_first(&world.root().join("bin")).run();
        assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{name}: {outcome:?}");
        fs::remove_file(&place).unwrap();
        fs::rename(live.join(format!("{name}-away")), &place).unwrap();
    }
    assert_eq!(fs::read_dir(&keys).unwrap().count(), 1);
    world.assert_nothing_left();
}

#[test]
fn packages_are_installed_into_a_copy_which_is_exchanged_for_the_live_ones() {
    let world = World::with_model();
    write(world.agent_dir().join("npm/package.json"), "{}\n");
    own(&world.home(), world.owner());
    let before = fs::metadata(world.agent_dir().join("npm")).unwrap().ino();
    let source = "export default (pi) => { require(\"fs\").writeFileSync(\"/home/pi/.pi/agent/npm/new.txt\", \"x\"); };\n";
    write(world.repo().join("ext/index.ts"), source);
    let installed = world.run_pi(&["install", "./ext"]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    assert!(settings(&world).to_string().contains("/ext"), "{}", settings(&world));
    let names = fs::read_dir(world.agent_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let staged: Vec<String> = names.filter(|name| name.starts_with(".pi-")).collect();
    assert_eq!(staged, Vec::<String>::new());
    // Nothing of it was changed, so it is what it was.
    assert_eq!(fs::metadata(world.agent_dir().join("npm")).unwrap().ino(), before);
    let listed = world.run_pi(&["list"]);
    assert!(listed.code == Some(0) && listed.out.contains("ext"), "{listed:?}");
    world.assert_nothing_left();
}

#[test]
fn skills_are_there_to_be_read() {
    let world = World::with_model();
    let skill = ".agents/skills/greet/SKILL.md";
    write(world.home().join(skill), "---\nname: greet\ndescription: How to greet here\n---\nSay hello.\n");
    let script = format!("cat ~/{skill} | tail -n 1; (echo x >~/{skill}) 2>/dev/null || echo refused");
    assert_eq!(world.shell(&[], &script).good(), "Say hello.\nrefused\n");
    // The agent offers it to the model as a command of its own.
    let said = world.pi(&["-p", "--model", "demo/echo", "/skill:greet now"]).good();
    assert!(said.contains("Say hello."), "{said}");
}
