//! A prepared session, from its first docker command to what is told at its end.

use std::{cell::Cell, path::Path};

use super::{Launcher, Prepared, git, inspect};
use crate::{
    agent_dir::{laid::Place, login::store},
    config::{Access, WipeAuth},
    host::Owner,
    image::build::Effort,
    plan::{Choices, Mount, Reach},
    purpose::Purpose,
    record::{self, SessionId},
    report,
    session::{self, Needs, Renewal, Sweep},
    written::{Written, real},
};

impl Launcher {
    /// Runs a session from beginning to end.
    pub(crate) fn run(&self, prepared: &Prepared) -> anyhow::Result<u8> {
        self.run_and(prepared, None)
    }

    /// The same, and does something with the session's directory when its agent has ended.
    pub(super) fn run_and(
        &self,
        prepared: &Prepared,
        afterwards: Option<&dyn Fn(&Path)>,
    ) -> anyhow::Result<u8> {
        let id = SessionId::random()?;
        let choices = prepared.choices(prepared.naming().plain(), &self.host);
        self.carry(prepared, afterwards, &id, &choices, |needs| session::run(needs, &id, &choices))
    }

    /// Carries a session, which `session` begins or comes back to.
    pub(super) fn carry(
        &self,
        prepared: &Prepared,
        afterwards: Option<&dyn Fn(&Path)>,
        id: &SessionId,
        choices: &Choices,
        session: impl FnOnce(&Needs<'_>) -> anyhow::Result<u8>,
    ) -> anyhow::Result<u8> {
        let docker = self.docker(prepared)?;
        if self.options.build {
            self.renew_for_session(prepared, &docker.heeding(&self.signals))?;
        }
        if prepared.program.purpose == Purpose::Work {
            inspect::remind(prepared, &self.host);
        }
        self.signals.check()?;
        let naming = prepared.naming();
        session::bring_in(&prepared.workspace.root, &docker.heeding(&self.signals), &self.host);
        self.signals.check()?;
        let git = git::given(self, prepared, id)?;
        // The demo's repository is removed afterwards.
        if !matches!(prepared.program.purpose, Purpose::Demo | Purpose::Proof) {
            let plan = self.plan(prepared, &git, id, choices)?;
            let own = [plan.state.clone(), real(&plan.state)];
            let is_lasting = |path: &&Path| !own.iter().any(|own| path.starts_with(own));
            let writable = plan.agent.mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
            // Its own files are gone with the session.
            let back = plan.away.iter().flat_map(|away| &away.sent);
            let back = back.filter(|sent| sent.access == Access::ReadWrite).map(|sent| sent.source.as_path());
            let paths = writable.filter_map(Mount::path).chain(back).filter(is_lasting);
            Written::remember(&self.host, paths)?;
        }
        if let Reach::Proxy(_, sources) = &prepared.reach {
            sources.provide_file(&prepared.config)?;
        }
        let asking = docker.heeding(&self.signals);
        let builder = self.builder(prepared, &asking);
        let opener = (prepared.program.purpose == Purpose::Login)
            .then(|| session::opener(&Written::load(&self.host).and_around(&self.host), &self.host));
        let opener = opener.flatten();
        let renew = |provider: &str| self.renew_login(provider);
        let words = self.words(prepared);
        let lives_on = Cell::new(false);
        let needs = Needs {
            host: &self.host,
            docker: &docker,
            signals: &self.signals,
            plan: &|choices| self.plan(prepared, &git, id, choices),
            lay_out: &|name| {
                let place = Place {
                    session: &real(&record::directory(&self.host, id)),
                    live: &prepared.facts.agent_dir,
                    root: &prepared.workspace.root,
                    owner: self.other_owner(prepared),
                };
                session::lay_out(&prepared.facts, place, &git, name)
            },
            owner: self.other_owner(prepared),
            copy: None,
            git: git.git(),
            agent_image: &|| builder.ensure(&prepared.image, Effort::Missing),
            sidecar_image: &|| builder.ensure(&prepared.proxy, Effort::Missing),
            naming: &naming,
            min_free: prepared.config.min_free,
            sources: match &prepared.reach {
                Reach::Proxy(_, sources) => Some(sources),
                _ => None,
            },
            list: self.options.allowed_domains.as_deref(),
            login_within: prepared.login_within,
            renewal: prepared
                .facts
                .keys
                .broker
                .as_ref()
                .filter(|broker| broker.routes.iter().any(|route| route.expires.is_some()))
                .map(|broker| Renewal { broker, renew: &renew }),
            upstream: prepared.facts.keys.broker.as_ref().and_then(|broker| broker.upstream.as_ref()),
            afterwards,
            opener: opener.as_deref(),
            root: &prepared.workspace.root,
            words: words.as_deref(),
            lives_on: &lives_on,
        };
        let sweep = Sweep::start(&self.host, &docker);
        let outcome = self.asking_beside(prepared, || match &prepared.cloning {
            None => session(&needs),
            Some(cloning) => cloning.run(self, prepared, &docker, &lives_on, |ready| {
                session(&Needs { copy: Some(ready), ..needs })
            }),
        });
        sweep.settle(&self.signals);
        if !prepared.program.purpose.is_bare() {
            self.wipe(prepared.config.wipe_auth, &prepared.facts.agent_dir);
        }
        outcome
    }

    /// Who the agent is, where it is not who we are.
    fn other_owner(&self, prepared: &Prepared) -> Option<Owner> {
        (self.host.uid == 0 && prepared.who.uid != 0).then_some(prepared.who)
    }

    /// Removes logins where the settings say so and no other session needs them.
    fn wipe(&self, what: WipeAuth, live: &Path) {
        let wiped = match what {
            WipeAuth::Never => return,
            // Not even a dead one, whose agent may still run.
            _ if record::all(&self.host).is_ok_and(|(live, dead)| !live.is_empty() || !dead.is_empty()) => {
                return;
            }
            what => store::wipe(live, what == WipeAuth::All),
        };
        match wiped {
            Ok(0) => {}
            Ok(1) => report::note("removed 1 login from `auth.json`, as `wipe_auth` says"),
            Ok(count) => {
                report::note(format_args!("removed {count} entries from `auth.json`, as `wipe_auth` says"));
            }
            Err(error) => report::warn(format_args!("could not remove the logins: {error:#}")),
        }
    }
}
