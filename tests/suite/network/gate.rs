//! Sandboxes that are not as they should be.

use std::{fs, path::PathBuf, thread, time::Instant};

use super::{
    ALLOWLIST,
    attempts::prepare,
    configure, restricted,
    script::{Script, weak_sidecar},
};
use crate::world::{
    World,
    call::Outcome,
    files::{write, write_program},
};

/// `docker`, with something done to what it is told.
fn tampering(world: &World, body: &str) -> PathBuf {
    let path = world.root().join("tampering-docker");
    // Words are kept apart by the shell's own arrays.
    let text = format!(
        "#!/bin/bash\nset -u\nrole=\ncase \" $* \" in *' pi.role=agent '*) role=agent ;; *' pi.role=proxy '*) role=proxy ;; esac\n\
         without() {{ local word kept=(); for word in \"${{words[@]}}\"; do [[ $word == $1 ]] || kept+=(\"$word\"); done; words=(\"${{kept[@]}}\"); }}\n\
         told() {{ [ \"${{words[0]}}\" = start ] && [[ ${{words[-1]}} == *-proxy ]] && exec docker \"${{words[@]}}\" < <(perl -e '{TOLD}' \"$@\"); }}\n\
         words=(\"$@\")\n{body}\nexec docker \"${{words[@]}}\"\n"
    );
    write_program(&path, &text);
    path
}

/// Changes one of the files that the launcher sends to the sidecar.
const TOLD: &str = r#"
    my ($file, $change) = @ARGV;
    $| = 1;
    while (<STDIN>) {
        if (/^file (\S+) (\d+)$/) {
            my $name = $1;
            read STDIN, $_, $2;
            eval "$change; 1" or die if $name eq $file;
            print "file $name ", length, "\n";
        }
        print;
    }
"#;

/// What is done to docker's words, and what the refusal must speak of.
const TAMPERED: [(&str, &str, &str); 18] = [
    (
        "a sidecar that does nothing",
        "[ \"$role\" = proxy ] && words=(create --entrypoint sleep \"${words[@]:1}\" 1000)",
        "its proxy did not come up",
    ),
    (
        "a network on which the machine has an address",
        "[ \"$1 ${2-}\" = 'network create' ] && { without '--opt=*'; }",
        "its network has a router|could be reached",
    ),
    (
        "a network with a way out",
        "[ \"$1 ${2-}\" = 'network create' ] && { without '--opt=*'; without --internal; }",
        "its network has a router|could be reached",
    ),
    (
        "a second network",
        "[ \"$1\" = start ] && [[ $* != *-proxy ]] && docker network connect bridge \"${@: -1}\"",
        "it is on 2 networks instead of one",
    ),
    (
        "IPv6 on the link",
        "[ \"$1 ${2-}\" = 'network create' ] && words=(network create --ipv6 --subnet fd77:78::/64 \"${words[@]:2}\")",
        "its network has IPv6",
    ),
    ("a capability", "[ \"$role\" = agent ] && without --cap-drop=ALL", "a capability is left"),
    (
        "new privileges",
        "[ \"$role\" = agent ] && without --security-opt=no-new-privileges",
        "a program could gain privileges",
    ),
    (
        "no seccomp",
        "[ \"$role\" = agent ] && { without '--security-opt=seccomp=*'; words=(create --security-opt=seccomp=unconfined \"${words[@]:1}\"); }",
        "system calls are not filtered",
    ),
    ("no init", "[ \"$role\" = agent ] && without --init", "`--init` is missing"),
    ("no filter", "told filter next", "the proxy could not be started"),
    ("a broken filter", "told filter '$_ .= qq([\n)'", "the proxy could not be started"),
    (
        "no denial by default",
        "told tinyproxy.conf 's/^FilterDefaultDeny.*//m'",
        "the proxy could not be started",
    ),
    (
        "a broken configuration",
        "told tinyproxy.conf '$_ .= qq(Nonsense\n)'",
        "the proxy could not be started",
    ),
    ("a filter that admits everything", "told filter '$_ = qq(.\n)'", "the proxy could not be started"),
    (
        "a sidecar that cannot lay routes",
        "[ \"$role\" = proxy ] && without --cap-add=NET_ADMIN",
        "the proxy could not be started",
    ),
    (
        "a sidecar that is nowhere",
        "[ \"$1 ${2-}\" = 'network connect' ] && exit 0",
        "the proxy could not be started",
    ),
    (
        "a sidecar that does not start",
        "[ \"$1\" = start ] && [[ $* == *-proxy ]] && { echo 'no such luck' >&2; exit 1; }",
        "the proxy could not be started",
    ),
    (
        "a sidecar that is not created",
        "[ \"$role\" = proxy ] && { echo 'no space left on device' >&2; exit 1; }",
        "the proxy's container",
    ),
];

