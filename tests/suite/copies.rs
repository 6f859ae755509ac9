//! Sessions that work on a copy: what goes in, what comes back, what a killed one loses, and what a hostile one can do.

mod hostile;
mod kinds;
mod lost;
mod shown;

use std::{fs, path::Path, process::Stdio};

use serde_json::Value;

use crate::world::{World, files::write, model::docker, wait::until};

/// A repository with a commit, changes of every kind, and files that git ignores.
fn world() -> World {
    let world = World::with_model();
    let repo = world.repo();
    for (path, text) in [
        (".gitignore", "*.log\nbuild/\n"),
        ("a", "one\n"),
        ("b", "b\n"),
        ("gone", "gone\n"),
        ("dir/c", "c\n"),
        ("run.sh", "#!/bin/sh\n"),
    ] {
        write(repo.join(path), text);
    }
    world.git(repo, &["add", "."]);
    world.git(repo, &["commit", "--quiet", "--message", "first"]);
    write(repo.join("a"), "one\nmine\n");
    write(repo.join("untracked"), "untracked\n");
    write(repo.join("staged.log"), "staged although it is ignored\n");
    world.git(repo, &["add", "--force", "staged.log"]);
    write(repo.join("x.log"), "ignored\n");
    write(repo.join("build/out"), "ignored\n");
    fs::remove_file(repo.join("gone")).unwrap();
    world
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// The mounts of the only container of the world's sessions that is an agent's, from the engine.
fn mounts(world: &World) -> Vec<(String, String)> {
    let plan = world.plan(&[]);
    let label = format!("label=pi.state={}", plan["agent"]["labels"]["pi.state"].as_str().unwrap());
    let id = until("an agent's container", || {
        match docker(&["ps", "--quiet", "--filter", &label, "--filter", "label=pi.role=agent"]) {
            ids if ids.is_empty() => Err("none".to_owned()),
            id => Ok(id),
        }
    });
    let said: Value =
        serde_json::from_str(&docker(&["inspect", "--format", "{{json .Mounts}}", &id])).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    said.as_array().unwrap().iter().map(|mount| (text(&mount["Type"]), text(&mount["Destination"]))).collect()
}

const NOTES: [&str; 2] = [
    "pi: the agent's work is the branch `pi/copy`: ",
    "pi: `pi diff copy` shows it, `pi apply copy` brings it into your files, `git merge pi/copy` merges it\n",
];

#[test]
fn what_an_agent_makes_of_a_copy_becomes_a_branch_and_is_shown_applied_and_dropped() {
    let world = world();
    let repo = world.repo().to_owned();
    let status = world.git(&repo, &["status", "--porcelain"]);
    let script = "pwd; git status --porcelain; git log --format=%s; ls build x.log 2>/dev/null; cat staged.log; \
                  echo agent >>a; echo new >dir/new; git add . && git commit --quiet --message second; \
                  rm dir/c; echo left >left; chmod 755 b; ln -s a link; echo log >y.log; cat >/dev/null";
    let running = world.shell(&["--clone"], script).stdin(Stdio::piped()).start();
    let mounts = mounts(&world);
    let own = repo.to_str().unwrap();
    assert!(mounts.contains(&("volume".to_owned(), own.to_owned())), "{mounts:?}");
    assert!(!mounts.iter().any(|(kind, at)| kind == "bind" && at.starts_with(own)), "{mounts:?}");
    let second = world.shell(&["--clone"], "true").run();
    second.is(
        125,
        "",
        "pi: error: another session works on the copy `copy`\npi: hint: end it with `pi stop`, or choose another copy with \
         `--clone=NAME`\n",
    );
    let done = running.release();
    let expected = format!(
        "{}\n{}first\nstaged although it is ignored\n",
        repo.display(),
        status.replace("A  staged.log", " A staged.log")
    );
    assert_eq!((done.code, done.out.as_str()), (Some(0), expected.as_str()), "{done:?}");
    assert!(done.err.starts_with(NOTES[0]) && done.err.ends_with(NOTES[1]), "{done:?}");
    // The host is as it was, but for the branch.
    assert_eq!(world.git(&repo, &["status", "--porcelain"]), status);
    assert_eq!(world.git(&repo, &["log", "--format=%s", "pi/copy"]), "wip\nsecond\nfirst\n");
    assert_eq!(world.git(&repo, &["log", "--format=%s"]), "first\n");
    let listed = world.run_pi(&["ps", "--all"]);
    let row: Vec<&str> = listed.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[3], row[4], row[5]), ("copy", "0", "pi/copy", own), "{listed:?}");
    // Nothing is applied that was not seen.
    world.run_pi(&["apply"]).says(125, "`pi/copy` was not shown yet, so nothing was applied");
    let shown = world.run_pi(&["diff"]);
    shown.has_code(0);
    assert!(shown.out.contains("+agent\n") && !shown.out.contains("+mine"), "{shown:?}");
    assert!(!shown.out.contains("untracked") && !shown.out.contains(".log"), "{shown:?}");
    // What the user has changed since is not touched.
    write(repo.join("dir/new"), "mine\n");
    let refused = world.run_pi(&["apply"]);
    refused.is(
        125,
        "",
        "pi: error: nothing was applied: you have changed `dir/new` since it was copied\npi: hint: commit your own changes \
         and use `git merge`, or undo them\n",
    );
    assert!(!repo.join("left").exists());
    fs::remove_file(repo.join("dir/new")).unwrap();
    let applied = "files are as in `pi/copy` now; nothing is staged or committed";
    world.run_pi(&["apply"]).says(0, applied);
    assert_eq!(
        (read(repo.join("a")), read(repo.join("left"))),
        ("one\nmine\nagent\n".into(), "left\n".into())
    );
    assert_eq!(fs::read_link(repo.join("link")).unwrap(), Path::new("a"));
    assert!(!repo.join("dir/c").exists() && repo.join("x.log").exists());
    assert_eq!(world.git(&repo, &["diff", "--cached", "--name-only"]), "staged.log\n");
    // The copy stays as it is for the next session, which begins with a clean work tree, by way of a model.
    let more = world.pi(&["--clone", "--no-network", "shell", "--", "git", "status", "--porcelain"]).run();
    assert_eq!((more.code, more.out.as_str(), more.err.as_str()), (Some(0), "", ""), "{more:?}");
    let wrote = world.pi(&["--clone", "-p", "--model", "demo/write", "write"]).run();
    assert_eq!((wrote.code, wrote.out.as_str()), (Some(0), "The file is written.\n"), "{wrote:?}");
    world.run_pi(&["apply"]).says(125, "`pi/copy` has changed since `pi diff` showed it");
    let tip = world.git(&repo, &["rev-parse", "pi/copy"]);
    world.run_pi(&["apply", "copy", "--commit", "0123456789"]).says(125, "nothing was applied");
    world.run_pi(&["apply", "copy", "--commit", tip.trim()]).says(0, "1 file is as in `pi/copy` now");
    assert_eq!(read(repo.join("hello.txt")), "hello from the model\n");
    world
        .run_pi(&["apply", "copy", "--commit", tip.trim()])
        .says(0, "your files have all of `pi/copy` already");
    let kept = world.run_pi(&["clean"]);
    assert!(kept.out.contains("kept the copy `copy` of "), "{kept:?}");
    world.run_pi(&["drop", "other"]).says(125, "this repository has no copy `other`");
    world.run_pi(&["drop", "copy"]).says(0, "the branch `pi/copy` stays");
    world.run_pi(&["diff"]).says(125, "this repository has no copy");
    assert_eq!(world.git(&repo, &["for-each-ref", "refs/pi"]), "");
    world.assert_nothing_left();
}

