# The supervisor of the agent's container: starts the agent, wakes it when it stops itself on Ctrl-Z, passes signals on to
# it, and keeps it from the supervisor and from the init by a Landlock domain, since all of them run as one user.
use strict;
use warnings;
use Errno qw(ENOENT ENOSPC ENOTDIR);

# Linux numbers that no small module has.
my $TIOCSPGRP = 0x5410;
my $WUNTRACED = 2;
my $O_PATH = 0x200000;
# For writing, and only as a new file.
my $O_CREATE_NEW = 0x1 | 0x40 | 0x80;

# Of Landlock, whose calls have the same numbers on every machine.
my $LANDLOCK_CREATE_RULESET = 444;
my $LANDLOCK_ADD_RULE = 445;
my $LANDLOCK_RESTRICT_SELF = 446;
my $CREATE_RULESET_VERSION = 1 << 0;
my $RULE_PATH_BENEATH = 1;
my $ACCESS_FS_REFER = 1 << 13;
my $SCOPE_SIGNAL = 1 << 1;

sub supervise {
    my @command = @_;
    my $child;
    $SIG{$_} = 'IGNORE' for qw(TSTP TTIN TTOU);
    for my $name (qw(HUP INT TERM QUIT USR1 USR2 WINCH)) {
        $SIG{$name} = sub { kill $name => $child if $child };
    }
    $child = fork();
    defined $child or refuse("it could not be started: $!");
    run(@command) if !$child;
    while (1) {
        my $pid = waitpid($child, $WUNTRACED);
        return 125 if $pid != $child;
        # perl shows a stop as it shows an end with status 0; but one that has ended is gone by now.
        my $stopped = $? == 0 && kill 0 => $child;
        return $? & 127 ? 128 + ($? & 127) : $? >> 8 unless $stopped;
        # There is no shell to go back to, so it goes on at once. Where it stopped because the terminal was not its own,
        # it is given the terminal, and a moment, lest the two of us spin.
        give_terminal($child);
        select(undef, undef, undef, 0.01);
        kill CONT => -$child, $child;
    }
}

# `gh` speaks to a socket, from which `forward` passes on to the broker. Neither is a secret, and neither decides anything.
sub reach_github {
    my ($address) = @_;
    my $socket = '/tmp/.pi-gh.sock';
    my $dir = "$ENV{HOME}/.config/gh";
    mkdir "$ENV{HOME}/.config";
    mkdir $dir;
    # What the user has mounted there stays.
    if (!-e "$dir/config.yml" && open(my $config, '>', "$dir/config.yml")) {
        print $config "version: \"1\"\nhttp_unix_socket: $socket\n";
    }
    my $pid = fork();
    return if !defined $pid || $pid;
    confine();
    setpgrp(0, 0);
    open(STDIN, '<', '/dev/null');
    open(STDOUT, '>', '/dev/null');
    open(STDERR, '>', '/dev/null');
    exec '/usr/local/lib/pi/forward', $socket, $address or exit 127;
}

