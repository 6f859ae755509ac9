//! A provider of models, in a container of this test program's own.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    sync::{Arc, LazyLock, Mutex},
    thread,
};

use crate::world::{
    World,
    model::{docker, source},
    wait::until_true,
};

/// It takes the keys that begin so.
pub(crate) const KEY: &str = "corp-secret-7f3a9e51c0d84b26";

pub(crate) struct Provider {
    pub(crate) address: String,
    /// Its certificate.
    pub(crate) authority: String,
    log: Arc<Mutex<String>>,
    /// The container lives as long as this pipe.
    _held: Child,
}

/// One for all tests of a program.
pub(crate) fn provider() -> &'static Provider {
    static PROVIDER: LazyLock<Provider> = LazyLock::new(Provider::start);
    &PROVIDER
}

impl Provider {
    fn start() -> Self {
        let image = World::with_model().image(&[]);
        let dir = tempfile::Builder::new().prefix("pi-provider-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let name = format!("pi-e2e-provider-{}", std::process::id());
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--interactive", "--init", "--log-driver=none", "--user=0:0"]);
        command.args(["--label=pi.e2e=provider", "--entrypoint=node", "--name", &name, "--env"]);
        command.arg(format!("KEY={KEY}"));
        for (from, to) in [
            (dir.path().to_owned(), "/world"),
            (source("tests/keys"), "/keys"),
            (source("assets/demo"), "/demo"),
        ] {
            command.arg("--mount").arg(format!("type=bind,source={},target={to}", from.display()));
        }
        command.args([&image, "/keys/provider.mjs"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut held = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, written) = (BufReader::new(held.stdout.take().unwrap()), log.clone());
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let _ = writeln!(written.lock().unwrap(), "{line}");
            }
        });
        until_true("the provider", || log.lock().unwrap().contains("ready\n"));
        let format = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
        Self {
            address: docker(&["inspect", "--format", format, &name]),
            authority: fs::read_to_string(dir.path().join("ca.pem")).unwrap(),
            log,
            _held: held,
        }
    }

    /// What it has said of somebody's logins.
    pub(crate) fn of_logins(&self, who: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let own = log
            .lines()
            .filter(|line| ["renewed ", "refused ", "login "].iter().any(|word| line.starts_with(word)));
        own.filter(|line| line.split(' ').nth(1) == Some(who)).map(str::to_owned).collect()
    }

    /// The requests with a key so far: method, path and key.
    pub(crate) fn requests(&self, key: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let requests = log.lines().filter_map(|line| line.strip_prefix("request "));
        requests.filter(|request| request.ends_with(key)).map(str::to_owned).collect()
    }
}
