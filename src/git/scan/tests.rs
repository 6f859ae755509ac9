use std::{fs, os::unix::fs::symlink, process::Command};

use super::*;

fn init(root: &Path, path: &str, args: &[&str]) {
    let mut git = Command::new("git");
    let git = git.current_dir(root).args(["init", "--quiet"]).args(args).arg(path);
    assert!(git.env("GIT_CONFIG_GLOBAL", "/dev/null").status().unwrap().success());
}

fn names(left: &Left) -> Vec<(&str, &str)> {
    let mut names: Vec<_> = left
        .disarmed
        .iter()
        .map(|one| (one.path.to_str().unwrap(), one.now.as_ref().map(|now| now.to_str().unwrap()).unwrap()))
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn what_git_would_take_for_a_repository_is_out_of_action() {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    init(&root, ".", &[]);
    init(&root, "old", &[]);
    init(&root, "fixtures/old.git", &["--bare"]);
    let before = Seen::look(&root, Top::Repository).unwrap();
    assert_eq!(before.nested, [Path::new("old/.git")]);
    let before: Seen = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
    fs::write(root.join("old/.git/COMMIT_EDITMSG"), "the user's").unwrap();
    fs::rename(root.join("old"), root.join("moved")).unwrap();
    init(&root, "deep/er/new", &[]);
    init(&root, "bare", &["--bare"]);
    fs::create_dir(root.join("file")).unwrap();
    fs::write(root.join("file/.git"), "gitdir: ../bare\n").unwrap();
    fs::create_dir_all(root.join("link/.git.pi-quarantine")).unwrap();
    symlink("../bare", root.join("link/.git")).unwrap();
    fs::create_dir(root.join("worktree")).unwrap();
    fs::write(root.join("worktree/HEAD"), "ref: refs/heads/x\n").unwrap();
    fs::write(root.join("worktree/commondir"), "../bare\n").unwrap();
    for part in ["objects", "refs"] {
        fs::create_dir_all(root.join("linked")).unwrap();
        symlink(format!("../bare/{part}"), root.join("linked").join(part)).unwrap();
    }
    symlink("refs/heads/main", root.join("linked/HEAD")).unwrap();
    let left = disarm(&root, Top::Repository, &before, &[]).unwrap();
    assert_eq!(
        names(&left),
        [
            ("bare", "bare/HEAD.pi-quarantine"),
            ("deep/er/new/.git", "deep/er/new/.git.pi-quarantine"),
            ("file/.git", "file/.git.pi-quarantine"),
            ("link/.git", "link/.git.pi-quarantine-2"),
            ("linked", "linked/HEAD.pi-quarantine"),
            ("worktree", "worktree/HEAD.pi-quarantine"),
        ]
    );
    assert!(root.join("moved/.git").is_dir() && root.join("fixtures/old.git/HEAD").is_file());
    let git_dir = |path: &str| {
        let output = Command::new("git")
            .current_dir(root.join(path))
            .args(["rev-parse", "--git-dir"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for path in
        ["bare", "deep/er/new", "deep/er/new/.git.pi-quarantine", "file", "link", "linked", "worktree"]
    {
        assert_eq!(git_dir(path), format!("{}\n", root.join(".git").display()), "{path}");
    }
    assert_eq!(disarm(&root, Top::Repository, &before, &[]).unwrap().disarmed, []);
    // A repository that was there, and whose settings the agent has changed.
    fs::write(root.join("fixtures/old.git/config"), "[core]\n\tfsmonitor = x\n").unwrap();
    let left = disarm(&root, Top::Repository, &before, &[]).unwrap();
    assert_eq!(names(&left), [("fixtures/old.git", "fixtures/old.git/HEAD.pi-quarantine")]);
}

#[test]
fn a_directory_without_a_repository_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let before = Seen::look(root, Top::Directory).unwrap();
    init(root, ".", &[]);
    let left = disarm(root, Top::Directory, &before, &[]).unwrap();
    assert_eq!(names(&left), [(".git", ".git.pi-quarantine")]);
}

#[test]
fn new_and_changed_files_that_run_are_named_and_sockets_too() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (file, text) in [
        ("Makefile", "all:"),
        ("same/Makefile", "all:"),
        ("package.json", r#"{"scripts": {}}"#),
        ("web/package.json", "{}"),
    ] {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), text).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(root.join("s")).unwrap();
    let before = Seen::look(root, Top::Repository).unwrap();
    assert_eq!(before.sockets, [Path::new("s")]);
    fs::write(root.join("Makefile"), "all: x").unwrap();
    fs::write(root.join("package.json"), r#"{"scripts": {"postinstall": "x"}}"#).unwrap();
    fs::write(root.join("web/package.json"), r#"{"dependencies": {}}"#).unwrap();
    fs::write(root.join(".envrc"), "x").unwrap();
    fs::create_dir(root.join(".vscode")).unwrap();
    symlink("x", root.join(".vscode/tasks.json")).unwrap();
    let expected = [
        (".envrc", Change::New),
        (".vscode/tasks.json", Change::New),
        ("Makefile", Change::Changed),
        ("package.json", Change::Changed),
    ];
    let expected = expected.map(|(path, change)| Risky { path: path.into(), change });
    assert_eq!(before.news(root, Top::Repository).unwrap(), expected);
    let left = disarm(root, Top::Repository, &before, &[]).unwrap();
    assert_eq!(left.risky, expected);
}

#[test]
fn a_hundred_thousand_files_take_a_moment_and_endless_depth_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    // A tenth of them here; the bench has all.
    for n in 0..100 {
        fs::create_dir(root.join(format!("d{n}"))).unwrap();
        for m in 0..100 {
            fs::write(root.join(format!("d{n}/f{m}")), "").unwrap();
        }
    }
    let mut deep = root.join("deep");
    for _ in 0..150 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let begun = std::time::Instant::now();
    let seen = Seen::look(root, Top::Repository).unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(seen.unseen.len(), 1);
    assert_eq!(seen.unseen[0].components().count(), walk::DEEPEST + 1);
    // What could not be looked at before either is not told again.
    let kept: Seen = serde_json::from_slice(&serde_json::to_vec(&seen).unwrap()).unwrap();
    assert!(disarm(root, Top::Repository, &kept, &[]).unwrap().unseen.is_empty());
}
