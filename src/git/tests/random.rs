//! Random sequences of commands on both sides, with launchers that are killed in between: everything that was committed is
//! reachable, and what the user has not committed is bit for bit the same.
//!
//! `PI_GIT_SEQUENCES=500 cargo test --bin pi git::tests::random` tries as many; `PI_GIT_SEED` begins elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::CommandExt as _,
    process::Stdio,
    thread,
    time::Duration,
};

use super::*;

/// How many sequences the suite tries.
const SEQUENCES: u64 = 2;

/// How many commands a sequence has.
const STEPS: usize = 30;

#[test]
fn nothing_that_was_committed_or_staged_is_lost() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("PI_GIT_SEED").unwrap_or(1);
    for seed in first..first + number("PI_GIT_SEQUENCES").unwrap_or(SEQUENCES) {
        sequence(seed);
    }
}

/// A pass in a process of its own, which can be killed; what the test starts for that.
#[test]
fn a_pass_that_can_be_killed() {
    let (Some(dir), Some(door)) = (std::env::var_os("PI_GIT_PASS"), std::env::var_os("PI_GIT_DOOR")) else {
        return;
    };
    let door = Inside { prefix: vec![door], env: vec![], git: "git".into() };
    Takeover::open(&git(), Path::new(&dir)).unwrap().pass(&door, Moment::Running).unwrap();
}

/// Numbers that are the same for the same seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    pub(super) fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

fn sequence(seed: u64) {
    let mut dice = Dice(seed);
    let world = World::new();
    let sessions = [world.session("one"), world.session("two")];
    let mut log = Vec::new();
    // What the user drops later is dropped; no pass may do that.
    let mut came_over = Mine::of(&world).commits;
    for _ in 0..STEPS {
        let session = &sessions[dice.below(3) / 2];
        match dice.below(10) {
            0..=2 => log.push(("user", act(&mut dice, &world, &mut || command(&world.root)))),
            3..=6 => log.push(("agent", act(&mut dice, &world, &mut || session.command()))),
            7 => {
                log.push(("killed", String::new()));
                let before = Mine::of(&world);
                killed(session, Duration::from_micros(200 * dice.below(1000) as u64), dice.below(2) == 0);
                session.pass(Moment::Running);
                came_over.extend(before.stands(&world, seed, &log));
            }
            _ => {
                log.push(("pass", String::new()));
                let before = Mine::of(&world);
                session.pass(Moment::Running);
                came_over.extend(before.stands(&world, seed, &log));
            }
        }
    }
    let show = format!("seed {seed}: {log:#?}");
    for session in &sessions {
        let before = Mine::of(&world);
        let taken = session.end();
        assert!(taken.is_whole(), "{taken:?} {show}");
        came_over.extend(before.stands(&world, seed, &log));
        let made = session.run(&["rev-list", "--branches", "--tags", "HEAD"]);
        let missing: Vec<&str> = made.lines().filter(|commit| !came_over.contains(*commit)).collect();
        assert!(missing.is_empty(), "{missing:?} {show}");
    }
    let fsck = command(&world.root).args(["fsck", "--strict", "--no-dangling"]).output().unwrap();
    assert!(fsck.status.success(), "{} {show}", String::from_utf8_lossy(&fsck.stderr));
}

/// One command of somebody's; it may fail.
fn act(dice: &mut Dice, world: &World, git: &mut dyn FnMut() -> Command) -> String {
    let file = dice.of(&["a", "b", "c", "dir/d"]);
    let branch = dice.of(&["main", "x", "y/z", "y"]);
    let mut words: Vec<String> = Vec::new();
    let mut say = |args: &[&str]| {
        let mut git = git();
        git.env("GIT_EDITOR", "true").args(args).stdin(Stdio::null());
        let done = git.output().unwrap().status.success();
        words.push(format!("{args:?}{}", if done { "" } else { " failed" }));
    };
    let number = dice.below(1000).to_string();
    match dice.below(16) {
        0..=3 => {
            world.write(file, &number);
            say(&["add", file]);
            say(&["commit", "--quiet", "-m", &number]);
        }
        4 => world.write(file, &number),
        5 => {
            world.write(file, &number);
            say(&["add", file]);
        }
        6 => say(&["checkout", "--quiet", "-b", branch]),
        7 => say(&["checkout", "--quiet", branch]),
        8 => say(&["commit", "--quiet", "--amend", "--allow-empty", "-m", &number]),
        9 => say(&["branch", "--force", branch]),
        10 => say(&["tag", &format!("v{}", dice.below(4))]),
        11 => {
            say(&["rebase", branch]);
            if dice.below(2) == 0 {
                say(&["rebase", "--abort"]);
            }
        }
        12 => {
            say(&["merge", "--quiet", branch]);
            if dice.below(2) == 0 {
                say(&["merge", "--abort"]);
            }
        }
        13 => say(&["branch", "-D", branch]),
        14 => say(&["reset", "--quiet", "--soft", "HEAD~1"]),
        _ => {
            say(&["checkout", "--quiet", "--detach"]);
            say(&["gc", "--quiet", "--prune=2.weeks.ago"]);
        }
    }
    words.join("; ")
}

