//! A small disk.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::World;

/// A file system of its own, in memory; it goes when the test ends.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this is not root, who alone can make one.
    #[expect(clippy::print_stderr, reason = "what was not tried is said")]
    pub(crate) fn make(at: &Path, megabytes: u32, world: &World) -> Option<Self> {
        let who = world.owner();
        let options = format!("size={megabytes}m,mode=755,uid={},gid={}", who.uid, who.gid);
        let mut mount = Command::new("mount");
        let made = mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output().unwrap();
        if made.status.success() {
            return Some(Self(at.to_owned()));
        }
        assert!(!rustix::process::getuid().is_root(), "root can mount: {made:?}");
        eprintln!("not tried: only root can make a small disk");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
