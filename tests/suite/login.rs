//! `pi login`: the only session that can leave a login.

mod acli;
mod browser;
mod kept;
mod renewed;
mod stored;
mod through;
mod whole;

use std::{fs, path::PathBuf, sync::Mutex};

use crate::world::World;

/// The ports of logins are the machine's, so one test at a time has them.
static PORTS: Mutex<()> = Mutex::new(());

/// The live file of logins.
fn logins(world: &World) -> PathBuf {
    world.agent_dir().join("auth.json")
}

fn text(world: &World) -> String {
    fs::read_to_string(logins(world)).unwrap_or_default()
}
