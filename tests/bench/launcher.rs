//! The launcher alone, without a session.

use std::{fs, process::Command};

use crate::{
    Effort,
    memory::mebibytes,
    time::{alternate, median, peak},
    world::World,
};

pub(crate) fn rows(world: &World, effort: &Effort) {
    world.write_list(10_000);
    for n in 0..100_000 {
        let dir = world.repo().join(format!("many/{}", n / 1000));
        if n % 1000 == 0 {
            fs::create_dir_all(&dir).unwrap();
        }
        fs::write(dir.join(n.to_string()), "").unwrap();
    }
    let few = world.another_repository();
    let in_few = |words: &[&str]| {
        let mut pi = world.pi(words);
        pi.current_dir(&few);
        pi
    };
    let docker = || {
        let mut docker = Command::new("docker");
        docker.arg("--version");
        docker
    };
    let names = [
        "`pi --version`", "`pi --dry-run`", "`pi ps`", "`pi check`", "`pi check`, 10 000 entries",
        "`pi --dry-run`, 100 000 files",
    ];
    let commands: [&dyn Fn() -> Command; 6] = [
        &|| in_few(&["--version"]),
        &|| in_few(&["--dry-run"]),
        &|| in_few(&["ps"]),
        &|| in_few(&["check", "api.anthropic.com"]),
        &|| world.pi(&["--allowed-domains", "list", "check", "host7.example7.com"]),
        &|| world.pi(&["--dry-run"]),
    ];
    let mut with_docker: [&dyn Fn() -> Command; 7] = [&docker; 7];
    with_docker[1..].copy_from_slice(&commands);
    let [docker, ours @ ..] =
        alternate(effort.runs, with_docker).map(|times| median(times.iter().map(|time| time.whole)));
    for ((name, time), command) in names.iter().zip::<[f64; 6]>(ours).zip(commands) {
        let peak = peak(command()).map_or(String::new(), |kib| format!(", {}", mebibytes(kib)));
        println!(
            "| {name} | `docker --version` | {time:.1} ms{peak} | {docker:.1} ms | {:.2} | 10 ms, 10 MiB | – |",
            time / docker
        );
    }
    fs::remove_dir_all(world.repo().join("many")).unwrap();
}
