//! What the agent's container is, and what it has of the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::table;
use crate::world::{
    World,
    files::{write, write_program},
    model::docker,
    wait::until_true,
};

#[test]
fn the_container_is_what_was_promised() {
    let world = World::with_model();
    let script = r#"
        grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status | tr -s ':\t ' ' '
        echo "init $(tr '\0' ' ' </proc/1/cmdline | cut -d' ' -f1)"
        echo "uid $(id -u):$(id -g) $(id -un)"
        echo "home $HOME"
        echo "pwd $PWD"
        echo "nofile $(ulimit -Hn)"
        echo "core $(ulimit -Hc)"
        echo "tmp $(df -B1 --output=size /tmp | tail -n 1 | tr -d ' ') $(grep ' /tmp ' /proc/mounts | cut -d' ' -f4 | tr , '\n' | grep -E '^(nosuid|nodev|noexec)$' | sort | xargs)"
        cp /bin/true /tmp/run && /tmp/run && echo "tmp-exec yes"
        for place in / /etc /usr/bin /usr/local/lib/pi /var/tmp /root /run; do
            if touch "$place/x" 2>/dev/null; then echo "write-$place yes"; else echo "write-$place no"; fi
        done
        for place in "$HOME" "$HOME/.cache" "$HOME/.config" "$TMPDIR" "$HOME/.cache/lang" /tmp /dev/shm .; do
            if touch "$place/x" 2>/dev/null && rm "$place/x"; then :; else echo "cannot-write $place"; fi
        done
        echo "sockets $(find / -xdev -name '*.sock' 2>/dev/null | xargs)"
        echo "devices $(find /dev -type b | xargs)$(ls -d /dev/kmsg /dev/mem /dev/fuse /dev/kvm 2>/dev/null | xargs)"
        echo "setuid $(find / -xdev -perm /6000 -type f -exec sh -c 'find "$1" -newer /proc/1 ' _ {} \; 2>/dev/null | xargs)"
        cd /sys/fs/cgroup
        if [ -e memory.max ]; then
            echo "memory $(cat memory.max) swap $(cat memory.swap.max)"
            echo "pids $(cat pids.max)"
            echo "cpus $(awk '{ print $1 / $2 }' cpu.max)"
        else
            limit=$(cat memory/memory.limit_in_bytes)
            echo "memory $limit swap $(($(cat memory/memory.memsw.limit_in_bytes) - limit))"
            echo "pids $(cat pids/pids.max)"
            echo "cpus $(awk '{ q = $1; getline <"cpu/cpu.cfs_period_us"; print q / $1 }' cpu/cpu.cfs_quota_us)"
        fi
    "#;
    let said = world.shell(&[], script).good();
    let cpus = std::thread::available_parallelism().unwrap().get().min(2).to_string();
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let (files, pwd) = (files.min(16384).to_string(), world.repo().to_str().unwrap());
    let uid = format!("{}:{} pi", world.owner().uid, world.owner().gid);
    let groups = world.owner().gid.to_string();
    let none = "0000000000000000";
    let expected: BTreeMap<&str, &str> = [
        ("CapInh", none),
        ("CapPrm", none),
        ("CapEff", none),
        ("CapBnd", none),
        ("CapAmb", none),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Groups", groups.as_str()),
        ("init", "/sbin/docker-init"),
        ("uid", &uid),
        ("home", "/home/pi"),
        ("pwd", pwd),
        ("nofile", &files),
        ("core", "0"),
        ("tmp", "1073741824 nodev nosuid"),
        ("tmp-exec", "yes"),
        ("write-/", "no"),
        ("write-/etc", "no"),
        ("write-/usr/bin", "no"),
        ("write-/usr/local/lib/pi", "no"),
        ("write-/var/tmp", "no"),
        ("write-/root", "no"),
        ("write-/run", "no"),
        ("sockets", ""),
        ("devices", ""),
        ("setuid", ""),
        ("memory", "4294967296 swap 0"),
        ("pids", "1024"),
        ("cpus", &cpus),
    ]
    .into();
    let said: BTreeMap<&str, &str> =
        table(&said).into_iter().map(|(key, value)| (key, value.trim())).collect();
    assert_eq!(said, expected);
}

