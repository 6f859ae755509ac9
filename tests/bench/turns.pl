#!/usr/bin/perl
# turns RUNS COMMAND…: runs shell commands in turns, and prints the median of each in milliseconds.
use strict;
use warnings;
use Time::HiRes qw(time);

my ($runs, @commands) = @ARGV;
my @times = map { [] } @commands;
for my $run (0 .. $runs) {
    for my $n (0 .. $#commands) {
        system('rm', '-rf', '/tmp/node-compile-cache');
        my $begun = time;
        system('sh', '-c', "$commands[$n] >/tmp/said 2>&1 </dev/null") == 0
            or die "`$commands[$n]` ended with $?: ", do { open my $said, '<', '/tmp/said'; local $/; <$said> };
        push @{ $times[$n] }, 1000 * (time - $begun) if $run;
    }
}
print join(' ', map { (sort { $a <=> $b } @$_)[@$_ / 2] } @times), "\n";
