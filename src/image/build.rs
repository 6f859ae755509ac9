//! Builds images: pulls their bases, explains failures, and offers an older image instead.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;

use super::{DIGEST, Image, Layer, files, known::Known, progress::Progress, registry::Trouble};
use crate::{
    config::{Images, Pull},
    docker::{self, Docker},
    files::{lock_within, read_small, replace},
    host::Host,
    report::{self, Hinted},
    scratch::Scratch,
    signals::Signals,
};

/// How long to wait for another launcher's build.
const LONGEST_BUILD: Duration = Duration::from_secs(3600);

/// How long a pull of a base image may take.
const LONGEST_PULL: Duration = Duration::from_secs(3600);

/// Which layers to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// The missing ones.
    Missing,
    /// All of them anew, on the newest bases, with the newest packages and agent.
    Renew,
}

/// Builds images on one engine.
pub(crate) struct Builder<'a> {
    pub(crate) docker: &'a Docker,
    pub(crate) host: &'a Host,
    pub(crate) images: &'a Images,
    pub(crate) ca: &'a [u8],
    pub(crate) signals: &'a Signals,
    /// Layers that were renewed already: several images have the same.
    pub(crate) renewed: RefCell<BTreeSet<String>>,
    pub(crate) trouble: Trouble,
}

