//! The file of a batch: a task on each line, with options of its own before the prompt.

use std::{collections::BTreeMap, path::Path};

use sha2::{Digest as _, Sha256};

use crate::{cli, host::hex, report::Hinted};

/// The options that a line may have.
const OPTIONS: [&str; 12] = [
    "lang", "clone", "allowed-domains", "allow", "proxy", "no-network", "no-keys", "no-push", "memory",
    "cpus", "pids", "disk",
];

/// Those that let an agent reach more.
const WIDENING: [&str; 2] = ["allowed-domains", "allow"];

/// No name that is made of a prompt is longer, its last part not counted.
const LONGEST_NAME: usize = 32;

/// A task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) line: usize,
    /// The name of its copy.
    pub(super) name: String,
    /// The launcher's options, as they were typed.
    pub(super) options: Vec<String>,
    pub(super) prompt: String,
}

impl Task {
    /// What tells it from another one of the same name.
    pub(super) fn mark(&self) -> String {
        digest(self.options.iter().map(String::as_str).chain([self.prompt.as_str()]))
    }

    /// Where it stands.
    pub(super) fn place(&self, file: &Path) -> String {
        format!("`{}`, line {}", file.display(), self.line)
    }
}

/// Reads the tasks. `written` is the directory where agents can write that the file is in, if it is in one.
///
/// # Errors
/// A line is no task, or two of them have the same name.
pub(super) fn parse(text: &str, file: &Path, written: Option<&Path>) -> anyhow::Result<Vec<Task>> {
    let mut tasks: Vec<Task> = vec![];
    let mut lines = BTreeMap::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let refused = |why: String, hint: &str| {
            Hinted::usage_hinted(format!("`{}`, line {}: {why}", file.display(), n + 1), hint)
        };
        let task = task(line, n + 1, file, written).map_err(|(why, hint)| refused(why, hint))?;
        if let Some(first) = lines.insert(task.name.clone(), n + 1) {
            let why = format!("its copy would be `{}`, as that of line {first}", task.name);
            return Err(refused(why, "give each a name of its own with `--clone=NAME` before the prompt"));
        }
        tasks.push(task);
    }
    if tasks.is_empty() {
        return Err(Hinted::usage_hinted(
            format!("there is no task in `{}`", file.display()),
            "write a prompt on each line; lines that begin with `#` are comments",
        ));
    }
    Ok(tasks)
}

/// Why a line is no task, and what to do.
type Refusal = (String, &'static str);

fn task(line: &str, number: usize, file: &Path, written: Option<&Path>) -> Result<Task, Refusal> {
    let (mut options, prompt) = cli::leading_options(line);
    let mut name = None;
    for option in &options {
        let Some((own, value)) = named(option) else { continue };
        if !OPTIONS.contains(&own) {
            return Err((
                format!("`--{own}` cannot be an option of one task"),
                "put it before `batch`, for all tasks",
            ));
        }
        if let (true, Some(dir)) = (WIDENING.contains(&own), written) {
            return Err((
                format!("`--{own}` has no place in a file in `{}`, where agents can write", dir.display()),
                "move the file elsewhere, or put the option before `batch`, for all tasks",
            ));
        }
        if own == "clone" {
            let value = value.filter(|value| !value.is_empty());
            name = Some(
                value
                    .ok_or(("a task's `--clone` needs a name".to_owned(), "write `--clone=NAME`"))?
                    .to_owned(),
            );
        }
    }
    if prompt.is_empty() {
        return Err(("there is no prompt".to_owned(), "write it after the options"));
    }
    if prompt.starts_with('-') {
        return Err((
            format!("`{}` is no option of a task", prompt.split(' ').next().unwrap_or_default()),
            "a prompt cannot begin with `-`; flags for all agents stand behind `pi batch FILE --`",
        ));
    }
    options.retain(|option| named(option).is_none_or(|(own, _)| own != "clone"));
    let name = name.unwrap_or_else(|| {
        let file = file.to_string_lossy();
        format!("{}-{}", slug(prompt), &digest([&*file, line])[..4])
    });
    Ok(Task { line: number, name, options, prompt: prompt.to_owned() })
}

/// The name of an option, and what is behind its `=`.
fn named(option: &str) -> Option<(&str, Option<&str>)> {
    let text = option.strip_prefix("--")?;
    Some(text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value))))
}

/// The first words of a prompt, as a part of a branch's name.
fn slug(prompt: &str) -> String {
    let lower = prompt.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut slug = String::new();
    for word in words {
        if !slug.is_empty() && slug.len() + word.len() >= LONGEST_NAME {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.extend(word.chars().take(LONGEST_NAME));
    }
    if slug.is_empty() { "task".to_owned() } else { slug }
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    hex(&hash.finalize())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(text: &str) -> Vec<Task> {
        parse(text, Path::new("/tasks"), None).unwrap()
    }

    #[test]
    fn a_line_is_a_prompt_with_options_before_it() {
        let all = tasks(
            "# a comment\n\nFix the `flaky` test, and say why!\n  --lang go --allow=a.test --clone=mine -- Do it \n",
        );
        let [plain, named] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((plain.line, plain.prompt.as_str()), (3, "Fix the `flaky` test, and say why!"));
        assert!(
            plain.name.starts_with("fix-the-flaky-test-and-say-why-") && plain.options.is_empty(),
            "{plain:?}"
        );
        let options = ["--lang", "go", "--allow=a.test"].map(str::to_owned).to_vec();
        assert_eq!(*named, Task { line: 4, name: "mine".into(), options, prompt: "Do it".into() });
        assert_ne!(plain.mark(), named.mark());
    }

    #[test]
    fn a_task_keeps_its_name_wherever_it_stands_in_the_file() {
        let (one, two) = (tasks("a\nb\n"), tasks("b\n\n# c\na\n"));
        assert_eq!((&one[0].name, &one[1].name), (&two[1].name, &two[0].name));
        assert!(tasks("@../é ü\n")[0].name.starts_with("task-"));
        let long = "x".repeat(500);
        assert!(tasks(&long)[0].name.len() < 40);
    }

    #[test]
    fn what_is_no_task_is_refused_with_its_line() {
        for (text, why) in [
            ("", "there is no task"),
            ("# only\n", "there is no task"),
            ("\na\na\n", "line 3: its copy would be"),
            ("--lang go\n", "line 1: there is no prompt"),
            ("--clone do it\n", "line 1: a task's `--clone` needs a name"),
            ("--proxi do it\n", "line 1: `--proxi` is no option of a task"),
            ("-p do it\n", "line 1: `-p` is no option of a task"),
            ("--on=x do it\n", "line 1: `--on` cannot be an option of one task"),
            ("--mount /x do it\n", "line 1: `--mount` cannot be an option of one task"),
        ] {
            let error = parse(text, Path::new("/tasks"), None).unwrap_err();
            assert!(error.to_string().contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_file_where_agents_can_write_opens_no_network() {
        let repo = Path::new("/repo");
        for line in ["--allow evil.test x", "--allowed-domains list x", "--lang go --allow=evil.test x"] {
            let error = parse(line, Path::new("/repo/tasks"), Some(repo)).unwrap_err();
            assert!(error.to_string().contains("where agents can write"), "{line}: {error}");
        }
        assert!(parse("--lang go --no-network x", Path::new("/repo/tasks"), Some(repo)).is_ok());
    }
}
