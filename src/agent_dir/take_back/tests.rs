use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    thread,
    time::{Instant, SystemTime},
};

use super::*;
use crate::{
    agent_dir::{
        laid::{Laid, Place, lay},
        layout::{Inputs, Layout, OtherLogins},
        live::Live,
        tests::World,
    },
    files::Identity,
    inside::Access,
};

/// A home, a state directory, and one session.
fn new_world() -> World {
    let world = World::with(&["live", "state/sessions/one"]);
    world.write("live/settings.json", "{\"theme\":\"dark\",\"shellPath\":\"/bin/zsh\"}\n");
    world.write("live/extensions/x.ts", "");
    world
}

impl World {
    fn lay(&self, persist: &[&str], scope: Scope) -> anyhow::Result<Vec<Laid>> {
        self.lay_for("one", persist, scope)
    }

    fn lay_for(&self, session: &str, persist: &[&str], scope: Scope) -> anyhow::Result<Vec<Laid>> {
        let persist: Vec<Persist> = persist.iter().map(|name| Persist::parse(name).unwrap()).collect();
        let live = Live::look(&self.at("live")).unwrap();
        let decisions = decisions(&self.at("state")).unwrap();
        let layout = Layout::new(&Inputs {
            live: &live,
            root: Path::new("/code/a"),
            cwd: Path::new("/code/a"),
            models: "{}".into(),
            logins: "{\"a\":1}".into(),
            other_logins: OtherLogins::Outside,
            persist: &persist,
            decisions: &decisions,
            scope,
        });
        let (session, live) = (self.at("state/sessions").join(session), self.at("live"));
        lay(&layout, Place { session: &session, live: &live, root: Path::new("/code/a"), owner: None })
    }

    /// What the agent writes inside.
    fn agent_writes(&self, name: &str, text: &str) {
        self.write(&format!("state/sessions/one/agent/{name}"), text);
    }

    fn end(&self) -> Vec<String> {
        let notices = take_back(&self.at("state/sessions/one"), &self.at("state"), None).unwrap();
        notices.into_iter().map(|notice| notice.text).collect()
    }
}

