//! What an image holds, asked in throw-away sessions; and whether there is a newer agent.

use std::{
    fs,
    os::unix::fs::chown,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use signal_hook::consts::SIGTERM;

use super::{Launcher, Prepared, is_first_time};
use crate::{
    agent,
    cli::Options,
    config::{Images, Network},
    files::{read_small, replace},
    host::{Host, seconds},
    lang::Variant,
    purpose::{Program, Purpose},
    report::{self, Hinted, quietly, short},
    scratch::Scratch,
    signals::Signals,
};

/// Into this file of its repository a script writes what it found.
const ANSWER: &str = "answer";

/// The versions of what people work with, a line each.
const VERSIONS: &str = r#"{
    echo "agent $(pi --version 2>/dev/null | tail -n 1)"
    echo "Debian $(cat /etc/debian_version)"
    echo "node $(node --version | tr -d v)"
    echo "git $(git --version | cut -d' ' -f3)"
    if command -v go >/dev/null; then echo "go $(go env GOVERSION | sed s/go//)"; fi
    if command -v php >/dev/null; then echo "php $(php -r 'echo PHP_VERSION;')"; fi
} >answer 2>/dev/null"#;

/// The newest version of all, and the newest that the settings admit; or what npm complains of.
const NEWEST: &str = r#"
    ask() { timeout 60 npm view "$1" version --json 2>why | tr -d '[] "\n' | sed 's/.*,//'; }
    {
        echo "installed $(pi --version 2>/dev/null | tail -n 1)"
        echo "newest $(ask "$1")"
        echo "admitted $(ask "$1@$2")"
        echo "why $(grep -m1 -i 'err' why | head -c 300)"
    } >answer"#;

