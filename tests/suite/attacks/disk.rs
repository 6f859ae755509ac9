//! Disks and their numbers of files.

use std::time::{Duration, Instant};

use crate::world::{World, files::write, model::docker, wait::until_within};

/// Other tests run beside these.
const LONG: Duration = Duration::from_secs(400);

/// A session's script that says `CASE held` for each of these attacks whose limit was reached, else `CASE open`.
const FILL: &str = r#"
    # Not a program for each file: perl makes a hundred thousand in a second.
    flat() { perl -e 'my $dir = shift; for (1 .. 1_000_000) { open my $file, ">", "$dir/f$_" or exit 1 }' "$1"; }
    nested() { perl -e 'chdir shift or die; for (1 .. 300_000) { mkdir "d" or exit 1; chdir "d" or exit 2 }' "$1"; }
    bytes() { head -c 5G /dev/zero >"$1/bytes" 2>/dev/null; }
    sparse() { fallocate -l 5G "$1/sparse" 2>/dev/null; }
    try() { # CASE ATTACK PLACE
        mkdir -p "$3/try" 2>/dev/null
        if "$2" "$3/try"; then echo "$1 open"; else echo "$1 held"; fi
        rm -rf "$3/try"
        mkdir -p "$3/try" && touch "$3/try/again" && rm -r "$3/try" || echo "$1 stays full"
    }
    mkdir "$HOME/try" && touch "$HOME/try/one"
    if flat "$HOME/try"; then echo "home-flat open"; else echo "home-flat held"; fi
    # What is full of files is full of everything that has a name.
    no() { if shift; "$@" 2>/dev/null; then echo "$kind open"; else echo "$kind held"; fi; }
    kind=home-directory; no _ mkdir "$HOME/d"
    kind=home-link; no _ ln -s x "$HOME/l"
    kind=home-hard-link; no _ ln "$HOME/try/one" "$HOME/h"
    kind=home-pipe; no _ mkfifo "$HOME/p"
    kind=home-socket; no _ perl -MSocket -e 'socket my $s, AF_UNIX, SOCK_STREAM, 0; exit !bind $s, sockaddr_un("$ENV{HOME}/s")'
    rm -rf "$HOME/try"
    try home-bytes bytes "$HOME"
    try home-sparse sparse "$HOME"
    try tmp-flat flat /tmp
    try tmp-bytes bytes /tmp
    try shm-flat flat /dev/shm
    try shm-bytes bytes /dev/shm
    try agent-flat flat "$HOME/.pi/agent"
    try agent-bytes bytes "$HOME/.pi/agent"
    try other-transcripts-flat flat "$HOME/.pi/agent/sessions"
    try way-to-the-agent-flat flat "$HOME/.pi"
    try way-to-the-agent-bytes bytes "$HOME/.pi"
    try temporary-bytes bytes "$TMPDIR"
    for place in / /etc /usr /var /opt /srv /run /root /home; do
        if touch "$place/x" 2>/dev/null; then echo "layer$place open"; else echo "layer$place held"; fi
    done
"#;

#[test]
fn nothing_but_the_repository_and_memory_can_be_filled() {
    let world = World::with_model();
    let limits = ["--memory", "1g", "--disk", "256m", "--cpus", "2"];
    let outcome = world.shell(&limits, FILL).limit(LONG).run();
    outcome.has_code(0);
    let open: Vec<&str> = outcome.out.lines().filter(|line| !line.ends_with(" held")).collect();
    assert_eq!((open, outcome.out.lines().count()), (vec![], 27), "{outcome:#?}");
}

/// How long a session takes to end after its agent.
fn teardown(world: &World, options: &[&str], script: &str) -> Duration {
    let running = world.shell(options, &format!("{script}\ntouch done")).limit(LONG).start();
    until_within(LONG, "the attack", || world.repo().join("done").exists().then_some(()).ok_or(()));
    let begun = Instant::now();
    let outcome = running.wait();
    outcome.has_code(0);
    std::fs::remove_file(world.repo().join("done")).unwrap();
    begun.elapsed()
}

