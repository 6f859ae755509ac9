//! The line to another engine is cut, for a moment and for long, and launchers are killed meanwhile: no work is lost, nothing is
//! left. The line is a relay in front of this machine's engine, which keeps back what it has while it is cut.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};

use crate::world::{
    World,
    call::{Call, Running},
    files::write,
    model::{context, docker},
    wait::{until, until_within},
};

/// A line that can be cut, and broken.
#[derive(Clone, Default)]
pub(super) struct Line {
    is_cut: Arc<AtomicBool>,
    /// Both ends of every connection that there is.
    streams: Arc<Mutex<Vec<Weak<[UnixStream; 2]>>>>,
}

impl Line {
    /// A socket at `at` that leads to the one at `to`.
    fn lay(at: &Path, to: &str) -> Self {
        let (line, to) = (Self::default(), PathBuf::from(to));
        let (listener, own) = (UnixListener::bind(at).unwrap(), line.clone());
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (line, to) = (own.clone(), to.clone());
                thread::spawn(move || {
                    line.wait();
                    let Ok(far) = UnixStream::connect(to) else { return };
                    let (Ok(back), Ok(forth)) = (near.try_clone(), far.try_clone()) else { return };
                    let both = Arc::new([&near, &far].map(|stream| stream.try_clone().unwrap()));
                    line.keep(&both);
                    let other = line.clone();
                    thread::spawn(move || other.pass(far, back));
                    line.pass(near, forth);
                    drop(both);
                });
            }
        });
        line
    }

    fn pass(&self, mut from: UnixStream, mut to: UnixStream) {
        let mut bytes = [0; 16 << 10];
        while let Ok(count) = from.read(&mut bytes) {
            self.wait();
            if count == 0 || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    fn wait(&self) {
        while self.is_cut.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }

    /// Ends every connection that there is: a machine in between has forgotten them.
    pub(super) fn lose(&self) {
        for both in self.streams.lock().unwrap().drain(..).filter_map(|both| both.upgrade()) {
            for stream in &*both {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn keep(&self, both: &Arc<[UnixStream; 2]>) {
        let mut streams = self.streams.lock().unwrap();
        streams.retain(|both| both.strong_count() > 0);
        streams.push(Arc::downgrade(both));
    }
}

/// A world with an engine at the end of such a line: docker's context `far`.
pub(super) struct Far {
    pub(super) world: World,
    pub(super) settings: PathBuf,
    pub(super) line: Line,
}

impl Far {
    pub(super) fn new() -> Self {
        let world = World::with_model();
        write(world.repo().join("a"), "one\n");
        world.git(world.repo(), &["add", "."]);
        world.git(world.repo(), &["commit", "--quiet", "--message", "first"]);
        let socket = world.plan(&[])["record"]["engine"].as_str().unwrap().to_owned();
        let (settings, far) = (world.root().join("contexts"), world.root().join("far.sock"));
        let line = Line::lay(&far, socket.strip_prefix("unix://").unwrap());
        let far = format!("unix://{}", far.display());
        context(&settings, "far", &far);
        world.knows_on(&socket, &far);
        Self { world, settings, line }
    }

    pub(super) fn pi(&self, words: &[&str]) -> Call<'_> {
        self.world.pi(words).env("DOCKER_CONFIG", &self.settings)
    }

    /// A session that works on this copy, says so, and goes on when its input ends.
    fn session(&self, name: &str, patience: &str) -> Running {
        let script = "git commit --quiet --allow-empty --message committed; echo uncommitted >>a; echo done; cat >/dev/null; \
                      curl -sS --max-time 20 -o /dev/null -w '%{http_code}\\n' http://refused.test/; echo after >>a";
        let clone = format!("--clone={name}");
        let words = ["--on", "far", &clone, "--allow", "allowed.test", "shell", "--", "sh", "-c", script];
        self.pi(&words)
            .env("PI_BOX_CUT", patience)
            .limit(Duration::from_secs(400))
            .stdin(Stdio::piped())
            .start()
    }

    fn at_work(&self, name: &str, patience: &str) -> Running {
        let running = self.session(name, patience);
        until("the agent's work", || {
            if running.out().contains("done") { Ok(()) } else { Err((running.out(), running.err())) }
        });
        running
    }

    /// The containers of this role, from the engine itself.
    pub(super) fn containers(&self, role: &str) -> String {
        let (state, role) =
            (format!("label=pi.state={}", self.world.label()), format!("label=pi.role={role}"));
        docker(&["ps", "--quiet", "--filter", &state, "--filter", &role])
    }

    /// Waits until nobody has to do with a session any more.
    pub(super) fn settled(&self) {
        until_within(Duration::from_secs(200), "the end of the session", || {
            let left = (self.world.sessions(), self.world.watchers().len());
            if left.0.is_empty() && left.1 == 0 { Ok(()) } else { Err(left) }
        });
    }

    /// Looks that the work has come, to its last line where `last` is that, and drops the copy.
    #[track_caller]
    pub(super) fn has_come(&self, name: &str, last: Option<&str>) {
        self.pi(&["diff", name]).run().has_code(0);
        let world = &self.world;
        let came = world.git(world.repo(), &["show", &format!("pi/{name}:a")]);
        assert!(came.starts_with("one\nuncommitted\n") && came.ends_with(last.unwrap_or_default()), "{came}");
        let log = world.git(world.repo(), &["log", "--format=%s", &format!("pi/{name}")]);
        assert!(log.contains("committed\n"), "{log}");
        self.pi(&["drop", name]).run().has_code(0);
    }
}

#[test]
fn a_session_goes_on_when_the_line_is_back_soon() {
    let far = Far::new();
    let running = far.at_work("copy", "600");
    far.line.cut(true);
    // As long as a cut is meant to be; nothing is waited for.
    thread::sleep(Duration::from_secs(6));
    far.line.cut(false);
    let done = running.release();
    assert_eq!((done.code, done.out.as_str()), (Some(0), "done\n403\n"), "{done:?}");
    far.has_come("copy", Some("after\n"));
    far.world.assert_nothing_left();
}

/// Waits until the way out of a session is closed, and calls `back`; then until it is open again, and to the session's end.
fn closes_and_opens(far: &Far, running: Running, back: impl FnOnce(&Running)) {
    until_within(Duration::from_secs(90), "the end of the way out", || {
        let sidecar = far.containers("proxy");
        if sidecar.is_empty() { Ok(()) } else { Err(sidecar) }
    });
    back(&running);
    until_within(Duration::from_secs(90), "another way out", || {
        if running.err().contains("the way out of the session is open again") {
            Ok(())
        } else {
            Err(running.err())
        }
    });
    let done = running.release();
    assert_eq!((done.code, done.out.as_str()), (Some(0), "done\n403\n"), "{done:?}");
    far.has_come("copy", Some("after\n"));
    far.world.assert_nothing_left();
}

#[test]
fn a_cut_of_more_than_a_minute_closes_the_way_out_until_the_line_is_back() {
    let far = Far::new();
    let running = far.at_work("copy", "600");
    far.line.cut(true);
    closes_and_opens(&far, running, |_| far.line.cut(false));
}

#[test]
fn a_machine_that_sleeps_closes_the_way_out_until_it_wakes() {
    let far = Far::new();
    let running = far.at_work("copy", "600");
    running.signal(Signal::STOP);
    closes_and_opens(&far, running, |running| running.signal(Signal::CONT));
}

#[test]
fn while_the_line_is_cut_nothing_leaves_the_session_after_a_minute_and_its_work_waits_for_the_line() {
    let far = Far::new();
    let running = far.at_work("copy", "80");
    assert!(!far.containers("proxy").is_empty());
    far.line.cut(true);
    let begun = Instant::now();
    until_within(Duration::from_secs(90), "the end of the way out", || {
        let sidecar = far.containers("proxy");
        if sidecar.is_empty() { Ok(()) } else { Err(sidecar) }
    });
    // The last word came at most 15 seconds before, and an engine may be busy.
    let closed = begun.elapsed();
    assert!((40..=75).contains(&closed.as_secs()), "{closed:?}");
    let done = running.wait();
    done.says(125, "the engine has not answered for 80 s; the session is given up");
    assert!(done.err.contains("does not answer: is the line cut?"), "{done:?}");
    // It is all there.
    assert!(!far.containers("agent").is_empty());
    let cleaned = far.pi(&["clean"]).env("PI_BOX_DEADLINE", "5").run();
    assert!(cleaned.code == Some(125) || cleaned.out.contains("with work that is only there"), "{cleaned:?}");
    far.line.cut(false);
    far.settled();
    far.has_come("copy", None);
    far.world.assert_nothing_left();
}

#[test]
fn a_launcher_that_is_killed_while_the_line_is_cut_loses_nothing() {
    let far = Far::new();
    let running = far.at_work("copy", "600");
    far.line.cut(true);
    for watcher in far.world.watchers() {
        kill_process(watcher, Signal::KILL).unwrap();
    }
    running.signal_group(Signal::KILL);
    running.wait();
    assert!(!far.containers("agent").is_empty());
    let refused = far.pi(&["diff"]).env("PI_BOX_DEADLINE", "3").run();
    refused.has_code(125);
    far.line.cut(false);
    // Whatever reaches the engine next.
    far.pi(&["clean"]).run().has_code(0);
    far.settled();
    far.has_come("copy", None);
    far.world.assert_nothing_left();
}

/// A number that nobody knows before.
fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    u64::from_ne_bytes(bytes) % below
}

/// `PI_TEST_CUTS=200` does this as often.
#[expect(clippy::print_stdout, reason = "how much was tried is what a run is for")]
#[test]
fn cuts_and_kills_at_random_moments_lose_nothing_and_leave_nothing() {
    let rounds = std::env::var("PI_TEST_CUTS").map_or(3, |text| text.parse().unwrap());
    let far = Far::new();
    let mut seen = [0; 4];
    for round in 0..rounds {
        let name = format!("round-{round}");
        // While it starts, or after its work.
        let running = if round % 2 == 0 { far.at_work(&name, "600") } else { far.session(&name, "600") };
        let (moment, length, kind) = (random(4000), random(3000), usize::try_from(random(4)).unwrap());
        thread::sleep(Duration::from_millis(moment));
        let (cuts, kills) = [(true, false), (false, true), (true, true), (true, true)][kind];
        far.line.cut(cuts);
        if kind == 3 {
            for watcher in far.world.watchers() {
                let _ = kill_process(watcher, Signal::KILL);
            }
        }
        if kills {
            running.signal_group(Signal::KILL);
        }
        thread::sleep(Duration::from_millis(length));
        far.line.cut(false);
        let told = format!("round {round}: kind {kind} after {moment} ms for {length} ms");
        let done = if kills { running.wait() } else { running.release() };
        if !kills {
            assert_eq!((done.code, done.out.as_str()), (Some(0), "done\n403\n"), "{told}: {done:?}");
        }
        far.pi(&["clean"]).run().has_code(0);
        far.settled();
        if done.out.contains("done") {
            // A session whose launcher is killed may still do what comes next.
            far.has_come(&name, (!kills).then_some("after\n"));
        } else if far.pi(&["ps", "--all", "--json"]).run().out.contains(&name) {
            far.pi(&["drop", &name]).run().has_code(0);
        }
        far.world.assert_nothing_left();
        seen[kind] += usize::from(done.out.contains("done"));
    }
    println!("{rounds} cuts and kills; with work, by kind: {seen:?}");
}