#[test]
fn nothing_of_the_host_is_mounted_but_what_was_promised() {
    let world = World::with_model();
    write(world.home().join(".ssh/id_ed25519"), "a key\n");
    write(world.home().join(".agents/skills/a/SKILL.md"), "x\n");
    let said = world
        .shell(&[], "awk '{ split($6, o, \",\"); for (i = 7; $i != \"-\"; i++); print $5, o[1], $(i + 1) }' /proc/self/mountinfo; ls -a ~/.ssh 2>&1 || true")
        .good();
    // What an engine mounts by itself, all of it of the kernel's or of the container's own making.
    let of_the_engine = |place: &str, kind: &str| {
        let kernel = ["proc", "sysfs", "cgroup", "cgroup2", "tmpfs", "devpts", "mqueue"].contains(&kind);
        (kernel && ["/proc", "/sys", "/dev"].iter().any(|top| Path::new(place).starts_with(top)))
            || [
                "/sbin/docker-init", "/usr/sbin/docker-init", "/etc/resolv.conf", "/etc/hostname",
                "/etc/hosts",
            ]
            .contains(&place)
    };
    let mounts: BTreeSet<String> = said
        .lines()
        .filter_map(|line| {
            let [place, access, kind] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
            (place.starts_with('/') && !of_the_engine(place, kind)).then(|| format!("{place} {access}"))
        })
        .collect();
    let expected: BTreeSet<String> = [
        "/ ro".to_owned(),
        "/tmp rw".to_owned(),
        "/home/pi rw".to_owned(),
        "/home/pi/.agents rw".to_owned(),
        "/home/pi/.agents/skills ro".to_owned(),
        "/home/pi/.pi rw".to_owned(),
        "/home/pi/.pi/agent rw".to_owned(),
        "/home/pi/.pi/agent/.pi-left rw".to_owned(),
        "/home/pi/.pi/agent/auth.json rw".to_owned(),
        "/home/pi/.pi/agent/models.json ro".to_owned(),
        "/home/pi/.pi/agent/sessions rw".to_owned(),
        format!(
            "/home/pi/.pi/agent/sessions/--{}-- rw",
            world.repo().display().to_string()[1..].replace('/', "-")
        ),
        "/home/pi/.pi/agent/settings.json rw".to_owned(),
        "/home/pi/.pi/agent/trust.json rw".to_owned(),
        format!("{} rw", world.repo().display()),
        // A git directory of its own, and the objects that it borrows.
        format!("{} rw", world.repo().join(".git").display()),
        "/run/pi/objects/0 ro".to_owned(),
    ]
    .into();
    assert_eq!(mounts, expected);
    assert!(said.contains("No such file or directory"), "{said}");
}

