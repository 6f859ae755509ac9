//! Attempts, and sessions whose agent makes them.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use super::script::Script;
use crate::world::{
    World,
    call::{Call, Outcome, Running},
    files::write,
    internet::{RESOLVER, internet},
    model::docker,
    wait::until,
};

/// An attempt, and what must become of it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The session in which it must succeed, and the outcome there if it is not an arrival.
    pub(crate) control: String,
    pub(crate) expected: String,
    pub(crate) how: String,
}

/// Reads `NAME | CONTROL | EXPECTED | HOW`.
pub(crate) fn cases(text: &str) -> Vec<Case> {
    let all: Vec<Case> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let parts: Vec<&str> = line.splitn(4, " | ").collect();
            let [name, control, expected, how] = parts[..] else { panic!("no case: {line}") };
            let [name, control, expected, how] = [name, control, expected, how].map(str::to_owned);
            Case { name, control, expected, how }
        })
        .collect();
    for (n, case) in all.iter().enumerate() {
        assert!(all[..n].iter().all(|other| other.name != case.name), "twice: {}", case.name);
    }
    all
}

impl Case {
    /// An attempt without a control, of which whoever makes it knows what must become.
    pub(crate) fn bare(name: &str, how: &str) -> Self {
        Self { name: name.to_owned(), control: "-".to_owned(), expected: String::new(), how: how.to_owned() }
    }

    pub(super) fn wants_control(&self) -> bool {
        !(self.control == "-" || self.control == "own" || self.control.starts_with("none: "))
    }

    /// The name of its control, and the outcome there.
    pub(super) fn control(&self) -> (&str, Option<&str>) {
        match self.control.split_once('=') {
            Some((name, outcome)) => (name, Some(outcome)),
            None => (&self.control, None),
        }
    }
}

const CLOSED: &str = "timeout silent ENETUNREACH EHOSTUNREACH EADDRNOTAVAIL EACCES EPERM ENODEV EINVAL";

pub(super) fn is(outcome: &str, expected: &str) -> bool {
    expected.split('/').any(|one| match one {
        "closed" | "residue" => CLOSED.split(' ').any(|closed| closed == outcome),
        "ok" => outcome == "ok" || outcome.starts_with("ok "),
        one => outcome == one,
    })
}

/// What became of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) token: String,
    pub(crate) outcome: String,
    pub(crate) arrivals: Vec<String>,
    pub(crate) milliseconds: u64,
}

/// A running session whose agent makes attempts.
pub(crate) struct Session<'a> {
    world: &'a World,
    tag: String,
    rounds: Cell<u32>,
    pub(crate) id: String,
    pub(crate) running: Option<Running>,
    pub(crate) names: BTreeMap<String, String>,
}

/// What an agent of these tests runs.
const AGENT: [&str; 4] = ["shell", "--", "sh", "agent.sh"];

impl<'a> Session<'a> {
    /// A real one.
    pub(crate) fn start(world: &'a World, options: &[&str]) -> Self {
        Self::start_with(world, options, |call| call)
    }

