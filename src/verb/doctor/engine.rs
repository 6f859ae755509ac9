//! The engine, and the images on it.

use std::time::Duration;

use super::Line;
use crate::{
    config::Config,
    docker::{About, Docker},
    host::Owner,
    image::{self, Image, known::Known},
    lang::Variant,
    launcher::{Launcher, inspect},
};

/// An engine that does not answer within this time hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The engine's version and abilities, and whether the images are built for this user.
pub(super) fn look(launcher: &Launcher, config: &Config, who: Owner, docker: &Docker) -> Vec<Line> {
    let docker = docker.clone().within(PATIENCE);
    let address = docker.address().to_owned();
    let mut lines = vec![Line::fine("engine", format!("`{}` at `{address}`", docker.program().display()))];
    match docker.check_fit().and_then(|()| docker.about()) {
        Err(error) => {
            let next = format!(
                "start the engine that listens at `{address}`, or choose another with `docker context use`"
            );
            lines.push(Line::failed("engine", &error, &next));
            return lines;
        }
        Ok(about) => lines.extend(abilities(&about)),
    }
    lines.extend(images(launcher, config, who, &docker));
    lines
}

fn abilities(about: &About) -> Vec<Line> {
    let mut lines = vec![match about.release() {
        Some(release) if release < (20, 10) => Line::wrong(
            "engine",
            format!("Docker {} is too old", about.version),
            "install Docker Engine 20.10 or newer",
        ),
        _ => Line::fine(
            "engine",
            format!(
                "Docker {}, {} {}, {} processors, {} GiB memory, cgroup v{}, {}, data in `{}`",
                about.version,
                about.operating_system,
                about.architecture,
                about.cpus,
                about.mem_total >> 30,
                if about.cgroup_version.is_empty() { "1" } else { &about.cgroup_version },
                about.driver,
                about.docker_root_dir
            ),
        ),
    }];
    let missing = about.missing_limits();
    lines.push(if missing.is_empty() {
        Line::fine("engine", "memory, processors and processes can be limited")
    } else {
        Line::note(
            "engine",
            format!("it cannot limit: {}", missing.join(", ")),
            "enable those cgroup controllers for the engine (for a rootless one: `Delegate=` in systemd); until then an agent can use up the machine",
        )
    });
    if about.has("rootless") {
        lines.push(Line::fine("engine", "rootless: root of its containers is you"));
    }
    if !about.has("seccomp") {
        lines.push(Line::wrong(
            "engine",
            "it has no seccomp, without which no session starts",
            "use a kernel and an engine with seccomp",
        ));
    }
    lines
}

fn images(launcher: &Launcher, config: &Config, who: Owner, docker: &Docker) -> Vec<Line> {
    let ca = match image::certificates(&config.images) {
        Ok(ca) => ca,
        Err(error) => {
            return vec![Line::failed("images", &error, "correct `ca_certificates` in the settings")];
        }
    };
    let known = Known::of(&launcher.host);
    let all = Variant::ALL
        .map(|variant| (variant.name(), Image::agent(variant, &config.images, &config.packages, who, &ca)))
        .into_iter()
        .chain([("sidecar", Image::proxy(&config.images, &ca))]);
    let ages = docker.image_ages(&["pi-agent", "pi-proxy"]).unwrap_or_default();
    let mut lines = vec![agent(launcher, config)];
    let mut missing = Vec::new();
    for (name, image) in all {
        match known.id(image.tag()).and_then(|id| ages.get(&id)) {
            Some(age) => lines.push(built(name, age)),
            None => missing.push(name),
        }
    }
    if let Some(registry) = &config.images.registry {
        lines.push(Line::fine(
            "images",
            format!("kept in `{registry}`: a missing one is pulled from there, or built and pushed"),
        ));
    }
    if !missing.is_empty() {
        let how = if config.images.registry.is_some() { "pulls or builds" } else { "builds" };
        lines.push(Line::note(
            "images",
            format!("not here yet: {}", missing.join(", ")),
            format!("the first session that needs one {how} it; `pi build --all` {how} them now"),
        ));
    }
    lines
}

/// The agent's version, and a newer one if npm has named one.
fn agent(launcher: &Launcher, config: &Config) -> Line {
    let wanted = format!("agent {} {}", config.images.agent_package, config.images.agent_version);
    match inspect::newer(&config.images, &launcher.host) {
        Some(newer) => Line::note("images", wanted, newer),
        None => Line::fine("images", wanted + "; `pi build --check` asks npm's registry for a newer one"),
    }
}

/// An image and its age in the engine's words, which count months from the second one on.
fn built(name: &str, age: &str) -> Line {
    let what = format!("{name}: built {age}");
    if age.contains("month") || age.contains("year") {
        return Line::note(
            "images",
            format!("{what}, so security updates since then are not in it"),
            "`pi --build build --all` renews all images",
        );
    }
    Line::fine("images", what)
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    fn worst(info: &str) -> Vec<String> {
        let about: About = serde_json::from_str(info).unwrap();
        abilities(&about).into_iter().filter(|line| line.state != State::Fine).map(|line| line.what).collect()
    }

    #[test]
    fn an_image_that_is_months_old_is_to_be_renewed() {
        assert_eq!(built("base", "5 weeks ago").state, State::Fine);
        assert_eq!(built("base", "About a minute ago").state, State::Fine);
        assert_eq!(built("base", "2 months ago").state, State::Note);
    }

    #[test]
    fn an_engine_that_cannot_do_its_part_is_named() {
        let good = r#"{"ServerVersion":"28.5.2","SecurityOptions":["name=seccomp,profile=builtin"]}"#;
        assert_eq!(worst(good), Vec::<String>::new());
        let old = r#"{"ServerVersion":"19.03.1","SecurityOptions":["name=seccomp"]}"#;
        assert_eq!(worst(old), ["Docker 19.03.1 is too old"]);
        let weak = r#"{"ServerVersion":"28.5.2","PidsLimit":false,"SecurityOptions":["name=userns"]}"#;
        assert_eq!(
            worst(weak),
            ["it cannot limit: processes", "it has no seccomp, without which no session starts"]
        );
    }
}
