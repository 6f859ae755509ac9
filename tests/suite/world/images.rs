//! Images: each is built once in a run of the tests, and `pi` is told of it in every world.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{LazyLock, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Engine, World,
    files::{Who, children, myself, own, write},
    model::home_of_tests,
};

/// How long an image may take to build, PHP's and Go's included.
pub(crate) const BUILD: Duration = Duration::from_secs(540);

/// The images that were built so far: by `tests/run`, or by an earlier test.
static BUILT: LazyLock<Mutex<Value>> = LazyLock::new(|| {
    let machines = children(&home_of_tests("XDG_STATE_HOME", ".local/state").join("pi"));
    let known = machines.iter().find_map(|machine| fs::read(machine.join("images.json")).ok());
    Mutex::new(known.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
});

/// Adds what `more` has to `to`, object by object.
fn merge(to: &mut Value, more: Value) {
    match (to, more) {
        (Value::Object(to), Value::Object(more)) => {
            for (key, value) in more {
                merge(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (to, more) => *to = more,
    }
}

impl World {
    /// Tells `pi` of images that were built before: each test would build its own again.
    pub(super) fn know_images(&self) {
        match &self.engine {
            Engine::Fake(_) => {
                // Every such world has the same.
                static TAGS: OnceLock<[String; 3]> = OnceLock::new();
                self.knows(TAGS.get_or_init(|| self.tags()).clone());
            }
            Engine::Real => {
                let built = BUILT.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if !built.is_null() {
                    write(self.images(), built.to_string());
                }
            }
        }
    }

    /// The images of a session, of its sidecar, and of a demonstration, whose repository belongs to whoever runs it.
    fn tags(&self) -> [String; 3] {
        let own_one = self.repository("own");
        own(&own_one, myself());
        let demo = self.pi(&["--dry-run=json", "--quiet"]).cwd(&own_one).run().out;
        fs::remove_dir_all(own_one).unwrap();
        let demo: Value = serde_json::from_str(&demo).unwrap();
        let sidecar = self.plan(&["--proxy"])["sidecar"]["image"].clone();
        let [sidecar, demo] =
            [sidecar, demo["agent"]["image"].clone()].map(|tag| tag.as_str().unwrap().to_owned());
        [self.image(&[]), sidecar, demo]
    }

    /// Gives the faked engine images that were built from here.
    pub(crate) fn knows(&self, tags: impl IntoIterator<Item = String>) {
        let fake = self.docker();
        let ids = tags.into_iter().map(|tag| (tag.clone(), fake.has_image(&tag).into()));
        let known = json!({ fake.address(): ids.collect::<serde_json::Map<_, _>>() });
        write(self.images(), known.to_string());
    }

    /// Makes it a machine on which no image was built.
    pub(crate) fn forget_images(&self) {
        fs::remove_file(self.images()).unwrap();
    }

    /// Where `pi` remembers its images.
    fn images(&self) -> PathBuf {
        self.state().join("images.json")
    }

    /// Makes an image exist, so that what follows is a session alone; each one once in a run of the tests.
    pub(crate) fn prepare(&self, launcher: Who, options: &[&str]) {
        static DONE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let what = format!("{launcher:?} {:?} {options:?}", self.owner());
        let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
        if !done.contains(&what) {
            let words = [options, &["shell", "--", "true"]].concat();
            self.pi_by(launcher, &words).limit(BUILD).run().has_code(0);
            let text = fs::read_to_string(self.images()).unwrap();
            let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
            merge(&mut built, serde_json::from_str(&text).unwrap());
            done.insert(what);
        }
        drop(done);
        self.know_images();
    }
}