/// Starts a pass and kills it, with all that it has started or alone.
fn killed(session: &Session<'_>, after: Duration, all: bool) {
    let mut pass = Command::new(std::env::current_exe().unwrap());
    pass.args(["--exact", "git::tests::random::a_pass_that_can_be_killed"]);
    pass.env("PI_GIT_PASS", &session.dir).env("PI_GIT_DOOR", session.dir.join("inside"));
    let mut pass = pass.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
    thread::sleep(after);
    if all {
        // What it has started is in groups of its own.
        let own = format!("/proc/{0}/task/{0}/children", pass.id());
        let children = fs::read_to_string(own).unwrap_or_default();
        pass.kill().unwrap();
        for child in children
            .split_whitespace()
            .filter_map(|id| id.parse().ok().and_then(rustix::process::Pid::from_raw))
        {
            let _ = rustix::process::kill_process_group(child, rustix::process::Signal::KILL);
        }
    }
    let _ = pass.kill();
    pass.wait().unwrap();
}

/// What the user has, committed or not.
struct Mine {
    commits: BTreeSet<String>,
    head: BTreeMap<String, String>,
    index: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Mine {
    fn of(world: &World) -> Self {
        let commits = world.host(&["rev-list", "--all", "--reflog", "HEAD"]);
        let map = |list: &str, skip: usize| -> BTreeMap<String, String> {
            list.lines()
                .filter_map(|line| line.split_once('\t'))
                .map(|(what, path)| {
                    (path.to_owned(), what.split(' ').skip(skip).collect::<Vec<_>>().join(" "))
                })
                .collect()
        };
        let mut files = BTreeMap::new();
        collect(&world.root, &mut files);
        Self {
            commits: commits.lines().map(str::to_owned).collect(),
            head: map(&world.host(&["ls-tree", "-r", "HEAD"]), 2),
            index: map(&world.host(&["ls-files", "--stage"]), 1)
                .into_iter()
                .map(|(path, what)| (path, what.trim_end_matches(" 0").to_owned()))
                .collect(),
            files,
        }
    }

    /// What differs between index and HEAD, a deletion too.
    fn staged(&self) -> BTreeMap<&str, Option<&String>> {
        let paths = self.index.keys().chain(self.head.keys());
        let differs = |path: &&String| self.index.get(*path) != self.head.get(*path);
        paths.filter(differs).map(|path| (path.as_str(), self.index.get(path))).collect()
    }

    #[track_caller]
    fn stands(&self, world: &World, seed: u64, log: &[(&str, String)]) -> BTreeSet<String> {
        let show = || format!("seed {seed}: {log:#?}");
        let now = Self::of(world);
        assert!(self.files == now.files, "files were touched: {}", show());
        let lost: Vec<_> = self.commits.difference(&now.commits).collect();
        assert!(lost.is_empty(), "lost {lost:?}: {}", show());
        for (path, staged) in self.staged() {
            assert_eq!(now.index.get(path), staged, "`{path}` was staged: {}", show());
        }
        let was_staged = self.staged();
        for (path, _) in now.staged() {
            assert!(was_staged.contains_key(path), "`{path}` was not staged: {}", show());
        }
        assert!(!world.common.join("index.lock").exists(), "{}", show());
        now.commits
    }
}

fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with(".git") {
            collect(&path, files);
        } else if path.is_file() {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}
