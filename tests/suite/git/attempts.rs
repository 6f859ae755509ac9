//! Ways by which an agent can have git of this machine run something. A session that shares the repository's git directory
//! shows that each is real; in one with a git directory of its own none is, while it runs and afterwards.

use std::{collections::BTreeSet, fs};

use super::{Steps, commit, git};
use crate::world::{World, wait::until_true};

/// A way: what it is called, what the agent does, and what the user does then. `$T` is the program that must not run and
/// lies in the work tree, `$R` the work tree.
type Way = (&'static str, &'static str, &'static str);

/// Settings: the agent says `git config`, in which `%` is the program.
const SETTINGS: [(&str, &str); 46] = [
    ("core.fsmonitor %", "git status"),
    ("core.hooksPath %-hooks", "git commit --allow-empty -m x"),
    ("core.editor %", "git commit --allow-empty"),
    ("sequence.editor %", "git rebase -i --autostash HEAD~1"),
    ("core.sshCommand %", "git fetch ssh://localhost/x"),
    ("core.gitProxy %", "git fetch git://localhost/x"),
    ("core.askPass %", "echo url=https://example.com | git credential fill"),
    ("core.pager %", "script -qec 'git log' /dev/null"),
    ("pager.status %", "script -qec 'git status' /dev/null"),
    ("pager.branch %", "script -qec 'git branch' /dev/null"),
    ("diff.external %", "git diff HEAD~1"),
    ("diff.x.command %", "git diff HEAD~1"),
    ("diff.x.textconv %", "git log -p"),
    ("filter.x.clean %", "git add --renormalize b"),
    ("filter.x.smudge %", "rm b; git checkout -- b"),
    ("filter.x.process %", "git add --renormalize b"),
    ("filter.x.clean %", "git stash"),
    ("merge.x.driver %", "git merge other"),
    ("gpg.program %", "git commit -S --allow-empty -m x"),
    ("gpg.program %", "git tag -s -m x signed"),
    ("gpg.program %; git config commit.gpgSign true", "git commit --allow-empty -m x"),
    ("gpg.program %; git config tag.gpgSign true", "git tag -m x signed"),
    (
        "gpg.ssh.program %; git config gpg.format ssh; git config user.signingKey $R/a",
        "git commit -S --allow-empty -m x",
    ),
    ("gpg.ssh.defaultKeyCommand %; git config gpg.format ssh", "git commit -S --allow-empty -m x"),
    ("gpg.x509.program %; git config gpg.format x509", "git commit -S --allow-empty -m x"),
    ("alias.st \"!%\"", "git st"),
    ("credential.helper \"!%\"", "echo url=https://example.com | git credential fill"),
    ("credential.https://example.com.helper \"!%\"", "echo url=https://example.com | git credential fill"),
    ("include.path %-config", "git status"),
    ("includeIf.gitdir:/.path %-config", "git status"),
    ("remote.o.uploadpack %; git config remote.o.url .", "git fetch o"),
    ("remote.o.receivepack %; git config remote.o.url .", "git push o HEAD:refs/heads/pushed"),
    ("remote.o.url \"ext::% x\"; git config protocol.ext.allow always", "git fetch o"),
    ("\"url.ext::% .insteadOf\" gh; git config protocol.ext.allow always", "git fetch gh:x"),
    ("trailer.x.cmd %", "git commit --allow-empty -m x --trailer x=y"),
    ("trailer.x.command %", "git commit --allow-empty -m x --trailer x=y"),
    ("difftool.x.cmd %", "git difftool -y -t x HEAD~1"),
    ("difftool.x.cmd %; git config diff.tool x; git config difftool.prompt false", "git difftool HEAD~1"),
    ("mergetool.x.cmd %", "git merge other; git mergetool -y -t x"),
    ("interactive.diffFilter %; git config color.ui always; echo 5 >a", "echo q | git add -p"),
    ("tar.x.command %", "git archive --format=x HEAD"),
    ("browser.x.cmd %", "git web--browse -b x http://localhost"),
    ("man.x.cmd %; git config man.viewer x", "git help -m status"),
    ("submodule.sub.update \"!%\"", "git submodule update --force"),
    ("extensions.worktreeConfig true; git config --worktree core.fsmonitor %", "git status"),
    (
        "core.attributesFile $R/attributes; git config filter.y.clean %; echo 'a filter=y' >attributes",
        "git add --renormalize a",
    ),
];

/// Hooks, and what runs them.
const HOOKS: [(&str, &str); 17] = [
    ("pre-commit", "git commit --allow-empty -m x"),
    ("prepare-commit-msg", "git commit --allow-empty -m x"),
    ("commit-msg", "git commit --allow-empty -m x"),
    ("post-commit", "git commit --allow-empty -m x"),
    ("post-checkout", "git checkout -b x$$"),
    ("post-rewrite", "git commit --amend --allow-empty -m x"),
    ("pre-rebase", "git rebase --autostash other"),
    ("post-merge", "git merge clean"),
    ("pre-merge-commit", "git commit --allow-empty -m x; git merge --no-ff clean"),
    ("post-index-change", "touch b; git status; git add b"),
    ("reference-transaction", "git branch new$$"),
    ("pre-push", "git push . HEAD:refs/heads/pushed"),
    ("pre-receive", "git push . HEAD:refs/heads/pushed$$"),
    ("update", "git push . HEAD:refs/heads/pushed$$"),
    ("post-receive", "git push . HEAD:refs/heads/pushed$$"),
    ("post-update", "git push . HEAD:refs/heads/pushed$$"),
    ("applypatch-msg", "git format-patch -1 --stdout | git am"),
];

/// What is neither.
const OTHERS: [Way; 12] = [
    (
        "a hook of a submodule",
        "mkdir -p .git/modules/sub/hooks; cp $T .git/modules/sub/hooks/post-checkout",
        "cd sub && git checkout -q --detach",
    ),
    ("a setting of a submodule", "git config -f .git/modules/sub/config core.fsmonitor $T", "git status"),
    (
        "a setting of a submodule, by diff",
        "git config -f .git/modules/sub/config core.fsmonitor $T",
        "git diff",
    ),
    (
        "a rebase that was begun",
        "mkdir .git/rebase-merge; cd .git/rebase-merge; echo refs/heads/main >head-name; git rev-parse HEAD >onto; \
         cp onto orig-head; : >interactive; echo \"exec $T\" >git-rebase-todo; cp git-rebase-todo git-rebase-todo.backup; \
         : >done; echo 0 >msgnum; echo 1 >end; git update-ref --no-deref HEAD HEAD",
        "git rebase --continue",
    ),
    (
        "another directory in its place",
        "cp -a .git evil; git config -f evil/config core.fsmonitor $T; mv .git old; mv evil .git",
        "git status",
    ),
    (
        "a file in its place",
        "cp -a .git evil; git config -f evil/config core.fsmonitor $T; mv .git old; echo \"gitdir: evil\" >.git",
        "git status",
    ),
    (
        "a link in its place",
        "cp -a .git evil; git config -f evil/config core.fsmonitor $T; mv .git old; ln -s evil .git",
        "git status",
    ),
    (
        "a common directory",
        "cp -a .git evil; git config -f evil/config core.fsmonitor $T; echo $R/evil >.git/commondir",
        "git status",
    ),
    (
        "a repository that the index names",
        "git init -q n; git -C n commit -q --allow-empty -m x; git add n; git -C n config core.fsmonitor $T",
        "git status",
    ),
    (
        "a repository that a commit names",
        "git init -q m; git -C m commit -q --allow-empty -m x; git add m; git commit -q -m m; git -C m config core.fsmonitor $T",
        "git diff HEAD~1",
    ),
    (
        "another file in the place of a submodule's",
        "git init -q e; git -C e commit -q --allow-empty -m x; git -C e config core.fsmonitor $T; rm -f sub/.git; \
         echo 'gitdir: ../e/.git' >sub/.git",
        "git status",
    ),
    (
        "another directory in the place of a submodule",
        "mv sub gone; git init -q sub; git -C sub commit -q --allow-empty -m x; git -C sub config core.fsmonitor $T",
        "git status",
    ),
];

/// What waits for a user who goes there; out of action when the session has ended.
const THERE: [Way; 6] = [
    ("a repository", "git init -q d1; git -C d1 config core.fsmonitor $T", "cd d1 && git status"),
    (
        "a repository deep down, closed",
        "git init -q d2/.x/y; git -C d2/.x/y config core.fsmonitor $T; chmod 500 d2/.x",
        "cd d2/.x/y && git status",
    ),
    (
        "a directory that looks like a repository",
        "git init -q --bare d3; git -C d3 config core.fsmonitor $T; git -C d3 config core.bare false; mkdir -p src; git -C d3 config core.worktree $R/src",
        "cd d3 && git status",
    ),
    (
        "a planted work tree",
        "mkdir -p d4 d5; git init -q --separate-git-dir=d5/g d4; git -C d4 config core.fsmonitor $T",
        "cd d4 && git status",
    ),
    (
        "the objects and references of another, by links",
        "git init -q d6; git -C d6 config core.fsmonitor $T; mkdir d7; cp d6/.git/HEAD d6/.git/config d7; \
         ln -s ../d6/.git/objects ../d6/.git/refs d7; mkdir -p src; git -C d7 config core.worktree $R/src",
        "cd d7 && git status",
    ),
    (
        "a prompt",
        "git init -q d8; git -C d8 config core.fsmonitor $T",
        "cd d8 && git diff --no-ext-diff --quiet",
    ),
];

fn ways() -> Vec<(String, String, &'static str)> {
    let settings = SETTINGS.map(|(setting, then)| {
        let put = format!("git config {}", setting.replace('%', "$R/.trap"));
        (setting.to_owned(), put, then)
    });
    let hooks = HOOKS.map(|(hook, then)| {
        (format!("hook {hook}"), format!("mkdir -p .git/hooks; cp $T .git/hooks/{hook}"), then)
    });
    let others = OTHERS.map(|(name, put, then)| (name.to_owned(), put.to_owned(), then));
    settings.into_iter().chain(hooks).chain(others).collect()
}

/// What a user does after a session.
const USUAL: &str = "git status; git diff HEAD~1; git log -p -2; git branch -vv; git stash; git stash pop; \
                     git checkout -q -b mine; git commit -q --allow-empty -m mine; git rebase HEAD~1; git gc -q; \
                     git fetch -q .; git checkout -q -; git push . HEAD:refs/heads/mine2; git diff --no-ext-diff --quiet; \
                     git submodule status; git describe --contains --all HEAD";

fn world(access: &str) -> World {
    let world = super::world();
    world.configure(&format!("git = \"{access}\"\n"));
    let library = world.repository("home/projects/library");
    world.git(&library, &["commit", "--quiet", "--allow-empty", "--message", "library"]);
    let add =
        ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.to_str().unwrap(), "sub"];
    world.git(world.repo(), &add);
    git(&world, &["commit", "--quiet", "--message", "sub"]);
    git(&world, &["checkout", "--quiet", "-b", "clean"]);
    commit(&world, "clean", "1");
    git(&world, &["checkout", "--quiet", "-b", "other", "main"]);
    commit(&world, "b", "2");
    git(&world, &["checkout", "--quiet", "main"]);
    commit(&world, ".gitattributes", "b diff=x filter=x merge=x\n");
    commit(&world, "b", "3");
    world
}

