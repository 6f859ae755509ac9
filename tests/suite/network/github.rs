//! Git and `gh` in a session, against a GitHub of the tests' own.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{configure, restricted};
use crate::world::{
    World,
    call::Call,
    files::{myself, write, write_program},
    internet::internet,
    terminal::Terminal,
};

const TOKEN: &str = "github_pat_7f3a9e51c0d84b26";

/// A world whose repository is `me/proj` on GitHub.
fn world(settings: &str, remote: &str) -> (World, String) {
    let (world, list) = restricted(settings, "allowed.test\n");
    remotes(&world, &[("origin", remote)]);
    write(world.root().join("ca.pem"), &internet().authority);
    (world, list)
}

fn remotes(world: &World, all: &[(&str, &str)]) {
    let remotes = all.iter().map(|(name, url)| format!("[remote \"{name}\"]\n\turl = {url}\n"));
    let text =
        "[core]\n\trepositoryformatversion = 0\n\tbare = false\n".to_owned() + &remotes.collect::<String>();
    write(world.repo().join(".git/config"), text);
}

fn shell<'a>(world: &'a World, options: &[&str], script: &str) -> Call<'a> {
    world
        .pi(&[options, &["shell", "--", "bash", "-c", script]].concat())
        .env("NODE_EXTRA_CA_CERTS", world.root().join("ca.pem"))
}

/// Requests to the tests' GitHub that contain this.
fn asked(what: &str) -> Vec<String> {
    let log = internet().log();
    log.lines().filter(|line| line.starts_with("github ") && line.contains(what)).map(str::to_owned).collect()
}

