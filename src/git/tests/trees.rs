//! Worktrees of subagents, and what an agent can make of them before the host has a look.

use std::{collections::BTreeMap, os::unix::fs::symlink};

use super::{
    super::trees::{Trees, announce, hide, subagents},
    random::Dice,
    *,
};

/// A worktree that a session has, as the extension makes one.
struct Tree<'a> {
    session: &'a Session<'a>,
    name: String,
    /// Where its files are.
    files: PathBuf,
    /// Where git inside keeps what it knows of it.
    admin: PathBuf,
}

impl<'a> Tree<'a> {
    #[track_caller]
    fn add(session: &'a Session<'a>, name: &str) -> Self {
        let tree = Self::at(session, name);
        let branch = format!("subagent/{name}");
        let path = tree.files.to_str().unwrap();
        session.run(&["worktree", "add", "--quiet", "--lock", "-B", &branch, path, "HEAD"]);
        tree.link();
        tree.note(r#"{"state": "finished"}"#);
        tree
    }

    fn at(session: &'a Session<'a>, name: &str) -> Self {
        let files = session.world.root.join(".worktrees").join(name);
        let admin = session.inside(&session.world.common).join("worktrees").join(name);
        Self { session, name: name.to_owned(), files, admin }
    }

    /// Inside, the git directory is mounted where the host's is.
    fn link(&self) {
        let there = self.session.world.common.join("worktrees").join(&self.name);
        let _ = fs::remove_file(self.files.join(".git"));
        fs::write(self.files.join(".git"), format!("gitdir: {}\n", there.display())).unwrap();
    }

    fn note(&self, text: &str) {
        let text = text.replacen('{', &format!("{{\"task\": \"{}\", ", self.name), 1);
        fs::write(self.admin.join("pi-subagent.json"), text).unwrap();
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let mut git = command(&self.files);
        git.env("GIT_DIR", &self.admin).env("GIT_WORK_TREE", &self.files);
        run(git, args)
    }

    #[track_caller]
    fn commit(&self, file: &str, text: &str) {
        fs::write(self.files.join(file), text).unwrap();
        self.run(&["add", "--all"]);
        self.run(&["commit", "--quiet", "-m", text]);
    }

    /// As `/cleanup-worktree` does it: what is a mount stays as an empty directory.
    fn remove(&self) {
        for entry in fs::read_dir(&self.files).unwrap().flatten().filter(|entry| entry.file_name() != ".git")
        {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir_all(&self.admin);
    }
}

/// The end of a session, as the launcher has it. Returns the links that the look at the work tree must leave alone.
#[track_caller]
fn end(session: &Session<'_>) -> Vec<PathBuf> {
    session.end();
    let trees = Trees::left(&session.dir).unwrap();
    let mut links = trees.links();
    links.sort();
    trees.take_over(&git()).unwrap();
    links
}

/// The branch of each worktree in the place of subagents, as git on the host lists it.
fn listed(world: &World) -> BTreeMap<String, String> {
    let below = format!("worktree {}/.worktrees/", world.root.display());
    let text = world.host(&["worktree", "list", "--porcelain"]);
    let all = text.split("\n\n").filter_map(|part| {
        let name = part.lines().find_map(|line| line.strip_prefix(&below))?;
        let branch = part.lines().find_map(|line| line.strip_prefix("branch ")).unwrap_or("none");
        Some((name.to_owned(), branch.to_owned()))
    });
    all.collect()
}

fn is(name: &str) -> (String, String) {
    (name.to_owned(), format!("refs/heads/subagent/{name}"))
}

#[test]
fn the_host_knows_of_worktrees_while_a_session_has_them_and_other_sessions_do_not() {
    let world = World::new();
    let (one, two) = (world.session("one"), world.session("two"));
    let (a, b) = (Tree::add(&one, "a"), Tree::add(&one, "b"));
    let look = || {
        assert!(hide(&one.dir));
        announce(&git(), &one.dir).unwrap();
    };
    look();
    assert_eq!(listed(&world), BTreeMap::new(), "before their branches are there");
    one.pass(Moment::Running);
    look();
    assert_eq!(listed(&world), [is("a"), is("b")].into());
    world.host(&["worktree", "prune"]);
    world.host(&["gc", "--quiet"]);
    assert_eq!((listed(&world).len(), world.status()), (2, "## main".to_owned()));
    a.commit("a", "by a");
    one.pass(Moment::Running);
    look();
    assert_eq!(world.host(&["log", "-1", "--format=%s", "subagent/a"]), "by a");
    let three = world.session("three");
    assert_eq!(three.run(&["worktree", "list"]).lines().count(), 1);
    for session in [two, three] {
        assert_eq!(end(&session), [""; 0].map(Path::new));
    }
    assert_eq!(listed(&world).len(), 2);
    b.remove();
    let _ = fs::remove_dir_all(&b.files);
    look();
    assert_eq!(listed(&world), [is("a")].into());
    // What stands at its place meanwhile is left alone.
    symlink("/etc", &b.files).unwrap();
    look();
    assert_eq!(end(&one), [Path::new(".worktrees/a/.git")]);
    assert_eq!(listed(&world), [is("a")].into());
    assert!(b.files.is_symlink());
    let four = world.session("four");
    assert_eq!(four.run(&["worktree", "list"]).lines().count(), 2);
}

#[test]
fn what_a_session_leaves_the_host_knows_and_the_next_session_has() {
    let world = World::new();
    // A home may be behind a link.
    let behind = world.base().join("link");
    symlink(world.base(), &behind).unwrap();
    let mut one = world.session("one");
    one.dir = behind.join("one");
    let (a, b) = (Tree::add(&one, "a"), Tree::add(&one, "b"));
    a.commit("a", "by a");
    fs::write(b.files.join("b"), "not committed").unwrap();
    assert_eq!(end(&one), [".worktrees/a/.git", ".worktrees/b/.git"].map(Path::new));
    assert_eq!(listed(&world), [is("a"), is("b")].into());
    let in_tree = |name: &str, args: &[&str]| run(command(&world.root.join(".worktrees").join(name)), args);
    assert_eq!(in_tree("a", &["status", "--porcelain"]), "");
    assert_eq!(in_tree("a", &["log", "-1", "--format=%s"]), "by a");
    assert_eq!(in_tree("b", &["status", "--porcelain"]), " M b");
    world.host(&["worktree", "prune"]);
    world.host(&["gc", "--quiet"]);
    assert_eq!(listed(&world).len(), 2);
    assert_eq!(world.status(), "## main");
    // The next one finds them, goes on in one and removes the other.
    let two = world.session("two");
    assert_eq!(two.run(&["worktree", "list"]).lines().count(), 3);
    let (a, b) = (Tree::at(&two, "a"), Tree::at(&two, "b"));
    b.commit("b", "by b");
    a.remove();
    assert_eq!(end(&two), [Path::new(".worktrees/b/.git")]);
    assert_eq!(listed(&world), [is("b")].into());
    assert!(!a.files.exists());
    assert_eq!(world.host(&["log", "-1", "--format=%s", "subagent/a"]), "by a");
    assert_eq!(in_tree("b", &["status", "--porcelain"]), "");
    let three = world.session("three");
    Tree::at(&three, "b").remove();
    assert_eq!(end(&three), [""; 0].map(Path::new));
    assert!(!world.root.join(".worktrees").exists() && !world.common.join("worktrees").exists());
    let names = subagents(&git(), &Repository::at(&world.root, &world.common).unwrap(), &[]);
    let names: Vec<_> = names.iter().map(|one| (one.name.as_str(), one.state.as_str())).collect();
    assert_eq!(names, [("a", "finished, no worktree"), ("b", "finished, no worktree")]);
}

#[test]
fn those_of_a_session_that_runs_and_of_one_that_was_killed_are_listed() {
    let world = World::new();
    let one = world.session("one");
    assert!(!hide(&one.dir));
    for (name, note) in [
        ("works", r#"{"state": "running", "begun": 1700000000000}"#),
        ("late", r#"{"state": "timed out", "pr": "https://example.com/7"}"#),
    ] {
        Tree::add(&one, name).note(note);
    }
    let repository = Repository::at(&world.root, &world.common).unwrap();
    let listed = |running: &[PathBuf]| -> Vec<String> {
        let all = subagents(&git(), &repository, running);
        all.iter().map(|one| format!("{} {} {:?}", one.name, one.state, one.pr)).collect()
    };
    assert_eq!(listed(&[]), [""; 0]);
    assert_eq!(world.status(), "## main\n?? .worktrees/");
    assert!(hide(&one.dir));
    assert_eq!(world.status(), "## main");
    let late = r#"late timed out Some("https://example.com/7")"#;
    assert_eq!(listed(std::slice::from_ref(&one.dir)), [late, "works running None"]);
    end(&one);
    assert_eq!(listed(&[]), [late, "works interrupted None"]);
}

/// What it is called, and how it is done.
type Harm = (&'static str, fn(&Tree<'_>));

/// What an agent can make of a worktree, so that it is none of the host's.
const HARM: [Harm; 12] = [
    ("no note", |tree| fs::remove_file(tree.admin.join("pi-subagent.json")).unwrap()),
    ("a long note", |tree| fs::write(tree.admin.join("pi-subagent.json"), vec![b' '; 70_000]).unwrap()),
    ("a note that is a link", |tree| {
        fs::remove_file(tree.admin.join("pi-subagent.json")).unwrap();
        symlink(tree.session.world.common.join("config"), tree.admin.join("pi-subagent.json")).unwrap();
    }),
    ("another branch", |tree| fs::write(tree.admin.join("HEAD"), "ref: refs/heads/main\n").unwrap()),
    ("no branch", |tree| fs::write(tree.admin.join("HEAD"), tree.run(&["rev-parse", "HEAD"])).unwrap()),
    ("a link that leads elsewhere", |tree| {
        fs::write(tree.files.join(".git"), format!("gitdir: {}\n", tree.admin.display())).unwrap();
    }),
    ("a link that is a link", |tree| {
        fs::rename(tree.files.join(".git"), tree.files.join("x")).unwrap();
        symlink("x", tree.files.join(".git")).unwrap();
    }),
    ("a repository of its own", |tree| {
        fs::remove_file(tree.files.join(".git")).unwrap();
        run(command(&tree.files), &["init", "--quiet"]);
    }),
    ("a work tree that is a link", |tree| {
        let elsewhere = tree.session.world.base().join("elsewhere");
        fs::rename(&tree.files, &elsewhere).unwrap();
        symlink(&elsewhere, &tree.files).unwrap();
    }),
    ("a directory of git's that is a link", |tree| {
        fs::rename(&tree.admin, tree.admin.with_file_name("moved")).unwrap();
        symlink("moved", &tree.admin).unwrap();
    }),
    ("a pipe for a note", |tree| {
        let note = tree.admin.join("pi-subagent.json");
        fs::remove_file(&note).unwrap();
        assert!(Command::new("mkfifo").arg(note).status().unwrap().success());
    }),
    ("no branch of its name", |tree| {
        tree.session.run(&["update-ref", "-d", &format!("refs/heads/subagent/{}", tree.name)]);
    }),
];

/// The files of the host's that no worktree may change.
fn untouched(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![world.common.clone(), world.base().join("mine")];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let is_taken_over = ["objects", "logs", "info"].iter().any(|known| name == *known);
            if entry.file_type().unwrap().is_dir() && !is_taken_over {
                pending.push(path);
            } else if path.is_file() {
                files.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    files
}

#[test]
fn what_an_agent_has_made_of_one_is_none_of_the_hosts() {
    for (what, harm) in HARM {
        let world = World::new();
        world.host(&["worktree", "add", "--quiet", "--detach", "../mine"]);
        let session = world.session("s");
        let (tree, control) = (Tree::add(&session, "x"), Tree::add(&session, "good"));
        control.commit("good", "good");
        harm(&tree);
        session.end();
        let before = untouched(&world);
        let trees = Trees::left(&session.dir).unwrap();
        trees.take_over(&git()).unwrap();
        assert_eq!(listed(&world), [is("good")].into(), "{what}");
        let added = |path: &PathBuf| path.starts_with(world.common.join("worktrees/good"));
        let mut after = untouched(&world);
        after.retain(|path, _| !added(path));
        assert!(after == before, "{what}: {:?}", after.keys().collect::<Vec<_>>());
        assert!(world.base().join("mine/a").is_file(), "{what}");
        world.host(&["fsck", "--strict"]);
    }
}

#[test]
fn a_link_in_the_place_of_all_worktrees_leads_to_nothing_that_is_removed() {
    let world = World::new();
    let first = world.session("first");
    Tree::add(&first, "documents");
    end(&first);
    let next = world.session("next");
    let (tree, outside) = (Tree::at(&next, "documents"), world.base().join("outside"));
    fs::create_dir_all(outside.join("documents")).unwrap();
    fs::write(outside.join("documents/kept"), "").unwrap();
    fs::remove_dir_all(&tree.admin).unwrap();
    fs::remove_dir_all(world.root.join(".worktrees")).unwrap();
    symlink(&outside, world.root.join(".worktrees")).unwrap();
    end(&next);
    assert!(outside.join("documents/kept").exists());
    assert_eq!(listed(&world), BTreeMap::new());
}

#[test]
fn a_submodule_in_its_branch_and_a_name_that_is_taken_take_it_out_of_action() {
    let world = World::new();
    world.host(&["worktree", "add", "--quiet", "--detach", "../mine"]);
    let session = world.session("s");
    let (sub, mine) = (Tree::add(&session, "sub"), Tree::add(&session, "mine"));
    let head = sub.run(&["rev-parse", "HEAD"]);
    sub.run(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},inner")]);
    sub.run(&["commit", "--quiet", "-m", "sub"]);
    mine.commit("a", "mine");
    session.end();
    let mut unfit = Trees::left(&session.dir).unwrap().take_over(&git()).unwrap();
    unfit.sort();
    assert_eq!(unfit, [".worktrees/mine", ".worktrees/sub"].map(Path::new));
    assert_eq!(listed(&world), BTreeMap::new());
    for tree in [&sub, &mine] {
        assert!(!tree.files.join(".git").exists() && tree.files.join(".git.pi-quarantine").exists());
        assert!(tree.files.join("a").exists());
    }
    assert_eq!(run(command(&world.base().join("mine")), &["status", "--porcelain"]), "");
    assert_eq!(world.host(&["log", "-1", "--format=%s", "subagent/mine"]), "mine");
}

/// Random sessions, one after the other, with subagents that come, work, go and do harm, and a user in between: the user's
/// own worktree and git directory stand, each worktree is either git's or out of action, and no file of one is lost.
#[test]
fn random_worktrees_are_the_hosts_or_out_of_action_and_nothing_is_lost() {
    let cases = std::env::var("PI_TEST_CASES").ok().and_then(|text| text.parse::<u64>().ok());
    // Each takes some hundred calls of git.
    for seed in 1..=cases.map_or(2, |cases| (cases / 16).clamp(2, 500)) {
        let mut dice = Dice(seed);
        let world = World::new();
        world.host(&["worktree", "add", "--quiet", "--detach", "../mine"]);
        let mut log = Vec::new();
        for round in 0..4 {
            let session = world.session(&format!("s{round}"));
            for _ in 0..4 {
                let name = dice.of(&["a", "b", "c"]);
                let tree = Tree::at(&session, name);
                let is_there = tree.admin.join("commondir").exists() && tree.files.join(".git").is_file();
                let act = dice.below(6);
                log.push(format!("{round}: {name} {act} {is_there}"));
                match act {
                    _ if !is_there && !tree.files.exists() && !tree.admin.exists() => {
                        drop(Tree::add(&session, name));
                    }
                    0 | 1 if is_there => tree.commit("a", &dice.below(1000).to_string()),
                    2 if is_there => fs::write(tree.files.join("b"), dice.below(1000).to_string()).unwrap(),
                    3 if is_there => tree.remove(),
                    4 if is_there => {
                        // Those that leave the work tree in its place.
                        let (what, harm) = HARM[dice.below(8)];
                        log.push(what.to_owned());
                        harm(&tree);
                    }
                    _ => {}
                }
            }
            let files = |name: &str| fs::read(world.root.join(".worktrees").join(name).join("a")).ok();
            session.end();
            let before = ["a", "b", "c"].map(files);
            let mine = fs::read(world.common.join("worktrees/mine/HEAD")).unwrap();
            let config = fs::read(world.common.join("config")).unwrap();
            let trees = Trees::left(&session.dir).unwrap();
            let links = trees.links();
            trees.take_over(&git()).unwrap();
            let show = || format!("seed {seed}: {log:#?}");
            assert_eq!(["a", "b", "c"].map(files), before, "{}", show());
            assert_eq!(fs::read(world.common.join("worktrees/mine/HEAD")).unwrap(), mine, "{}", show());
            assert_eq!(fs::read(world.common.join("config")).unwrap(), config, "{}", show());
            let listed = listed(&world);
            for name in ["a", "b", "c"] {
                let link = Path::new(".worktrees").join(name).join(".git");
                let is_left = world.root.join(&link).exists();
                // What is neither git's nor a link that is known is for the look at the work tree.
                if links.contains(&link) && is_left {
                    assert_eq!(listed.get(name), Some(&is(name).1), "{name}: {}", show());
                }
            }
            assert_eq!(
                run(command(&world.base().join("mine")), &["status", "--porcelain"]),
                "",
                "{}",
                show()
            );
            world.host(&["fsck", "--strict", "--no-dangling"]);
            if dice.below(3) == 0 {
                let name = dice.of(&["a", "b", "c"]);
                log.push(format!("the user removes {name}"));
                let path = format!(".worktrees/{name}");
                let _ =
                    command(&world.root).args(["worktree", "remove", "-f", "-f", &path]).output().unwrap();
                let _ = fs::remove_dir_all(world.root.join(path));
                world.host(&["worktree", "prune"]);
            }
        }
    }
}
