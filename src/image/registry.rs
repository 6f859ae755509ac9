//! The registry of the user's own: images that were built once are pulled by other engines.
//!
//! Whatever it does not do is a warning, once: an image can always be built here.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use super::{DIGEST, Layer, build::Builder, known::Known};
use crate::{
    docker::{self, Cmd, Described, Refusal},
    report::{self, Finding},
};

/// How long an image may take on its way.
const LONGEST: Duration = Duration::from_secs(1800);

/// What has gone wrong with the registry so far.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    standing: Cell<Standing>,
    /// Layers which are there, and are not what their names say.
    foreign: RefCell<BTreeSet<String>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Fine,
    /// It gives nothing to this login, or to none. It may still take something.
    Closed,
    /// Nobody asks it again.
    Off,
}

/// How a transfer ended.
enum Moved {
    Yes,
    No { why: Refusal, said: String },
}

impl Builder<'_> {
    /// Pulls a layer, and says whether it is there now. Nothing is used but what says that it was made of the same things for
    /// the same kind of machine.
    ///
    /// # Errors
    /// The engine does not answer, or a signal came.
    pub(super) fn fetch(&self, layer: &Layer) -> anyhow::Result<bool> {
        let standing = &self.trouble.standing;
        let Some(registry) = self.registry().filter(|_| standing.get() == Standing::Fine) else {
            return Ok(false);
        };
        let architecture = self.docker.architecture()?;
        let name = remote(registry, &layer.tag, &architecture);
        let note = || report::note(format_args!("pulling the image `{}` from `{registry}`", layer.tag));
        if let Moved::No { why, said } = self.transfer(&docker::pull(&name), note)? {
            if why != Refusal::Absent {
                standing.set(if why == Refusal::Login { Standing::Closed } else { Standing::Off });
                Finding::hinted(format!("could not pull `{name}`: {said}"), next(why, registry)).warn();
            }
            return Ok(false);
        }
        let found = self.docker.described(&name)?;
        let wrong = layer.mismatch(&found, &architecture);
        if wrong.is_none() {
            self.docker.run(&docker::tag(&found.id, &layer.tag))?;
            Known::of(self.host).remember(&layer.tag, &found.id)?;
        }
        self.drop_name(&name);
        let Some(wrong) = wrong else { return Ok(true) };
        self.trouble.foreign.borrow_mut().insert(layer.tag.clone());
        Finding::hinted(
            format!("`{name}` is not what its name says, and not used: {wrong}"),
            format!("find out who pushes to `{registry}`; `pi --build build` replaces what is there"),
        )
        .warn();
        Ok(false)
    }

    /// Pushes layers that were built just now.
    ///
    /// # Errors
    /// A signal came.
    pub(super) fn bring(&self, built: &[&Layer]) -> anyhow::Result<()> {
        let Some(registry) = self.registry() else { return Ok(()) };
        for layer in built {
            // What somebody else has put there stays until the user has looked at it.
            let is_foreign = self.trouble.foreign.borrow().contains(&layer.tag);
            if self.trouble.standing.get() == Standing::Off || is_foreign {
                continue;
            }
            if let Err(error) = self.bring_one(layer, registry) {
                self.signals.check()?;
                report::warn(format_args!("`{}` was not pushed: {error:#}", layer.tag));
            }
        }
        Ok(())
    }

    fn bring_one(&self, layer: &Layer, registry: &str) -> anyhow::Result<()> {
        let Some(id) = self.own(&layer.tag)? else { return Ok(()) };
        // With `DOCKER_DEFAULT_PLATFORM`, an engine builds for other machines than its own.
        let name = remote(registry, &layer.tag, &self.docker.described(&id)?.architecture);
        self.docker.run(&docker::tag(&id, &name))?;
        report::note(format_args!("pushing the image `{}` to `{registry}`", layer.tag));
        let moved = self.transfer(&docker::push(&name), || {});
        self.drop_name(&name);
        if let Moved::No { why, said } = moved? {
            let what = format!("could not push `{name}`, so other engines have to build it: {said}");
            // Where the pull was refused, that was told.
            if self.trouble.standing.replace(Standing::Off) == Standing::Fine {
                Finding::hinted(what, next(why, registry)).warn();
            } else {
                report::detail(what);
            }
        }
        Ok(())
    }

    fn registry(&self) -> Option<&str> {
        self.images.registry.as_deref()
    }

    /// Takes the registry's name from an image; ours keeps it.
    fn drop_name(&self, name: &str) {
        if let Err(error) = self.docker.run(&docker::remove_image(name)) {
            report::detail(format_args!("{error:#}"));
        }
    }

    /// Pulls or pushes. `begun` is called when an image is found there.
    fn transfer(&self, cmd: &Cmd, begun: impl Fn() + Send + Sync) -> anyhow::Result<Moved> {
        let kept = Mutex::new(Vec::new());
        let (heard, silence) = mpsc::channel::<()>();
        let patience = self.docker.patience();
        let was_silent = AtomicBool::new(false);
        let outcome = thread::scope(|scope| {
            let (was_silent, silence) = (&was_silent, silence);
            let outcome = self.docker.foreground(
                cmd,
                Some(LONGEST),
                |child| {
                    self.signals.foreground(&child);
                    scope.spawn(move || {
                        if silence.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                            was_silent.store(true, Ordering::SeqCst);
                            let _ = child.kill();
                        }
                    });
                },
                |bytes| {
                    if report::is_verbose() {
                        report::progress(bytes);
                    }
                    let Ok(mut kept) = kept.lock() else { return };
                    let _ = heard.send(());
                    // Docker writes a line in parts.
                    let was_found = docker::is_found(&String::from_utf8_lossy(&kept));
                    kept.extend_from_slice(bytes);
                    if !was_found && docker::is_found(&String::from_utf8_lossy(&kept)) {
                        begun();
                    }
                },
            );
            drop(heard);
            outcome
        });
        self.signals.check()?;
        let kept = kept.into_inner().unwrap_or_default();
        let (why, said) = match outcome {
            Ok(status) if status.success() => return Ok(Moved::Yes),
            _ if was_silent.load(Ordering::SeqCst) => {
                (Refusal::Other, format!("there was no answer within {} s", patience.as_secs_f32()))
            }
            Ok(_) => {
                let said = String::from_utf8_lossy(&kept);
                (Refusal::read(&said), report::short(docker::complaint(&said)))
            }
            Err(error) => (Refusal::Other, format!("{error:#}")),
        };
        Ok(Moved::No { why, said })
    }
}