#[test]
fn the_environment_is_built_from_nothing() {
    let world = World::with_model();
    let proxies = r#"{"proxies":{"default":{"httpProxy":"http://injected:1","httpsProxy":"http://injected:1","noProxy":"injected","ftpProxy":"http://injected:1","allProxy":"http://injected:1"}}}"#;
    write(world.home().join(".docker/config.json"), proxies);
    let said = world
        .shell(
            &["--env", "GIVEN", "--env", "SET=to = this", "--env", "ABSENT", "--quiet"],
            "env -0 | tr '\\n\\0' '~\\n'",
        )
        .env("GIVEN", "two words")
        .env("PRIVATE", "not for the agent")
        .env("GIT_DIR", "/nowhere")
        .env("NODE_OPTIONS", "--no-such-option")
        .env("BASH_ENV", "/nowhere")
        .env("BASH_FUNC_ls%%", "() { echo hijacked; }")
        .env("SSH_AUTH_SOCK", "/nowhere")
        .env("NOT_UTF8", <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff\xfe"))
        .env("COLORTERM", "truecolor")
        .env("TZ", "Europe/Berlin")
        .good();
    let mut said: BTreeMap<String, String> = said
        .lines()
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let host = said.remove("HOSTNAME").unwrap();
    assert!(host.len() == 12 && host.chars().all(|c| c.is_ascii_hexdigit()), "{host}");
    let image = world.image(&[]);
    let of_the_image = docker(&["image", "inspect", "--format", "{{json .Config.Env}}", &image]);
    let of_the_image: Vec<String> = serde_json::from_str(&of_the_image).unwrap();
    let mut expected: BTreeMap<String, String> = of_the_image
        .iter()
        .map(|line| line.split_once('=').unwrap())
        .chain(
            ["ALL_PROXY", "FTP_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "all_proxy", "ftp_proxy"]
                .into_iter()
                .chain(["https_proxy", "http_proxy", "no_proxy"])
                .map(|name| (name, "")),
        )
        .chain([
            ("COLORTERM", "truecolor"),
            ("GIVEN", "two words"),
            ("HOME", "/home/pi"),
            ("LANG", "C.UTF-8"),
            ("LOGNAME", "pi"),
            ("PI_SKIP_VERSION_CHECK", "1"),
            ("PI_TELEMETRY", "0"),
            ("PWD", world.repo().to_str().unwrap()),
            ("SET", "to = this"),
            ("TERM", "xterm-256color"),
            ("TZ", "Europe/Berlin"),
            ("USER", "pi"),
            ("GIT_CONFIG_COUNT", "9"),
        ])
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let git = [
        ("safe.directory", "*"),
        ("commit.gpgsign", "false"),
        ("tag.gpgsign", "false"),
        ("push.default", "current"),
        ("branch.autoSetupMerge", "false"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("user.name", "Test Person"),
        ("user.email", "person@example.com"),
    ];
    for (n, (key, value)) in git.into_iter().enumerate() {
        expected.insert(format!("GIT_CONFIG_KEY_{n}"), key.to_owned());
        expected.insert(format!("GIT_CONFIG_VALUE_{n}"), value.to_owned());
    }
    assert_eq!(said, expected);
    for name in ["DOCKER_HOST", "PATH", "HOME", "LD_PRELOAD", "PI_BOX_PROXY", "GIT_CONFIG_COUNT", "1A", ""] {
        let refused = world.shell(&["--env", &format!("{name}=x")], "true").run();
        assert!(
            refused.code == Some(2) && refused.err.contains("cannot be given to the agent"),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn a_key_that_the_user_wants_inside_is_seen_nowhere_else() {
    const CANARY: &str = "sk-canary-5f0e1d2c";
    let world = World::with_model();
    // Every call of docker is noted before it is made.
    let notes = world.root().join("notes");
    let wrapper = world.root().join("docker-with-notes");
    let text = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >>'{}'\nexec docker \"$@\"\n", notes.display());
    write_program(&wrapper, &text);
    world.configure(&format!("docker = \"{}\"\nkeys = \"env\"", wrapper.display()));
    let script = "touch up; until [ -e go ]; do sleep 0.05; done; echo \"$ANTHROPIC_API_KEY $OTHER\"";
    let call = |options: &[&str]| {
        let options = [&["--env", "OTHER"], options].concat();
        world.shell(&options, script).env("ANTHROPIC_API_KEY", CANARY).env("OTHER", CANARY)
    };
    let running = call(&["--verbose"]).start();
    until_true("the session", || world.repo().join("up").exists());
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path().join("cmdline");
        if fs::read(&path).is_ok_and(|line| String::from_utf8_lossy(&line).contains(CANARY)) {
            seen.push(path);
        }
    }
    let mut state = vec![world.home().join(".local/state")];
    while let Some(path) = state.pop() {
        if path.is_dir() {
            state.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if fs::read(&path).is_ok_and(|text| String::from_utf8_lossy(&text).contains(CANARY)) {
            seen.push(path);
        }
    }
    write(world.repo().join("go"), "");
    let done = running.wait();
    assert_eq!((done.code, done.out), (Some(0), format!("{CANARY} {CANARY}\n")));
    assert_eq!(seen, Vec::<std::path::PathBuf>::new());
    assert!(done.err.contains("+ docker create") && !done.err.contains(CANARY), "{}", done.err);
    let notes = fs::read_to_string(&notes).unwrap();
    assert!(notes.contains("ANTHROPIC_API_KEY\n") && !notes.contains(CANARY), "{notes}");
    for form in ["--dry-run", "--dry-run=json"] {
        let planned = call(&[form]).run().out;
        assert!(planned.contains("ANTHROPIC_API_KEY") && !planned.contains(CANARY), "{planned}");
    }
}
