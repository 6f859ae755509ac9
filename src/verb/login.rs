//! `pi login` and `pi logout`: the only ways in which a login or a key gets into the agent's directory.

mod acli;
mod list;

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use anyhow::Context as _;

pub(crate) use self::list::{list, state};
use super::another;
use crate::{
    agent::login::{LOGINS, is_provider, nearest_provider},
    agent_dir::login::{
        entry::Credential,
        store::{self, Logins},
    },
    config::Config,
    launcher::{
        Launcher, Prepared,
        place::{Place, without_keys},
    },
    purpose::{ACLI, Program, Purpose},
    report::{self, Hinted},
    scratch::Scratch,
    workspace::Workspace,
};

/// Logs in to a provider, in a session that does nothing else.
pub(crate) fn run(
    launcher: &Launcher,
    provider: Option<&str>,
    limit: Duration,
    host_network: bool,
) -> anyhow::Result<u8> {
    let is_acli = provider == Some(ACLI);
    if is_acli {
        acli::check(launcher)?;
    } else {
        provider.map_or(Ok(()), check_provider)?;
    }
    let terminal = launcher.host.terminal;
    if !terminal.stdin || !terminal.stdout {
        return Err(Hinted::error(
            "`pi login` needs a terminal: the agent shows there where to log in",
            "`pi login PROVIDER --key` reads a key from its input; keys in the environment need no login",
        ));
    }
    let Place { owner, live } = Place::of(&launcher.host)?;
    if is_acli {
        acli::make_directory(&launcher.host, owner)?;
    }
    let scratch = Scratch::new(&launcher.host, "login-")?;
    // Its name is the session's.
    let dir = scratch.path().join("login");
    std::fs::create_dir(&dir).with_context(|| format!("could not create `{}`", dir.display()))?;
    let ports = if host_network || is_acli { vec![] } else { free_ports(provider) };
    let launcher = another(launcher, launcher.options.clone(), without_keys(&launcher.host));
    let program =
        Program { purpose: Purpose::Login, words: provider.map(str::to_owned).into_iter().collect() };
    let settle = |config: Config| {
        let config = if is_acli { config.for_acli() } else { config.for_login(&ports) };
        Config { host_network, ..config }
    };
    let prepared = launcher.prepare_in(Workspace::empty(&dir, owner)?, program, settle)?;
    let prepared = Prepared { login_within: Some(limit), ..prepared };
    if host_network {
        report::warn(
            "this session shares your machine's network: until it ends, it reaches everything that this machine \
             reaches, its loopback included",
        );
    }
    report::note(format_args!(
        "this session only logs in: it ends by itself when the login is there, or after {} s",
        limit.as_secs()
    ));
    if is_acli {
        return acli::run(&launcher, &prepared);
    }
    let before = store::read(&live)?;
    let code = launcher.run(&prepared)?;
    if store::read(&live)? != before {
        return Ok(0);
    }
    report::note("no login was made, so nothing was changed");
    Ok(code.max(1))
}

/// Stores a key that the user types or pipes in.
pub(crate) fn store_key(launcher: &Launcher, provider: &str) -> anyhow::Result<u8> {
    check_provider(provider)?;
    if provider == "openai-codex" {
        return Err(Hinted::error(
            "`openai-codex` takes no key, only a login",
            "`pi login openai-codex` logs in; a key for OpenAI's API is one of `openai`",
        ));
    }
    let key = if launcher.host.terminal.stdin {
        report::ask_hidden(&format!("the key for `{provider}` (it is not shown):"), || {
            launcher.signals.check()
        })?
    } else {
        const MOST: u64 = 64 << 10;
        let mut text = String::new();
        io::stdin().lock().take(MOST).read_to_string(&mut text).context("could not read the key")?;
        text
    };
    let credential = Credential::key(key.trim()).context("that is no key")?;
    store::change(&Place::of(&launcher.host)?.live, |logins: &mut Logins| {
        logins.insert(provider.to_owned(), credential.into());
        Ok(())
    })?;
    report::note(format_args!("the key for `{provider}` is stored; sessions use it from now on"));
    Ok(0)
}

/// Removes a login or a key.
pub(crate) fn forget(launcher: &Launcher, provider: &str) -> anyhow::Result<u8> {
    if provider == ACLI {
        return acli::forget(launcher);
    }
    let live = Place::of(&launcher.host)?.live;
    store::change(&live, |logins| {
        if logins.shift_remove(provider).is_some() {
            return Ok(());
        }
        let there: Vec<_> = logins.keys().map(|name| format!("`{}`", report::one_line(name))).collect();
        let what = format!("there is no login and no key of `{}`", report::one_line(provider));
        Err(match there.as_slice() {
            [] => Hinted::error(what, "none is stored; keys in the environment are unset there"),
            there => Hinted::error(what, format!("stored are {}", there.join(", "))),
        })
    })?;
    report::note(format_args!("logged out of `{provider}`: sessions that begin from now on do without"));
    Ok(0)
}

fn check_provider(provider: &str) -> anyhow::Result<()> {
    if is_provider(provider) {
        return Ok(());
    }
    let hint = match nearest_provider(provider) {
        Some(near) => format!("did you mean `{near}`? `pi login --list` shows all"),
        None => "`pi login --list` shows all; `pi login` alone asks the agent which there are".to_owned(),
    };
    Err(Hinted::usage_hinted(format!("no provider is called `{}`", report::one_line(provider)), hint))
}

/// The ports on which the agent waits for a browser, without those that are taken.
fn free_ports(provider: Option<&str>) -> Vec<u16> {
    let wanted = LOGINS.iter().filter(|login| provider.is_none_or(|provider| provider == login.id));
    let mut free = Vec::new();
    for login in wanted {
        let Some(port) = login.port.filter(|port| !free.contains(port)) else { continue };
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => free.push(port),
            Err(_) if provider.is_none() => {}
            Err(_) => report::warn(format_args!(
                "port {port} of this machine is taken, so the browser cannot hand over the login by itself: {}",
                login.without_port
            )),
        }
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_not_published() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 1455));
        assert!(!free_ports(Some("openai-codex")).contains(&1455));
        drop(taken);
        assert!(free_ports(Some("github-copilot")).is_empty());
    }
}
