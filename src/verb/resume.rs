//! How to go on with a conversation: the agent's own hint knows nothing of the launcher's options.

use std::{fs, path::Path, time::SystemTime};

use crate::{
    agent_dir::entry::transcripts_of,
    launcher::{Launcher, Prepared},
    report::{self, quote},
};

/// Names the command that goes on with what was said since `begun`, where options keep the session from something.
pub(super) fn tell(launcher: &Launcher, prepared: &Prepared, begun: SystemTime) {
    let options = launcher.options.restrictions();
    let terminal = launcher.host.terminal;
    if options.is_empty() || !(terminal.stdin && terminal.stdout) {
        return;
    }
    let dir = prepared.facts.agent_dir.join("sessions").join(transcripts_of(&prepared.workspace.cwd));
    if let Some(id) = newest(&dir, begun) {
        let options: Vec<String> = options.iter().map(|word| quote(word)).collect();
        report::note(format_args!("with the same options: `pi {} --session {id}`", options.join(" ")));
    }
}

/// The id of the transcript that was written last, and since then.
fn newest(dir: &Path, begun: SystemTime) -> Option<String> {
    let written = |entry: fs::DirEntry| {
        let written = entry.metadata().ok()?.modified().ok()?;
        let id = id(entry.file_name().to_str()?)?;
        (written >= begun).then_some((written, id))
    };
    fs::read_dir(dir).ok()?.flatten().filter_map(written).max().map(|(_, id)| id)
}

/// The id in a transcript's name, which an agent may have chosen.
fn id(name: &str) -> Option<String> {
    let (_, id) = name.strip_suffix(".jsonl")?.rsplit_once('_')?;
    let is_plain = !id.is_empty() && id.len() <= 64 && !id.starts_with('-');
    (is_plain && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_transcript_is_named_and_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let begun = SystemTime::now();
        for (name, age) in [
            ("1_old.jsonl", 100),
            ("2_0b7c-1.jsonl", 0),
            ("3_$(x).jsonl", 0),
            ("notes.txt", 0),
            ("4_-p.jsonl", 0),
        ] {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            let when = begun + std::time::Duration::from_secs(1) - std::time::Duration::from_secs(age);
            file.set_modified(when).unwrap();
        }
        assert_eq!(newest(dir.path(), begun).as_deref(), Some("0b7c-1"));
        assert_eq!(newest(dir.path(), begun + std::time::Duration::from_secs(9)), None);
        assert_eq!(newest(&dir.path().join("none"), begun), None);
    }
}
