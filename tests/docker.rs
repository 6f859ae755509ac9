//! What a session promises, on a real engine, with the real agent and a scripted model. One test for each promise; one
//! container serves many questions about itself.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use common::PATIENCE;
use common::real::{Done, Terminal, Who, World, docker, model, myself, run, until};

const ECHO: [&str; 3] = ["-p", "--model", "demo/echo"];

/// The lines of a section of the agent's help.
fn section<'a>(help: &'a str, title: &str) -> Vec<&'a str> {
    let lines = help.lines().skip_while(|line| *line != title).skip(1);
    lines.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("      ")).collect()
}

#[test]
fn every_flag_and_every_command_of_the_real_agent_is_known_for_what_it_is() {
    let world = World::new("flags");
    let help = world.pi(&["--", "--help"]).good();
    let flags: Vec<&str> = section(&help, "Options:")
        .iter()
        .flat_map(|line| line.trim_start().split("  ").next().unwrap().split([',', ' ', '<', '[']))
        .filter(|word| word.len() > 1 && word.starts_with('-') && *word != "--")
        .collect();
    assert!(flags.contains(&"--model") && flags.contains(&"-nt") && flags.len() > 40, "{flags:?}");
    // These the launcher answers itself, for both.
    for flag in flags.iter().filter(|flag| !["--help", "-h", "--version", "-v", "--verbose"].contains(flag)) {
        let passed = world.pi(&["--dry-run=json", flag, "word"]).run();
        assert_eq!(passed.code, Some(0), "{flag}: {passed:?}");
        let plan: serde_json::Value = serde_json::from_str(&passed.out).unwrap();
        let words: Vec<&str> =
            plan["agent"]["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert!(words.ends_with(&[flag, "word"]), "{words:?}");
    }
    let commands: Vec<&str> =
        section(&help, "Commands:").iter().filter_map(|line| line.trim_start().split(' ').nth(1)).collect();
    assert!(commands.contains(&"install") && commands.len() > 5, "{commands:?}");
    for command in commands.iter().filter(|command| !command.starts_with('<')) {
        let plan = world.pi(&["--dry-run=json", command, "npm:word"]).good();
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        assert_eq!(plan["agent"]["command"], serde_json::json!(["pi", command, "npm:word"]));
    }
}

/// Lines of `name value`, as a map.
fn table(text: &str) -> BTreeMap<&str, &str> {
    text.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect()
}

// The agent, as the bare one would behave.

#[test]
fn the_agent_answers_however_it_is_asked_and_its_status_is_ours() {
    let world = World::new("ask");
    let ask = |words: &[&str], stdin: &str| world.pi(words).stdin(stdin).run();
    assert_eq!(ask(&[&ECHO[..], &["hello there"]].concat(), ""), Done::silent(0, "hello there\n"));
    assert_eq!(ask(&["--model", "demo/echo", "--print", "hello"], ""), Done::silent(0, "hello\n"));
    let piped = ask(&ECHO, "from a pipe\n");
    assert_eq!((piped.code, piped.out.trim(), piped.err.as_str()), (Some(0), "from a pipe", ""));
    // Without a terminal the agent prints and ends by itself.
    assert_eq!(ask(&["--model", "demo/echo", "hello"], ""), Done::silent(0, "hello\n"));
    assert_eq!(ask(&["--", "-p", "--model", "demo/echo", "hello"], ""), Done::silent(0, "hello\n"));
    let failed = ask(&["-p", "--model", "demo/unknown", "hello"], "");
    assert_eq!((failed.code, failed.out.as_str()), (Some(1), ""), "{failed:?}");
    assert!(failed.err.contains("no script for unknown"), "{failed:?}");
    let help = ask(&["--", "--help"], "");
    assert_eq!(help, Done::silent(0, &world.shell(&[], "cat /usr/local/share/pi/agent-help.txt").good()));
}

#[test]
fn a_command_in_the_sandbox_ends_with_its_own_status() {
    let world = World::new("status");
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("exit 125", 125), ("kill -9 $$", 137), ("kill -15 $$", 143)]
    {
        assert_eq!(world.shell(&[], script).run(), Done::silent(code, ""), "{script}");
    }
    let missing = world.pi(&["shell", "--", "no-such-program"]).run();
    assert_eq!((missing.code, missing.out.as_str()), (Some(127), ""), "{missing:?}");
    assert!(missing.err.contains("no-such-program"), "{missing:?}");
}

#[test]
fn the_agent_edits_the_repository_and_runs_commands_in_it() {
    let world = World::new("edit");
    assert_eq!(world.pi(&["-p", "--model", "demo/write", "write the file"]).good(), "The file is written.\n");
    let file = world.repo.join("hello.txt");
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello from the model\n");
    let meta = fs::metadata(&file).unwrap();
    assert_eq!(Who { uid: meta.uid(), gid: meta.gid() }, world.owner);
    let sub = world.repo.join("below/here");
    world.make_dir(&sub);
    let said = world.pi(&["-p", "--model", "demo/bash", "run: pwd; cat ../../hello.txt"]).cwd(&sub).good();
    assert_eq!(said, format!("{}\nhello from the model\n\n", sub.display()));
}

