//! Subagents, with the real agent and the scripted model.

use crate::world::World;

#[test]
fn try_it() {
    let world = World::with_model();
    world.git(world.repo(), &["commit", "--quiet", "--allow-empty", "--message", "first"]);
    let tasks = serde_json::json!([
        ["one", "run: pwd; echo one >one.txt; git add one.txt && git commit -q -m 'Add one'; echo $HOME $PI_CODING_AGENT_DIR; ls -la $HOME $PI_CODING_AGENT_DIR"],
        ["two", "run: echo two >two.txt; echo x >../one/x; echo x >../../x; echo x >>../../.git/config; git update-ref refs/heads/other HEAD; git config a.b c; echo x >~/.cache/x && echo x >/tmp/x && echo fine"],
    ]);
    let out = world.run_pi(&["-p", "--model", "demo/spawn", &tasks.to_string()]);
    eprintln!("{}\n{}", out.out, out.err);
    eprintln!("{}", world.git(world.repo(), &["log", "--all", "--oneline", "--graph"]));
    eprintln!("{}", world.git(world.repo(), &["worktree", "list", "--porcelain"]));
    eprintln!("{}", world.git(world.repo(), &["status", "--short"]));
    for words in ["/worktrees", "/cleanup-worktree x", "/cleanup-all", "/worktrees"] {
        let out = world.run_pi(&["-p", "--model", "demo/spawn", words]);
        eprintln!("{words}\n{}\n{}", out.out, out.err);
    }
    world.assert_nothing_left();
}
