#!/usr/bin/perl
# tunnels.pl PORT SECONDS: asks the proxy for tunnels to this port of the machine outside, where the measuring program
# listens. Prints a figure for each of these, on one line:
#     MB/s through 1, 16 and 100 tunnels; new tunnels a second by 1, 16 and 100 at once; MB/s through 1 beside 200 idle ones
use strict;
use warnings;
use Socket;
use Time::HiRes qw(time);

my ($port, $seconds) = @ARGV;
my ($address, $proxy) = $ENV{HTTPS_PROXY} =~ m{^http://([0-9.]+):([0-9]+)};
my $to = pack_sockaddr_in($proxy, inet_aton($address));
my @figures = map { sprintf '%.1f', $_ } (map { bytes($_) } 1, 16, 100), (map { connections($_) } 1, 16, 100), idle(200);
print "@figures\n";

# An open tunnel, whose server was told what to do.
sub tunnel {
    my ($word) = @_;
    socket(my $socket, AF_INET, SOCK_STREAM, 0) or die "no socket: $!";
    connect($socket, $to) or die "no proxy: $!";
    syswrite($socket, "CONNECT host.docker.internal:$port HTTP/1.1\r\nHost: host.docker.internal:$port\r\n\r\n");
    my $answer = '';
    until ($answer =~ /\r\n\r\n/) {
        sysread($socket, $answer, 1, length $answer) or die "no answer: $answer";
    }
    $answer =~ / 200 / or die "no tunnel: $answer";
    syswrite($socket, $word);
    return $socket;
}

# What so many processes count in their time, a second.
sub together {
    my ($count, $work) = @_;
    pipe(my $in, my $out) or die "no pipe: $!";
    my $begun = time;
    my @pids;
    for (1 .. $count) {
        push @pids, my $pid = fork // die "no process: $!";
        next if $pid;
        syswrite($out, $work->($begun + $seconds) . "\n");
        exit;
    }
    close $out;
    my $sum = 0;
    while (defined(my $line = <$in>)) { $sum += $line }
    my $took = time - $begun;
    waitpid $_, 0 for @pids;
    return $sum / $took;
}

sub bytes {
    my ($count) = @_;
    return together($count, sub {
        my ($until) = @_;
        my $tunnel = tunnel('d');
        my $sum = 0;
        while (time < $until) {
            $sum += sysread($tunnel, my $chunk, 1 << 18) || die 'the tunnel has ended';
        }
        return $sum / 1e6;
    });
}

sub connections {
    my ($count) = @_;
    return together($count, sub {
        my ($until) = @_;
        my $sum = 0;
        while (time < $until) {
            sysread(tunnel('c'), my $byte, 1) or die 'the tunnel has ended';
            $sum++;
        }
        return $sum;
    });
}

sub idle {
    my ($count) = @_;
    my @idle = map { tunnel('i') } 1 .. $count;
    return bytes(1);
}
