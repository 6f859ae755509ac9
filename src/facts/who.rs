//! Who the agent is in its container, and what that user cannot do on the host.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::StatVfsMountFlags;

use crate::{
    host::{EngineKind, Host, Owner},
    report::{Finding, quote},
    workspace::Workspace,
};

/// Who the agent is inside its container, and what to say about it.
pub(crate) fn who(host: &Host, workspace: &Workspace) -> (Owner, Option<Finding>) {
    if host.engine.kind == EngineKind::Rootless {
        // In such an engine's containers this is the user.
        return (Owner { uid: 0, gid: 0 }, None);
    }
    if host.uid != 0 {
        return (Owner { uid: host.uid, gid: host.gid }, None);
    }
    if workspace.owner.uid != 0 {
        return (workspace.owner, None);
    }
    let warning =
        "you are root and so is the owner of this directory: the agent runs as root without any capability";
    (Owner { uid: 0, gid: 0 }, Some(Finding::plain(warning)))
}

/// Why the agent cannot write in the repository, if it cannot.
pub(crate) fn unwritable(root: &Path, who: Owner, host: &Host) -> Option<Finding> {
    let meta = fs::metadata(root).ok()?;
    let is_read_only =
        rustix::fs::statvfs(root).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    let shown = root.display();
    if is_read_only {
        return Some(Finding::hinted(
            format!("the file system of `{shown}` is read-only: the agent can change nothing"),
            "work in a clone on another file system",
        ));
    }
    // In a container of a rootless engine, root is the user.
    let uid = if host.engine.kind == EngineKind::Rootless { host.uid } else { who.uid };
    let shift = match () {
        () if meta.uid() == uid => 6,
        () if meta.gid() == who.gid => 3,
        () => 0,
    };
    // Even root has no capability inside.
    (meta.mode() >> shift & 0o3 != 0o3).then(|| {
        Finding::hinted(
            format!("`{shown}` cannot be written by the user with the number {uid}, as whom the agent runs"),
            format!(
                "`ls -ld {}` shows whose it is; work in a clone of your own",
                quote(&root.to_string_lossy())
            ),
        )
    })
}

/// Root's own directory could not be written by the owner of the repository, so that owner gets one beside it.
pub(crate) fn agent_dir(host: &Host, who: Owner) -> (PathBuf, Option<Finding>) {
    let dir = host.agent_dir();
    if host.uid != 0 || who.uid == 0 {
        return (dir, None);
    }
    match fs::metadata(&dir) {
        Ok(meta) if meta.uid() != who.uid => {
            let mut name = dir.file_name().unwrap_or_default().to_owned();
            name.push(format!("-{}", who.uid));
            let other = dir.with_file_name(name);
            let note = format!(
                "`{}` belongs to another user than this repository; logins and sessions are kept in `{}`",
                dir.display(),
                other.display()
            );
            (other, Some(Finding::plain(note)))
        }
        _ => (dir, None),
    }
}

/// What an enforcing `SELinux` needs before a container may touch the repository; we relabel nothing unasked.
pub(super) fn selinux(root: &Path) -> Option<Finding> {
    if fs::read_to_string("/sys/fs/selinux/enforce").ok()?.trim() != "1" {
        return None;
    }
    let mut label = [0u8; 256];
    let length = rustix::fs::getxattr(root, "security.selinux", &mut label).ok()?;
    let label = String::from_utf8_lossy(&label[..length]).into_owned();
    (!label.contains("container_file_t")).then(|| {
        Finding::hinted(
            format!("SELinux will keep the agent out of `{}`", root.display()),
            format!("`chcon -Rt container_file_t {}` lets it in", quote(&root.to_string_lossy())),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::files::Identity;

    #[test]
    fn a_repository_that_the_agent_cannot_write_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let meta = fs::metadata(dir.path()).unwrap();
        let host = Host::for_tests();
        let said = |mode: u32, uid: u32, gid: u32| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            unwritable(dir.path(), Owner { uid, gid }, &host).is_some()
        };
        let (uid, gid) = (meta.uid(), meta.gid());
        assert!(!said(0o755, uid, gid) && said(0o555, uid, gid));
        assert!(!said(0o775, uid + 1, gid) && said(0o755, uid + 1, gid));
        assert!(!said(0o777, uid + 1, gid + 1) && said(0o775, uid + 1, gid + 1));
    }

    #[test]
    fn the_agent_is_the_user_or_the_owner_but_root_only_where_there_is_nobody_else() {
        let workspace = |uid| Workspace {
            root: "/r".into(),
            cwd: "/r".into(),
            git_dirs: vec![],
            git_config: None,
            alternates: vec![],
            identity: Identity { device: 1, inode: 2 },
            owner: Owner { uid, gid: uid },
            findings: vec![],
        };
        let host = |uid, kind| {
            let mut host = Host { uid, gid: uid, ..Host::for_tests() };
            host.engine.kind = kind;
            host
        };
        let who = |host: Host, owner| who(&host, &workspace(owner)).0.uid;
        assert_eq!(who(host(1000, EngineKind::Rootful), 0), 1000);
        assert_eq!(who(host(0, EngineKind::Rootful), 1000), 1000);
        assert_eq!(who(host(0, EngineKind::Rootful), 0), 0);
        assert_eq!(who(host(1000, EngineKind::Rootless), 1000), 0);
    }
}