/// Whether the program ran when the user did this.
fn springs(world: &World, then: &str) -> bool {
    let sprung = world.root().join("sprung");
    let _ = fs::remove_file(&sprung);
    world.as_owner("timeout").args(&["20", "sh", "-c", then]).run();
    sprung.exists()
}

/// What is undone after each attempt, as far as the agent can.
const CLEAN: &str = "chmod -R u+w . 2>/dev/null; [ -d .git ] && [ ! -L .git ] || { rm -rf .git; mkdir .git; }; \
                     find .git -mindepth 1 -delete; cp -a ~/clean/. .git/; [ -d gone ] && rm -rf sub && mv gone sub; \
                     echo 'gitdir: ../.git/modules/sub' >sub/.git; git reset -q --hard; git clean -ffdxq -e .steps -e .trap\\*; true";

/// What the agent makes first: the program, and what names it.
fn trap(world: &World) -> String {
    let hooks = HOOKS.map(|(hook, _)| format!("cp .trap .trap-hooks/{hook}; ")).concat();
    format!(
        "cp -a .git ~/clean; printf '#!/bin/sh\\n: >{}\\nexec cat >/dev/null\\n' >.trap; chmod 755 .trap; \
         mkdir .trap-hooks; {hooks} printf '[core]\\n\\tfsmonitor = %s\\n' \"$PWD/.trap\" >.trap-config",
        world.root().join("sprung").display()
    )
}

