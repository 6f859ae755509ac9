//! Repositories of every kind, and branches that are in each other's way.

use std::{path::Path, thread};

use super::read;
use crate::world::{World, files::write};

/// Commits a file.
fn commit(world: &World, dir: &Path, message: &str) {
    write(dir.join(message), message);
    world.git(dir, &["add", "."]);
    world.git(dir, &["commit", "--quiet", "--message", message]);
}

#[test]
fn repositories_of_every_kind_can_be_copied() {
    let world = World::with_model();
    let main = world.repo().to_owned();
    commit(&world, &main, "one");
    commit(&world, &main, "two");
    let projects = world.home().join("projects");
    let at = |name: &str| projects.join(name);
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    world.git(&main, &["worktree", "add", "--quiet", &path("tree")]);
    world.git(
        &main,
        &["clone", "--quiet", "--depth=1", &format!("file://{}", main.display()), &path("shallow")],
    );
    world.git(&main, &["clone", "--quiet", "--shared", main.to_str().unwrap(), &path("borrower")]);
    world.git(&main, &["clone", "--quiet", main.to_str().unwrap(), &path("detached")]);
    world.git(&at("detached"), &["checkout", "--quiet", "--detach", "HEAD^"]);
    world.git(&main, &["clone", "--quiet", main.to_str().unwrap(), &path("sparse")]);
    commit(&world, &at("sparse"), "dir/inner");
    world.git(&at("sparse"), &["sparse-checkout", "set", "none"]);
    world.git(&main, &["init", "--quiet", &path("unborn")]);
    world.git(&main, &["init", "--quiet", "--object-format=sha256", &path("sha256")]);
    commit(&world, &at("sha256"), "one");
    let kinds = ["tree", "shallow", "borrower", "detached", "sparse", "unborn", "sha256"];
    thread::scope(|scope| {
        for name in kinds {
            let (world, dir) = (&world, at(name));
            scope.spawn(move || round_trip(world, &dir, name));
        }
    });
    let plain = world.root().join("plain");
    write(plain.join("x"), "x");
    world.pi(&["--clone", "shell", "--", "true"]).cwd(&plain).run().says(125, "so there is nothing to copy");
    world.assert_nothing_left();
}

#[test]
fn every_file_is_in_a_copy_byte_by_byte_with_its_mode_and_its_time() {
    let world = World::with_model();
    let repo = world.repo().to_owned();
    let long = format!("{}/a b\tc", "d".repeat(120));
    let files: [(&str, &[u8]); 13] = [
        (".gitattributes", b"*.crlf text eol=crlf\n*.id ident\n*.wide working-tree-encoding=UTF-16LE-BOM\n"),
        ("plain", b"plain\n"),
        ("dos", b"one\r\ntwo\r\n"),
        ("w.crlf", b"one\ntwo\n"),
        ("w.id", b"$Id$\n"),
        ("w.wide", b"\xff\xfea\0b\0\n\0"),
        ("run", b"#!/bin/sh\n"),
        ("mine", b"mine\n"),
        ("assumed", b"assumed\n"),
        ("staged", b"staged\n"),
        ("changed", b"changed\n"),
        ("become", b"a file\n"),
        (&long, b"long\n"),
    ];
    for (path, bytes) in files {
        write(repo.join(path), bytes);
    }
    let script = "chmod 755 run; chmod 600 mine; ln -s plain link; git add . && git commit -qm one || exit; \
                  rm w.crlf w.id; git checkout -q -- w.crlf w.id; \
                  git update-index --assume-unchanged assumed; echo other77 >assumed; echo more >>staged; git add staged; \
                  echo more >>changed; rm become; ln -s plain become; touch -d @1600000000 plain run; touch untracked";
    let made = world.as_owner("sh").args(&["-c", script]).run();
    assert_eq!(made.code, Some(0), "{made:?}");
    // Git has converted these on the host.
    assert_eq!(read(repo.join("w.crlf")), "one\r\ntwo\r\n");
    assert!(read(repo.join("w.id")).len() > 40);
    let look = "find . -name .git -prune -o \\( -type f -printf '%p %m %T@ ' -exec sh -c 'sha256sum <\"$1\"' sh {} \\; \\) -o \\( -type l -printf '%p %l\\n' \\) | \
                sed -E 's/(\\.[0-9]+) ([0-9a-f]{64})/ \\2/' | sort; git status --porcelain -uall | sort";
    let here = world.as_owner("sh").args(&["-c", look]).run().out;
    let there = world.shell(&["--clone"], look).run();
    // What is staged is uncommitted in a copy. What is assumed to be unchanged is seen there.
    let expected = here.replace("M  staged", " M staged").replace(" M changed\n", " M assumed\n M changed\n");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&there.out), sorted(&expected), "{there:?}");
    assert!(here.lines().count() > 15, "{here}");
    world.run_pi(&["drop", "copy"]).has_code(0);
    world.assert_nothing_left();
}

