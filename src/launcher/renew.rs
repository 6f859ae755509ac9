//! Renewing logins: the agent itself does it, in a short session that has this login and nothing else, while the launcher
//! holds the agent's lock. So nobody renews one twice, and everybody finds the new one.

use std::{
    cell::RefCell,
    path::Path,
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::{
    Launcher, Prepared,
    place::{Place, without_keys},
};
use crate::{
    agent::login::Login,
    agent_dir::login::{
        SOON, Token, entry,
        store::{self, Held, Logins},
        take_out,
    },
    facts::Facts,
    purpose::{Program, Purpose},
    report,
    scratch::Scratch,
    workspace::Workspace,
};

/// How often the lock is shown to be held. Some take it for left over after ten seconds.
const HOLD_ON: Duration = Duration::from_secs(3);

impl Launcher {
    /// Renews the logins that end soon, before a session. One that cannot be renewed is told by whoever looks for keys.
    ///
    /// # Errors
    /// A signal came.
    pub(crate) fn renew_before(&self) -> anyhow::Result<()> {
        let Ok(place) = Place::of(&self.host) else { return Ok(()) };
        // What cannot be read is told when the session begins.
        let logins = store::read(&place.live).unwrap_or_default();
        for provider in logins.iter().filter(|(id, entry)| is_due(id, entry, now())).map(|(id, _)| id) {
            self.signals.check()?;
            if let Err(error) = self.renew_login(provider) {
                self.signals.check()?;
                report::detail(format_args!("{error:#}"));
            }
        }
        Ok(())
    }

    /// The token of a login that ends soon, renewed, unless somebody has done so meanwhile.
    ///
    /// # Errors
    /// There is no such login any more, or it cannot be renewed.
    pub(crate) fn renew_login(&self, provider: &str) -> anyhow::Result<Token> {
        let place = Place::of(&self.host)?;
        let held = Held::take(&place.live)?;
        let mut logins = held.read()?;
        let old =
            logins.get(provider).with_context(|| format!("there is no login of `{provider}` any more"))?;
        if !is_due(provider, old, now()) {
            return Token::of(old).with_context(|| format!("the login of `{provider}` has no token"));
        }
        let new = holding_on(&held, || self.ask_agent(provider, old, &place))?;
        let Some(new) = new.get(provider).filter(|new| *new != old) else {
            bail!("the login of `{provider}` could not be renewed; `pi login {provider}` makes a new one");
        };
        let checked = entry::check(provider, new.clone())
            .with_context(|| format!("the renewed login of `{provider}` was not kept"))?;
        let token =
            Token::of(new).with_context(|| format!("the renewed login of `{provider}` has no token"))?;
        logins.insert(provider.to_owned(), checked.into());
        held.write(&logins)?;
        Ok(token)
    }

    /// Runs the agent with this login alone, and returns what it has left.
    fn ask_agent(&self, provider: &str, entry: &Value, place: &Place) -> anyhow::Result<Logins> {
        let scratch = Scratch::new(&self.host, "renew-")?;
        let dir = scratch.path().join("renew");
        std::fs::create_dir(&dir).with_context(|| format!("could not create `{}`", dir.display()))?;
        let beside = Self {
            options: self.options.clone(),
            // A login goes to no other engine.
            host: without_keys(&self.here),
            signals: self.signals.beside(),
            here: self.here.clone(),
        };
        let program = Program { purpose: Purpose::Renew, words: vec![provider.to_owned()] };
        let workspace = Workspace::empty(&dir, place.owner)?;
        let prepared = beside.prepare_in(workspace, program, |config| config.for_login(&[]))?;
        let alone = Map::from_iter([(provider.to_owned(), entry.clone())]);
        let text = serde_json::to_string(&alone)?;
        let layout = prepared.facts.layout.clone().with_logins(&text);
        let prepared = Prepared { facts: Facts { layout, ..prepared.facts }, ..prepared };
        let left = RefCell::new(Ok(Logins::new()));
        let outcome =
            beside.run_and(&prepared, Some(&|session: &Path| *left.borrow_mut() = take_out(session)));
        let left = left.into_inner()?;
        // What it has left counts, however it ended.
        if left.is_empty() {
            outcome?;
        }
        Ok(left)
    }
}

/// Does something that takes seconds, and shows meanwhile that the lock is held.
fn holding_on<T>(held: &Held, act: impl FnOnce() -> T) -> T {
    let (done, changed) = (Mutex::new(false), Condvar::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut is_done = done.lock().unwrap_or_else(PoisonError::into_inner);
            while !*is_done {
                held.hold_on();
                is_done = changed.wait_timeout(is_done, HOLD_ON).unwrap_or_else(PoisonError::into_inner).0;
            }
        });
        let outcome = act();
        *done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
        outcome
    })
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

/// Whether an entry is a login that ends soon and that the agent can renew. `now` is in milliseconds.
fn is_due(provider: &str, entry: &Value, now: u128) -> bool {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a millisecond more or less")]
    let ends_soon = |at: f64| at < (now + SOON.as_millis()) as f64;
    Login::of(provider).is_some()
        && text("type") == "oauth"
        && !text("refresh").is_empty()
        && entry.get("expires").and_then(Value::as_f64).is_some_and(ends_soon)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_login_is_due_ten_minutes_before_it_ends() {
        let login =
            |refresh: &str, expires: u64| json!({"type": "oauth", "refresh": refresh, "expires": expires});
        let due = |id: &str, entry: &Value| is_due(id, entry, 1_000_000);
        assert!(due("anthropic", &login("r", 1)) && due("anthropic", &login("r", 1_599_999)));
        assert!(!due("anthropic", &login("r", 1_600_001)));
        assert!(!due("anthropic", &login("", 1)) && !due("somebody", &login("r", 1)));
        assert!(!due("groq", &json!({"type": "api_key", "key": "k"})));
    }
}