# The home is memory of the session's own, empty at first.
sub make_home {
    my $home = '/home/pi';
    mkdir "$home/$_" for qw(.agents .cache .cache/tmp .config .local .local/bin .local/share .local/state go);
    # The caches of a project's packages are a volume, where there is one.
    my ($cache, $above) = map { (stat $_)[0] // 0 } '/var/cache/pi', '/var/cache';
    my $lang = "$home/.cache/lang";
    $cache == $above ? mkdir($lang) : symlink('/var/cache/pi', $lang);
}

# What the agent saw as "no space left on device".
sub tell_of_room {
    for my $dir ('/home/pi', '/tmp') {
        my $probe = "$dir/.pi-room-$$";
        # In a new file of ours, or nowhere.
        my $made = sysopen(my $file, $probe, $O_CREATE_NEW);
        my $fits = $made ? syswrite($file, '.' x 65536) : undef;
        my $full = $! == ENOSPC && (!$made || !defined $fits || $fits < 65536);
        unlink $probe if $made;
        next unless $full;
        my $raise = $dir eq '/tmp' ? '`--memory`' : '`--disk`';
        print STDERR "pi: warning: `$dir` of the session was full; $raise raises its limit\n";
    }
}

# An engine does not always tell that the kernel ended something for want of memory; the container's own counter does.
sub tell_of_memory {
    my $dir = '/sys/fs/cgroup';
    my $events = slurp("$dir/memory.events") // slurp("$dir/memory/memory.oom_control") // '';
    return unless $events =~ /^oom_kill ([1-9][0-9]*)$/m;
    my $killed = $1 == 1 ? 'a process was' : "$1 processes were";
    my $limit = slurp("$dir/memory.max") // slurp("$dir/memory/memory.limit_in_bytes") // '';
    $limit = $limit =~ /^([0-9]+)$/ ? ' of ' . int($1 / 1048576) . ' MiB' : '';
    print STDERR "pi: warning: the memory limit$limit was reached and $killed killed; `--memory` raises it\n";
}

# The agent's own directory is gone with the container. What stands in it now, by name, the launcher can tell.
sub tell_what_is_left {
    my $dir = '/home/pi/.pi/agent';
    -f "$dir/.pi-left" && opendir(my $names, $dir) or return;
    open(my $left, '>', "$dir/.pi-left") or return;
    my $room = 60_000;
    while (defined(my $name = readdir $names)) {
        last if ($room -= 1 + length $name) < 0;
        print $left "$name\0" unless $name =~ /^\./;
    }
}

# Takes this process, and all that it starts, into a Landlock domain. From within one nobody outside can be traced, nor
# his memory be read or written, which the kernel lets processes of one user do to each other; and with the first
# process of the container in its hands, the agent could outlive the session. A domain has to forbid something else as
# well: here it is to link and rename across directories, which is allowed again everywhere.
sub confine {
    my $version = landlock_version();
    # The first version forbids such links and renames without a way to allow them.
    if ($version < 2) {
        my $yama = slurp('/proc/sys/kernel/yama/ptrace_scope') // 0;
        print STDERR "pi: warning: this kernel offers neither Landlock (of Linux 5.19 or newer) nor Yama, so the agent "
            . "can take over the first processes of its own container\n" unless $yama =~ /^[1-9]/;
        return;
    }
    my $failed = restrict($version, $ACCESS_FS_REFER, ['/', $ACCESS_FS_REFER]);
    refuse("it could not be kept from its supervisor ($failed)") if defined $failed;
}

# The version of Landlock: 0 or less if the kernel does not know it, or does not use it, or the engine does not let its
# calls through.
sub landlock_version { return syscall($LANDLOCK_CREATE_RULESET, 0, 0, $CREATE_RULESET_VERSION) }

# Takes this process into a domain in which it has these rights at no path but those that the rules name, each a path with
# its rights. Returns what failed.
sub restrict {
    my ($version, $handled, @rules) = @_;
    # Old kernels take a structure of this size only.
    my $attributes = pack('Q', $handled);
    # Without network rules; the signals that it can send end at the domain's border, or it could stop its supervisor.
    $attributes .= pack('QQ', 0, $SCOPE_SIGNAL) if $version >= 6;
    my $ruleset = syscall($LANDLOCK_CREATE_RULESET, $attributes, length $attributes, 0);
    $ruleset >= 0 or return "Landlock's rules: $!";
    for (@rules) {
        my ($path, $rights) = @$_;
        sysopen(my $place, $path, $O_PATH) or return "`$path` cannot be opened: $!";
        my $beneath = pack('Ql', $rights, fileno $place);
        syscall($LANDLOCK_ADD_RULE, $ruleset, $RULE_PATH_BENEATH, $beneath, 0) == 0
            or return "Landlock's rule for `$path`: $!";
    }
    syscall($LANDLOCK_RESTRICT_SELF, $ruleset, 0) == 0 or return "Landlock: $!";
    return undef;
}

# A group of its own, in the foreground: what the terminal sends reaches the agent once, not twice by way of us.
sub run {
    my ($program, @rest) = @_;
    confine();
    # When memory is short, the agent goes first, and its supervisor can tell.
    if (open(my $badness, '>', '/proc/self/oom_score_adj')) { print $badness '500' }
    setpgrp(0, 0);
    give_terminal($$);
    $SIG{$_} = 'DEFAULT' for qw(TSTP TTIN TTOU HUP INT TERM QUIT USR1 USR2 WINCH);
    {
        no warnings 'exec';
        # A PATH with a relative part is refused here by perl, and none of our business.
        eval { exec { $program } $program, @rest } or $@ =~ /^Insecure/ and do {
            my $path = $ENV{PATH};
            local $ENV{PATH} = '/usr/bin:/bin';
            exec '/usr/bin/env', '--', "PATH=$path", $program, @rest;
        };
    }
    my $missing = $! == ENOENT || $! == ENOTDIR;
    my $shown = $program =~ s/[^ -~]/?/gr;
    my $reason = $missing ? 'there is no such program in the sandbox' : "it cannot be run: $!";
    print STDERR "pi: error: `$shown`: $reason\n";
    # Without the handlers and buffers that were the parent's.
    exit($missing ? 127 : 126);
}

# Ends what was started beside the agent by somebody who is gone: at first as a closed terminal does.
sub end_marked {
    my ($mark) = @_;
    for my $signal ('HUP', ('KILL') x 20) {
        my @marked = grep { (slurp("/proc/$_/environ") // '') =~ /(?:^|\0)PI_BOX_WITHIN=\Q$mark\E\0/ }
            map { m{^/proc/(\d+)$} ? $1 : () } glob '/proc/[0-9]*';
        return unless @marked;
        kill $signal => @marked;
        select(undef, undef, undef, $signal eq 'HUP' ? 1 : 0.05);
    }
}

# Fails without a terminal, which is no matter.
sub give_terminal {
    my ($group) = @_;
    ioctl(STDIN, $TIOCSPGRP, pack('i', $group));
}

1;
