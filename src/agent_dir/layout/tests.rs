use std::collections::BTreeMap;

use super::*;

fn live(entries: &[(&str, Kind)]) -> Live {
    let found = |kind| Found { kind, identity: Some(Identity { device: 1, inode: 2 }) };
    Live {
        path: "/home/me/.pi/agent".into(),
        entries: entries.iter().map(|(name, kind)| ((*name).to_owned(), found(*kind))).collect(),
        links: BTreeMap::new(),
        texts: BTreeMap::new(),
        notices: vec![],
    }
}

fn layout(live: &Live, persist: &[Persist], scope: Scope) -> Layout {
    Layout::new(&Inputs {
        live,
        root: Path::new("/code/a"),
        cwd: Path::new("/code/a/sub"),
        models: Value::Secret(Secret::new("hunter2".into())),
        logins: Value::from("{}"),
        other_logins: OtherLogins::Inside,
        persist,
        decisions: &Decisions::new(),
        scope,
    })
}

#[test]
fn a_session_gets_code_and_text_to_read_and_its_own_transcripts_to_write() {
    let live = live(&[
        ("extensions", Kind::Directory),
        ("npm", Kind::Directory),
        ("AGENTS.md", Kind::File),
        ("sessions", Kind::Directory),
        ("auth.json", Kind::File),
        ("mcp-auth.json", Kind::File),
        ("bin", Kind::Directory),
        ("models-store.json", Kind::File),
        ("settings.json.lock", Kind::Directory),
        (".pi-stage-1", Kind::Directory),
        ("secrets.json", Kind::File),
        ("memory", Kind::Directory),
        ("themes", Kind::Link),
        ("skills", Kind::Other),
    ]);
    let persist = [Persist::parse("memory").unwrap()];
    let session = layout(&live, &persist, Scope::Session);
    let names: Vec<&str> = session.read.iter().map(|read| read.name.as_str()).collect();
    assert_eq!(names, ["AGENTS.md", "extensions", "npm"]);
    assert_eq!(
        session.kept,
        [Kept::OtherLogins, Kept::Transcripts("--code-a-sub--".into()), Kept::Entry(persist[0].clone())]
    );
    let copies: Vec<_> = session.copies.iter().map(|copy| (copy.name, copy.access)).collect();
    let writable = [SETTINGS, TRUST, LOGINS].map(|name| (name, Access::ReadWrite));
    assert_eq!(copies[..3], writable);
    assert_eq!(copies[3..], [(MODELS, Access::ReadOnly)]);
    let told: Vec<&str> = session.notices.iter().filter_map(|notice| notice.once.as_deref()).collect();
    assert_eq!(told, ["unknown secrets.json", "link themes"]);
    let set_up = layout(&live, &persist, Scope::SetUp);
    assert_eq!((set_up.kept.len(), set_up.staged), (0, vec!["npm", "git"]));
    assert!(set_up.read.iter().all(|read| read.name != "npm"));
}

#[test]
fn no_secret_is_seen_in_a_layout_that_is_shown() {
    let mut live = live(&[("settings.json", Kind::File), ("models.json", Kind::File)]);
    live.texts.insert(SETTINGS.to_owned(), r#"{"apiKeys":{"a":"hunter2"}}"#.to_owned());
    let layout = layout(&live, &[], Scope::Session);
    assert!(!format!("{layout:?}").contains("hunter2"));
    let of = |name| layout.copies.iter().find(|copy| copy.name == name).unwrap();
    assert_eq!(of(SETTINGS).text.bytes(), b"{}");
    assert_eq!((of(MODELS).text.bytes(), of(MODELS).access), (&b"hunter2"[..], Access::ReadOnly));
}
