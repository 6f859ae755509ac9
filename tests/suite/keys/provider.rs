//! A provider of models, in a container of this test program's own.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::LazyLock};

use crate::world::{
    World,
    files::{myself, write},
    model::{Held, source},
};

/// It takes the keys that begin so.
pub(crate) const KEY: &str = "corp-secret-7f3a9e51c0d84b26";

pub(crate) struct Provider {
    pub(crate) address: String,
    /// Its certificate.
    pub(crate) authority: String,
    held: Held,
}

/// One for all tests of a program.
pub(crate) fn provider() -> &'static Provider {
    static PROVIDER: LazyLock<Provider> = LazyLock::new(Provider::start);
    &PROVIDER
}

/// A world whose resolver knows the provider by all of its names.
pub(crate) fn with_provider(settings: &str) -> (World, &'static Provider) {
    let (world, provider) = (World::with_model(), provider());
    world.prepare(myself(), &["--allow", "any.test"]);
    world.configure(&format!("dns = [\"{}\"]\n{settings}", provider.address));
    write(world.root().join("ca.pem"), &provider.authority);
    (world, provider)
}

impl Provider {
    fn start() -> Self {
        let image = World::with_model().image(&[]);
        let dir = tempfile::Builder::new().prefix("pi-provider-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let (keys, demo) = (source("tests/keys"), source("assets/demo"));
        let mounts = [(dir.path(), "/world"), (&keys, "/keys"), (&demo, "/demo")];
        let options = ["--user=0:0", "--env", &format!("KEY={KEY}")];
        let held = Held::start("provider", &image, &options, &mounts, &["/keys/provider.mjs"]);
        let held = held.that_says("ready\n");
        let authority = fs::read_to_string(dir.path().join("ca.pem")).unwrap();
        Self { address: held.address(), authority, held }
    }

    /// What it has said of somebody's logins.
    pub(crate) fn of_logins(&self, who: &str) -> Vec<String> {
        let log = self.held.log();
        let own = log
            .lines()
            .filter(|line| ["renewed ", "refused ", "login "].iter().any(|word| line.starts_with(word)));
        own.filter(|line| line.split(' ').nth(1) == Some(who)).map(str::to_owned).collect()
    }

    /// The requests with a key so far: method, path and key.
    pub(crate) fn requests(&self, key: &str) -> Vec<String> {
        let log = self.held.log();
        let requests = log.lines().filter_map(|line| line.strip_prefix("request "));
        requests.filter(|request| request.ends_with(key)).map(str::to_owned).collect()
    }
}