    /// The same, with something more about the launcher.
    pub(crate) fn start_with(
        world: &'a World,
        options: &[&str],
        more: impl FnOnce(Call<'a>) -> Call<'a>,
    ) -> Self {
        prepare(world);
        let running = more(world.pi(&[options, &AGENT].concat())).start();
        let id = world.session().file_name().unwrap().to_str().unwrap().to_owned();
        Self::attached(world, id, running)
    }

    /// What `pi --dry-run` would do, changed.
    pub(crate) fn changed(world: &'a World, options: &[&str], change: impl FnOnce(&mut Script)) -> Self {
        prepare(world);
        let mut script = Script::of(world, options, &AGENT);
        change(&mut script);
        let running = script.start(world);
        Self::attached(world, script.id, running)
    }

    fn attached(world: &'a World, id: String, running: Running) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("s{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        until("the agent", || {
            if world.repo().join("up").exists() { Ok(()) } else { Err((running.out(), running.err())) }
        });
        let mut session =
            Self { world, tag, rounds: Cell::new(0), id, running: Some(running), names: BTreeMap::new() };
        session.names = session.names();
        session
    }

    /// What stands for what in a case.
    fn names(&self) -> BTreeMap<String, String> {
        let internet = internet();
        let agent = addresses(&format!("pi-{}", self.id));
        let sidecar = addresses(&format!("pi-{}-proxy", self.id));
        let own = format!("pi-{}", self.id);
        let of = |all: &BTreeMap<String, Ipv4Addr>, name: &str| all.get(name).copied();
        let base = of(&sidecar, &own).map_or(0, u32::from) & !7;
        let inner = of(&agent, &own);
        let gateway = if inner.is_some() { Ipv4Addr::from(base + 1) } else { internet.bridge };
        let mut names: BTreeMap<String, String> = [
            ("gateway", gateway),
            ("broadcast", Ipv4Addr::from(base + 7)),
            ("bridge", internet.bridge),
            ("bridge_broadcast", Ipv4Addr::from(u32::from(internet.bridge) | 0xffff)),
            ("uplink", internet.uplink),
            ("victim", internet.victim),
            ("agent", inner.unwrap_or(internet.bridge)),
            ("sidecar", of(&sidecar, &own).unwrap_or(internet.bridge)),
            ("own_outer", of(&sidecar, "bridge").unwrap_or(internet.bridge)),
        ]
        .map(|(name, address)| (name.to_owned(), address.to_string()))
        .into();
        names.insert("resolver".to_owned(), RESOLVER.to_owned());
        names.insert("bridge6".to_owned(), internet.link_local(&own));
        names
    }

    /// Has the agent make attempts, all at once.
    pub(crate) fn attempt(&self, cases: &[Case]) -> BTreeMap<String, Seen> {
        let round = self.rounds.get() + 1;
        self.rounds.set(round);
        let mut text = String::new();
        let token = |n: usize| format!("{}-{round}-{n}", self.tag);
        for (n, case) in cases.iter().enumerate() {
            let how = self
                .named(&case.how)
                .replace("{leak}", &format!("{}x", token(n)))
                .replace("{token}", &token(n));
            let words = match how.split_once(' ').unwrap() {
                (kind @ ("raw" | "head" | "shell"), rest) => format!("{kind}\t{rest}"),
                (kind, rest) => format!("{kind}\t{}", rest.replace(' ', "\t")),
            };
            let _ = writeln!(text, "{}\t{}\t{words}", case.name, token(n));
        }
        let repo = self.world.repo();
        let next = repo.join("next");
        write(&next, &text);
        fs::rename(next, repo.join(format!("cases.{round}"))).unwrap();
        let results = repo.join(format!("results.{round}"));
        let said = until("the agent's results", || {
            fs::read_to_string(&results).map_err(|_| {
                let so_far = fs::read_to_string(repo.join(format!("out.{round}")));
                (so_far, self.running.as_ref().map(|running| (running.out(), running.err())))
            })
        });
        let outcomes: BTreeMap<&str, (&str, u64)> = said
            .lines()
            .filter_map(|line| {
                let parts: Vec<&str> = line.split('\t').collect();
                let [name, outcome, time] = parts[..] else { return None };
                Some((name, (outcome, time.parse().unwrap())))
            })
            .collect();
        assert!(said.ends_with("done\n") && outcomes.len() == cases.len(), "{said}");
        // What was sent last may still be on its way to the log.
        thread::sleep(Duration::from_millis(50));
        cases
            .iter()
            .enumerate()
            .map(|(n, case)| {
                let (outcome, milliseconds) = outcomes[case.name.as_str()];
                let arrivals = internet().arrivals(&token(n));
                (
                    case.name.clone(),
                    Seen { token: token(n), outcome: outcome.to_owned(), arrivals, milliseconds },
                )
            })
            .collect()
    }

    /// One attempt, made now.
    pub(crate) fn one(&self, how: &str) -> Seen {
        self.attempt(&[Case::bare("one", how)]).remove("one").unwrap()
    }

    pub(crate) fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.names {
            text = text.replace(&format!("{{{name}}}"), value);
            text = text.replace(&format!("{{at {name}}}"), &at(value));
        }
        text
    }

    pub(crate) fn sidecar(&self) -> String {
        format!("pi-{}-proxy", self.id)
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Lets the agent end.
    pub(crate) fn end(self) -> Outcome {
        self.end_with("")
    }

    /// The same, with a status of its own.
    pub(crate) fn end_with(mut self, status: &str) -> Outcome {
        let (next, end) = (self.world.repo().join("next"), self.world.repo().join("end"));
        write(&next, status);
        fs::rename(next, end).unwrap();
        self.running.take().unwrap().wait()
    }

    /// Asks the launcher to stop.
    pub(crate) fn stop(mut self) -> Outcome {
        let running = self.running.take().unwrap();
        running.signal(Signal::TERM);
        running.wait()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // A test that failed half-way: the agent ends by itself, and all the rest with it.
        if let Some(running) = self.running.take() {
            write(self.world.repo().join("end"), "");
            if !thread::panicking() {
                running.wait();
            }
        }
    }
}

/// A name that leads to an address.
pub(crate) fn at(address: &str) -> String {
    format!("a-{}", address.replace('.', "-"))
}

/// A container's address on each of its networks.
pub(crate) fn addresses(container: &str) -> BTreeMap<String, Ipv4Addr> {
    let text = docker(&["inspect", "--format", "{{json .NetworkSettings.Networks}}", container]);
    let all: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    all.into_iter().filter_map(|(name, one)| Some((name, one["IPAddress"].as_str()?.parse().ok()?))).collect()
}

/// Puts into the repository what the agent runs.
pub(crate) fn prepare(world: &World) {
    let repo = world.repo();
    for (name, text) in [
        ("agent.sh", include_str!("../../network/agent.sh")),
        ("attempts.pl", include_str!("../../network/attempts.pl")),
        ("internet.mjs", include_str!("../../network/internet.mjs")),
        ("ca.pem", &internet().authority),
    ] {
        write(repo.join(name), text);
    }
}

/// Only those that want this control.
pub(crate) fn wanting(cases: &[Case], control: &str) -> Vec<Case> {
    cases.iter().filter(|case| case.wants_control() && case.control().0 == control).cloned().collect()
}
