//! A copy whose agent has been turned against its user: nothing of it runs on the host.

use std::fs;

use super::world;
use crate::world::files::write_program;

/// Everything in the copy's git directory and work tree that has a git run a program. Inside, the mark cannot be made.
const PLANT: &str = r#"
mark="$1"
printf '#!/bin/sh\n: >%s\n' "$mark" >evil; chmod 755 evil; evil="$PWD/evil"
for hook in pre-commit post-commit post-checkout reference-transaction pre-push post-index-change fsmonitor-watchman \
    post-update pre-receive update post-merge post-rewrite; do
    cp evil .git/hooks-$hook 2>/dev/null; mkdir -p .git/hooks; cp evil .git/hooks/$hook
done
git config core.fsmonitor "$evil"; git config core.hooksPath "$PWD/.git/hooks"; git config core.pager "$evil"
git config core.editor "$evil"; git config core.sshCommand "$evil"; git config diff.external "$evil"
git config diff.x.textconv "$evil"; git config diff.x.command "$evil"; git config filter.x.clean "$evil"
git config filter.x.smudge "$evil"; git config filter.x.process "$evil"; git config merge.x.driver "$evil %A"
git config uploadpack.packObjectsHook "$evil"; git config gpg.program "$evil"; git config commit.gpgSign true
git config include.path "$PWD/more"; printf '[core]\n\tfsmonitor = %s\n' "$evil" >more
git config transfer.hideRefs refs/none; git config alias.status "!$evil"; git config pager.diff "$evil"
printf '* diff=x filter=x merge=x\n' >.gitattributes
printf '[submodule "s"]\n\tpath = s\n\turl = ext::%s\n' "$evil" >.gitmodules
# Links that lead out, and names that are git's own on other file systems.
ln -s /etc/passwd passwd; ln -s "$mark" out; ln -s .. up; mkdir -p deep; ln -s /tmp deep/tmp
mkdir -p bare/objects bare/refs nested; cp .git/HEAD bare/HEAD; cp .git/config bare/config
git init --quiet nested; (cd nested; git -c core.fsmonitor= -c core.hooksPath=/dev/null -c commit.gpgSign=false commit --quiet --allow-empty -m x)
printf 'all:\n\t: >%s\n' "$mark" >Makefile
echo changed >>a
git -c core.fsmonitor= -c commit.gpgSign=false -c core.hooksPath=/dev/null -c filter.x.clean= -c filter.x.smudge= -c filter.x.process= \
    commit --quiet --allow-empty -m "$(printf '\033]0;title\007 evil')" || echo no commit
"#;

/// Objects that no honest git makes, and names without end.
const FORGE: &str = r#"
set -e
export GIT_CONFIG_NOSYSTEM=1
blob=$(echo x | git hash-object -w --stdin)
make() { perl -e 'print "$ARGV[0] $ARGV[1]\0", pack("H*", $ARGV[2])' "$1" "$2" "$3"; }
bad=$(make 100644 "$1" "$blob" | git hash-object -t tree -w --stdin --literally)
commit=$(echo forged | git commit-tree "$bad" -p HEAD)
git update-ref HEAD "$commit"
"#;

