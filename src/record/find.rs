//! Finds the session for a verb: by name, by id, or by the current directory.

use std::path::Path;

use super::Live;
use crate::{host::Host, report::Hinted};

/// The only running session with this name, or with an id that begins like this.
pub(crate) fn find(host: &Host, name: &str) -> anyhow::Result<Live> {
    let live = super::live(host)?;
    match named(&live, name).as_slice() {
        [one] => Ok((*one).clone()),
        [] if !named(&super::lost(host), name).is_empty() => {
            Err(Hinted::error(format!("the session `{name}` has lost its launcher"), super::what_next(name)))
        }
        [] => Err(Hinted::error(format!("no session `{name}` is running"), "`pi ps` lists them")),
        several => Err(Hinted::error(
            format!("{} sessions are named `{name}`", several.len()),
            format!("say which by id, as in `{}`; `pi ps` lists them", several[0].record.id.as_str()),
        )),
    }
}

/// The sessions with this name; where there is none, those with an id that begins like this.
pub(super) fn named<'a>(all: &'a [Live], name: &str) -> Vec<&'a Live> {
    let exact: Vec<_> = all.iter().filter(|session| session.record.name == name).collect();
    if !exact.is_empty() || name.len() < 4 {
        return exact;
    }
    all.iter().filter(|session| session.record.id.as_str().starts_with(name)).collect()
}

/// The restricted session with this name. Without a name, the only one of this repository.
pub(crate) fn restricted(host: &Host, name: Option<&str>) -> anyhow::Result<Option<Live>> {
    if let Some(name) = name {
        let session = find(host, name)?;
        if session.record.allowlist.is_none() {
            anyhow::bail!("the session `{name}` has no restricted network");
        }
        return Ok(Some(session));
    }
    let live = super::live(host)?;
    let all: Vec<Live> = live.into_iter().filter(|session| session.record.allowlist.is_some()).collect();
    choose(&all, &host.cwd)
}

fn choose(all: &[Live], cwd: &Path) -> anyhow::Result<Option<Live>> {
    let around = |session: &&Live| cwd.starts_with(&session.record.repository);
    // Repositories may be nested; only the innermost counts.
    let depth = |session: &Live| session.record.repository.components().count();
    let innermost = all.iter().filter(around).map(depth).max();
    let here: Vec<&Live> =
        all.iter().filter(around).filter(|session| Some(depth(session)) == innermost).collect();
    let unclear = |what: String, one: &Live| {
        let hint = format!("say which with `--session {}`; `pi ps` lists them", one.record.id.as_str());
        Err(Hinted::error(what, hint))
    };
    match (here.as_slice(), all) {
        ([one], _) => Ok(Some((*one).clone())),
        // Elsewhere: it is named, since the verbs change what it may reach.
        ([], [one]) => {
            unclear("the only restricted session that is running is of another repository".to_owned(), one)
        }
        ([], []) => Ok(None),
        ([first, ..], _) => {
            unclear(format!("{} restricted sessions of this repository are running", here.len()), first)
        }
        ([], [first, ..]) => {
            unclear(format!("{} restricted sessions are running, none of this repository", all.len()), first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Record, SessionId},
        *,
    };

    fn live(id: &str, repository: &str) -> Live {
        let record = Record {
            name: id.to_owned(),
            repository: repository.into(),
            ..Record::for_tests(SessionId::parse(&id.repeat(16)).unwrap())
        };
        Live { record, dir: "/s".into() }
    }

    #[test]
    fn of_several_sessions_those_of_this_repository_are_meant() {
        let all = [live("a", "/other"), live("b", "/outer"), live("c", "/outer/in"), live("d", "/outer/in")];
        let chosen = |all: &[Live], cwd: &str| {
            let chosen =
                choose(all, Path::new(cwd)).map_err(|error| format!("{:?}", error.downcast_ref::<Hinted>()));
            chosen.map(|session| session.map(|session| session.record.name))
        };
        assert_eq!(chosen(&all, "/outer/x"), Ok(Some("b".to_owned())));
        assert_eq!(chosen(&all, "/other"), Ok(Some("a".to_owned())));
        let elsewhere = chosen(&all[..1], "/elsewhere").unwrap_err();
        assert!(elsewhere.contains("is of another repository"), "{elsewhere}");
        assert_eq!(chosen(&[], "/other"), Ok(None));
        let unclear = chosen(&all, "/outer/in/x").unwrap_err();
        assert!(unclear.contains("2 restricted sessions of this repository are running"), "{unclear}");
        assert!(unclear.contains(&"c".repeat(16)), "{unclear}");
        let unclear = chosen(&all, "/elsewhere").unwrap_err();
        assert!(unclear.contains("4 restricted sessions are running, none of this repository"), "{unclear}");
    }
}
