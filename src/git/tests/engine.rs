//! The same with mounts and containers in place of the shell: where `PI_TEST_IMAGE` names an image that has git.

use super::*;
use crate::config::Access;

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    text(&output)
}

struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", &self.0]);
    }
}

fn mount(bind: &super::super::private::Bind) -> String {
    let only = if bind.access == Access::ReadOnly { ",readonly" } else { "" };
    format!("--mount=type=bind,source={},target={}{only}", bind.source.display(), bind.target.display())
}

#[test]
fn the_agent_works_in_a_container_and_another_one_hands_out_what_it_left() {
    let Ok(image) = std::env::var("PI_TEST_IMAGE") else { return };
    let inner = World::new();
    let world = World::new();
    world.host(&["submodule", "--quiet", "add", inner.root.to_str().unwrap(), "lib/sub"]);
    world.host(&["commit", "--quiet", "-m", "sub"]);
    let Decision::Private(private) = world.decide("s") else { panic!() };
    let dir = world.base().join("s");
    private.lay_out(&git(), &dir, "s", None).unwrap();
    let root = world.root.to_str().unwrap();
    let common =
        ["--rm", "--read-only", "--network=none", "--cap-drop=ALL", "--entrypoint=sh", "--env=HOME=/tmp"];
    let who = format!("--user={}:{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let store: Vec<String> = private.store.iter().map(mount).collect();
    let guards: Vec<String> = private.guards.iter().map(mount).collect();
    let tree = format!("--mount=type=bind,source={root},target={root}");
    let mut args = vec!["run", "--detach", "--tmpfs=/tmp", &who, &tree, "--workdir", root];
    args.extend(common);
    args.extend(store.iter().chain(&guards).map(String::as_str));
    args.extend([&*image, "-c", "sleep 300"]);
    let agent = Container(docker(&args));
    let act = |script: &str| docker(&["exec", &agent.0, "sh", "-ec", script]);
    let who = "git config user.name A; git config user.email a@example.com";
    assert_eq!(act("git status --porcelain --branch"), world.status());
    act(&format!(
        "{who}; echo 2 >a; git commit -qam agent; cd lib/sub; {who}; echo 2 >b; git commit -qam agent"
    ));
    let program = which::which("docker").unwrap();
    let door = |prefix: &[&str]| Inside {
        prefix: std::iter::once(program.clone().into()).chain(prefix.iter().map(OsString::from)).collect(),
        env: vec![],
        git: "git".into(),
    };
    let pass = |inside: &Inside, moment| {
        let begun = std::time::Instant::now();
        let taken = Takeover::open(&git(), &dir).unwrap().pass(inside, moment).unwrap();
        (taken, begun.elapsed())
    };
    let (taken, first) = pass(&door(&["exec", "-i", &agent.0]), Moment::Running);
    assert_eq!(taken.updated, ["refs/heads/main", "refs/heads/main"], "{taken:?}");
    assert_eq!(world.status(), "## main\n M lib/sub");
    // What is guarded stays where it is.
    for script in [
        "mv .git x", "rmdir .git", "mv lib x", "mv lib/sub x", "rm lib/sub/.git", "mv lib/sub/.git x",
        "echo x >lib/sub/.git", "touch /run/pi/objects/0/x",
    ] {
        let tried = Command::new("docker").args(["exec", &agent.0, "sh", "-c", script]).output().unwrap();
        assert!(!tried.status.success(), "{script}");
    }
    // `mv` copies what it cannot rename.
    act(
        "rm -rf x; echo 3 >a; git commit -qam later; git checkout -qb next; git worktree add -q /tmp/w; git gc -q",
    );
    drop(agent);
    // The agent is gone; a container that has only the git directory hands out the rest.
    let mut prefix = vec!["run", "-i"];
    prefix.extend(common.iter().filter(|arg| !arg.starts_with("--entrypoint")));
    let who = format!("--user={}:{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    prefix.extend([&*who, "--entrypoint=/usr/bin/env"]);
    prefix.extend(store.iter().map(String::as_str));
    prefix.push(&image);
    let (taken, last) = pass(&door(&prefix), Moment::End);
    assert_eq!(taken.head.as_deref(), Some("refs/heads/next"), "{taken:?}");
    assert_eq!(world.host(&["show", "next:a"]), "3");
    assert_eq!(world.status(), "## next\n M lib/sub");
    crate::report::note(format_args!(
        "a pass over two repositories took {first:?}, by new containers {last:?}"
    ));
}
