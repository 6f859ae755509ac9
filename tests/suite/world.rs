//! The world of a test: a home, a repository and a state directory of its own, and an engine, faked or real.

pub(crate) mod call;
pub(crate) mod disk;
pub(crate) mod fake;
pub(crate) mod files;
pub(crate) mod images;
pub(crate) mod internet;
pub(crate) mod model;
pub(crate) mod ollama;
pub(crate) mod terminal;
pub(crate) mod wait;

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use rustix::process::Pid;
use serde_json::Value;
use tempfile::TempDir;

use call::{Call, Outcome};
use fake::Fake;
use files::{Who, children, make_dir, myself, own, somebody, write, write_program};
use model::{docker, model, settings, source};
use wait::{processes, until};

/// A user with a home and one repository, who has never started `pi` before.
pub(crate) struct World {
    root: PathBuf,
    repo: PathBuf,
    engine: Engine,
    runs: AtomicU32,
    /// What [`Self::label`] has found.
    label: OnceLock<String>,
    // Dropped last: everything above lies in it.
    _dir: TempDir,
}

enum Engine {
    /// A script that takes notes.
    Fake(Fake),
    /// The machine's own, with the settings that `tests/setup` wrote.
    Real,
}

impl World {
    /// A world whose `docker` is a script, and where the user has named the places of settings and records.
    pub(crate) fn fake() -> Self {
        Self::new(somebody(), "repo", |root| Engine::Fake(Fake::install(root)))
    }

    /// A world on the real engine, with settings and records where they are by default.
    pub(crate) fn real() -> Self {
        let world = Self::new(somebody(), "repo", |_| Engine::Real);
        world.configure("");
        world.prepare(myself(), &["--allow", "allowed.test"]);
        world
    }

    /// A world on the real engine, with the scripted model and the image of the base variant.
    pub(crate) fn with_model() -> Self {
        let world = Self::of(somebody(), "repo");
        world.prepare(myself(), &[]);
        world
    }

    /// The same of any owner, with any name for the repository, and without having seen to the image.
    pub(crate) fn of(owner: Who, repository: &str) -> Self {
        let world = Self::new(owner, &format!("home/projects/{repository}"), |_| Engine::Real);
        world.configure("");
        let models = fs::read_to_string(source("assets/demo/models.json")).unwrap();
        let models = models
            .replace("{{BASE_URL}}", &format!("http://{}:8080/v1", model().address))
            .replace("{ \"id\": \"slow\" }", "{ \"id\": \"slow\" }, { \"id\": \"unknown\" }");
        write(world.agent_dir().join("models.json"), &models);
        let person =
            "[user]\n\tname = Test Person\n\temail = person@example.com\n[init]\n\tdefaultBranch = main\n";
        write(world.home().join(".gitconfig"), person);
        world.git(&world.repo, &["init", "--quiet"]);
        world
    }

    fn new(owner: Who, repository: &str, engine: impl FnOnce(&Path) -> Engine) -> Self {
        let dir = tempfile::Builder::new().prefix("pi-test-").tempdir().unwrap();
        // Other users of a test have to come by here.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        own(dir.path(), owner);
        let root = fs::canonicalize(dir.path()).unwrap();
        for part in ["home", "config", "state", "tmp", "runs"] {
            make_dir(&root.join(part));
        }
        let (engine, repo) = (engine(&root), root.join(repository));
        let (runs, label) = (AtomicU32::new(0), OnceLock::new());
        let world = Self { root, repo, engine, runs, label, _dir: dir };
        world.repository(repository);
        world.know_images();
        world
    }