impl Launcher {
    /// Runs a script in a session of this variant's image, with a scratch repository and without the user's keys.
    fn ask_image(
        &self,
        prepared: &Prepared,
        variant: Variant,
        network: bool,
        words: &[&str],
    ) -> anyhow::Result<String> {
        let scratch = Scratch::new(&self.host, "ask-")?;
        let above = fs::canonicalize(scratch.path())?;
        let (repository, agent_dir) = (above.join("repository"), above.join("agent"));
        for dir in [&repository, &agent_dir] {
            fs::create_dir(dir).with_context(|| format!("could not create `{}`", dir.display()))?;
        }
        if self.host.uid == 0 {
            // The image is for the owner of the user's repository.
            chown(&repository, Some(prepared.who.uid), Some(prepared.who.gid))?;
        }
        let mut env = self.host.env.clone();
        env.retain(|name, _| {
            let secrets = agent::SECRETS.iter().chain(agent::CREDENTIAL_PATHS).chain(&["PI_GH_TOKEN"]);
            !secrets.into_iter().any(|secret| name == secret)
        });
        env.insert("PI_CODING_AGENT_DIR".into(), agent_dir.into());
        let asking = Self {
            options: Options {
                lang: Some(variant.lang()),
                config: self.options.config.as_ref().map(|path| self.host.cwd.join(path)),
                no_proxy: network,
                no_network: !network,
                ..Options::default()
            },
            host: Host { env, cwd: repository.clone(), ..self.host.clone() },
            signals: self.signals.share(),
        };
        let words = ["sh", "-c"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        let program = Program { purpose: Purpose::Proof, words };
        let code = quietly(|| asking.run(&asking.prepare(program)?))?;
        anyhow::ensure!(code == 0, "a session that asks the image ended with status {code}");
        Ok(read_small(&repository.join(ANSWER))?.unwrap_or_default())
    }

    /// The versions in a variant's image; empty where they cannot be learned, which stops nobody.
    pub(super) fn versions(&self, prepared: &Prepared, variant: Variant) -> Vec<(String, String)> {
        let said = self.ask_image(prepared, variant, false, &[VERSIONS]).unwrap_or_else(|error| {
            report::detail(format_args!("could not learn the versions in the image: {error:#}"));
            String::new()
        });
        pairs(&said)
    }

    /// Asks npm's registry for the newest agent, and notes what it says.
    fn ask_for_newer(&self, prepared: &Prepared) -> anyhow::Result<Newest> {
        let images = &prepared.config.images;
        let words = [NEWEST, "ask", &images.agent_package, &images.agent_version];
        let said = pairs(&self.ask_image(prepared, prepared.variant, true, &words)?);
        let value = |key: &str| {
            said.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let found = Newest {
            package: images.agent_package.clone(),
            wanted: images.agent_version.clone(),
            installed: value("installed"),
            latest: value("newest"),
            admitted: value("admitted"),
            told: seconds(SystemTime::now()),
            asked: seconds(SystemTime::now()),
        };
        if found.latest.is_empty() {
            return Err(Hinted::error(
                format!(
                    "could not ask npm's registry for `{}`: {}",
                    found.package,
                    short(match value("why").as_str() {
                        "" => "no answer",
                        why => why,
                    })
                ),
                "check the network, and the proxy or the registry that npm uses; the image stays as it is",
            ));
        }
        found.save(&self.host);
        Ok(found)
    }

    /// Tells whether there is a newer agent than the one of this image. The exit status is 0 either way.
    pub(crate) fn check_for_newer(&self, prepared: &Prepared) -> anyhow::Result<u8> {
        let found = self.ask_for_newer(prepared)?;
        let said = found.sentence().unwrap_or_else(|| format!("the agent {} is the newest", found.installed));
        report::data(said + "\n").map(|()| 0)
    }

    /// Does something, a session, and asks for a newer agent beside it when a week is over. That takes a container of its own
    /// with an open network, so only an open session does it, and only where the settings let it.
    pub(super) fn asking_beside<T>(&self, prepared: &Prepared, act: impl FnOnce() -> T) -> T {
        if !is_due(prepared, &self.host) {
            return act();
        }
        if is_first_time(&self.host, "told-of-asking") {
            report::note(
                "once a week, an open session asks npm's registry whether there is a newer agent; `check_agent = false` under \
                 `[images]` in the settings prevents that",
            );
        }
        let over = Signals::apart();
        thread::scope(|scope| {
            scope.spawn(|| {
                let begun = Instant::now();
                while begun.elapsed() < SHORT {
                    if over.check().is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                let (options, host) = (self.options.clone(), self.host.clone());
                let beside = Self { options, host, signals: over.share() };
                let asked =
                    quietly(|| beside.ask_for_newer(prepared).map(|found| Newest { told: 0, ..found }));
                match asked {
                    // Nobody has been told yet.
                    Ok(found) => found.save(&self.host),
                    Err(error) => report::detail(format_args!("{error:#}")),
                }
            });
            let outcome = act();
            over.raise(SIGTERM);
            outcome
        })
    }
}

/// Lines of a name and a value.
fn pairs(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, value)| (name.to_owned(), short(value))).collect()
}

/// Says what a renewal has changed.
pub(super) fn tell_changes(name: &str, before: &[(String, String)], after: &[(String, String)]) {
    let mut told: Vec<String> = Vec::new();
    for (what, now) in after {
        match before.iter().find(|(other, _)| other == what) {
            Some((_, then)) if then == now => {}
            Some((_, then)) => told.push(format!("{what} {then} → {now}")),
            None => told.push(format!("{what} {now}")),
        }
    }
    if told.is_empty() {
        let agent = after.iter().find(|(what, _)| what == "agent");
        told.extend(agent.map(|(_, version)| format!("agent {version} as before")));
    }
    let told = if told.is_empty() { String::new() } else { format!(": {}", told.join(", ")) };
    report::note(format_args!("renewed the image `{name}`{told}"));
}

/// What npm has said last, for one line a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Newest {
    package: String,
    wanted: String,
    installed: String,
    latest: String,
    /// The newest that the settings admit.
    admitted: String,
    /// When that was told, in seconds since 1970.
    told: u64,
    /// When npm was asked, or the image was new.
    #[serde(default)]
    asked: u64,
}

const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// A session that is over before asks nobody.
const SHORT: Duration = Duration::from_secs(5);