#[test]
fn settings_decide_what_goes_into_a_copy() {
    let world = world();
    write(world.repo().join(".env"), "secret\n");
    write(world.repo().join("private/key"), "secret\n");
    write(world.repo().join("kept.env"), "secret\n");
    world.git(world.repo(), &["add", "kept.env"]);
    world.git(world.repo(), &["commit", "--quiet", "--message", "second", "kept.env"]);
    // The user's own patterns of what git ignores.
    write(world.home().join(".config/git/ignore"), "private/\n");
    world.configure("hide = [\".env\", \"kept.*\"]\ncopy_ignored = [\"build/\"]\n");
    let script = "ls -A; cat build/out; git status --porcelain; echo more >>a";
    let done = world.shell(&["--clone=sub.name"], script).run();
    let expected = ".git\n.gitignore\na\nb\nbuild\ndir\nrun.sh\nstaged.log\nuntracked\nignored\n M a\n D gone\n A staged.log\n?? \
                    untracked\n";
    assert_eq!((done.code, done.out.as_str()), (Some(0), expected), "{done:?}");
    // A hidden file that is tracked is not deleted by the branch.
    assert_eq!(world.git(world.repo(), &["show", "pi/sub.name:kept.env"]), "secret\n");
    let dry = world.run_pi(&["--clone", "--dry-run", "shell"]);
    assert!(dry.out.contains(" as the branch `main`, and 8 files as they are in the work tree"), "{dry:?}");
    for name in ["a..b", "x.lock", "-x", "a/b", "é", "x."] {
        world
            .run_pi(&[&format!("--clone={name}"), "shell", "--", "true"])
            .says(2, "a copy's name has up to 64 letters");
    }
    world.run_pi(&["--clone", "install", "npm:x"]).says(2, "`--clone` has no effect on a command");
    world.run_pi(&["drop", "sub.name"]).has_code(0);
    world.assert_nothing_left();
}
