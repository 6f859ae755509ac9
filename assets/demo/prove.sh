
# The attempts of `pi doctor --prove`. The arguments: open|proxy|none HOST_HOME DIGEST… The digests are SHA-256 of the
# user's keys, which nothing in here may know. All ought to be refused.

# What a process of no privilege has in its status.
privileges() {
    local left
    left=$(grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb):.*[1-9a-f]|NoNewPrivs:.*0|Seccomp:.*[01])' /proc/self/status | head -n 1)
    if [ -n "$left" ]; then echo "$left"; else no "no capability, no new privileges, filtered calls"; fi
}

# System calls that only help to get out. Each is asked for something that would succeed with the right to it.
system-calls() {
    perl -e '
        my %numbers = (
            x86_64 => { keyctl => 250, bpf => 321, perf_event_open => 298, userfaultfd => 323, io_uring_setup => 425,
                        init_module => 175, kexec_load => 246, setns => 308, unshare => 272, ptrace => 101,
                        open_by_handle_at => 304, mount => 165, pivot_root => 155, chroot => 161 },
            aarch64 => { keyctl => 219, bpf => 280, perf_event_open => 241, userfaultfd => 282, io_uring_setup => 425,
                         init_module => 105, kexec_load => 104, setns => 268, unshare => 97, ptrace => 117,
                         open_by_handle_at => 265, mount => 40, pivot_root => 41, chroot => 51 },
        );
        my $known = $numbers{ (split " ", `uname -m`)[0] } or do { print "machine not known"; exit 1 };
        my ($zero, $root) = ("\0" x 128, "/\0");
        open my $own, "<", "/proc/self/ns/net";
        my %words = (
            keyctl => [0, -3, 0], bpf => [0, $zero, 128], perf_event_open => [$zero, 0, -1, -1, 0], userfaultfd => [0],
            io_uring_setup => [1, $zero], init_module => [$zero, 0, $root], kexec_load => [0, 0, $zero, 0],
            setns => [fileno $own, 0], unshare => [0x10000000], ptrace => [16, 1, 0, 0],
            open_by_handle_at => [0, $zero, 0], mount => [$root, $root, $root, 4096, $root],
            pivot_root => [$root, $root], chroot => [$root],
        );
        for my $name (sort keys %$known) {
            my @words = @{ $words{$name} };
            next if syscall($known->{$name}, @words) < 0 && ($!{EPERM} || $!{ENOSYS} || $!{EACCES});
            print "$name: ", $! || "done"; exit 0;
        }
        print scalar(keys %$known), " calls refused"; exit 1;
    '
}

# Looks at everything that can be read here for a value with one of these digests.
keys() {
    if [ $# -eq 0 ]; then no "you have none set"; return; fi
    perl -MDigest::SHA=sha256_hex -e '
        my %keys = map { $_ => 1 } @ARGV;
        my $looked = 0;
        my $see = sub { my ($where, $value) = @_; $looked++; if ($keys{ sha256_hex($value) }) { print $where; exit 0 } };
        for my $file (glob "/proc/*/environ") {
            open my $in, "<", $file or next; local $/; my $all = <$in> // "";
            $see->($file, (split /=/, $_, 2)[1] // "") for split /\0/, $all;
        }
        my $home = $ENV{HOME};
        for my $file (glob "$home/.pi/agent/*.json $home/.* $home/.config/*/* /tmp/* /run/*") {
            next unless -f $file; open my $in, "<", $file or next; local $/; my $all = <$in> // "";
            $see->($file, $1) while $all =~ /"((?:[^"\\]|\\.)*)"/g;
            $see->($file, $_) for split /\s+/, $all;
        }
        print "$looked values looked at"; exit 1;
    ' "$@"
}

# A value that is written to the disk must not be found on the host afterwards: the launcher looks.
git-doors() {
    local planted=() door
    for door in hooks/pre-commit hooks/post-checkout info/attributes config; do
        if printf '#!/bin/sh\n[core]\n\tfsmonitor = "touch agent-was-here"\n' 2>/dev/null >>".git/$door"; then planted+=("$door"); fi
    done
    no "${#planted[@]} planted inside"
}

# Whether a TCP connection to one of these leaves this kernel and the sidecar's, or is even answered. The sidecar says no by
# ICMP, at most once a second, and a connection asks again after one, three and seven seconds.
tcp() {
    local address
    for address; do leaves "$address" & done | grep . || no "no way to ${#} addresses"
}
leaves() {
    local said
    said=$(LC_ALL=C timeout 9 bash -c ": <>/dev/tcp/${1% *}/${1#* }" 2>&1) && { echo "$1 answers"; return; }
    case $said in
    *"No route to host" | *"Network is unreachable" | *"Permission denied" | *"Cannot assign"* | *"not supported"*) ;;
    *) echo "packets to ${1% *} leave" ;;
    esac
}