#[test]
fn a_sandbox_that_is_not_as_it_should_be_starts_no_agent() {
    // They mostly wait, so a few at a time.
    let wrong: Vec<String> = thread::scope(|scope| {
        let some: Vec<_> = TAMPERED
            .chunks(TAMPERED.len().div_ceil(4))
            .map(|some| scope.spawn(|| some.iter().filter_map(started_all_the_same).collect::<Vec<_>>()))
            .collect();
        some.into_iter().flat_map(|some| some.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
    // And untampered, by the same way, it does.
    let (world, list) = restricted("", ALLOWLIST);
    let program = tampering(&world, "");
    configure(&world, &format!("docker = \"{}\"", program.display()));
    world.run_pi(&[&list, "shell", "--", "touch", "ran"]).is(0, "", "");
    assert!(world.repo().join("ran").exists());
}

/// What is wrong with how this was refused, if anything.
fn started_all_the_same(&(name, body, reason): &(&str, &str, &str)) -> Option<String> {
    let (world, list) = restricted("", ALLOWLIST);
    let program = tampering(&world, body);
    configure(&world, &format!("docker = \"{}\"", program.display()));
    let begun = Instant::now();
    let Outcome { code, out, err, .. } = world.run_pi(&[&list, "shell", "--", "touch", "ran"]);
    let took = begun.elapsed();
    let errors = err.lines().filter(|line| line.starts_with("pi: error: ")).count();
    let reasoned = reason.split('|').any(|reason| err.contains(reason));
    let ran = world.repo().join("ran").exists();
    configure(&world, "");
    world.assert_nothing_left();
    let good = code == Some(125) && out.is_empty() && errors == 1 && reasoned && !ran;
    (!good).then(|| format!("{name}: {code:?} after {took:?}, ran: {ran}: {out}{err}"))
}

#[test]
fn a_sidecar_without_an_image_starts_nothing() {
    let (world, list) = restricted("", ALLOWLIST);
    let settings = fs::read_to_string(world.config_file()).unwrap();
    let own = settings.lines().find(|line| line.starts_with("proxy = ")).unwrap_or("[images]").to_owned();
    // Nobody listens there.
    let nowhere = "proxy = \"localhost:1/nowhere:1\"";
    let nowhere = if own == "[images]" { format!("{own}\n{nowhere}") } else { nowhere.to_owned() };
    write(world.config_file(), settings.replace(&own, &nowhere));
    let outcome = world.run_pi(&[&list, "shell", "--", "touch", "ran"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(125), ""), "{outcome:?}");
    assert!(outcome.err.contains("could not build the image `pi-proxy:"), "{outcome:?}");
    assert!(!world.repo().join("ran").exists());
    configure(&world, "");
    world.assert_nothing_left();
}

#[test]
fn an_open_proxy_is_not_taken_for_a_sidecar() {
    let (world, list) = restricted("", ALLOWLIST);
    prepare(&world);
    let entry =
        weak_sidecar(&world, &[("return is_refusal($answer)", "return 1"), ("Filter \\\"$filter\\\"", "")]);
    let mut script = Script::of(&world, &[&list], &["shell", "--", "touch", "ran"]);
    script.sidecar_runs(&entry);
    script.replace("FilterDefaultDeny Yes\n", "");
    let outcome = script.start(&world).wait();
    let error = "pi: error: the sandbox is not safe, so nothing was started: its proxy did not refuse a made-up name\n";
    outcome.is(125, "", error);
    assert!(!world.repo().join("ran").exists());
    world.assert_nothing_left();
}