fn put(put: &str) -> String {
    format!("R=$PWD; T=$R/.trap; {put}")
}

#[test]
fn each_way_is_real_where_the_git_directory_is_shared() {
    let world = world("shared");
    // The user's own git must not be what makes the difference.
    assert!(!springs(&world, "git status"));
    let user = |script: &str| drop(world.as_owner("sh").args(&["-c", script]).run());
    user("cp -a .git ~/clean");
    let agent = Steps::begin(&world, &[]);
    agent.step(&trap(&world));
    agent.step(&put("git config core.fsmonitor $T"));
    assert!(springs(&world, "git status"));
    agent.end().has_code(0);
    // The others without a session, which would only do the same more slowly.
    user(CLEAN);
    let there = THERE.map(|(name, plant, then)| (name.to_owned(), plant.to_owned(), then));
    let mut idle = Vec::new();
    for (name, plant, then) in ways().into_iter().chain(there) {
        user(&put(&plant));
        if !springs(&world, then) {
            idle.push(name);
        }
        user(CLEAN);
    }
    assert_eq!(idle, [""; 0]);
}

#[test]
fn no_way_leads_to_this_machine_where_the_agent_has_its_own() {
    none_leads_here("private");
}

#[test]
fn no_way_leads_to_this_machine_where_the_agent_can_only_read() {
    none_leads_here("read-only");
}

