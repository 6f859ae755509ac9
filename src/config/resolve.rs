//! The one resolver.

use anyhow::{Context as _, bail};
use toml::Spanned;

use super::{
    COPY, CPUS, Config, Disk, GitAccess, Images, Keys, Limits, MOST_PUBLISHED, MinFree, MountSpec, Network,
    OpenUrls, Pattern, Patterns, Published, Pull, WipeAuth, defaults,
    file::{Cpus, ImagesLayer, Layer, Values},
    subagents, usage,
    value::{PROCESSORS, copy_name, processes, room, runtime, session_name, size},
};
use crate::{
    agent_dir::entry::Persist, broker::github::Repository, cli::Options, host::Host, inside::Access,
    lang::Lang, report::Hinted,
};

/// The one resolver: the command line wins over the repository, the repository over the user, the user over the
/// defaults.
pub(super) fn resolve(
    options: &Options,
    host: &Host,
    project: Option<Lang>,
    user: Layer,
) -> anyhow::Result<Config> {
    let base = defaults();
    let limits = limits(options, host, &user, &base)?;
    let disk = match &options.disk {
        Some(typed) => Some(usage(room(typed))?),
        None => user.disk.or(base.disk),
    };
    let network = network(options, user.proxy.or(base.proxy).unwrap_or_default())?;
    let (allowed_domains, allowed_domains_is_default) = match (&options.allowed_domains, user.allowed_domains)
    {
        (Some(path), _) => (host.cwd.join(path), false),
        (None, Some(path)) if !path.get_ref().is_empty() => (host.expand(path.get_ref()), false),
        _ => (host.home.join(".agents/proxy_allowed_domains.txt"), true),
    };
    let mut mounts = values(user.mounts, base.mounts);
    for text in &options.mount {
        let text = text.to_str().with_context(|| format!("the mount `{}` is not UTF-8", text.display()))?;
        mounts.push(text.to_owned());
    }
    let mut env = values(user.env, base.env);
    for text in &options.env {
        env.push(text.to_str().context("a value of `--env` is not UTF-8")?.to_owned());
    }
    let images = images(user.images, base.images, host);
    Ok(Config {
        lang: options.lang.or(project).or(user.lang).or(base.lang).unwrap_or(Lang::Auto),
        network,
        strict: user.strict.or(base.strict).unwrap_or_default(),
        allowed_domains,
        allowed_domains_is_default,
        allow: options.allow.clone(),
        lan: values(user.lan, base.lan),
        learns: options.learn,
        dns: values(user.dns, base.dns),
        mounts: mounts.iter().map(|text| MountSpec::parse(text, host)).collect::<anyhow::Result<_>>()?,
        env,
        publish: published(&options.publish)?,
        packages: values(user.packages, base.packages),
        disk: Disk::of(disk.as_deref(), &limits),
        min_free: user.min_free.or(base.min_free).unwrap_or(MinFree::Usual),
        limits,
        runtime: match &options.runtime {
            Some(typed) => Some(usage(runtime(typed)).map(|()| typed.clone())?),
            None => Some(text(user.runtime, base.runtime)).filter(|name| !name.is_empty()),
        },
        persist: persist(user.persist),
        github: values(user.github, base.github).iter().filter_map(|text| Repository::parse(text)).collect(),
        github_token: user.github_token.or(base.github_token).unwrap_or_default(),
        github_push: !options.no_push && user.github_push.or(base.github_push).unwrap_or(true),
        keys: if options.no_keys { Keys::None } else { user.keys.or(base.keys).unwrap_or_default() },
        subagents: subagents::resolve(user.subagents, base.subagents),
        git: user.git.or(base.git).unwrap_or(GitAccess::Private),
        wipe_auth: user.wipe_auth.or(base.wipe_auth).unwrap_or(WipeAuth::Never),
        open_urls: user.open_urls.or(base.open_urls).unwrap_or(OpenUrls::Never),
        hide: user.hide.map(|list| patterns(Some(list))),
        copy_ignored: patterns(user.copy_ignored),
        clone: clone(options)?,
        on: user.on.or(base.on).filter(|name| !name.is_empty()),
        docker: user.docker.filter(|name| !name.is_empty()).or(base.docker).unwrap_or_default(),
        session_name: options.session_name.as_deref().map(session_name).transpose()?,
        acli: images.acli.is_some().then_some(Access::ReadOnly),
        host_network: false,
        images,
    })
}

