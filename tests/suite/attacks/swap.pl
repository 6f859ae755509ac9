# Puts links to a directory in the place of whatever stands in directories, and back, again and again, until a file is there:
# whoever looks up a name there twice finds two things.
#
# swap.pl STOP OUTSIDE DIRECTORY…
use strict;
use warnings;

my ($stop, $outside, @dirs) = @ARGV;
my @names = qw(sessions auth.json settings.json trust.json models.json mcp-auth.json bin npm git extensions memory agent-bin);
my $begun = time;
until (-e $stop || time - $begun > 900) {
    for my $dir (@dirs) {
        opendir(my $listed, $dir) or next;
        my %all = map { $_ => 1 } @names, grep { !/^\.\.?$|^\.aside-/ } readdir $listed;
        for my $name (keys %all) {
            my $was = rename "$dir/$name", "$dir/.aside-$name";
            symlink $outside, "$dir/$name";
            # Names that somebody may be about to take for something new.
            symlink $outside, "$dir/.$name.next-$_" for $$ .. $$ + 3;
            select undef, undef, undef, 0.0003;
            unlink "$dir/$name", map { "$dir/.$name.next-$_" } $$ .. $$ + 3;
            if ($was) { rename "$dir/.aside-$name", "$dir/$name" }
            elsif ($name !~ /\./) { mkdir "$dir/$name" }
            # For a moment everything is as it should be, so that some look-ups come between.
            select undef, undef, undef, 0.0003;
        }
    }
}
