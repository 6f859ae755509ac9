#!/usr/bin/perl
# Runs in the agent's container and tries what the tests want to see refused, all at once, one process for each case.
# Its input: a file with lines of `NAME TAB TOKEN TAB KIND TAB ARGUMENT…`. Its output: `NAME TAB OUTCOME TAB MILLISECONDS`.
#
#     tcp ADDRESS PORT [device] [v6]          open, refused, timeout, or the name of the error
#     udp ADDRESS PORT [device] [dontroute] [broadcast] [pktinfo] [v6]    answered, silent, or the name of the error
#     make packet|raw|rawtcp|ping|vsock       made, or the name of the error
#     route GATEWAY                           made, or the name of the error
#     dns SERVER NAME TYPE [tcp]              answered, silent, or the name of the error
#     lookup NAME                             the address, or none
#     raw BYTES                               to the proxy as they are: the status, and where the answer came from, or ended
#     head BYTES                              the same, with the rest of a request added
#     shell COMMAND                           ok, or the status; `out` before it compares the output
use strict;
use warnings;
use Errno qw(EINPROGRESS);
use POSIX ();
use Socket qw(:DEFAULT inet_pton AF_INET6 pack_sockaddr_in6 IPPROTO_TCP IPPROTO_UDP SOCK_NONBLOCK SOCK_RAW);
use Time::HiRes qw(time);

