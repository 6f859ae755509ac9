//! Files that commonly run on the host, when somebody opens, builds or enters the directory that they lie in.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::host::hex;

/// Where on its way down a walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    Ordinary,
    /// Everything here runs.
    Risky,
    /// `.github`, of which only some runs.
    GitHub,
    /// `.cargo`.
    Cargo,
    /// What others have written and a tool has fetched or made. It runs too, but a change in it is no news.
    Bulk,
}

impl Ground {
    /// The ground in the directory `name`.
    pub(super) fn below(self, name: &[u8]) -> Self {
        match (self, name) {
            (Self::Bulk | Self::Risky, _) => self,
            (_, b"node_modules" | b"vendor" | b"target" | b".venv" | b"venv" | b".tox" | b"__pycache__") => {
                Self::Bulk
            }
            (_, b".github") => Self::GitHub,
            (_, b".cargo") => Self::Cargo,
            (Self::GitHub, b"workflows" | b"actions")
            | (
                _,
                b".vscode" | b".idea" | b".fleet" | b".zed" | b".devcontainer" | b".husky" | b".githooks"
                | b".circleci" | b".claude" | b".cursor" | b".pi" | b".mvn" | b".hg" | b".jj" | b".direnv"
                | b".nvim",
            ) => Self::Risky,
            _ => Self::Ordinary,
        }
    }

    /// Whether a file of this name here runs on the host.
    pub(super) fn runs(self, name: &[u8]) -> bool {
        match self {
            Self::Bulk => false,
            Self::Risky => true,
            Self::Cargo if matches!(name, b"config" | b"config.toml") => true,
            _ => runs(name),
        }
    }
}

fn runs(name: &[u8]) -> bool {
    if name.ends_with(b".mk") || name.ends_with(b".code-workspace") {
        return true;
    }
    matches!(
        name,
        // shells, editors, version managers
        b".envrc" | b".autoenv.zsh" | b".in" | b".vimrc" | b".exrc" | b".nvimrc" | b".nvim.lua" | b".dir-locals.el"
        | b".tool-versions" | b"mise.toml" | b".mise.toml" | b"flake.nix" | b"shell.nix" | b"devenv.nix" | b".mcp.json"
        | b"devcontainer.json" | b".devcontainer.json"
        // git and its helpers
        | b".gitattributes" | b".gitmodules" | b".lfsconfig" | b".pre-commit-config.yaml" | b".pre-commit-config.yml"
        | b"lefthook.yml" | b"lefthook.yaml" | b".lefthook.yml" | b".gitlab-ci.yml" | b".travis.yml" | b"Jenkinsfile"
        // builds
        | b"Makefile" | b"makefile" | b"GNUmakefile" | b"justfile" | b"Justfile" | b".justfile" | b"Taskfile.yml"
        | b"Taskfile.yaml" | b"Rakefile" | b"Gemfile" | b"build.rs" | b"CMakeLists.txt" | b"meson.build" | b"SConstruct"
        | b"configure" | b"build.gradle" | b"build.gradle.kts" | b"settings.gradle" | b"settings.gradle.kts" | b"gradlew"
        | b"mvnw" | b"pom.xml" | b"build.xml" | b"build.sbt" | b"BUILD" | b"BUILD.bazel" | b"WORKSPACE" | b"MODULE.bazel"
        | b".bazelrc" | b"build.zig" | b"Package.swift" | b"mix.exs" | b"Dockerfile" | b"Containerfile" | b"compose.yaml"
        | b"compose.yml" | b"docker-compose.yml" | b"docker-compose.yaml" | b"Vagrantfile" | b"Tiltfile" | b"Procfile"
        // packages
        | b"package.json" | b".npmrc" | b".yarnrc" | b".yarnrc.yml" | b".pnpmfile.cjs" | b"composer.json" | b"setup.py"
        | b"conftest.py" | b"sitecustomize.py" | b"usercustomize.py" | b"noxfile.py" | b"tox.ini" | b"tasks.py"
        | b"manage.py" | b"pyproject.toml" | b"pip.conf"
        // tools that load their settings as a program
        | b"webpack.config.js" | b"vite.config.js" | b"vite.config.ts" | b"vitest.config.ts" | b"jest.config.js"
        | b"eslint.config.js" | b"eslint.config.mjs" | b".eslintrc.js" | b".prettierrc.js" | b"babel.config.js"
        | b"rollup.config.js" | b"gulpfile.js" | b"Gruntfile.js" | b"postcss.config.js" | b"tailwind.config.js"
    )
}

/// Whether of this file only a part runs, which [`scripts`] finds.
pub(super) fn is_manifest(name: &[u8]) -> bool {
    matches!(name, b"package.json" | b"composer.json")
}

/// What a package's description has others run, as a hash; of one that cannot be understood, the whole.
pub(super) fn scripts(text: &[u8]) -> String {
    let part = match serde_json::from_slice::<Value>(text) {
        Ok(manifest) => {
            let parts =
                ["scripts", "bin", "workspaces", "gypfile", "config", "repositories", "packageManager"];
            parts
                .map(|part| manifest.get(part).map(Value::to_string).unwrap_or_default())
                .join("\0")
                .into_bytes()
        }
        Err(_) => text.to_owned(),
    };
    hex(&Sha256::digest(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_risky(path: &str) -> bool {
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dirs = dirs.split('/').filter(|dir| !dir.is_empty());
        dirs.fold(Ground::Ordinary, |ground, dir| ground.below(dir.as_bytes())).runs(name.as_bytes())
    }

    #[test]
    fn what_runs_is_known_by_its_name_and_place() {
        for path in [
            ".envrc", "sub/.envrc", ".vscode/tasks.json", ".idea/runConfigurations/x.xml", "package.json",
            "a/b/Makefile", ".github/workflows/ci.yml", ".husky/pre-commit", ".pre-commit-config.yaml",
            "build.rs", ".cargo/config.toml", "rules.mk", ".claude/settings.json", ".hg/hgrc",
        ] {
            assert!(is_risky(path), "{path}");
        }
        for path in [
            "src/main.rs", "README.md", ".github/CODEOWNERS", "node_modules/x/package.json", ".cargo/x",
            "tasks.json",
        ] {
            assert!(!is_risky(path), "{path}");
        }
    }

    #[test]
    fn of_a_package_its_scripts_count() {
        let with = |text: &str| scripts(text.as_bytes());
        let before = with(r#"{"version": "1", "scripts": {"test": "x"}}"#);
        assert_eq!(with(r#"{"scripts": {"test": "x"}, "dependencies": {"a": "1"}}"#), before);
        assert_ne!(with(r#"{"scripts": {"test": "x; y"}}"#), before);
        assert_ne!(with("{"), with("{{"));
    }
}
