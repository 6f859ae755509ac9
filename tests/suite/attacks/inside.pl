# What an agent tries from inside, each as `CLASS CASE held` or `open`; a control, which shows that this way of trying
# works at all, says `works` or `broken`.
use strict;
use warnings;
use Errno qw(EACCES EAFNOSUPPORT EAGAIN EINVAL EMFILE ENOENT ENOSYS EPERM EPROTONOSUPPORT EROFS ESOCKTNOSUPPORT);
use Fcntl;
use Socket;

$| = 1;
sub held { print "$_[0] $_[1] ", ($_[2] ? 'held' : "open ($!)"), "\n" }
sub works { print "$_[0] $_[1] ", ($_[2] ? 'works' : "broken ($!)"), "\n" }
sub refused { return grep { $! == $_ } EPERM, EACCES, ENOSYS, EROFS, ENOENT }
sub writes {
    my ($path, $text) = @_;
    my $to;
    # Outside of the repository nothing is made, and nothing is cut short.
    open($to, $path =~ m{/} ? '+<' : '>', $path) or return 0;
    return syswrite($to, $text) && close $to;
}
sub fails { my $status = system('sh', '-c', "$_[0] >/dev/null 2>&1"); return $status != 0 }

# Calls that lead out of a container, or stop a machine, by their numbers on this kind of machine.
my %machines = (
    x86_64 => {
        acct => 163, add_key => 248, bpf => 321, chroot => 161, clock_adjtime => 305, clock_settime => 227,
        delete_module => 176, fanotify_init => 300, finit_module => 313, fsconfig => 431, fsmount => 432,
        fsopen => 430, fspick => 433, init_module => 175, io_setup => 206, io_submit => 209, io_uring_enter => 426,
        io_uring_register => 427, io_uring_setup => 425, ioperm => 173, iopl => 172, kcmp => 312,
        kexec_file_load => 320, kexec_load => 246, keyctl => 250, lookup_dcookie => 212, migrate_pages => 256,
        modify_ldt => 154, mount => 165, mount_setattr => 442, move_mount => 429, move_pages => 279,
        name_to_handle_at => 303, nfsservctl => 180, open_by_handle_at => 304, open_tree => 428,
        perf_event_open => 298, pidfd_getfd => 438, pivot_root => 155, quotactl => 179, quotactl_fd => 443,
        reboot => 169, request_key => 249, set_mempolicy => 238, setdomainname => 171, sethostname => 170,
        setns => 308, settimeofday => 164, swapoff => 168, swapon => 167, syslog => 103, umount2 => 166,
        unshare => 272, uselib => 134, userfaultfd => 323, vhangup => 153,
    },
    aarch64 => {
        acct => 89, add_key => 217, bpf => 280, chroot => 51, clock_adjtime => 266, clock_settime => 112,
        delete_module => 106, fanotify_init => 262, finit_module => 273, fsconfig => 431, fsmount => 432,
        fsopen => 430, fspick => 433, init_module => 105, io_setup => 0, io_submit => 2, io_uring_enter => 426,
        io_uring_register => 427, io_uring_setup => 425, kcmp => 272, kexec_file_load => 294, kexec_load => 104,
        keyctl => 219, lookup_dcookie => 18, migrate_pages => 238, mount => 40, mount_setattr => 442,
        move_mount => 429, move_pages => 239, name_to_handle_at => 264, nfsservctl => 42, open_by_handle_at => 265,
        open_tree => 428, perf_event_open => 241, pidfd_getfd => 438, pivot_root => 41, quotactl => 60,
        quotactl_fd => 443, reboot => 142, request_key => 218, set_mempolicy => 237, setdomainname => 162,
        sethostname => 161, setns => 268, settimeofday => 170, swapoff => 225, swapon => 224, syslog => 116,
        umount2 => 39, unshare => 97, userfaultfd => 282, vhangup => 58,
    },
);
my ($machine) = `uname -m` =~ /(\w+)/;
my %calls = %{ $machines{$machine} // {} };
if (my $getpid = { x86_64 => 39, aarch64 => 172 }->{$machine}) {
    works('calls', 'getpid', syscall($getpid) == $$);
    for my $name (sort keys %calls) {
        my $got = syscall($calls{$name}, 0, 0, 0, 0, 0, 0);
        held('calls', $name, $got == -1 && refused());
    }
}

# Kinds of sockets: domain, type, protocol.
my %sockets = (
    packet => [17, 3, 0], packet_datagram => [17, 2, 0], raw => [2, 3, 1], raw_tcp => [2, 3, 6], raw6 => [10, 3, 58], vsock => [40, 1, 0],
    algorithms => [38, 5, 0], keys => [15, 3, 2], xdp => [44, 3, 0], bluetooth => [31, 3, 1], can => [29, 3, 1],
    tipc => [30, 1, 0], rds => [21, 5, 0], nfc => [39, 3, 0], netfilter => [16, 3, 12], audit => [16, 3, 9],
    events => [16, 3, 15], xfrm => [16, 3, 6], smc => [43, 1, 0], phonet => [35, 2, 0], appletalk => [5, 2, 0],
);
works('sockets', 'stream', socket(my $stream, AF_INET, SOCK_STREAM, 0));
works('sockets', 'local', socket(my $local, AF_UNIX, SOCK_STREAM, 0));
for my $name (sort keys %sockets) {
    held('sockets', $name, !socket(my $socket, $sockets{$name}[0], $sockets{$name}[1], $sockets{$name}[2]));
}
my @many;
while (@many < 40_000) { socket(my $one, AF_UNIX, SOCK_DGRAM, 0) or last; push @many, $one }
held('sockets', 'number', $! == EMFILE && @many < 17_000);
@many = ();
held('sockets', 'of-an-engine', !grep { -S } glob '/run/*.sock /var/run/*.sock /run/*/*.sock');

# Processes.
my @children;
while (@children < 5000) {
    my $child = fork();
    last unless defined $child;
    if (!$child) { sleep 600; exit }
    push @children, $child;
}
held('processes', 'number', $! == EAGAIN && @children < 300);
kill KILL => @children;
waitpid $_, 0 for @children;
works('processes', 'after-them', system('true') == 0);
my $supervisor = getppid();
kill KILL => 1;
select undef, undef, undef, 0.1;
held('processes', 'kill-init', -d '/proc/1');
for my $file (qw(mem environ root/etc/passwd fd/0 cwd/.)) {
    my $in;
    held('processes', "init-$file", !open($in, '+<', "/proc/1/$file") && !open($in, '<', "/proc/1/$file"));
}
held('processes', 'trace-supervisor', !open(my $memory, '+<', "/proc/$supervisor/mem"));
held('processes', 'priority', !setpriority(0, 0, -5));
held('processes', 'never-the-one-to-be-killed', !writes('/proc/self/oom_score_adj', '-1000'));
held('processes', 'open-files', fails('ulimit -Hn 1000000'));
held('processes', 'core', fails('ulimit -Hc unlimited'));
held('processes', 'real-time', fails('chrt -f 10 true'));
held('processes', 'namespace', fails('unshare -U true'));
held('processes', 'become-root', fails('su -c true') && fails('sudo -n true'));
held('processes', 'limits-of-init', fails('prlimit --pid 1 --nofile=10'));

# Memory. The control takes what it may have.
works('memory', 'some', system('perl', '-e', 'my $x = "x" x 50_000_000') == 0);
held('memory', 'too-much', fails(q(perl -e 'my @x; push @x, "x" x 50_000_000 for 1 .. 60')));
held('memory', 'in-a-pipe', fails('set -o pipefail 2>/dev/null; head -c 3G /dev/zero | tail -c 3G'));
works('memory', 'after-it', system('true') == 0);

# Files: of the kernel, of the image, and marks that outlive a session.
for my $path (
    qw(/proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/drop_caches /proc/sys/net/ipv4/ip_forward
    /proc/sys/kernel/modprobe /proc/sys/fs/aio-max-nr /proc/irq/default_smp_affinity
    /sys/kernel/uevent_helper /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max
    /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/power/state /dev/kmsg /dev/mem
    /etc/passwd /etc/shadow /etc/sudoers /etc/ld.so.preload /usr/bin/git /usr/local/lib/pi/entry)
    )
{
    held('files', $path, !writes($path, '1'));
}
for my $path (qw(/proc/kcore /proc/timer_list /root/.ssh/id_rsa /dev/sda /dev/vda /dev/fuse /dev/kvm)) {
    my ($in, $some);
    my $read = open($in, '<', $path) ? sysread($in, $some, 16) : 0;
    held('files', "read-$path", !$read);
}
works('files', 'own', writes('file', 'x'));
held('files', 'set-user-id', !chmod(04755, 'file') || !((stat 'file')[2] & 04000));
held('files', 'device', fails('mknod device b 8 0'));
held('files', 'owner', $> == 0 || !chown(0, 0, 'file'));
open(my $file, '+<', 'file');
works('files', 'lock', fcntl($file, F_SETLK, my $lock = pack('s s l! l! i', F_WRLCK, 0, 0, 0, 0)));
works('files', 'descriptors', defined fcntl($file, 1030, my $least = 10));
# A lease on a file of the repository would stop everybody outside who opens it.
held('files', 'lease', !defined fcntl($file, 1024, my $kind = F_WRLCK));
if (my $fcntl = { x86_64 => 72, aarch64 => 25 }->{$machine}) {
    held('files', 'lease-with-a-high-bit', syscall($fcntl, fileno $file, (1 << 32) | 1024, F_WRLCK) == -1);
}
held('files', 'immutable', fails('chattr +i file'));
held('files', 'attributes', fails('setfattr -n trusted.x -v y file'));
held('files', 'capability', fails('setcap cap_net_raw+ep file'));
held('files', 'mount-over', fails('mount --bind /etc .'));
held('files', 'swap', fails('swapon file'));