/// `try NAME COMMAND…` prints the name, and whether the command succeeds.
const TRY: &str = "
    try() { local name=$1; shift; if timeout 60 \"$@\" >said 2>&1; then echo $name ok; else echo $name refused; fi; }
    cd /tmp; export GIT_TERMINAL_PROMPT=0 GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e
";

#[test]
fn git_and_gh_use_the_users_token_and_never_have_it() {
    let (world, list) = world("", "git@github.com:me/proj.git");
    let script = format!(
        "{TRY}
        try clone-https git clone -q https://github.com/me/proj a
        try clone-git git clone -q git@github.com:me/proj.git b
        try clone-ssh git clone -q ssh://git@github.com/me/proj c
        try fetch git -C a fetch -q
        echo x >a/@NET; git -C a add .; git -C a commit -qm more
        try push git -C a push -q origin HEAD:of-@NET
        try gh-api gh api repos/me/proj
        try gh-issue gh issue list -R me/proj
        try gh-pr gh pr create -R me/proj --head of-@NET --base main --title t --body b
        try gh-merge gh api graphql -f query='mutation{{mergePullRequest(input:{{pullRequestId:\"x\"}}){{clientMutationId}}}}'
        try gh-new-issue gh api repos/me/proj/issues -f title=x; cat said
        try other-clone git clone -q http://pi-keys:8441/github.com/me/other d
        try longer-name git clone -q https://github.com/me/proj-2 e
        try other-api gh api repos/me/other
        try delete gh api -X DELETE repos/me/proj
        try secret gh api -X PUT repos/me/proj/actions/secrets/X -f encrypted_value=x
        try no-placeholder curl -fsS --noproxy '*' http://pi-keys:8441/github.com/me/proj/info/refs?service=git-upload-pack
        env; git config --list; cat ~/.config/gh/* /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'
        grep -rs {}''{} ~ /tmp /etc /run && echo found",
        &TOKEN[..12],
        &TOKEN[12..]
    );
    let expected = [
        ("clone-https", "ok"),
        ("clone-git", "ok"),
        ("clone-ssh", "ok"),
        ("fetch", "ok"),
        ("push", "ok"),
        ("gh-api", "ok"),
        ("gh-issue", "ok"),
        ("gh-pr", "ok"),
        ("gh-merge", "refused"),
        ("gh-new-issue", "ok"),
        ("other-clone", "refused"),
        ("longer-name", "refused"),
        ("other-api", "refused"),
        ("delete", "refused"),
        ("secret", "refused"),
        ("no-placeholder", "refused"),
    ];
    for (name, options) in [("open", &[][..]), ("proxy", &[&*list])] {
        let script = script.replace("@NET", name);
        let outcome = shell(&world, options, &script).env("PI_GH_TOKEN", TOKEN).run();
        for (name, what) in expected {
            assert!(outcome.out.contains(&format!("{name} {what}\n")), "{options:?}: {name}: {outcome:?}");
        }
        assert!(!outcome.out.contains(TOKEN) && outcome.out.contains("GH_TOKEN=ghp_"), "{outcome:?}");
        let pushed = asked(&format!("POST github.com/me/proj/git-receive-pack x-access-token:{TOKEN}"));
        assert!(!pushed.is_empty(), "{:?}", asked(TOKEN));
        let astray = |line: &&String| line.contains("me/other") || line.contains("proj-2");
        assert_eq!(asked(TOKEN).iter().find(astray), None);
    }
    assert!(asked(TOKEN).iter().any(|line| line.starts_with("github GET api.github.com/repos/me/proj ")));
    // Without a network there is the model alone, and the plan says nothing of a token.
    let none = shell(&world, &["--no-network"], "echo ${GH_TOKEN-none}").env("PI_GH_TOKEN", TOKEN).run();
    none.is(0, "none\n", "");
    let dry = shell(&world, &["--dry-run"], "true").env("PI_GH_TOKEN", TOKEN).run();
    assert!(dry.code == Some(0) && !dry.out.contains(TOKEN) && dry.out.contains("/me/proj"), "{dry:?}");
    world.assert_nothing_left();
}

#[test]
fn pushing_can_be_taken_away_and_other_repositories_are_named() {
    let (world, list) = world("github = [\"me/other\"]", "https://github.com/me/proj");
    let script = format!(
        "{TRY}
        try clone git clone -q https://github.com/me/proj a
        try other git clone -q https://github.com/me/other b
        git -C a commit -q --allow-empty -m more
        try push git -C a push -q origin HEAD:not-allowed
        try issue gh api repos/me/proj/issues -f title=x
        try pr gh pr create -R me/proj --head main --base main --title t --body b
        try list gh issue list -R me/proj
        try read gh api repos/me/other"
    );
    let expected = "clone ok\nother ok\npush refused\nissue refused\npr refused\nlist ok\nread ok\n";
    shell(&world, &[&list, "--no-push"], &script)
        .env("PI_GH_TOKEN", "github_pat_another")
        .run()
        .is(0, expected, "");
    configure(&world, "github = [\"me/other\"]\ngithub_push = false");
    shell(&world, &[&list], &script).env("PI_GH_TOKEN", "github_pat_another").run().is(0, expected, "");
    // One that is not limited to repositories by itself does not get at what no path limits.
    let script =
        format!("{TRY}\ntry issues gh issue list -R me/proj; cat said; try api gh api repos/me/proj");
    let classic = shell(&world, &[&list], &script).env("PI_GH_TOKEN", "ghp_classic").run();
    assert!(classic.out.starts_with("issues refused\n") && classic.out.ends_with("api ok\n"), "{classic:?}");
    assert!(classic.out.contains("fine-grained token"), "{classic:?}");
    world.assert_nothing_left();
}

#[test]
fn a_subagent_is_pushed_and_gets_its_pull_request_with_the_users_token() {
    let world = World::with_model();
    internet();
    world.prepare(myself(), &["--allow", "any.test"]);
    configure(&world, "");
    write(world.root().join("ca.pem"), &internet().authority);
    world.git(world.repo(), &["commit", "--quiet", "--allow-empty", "--message", "first"]);
    world.git(world.repo(), &["remote", "add", "origin", "git@github.com:me/proj.git"]);
    let spawn = |options: &[&str], name: &str| {
        let task = format!(
            "run: echo {name} >{name}.txt; git add .; git commit --quiet -m 'Add {name}'; env; cat ~/.config/gh/*"
        );
        let tasks = serde_json::json!([[name, task]]).to_string();
        let words = [options, &["-p", "--model", "demo/spawn", tasks.as_str()]].concat();
        let call = world.pi(&words).env("PI_GH_TOKEN", TOKEN);
        let said = call.env("NODE_EXTRA_CA_CERTS", world.root().join("ca.pem")).run();
        assert!(said.code == Some(0) && !said.out.contains(TOKEN), "{said:#?}");
        said.out
    };
    let said = spawn(&[], "opened");
    for expected in [
        "The subagent `opened` has finished.\nPull request: https://github.com/me/proj/pull/",
        "\nBranch: subagent/opened, pushed to origin\n",
    ] {
        assert!(said.contains(expected), "no {expected:?}: {said}");
    }
    let post = format!("github POST api.github.com/repos/me/proj/pulls {TOKEN}");
    assert!(asked("/pulls").contains(&post), "{:?}", asked("/pulls"));
    // Where pushing is taken away, the branch stays here.
    let said = spawn(&["--no-push"], "closed");
    assert!(
        said.contains("Note: it could not be pushed to `origin`: ") && !said.contains("Pull request"),
        "{said}"
    );
    assert_eq!(asked("/pulls").iter().filter(|line| **line == post).count(), 1);
    let branches = world.git(world.repo(), &["for-each-ref", "--format=%(refname:short)", "refs/heads/"]);
    assert_eq!(branches, "main\nsubagent/closed\nsubagent/opened\n");
    assert_eq!(world.git(world.repo(), &["status", "--short"]), "");
    world.assert_nothing_left();
}

#[test]
fn the_token_comes_from_where_the_user_keeps_it() {
    let world = World::fake();
    remotes(&world, &[("origin", "https://github.com/me/proj")]);
    let placed = |world: &World| {
        let plan = world.plan(&["-p", "x"]);
        assert!(!plan.to_string().contains(TOKEN), "{plan}");
        plan["agent"]["env"]["PI_BOX_GITHUB"].is_string()
    };
    assert!(!placed(&world));
    let file = world.config_file().with_file_name("gh-token");
    write(&file, format!("{TOKEN}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = world.run_pi(&["--dry-run", "-p", "x"]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(125), ""), "{refused:?}");
    assert!(
        refused.err.contains("can be read by others") && refused.err.contains("chmod 600"),
        "{refused:?}"
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(placed(&world));
    write(&file, "two words\nand a line");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let odd = world.run_pi(&["--dry-run", "-p", "x"]);
    assert!(odd.code == Some(125) && odd.err.contains("a character that no key has"), "{odd:?}");
    fs::remove_file(&file).unwrap();
    // The host's own `gh` is asked only where the settings say so, and never one that a repository brings.
    write_program(&world.root().join("bin-of-gh/gh"), format!("#!/bin/sh\necho {TOKEN}\n"));
    let call = |words: &[&str]| world.pi(words).path_first(&world.root().join("bin-of-gh")).run();
    assert!(!call(&["--dry-run=json", "-p", "x"]).out.contains("PI_BOX_GITHUB"));
    world.configure("github_token = \"gh\"");
    let asked = call(&["--dry-run=json", "-p", "x"]);
    assert!(asked.out.contains("PI_BOX_GITHUB") && !asked.out.contains(TOKEN), "{asked:?}");
}

#[test]
fn a_missing_token_is_told_once_and_a_remote_that_came_later_is_not_trusted() {
    let world = World::fake();
    remotes(&world, &[("origin", "https://github.com/me/proj")]);
    let run = |token: &str| world.pi(&["-p", "x"]).env("PI_GH_TOKEN", token).run();
    let told = "there is no token for GitHub, so git and `gh` cannot push to `me/proj` inside";
    assert!(run("").err.contains(told));
    assert!(!run("").err.contains(told));
    let repositories = |token: &str| {
        let said = world.pi(&["--dry-run=json", "--quiet", "-p", "x"]).env("PI_GH_TOKEN", token).run();
        let plan: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        let env = plan["agent"]["env"].as_object().unwrap().clone();
        let urls = env
            .values()
            .filter_map(|value| value.as_str()?.strip_prefix("https://github.com/").map(str::to_owned));
        urls.collect::<std::collections::BTreeSet<_>>()
    };
    run(TOKEN).has_code(0);
    assert_eq!(repositories(TOKEN), ["me/proj"].map(str::to_owned).into());
    remotes(&world, &[("origin", "https://github.com/me/proj"), ("more", "git@github.com:me/secret")]);
    assert_eq!(repositories(TOKEN), ["me/proj"].map(str::to_owned).into());
    let later = run(TOKEN);
    assert!(later.err.contains("the remotes `me/secret` came after the first session"), "{later:?}");
    world.configure("github = [\"me/secret\"]");
    assert_eq!(repositories(TOKEN), ["me/proj", "me/secret"].map(str::to_owned).into());
    world.configure("github = [\"me\"]");
    let odd = world.run_pi(&["-p", "x"]);
    assert!(odd.code == Some(125) && odd.err.contains("`me` is not a repository on GitHub"), "{odd:?}");
    world.assert_nothing_left();
}

#[test]
fn on_a_terminal_a_missing_token_is_asked_about_until_the_answer_is_yes() {
    let world = World::fake();
    remotes(&world, &[("origin", "https://github.com/me/proj")]);
    let terminal = Terminal::open(&world);
    let ask = |round: u32| {
        terminal.line(&format!("pi -p x; echo round {round} $?"));
        terminal.wait("the question", |screen| screen.contains("[y/N]"));
    };
    ask(1);
    terminal.line("");
    terminal.wait("the end", |screen| screen.contains("round 1 125"));
    let screen = terminal.screen().replace('\n', "");
    assert!(screen.contains("pi: error: stopped: there is no token for GitHub"), "{screen}");
    terminal.line("clear");
    ask(2);
    terminal.line("y");
    terminal.wait("the end", |screen| screen.contains("round 2 0"));
    terminal.line("clear");
    terminal.line("pi -p x; echo round 3 $?");
    let screen = terminal.wait("the end", |screen| screen.contains("round 3 0"));
    assert!(!screen.contains("[y/N]"), "{screen}");
    world.assert_nothing_left();
}