metadata() { tcp "169.254.169.254 80" "169.254.170.2 80" "100.100.100.200 80"; }
ipv6() { tcp "2001:db8::1 443"; }
odd-port() { tcp "198.51.100.1 22" "198.51.100.1 8443" "203.0.113.1 53"; }

# Its own loopback is not this machine.
gateway() { answers 127.0.0.1 22 53 80 111 443 2375 8080; }

# A datagram that nobody refuses: a route, or the sidecar by ICMP.
udp() {
    perl -MSocket -e '
        for my $port (53, 443) {
            socket my $out, PF_INET, SOCK_DGRAM, 0 or next;
            setsockopt $out, 0, 11, 1;  # IP_RECVERR: be told of every refusal
            connect $out, sockaddr_in($port, inet_aton "198.51.100.1") or next;
            my $refused;
            for (1 .. 8) {
                last if $refused = !defined send $out, "x", 0;
                select undef, undef, undef, 0.5;
            }
            next if $refused;
            print "to port $port"; exit 0;
        }
        print "$!"; exit 1;
    '
}

# Whether a name that nobody can know is carried out to a name server: then data could be, too. A server that says that
# it does not serve, or nothing, is a wall.
dns() {
    perl -MSocket -e '
        my $name = join "", map { chr 97 + int rand 26 } 1 .. 20;
        my $question = pack("n6", 7, 0x0100, 1, 0, 0, 0) . join("", map { chr(length) . $_ } $name, "example", "com") . "\0" . pack("n2", 1, 1);
        open my $in, "<", "/etc/resolv.conf"; my $asked = 0;
        for my $server (map { /^nameserver\s+(\d+(?:\.\d+){3})/ ? $1 : () } <$in>) {
            socket my $out, PF_INET, SOCK_DGRAM, 0 or next;
            connect $out, sockaddr_in(53, inet_aton $server) or next;
            send $out, $question, 0 or next;
            $asked++;
            vec(my $ready = "", fileno $out, 1) = 1;
            next unless select $ready, undef, undef, 3;
            recv $out, my $answer, 512, 0 or next;
            my $code = (unpack "n2", $answer)[1] & 15;
            if ($code == 0 || $code == 3) { print "$server answers"; exit 0 }
        }
        print "no answer, $asked asked"; exit 1;
    '
}

# Addresses that the proxy must not lead to: only `example.com:443` is listed.
proxy() {
    perl -MSocket -e '
        my ($host, $port) = ($ENV{https_proxy} // $ENV{HTTPS_PROXY} // "") =~ m{^http://([\d.]+):(\d+)} or do { print "there is none"; exit 0 };
        my @targets = qw(
            example.com:22 example.com:80 EXAMPLE.COM:8443 example.com.:444 x.example.com:443 example.com.evil.test:443
            127.0.0.1:443 localhost:443 localhost.:443 [::1]:443 [::ffff:127.0.0.1]:443 2130706433:443 0x7f000001:443
            017700000001:443 127.1:443 169.254.169.254:80 10.0.0.1:443 192.168.0.1:443 172.17.0.1:2375
            host.docker.internal:2375 metadata.google.internal:80 example.com@127.0.0.1:443 example.com%00.evil.test:443
        );
        my @requests = map { "CONNECT $_ HTTP/1.1\r\nHost: $_\r\n\r\n" } @targets;
        push @requests, map { "GET http://$_/ HTTP/1.1\r\nHost: example.com\r\n\r\n" } qw(169.254.169.254 127.0.0.1:2375 localhost);
        for my $request (@requests) {
            socket my $out, PF_INET, SOCK_STREAM, 0 or next;
            connect $out, sockaddr_in($port, inet_aton $host) or do { print "no connection"; exit 0 };
            syswrite $out, $request;
            my $answer = "";
            vec(my $ready = "", fileno $out, 1) = 1;
            sysread $out, $answer, 200 if select $ready, undef, undef, 5;
            next if $answer =~ m{^HTTP/1\.[01] (?:403|400)};
            my ($what) = $request =~ /^(\S+ \S+)/;
            print "$what: ", $answer =~ /^(.*?)\r/ ? $1 : "no answer"; exit 0;
        }
        print scalar(@requests), " spellings refused"; exit 1;
    '
}

exec >checks.txt 2>/dev/null
network=${1:?} home=${2:?}
shift 2
for name in privileges system-calls etc-write usr-write root mounting user-namespace devices host-processes \
    other-repositories git-doors; do
    attempt "$name"
done
attempt host-home-write "$home"
attempt ssh-keys "$home"
attempt engine-socket "$home"
attempt engine-port
attempt keys "$@"
case $network in
proxy) walls="metadata gateway internet odd-port udp ipv6 dns proxy" ;;
none) walls="metadata gateway internet odd-port udp ipv6 dns" ;;
*) walls="" ;;
esac
for name in $walls; do attempt "$name" & done
wait
exit 0