#[test]
fn sessions_last_are_continued_and_are_kept_apart_per_project() {
    let world = World::new("sessions");
    let other = world.base().join("home/projects/other");
    world.make_dir(&other);
    world.git(&other, &["init", "--quiet"]);
    world.pi(&[&ECHO[..], &["remember the first word"]].concat()).good();
    world.pi(&["-c", "-p", "--model", "demo/echo", "and the second"]).good();
    world.pi(&["-c", "-p", "--model", "demo/echo", "elsewhere"]).cwd(&other).good();
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    for project in fs::read_dir(world.home.join(".pi/agent/sessions")).unwrap() {
        for file in fs::read_dir(project.unwrap().path()).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            let head: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            let said = ["remember the first word", "and the second", "elsewhere"];
            found.push((
                head["cwd"].as_str().unwrap().to_owned(),
                said.into_iter().filter(|words| text.contains(words)).collect(),
            ));
        }
    }
    found.sort();
    let expected = [
        (other.to_str().unwrap().to_owned(), vec!["elsewhere"]),
        (world.repo.to_str().unwrap().to_owned(), vec!["remember the first word", "and the second"]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_the_user_installs_lasts_and_what_a_session_installs_does_not() {
    let world = World::new("install");
    let agent = world.home.join(".pi/agent");
    let extension = "export default (pi) => pi.registerCommand(\"hi\", { description: \"x\", handler: async () => {} });\n";
    world.write(world.repo.join("extension.ts"), extension);
    world.write(agent.join("extensions/old.ts"), extension);
    let settings = agent.join("settings.json");
    let installed = world.pi(&["install", "./extension.ts"]).run();
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let after = fs::read_to_string(&settings).unwrap();
    assert!(after.contains("extension.ts"), "{after}");
    assert_eq!(fs::metadata(&settings).unwrap().uid(), world.owner.uid);
    let listed = world.pi(&["list"]).run();
    assert!(listed.code == Some(0) && listed.out.contains("extension.ts"), "{listed:?}");
    let tried = world.shell(
        &[],
        "cd ~/.pi/agent
         try() { if (eval \"$2\") 2>/dev/null; then echo \"$1 done\"; else echo \"$1 refused\"; fi; }
         try settings 'echo x >settings.json'
         try settings-away 'mv settings.json y'
         try settings-removed 'rm -f settings.json'
         try models 'echo x >>models.json'
         try extension 'echo x >extensions/old.ts'
         try new-extension 'echo x >extensions/new.ts'
         try extensions-away 'mv extensions elsewhere'
         try new-prompts 'mkdir prompts && echo x >prompts/x.md'
         try login 'echo {\\\"a\\\":{}} >auth.json'
         try session 'echo x >sessions/x'",
    );
    let expected = "settings refused\nsettings-away refused\nsettings-removed refused\nmodels refused\n\
                    extension refused\nnew-extension refused\nextensions-away refused\nnew-prompts done\n\
                    login done\nsession done\n";
    assert_eq!(tried.good(), expected);
    assert_eq!(fs::read_to_string(&settings).unwrap(), after);
    assert_eq!(fs::read_to_string(agent.join("extensions/old.ts")).unwrap(), extension);
    assert_eq!(fs::read_to_string(agent.join("auth.json")).unwrap(), "{\"a\":{}}\n");
    let names: BTreeSet<String> = fs::read_dir(&agent)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = ["auth.json", "bin", "extensions", "models.json", "sessions", "settings.json"];
    assert_eq!(
        names.iter().map(String::as_str).filter(|name| *name != "models-store.json").collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn skills_are_there_to_be_read() {
    let world = World::new("skills");
    let skill = ".agents/skills/greet/SKILL.md";
    world
        .write(world.home.join(skill), "---\nname: greet\ndescription: How to greet here\n---\nSay hello.\n");
    let script = format!("cat ~/{skill} | tail -n 1; (echo x >~/{skill}) 2>/dev/null || echo refused");
    assert_eq!(world.shell(&[], &script).good(), "Say hello.\nrefused\n");
    // The agent offers it to the model as a command of its own.
    let said = world.pi(&["-p", "--model", "demo/echo", "/skill:greet now"]).good();
    assert!(said.contains("Say hello."), "{said}");
}

// The walls.

#[test]
fn the_container_is_what_was_promised() {
    let world = World::new("facts");
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
    let (files, pwd) = (files.min(65536).to_string(), world.repo.to_str().unwrap());
    let uid = format!("{}:{} pi", world.owner.uid, world.owner.gid);
    let groups = world.owner.gid.to_string();
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
    let world = World::new("mounts");
    world.write(world.home.join(".ssh/id_ed25519"), "a key\n");
    world.write(world.home.join(".agents/skills/a/SKILL.md"), "x\n");
    let said = world
        .shell(&[], "awk '{ split($6, o, \",\"); for (i = 7; $i != \"-\"; i++); print $5, o[1], $(i + 1) }' /proc/self/mountinfo; ls -a ~/.ssh 2>&1 || true")
        .good();
    // What an engine mounts by itself, all of it of the kernel's or of the container's own making.
    let of_the_engine = |place: &str, kind: &str| {
        let kernel = ["proc", "sysfs", "cgroup", "cgroup2", "tmpfs", "devpts", "mqueue"].contains(&kind);
        (kernel && ["/proc", "/sys", "/dev"].iter().any(|top| Path::new(place).starts_with(top)))
            || [
                "/sbin/docker-init",
                "/usr/sbin/docker-init",
                "/etc/resolv.conf",
                "/etc/hostname",
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
        "/home/pi/.cache/lang rw".to_owned(),
        "/home/pi/.agents/skills ro".to_owned(),
        "/home/pi/.pi/agent/auth.json rw".to_owned(),
        "/home/pi/.pi/agent/models.json ro".to_owned(),
        "/home/pi/.pi/agent/sessions rw".to_owned(),
        format!("{} rw", world.repo.display()),
    ]
    .into();
    assert_eq!(mounts, expected);
    assert!(said.contains("No such file or directory"), "{said}");
}

#[test]
fn the_environment_is_built_from_nothing() {
    let world = World::new("env");
    let proxies = r#"{"proxies":{"default":{"httpProxy":"http://injected:1","httpsProxy":"http://injected:1","noProxy":"injected","ftpProxy":"http://injected:1","allProxy":"http://injected:1"}}}"#;
    world.write(world.home.join(".docker/config.json"), proxies);
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
    let image = world.plan(&[])["agent"]["image"].as_str().unwrap().to_owned();
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
            ("PWD", world.repo.to_str().unwrap()),
            ("SET", "to = this"),
            ("TERM", "xterm-256color"),
            ("TZ", "Europe/Berlin"),
            ("USER", "pi"),
            ("GIT_CONFIG_COUNT", "7"),
        ])
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let git = [
        ("safe.directory", "*"),
        ("commit.gpgsign", "false"),
        ("tag.gpgsign", "false"),
        ("push.default", "current"),
        ("branch.autoSetupMerge", "false"),
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
fn system_calls_with_a_history_are_refused() {
    let world = World::new("seccomp");
    // Numbers, because the headers are not in the image; 1 is EPERM, which no kernel would say to these by itself.
    let script = r#"
        my %n = `uname -m` =~ /aarch64|arm64/
            ? (socket => 198, keyctl => 219, add_key => 217, bpf => 280, unshare => 97, perf => 241, uffd => 282)
            : (socket => 41, keyctl => 250, add_key => 248, bpf => 321, unshare => 272, perf => 298, uffd => 323);
        sub try { my ($name, $number, @args) = @_; my $got = syscall($number, @args); print "$name ", $got < 0 ? 0 + $! : "done", "\n" }
        my $buffer = "\0" x 256;
        my ($type, $key, $value) = ("user", "key", "value");
        try("inet", $n{socket}, 2, 1, 0);
        try("netlink", $n{socket}, 16, 3, 0);
        try("vsock", $n{socket}, 40, 1, 0);
        try("vsock-beyond-32-bits", $n{socket}, (1 << 32) + 40, 1, 0);
        try("alg", $n{socket}, 38, 5, 0);
        try("alg-beyond-32-bits", $n{socket}, (1 << 32) + 38, 5, 0);
        try("packet", $n{socket}, 17, 3, 0);
        try("io_uring", 425, 4, $buffer);
        try("keyctl", $n{keyctl}, 0, -3, 1);
        try("add_key", $n{add_key}, $type, $key, $value, 5, -3);
        try("bpf", $n{bpf}, 0, $buffer, 72);
        try("user-namespace", $n{unshare}, 0x10000000);
        try("perf", $n{perf}, $buffer, 0, -1, -1, 0);
        try("userfaultfd", $n{uffd}, 0);
    "#;
    let expected = "inet done\nnetlink done\nvsock 1\nvsock-beyond-32-bits 1\nalg 1\nalg-beyond-32-bits 1\npacket 1\n\
                    io_uring 1\nkeyctl 1\nadd_key 1\nbpf 1\nuser-namespace 1\nperf 1\nuserfaultfd 1\n";
    assert_eq!(world.pi(&["shell", "--", "perl", "-e", script]).good(), expected);
}

/// A user like any other, and root where root runs the tests: the agent then has the number 0 and no capability.
fn owners() -> Vec<Who> {
    let root = Who { uid: 0, gid: 0 };
    if myself() == root { vec![World::somebody(), root] } else { vec![myself()] }
}

#[test]
fn the_agent_cannot_trace_read_or_stop_the_init_and_the_supervisor() {
    // Seizing does not stop, and signal 0 only asks: where it is not refused, the session still ends.
    let script = r#"
        my %n = `uname -m` =~ /aarch64|arm64/ ? (ptrace => 117, readv => 270) : (ptrace => 101, readv => 310);
        sub say { my ($name, $done) = @_; print "$name ", $done ? "done" : "refused", "\n" }
        my $child = fork();
        if (!$child) { sleep 600; exit }
        my @them = ([init => 1], [supervisor => getppid], [own => $child]);
        for (@them) {
            my ($name, $pid) = @$_;
            say("$name-trace", syscall($n{ptrace}, 0x4206, $pid, 0, 0) == 0);
            say("$name-memory", open(my $memory, "+<", "/proc/$pid/mem"));
            my ($address) = (`cat /proc/$pid/maps 2>&1` =~ /^([0-9a-f]+)-/);
            my $into = "\0" x 8;
            my ($local, $remote) = (pack("PQ", $into, 8), pack("QQ", hex($address // 0), 8));
            say("$name-read", syscall($n{readv}, $pid, $local, 1, $remote, 1, 0) == 8);
            say("$name-environment", open(my $environment, "<", "/proc/$pid/environ"));
            say("$name-descriptors", readlink("/proc/$pid/fd/0"));
            say("$name-signal", kill 0 => $pid);
        }
        kill KILL => $child;
        print "landlock ", syscall(444, 0, 0, 1), "\n";
        my $yama = open(my $in, "<", "/proc/sys/kernel/yama/ptrace_scope") ? <$in> + 0 : 0;
        print "yama $yama\n";
    "#;
    for owner in owners() {
        let world = World::of("trace", owner);
        world.prepare(myself(), &[]);
        let done = world.pi(&["shell", "--", "perl", "-e", script]).run();
        assert_eq!(done.code, Some(0), "{done:?}");
        let mut said = table(&done.out);
        let mut number = |name| said.remove(name).unwrap().parse::<i32>().unwrap();
        let (landlock, yama) = (number("landlock"), number("yama"));
        let refused_if = |refused: bool| if refused { "refused" } else { "done" };
        let mut expected = BTreeMap::new();
        for who in ["init", "supervisor"] {
            for (what, refused) in [
                ("trace", landlock >= 2 || yama >= 1),
                ("memory", landlock >= 2 || yama >= 1),
                ("read", landlock >= 2 || yama >= 1),
                // Yama asks nobody who only looks.
                ("environment", landlock >= 2),
                ("descriptors", landlock >= 2),
                ("signal", landlock >= 6),
            ] {
                expected.insert(format!("{who}-{what}"), refused_if(refused));
            }
        }
        for what in ["trace", "memory", "read", "environment", "descriptors", "signal"] {
            expected.insert(format!("own-{what}"), "done");
        }
        let said: BTreeMap<String, &str> =
            said.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert_eq!(said, expected, "{owner:?}, Landlock {landlock}, Yama {yama}");
        let warned = done.err.lines().filter(|line| line.contains("neither Landlock")).count();
        assert_eq!(warned, usize::from(landlock < 2 && yama < 1), "{done:?}");
    }
}

#[test]
fn without_landlock_the_start_warns_and_with_half_of_it_there_is_none() {
    let world = World::new("landlock");
    let planned = world.pi(&["--dry-run", "shell", "--", "echo", "it ran"]).good();
    // As a kernel without the call, or an engine that keeps it from a container, would answer. That such a name is
    // skipped, also where a rule has conditions, is what old engines need.
    let without = |names: &[&str]| {
        let script = world.base().join("script");
        let changed = names.iter().fold(planned.clone(), |text, name| {
            assert!(text.contains(name), "{name}: {text}");
            text.replace(name, "no_such_call")
        });
        fs::write(&script, changed).unwrap();
        world.script(&script).run()
    };
    let ask = "perl -e 'print \"landlock \", syscall(444, 0, 0, 1), \"\\n\"'
               echo yama $(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)";
    let answers = world.shell(&[], ask).run().out;
    let answers = table(&answers);
    let number = |name| answers[name].parse::<i32>().unwrap();
    let (landlock, yama) = (number("landlock") >= 2, number("yama") >= 1);
    let warning = "pi: warning: this kernel offers neither Landlock (of Linux 5.19 or newer) nor Yama, so the agent can \
                   take over the first processes of its own container\n";
    let warned = Done { err: if yama { "" } else { warning }.to_owned(), ..Done::silent(0, "it ran\n") };
    assert_eq!(without(&["landlock_create_ruleset", "fchmodat2"]), warned, "{answers:?}");
    let refusal = "pi: error: the sandbox is not safe, so nothing was started: it could not be kept from its supervisor \
                   (Landlock): Operation not permitted\n";
    let half = without(&["landlock_restrict_self"]);
    if landlock {
        assert_eq!((half.code, half.out.as_str(), half.err.as_str()), (Some(125), "", refusal));
    } else {
        assert_eq!(half, warned);
    }
}

#[test]
fn links_and_renames_across_directories_work() {
    let world = World::new("across");
    let script = r#"
        try() { if "$@" 2>&1; then :; else echo "failed: $*"; fi }
        for place in . ~ /tmp ~/.cache/lang; do
            (
                cd "$place" && mkdir -p t/a/below t/b && cd t && echo text >a/file && echo other >b/other
                try ln a/file b/link
                try mv a/file b/file
                try mkfifo a/fifo
                try mv a/below b/below
                try mv -T --exchange b/file a/fifo
                try mv a/fifo a/file
                try mv b/file b/fifo
                try ln -s ../b a/symbolic
                try perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un("a/socket")) or die $!'
                try mv a/socket b/socket
                # A file without a name gets one: O_TMPFILE, linkat.
                try perl -e '
                    my ($directory, $linkat) = `uname -m` =~ /aarch64|arm64/ ? (040000, 37) : (0200000, 265);
                    sysopen(my $file, "a", 020000002 | $directory, 0600) or die $!;
                    my ($from, $to) = ("/proc/self/fd/" . fileno($file) . "\0", "b/nameless\0");
                    syscall($linkat, -100, $from, -100, $to, 0x400) == 0 or die $!'
                try cmp a/file b/link
                ls a b | xargs
            )
        done
        mkdir from && echo moved >from/file
        try mv from /tmp/to && try mv /tmp/to ~/to && try mv ~/to ./back && cat back/file
    "#;
    let tree = "a: file symbolic b: below fifo link nameless other socket\n";
    let said = world.shell(&[], script).good();
    assert_eq!(said, format!("{}moved\n", tree.repeat(4)));
}

#[test]
fn no_file_can_be_made_that_runs_as_its_owner() {
    let script = r#"
        umask 0;
        my $arm = `uname -m` =~ /aarch64|arm64/;
        my %n = $arm ? (openat => 56, mknodat => 33, fchmod => 52, fchmodat => 53)
            : (openat => 257, mknodat => 259, fchmod => 91, fchmodat => 268, open => 2, creat => 85, chmod => 90, mknod => 133);
        sub try {
            my ($name, $number, @args) = @_;
            my $got = syscall($number, @args);
            # What an engine does not know yet is not there at all.
            print "$name ", $got >= 0 ? "done" : $! == 1 || $! == 38 ? "refused" : 0 + $!, "\n";
        }
        open(my $file, ">", "file") or die;
        chmod 0755, "file" or die;
        my ($path, $dir, $how) = ("file\0", ".\0", pack("QQQ", 0102, 04755, 0));
        try("chmod", $n{chmod} // $n{fchmodat}, $n{chmod} ? ($path, 04755) : (-100, $path, 04755));
        try("fchmod", $n{fchmod}, fileno $file, 04755);
        try("fchmodat", $n{fchmodat}, -100, $path, 04755);
        try("fchmodat-both", $n{fchmodat}, -100, $path, 06755);
        try("fchmodat-beyond-16-bits", $n{fchmodat}, -100, $path, (1 << 32) + (1 << 16) + 04755);
        try("fchmodat2", 452, -100, $path, 04755, 0);
        my @new = map { "new$_\0" } 0 .. 6;
        try("openat", $n{openat}, -100, $new[0], 0102, 04755);
        try("openat-nameless", $n{openat}, -100, $dir, 020000002 | ($arm ? 040000 : 0200000), 04755);
        try("openat2", 437, -100, $new[1], $how, 24);
        try("mknodat", $n{mknodat}, -100, $new[2], 0104755, 0);
        try("open", $n{open} // $n{openat}, $n{open} ? () : -100, $new[3], 0102, 04755);
        try("creat", $n{creat} // $n{openat}, $n{creat} ? ($new[4], 04755) : (-100, $new[4], 01101, 04755));
        try("mknod", $n{mknod} // $n{mknodat}, $n{mknod} ? () : -100, $new[5], 0104755, 0);
        # What is usual stays.
        try("mode", $n{fchmodat}, -100, $path, 0750);
        try("set-group", $n{fchmodat}, -100, $path, 02750);
        try("made", $n{openat}, -100, $new[6], 0102, 0640);
        try("opened-with-anything-for-a-mode", $n{openat}, -100, $path, 0, 04755);
        mkdir "dir", 0755 or die;
        system("chmod g+s dir") == 0 or print "chmod g+s failed\n";
        mkdir "dir/below", 0755 or die;
        printf "%04o %04o %04o\n", map { (lstat)[2] & 07777 } "dir", "dir/below", "new6";
        system("chmod u+s file 2>&1; cp file other; install -m 4755 other installed 2>&1");
    "#;
    let expected = "chmod refused; fchmod refused; fchmodat refused; fchmodat-both refused; \
                    fchmodat-beyond-16-bits refused; fchmodat2 refused; openat refused; openat-nameless refused; \
                    openat2 refused; mknodat refused; open refused; creat refused; mknod refused; \
                    mode done; set-group done; made done; opened-with-anything-for-a-mode done; 2755 2755 0640; \
                    chmod: changing permissions of 'file': Operation not permitted; \
                    install: cannot change permissions of 'installed': Operation not permitted; ";
    for owner in owners() {
        let world = World::of("setuid", owner);
        world.prepare(myself(), &[]);
        let done = world.pi(&["shell", "--", "perl", "-e", script]).run();
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(done.out, expected.replace("; ", "\n"), "{owner:?}");
        for entry in fs::read_dir(&world.repo).unwrap() {
            let (path, mode) = {
                let entry = entry.unwrap();
                (entry.path(), entry.metadata().unwrap().mode())
            };
            assert_eq!(mode & 0o4000, 0, "{}: {mode:o}", path.display());
        }
    }
}

#[test]
fn a_providers_key_is_inside_and_nowhere_to_be_seen() {
    const CANARY: &str = "sk-canary-5f0e1d2c";
    let world = World::new("secret");
    // Every call of docker is noted before it is made.
    let notes = world.base().join("notes");
    let wrapper = world.base().join("docker-with-notes");
    world.write(
        &wrapper,
        &format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >>'{}'\nexec docker \"$@\"\n", notes.display()),
    );
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    world.configure(&format!("docker = \"{}\"", wrapper.display()));
    let script = "touch up; until [ -e go ]; do sleep 0.05; done; echo \"$ANTHROPIC_API_KEY $OTHER\"";
    let call = |options: &[&str]| {
        let options = [&["--env", "OTHER"], options].concat();
        world.shell(&options, script).env("ANTHROPIC_API_KEY", CANARY).env("OTHER", CANARY)
    };
    let running = call(&["--verbose"]).start();
    assert!(until(PATIENCE, || world.repo.join("up").exists()), "the session did not start");
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path().join("cmdline");
        if fs::read(&path).is_ok_and(|line| String::from_utf8_lossy(&line).contains(CANARY)) {
            seen.push(path);
        }
    }
    let mut state = vec![world.home.join(".local/state")];
    while let Some(path) = state.pop() {
        if path.is_dir() {
            state.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if fs::read(&path).is_ok_and(|text| String::from_utf8_lossy(&text).contains(CANARY)) {
            seen.push(path);
        }
    }
    world.write(world.repo.join("go"), "");
    let done = running.end();
    assert_eq!((done.code, done.out), (Some(0), format!("{CANARY} {CANARY}\n")));
    assert_eq!(seen, Vec::<std::path::PathBuf>::new());
    assert!(done.err.contains("+ docker create") && !done.err.contains(CANARY), "{}", done.err);
    let notes = fs::read_to_string(&notes).unwrap();
    assert!(notes.contains("ANTHROPIC_API_KEY\n") && !notes.contains(CANARY), "{notes}");
    for form in ["--dry-run", "--dry-run=json"] {
        let planned = call(&[form]).good();
        assert!(planned.contains("ANTHROPIC_API_KEY") && !planned.contains(CANARY), "{planned}");
    }
}

// Who the agent is.

#[test]
fn what_is_written_belongs_to_the_host_user() {
    const NAME: &str = "Zoë \"Q\" O'Neil";
    let root = Who { uid: 0, gid: 0 };
    let user = |uid, gid| Who { uid, gid };
    // The launcher's user, the repository's owner, and who the agent ought to be.
    let cases = if myself().uid == 0 {
        vec![
            (root, root, root),
            (root, user(1000, 1000), user(1000, 1000)),
            (root, user(12345, 12345), user(12345, 12345)),
            (user(1000, 1000), user(1000, 1000), user(1000, 1000)),
            (user(12345, 12345), user(12345, 12345), user(12345, 12345)),
            (user(1000, 20), user(1000, 20), user(1000, 20)),
        ]
    } else {
        // Only root can be somebody else; `.ci/run` runs the suite as root.
        vec![(myself(), myself(), myself())]
    };
    for (launcher, owner, expected) in cases {
        let case = format!("{launcher:?} in a repository of {owner:?}");
        let world = World::of("who", owner);
        world.write(
            world.home.join(".gitconfig"),
            "[user]\n\tname = \"Zoë \\\"Q\\\" O'Neil\"\n\temail = zoe@example.com\n",
        );
        let script = "echo $(id -u):$(id -g) $(id -un) && touch ~/x && mkdir dir && echo text >dir/file \
                      && git add dir && git commit --quiet --message 'a commit' && echo committed";
        world.prepare(launcher, &[]);
        let done = world.pi_by(launcher, &["shell", "--", "sh", "-c", script]).run();
        let Who { uid, gid } = expected;
        let said = format!("{uid}:{gid} pi\ncommitted\n");
        assert_eq!((done.code, done.out.as_str()), (Some(0), said.as_str()), "{case}: {done:?}");
        let warned = done.err.contains("runs as root without any capability");
        assert_eq!(warned, expected == root, "{case}: {done:?}");
        for path in ["dir", "dir/file", ".git/index", ".git/HEAD"] {
            let meta = fs::metadata(world.repo.join(path)).unwrap();
            assert_eq!(Who { uid: meta.uid(), gid: meta.gid() }, expected, "{case}: {path}");
        }
        let log = world.git(&world.repo, &["log", "--format=%an|%ae|%cn|%ce"]);
        assert_eq!(log, format!("{NAME}|zoe@example.com|{NAME}|zoe@example.com\n"), "{case}");
        let said = world.pi_by(launcher, &["-p", "--model", "demo/write", "write"]).run();
        assert_eq!(said.code, Some(0), "{case}: {said:?}");
        assert_eq!(fs::metadata(world.repo.join("hello.txt")).unwrap().uid(), uid, "{case}");
    }
}

#[test]
fn a_repositorys_own_identity_wins() {
    let world = World::new("identity");
    world.git(&world.repo, &["config", "user.name", "Somebody Else"]);
    world.shell(&[], "git commit --quiet --allow-empty --message x").good();
    assert_eq!(world.git(&world.repo, &["log", "--format=%an|%ae"]), "Somebody Else|person@example.com\n");
}

#[test]
fn git_works_in_a_linked_worktree_and_in_a_submodule() {
    let world = World::new("worktree");
    let (tree, library) =
        (world.base().join("home/projects/tree"), world.base().join("home/projects/library"));
    world.git(&world.repo, &["commit", "--quiet", "--allow-empty", "--message", "first"]);
    world.git(&world.repo, &["worktree", "add", "--quiet", tree.to_str().unwrap()]);
    world.make_dir(&library);
    world.git(&library, &["init", "--quiet"]);
    world.git(&library, &["commit", "--quiet", "--allow-empty", "--message", "library"]);
    let add =
        ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.to_str().unwrap(), "sub"];
    world.git(&world.repo, &add);
    let script =
        "git status --short && git commit --quiet --allow-empty --message inside && git log --format=%s";
    let inside = |dir: &Path| world.shell(&[], script).cwd(dir).good();
    assert_eq!(inside(&tree), "inside\nfirst\n");
    assert_eq!(inside(&world.repo.join("sub")), "inside\nlibrary\n");
    // And with the whole of it in sight, the submodule too.
    let script = "git commit --quiet --message 'add it' && git submodule status | cut -c 43- && git -C sub log --format=%s";
    assert_eq!(world.shell(&[], script).good().replace(" (heads/main)", ""), "sub\ninside\nlibrary\n");
    assert_eq!(world.git(&tree, &["log", "--format=%s"]), "inside\nfirst\n");
}

#[test]
fn borrowed_objects_are_refused_until_they_are_mounted() {
    let world = World::new("alternates");
    let lender = world.base().join("home/projects/lender");
    world.make_dir(&lender);
    world.git(&lender, &["init", "--quiet"]);
    world.git(&lender, &["commit", "--quiet", "--allow-empty", "--message", "lent"]);
    let borrower = world.base().join("home/projects/borrower");
    let clone = ["clone", "--quiet", "--shared", lender.to_str().unwrap(), borrower.to_str().unwrap()];
    world.git(&world.repo, &clone);
    let refused = world.shell(&[], "git log --format=%s").cwd(&borrower).run();
    let objects = lender.join(".git/objects");
    let expected = format!(
        "pi: error: this repository borrows objects from `{0}`, which is outside of it\npi: hint: allow it with \
         `--mount {0}:ro`, or run `git repack -ad` in it and remove `info/alternates`\n",
        objects.display()
    );
    assert_eq!((refused.code, refused.err), (Some(125), expected));
    let mount = format!("{}:ro", objects.display());
    assert_eq!(world.shell(&["--mount", &mount], "git log --format=%s").cwd(&borrower).good(), "lent\n");
}

#[test]
fn a_repository_may_lie_in_a_directory_of_any_name() {
    for (name, directory) in [
        ("odd", "with space, comma; \"quotes\" 'single' co:lon $HOME `x` \\ ünï→ *"),
        ("newline", "two\nlines"),
        ("dash", "-rf"),
        ("equals", "a=b,readonly"),
    ] {
        let world = World::at(name, World::somebody(), directory.as_ref());
        let script =
            "pwd; git commit --quiet --allow-empty --message x && git log --format=%s; echo text >file";
        let said = world.shell(&[], script).good();
        assert_eq!(said, format!("{}\nx\n", world.repo.display()));
        assert_eq!(fs::read_to_string(world.repo.join("file")).unwrap(), "text\n");
        assert_eq!(world.pi(&["-p", "--model", "demo/write", "write"]).good(), "The file is written.\n");
        assert_eq!(fs::read_to_string(world.repo.join("hello.txt")).unwrap(), "hello from the model\n");
    }
}

// Languages and images.

#[test]
fn go_builds_and_tests_and_keeps_its_caches() {
    let world = World::new("go");
    for (path, text) in [
        (
            "go.mod",
            "module example.com/app\n\ngo 1.24\n\nrequire example.com/greeting v0.0.0\n\nreplace example.com/greeting => ./greeting\n",
        ),
        (
            "main.go",
            "package main\n\nimport (\n\t\"fmt\"\n\n\t\"example.com/greeting\"\n)\n\nfunc main() { fmt.Println(greeting.Word()) }\n",
        ),
        ("main_test.go", "package main\n\nimport \"testing\"\n\nfunc TestNothing(t *testing.T) {}\n"),
        ("greeting/go.mod", "module example.com/greeting\n\ngo 1.24\n"),
        ("greeting/greeting.go", "package greeting\n\nfunc Word() string { return \"hello\" }\n"),
    ] {
        world.write(world.repo.join(path), text);
    }
    world.prepare(myself(), &["--lang", "go"]);
    let first = "go build -o app . && ./app && go test ./... && touch \"$(go env GOMODCACHE)/kept\" \
                 && mkdir -p ~/go/bin && go version";
    // The first time, the standard library is compiled as well.
    let done = world.shell(&[], first).limit(Duration::from_secs(300)).run();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.err, "pi: using the go image, because there is a `go.mod`\n");
    assert!(
        done.out.starts_with("hello\nok  \texample.com/app") && done.out.contains("go version go1.26"),
        "{done:?}"
    );
    // In the next session the same test needs no second run, and the module cache is the same one.
    let second = "go test ./... && ls \"$(go env GOMODCACHE)\"";
    let said = world.shell(&["--lang", "go"], second).good();
    assert!(said.contains("(cached)") && said.ends_with("kept\n"), "{said}");
}

#[test]
fn php_and_composer_work_in_both_versions() {
    let world = World::new("php");
    world.write(
        world.repo.join("library/composer.json"),
        r#"{"name": "example/greeting", "version": "1.0.0", "autoload": {"files": ["greeting.php"]}}"#,
    );
    world.write(
        world.repo.join("library/greeting.php"),
        "<?php function greeting(): string { return 'hello'; }\n",
    );
    let composer = |constraint: &str| {
        let text = serde_json::json!({
            "name": "example/app",
            "repositories": [{"type": "path", "url": "library"}, {"packagist": false}],
            "require": {"php": constraint, "example/greeting": "^1.0"},
        });
        world.write(world.repo.join("composer.json"), &text.to_string());
    };
    let script = r#"set -e
        rm -rf vendor composer.lock
        composer install --quiet
        php -r 'require "vendor/autoload.php"; echo greeting(), " ", PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION, "\n";
            foreach (["curl", "dom", "intl", "mbstring", "xml", "zip", "sqlite3"] as $name) {
                if (!extension_loaded($name)) echo "no $name\n";
            }'
        php -v | head -n 1 | cut -d. -f 1-2"#;
    for (lang, constraint, version) in
        [("php8.4", "~8.4.0", "8.4"), ("php8.5", ">=8.5", "8.5"), ("php", "^8.3", "8.5")]
    {
        composer(constraint);
        world.prepare(myself(), &["--lang", lang]);
        let expected = format!("hello {version}\nPHP {version}\n");
        assert_eq!(world.shell(&["--lang", lang], script).good(), expected, "{lang}");
        // Left to itself, `pi` chooses the same.
        let chosen = world.shell(&[], "php -r 'echo PHP_VERSION;'").run();
        assert!(chosen.code == Some(0) && chosen.out.starts_with(version), "{constraint}: {chosen:?}");
        let note = format!("pi: using the php{version} image, because there is a `composer.json`\n");
        assert_eq!(chosen.err, note);
    }
}

#[test]
fn a_changed_argument_rebuilds_by_itself_and_an_unchanged_one_builds_nothing() {
    let world = World::new("packages");
    let plain = world.plan(&[])["agent"]["image"].as_str().unwrap().to_owned();
    let without = world.shell(&[], "command -v hello").run();
    assert_eq!(without, Done::silent(127, ""), "the test's package must not be in the image");
    world.configure("packages = [\"hello\"]");
    let image = world.plan(&[])["agent"]["image"].as_str().unwrap().to_owned();
    assert_ne!(image, plain);
    // Under another name the layers stay, so that only the first run of this test downloads the package.
    let forget = || {
        let known = docker(&["image", "ls", "--quiet", &image]);
        if !known.is_empty() {
            docker(&["tag", &image, "pi-e2e:packages"]);
            docker(&["image", "rm", &image]);
        }
    };
    forget();
    let built = world.pi(&["build"]).limit(Duration::from_secs(540)).run();
    assert_eq!((built.code, built.out.as_str()), (Some(0), ""), "{built:?}");
    assert!(built.err.contains(&format!("pi: building the image `{image}`")), "{built:?}");
    assert_eq!(world.shell(&[], "hello --greeting=built").run(), Done::silent(0, "built\n"));
    // A session builds what it needs by itself as well.
    forget();
    let call = || world.shell(&[], "hello --greeting=again").limit(Duration::from_secs(540)).run();
    let built = call();
    assert_eq!((built.code, built.out.as_str()), (Some(0), "again\n"), "{built:?}");
    assert!(built.err.starts_with(&format!("pi: building the image `{image}`")), "{built:?}");
    assert_eq!(call(), Done::silent(0, "again\n"));
}

// Options of a session.

#[test]
fn mounts_are_as_writable_as_they_were_asked_to_be() {
    let world = World::new("mount");
    let (data, file) = (world.base().join("data"), world.base().join("file, \"odd\""));
    world.write(data.join("in"), "in\n");
    world.write(&file, "file\n");
    let both = format!("{}:/data/ro:ro", data.display());
    let options = [
        "--mount",
        &both,
        "--mount",
        data.to_str().unwrap(),
        "--mount",
        &format!("{}:/data/file", file.display()),
    ];
    let script = format!(
        "cat /data/ro/in /data/file; (echo x >/data/ro/out) 2>/dev/null || echo refused; echo out >{}/out; echo more >>/data/file",
        data.display()
    );
    assert_eq!(world.shell(&options, &script).good(), "in\nfile\nrefused\n");
    assert_eq!(fs::read_to_string(data.join("out")).unwrap(), "out\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "file\nmore\n");
    for (mount, why) in [
        ("/no/such/thing", "could not mount `/no/such/thing`"),
        ("/var/run/docker.sock", "is or holds the engine's socket"),
        ("/var/run:/x", "is or holds the engine's socket"),
        ("/", "is or holds the engine's socket"),
    ] {
        let refused = world.shell(&["--mount", mount], "true").run();
        assert!(refused.code != Some(0) && refused.err.contains(why), "{mount}: {refused:?}");
    }
}

#[test]
fn a_published_port_is_reached_from_this_machine_only() {
    let world = World::new("publish");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!(
        "require('http').createServer((q, a) => {{ a.end('hi'); a.on('finish', () => process.exit()) }}).listen({port}, () => require('fs').writeFileSync('up', ''))"
    );
    let running = world.pi(&["--publish", &port.to_string(), "shell", "--", "node", "-e", &server]).start();
    assert!(until(PATIENCE, || world.repo.join("up").exists()), "the server did not start");
    // Another address of this machine: the one from which it would talk to a container.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((model().address.as_str(), 9)).unwrap();
    let other = SocketAddr::new(socket.local_addr().unwrap().ip(), port);
    let refused = TcpStream::connect_timeout(&other, Duration::from_secs(2));
    assert!(refused.is_err(), "{other} answers");
    let mut curl = std::process::Command::new("curl");
    curl.args(["--noproxy", "*", "-s", &format!("http://127.0.0.1:{port}/")]);
    assert_eq!(run(curl, "", Duration::from_secs(20)).out, "hi");
    assert_eq!(running.end(), Done::silent(0, ""));
}

#[test]
fn limits_are_kept_and_the_memory_limit_says_so() {
    let world = World::new("limits");
    let said = "pi: warning: the memory limit of 64 MiB was reached and a process was killed; `--memory` raises it\n";
    // A process of the agent's, and the agent itself.
    let script = "perl -e '$x = \"a\" x 300_000_000'; exit 3";
    let hungry = world.shell(&["--memory", "64m"], script).run();
    assert_eq!((hungry.code, hungry.out.as_str()), (Some(3), ""), "{hungry:?}");
    assert!(hungry.err.ends_with(said), "{hungry:?}");
    let direct = world.pi(&["--memory", "64m", "shell", "--", "perl", "-e", "$x = 'a' x 300_000_000"]).run();
    assert_eq!(direct.code, Some(137), "{direct:?}");
    assert!(direct.err.ends_with(said), "{direct:?}");
    let forks = "my $n = 0; while ($n < 100) { my $p = fork; last unless defined $p; if (!$p) { sleep 60; exit } $n++ } print $n < 30 ? 'few' : \"$n\"; kill 9, -getpgrp";
    let forked = world.pi(&["--pids", "20", "shell", "--", "perl", "-e", &format!("$| = 1; {forks}")]).run();
    assert_eq!((forked.code, forked.out.as_str()), (Some(137), "few"), "{forked:?}");
    let script = "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    assert!(world.shell(&["--cpus", "0.5"], script).good().starts_with("50000"));
    let script = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max";
    assert_eq!(world.shell(&["--pids", "0"], script).good(), "max\n");
}

#[test]
fn without_a_network_there_is_loopback_and_nothing_else() {
    let world = World::new("offline");
    let script = format!(
        "ls /sys/class/net; curl --noproxy '*' -s -m 5 http://{}:8080/ ; echo $?; echo $PI_OFFLINE; getent hosts example.com || echo unknown",
        model().address
    );
    assert_eq!(world.shell(&["--no-network"], &script).good(), "lo\n7\n1\nunknown\n");
}

#[test]
fn an_unknown_runtime_is_an_error_with_the_next_step() {
    let world = World::new("runtime");
    let refused = world.shell(&["--runtime", "no-such-runtime"], "true").run();
    assert_eq!((refused.code, refused.out.as_str()), (Some(125), ""));
    let lines: Vec<&str> = refused.err.lines().collect();
    assert!(lines[0].starts_with("pi: error: ") && lines[0].contains("no-such-runtime"), "{refused:?}");
    assert_eq!(lines[1..], ["pi: hint: `docker info` lists the engine's runtimes"]);
}

#[test]
fn a_running_session_is_listed_entered_and_stopped_by_its_name() {
    let world = World::new("verbs");
    let running = world.shell(&["--session-name", "here"], "touch up; sleep 600").start();
    assert!(until(PATIENCE, || world.repo.join("up").exists()), "the session did not start");
    let listed: serde_json::Value = serde_json::from_str(&world.pi(&["ps", "--json"]).good()).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!((&listed[0]["name"], &listed[0]["network"]), (&"here".into(), &"open".into()));
    assert_eq!(listed[0]["repository"], world.repo.to_str().unwrap());
    let shown = world.pi(&["ps"]).good();
    assert!(shown.starts_with("NAME") && shown.contains(world.repo.to_str().unwrap()), "{shown}");
    let script = "echo $(id -u) $PWD; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; env | grep PI_BOX_; exit 9";
    let entered = world.pi(&["shell", "--session", "here", "--", "sh", "-c", script]).run();
    let none = "0000000000000000";
    let expected = format!(
        "{} {}\nCapEff:\t{none}\nCapBnd:\t{none}\nNoNewPrivs:\t1\n",
        world.owner.uid,
        world.repo.display()
    );
    assert_eq!(entered, Done::silent(9, &expected));
    // What is started beside the agent reads files that the agent has written, so it is kept from the init as well.
    let enter = |script: &str| world.pi(&["shell", "--session", "here", "--", "perl", "-e", script]).good();
    let landlock: i32 = enter("print syscall(444, 0, 0, 1)").parse().unwrap();
    let environment = enter("print open(my $in, '<', '/proc/1/environ') ? 'read' : 'refused'");
    assert_eq!(environment, if landlock >= 2 { "refused" } else { "read" }, "Landlock {landlock}");
    let unknown = world.pi(&["stop", "elsewhere"]).run();
    assert_eq!(unknown.code, Some(125));
    assert_eq!(unknown.err, "pi: error: no session `elsewhere` is running\npi: hint: `pi ps` lists them\n");
    assert_eq!(world.pi(&["stop", "here"]).run(), Done::silent(0, ""));
    let ended = running.end();
    assert_eq!((ended.code, ended.err.as_str()), (Some(143), ""), "{ended:?}");
    assert_eq!(world.pi(&["ps", "--json"]).good(), "[]\n");
}

#[test]
fn a_launcher_inside_a_container_says_that_it_is_in_one() {
    let world = World::new("inside");
    let engine = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let socket = Path::new(engine.strip_prefix("unix://").unwrap()).canonicalize().unwrap();
    let [dir, name] = [socket.parent().unwrap(), Path::new(socket.file_name().unwrap())];
    let client = which::which("docker").unwrap().canonicalize().unwrap();
    let image = world.plan(&[])["agent"]["image"].as_str().unwrap().to_owned();
    // The socket under its own name, and as one of a directory that was mounted.
    for (source, target, address) in [
        (socket.as_path(), "/var/run/docker.sock".to_owned(), "/var/run/docker.sock".to_owned()),
        (dir, "/outer".to_owned(), format!("/outer/{}", name.display())),
    ] {
        let said = std::process::Command::new("docker")
            .args(["run", "--rm", "--network=none", "--user=0:0", "--entrypoint=/launcher", "--tmpfs=/srv/x"])
            .args(["--workdir=/srv/x", "--env=HOME=/root", &format!("--env=DOCKER_HOST=unix://{address}")])
            .arg(format!("--mount=type=bind,source={},target={target}", source.display()))
            .arg(format!("--mount=type=bind,source={},target=/launcher,readonly", env!("CARGO_BIN_EXE_pi")))
            .arg(format!("--mount=type=bind,source={},target=/usr/bin/docker,readonly", client.display()))
            .args([&image, "shell", "--", "true"])
            .output()
            .unwrap();
        let err = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(125), "{err}");
        let sentence = "pi: error: `pi` runs inside a container, but the engine runs outside and would mount the outer machine's \
                        paths\npi: hint: start `pi` on the machine where the engine runs\n";
        assert_eq!(err, sentence);
    }
}

#[test]
fn the_gate_refuses_a_mount_that_is_not_what_was_looked_at() {
    let world = World::new("exchange");
    let inode = fs::metadata(&world.repo).unwrap().ino();
    let planned = world.pi(&["--dry-run", "shell", "--", "echo", "it ran"]).good();
    // As if the directory had been exchanged after the launcher's look.
    let exchanged = planned.replace(&format!(":{inode}:"), &format!(":{}:", inode + 1));
    assert_ne!(exchanged, planned);
    let script = world.base().join("script");
    fs::write(&script, exchanged).unwrap();
    let outcome = world.script(&script).run();
    let said = format!(
        "pi: error: the sandbox is not safe, so nothing was started: what is mounted at `{}` is not what was there when \
         the session began\n",
        world.repo.display()
    );
    assert_eq!((outcome.code, outcome.out, outcome.err), (Some(125), String::new(), said));
}

#[test]
fn the_script_of_a_dry_run_does_what_pi_does() {
    let world = World::new("dry-run");
    for (words, stdin) in [
        (
            &[
                "-p",
                "--model",
                "demo/bash",
                "run: id -u; pwd; env | grep -c . ; echo $ANTHROPIC_API_KEY $GIT_CONFIG_COUNT",
            ][..],
            "",
        ),
        (&["-p", "--model", "demo/unknown", "x"], ""),
        (&ECHO, "from a pipe"),
        (&["--no-network", "shell", "--", "sh", "-c", "ls /sys/class/net; cat; exit 3"], "input\n"),
    ] {
        let call = |words: &[&str]| world.pi(words).stdin(stdin).env("ANTHROPIC_API_KEY", "sk-any").run();
        let direct = call(words);
        let planned = call(&[&["--dry-run"], words].concat());
        assert_eq!((planned.code, planned.err.as_str()), (Some(0), ""));
        let script = world.base().join("script");
        fs::write(&script, &planned.out).unwrap();
        let by_hand = world.script(&script).env("ANTHROPIC_API_KEY", "sk-any").stdin(stdin).run();
        assert_eq!((by_hand.code, &by_hand.out), (direct.code, &direct.out), "{by_hand:?}\n{}", planned.out);
        // An agent names its session's file in some errors.
        assert_eq!(by_hand.err.is_empty(), direct.err.is_empty(), "{by_hand:?} {direct:?}");
    }
}

#[test]
fn the_demo_shows_every_wall() {
    let world = World::new("demo");
    let done = world.pi_by(World::somebody(), &["demo"]).run();
    assert_eq!(done.code, Some(0), "{done:?}");
    let bad: Vec<&str> = done.out.lines().filter(|line| !line.starts_with("ok   ")).collect();
    assert_eq!(bad, Vec::<&str>::new(), "{}", done.out);
    assert_eq!(done.out.lines().count(), 17, "{}", done.out);
    assert_eq!(fs::read_dir(&world.repo).unwrap().count(), 1, "the user's repository was touched");
}

// The terminal.

/// Starts the agent in a terminal and waits until it takes input.
fn agent_in<'a>(world: &'a World, words: &str) -> Terminal<'a> {
    let terminal = Terminal::open(world);
    terminal.line(&format!("pi --model demo/echo {words}"));
    terminal.wait("the agent's status line", |screen| screen.contains("/128k"));
    terminal
}

/// Ends the agent as a person would, and waits for the shell.
fn leave(terminal: &Terminal<'_>) {
    // Two of them in short order, which a busy machine may fail to deliver.
    terminal.insist(&["C-c", "C-c"], "the shell's prompt", |screen| screen.trim_end().ends_with("ready$"));
}

#[test]
fn the_agents_terminal_is_a_real_one() {
    let world = World::new("tui");
    let terminal = agent_in(&world, "");
    assert!(terminal.colours().contains("\u{1b}[38;"), "no colours: {:?}", terminal.colours());
    terminal.text("typed words");
    terminal.wait("what was typed", |screen| screen.contains("typed words"));
    // An agent which is still starting gives the words back.
    terminal.insist(&["Enter"], "the answer", |screen| screen.matches("typed words").count() == 2);
    // Ctrl-P is the agent's key for the next model, and docker's for detaching.
    terminal.keys(&["C-p"]);
    terminal.wait("the next model", |screen| screen.contains("slow"));
    // Ctrl-Z would put the agent to sleep with nobody to wake it.
    terminal.keys(&["C-z"]);
    terminal.text("after the stop");
    terminal.wait("what was typed after Ctrl-Z", |screen| screen.contains("after the stop"));
    // A wider terminal is drawn on to its edge.
    let rule = |screen: &str| screen.lines().map(|line| line.matches('─').count()).max().unwrap_or(0);
    assert_eq!(rule(&terminal.screen()), 100);
    terminal.resize(70, 24);
    terminal.wait("a narrower frame", |screen| rule(screen) == 70);
    leave(&terminal);
    // Raw mode is over: what is typed is echoed and lines end.
    terminal.line("stty -a | grep -o ' -\\?icanon\\| -\\?echo\\b' | xargs; echo status $?");
    terminal.wait("a terminal as it was", |screen| screen.contains("icanon echo"));
    let modes = "#{cursor_flag} #{alternate_on} #{mouse_any_flag} #{keypad_cursor_flag}";
    assert_eq!(terminal.ask(modes), "1 0 0 0\n", "cursor, alternate screen, mouse, cursor keys");
}

#[test]
fn a_paste_of_two_lines_is_one_input() {
    let world = World::new("paste");
    let terminal = agent_in(&world, "");
    terminal.paste("line one\nline two");
    terminal.wait("both lines", |screen| screen.contains("line one") && screen.contains("line two"));
    // One question, one answer, in both of which the lines stand one below the other.
    let screen = terminal.insist(&["Enter"], "the answer", |screen| screen.matches("line two").count() == 2);
    assert_eq!(screen.matches("line one").count(), 2, "{screen}");
    let sessions = world.home.join(".pi/agent/sessions");
    let file = fs::read_dir(sessions).unwrap().next().unwrap().unwrap().path();
    let file = fs::read_dir(file).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(file).unwrap();
    assert_eq!(text.matches("\"role\":\"user\"").count(), 1, "{text}");
    leave(&terminal);
}

#[test]
fn a_prompt_on_the_command_line_is_answered_in_the_terminal() {
    let world = World::new("prompt");
    let terminal = agent_in(&world, "'a first question'");
    // Once as it was typed to the shell, once as the question, once as the answer.
    terminal.wait("the answer", |screen| screen.matches("a first question").count() == 3);
    leave(&terminal);
}

#[test]
fn in_a_terminal_the_output_may_go_elsewhere_and_a_shell_follows_its_size() {
    let world = World::new("output");
    let terminal = Terminal::open(&world);
    // An open stdin would keep the agent waiting for ever.
    terminal.line("pi -p --model demo/echo 'to a file' >out; echo status $?");
    terminal.wait("the end", |screen| screen.contains("status 0"));
    assert_eq!(fs::read_to_string(world.repo.join("out")).unwrap(), "to a file\n");
    terminal
        .line("clear; pi shell -- sh -c 'stty size; read x; stty size; test -t 0 && test -t 1 && echo both'");
    terminal.wait("the size", |screen| screen.contains("30 100"));
    terminal.resize(80, 25);
    // The new size travels by a signal, so it is asked for until it has arrived.
    terminal.keys(&["Enter"]);
    terminal.wait("the end", |screen| screen.contains("both") && screen.trim_end().ends_with("ready$"));
    terminal.line(
        "clear; pi shell -- sh -c 'until [ \"$(stty size)\" = \"26 90\" ]; do sleep 0.1; done; echo arrived'",
    );
    terminal.resize(90, 26);
    terminal.wait("the new size", |screen| {
        screen.lines().any(|line| line.trim() == "arrived") && screen.trim_end().ends_with("ready$")
    });
}
