//! What the kernel refuses to the agent, and what it does not.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _};

use super::table;
use crate::world::{
    World,
    call::Outcome,
    files::{Who, myself, somebody},
};

#[test]
fn system_calls_with_a_history_are_refused() {
    let world = World::with_model();
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
    if myself() == root { vec![somebody(), root] } else { vec![myself()] }
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
        let world = World::of(owner, "project");
        world.prepare(myself(), &[]);
        let done = world.run_pi(&["shell", "--", "perl", "-e", script]);
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
    let world = World::with_model();
    let planned = world.pi(&["--dry-run", "shell", "--", "echo", "it ran"]).good();
    // As a kernel without the call, or an engine that keeps it from a container, would answer. That such a name is
    // skipped, also where a rule has conditions, is what old engines need.
    let without = |names: &[&str]| {
        let changed = names.iter().fold(planned.clone(), |text, name| {
            assert!(text.contains(name), "{name}: {text}");
            text.replace(name, "no_such_call")
        });
        world.script(&changed).run()
    };
    let ask = "perl -e 'print \"landlock \", syscall(444, 0, 0, 1), \"\\n\"'
               echo yama $(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)";
    let answers = world.shell(&[], ask).run().out;
    let answers = table(&answers);
    let number = |name| answers[name].parse::<i32>().unwrap();
    let (landlock, yama) = (number("landlock") >= 2, number("yama") >= 1);
    let warning = "pi: warning: this kernel offers neither Landlock (of Linux 5.19 or newer) nor Yama, so the agent can \
                   take over the first processes of its own container\n";
    let warned = |outcome: Outcome| outcome.is(0, "it ran\n", if yama { "" } else { warning });
    warned(without(&["landlock_create_ruleset", "fchmodat2"]));
    let refusal = "pi: error: the sandbox is not safe, so nothing was started: it could not be kept from its supervisor \
                   (Landlock: Operation not permitted)\n";
    let half = without(&["landlock_restrict_self"]);
    if landlock {
        half.is(125, "", refusal);
    } else {
        warned(half);
    }
}

#[test]
fn links_and_renames_across_directories_work() {
    let world = World::with_model();
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
        let world = World::of(owner, "project");
        world.prepare(myself(), &[]);
        let done = world.run_pi(&["shell", "--", "perl", "-e", script]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(done.out, expected.replace("; ", "\n"), "{owner:?}");
        for entry in fs::read_dir(world.repo()).unwrap() {
            let (path, mode) = {
                let entry = entry.unwrap();
                (entry.path(), entry.metadata().unwrap().mode())
            };
            assert_eq!(mode & 0o4000, 0, "{}: {mode:o}", path.display());
        }
    }
}