#[test]
fn every_mount_is_what_its_descriptor_was() {
    let world = new_world();
    let laid = world.lay(&["memory", "todo.json"], Scope::Session).unwrap();
    for Laid { source, identity, .. } in &laid {
        assert_eq!(Identity::at(source), Some(*identity), "{}", source.display());
    }
    let mut targets: Vec<_> = laid.iter().map(|laid| (laid.target.to_str().unwrap(), laid.access)).collect();
    targets.sort_unstable_by_key(|(target, _)| *target);
    let (read, write) = (Access::ReadOnly, Access::ReadWrite);
    assert_eq!(
        targets,
        [
            (".pi-left", write),
            ("auth.json", write),
            ("extensions", read),
            ("memory", write),
            ("models.json", read),
            ("sessions/--code-a--", write),
            ("settings.json", write),
            ("todo.json", write),
            ("trust.json", write),
        ]
    );
    assert!(laid.iter().all(|laid| !world.at("live").starts_with(&laid.source)));
    assert!(!world.at("live/auth.json").exists());
    let mode = fs::metadata(world.at("live/sessions/--code-a--")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn a_login_that_was_made_inside_is_told() {
    let world = new_world();
    world.lay(&[], Scope::Session).unwrap();
    world.agent_writes("auth.json", r#"{"a":1,"xai":{"type":"oauth"}}"#);
    assert_eq!(world.end(), ["the login for `xai` that was made in the session is gone with it"]);
    assert!(!world.at("live/auth.json").exists());
}

#[test]
fn what_was_set_inside_is_there_at_the_next_start_and_the_mode_is_kept() {
    let world = new_world();
    fs::set_permissions(world.at("live/settings.json"), fs::Permissions::from_mode(0o640)).unwrap();
    world.lay(&[], Scope::Session).unwrap();
    world.agent_writes("settings.json", r#"{"theme":"light","shellPath":"/bin/zsh","defaultModel":"m"}"#);
    world.agent_writes("trust.json", r#"{"/code/a":true,"/code":true}"#);
    world.write("live/settings.json", "{\"theme\":\"dark\",\"shellPath\":\"/bin/fish\"}\n");
    let said = world.end();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        world.read("live/settings.json"),
        "{\n  \"theme\": \"light\",\n  \"shellPath\": \"/bin/fish\",\n  \"defaultModel\": \"m\"\n}\n"
    );
    let mode = fs::metadata(world.at("live/settings.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    // The agent on the host would run the repository's code for it.
    assert!(!world.at("live/trust.json").exists());
    world.lay(&[], Scope::Session).unwrap();
    assert_eq!(world.read("state/sessions/one/agent/trust.json"), "{\n  \"/code/a\": true\n}\n");
    assert!(world.read("state/sessions/one/agent/settings.json").contains("\"m\""));
}

#[test]
fn done_twice_it_is_done_once_and_without_a_layout_it_is_nothing() {
    let world = new_world();
    assert_eq!(world.end(), Vec::<String>::new());
    world.lay(&[], Scope::Session).unwrap();
    world.agent_writes("settings.json", r#"{"theme":"light","shellPath":"/bin/zsh"}"#);
    world.end();
    // The user's own, after the session.
    world.write("live/settings.json", r#"{"theme":"blue"}"#);
    assert_eq!(world.end(), Vec::<String>::new());
    assert_eq!(world.read("live/settings.json"), r#"{"theme":"blue"}"#);
}

#[test]
fn what_would_be_missed_is_told_once() {
    let world = new_world();
    world.lay(&["memory"], Scope::Session).unwrap();
    world.agent_writes("left", "memory\0extensions\0notes.db\0skills\0auth.json\0x.lock\0bin\0\u{1b}[2J\0");
    let said = world.end();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("notes.db") && said[1].contains("skills"), "{said:?}");
    world.lay(&["memory"], Scope::Session).unwrap();
    world.agent_writes("left", "notes.db\0skills\0");
    assert_eq!(world.end(), Vec::<String>::new());
}

#[test]
fn what_a_killed_or_a_hostile_agent_left_changes_nothing() {
    let deep = "[".repeat(500_000);
    let long = "x".repeat(3 << 20);
    for text in ["", "{", "[]", "{\"theme\":", deep.as_str(), long.as_str()] {
        let world = new_world();
        let before = world.read("live/settings.json");
        world.lay(&[], Scope::Session).unwrap();
        for name in ["settings.json", "trust.json", "auth.json", "left"] {
            world.agent_writes(name, text);
        }
        let said = world.end();
        assert!(said.iter().any(|said| said.contains("settings")), "{text:.20}: {said:?}");
        assert!(said.iter().all(|said| said.len() < 400), "{text:.20}: {said:?}");
        assert_eq!(world.read("live/settings.json"), before);
    }
}

#[test]
fn an_agent_on_the_host_is_waited_for_and_not_raced() {
    let world = new_world();
    world.lay(&[], Scope::Session).unwrap();
    world.agent_writes("settings.json", r#"{"theme":"light","shellPath":"/bin/zsh"}"#);
    let lock = world.at("live/settings.json.lock");
    fs::create_dir(&lock).unwrap();
    let begun = Instant::now();
    thread::scope(|scope| {
        let end = scope.spawn(|| world.end());
        while begun.elapsed() < Duration::from_millis(200) {
            assert!(world.read("live/settings.json").contains("dark"));
            thread::yield_now();
        }
        world.write("live/settings.json", r#"{"theme":"dark","quietStartup":true}"#);
        fs::remove_dir(&lock).unwrap();
        assert_eq!(end.join().unwrap(), Vec::<String>::new());
    });
    let settings = world.read("live/settings.json");
    assert!(settings.contains("light") && settings.contains("quietStartup"), "{settings}");
    assert!(!lock.exists());
    // One that was killed has left its lock.
    fs::create_dir(&lock).unwrap();
    fs::File::open(&lock).unwrap().set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    world.lay(&[], Scope::Session).unwrap();
    world.agent_writes("settings.json", r#"{"theme":"blue","quietStartup":true}"#);
    world.end();
    assert!(world.read("live/settings.json").contains("blue"));
}

#[test]
fn links_in_the_live_directory_lead_nowhere() {
    let world = new_world();
    world.write("out/settings.json", r#"{"theme":"dark"}"#);
    fs::remove_file(world.at("live/settings.json")).unwrap();
    symlink("../out/settings.json", world.at("live/settings.json")).unwrap();
    world.lay(&[], Scope::Session).unwrap();
    assert_eq!(world.read("state/sessions/one/agent/settings.json"), "{}");
    world.agent_writes("settings.json", r#"{"theme":"light"}"#);
    let said = world.end();
    assert!(said[0].contains("could not keep the settings"), "{said:?}");
    assert_eq!(world.read("out/settings.json"), r#"{"theme":"dark"}"#);
    fs::create_dir(world.at("out/sessions")).unwrap();
    fs::remove_dir_all(world.at("live/sessions")).unwrap();
    for (name, target) in [("sessions", "../out/sessions"), ("memory", "../out")] {
        let _ = symlink(target, world.at("live").join(name));
        assert!(world.lay(&["memory"], Scope::Session).is_err(), "{name}");
        fs::remove_file(world.at("live").join(name)).unwrap();
    }
    assert_eq!(fs::read_dir(world.at("out/sessions")).unwrap().count(), 0);
}

#[test]
fn what_is_no_transcript_is_removed_from_them_before_and_after() {
    let world = new_world();
    let transcripts = world.at("live/sessions/--code-a--");
    world.lay(&[], Scope::Session).unwrap();
    fs::write(transcripts.join("1.jsonl"), "{}").unwrap();
    symlink("../../settings.json", transcripts.join("2.jsonl")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(transcripts.join("s")).unwrap();
    assert!(world.end()[0].contains("removed 2"));
    symlink("/etc", transcripts.join("3")).unwrap();
    world.lay(&[], Scope::Session).unwrap();
    let left: Vec<_> = fs::read_dir(&transcripts).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["1.jsonl"]);
}

#[test]
fn a_set_up_brings_its_packages_with_their_settings_or_neither() {
    let world = new_world();
    let after = r#"{"theme":"dark","shellPath":"/bin/zsh","packages":["npm:x"]}"#;
    let install = || {
        world.lay(&[], Scope::SetUp).unwrap();
        let stage = Stage::make(&world.at("live"), None).unwrap();
        let npm = stage.mounts().unwrap().remove(0).source;
        fs::create_dir_all(npm.join("node_modules/x")).unwrap();
        world.agent_writes("settings.json", after);
        (stage, npm)
    };
    let end = |stage| take_back(&world.at("state/sessions/one"), &world.at("state"), stage);
    let (stage, npm) = install();
    symlink("/etc", npm.join("link")).unwrap();
    assert!(end(Some(stage)).unwrap_err().to_string().contains("was not taken over"));
    assert!(!world.read("live/settings.json").contains("npm:x") && !world.at("live/npm").exists());
    let (stage, _) = install();
    drop(stage);
    assert!(end(None).unwrap()[0].text.contains("was interrupted"));
    assert!(!world.read("live/settings.json").contains("npm:x") && !world.at("live/npm").exists());
    let (stage, _) = install();
    assert_eq!(end(Some(stage)).unwrap(), vec![]);
    assert!(
        world.read("live/settings.json").contains("npm:x") && world.at("live/npm/node_modules/x").is_dir()
    );
}

#[test]
fn a_home_without_an_agents_directory_gets_one_of_its_own() {
    let world = new_world();
    fs::remove_dir_all(world.at("live")).unwrap();
    world.lay(&[], Scope::Session).unwrap();
    world.agent_writes("settings.json", r#"{"theme":"light"}"#);
    assert_eq!(world.end(), Vec::<String>::new());
    assert_eq!(world.read("live/settings.json"), "{\n  \"theme\": \"light\"\n}");
}

#[test]
fn many_sessions_that_end_at_once_lose_nothing_of_each_other() {
    let world = new_world();
    let keys = [
        "quietStartup", "hideThinkingBlock", "collapseChangelog", "showHardwareCursor", "enableSkillCommands",
    ];
    // All begin before any ends.
    for key in keys {
        fs::create_dir_all(world.at("state/sessions").join(key)).unwrap();
        world.lay_for(key, &[], Scope::Session).unwrap();
    }
    thread::scope(|scope| {
        for key in keys {
            let world = &world;
            scope.spawn(move || {
                let session = world.at("state/sessions").join(key);
                let settings = fs::read_to_string(session.join("agent/settings.json")).unwrap();
                let mut settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
                settings[key] = true.into();
                fs::write(session.join("agent/settings.json"), settings.to_string()).unwrap();
                fs::write(session.join("agent/trust.json"), format!("{{\"/code/a/{key}\":true}}")).unwrap();
                assert_eq!(take_back(&session, &world.at("state"), None).unwrap(), vec![]);
            });
        }
    });
    let settings = world.read("live/settings.json");
    let trusted = world.read("state/trust.json");
    for key in keys {
        assert!(settings.contains(key) && trusted.contains(key), "{key}: {settings} {trusted}");
    }
}