/// A file goes into a copy, and comes back changed.
fn round_trip(world: &World, dir: &Path, kind: &str) {
    write(dir.join("own"), "own\n");
    let script = "git status --porcelain; git fsck --no-progress 2>/dev/null; echo more >>own; git log --format=%s | tail -n 1";
    let name = format!("--clone={kind}");
    let done = world.shell(&[&name], script).cwd(dir).run();
    let first = match kind {
        "unborn" => "",
        "shallow" => "two\n",
        _ => "one\n",
    };
    assert_eq!((done.code, done.out), (Some(0), format!("?? own\n{first}")), "{kind}: {}", done.err);
    let branch = format!("pi/{kind}");
    assert!(done.err.contains(&format!("the branch `{branch}`")), "{kind}: {}", done.err);
    assert_eq!(world.git(dir, &["show", &format!("{branch}:own")]), "own\nmore\n", "{kind}");
    let list = world.git(dir, &["ls-tree", "-r", "--name-only", &branch]);
    assert_eq!(list.contains("dir/inner"), kind == "sparse", "{kind}: {list}");
    world.pi(&["diff"]).cwd(dir).run().has_code(0);
    world.pi(&["apply"]).cwd(dir).run().says(0, "1 file is as in");
    assert_eq!(read(dir.join("own")), "own\nmore\n", "{kind}");
    world.pi(&["drop", kind]).cwd(dir).run().has_code(0);
}

#[test]
fn large_files_come_back_with_the_commits_that_point_to_them() {
    let world = World::with_model();
    let repo = world.repo().to_owned();
    write(repo.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    world.git(&repo, &["add", "."]);
    world.git(&repo, &["commit", "--quiet", "--message", "one"]);
    write(repo.join("mine.bin"), "mine");
    // What was changed in the moment after it was added: then only the index's own time tells.
    let script = "git config core.trustctime false; echo one >a.bin; touch -d @1700000000 a.bin; git add a.bin; \
                  git commit --quiet -m a; echo two >a.bin; touch -d @1700000000 a.bin .git/index; echo three >b.bin";
    world.shell(&["--clone"], script).run().says(0, "the branch `pi/copy`");
    let object = |commit: &str, path: &str| {
        let pointer = world.git(&repo, &["show", &format!("{commit}:{path}")]);
        let oid = pointer.lines().find_map(|line| line.strip_prefix("oid sha256:")).unwrap().to_owned();
        read(repo.join(format!(".git/lfs/objects/{}/{}/{oid}", &oid[..2], &oid[2..4])))
    };
    assert_eq!(object("pi/copy~1", "a.bin"), "one\n");
    assert_eq!(object("pi/copy", "a.bin"), "two\n");
    assert_eq!(object("pi/copy", "b.bin"), "three\n");
    assert_eq!(object("pi/copy", "mine.bin"), "mine");
    // One that is not what its name says stays where it is.
    let script = "echo four >c.bin; git add c.bin; for f in $(find .git/lfs/objects -type f); do \
                  grep -q four $f && chmod u+w $f && echo evil >$f; done; true";
    world.shell(&["--clone"], script).run().says(0, "is not what its name says, so it stays there");
    let other = world.git(&repo, &["config", "--local", "filter.x.clean", "x"]);
    assert_eq!(other, "");
    write(repo.join(".gitattributes"), "* filter=x\n");
    world
        .shell(&["--clone=other"], "true")
        .run()
        .says(125, "passes files through the filter `x`, which a copy does not have");
    world.run_pi(&["drop", "copy"]).has_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_branch_of_the_users_is_never_moved() {
    let world = World::with_model();
    let repo = world.repo().to_owned();
    commit(&world, &repo, "one");
    let session = |script: &str| {
        let done = world.shell(&["--clone"], script).run();
        assert_eq!(done.code, Some(0), "{done:?}");
        done.err
    };
    // The user's own branches have the names.
    world.git(&repo, &["branch", "pi/copy/mine"]);
    world.git(&repo, &["branch", "pi/copy-2"]);
    let said = session(
        "echo 1 >a; git checkout --quiet -b side; git commit --quiet --allow-empty -m side; git checkout --quiet main",
    );
    assert!(
        said.contains("the branch `pi/copy-3`") && said.contains("its branch `side` is `pi/copy.side`"),
        "{said}"
    );
    assert_eq!(world.git(&repo, &["log", "-1", "--format=%s", "pi/copy.side"]), "side\n");
    // The user goes on with the branch: what comes later stands beside.
    world.git(&repo, &["checkout", "--quiet", "pi/copy-3"]);
    commit(&world, &repo, "mine");
    let said = session("echo 2 >a");
    assert!(said.contains("the branch `pi/copy-4`"), "{said}");
    assert_eq!(world.git(&repo, &["log", "-1", "--format=%s", "pi/copy-3"]), "mine\n");
    // Nobody has moved that one.
    assert!(session("echo 3 >a").contains("the branch `pi/copy-4`"));
    assert_eq!(world.git(&repo, &["show", "pi/copy-4:a"]), "3\n");
    // A rebase that is left half-done stays as it is.
    let said = session(
        "echo x >b; git add b; git commit --quiet -m b; git checkout --quiet -b other HEAD^; echo y >b; git add b; \
         git commit --quiet -m other; git rebase main >/dev/null 2>&1; git status | grep -q rebas; echo z >c",
    );
    assert!(said.contains("the branch `pi/copy-"), "{said}");
    let done = world.shell(&["--clone"], "git rebase --abort && git log -1 --format=%s").run();
    assert_eq!((done.code, done.out.as_str()), (Some(0), "other\n"), "{done:?}");
    world.run_pi(&["drop", "copy"]).has_code(0);
    world.assert_nothing_left();
}