/// The network that the options ask for; `proxy` is the setting.
fn network(options: &Options, proxy: bool) -> anyhow::Result<Network> {
    let listed = options.allowed_domains.is_some() || !options.allow.is_empty() || options.learn;
    let network = if options.no_network {
        Network::None
    } else if !options.no_proxy && (options.proxy || listed || proxy) {
        Network::Proxy
    } else {
        Network::Open
    };
    if network == Network::None && !options.publish.is_empty() {
        bail!(Hinted::usage("`--publish` needs a network, and `--no-network` gives none; `--proxy` has one"));
    }
    Ok(network)
}

/// The published ports, each once.
fn published(typed: &[Published]) -> anyhow::Result<Vec<Published>> {
    let mut all: Vec<Published> = vec![];
    for one in typed {
        match all.iter().find(|other| other.host == one.host) {
            Some(other) if other == one => {}
            Some(other) => bail!(Hinted::usage(format!(
                "`--publish {other}` and `--publish {one}` want the same port of this machine"
            ))),
            None => all.push(*one),
        }
    }
    if all.len() > MOST_PUBLISHED {
        bail!(Hinted::usage(format!("`--publish` takes at most {MOST_PUBLISHED} ports")));
    }
    Ok(all)
}

/// The limits of the agent's container.
fn limits(options: &Options, host: &Host, user: &Layer, base: &Layer) -> anyhow::Result<Limits> {
    let memory = match &options.memory {
        Some(typed) => Some(usage(size(typed))?),
        None => user.memory.as_ref().or(base.memory.as_ref()).cloned(),
    };
    let cpus = match options.cpus {
        Some(typed) if typed == 0.0 || PROCESSORS.contains(&typed) => typed,
        Some(typed) => bail!(Hinted::usage(format!("`--cpus {typed}` is not a number of processors"))),
        None => match user.cpus.or(base.cpus) {
            Some(Cpus(Some(n))) => n,
            #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
            Some(Cpus(None)) | None => host.cpus.min(usize::from(CPUS)) as f64,
        },
    };
    let pids = match options.pids {
        Some(typed) => usage(processes(typed)).map(|()| Some(typed))?,
        None => user.pids.as_ref().or(base.pids.as_ref()).map(|n| *n.get_ref()),
    };
    Ok(Limits {
        memory: memory.filter(|size| size != "0"),
        cpus: Some(cpus).filter(|n| *n > 0.0),
        pids: pids.filter(|n| *n > 0),
    })
}

fn images(user: ImagesLayer, base: ImagesLayer, host: &Host) -> Images {
    let ca_certificates = text(user.ca_certificates, base.ca_certificates);
    let registry = text(user.registry, base.registry);
    Images {
        base: text(user.base, base.base),
        go: text(user.go, base.go),
        proxy: text(user.proxy, base.proxy),
        php_apt: text(user.php_apt, base.php_apt),
        agent_package: text(user.agent_package, base.agent_package),
        agent_version: text(user.agent_version, base.agent_version),
        acli: user.acli.or(base.acli).and_then(|acli| acli.0),
        ca_certificates: (!ca_certificates.is_empty()).then(|| host.expand(&ca_certificates)),
        check_agent: user.check_agent.or(base.check_agent).unwrap_or(true),
        pull: user.pull.or(base.pull).unwrap_or(Pull::Always),
        registry: (!registry.is_empty()).then_some(registry),
    }
}

fn values(user: Values, base: Values) -> Vec<String> {
    user.or(base).into_iter().flatten().map(Spanned::into_inner).collect()
}

fn text(user: Option<Spanned<String>>, base: Option<Spanned<String>>) -> String {
    user.or(base).map(Spanned::into_inner).unwrap_or_default()
}

/// The file's reader has refused what cannot be one of these.
fn persist(user: Values) -> Vec<Persist> {
    let mut all: Vec<Persist> = values(user, None).iter().flat_map(|name| Persist::parse(name)).collect();
    all.sort();
    all.dedup();
    all
}

/// The same.
fn patterns(list: Values) -> Patterns {
    Patterns::new(values(list, None).iter().flat_map(|text| Pattern::parse(text)).collect())
}

/// What `--clone` asks for; a name of a session serves for the copy, too.
fn clone(options: &Options) -> anyhow::Result<Option<String>> {
    let Some(typed) = &options.clone else { return Ok(None) };
    let name = if typed.is_empty() { options.session_name.as_deref() } else { Some(typed.as_str()) };
    copy_name(name.unwrap_or(COPY)).map(Some)
}
