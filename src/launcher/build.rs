//! Building and renewing the images of a session.

use std::{cell::RefCell, time::Duration};

use super::{Launcher, Prepared, inspect};
use crate::{
    docker::Docker,
    image::{
        Image,
        build::{Builder, Effort},
        known::Known,
        registry::Trouble,
        sbom::{Listed, SCRIPT, document},
    },
    lang::Variant,
    plan::{Reach, contents, copier_file},
    report,
    scratch::Scratch,
    session::write_file,
};

impl Launcher {
    /// Renews the images of a session. Where that fails, the session has those of before.
    pub(super) fn renew_for_session(&self, prepared: &Prepared, docker: &Docker) -> anyhow::Result<()> {
        let mut images = vec![(Some(prepared.variant), &prepared.image)];
        images.extend(matches!(prepared.reach, Reach::Proxy(..)).then_some((None, &prepared.proxy)));
        let builder = self.builder(prepared, docker);
        for (variant, image) in images {
            let Err(error) = self.renew(prepared, &builder, variant, image) else { continue };
            self.signals.check()?;
            if Known::of(&self.host).id(image.tag()).is_none() {
                return Err(error);
            }
            report::warn(format_args!("{error:#}"));
            report::warn(format_args!("the session has the image `{}` as it was before", image.tag()));
        }
        Ok(())
    }

    /// Renews one image, and says what has changed in it.
    fn renew(
        &self,
        prepared: &Prepared,
        builder: &Builder<'_>,
        variant: Option<Variant>,
        image: &Image,
    ) -> anyhow::Result<()> {
        let exists = Known::of(&self.host).id(image.tag()).is_some();
        let versions = || variant.map(|variant| self.versions(prepared, variant)).unwrap_or_default();
        let before = if exists { versions() } else { vec![] };
        builder.ensure(image, Effort::Renew)?;
        inspect::tell_changes(image.tag(), &before, &versions());
        inspect::forget(&self.host);
        Ok(())
    }

    /// Builds or renews this repository's image and the sidecar's, or those of every variant. One that fails does not
    /// keep the others from being built.
    pub(crate) fn build(
        &self,
        prepared: &Prepared,
        docker: &Docker,
        all: bool,
        effort: Effort,
    ) -> anyhow::Result<()> {
        let builder = self.builder(prepared, docker);
        let mut failed = Vec::new();
        for (variant, image) in images(prepared, all) {
            let outcome = match effort {
                Effort::Missing => builder.ensure(&image, effort).map(drop),
                Effort::Renew => self.renew(prepared, &builder, variant, &image),
            };
            self.signals.check()?;
            if let Err(error) = outcome {
                failed.push((image.tag().to_owned(), error));
            }
        }
        match failed.len() {
            0 => Ok(()),
            1 => Err(failed.remove(0).1),
            _ => {
                for (_, error) in &failed {
                    report::tell(error);
                }
                let names: Vec<_> = failed.iter().map(|(name, _)| format!("`{name}`")).collect();
                anyhow::bail!("could not build {}", names.join(", "))
            }
        }
    }

    /// Lists what is in this repository's image and in the sidecar's, or in all images, which are there.
    pub(crate) fn sbom(&self, prepared: &Prepared, docker: &Docker, all: bool) -> anyhow::Result<String> {
        let builder = self.builder(prepared, docker);
        let scratch = Scratch::new(&self.host, "contents-")?;
        write_file(&copier_file(scratch.path()))?;
        let mut listed = Vec::new();
        for (_, image) in images(prepared, all) {
            let id = builder.ensure(&image, Effort::Missing)?;
            let runtime = prepared.config.runtime.as_deref();
            let container =
                contents(&id, SCRIPT, runtime, scratch.path(), &prepared.workspace.root, &self.host)?;
            let said = docker.answer(&container, LONGEST_LOOK)?;
            self.signals.check()?;
            listed.push(Listed { tag: image.tag().to_owned(), id, said });
        }
        document(&listed)
    }

    /// A builder for this machine.
    pub(crate) fn builder<'a>(&'a self, prepared: &'a Prepared, docker: &'a Docker) -> Builder<'a> {
        Builder {
            docker,
            host: &self.host,
            images: &prepared.config.images,
            ca: &prepared.ca,
            signals: &self.signals,
            renewed: RefCell::default(),
            trouble: Trouble::default(),
        }
    }
}

/// How long a look into an image may take.
const LONGEST_LOOK: Duration = Duration::from_secs(300);

/// This repository's image and the sidecar's, or those of every variant.
fn images(prepared: &Prepared, all: bool) -> impl Iterator<Item = (Option<Variant>, Image)> {
    let Prepared { config, who, ca, proxy, variant, .. } = prepared;
    let wanted = Variant::ALL.into_iter().filter(move |one| all || one == variant);
    let agent = |variant| Image::agent(variant, &config.images, &config.packages, *who, ca);
    wanted.map(move |variant| (Some(variant), agent(variant))).chain([(None, proxy.clone())])
}
