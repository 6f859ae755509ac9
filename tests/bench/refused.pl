#!/usr/bin/perl
# refused.pl SECONDS: asks the session's proxy for a name that is on no list, again and again, sixteen at once, and prints
# how many refusals came a second.
use strict;
use warnings;
use Socket;
use Time::HiRes qw(time);

my ($seconds) = @ARGV;
my ($address, $port) = $ENV{HTTPS_PROXY} =~ m{^http://([0-9.]+):([0-9]+)};
my $to = pack_sockaddr_in($port, inet_aton($address));
pipe(my $in, my $out) or die;
my $begun = time;
for (1 .. 16) {
    next if fork;
    my $count = 0;
    while (time - $begun < $seconds) {
        socket(my $socket, AF_INET, SOCK_STREAM, 0) or die;
        connect($socket, $to) or die "no proxy: $!";
        syswrite($socket, "CONNECT nobody.invalid:443 HTTP/1.1\r\n\r\n");
        sysread($socket, my $answer = '', 64);
        $answer =~ / 403 / or die 'no refusal';
        $count++;
    }
    syswrite($out, "$count\n");
    exit;
}
close $out;
my $all = 0;
$all += $_ while <$in>;
printf "%.0f\n", $all / (time - $begun);
