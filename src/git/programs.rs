//! What in a repository names programs that a git of the host would run: somebody else may have written it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{
    command::Git,
    config::{Config, is_on, split},
    repository::Repository,
};
use crate::report::one_line;

/// How many hooks are looked at.
const HOOKS: usize = 1000;

/// Settings and hooks of a repository that run a program, one line each.
pub(crate) fn programs(git: &Git, repository: &Repository) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for file in [repository.common.join("config"), repository.git_dir.join("config.worktree")] {
        lines.extend(named(&Config::read(git, &file)?));
    }
    let hooks = fs::read_dir(repository.common.join("hooks")).into_iter().flatten().flatten().take(HOOKS);
    let mut hooks: Vec<String> = hooks
        .filter(|hook| {
            let is_sample = hook.path().extension().is_some_and(|kind| kind == "sample");
            let meta = fs::metadata(hook.path());
            !is_sample && meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
        .map(|hook| one_line(&format!("hook {}", hook.file_name().display())))
        .collect();
    hooks.sort();
    lines.extend(hooks);
    Ok(lines)
}

fn named(config: &Config) -> Vec<String> {
    let named = config.entries.iter().filter(|(name, value)| names_program(name, value.as_deref()));
    named
        .map(|(name, value)| match value {
            Some(value) => one_line(&format!("{name} = {value}")),
            None => one_line(name),
        })
        .collect()
}

fn names_program(name: &str, value: Option<&str>) -> bool {
    const PLAIN: [&str; 21] = [
        "core.hookspath", "core.sshcommand", "core.pager", "core.editor", "core.askpass", "core.gitproxy",
        "core.alternaterefscommand", "sequence.editor", "diff.external", "interactive.difffilter",
        "uploadpack.packobjectshook", "gc.recentobjectshook", "gpg.program", "gpg.ssh.defaultkeycommand",
        "include.path", "imap.tunnel", "web.browser", "credential.helper", "instaweb.httpd",
        "sendemail.sendmailcmd", "core.attributesfile",
    ];
    const KEYS: [(&str, &[&str]); 15] = [
        ("gpg", &["program"]),
        ("credential", &["helper"]),
        ("filter", &["clean", "smudge", "process"]),
        ("diff", &["command", "textconv"]),
        ("difftool", &["cmd", "path"]),
        ("mergetool", &["cmd", "path"]),
        ("merge", &["driver"]),
        ("includeif", &["path"]),
        ("remote", &["vcs", "uploadpack", "receivepack"]),
        ("trailer", &["command", "cmd"]),
        ("browser", &["cmd", "path"]),
        ("man", &["cmd", "path"]),
        ("tar", &["command"]),
        ("guitool", &["cmd"]),
        ("hook", &["command"]),
    ];
    let said = value.unwrap_or_default();
    let (section, middle, key) = split(name);
    let is_bool =
        || is_on(value) || ["false", "no", "off", "0", ""].iter().any(|no| said.eq_ignore_ascii_case(no));
    // As `git lfs install` writes them.
    let is_lfs = section == "filter"
        && middle == Some("lfs")
        && said.starts_with("git-lfs ")
        && !said.contains([';', '|', '&', '`', '$', '\n']);
    match (section, middle) {
        _ if is_lfs => false,
        ("core", None) if key == "fsmonitor" => !is_bool(),
        ("pager", _) => !is_bool(),
        ("alias", _) => said.trim_start().starts_with('!'),
        ("url", Some(base)) => base.contains("::") || said.contains("::"),
        ("protocol", _) => key == "allow" && said != "never",
        ("submodule", Some(_)) if key == "update" => said.trim_start().starts_with('!'),
        ("remote" | "submodule", Some(_)) if matches!(key, "url" | "pushurl") => {
            said.contains("::") || said.starts_with('-')
        }
        (_, None) => PLAIN.contains(&name),
        (_, Some(_)) => {
            PLAIN.contains(&name) || KEYS.iter().any(|(known, keys)| *known == section && keys.contains(&key))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::config::tests::read;

    #[test]
    fn settings_that_name_programs_are_found() {
        let config = read(concat!(
            "[core]\n\tfsmonitor = true\n\tpager = less\n\tsshCommand = s\n[pager]\n\tlog = false\n\tdiff = x\n",
            "[alias]\n\tco = checkout\n\tx = !sh\n[filter \"lfs\"]\n\tclean = git-lfs clean -- %f\n",
            "[filter \"a\"]\n\tsmudge = s\n[gpg \"ssh\"]\n\tprogram = p\n[url \"ext::x\"]\n\tinsteadOf = y\n",
            "[credential \"https://x.y\"]\n\thelper = h\n[includeIf \"gitdir:x\"]\n\tpath = p\n[diff \"d\"]\n\ttextconv = t\n",
            "[remote \"origin\"]\n\turl = https://x/y\n",
        ));
        assert_eq!(
            named(&config),
            [
                "core.pager = less", "core.sshcommand = s", "pager.diff = x", "alias.x = !sh",
                "filter.a.smudge = s", "gpg.ssh.program = p", "url.ext::x.insteadof = y",
                "credential.https://x.y.helper = h", "includeif.gitdir:x.path = p", "diff.d.textconv = t",
            ]
        );
    }
}
