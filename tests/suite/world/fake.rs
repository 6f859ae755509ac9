//! A `docker` that is a script: it takes notes, keeps a small engine of empty files, and fails as it is told.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use super::files::{children, write_program};

/// The script and its notes, below the root of a world.
pub(crate) struct Fake {
    root: PathBuf,
}

/// One call of the fake docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) n: usize,
    pub(crate) words: Vec<String>,
    /// Whether it was served to its end; one that hung or was killed was not.
    pub(crate) ended: bool,
}

impl Call {
    /// What is asked and of what, such as `create-agent`, `network-rm` or `rm`.
    pub(crate) fn kind(&self) -> String {
        let word = |n: usize| self.words.get(n).map_or("", String::as_str);
        let role = |name: &str| {
            ["proxy", "model", "git"]
                .into_iter()
                .find(|role| name.ends_with(&format!("-{role}")))
                .unwrap_or("agent")
        };
        match word(0) {
            "create" => {
                let at = self.words.iter().position(|word| word == "--name").unwrap();
                format!("create-{}", role(word(at + 1)))
            }
            verb @ ("start" | "stop" | "exec") => format!("{verb}-{}", role(self.words.last().unwrap())),
            verb @ ("network" | "volume" | "image" | "container") => format!("{verb}-{}", word(1)),
            verb => verb.to_owned(),
        }
    }
}

impl Fake {
    pub(super) fn install(root: &Path) -> Self {
        let root = root.join("docker");
        let below = ["bin", "calls", "env", "ended", "rules"];
        let engine = ["containers", "networks", "volumes", "events", "images", "labels", "registry"]
            .map(|kind| format!("engine/{kind}"));
        for dir in below.map(str::to_owned).iter().chain(&engine) {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let fake = Self { root };
        let program = fake.bin().join("docker");
        write_program(&program, include_str!("docker"));
        fake
    }

    /// The directory to put on the `PATH`.
    pub(crate) fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The engine's address; nobody listens there.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.root.join("engine.sock").display())
    }

    /// Sets the rule for a call by its number, for every call of a kind, or for `all`; see the script for what a rule can say.
    pub(crate) fn rule(&self, call: &str, rule: &str) {
        fs::write(self.root.join("rules").join(call), rule).unwrap();
    }

    /// Forgets all rules.
    pub(crate) fn behave(&self) {
        for rule in children(&self.root.join("rules")) {
            fs::remove_file(rule).unwrap();
        }
    }

    /// The calls so far, in their order.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let mut calls: Vec<Call> = children(&self.root.join("calls"))
            .iter()
            .map(|path| {
                let name = path.file_name().unwrap();
                let text = fs::read(path).unwrap();
                Call {
                    n: name.to_str().unwrap().parse().unwrap(),
                    words: text
                        .strip_suffix(b"\0")
                        .unwrap_or_default()
                        .split(|byte| *byte == 0)
                        .map(|word| String::from_utf8_lossy(word).into_owned())
                        .collect(),
                    ended: self.root.join("ended").join(name).exists(),
                }
            })
            .collect();
        calls.sort_by_key(|call| call.n);
        calls
    }

    /// The kinds of the calls so far, in their order.
    pub(crate) fn kinds(&self) -> Vec<String> {
        self.calls().iter().map(Call::kind).collect()
    }

    /// Waits for a call of a kind, and returns the first one.
    #[track_caller]
    pub(crate) fn called(&self, kind: &str) -> Call {
        super::until(&format!("a call of `{kind}`"), || {
            let mut calls = self.calls();
            match calls.iter().position(|call| !call.words[0].is_empty() && call.kind() == kind) {
                Some(at) => Ok(calls.swap_remove(at)),
                None => Err(self.kinds()),
            }
        })
    }

    /// The environment of the `n`-th call, as a shell prints it.
    pub(crate) fn env(&self, n: usize) -> String {
        OsString::from_vec(fs::read(self.root.join(format!("env/{n}"))).unwrap())
            .to_string_lossy()
            .into_owned()
    }

    /// What the engine has, caches left out.
    pub(crate) fn objects(&self) -> Vec<String> {
        ["containers", "networks", "volumes"]
            .iter()
            .flat_map(|kind| children(&self.root.join("engine").join(kind)))
            .map(|path| path.strip_prefix(self.root.join("engine")).unwrap().display().to_string())
            .filter(|name| !name.contains("/pi-cache-"))
            .collect()
    }

    /// Gives the engine an image, and says its id.
    pub(crate) fn has_image(&self, tag: &str) -> String {
        let id = format!("sha256:{tag}");
        fs::write(self.root.join("engine/images").join(tag), &id).unwrap();
        id
    }

    /// Gives the engine a container, a network or a volume; `object` is as [`Self::objects`] names it.
    pub(crate) fn has(&self, object: &str) {
        fs::write(self.root.join("engine").join(object), "").unwrap();
    }
}

/// `text` as one word of a shell.
pub(crate) fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
