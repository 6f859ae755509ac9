//! Both sides of a session, with a shell in the place of the engine: the agent's git runs on its own directory, and what
//! the launcher runs "inside" is told where that is.

mod attacks;
mod engine;
mod kinds;
mod ordinary;
mod random;
mod trees;

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::{
    command::Git,
    config::Config,
    private::{Decision, Private, Question, ReadOnly},
    repository::Repository,
    state::private_dir,
    takeover::{Inside, Moment, Taken, Takeover},
};
use crate::{host::Host, written::Written};

/// The git of this machine, or the one in the directory that `PI_TEST_GIT` names.
pub(super) fn git() -> Git {
    let mut host = Host::for_tests();
    host.env.insert("PATH".into(), path());
    Git::find(&host, &Written::default()).unwrap()
}

fn path() -> OsString {
    let mut path = std::env::var_os("PI_TEST_GIT").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(std::env::var_os("PATH").unwrap());
    path
}

/// A git command as its user would give it.
fn command(dir: &Path) -> Command {
    let mut git = Command::new("git");
    git.env_clear().env("PATH", path()).env("HOME", "/nonexistent").current_dir(dir);
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "T").env(format!("GIT_{who}_EMAIL"), "t@example.com");
    }
    git.args([
        "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", "-c",
        "advice.detachedHead=false",
    ]);
    git
}

/// Writes a program. Another process does it: a child that another test starts at this moment would hold the open file, and
/// nobody could run it.
fn write_program(path: &Path, text: &str) {
    let mut child = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Runs git to a good end and returns what it printed.
#[track_caller]
fn run(mut git: Command, args: &[&str]) -> String {
    let output = git.args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    text(&output)
}

/// A repository of the user's.
struct World {
    dir: tempfile::TempDir,
    root: PathBuf,
    common: PathBuf,
}

impl World {
    /// With a commit of two files.
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(init: &[&str]) -> Self {
        let world = Self::empty(init);
        world.commit("a", "1");
        world.commit("b", "1");
        world
    }

    fn empty(init: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        run(command(&base), &[&["init", "--quiet", "repo"], init].concat());
        Self::at(dir, base.join("repo"), base.join("repo/.git"))
    }

    fn at(dir: tempfile::TempDir, root: PathBuf, common: PathBuf) -> Self {
        Self { dir, root, common }
    }

    fn base(&self) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap()
    }

    #[track_caller]
    fn host(&self, args: &[&str]) -> String {
        run(command(&self.root), args)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn commit(&self, file: &str, text: &str) {
        self.write(file, text);
        self.host(&["add", file]);
        self.host(&["commit", "--quiet", "-m", &format!("{file} {text}")]);
    }

    fn status(&self) -> String {
        self.host(&["status", "--porcelain", "--branch"])
    }

    fn decide(&self, name: &str) -> Decision {
        let dir = self.base().join(name);
        fs::create_dir_all(&dir).unwrap();
        let repository = Repository::at(&self.root, &self.common).unwrap();
        let question = Question {
            git: &git(),
            repository: &repository,
            user: &Config::default(),
            nested: &[],
            uid: rustix::process::getuid().as_raw(),
            dir: &dir,
        };
        question.decide().unwrap()
    }

    #[track_caller]
    fn read_only(&self) -> ReadOnly {
        match self.decide("decision") {
            Decision::ReadOnly(read_only) => read_only,
            Decision::Private(_) => panic!("it would be private"),
        }
    }

    /// Begins a session.
    #[track_caller]
    fn session(&self, name: &str) -> Session<'_> {
        let private = match self.decide(name) {
            Decision::Private(private) => private,
            Decision::ReadOnly(ReadOnly { reason, .. }) => panic!("it would be read-only: {reason}"),
        };
        let dir = self.base().join(name);
        private.lay_out(&git(), &dir, name, None).unwrap();
        let session = Session { world: self, dir };
        session.without_mounts(&private);
        session
    }
}

/// A session, and its agent.
struct Session<'a> {
    world: &'a World,
    dir: PathBuf,
}

impl Session<'_> {
    /// What the mounts do, done by hand: names of the host's stores are those of the host.
    fn without_mounts(&self, private: &Private) {
        for part in &private.parts {
            let path = self.inside(&part.repository.common).join("objects/info/alternates");
            let mut text = fs::read_to_string(&path).unwrap();
            for bind in &private.store {
                text = text.replace(
                    &format!("{}\n", bind.target.display()),
                    &format!("{}\n", bind.source.display()),
                );
            }
            fs::write(path, text).unwrap();
        }
        // In the place of `PATH_OF_THE_HOST` comes where that is mounted from.
        let script = format!(
            "#!/bin/sh\nfor last; do :; done\nrest=${{last#{common}}}\n\
             exec env -i PATH=\"$PATH\" HOME=/nonexistent git --work-tree=/ upload-pack --timeout=60 {private}\"$rest\"\n",
            common = self.world.common.display(),
            private = private_dir(&self.dir).display(),
        );
        let path = self.dir.join("inside");
        write_program(&path, &script);
    }

    /// Where a git directory of the host's is for the agent.
    fn inside(&self, path: &Path) -> PathBuf {
        private_dir(&self.dir).join(path.strip_prefix(&self.world.common).unwrap())
    }

    fn command(&self) -> Command {
        let repository = Repository::at(&self.world.root, &self.world.common).unwrap();
        let mut git = command(&self.world.root);
        git.env("GIT_DIR", self.inside(&repository.git_dir)).env("GIT_WORK_TREE", &self.world.root);
        git
    }

    /// A command of the agent's.
    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        run(self.command(), args)
    }

    #[track_caller]
    fn commit(&self, file: &str, text: &str) -> String {
        self.world.write(file, text);
        self.run(&["add", "--sparse", file]);
        self.run(&["commit", "--quiet", "-m", &format!("agent: {file} {text}")]);
        self.run(&["rev-parse", "HEAD"])
    }

    fn door(&self) -> Inside {
        Inside { prefix: vec![self.dir.join("inside").into()], env: vec![], git: "git".into() }
    }

    fn try_pass(&self, moment: Moment) -> anyhow::Result<Taken> {
        Takeover::open(&git(), &self.dir)?.pass(&self.door(), moment)
    }

    #[track_caller]
    fn pass(&self, moment: Moment) -> Taken {
        self.try_pass(moment).unwrap()
    }

    #[track_caller]
    fn end(&self) -> Taken {
        self.pass(Moment::End)
    }
}