my ($SO_BINDTODEVICE, $IP_PKTINFO, $AF_PACKET, $AF_NETLINK) = (25, 8, 17, 16);
my $PATIENCE = 1.5;
my $MOST = 100;
$SIG{PIPE} = 'IGNORE';
$| = 1;
my ($PROXY_IP, $PROXY_PORT) = ($ENV{HTTPS_PROXY} // '') =~ m{^http://([0-9.]+):([0-9]+)};

my %kinds = (
    tcp => \&tcp, udp => \&udp, make => \&make, route => \&route, dns => \&dns, lookup => \&lookup,
    raw => sub { through_proxy(unescape($_[1]), $_[0]) },
    head => sub { through_proxy(unescape($_[1]) . "\r\nX-Case: case=$_[0];\r\n\r\n", $_[0]) },
    shell => \&shell,
);

open(my $in, '<', $ARGV[0]) or die "no cases: $!";
my $running = 0;
while (my $line = <$in>) {
    chomp $line;
    my ($name, $token, $kind, @args) = split /\t/, $line;
    if ($running >= $MOST) { wait; $running-- }
    my $pid = fork() // die "could not fork: $!";
    $running++, next if $pid;
    my $begun = time;
    my $work = $kinds{$kind} or die "no kind `$kind`";
    local $SIG{ALRM} = sub { report($name, 'hangs', $begun) };
    alarm 30;
    report($name, $work->($token, @args), $begun);
}
1 while wait > 0;
print "done\n";

sub report {
    my ($name, $outcome, $begun) = @_;
    $outcome =~ s/[^ -~]+/ /g;
    syswrite(STDOUT, sprintf("%s\t%s\t%d\n", $name, $outcome, 1000 * (time - $begun)));
    POSIX::_exit(0);
}

sub unescape {
    my ($text) = @_;
    $text =~ s/\{(.*?)\*(\d+)\}/$1 x $2/ge;
    my %one = (r => "\r", n => "\n", t => "\t", '0' => "\0", e => "\e", '\\' => '\\');
    $text =~ s/\\(?:x([0-9a-f]{2})|(.))/defined $1 ? chr hex $1 : $one{$2} \/\/ die "escape `$2`"/ge;
    return $text;
}

sub error { for my $name (keys %!) { return $name if $!{$name} } return "errno " . ($! + 0) }

sub ready {
    my ($socket, $writing, $patience) = @_;
    vec(my $one = '', fileno $socket, 1) = 1;
    return select($writing ? undef : $one, $writing ? $one : undef, undef, $patience // $PATIENCE) > 0;
}

sub address {
    my ($ip, $port, $six) = @_;
    return $six ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $ip =~ s/%.*//r), $ip =~ /%/ ? device_number() : 0)
        : pack_sockaddr_in($port, inet_aton($ip));
}

sub device_number { open(my $f, '<', '/sys/class/net/eth0/ifindex') or return 2; return 0 + <$f> }

sub tcp {
    my ($token, $ip, $port, @how) = @_;
    my %how = map { $_ => 1 } @how;
    socket(my $socket, $how{v6} ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP) or return error();
    if ($how{device}) { setsockopt($socket, SOL_SOCKET, $SO_BINDTODEVICE, "eth0\0") or return 'device ' . error() }
    if ($how{dontroute}) { setsockopt($socket, SOL_SOCKET, SO_DONTROUTE, 1) or return error() }
    if (!connect($socket, address($ip, $port, $how{v6}))) {
        return $!{ECONNREFUSED} ? 'refused' : error() unless $!{EINPROGRESS};
        ready($socket, 1) or return 'timeout';
        $! = unpack('i', getsockopt($socket, SOL_SOCKET, SO_ERROR));
        return $!{ECONNREFUSED} ? 'refused' : error() if $!;
    }
    syswrite($socket, "GET /?case=$token; HTTP/1.0\r\n\r\n");
    ready($socket, 0);
    return 'open';
}

sub udp {
    my ($token, $ip, $port, @how) = @_;
    my %how = map { $_ => 1 } @how;
    socket(my $socket, $how{v6} ? AF_INET6 : AF_INET, SOCK_DGRAM, IPPROTO_UDP) or return error();
    if ($how{device}) { setsockopt($socket, SOL_SOCKET, $SO_BINDTODEVICE, "eth0\0") or return 'device ' . error() }
    if ($how{dontroute}) { setsockopt($socket, SOL_SOCKET, SO_DONTROUTE, 1) or return error() }
    if ($how{broadcast}) { setsockopt($socket, SOL_SOCKET, SO_BROADCAST, 1) or return error() }
    my $text = "case=$token;";
    if ($how{pktinfo}) {
        send_by_device($socket, $text, address($ip, $port)) or return error();
    } else {
        defined send($socket, $text, 0, address($ip, $port, $how{v6})) or return error();
    }
    return ready($socket, 0, 0.5) && defined recv($socket, my $got, 99, 0) ? 'answered' : 'silent';
}

# sendmsg(2) with IP_PKTINFO names the device for this one datagram, with no option set on the socket.
sub send_by_device {
    my ($socket, $text, $to) = @_;
    my $number = (POSIX::uname())[4] eq 'x86_64' ? 46 : 211;
    my $control = pack('QiiiNNx4', 28, 0, $IP_PKTINFO, device_number(), 0, 0);
    my $vector = pack('PQ', $text, length $text);
    my $message = pack('PLx4PQPQix4', $to, length $to, $vector, 1, $control, length $control, 0);
    return syscall($number, fileno $socket, $message, 0) >= 0;
}

sub make {
    my ($token, $what) = @_;
    my @how = { packet => [$AF_PACKET, SOCK_RAW, 0], raw => [AF_INET, SOCK_RAW, 1], ping => [AF_INET, SOCK_DGRAM, 1],
        rawtcp => [AF_INET, SOCK_RAW, 6], vsock => [40, SOCK_STREAM, 0] }->{$what}->@*;
    return socket(my $socket, $how[0], $how[1], $how[2]) ? 'made' : error();
}

# A default route that nobody would choose, by the oldest of the kernel's ways.
sub route {
    my ($token, $gateway) = @_;
    socket(my $socket, AF_INET, SOCK_DGRAM, 0) or return error();
    my $any = pack_sockaddr_in(0, INADDR_ANY);
    my $entry = pack('x8 a16 a16 a16 S x6 x8 x8 s x6 x8 x8 x8 x8', $any, pack_sockaddr_in(0, inet_aton($gateway)), $any, 3, 78);
    return ioctl($socket, 0x890B, $entry) ? 'made' : error();
}

sub dns {
    my ($token, $server, $name, $type, @how) = @_;
    my $query = pack('nnnnnn', rand 65536, 0x0100, 1, 0, 0, 0)
        . join('', map { chr(length) . $_ } split /\./, $name) . pack('Cnn', 0, $type eq 'TXT' ? 16 : 1, 1);
    if (grep { $_ eq 'tcp' } @how) {
        socket(my $socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP) or return error();
        connect($socket, address($server, 53)) or $!{EINPROGRESS} or return $!{ECONNREFUSED} ? 'refused' : error();
        ready($socket, 1) or return 'timeout';
        $! = unpack('i', getsockopt($socket, SOL_SOCKET, SO_ERROR));
        return $!{ECONNREFUSED} ? 'refused' : error() if $!;
        syswrite($socket, pack('n', length $query) . $query);
        ready($socket, 0) && sysread($socket, my $got, 512) or return 'silent';
        return 'answered';
    }
    socket(my $socket, AF_INET, SOCK_DGRAM, IPPROTO_UDP) or return error();
    defined send($socket, $query, 0, address($server, 53)) or return error();
    ready($socket, 0, 3) or return 'silent';
    defined recv($socket, my $got, 512, 0) or return $!{ECONNREFUSED} ? 'refused' : error();
    # An answer without an error code is an answer; the engine's own resolver may say that it failed.
    return (unpack('nn', $got))[1] & 15 ? 'failed' : 'answered';
}

sub lookup {
    my ($token, $name) = @_;
    my $said = `getent hosts $name`;
    return $said =~ /^(\S+)/ ? $1 : 'none';
}

sub through_proxy {
    my ($bytes, $token) = @_;
    socket(my $socket, AF_INET, SOCK_STREAM, IPPROTO_TCP) or return error();
    connect($socket, address($PROXY_IP, $PROXY_PORT)) or return error();
    my $sent = 0;
    while ($sent < length $bytes) { $sent += syswrite($socket, $bytes, 65536, $sent) // last }
    my $answer = read_until($socket, qr/\r?\n\r?\n/);
    my ($status) = $answer =~ m{^HTTP/1\.[01] (\d+)} or return length $answer ? 'no HTTP' : 'ended';
    return $status if $status ne '200';
    syswrite($socket, "GET /?case=$token; HTTP/1.0\r\n\r\n") if $bytes =~ /^CONNECT/i;
    $answer .= read_until($socket, qr/reached \S+\n/) unless $answer =~ /reached \S+\n/;
    return $answer =~ /reached (\S+)\n/ ? "200 $1" : '200';
}

sub read_until {
    my ($socket, $end) = @_;
    my $text = '';
    while (ready($socket, 0, 8)) {
        sysread($socket, $text, 65536, length $text) or last;
        last if $text =~ $end;
    }
    return $text;
}

sub shell {
    my ($token, $command) = @_;
    $command =~ s/TOKEN/$token/g;
    my $said = `($command) 2>&1`;
    my $code = $? >> 8;
    return $code ? "status $code" : 'ok' . ($said =~ /^(.{1,60})/ ? " $1" : '');
}