impl Layer {
    /// What an image says of itself that it would not if it was this layer.
    fn mismatch(&self, found: &Described, architecture: &str) -> Option<String> {
        if found.architecture != architecture {
            return Some(format!(
                "it is for {}, and the engine's machine is {architecture}",
                report::short(&found.architecture)
            ));
        }
        let expected = self.labels.iter().map(|(name, value)| (*name, value.as_str()));
        let wrong = expected
            .chain([(DIGEST, self.digest.as_str())])
            .find(|(name, value)| found.label(name) != *value);
        wrong.map(|(name, value)| {
            format!("its label `{name}` is `{}` in place of `{value}`", report::short(found.label(name)))
        })
    }
}

/// The name of an image in the registry: with the architecture, for there is one image for each.
fn remote(registry: &str, tag: &str, architecture: &str) -> String {
    format!("{registry}/{tag}-{architecture}")
}

/// What to do about a refusal.
fn next(why: Refusal, registry: &str) -> String {
    let host = registry.split('/').next().unwrap_or(registry);
    match why {
        Refusal::Login => format!("log in with `docker login {host}`, with a login that may pull and push there"),
        Refusal::Plain => {
            format!("give it TLS, or name `{host}` under `insecure-registries` in the engine's `daemon.json`")
        }
        Refusal::Untrusted => format!(
            "put the certificate of who vouches for it into `/etc/docker/certs.d/{host}/ca.crt` on the engine's machine"
        ),
        Refusal::Absent | Refusal::Other => {
            "until it works, images are built here; see the registry, or `registry` under `[images]` in the settings".to_owned()
        }
    }
}