#[test]
fn nothing_that_a_copy_holds_runs_on_the_host() {
    let world = world();
    let repo = world.repo().to_owned();
    let mark = world.root().join("mark");
    // A control: on the host the same would run.
    let control = world.home().join("projects/control");
    world.git(&repo, &["init", "--quiet", control.to_str().unwrap()]);
    let plant = world.root().join("plant.sh");
    write_program(&plant, format!("#!/bin/sh\n{PLANT}"));
    let alias = format!("alias.plant=!env -u GIT_DIR '{}' '{}'", plant.display(), mark.display());
    world.git(&control, &["-c", &alias, "plant"]);
    world.git(&control, &["status"]);
    assert!(mark.exists(), "the attempt is no attempt");
    fs::remove_file(&mark).unwrap();

    let done = world.pi(&["--clone", "shell", "--", "sh", "-c", PLANT, "sh", mark.to_str().unwrap()]).run();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!done.err.contains('\u{1b}') && !done.out.contains("no commit"), "{done:?}");
    assert!(
        done.err.contains("the agent changed files that commonly run on this machine:\n  .gitattributes\n"),
        "{done:?}"
    );
    assert!(done.err.contains("\n  Makefile\n"), "{done:?}");
    let shown = world.run_pi(&["diff"]);
    shown.has_code(0);
    assert!(shown.out.contains("+changed\n"), "{shown:?}");
    world.run_pi(&["diff", "--risky", "copy"]).is(
        0,
        "CHANGE   FILE\nnew      .gitattributes\nnew      .gitmodules\nnew      Makefile\n",
        "",
    );
    world.run_pi(&["apply"]).has_code(0);
    world.run_pi(&["ps", "--all"]).has_code(0);
    world.run_pi(&["clean"]).has_code(0);
    // Neither what the launcher ran, nor what the user runs then, has the copy's git directory.
    for words in [
        &["status", "--short"] as &[&str],
        &["log", "--all", "--oneline"],
        &["diff", "main", "pi/copy"],
        &["fsck"],
        &["stash", "list"],
        &["branch", "-a"],
    ] {
        world.git(&repo, words);
    }
    assert!(!mark.exists());
    // Repositories in the work tree stay in the copy, and links are links.
    let list = world.git(&repo, &["ls-tree", "-r", "pi/copy"]);
    assert!(!list.contains("nested") && !list.contains("160000"), "{list}");
    assert_eq!(fs::read_link(repo.join("passwd")).unwrap().to_str(), Some("/etc/passwd"));
    world.run_pi(&["drop", "copy"]).has_code(0);
    assert!(!mark.exists());
    world.assert_nothing_left();
}

#[test]
fn what_no_honest_git_makes_is_not_brought_in_and_stays_in_the_copy() {
    let world = world();
    let repo = world.repo().to_owned();
    for (n, name) in [".git", "git~1", ".."].iter().enumerate() {
        let copy = format!("--clone=f{n}");
        let done = world.pi(&[&copy, "shell", "--", "sh", "-c", FORGE, "sh", name]).run();
        assert!(
            done.err.contains(&format!("could not bring in the work of the copy `f{n}`: git says: ")),
            "{name}: {done:?}"
        );
        assert_eq!(done.code, Some(0), "{name}: {done:?}");
        assert_eq!(world.git(&repo, &["for-each-ref", "refs/heads/pi"]), "", "{name}");
        world.run_pi(&["diff", &format!("f{n}")]).has_code(125);
        world.run_pi(&["drop", "--force", &format!("f{n}")]).has_code(0);
    }
    world.git(&repo, &["fsck", "--strict"]);
    // Names without end, and odd ones, are no hindrance for what is honest.
    let many = "head=$(git rev-parse HEAD); for n in $(seq 1500); do echo \"create refs/heads/n/$n $head\"; done | \
                git update-ref --stdin; git pack-refs --all; echo '-x/$(y)' >.git/odd; \
                c=$(git commit-tree -m odd -p HEAD HEAD^{tree}); git update-ref 'refs/heads/-x/$(y)' $c; \
                git update-ref refs/pi/result $c; git update-ref refs/pi/other/fake $c; echo work >>a; : >.git/index.lock";
    let done = world.shell(&["--clone"], many).run();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(
        world.git(&repo, &["for-each-ref", "--format=%(refname:short) %(contents:subject)", "refs/heads/pi"]),
        "pi/copy wip\npi/copy.x/__y_ odd\n"
    );
    assert_eq!(world.git(&repo, &["show", "pi/copy:a"]), "one\nmine\nwork\n");
    world.run_pi(&["drop", "copy"]).has_code(0);
    world.assert_nothing_left();
}