impl Builder<'_> {
    /// Pulls or builds what the image lacks and returns its id, or an older image's if the user accepted that. The error of a
    /// failed build has the last lines of the failing step and names the log.
    ///
    /// Two launchers at once build once: the second waits for the first.
    pub(crate) fn ensure(&self, image: &Image, effort: Effort) -> anyhow::Result<String> {
        let (id, built) = self.make(image, effort)?;
        // Nobody waits for this: the image is there.
        self.bring(&built)?;
        Ok(id)
    }

    /// The image's id, and the layers that had to be built.
    fn make<'i>(&self, image: &'i Image, effort: Effort) -> anyhow::Result<(String, Vec<&'i Layer>)> {
        let state = self.host.state_dir();
        fs::create_dir_all(&state).with_context(|| format!("could not create `{}`", state.display()))?;
        let path = state.join("build.lock");
        let lock =
            fs::File::create(&path).with_context(|| format!("could not create `{}`", path.display()))?;
        if lock.try_lock().is_err() {
            report::note("another `pi` is building an image; waiting for it");
            let begun = SystemTime::now();
            lock_within(&lock, LONGEST_BUILD, || self.signals.check())
                .with_context(|| format!("could not lock `{}`", path.display()))?;
            self.check_failed_since(begun, image)?;
        }
        if effort == Effort::Missing
            && let Some(id) = self.own(image.tag())?
        {
            return Ok((id, vec![]));
        }
        self.docker.check_fit()?;
        let mut first = 0;
        if effort == Effort::Renew {
            self.refresh(image)?;
        } else {
            // From the top: a layer that exists needs nothing below it.
            first = image.layers.len();
            while first > 0 && !self.has(&image.layers[first - 1])? {
                first -= 1;
            }
        }
        let mut built = Vec::new();
        for (n, layer) in image.layers.iter().enumerate().skip(first) {
            self.signals.check()?;
            if self.renewed.borrow().contains(&layer.tag) {
                continue;
            }
            let below = n.checked_sub(1).map(|below| image.layers[below].tag.as_str());
            if let Err(error) = self.build_on(below, layer, effort) {
                self.signals.check()?;
                // Launchers that wait for this build read it.
                let _ = replace(&self.failed(), layer.tag.as_bytes());
                return match self.previous(image) {
                    Some(tag) if effort == Effort::Missing => self.offer(&tag, error).map(|id| (id, built)),
                    _ => Err(error),
                };
            }
            built.push(layer);
            if effort == Effort::Renew {
                self.renewed.borrow_mut().insert(layer.tag.clone());
            }
        }
        let id = self.own(image.tag())?;
        Ok((id.with_context(|| format!("the image `{}` is gone already", image.tag()))?, built))
    }

    /// The id of the image with this tag, if this launcher's builds made it.
    pub(super) fn own(&self, tag: &str) -> anyhow::Result<Option<String>> {
        // Asked in any case: an engine that does not answer says so here, and not in the middle of a build.
        let found = self.docker.image_id(tag)?;
        Ok(found.filter(|id| Known::of(self.host).id(tag).as_ref() == Some(id)))
    }

    /// Whether a layer is there, or comes from the registry.
    fn has(&self, layer: &Layer) -> anyhow::Result<bool> {
        Ok(self.own(&layer.tag)?.is_some() || self.fetch(layer)?)
    }

    /// Builds a layer on the one below. Anybody can move a tag, so the lower image must be ours before and after the
    /// build.
    fn build_on(&self, below: Option<&str>, layer: &Layer, effort: Effort) -> anyhow::Result<()> {
        let is_ours = || -> anyhow::Result<()> {
            match below {
                Some(tag) if self.own(tag)?.is_none() => Err(Hinted::error(
                    format!("somebody else has moved the tag `{tag}` to another image"),
                    format!(
                        "find out who tags images on this engine; `docker image rm {tag}` removes the tag"
                    ),
                )),
                _ => Ok(()),
            }
        };
        is_ours()?;
        let id = self.build(layer, effort)?;
        is_ours()?;
        Known::of(self.host).remember(&layer.tag, &id)
    }

    /// This file names the layer whose build failed last.
    fn failed(&self) -> PathBuf {
        self.host.state_dir().join("build.failed")
    }

    /// Fails if another launcher has just failed to build this image, so that not everyone who waits repeats the build.
    fn check_failed_since(&self, begun: SystemTime, image: &Image) -> anyhow::Result<()> {
        let Ok(meta) = fs::metadata(self.failed()) else { return Ok(()) };
        let tag = read_small(&self.failed())?.unwrap_or_default();
        if meta.modified()? >= begun && image.tags().any(|own| own == tag) {
            return Err(Hinted::error(
                format!("another `pi` has just failed to build the image `{tag}`"),
                format!("the whole log is in `{}`", self.host.state_dir().join("build.log").display()),
            ));
        }
        Ok(())
    }

    /// Pulls newer base images. If a registry is unreachable, the local one will do.
    fn refresh(&self, image: &Image) -> anyhow::Result<()> {
        if self.images.pull == Pull::Missing {
            return Ok(());
        }
        for source in image.layers.iter().flat_map(|layer| &layer.sources) {
            if self.renewed.borrow().contains(source) {
                continue;
            }
            self.signals.check()?;
            let pull = docker::pull(source);
            let pulled = self.docker.foreground(
                &pull,
                Some(LONGEST_PULL),
                |child| self.signals.foreground(&child),
                report::progress,
            );
            self.signals.check()?;
            let pulled = match pulled {
                Ok(status) => status.success(),
                Err(error) => {
                    report::warn(format_args!("{error:#}"));
                    false
                }
            };
            if !pulled {
                if self.docker.image_id(source)?.is_none() {
                    return Err(Hinted::error(
                        format!("could not pull the base image `{source}`, and there is no local one"),
                        "check the network, or name a mirror under `[images]` in `~/.config/pi/config.toml`",
                    ));
                }
                report::warn(format_args!("could not pull `{source}`; using the local one"));
            }
            self.renewed.borrow_mut().insert(source.clone());
        }
        Ok(())
    }

    fn build(&self, layer: &Layer, effort: Effort) -> anyhow::Result<String> {
        let scratch = Scratch::new(self.host, "build-")?;
        let context = scratch.path().join("context");
        fs::create_dir(&context).with_context(|| format!("could not create `{}`", context.display()))?;
        for (path, bytes) in files(layer.context) {
            write_context_file(&context.join(path), bytes)?;
        }
        write_context_file(&context.join("ca.pem"), self.ca)?;
        let log_path = self.host.state_dir().join("build.log");
        let log = fs::File::create(&log_path)
            .with_context(|| format!("could not create `{}`", log_path.display()))?;
        let kept = Mutex::new((log, Vec::new()));
        let user = self.host.uid.to_string();
        let mut labels: Vec<(&str, &str)> =
            layer.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        // Users of one engine know their own by it. What goes to a registry is everybody's, and says what it is made of.
        labels.push(match self.images.registry {
            None => ("pi.user", &user),
            Some(_) => (DIGEST, &layer.digest),
        });
        let id = scratch.path().join("id");
        let build = docker::build(&layer.tag, &id, &context, &layer.args, &labels, effort == Effort::Renew);
        report::note(format_args!("building the image `{}`", layer.tag));
        let progress = Progress::of(&layer.tag, self.host.draws_on_stderr());
        let status = self.docker.foreground(
            &build,
            None,
            |child| self.signals.foreground(&child),
            |bytes| {
                progress.take(bytes);
                if let Ok(mut kept) = kept.lock() {
                    // Docker itself reports a full disk.
                    let _ = kept.0.write_all(bytes);
                    kept.1.extend_from_slice(bytes);
                    let surplus = kept.1.len().saturating_sub(16_384);
                    kept.1.drain(..surplus);
                }
            },
        )?;
        drop(progress);
        if status.success() {
            let id = read_small(&id)?.context("docker did not say which image it built")?;
            // Some engines list an image by another digest than the builder names: then the new tag tells.
            let id = match self.docker.image_id(id.trim())? {
                Some(id) => Some(id),
                None => self.docker.image_id(&layer.tag)?,
            };
            return id.with_context(|| format!("the image `{}` is gone already", layer.tag));
        }
        let tail = kept.into_inner().map(|kept| kept.1).unwrap_or_default();
        let output = String::from_utf8_lossy(&tail);
        Err(docker::build_failure(&layer.tag, layer.sources.first(), &output, &log_path))
    }

    /// The newest image of the same kind from before a change.
    fn previous(&self, image: &Image) -> Option<String> {
        let list = docker::list_images(&format!("{}:*", image.tag().split(':').next()?), None);
        let kind = image.kind();
        let variant = image.tag().rsplit_once('-').map_or("", |(name, _)| name);
        let tags = self.docker.try_run(&list).ok()?;
        tags.lines()
            .filter(|tag| *tag != image.tag() && tag.starts_with(variant))
            .find(|tag| {
                self.own(tag).is_ok_and(|own| own.is_some())
                    && self
                        .docker
                        .try_run(&docker::image_label(tag, "pi.image"))
                        .is_ok_and(|label| label == kind)
            })
            .map(str::to_owned)
    }

    fn previous_id(&self, tag: &str) -> anyhow::Result<String> {
        self.own(tag)?.with_context(|| format!("the image `{tag}` is gone already"))
    }

    fn offer(&self, tag: &str, error: anyhow::Error) -> anyhow::Result<String> {
        let Host { terminal, .. } = self.host;
        if self.host.var("PI_BOX_PREVIOUS_IMAGE").is_some() {
            report::warn(format_args!("{error:#}"));
            report::warn(format_args!("using the previous image `{tag}`, as `PI_BOX_PREVIOUS_IMAGE` says"));
            return self.previous_id(tag);
        }
        if !(terminal.stdin && terminal.stderr) {
            return Err(error.context(format!(
                "the image could not be rebuilt (`PI_BOX_PREVIOUS_IMAGE=1` would use the previous one, `{tag}`)"
            )));
        }
        report::warn(format_args!("{error:#}"));
        if report::ask(&format!(
            "The previous image `{tag}` is still there, built from older files. Use it? [y/N] "
        )) {
            self.previous_id(tag)
        } else {
            Err(error)
        }
    }
}

fn write_context_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("could not create `{}`", parent.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("could not write `{}`", path.display()))?;
    // Docker's cache compares modes, so they must not depend on the user's umask.
    let mode = if bytes.starts_with(b"#!") { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("could not write `{}`", path.display()))
}
