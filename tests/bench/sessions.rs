//! Whole sessions: from the command to the prompt, and from the agent's last word to the prompt.

use std::{env, process::Command};

use crate::{
    Effort, KEYED, PROXY, VERSION,
    floor::{floor, sweep},
    row,
    time::{Timed, alternate, at_once, median},
    world::{World, shell},
};

const BAREST: &str = "the barest `docker run --rm`, same image, flags and mounts";

const STEPS: &str = "its own dry run as a script, one step after the other";

pub(crate) fn rows(world: &World, effort: &Effort) {
    let bare = world.bare_run(&VERSION);
    let floors =
        [floor(&world.script(&VERSION)), floor(&world.keyed_script(&KEYED)), floor(&world.script(&PROXY))];
    let commands: [&dyn Fn() -> Command; 8] = [
        &|| world.pi(&VERSION),
        &|| world.with_a_key(&KEYED),
        &|| shell(&bare),
        &|| world.pi(&PROXY),
        &|| shell(&world.script(&PROXY)),
        &|| shell(&floors[0]),
        &|| shell(&floors[1]),
        &|| shell(&floors[2]),
    ];
    let [plain, keyed, bare, proxy, script, plain_floor, keyed_floor, proxy_floor] =
        alternate(effort.runs, commands);
    sweep();
    let whole = |times: &Vec<Timed>| median(times.iter().map(|time| time.whole));
    let exit = |times: &Vec<Timed>| median(times.iter().map(|time| time.exit));
    let compare =
        |what, against, figure: &dyn Fn(&Vec<Timed>) -> f64, [ours, theirs, floor]: [&_; 3], target| {
            row(what, against, [figure(ours), figure(theirs)], "ms", target, Some(figure(floor)));
        };
    compare("`pi -- --version`", BAREST, &whole, [&plain, &bare, &plain_floor], "1.02");
    compare("the same with a key and its broker", BAREST, &whole, [&keyed, &bare, &keyed_floor], "1.35");
    compare("`pi --proxy -- --version`", STEPS, &whole, [&proxy, &script, &proxy_floor], "0.80");
    compare("the same", BAREST, &whole, [&proxy, &bare, &proxy_floor], "1.75");
    compare("agent's last word to the prompt, `pi`", BAREST, &exit, [&plain, &bare, &plain_floor], "1.00");
    compare("the same, `pi --proxy`", STEPS, &exit, [&proxy, &script, &proxy_floor], "0.60");
    others(world, effort);
}

/// Other launchers, where some were named.
fn others(world: &World, effort: &Effort) {
    for (variable, words, target) in
        [("PI_BENCH_OTHER", &VERSION as &[&str], "1.00"), ("PI_BENCH_OTHER_PROXIED", &PROXY, "0.28")]
    {
        let ours = format!("`pi {}`", words.join(" "));
        let Ok(other) = env::var(variable) else {
            println!(
                "| {ours} | another launcher | not measured: `{variable}` names none | | | {target} | – |"
            );
            continue;
        };
        let run = || {
            let mut sh = shell(&other);
            sh.current_dir(world.repo());
            sh
        };
        let [pi, other_times] = alternate(effort.runs, [&|| world.pi(words) as Command, &run]);
        let whole = |times: &Vec<Timed>| median(times.iter().map(|time| time.whole));
        let exit = |times: &Vec<Timed>| median(times.iter().map(|time| time.exit));
        row(&ours, &format!("`{other}`"), [whole(&pi), whole(&other_times)], "ms", target, None);
        row("its exit", "the same", [exit(&pi), exit(&other_times)], "ms", "–", None);
    }
}

/// Many sessions at once. The floor is docker's own part of as many.
pub(crate) fn together(world: &World, effort: &Effort) {
    let count = effort.sessions;
    for (words, name) in [(&VERSION as &[&str], "pi"), (&PROXY, "pi --proxy")] {
        let floor = floor(&world.script(words));
        let [alone, floor_alone] =
            alternate(effort.runs, [&|| world.pi(words) as Command, &|| shell(&floor)]);
        let one_by_one = |times: &Vec<Timed>| median(times.iter().map(|time| time.whole)) * f64::from(count);
        let (alone, floor_alone) = (one_by_one(&alone), one_by_one(&floor_alone));
        let all = |command: &(dyn Fn() -> Command + Sync)| {
            median((0..effort.rounds.min(3)).map(|_| at_once(count, command)))
        };
        let ours = all(&|| world.pi(words));
        // As a part of what ours takes one after the other, like the ratio.
        let floor = all(&|| shell(&floor)) / floor_alone * alone;
        sweep();
        let what = format!("{count} `{name}` at once");
        row(&what, &format!("{count} one after the other"), [ours, alone], "ms", "0.55", Some(floor));
    }
}