#[test]
fn a_home_full_of_files_goes_as_quickly_as_an_empty_one() {
    let world = World::with_model();
    let control = teardown(&world, &[], "true");
    let (functions, _) = FILL.split_once("    try() {").unwrap();
    let functions = functions.replace("300_000", "50_000");
    let script = format!(
        "{functions}\n(nested \"$HOME\"; flat \"$HOME\") & (nested /tmp; flat /tmp) & flat /dev/shm; wait\n\
         find \"$HOME\" -mindepth 40000 -type d -printf . | head -c 1000 | wc -c >deep\n\
         ls \"$HOME\" | wc -l >many"
    );
    let took = teardown(&world, &[], &script);
    // The control: there were deep directories and many files.
    let counted = |name: &str| -> u32 {
        std::fs::read_to_string(world.repo().join(name)).unwrap().trim().parse().unwrap()
    };
    assert!(counted("deep") == 1000 && counted("many") > 20_000, "{} {}", counted("deep"), counted("many"));
    // A quarter of a second on an idle machine. On a disk, a million took fourteen there, and the engine could not remove
    // deep ones at all.
    assert!(took < control * 3 + Duration::from_secs(15), "{took:?}, else {control:?}");
    let outcome = world.shell(&["--disk", "16m"], "head -c 20m /dev/zero >~/x; exit 3").run();
    outcome.says(3, "pi: warning: `/home/pi` of the session was full; `--disk` raises its limit\n");
}

#[test]
fn a_session_ends_before_it_fills_the_machine() {
    let world = World::with_model();
    let free = || {
        let found = rustix::fs::statvfs(world.repo()).unwrap();
        found.f_bavail * found.f_frsize
    };
    // What others write at the same time must not matter.
    let spare = 6144.min((free() >> 20) / 3);
    let floor = || format!("min_free = \"{}m\"", (free() >> 20) - spare);
    world.configure(&floor());
    world.shell(&[], "fallocate -l 100M big; rm big").run().has_code(0);
    world.configure(&floor());
    let script = format!("touch up; fallocate -l {}M big; sleep 60; touch survived", spare * 4 / 3);
    let outcome = world.shell(&[], &script).run();
    let _ = std::fs::remove_file(world.repo().join("big"));
    outcome.says(125, "pi: error: the session was stopped: the file system of `");
    outcome.says(125, "pi: hint: make room on it");
    assert!(world.repo().join("up").exists() && !world.repo().join("survived").exists());
    world.configure("min_free = \"99%\"");
    world.shell(&[], "touch started").run().says(125, "is nearly full: only ");
    assert!(!world.repo().join("started").exists());
    world.assert_nothing_left();
}

#[test]
fn a_cache_that_somebody_else_made_is_not_mounted() {
    let world = World::with_model();
    write(world.repo().join("package.json"), "{}\n");
    let plan = world.plan(&[]);
    let mounts = plan["agent"]["mounts"].as_array().unwrap();
    let cache = mounts.iter().find_map(|mount| mount["source"]["volume"]["name"].as_str()).unwrap();
    let bind = [&format!("--opt=device={}", world.home().display()), "--opt=o=bind", "--opt=type=none"];
    let state = format!("--label=pi.state={}", plan["agent"]["labels"]["pi.state"].as_str().unwrap());
    for options in [&bind[..], &[], &[&state, "--label=pi.role=cache"]] {
        docker(&[&["volume", "create"], options, &[cache]].concat());
        let outcome = world.shell(&[], "touch ~/.cache/lang/x started").run();
        outcome.says(125, &format!("the volume `{cache}` was not made by `pi`"));
        assert!(!world.repo().join("started").exists() && !world.home().join("x").exists());
        docker(&["volume", "rm", cache]);
    }
    world.shell(&[], "touch ~/.cache/lang/x").run().has_code(0);
    let again = world.shell(&[], "ls ~/.cache/lang").good();
    assert_eq!(again, "x\n");
    world.run_pi(&["--quiet", "clean", "--caches", "--older-than", "1d"]).is(0, "", "");
    world.run_pi(&["clean", "--caches"]).says(0, "");
    assert_eq!(world.shell(&[], "ls ~/.cache/lang").good(), "");
}