    /// Makes one more repository, as `git init` would lay it out.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        let repo = self.root.join(name);
        for part in [".git/objects/info", ".git/objects/pack", ".git/refs/heads"] {
            make_dir(&repo.join(part));
        }
        write(repo.join(".git/HEAD"), "ref: refs/heads/main\n");
        let config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n";
        write(repo.join(".git/config"), config);
        repo
    }

    /// The directory that holds all of this world.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    pub(crate) fn repo(&self) -> &Path {
        &self.repo
    }

    /// Whose home and repository it is.
    pub(crate) fn owner(&self) -> Who {
        files::owner_of(&self.home())
    }

    pub(crate) fn agent_dir(&self) -> PathBuf {
        self.home().join(".pi/agent")
    }

    /// The user's settings, where `pi` looks for them when it is not told.
    pub(crate) fn config_file(&self) -> PathBuf {
        match self.engine {
            Engine::Fake(_) => self.root.join("config/pi/config.toml"),
            Engine::Real => self.home().join(".config/pi/config.toml"),
        }
    }

    /// Writes the user's settings; on a real engine those of this machine follow.
    pub(crate) fn configure(&self, text: &str) {
        match self.engine {
            Engine::Fake(_) => write(self.config_file(), text),
            Engine::Real => write(self.config_file(), format!("{text}\n{}", settings())),
        }
    }

    /// The faked engine.
    pub(crate) fn docker(&self) -> &Fake {
        match &self.engine {
            Engine::Fake(fake) => fake,
            Engine::Real => panic!("this world has a real engine"),
        }
    }

    /// A call of any program, with this world's environment and nothing else.
    pub(crate) fn call(&self, program: impl AsRef<OsStr>) -> Call<'_> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let call = Call::new(self, program)
            .env("HOME", self.home())
            .env("TMPDIR", self.root.join("tmp"))
            .env("TERM", "xterm-256color")
            .env("PATH", path);
        // The contexts of `tests/on`.
        let call = match std::env::var_os("PI_TEST_DOCKER_CONFIG") {
            Some(settings) => call.env("DOCKER_CONFIG", settings),
            None => call,
        };
        match (&self.engine, std::env::var_os("DOCKER_HOST")) {
            (Engine::Fake(fake), _) => call
                .env("XDG_CONFIG_HOME", self.root.join("config"))
                .env("XDG_STATE_HOME", self.root.join("state"))
                .path_first(&fake.bin())
                .env("DOCKER_HOST", fake.address())
                // A model that needs no key.
                .env("LLAMA_BASE_URL", "http://192.0.2.1:8080"),
            (Engine::Real, Some(engine)) => call.env("DOCKER_HOST", engine),
            (Engine::Real, None) => call,
        }
    }

    /// `pi` with these words, standing in the repository.
    pub(crate) fn pi(&self, words: &[&str]) -> Call<'_> {
        self.call(env!("CARGO_BIN_EXE_pi")).args(words)
    }

    /// Runs that to its end.
    pub(crate) fn run_pi(&self, words: &[&str]) -> Outcome {
        self.pi(words).run()
    }

    /// `pi shell -- sh -c SCRIPT`, with launcher options before it.
    pub(crate) fn shell(&self, options: &[&str], script: &str) -> Call<'_> {
        self.pi(&[options, &["shell", "--", "sh", "-c", script]].concat())
    }

    /// A shell script, on this side of the wall.
    pub(crate) fn script(&self, text: &str) -> Call<'_> {
        let path = self.root.join("session.sh");
        write(&path, text);
        self.call("sh").args(&[path])
    }

    /// A program that another user runs, who may use the engine's socket.
    fn by(&self, who: Who, program: &Path) -> Call<'_> {
        if who == myself() {
            return self.call(program);
        }
        let engine =
            std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let group = fs::metadata(engine.trim_start_matches("unix://")).unwrap().gid();
        let Who { uid, gid } = who;
        let user = [format!("--reuid={uid}"), format!("--regid={gid}"), format!("--groups={group}")];
        self.call("setpriv").args(&user).args(&[Path::new("--"), program])
    }

    /// `pi` by another user.
    pub(crate) fn pi_by(&self, who: Who, words: &[&str]) -> Call<'_> {
        if who == myself() {
            return self.pi(words);
        }
        // The build directory may lie where only its owner can look.
        let program = self.root.join("pi");
        if !program.exists() {
            write_program(&program, fs::read(env!("CARGO_BIN_EXE_pi")).unwrap());
        }
        self.by(who, &program).args(words)
    }

    /// A program that the owner runs.
    pub(crate) fn as_owner(&self, program: &str) -> Call<'_> {
        self.by(self.owner(), program.as_ref())
    }

    /// Runs the host's git as the owner and returns what it printed.
    #[track_caller]
    pub(crate) fn git(&self, dir: &Path, words: &[&str]) -> String {
        let outcome = self.by(self.owner(), "git".as_ref()).args(words).cwd(dir).run();
        assert_eq!(outcome.code, Some(0), "git {words:?}: {outcome:?}");
        outcome.out
    }

    /// The plan that `pi` would carry out with these words, as data.
    pub(crate) fn plan(&self, words: &[&str]) -> Value {
        let outcome = self.run_pi(&[&["--dry-run=json", "--quiet"], words].concat());
        outcome.has_code(0);
        serde_json::from_str(&outcome.out).unwrap()
    }

    /// The name of the agent's image in such a plan.
    pub(crate) fn image(&self, words: &[&str]) -> String {
        self.plan(words)["agent"]["image"].as_str().unwrap().to_owned()
    }

    /// What `pi` remembers on this machine.
    pub(crate) fn state(&self) -> PathBuf {
        // Only the machine's own name is not known before a program has run.
        static MACHINE: OnceLock<OsString> = OnceLock::new();
        let machine = MACHINE.get_or_init(|| {
            let session = PathBuf::from(self.plan(&[])["state"].as_str().unwrap());
            session.ancestors().nth(2).and_then(Path::file_name).unwrap().to_owned()
        });
        self.states().join(machine)
    }

    /// What it remembers on all machines that share the home.
    pub(crate) fn states(&self) -> PathBuf {
        match self.engine {
            Engine::Fake(_) => self.root.join("state/pi"),
            Engine::Real => self.home().join(".local/state/pi"),
        }
    }

    /// The directories of sessions, dead or alive.
    pub(crate) fn sessions(&self) -> Vec<PathBuf> {
        let sessions = children(&self.states()).into_iter().map(|machine| machine.join("sessions"));
        sessions.flat_map(|sessions| children(&sessions)).filter(|path| path.is_dir()).collect()
    }

    /// Waits until exactly one session has a directory, and returns it.
    pub(crate) fn session(&self) -> PathBuf {
        until("a session's directory", || match self.sessions().as_slice() {
            [one] => Ok(one.clone()),
            other => Err(other.to_vec()),
        })
    }

    /// Processes that keep watch over sessions of this world.
    pub(crate) fn watchers(&self) -> Vec<Pid> {
        let states = self.states();
        processes(|words| {
            words.iter().any(|word| word == "__watch")
                && words.iter().any(|word| Path::new(word).starts_with(&states))
        })
    }

    /// Names for files of a run that is to come.
    fn new_files(&self, kinds: [&str; 2]) -> [PathBuf; 2] {
        let n = self.runs.fetch_add(1, Ordering::SeqCst);
        kinds.map(|kind| self.root.join(format!("runs/{n}.{kind}")))
    }

    /// Asserts that no session of this world has left anything: object, directory, temporary file or process.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let (left, calls) =
            (self.left(), matches!(self.engine, Engine::Fake(_)).then(|| self.docker().kinds()));
        assert!(left.is_empty(), "left: {left:#?}\nfake docker: {calls:#?}");
    }

    fn left(&self) -> Vec<String> {
        let files = self.sessions().into_iter().chain(children(&self.root.join("tmp")));
        let mut left: Vec<String> = files.map(|path| path.display().to_string()).collect();
        let states = self.states().display().to_string();
        let processes = processes(|words| words.iter().any(|word| word.contains(&states)));
        left.extend(processes.iter().map(|pid| format!("process {}", pid.as_raw_nonzero())));
        match &self.engine {
            Engine::Fake(fake) => left.extend(fake.objects()),
            // Caches outlive sessions on purpose.
            Engine::Real => left.extend(
                self.labelled()
                    .filter(|[_, name]| !name.starts_with("pi-cache-"))
                    .map(|object| object.join(" ")),
            ),
        }
        left
    }

    /// The value of the label `pi.state` of all that this world's sessions make on an engine.
    pub(crate) fn label(&self) -> &str {
        let ask = || self.plan(&[])["agent"]["labels"]["pi.state"].as_str().unwrap().to_owned();
        self.label.get_or_init(ask)
    }

    /// What the real engine has with this world's label: the kind and the name.
    fn labelled(&self) -> impl Iterator<Item = [String; 2]> {
        let label = format!("label=pi.state={}", self.label());
        let lists: [&[&str]; 3] = [
            &["container", "ls", "--all", "--format={{.Names}}"],
            &["network", "ls", "--format={{.Name}}"],
            &["volume", "ls", "--format={{.Name}}"],
        ];
        lists.into_iter().flat_map(move |list| {
            let names = docker(&[list, &["--filter", &label]].concat());
            let names: Vec<String> = names.lines().map(str::to_owned).collect();
            names.into_iter().map(|name| [list[0].to_owned(), name])
        })
    }

    /// What a test that failed half-way has left would only disturb others.
    fn take_down(&self) {
        for [kind, name] in self.labelled() {
            let force: &[&str] = if kind == "network" { &[] } else { &["--force"] };
            docker(&[&[&*kind, "rm"], force, &[&name]].concat());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if matches!(self.engine, Engine::Fake(_)) {
            return;
        }
        if thread::panicking() {
            let _ = catch_unwind(AssertUnwindSafe(|| self.take_down()));
            return;
        }
        let cleaned = self.run_pi(&["clean", "--caches"]);
        cleaned.has_code(0);
        assert!(!cleaned.out.contains("session `"), "a session was left: {cleaned:?}");
        // The second process of a session ends just after the first.
        until("nothing to be left", || {
            let left = self.left();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        assert_eq!(self.labelled().count(), 0, "a cache is left");
    }
}