fn none_leads_here(access: &str) {
    let world = world(access);
    let (ways, agent) = (ways(), Steps::begin(&world, &[]));
    assert!(ways.len() + THERE.len() >= 60);
    agent.step(&trap(&world));
    let after: BTreeSet<&str> = ways.iter().map(|(_, _, then)| *then).collect();
    // Those that harm the agent's own git first, one by one.
    for (name, plant, then) in OTHERS {
        agent.try_step(&put(plant));
        assert!(!springs(&world, then), "{name}");
        agent.try_step(CLEAN);
    }
    let all = ways.iter().take(SETTINGS.len() + HOOKS.len()).map(|(_, plant, _)| plant.as_str());
    let all: Vec<&str> = all.chain(THERE.map(|(_, plant, _)| plant)).collect();
    agent.try_step(&put(&all.join("\n")));
    if access == "private" {
        agent.step(
        "commit=$(git commit-tree -p HEAD -m over 'HEAD^{tree}'); git -c core.hooksPath=/none update-ref refs/heads/over $commit",
    );
        until_true("the commit", || git(&world, &["branch", "--list", "over"]).contains("over"));
    } else {
        assert_ne!(agent.try_step("git config a.b c || touch .git/x").0, 0);
    }
    for then in &after {
        assert!(!springs(&world, then), "{then}, while it runs");
    }
    let ended = agent.end();
    ended.says(0, "the agent left repositories in the work tree");
    assert!(!world.root().join("sprung").exists(), "by the takeover");
    assert!(!springs(&world, USUAL), "afterwards");
    for then in after.into_iter().chain(THERE.map(|(_, _, then)| then)) {
        assert!(!springs(&world, then), "{then}, afterwards");
    }
}