impl Newest {
    fn save(&self, host: &Host) {
        // Without it, nobody is reminded.
        let _ = serde_json::to_vec(self).map(|text| replace(&host.newest_agent(), &text));
    }

    /// What there is to do, if anything.
    fn sentence(&self) -> Option<String> {
        let Self { installed, latest, admitted, wanted, .. } = self;
        if is_newer(admitted, installed) {
            return Some(format!(
                "there is a newer agent, {admitted} (the image has {installed}): `pi --build` renews the image"
            ));
        }
        is_newer(latest, installed).then(|| {
            format!(
                "there is a newer agent, {latest} (the image has {installed}): to have it, set `agent_version` under \
                 `[images]`, which is \"{wanted}\""
            )
        })
    }
}

/// What npm has said last of the agent that these settings name.
fn last(images: &Images, host: &Host) -> Option<Newest> {
    let text = read_small(&host.newest_agent()).ok()??;
    let last: Newest = serde_json::from_str(&text).ok()?;
    (last.package == images.agent_package && last.wanted == images.agent_version).then_some(last)
}

/// Whether there was a newer agent when npm was asked last, and what to do then.
pub(crate) fn newer(images: &Images, host: &Host) -> Option<String> {
    last(images, host)?.sentence()
}

/// Reminds of a newer agent, once a day, from what npm has said last.
pub(super) fn remind(prepared: &Prepared, host: &Host) {
    let now = seconds(SystemTime::now());
    let Some(mut last) = last(&prepared.config.images, host) else { return };
    if now.saturating_sub(last.told) < DAY.as_secs() {
        return;
    }
    if let Some(said) = last.sentence() {
        report::note(said);
        last.told = now;
        last.save(host);
    }
}

/// Whether it is time to ask. An image of which nothing is known yet is a new one.
fn is_due(prepared: &Prepared, host: &Host) -> bool {
    let Prepared { config, program, .. } = prepared;
    let images = &config.images;
    if program.purpose != Purpose::Work || !images.check_agent || config.network != Network::Open {
        return false;
    }
    let now = seconds(SystemTime::now());
    if let Some(last) = last(images, host) {
        return now.saturating_sub(last.asked) > WEEK.as_secs();
    }
    let none = String::new;
    let (package, wanted) = (images.agent_package.clone(), images.agent_version.clone());
    let new =
        Newest { package, wanted, installed: none(), latest: none(), admitted: none(), told: 0, asked: now };
    new.save(host);
    false
}

/// Forgets what npm has said, since the image is another now.
pub(super) fn forget(host: &Host) {
    let _ = fs::remove_file(host.newest_agent());
}

/// Whether `this` is a later version than `that`; a version before a release is none.
fn is_newer(this: &str, that: &str) -> bool {
    let numbers =
        |text: &str| -> Option<Vec<u32>> { text.split('.').map(|part| part.parse().ok()).collect() };
    match (numbers(this), numbers(that)) {
        (Some(this), Some(that)) => this > that,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(installed: &str, latest: &str, admitted: &str) -> Option<String> {
        let text = |text: &str| text.to_owned();
        Newest {
            package: text("p"),
            wanted: text("0.87.1"),
            installed: text(installed),
            latest: text(latest),
            admitted: text(admitted),
            told: 0,
            asked: 0,
        }
        .sentence()
    }

    #[test]
    fn a_newer_agent_is_told_with_the_way_to_it() {
        assert_eq!(newest("0.87.1", "0.87.1", "0.87.1"), None);
        assert_eq!(newest("0.87.1", "0.9.0", "0.87.1"), None);
        assert_eq!(newest("0.87.1", "1.0.0-beta.1", "0.87.1"), None);
        assert!(newest("0.87.1", "0.100.0", "0.87.1").unwrap().contains("set `agent_version`"));
        assert!(
            newest("0.87.1", "0.100.0", "0.88.0")
                .unwrap()
                .contains("0.88.0 (the image has 0.87.1): `pi --build`")
        );
    }
}
