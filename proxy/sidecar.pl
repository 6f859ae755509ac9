# What both programs of the sidecar need: how they hear from the launcher, and how they speak to it.
use strict;
use warnings;

# No rules are longer. They lie in memory and on a small /tmp.
my $LONGEST_FILE = 2 << 20;
my $LONGEST_WORD = 64;
my %NAMES = map { $_ => 1 } qw(lan closed published broker.lan tinyproxy.conf filter broker.cfg keys.map ca.pem);

sub say_line { print STDOUT "pi-proxy: $_[0]\n" }

sub fail {
    say_line("error: $_[0]");
    exit 1;
}

# Reads what the launcher sends on standard input: any number of `file NAME LENGTH` with so many bytes behind it, then a
# word. Puts the files into a hash and returns the word, or nothing at the end of the input. Reads no byte further: what
# follows may be for the next program.
sub receive {
    my ($files) = @_;
    while (1) {
        my $line = '';
        until ($line =~ s/\n\z//) {
            length $line < $LONGEST_WORD or fail('the launcher sent a word that is too long');
            sysread(STDIN, $line, 1, length $line) or return undef;
        }
        return $line unless $line =~ /^file (\S+) ([0-9]{1,9})$/;
        my ($name, $length) = ($1, $2);
        $NAMES{$name} && $length <= $LONGEST_FILE or fail('the launcher sent a file that is too long, or of an unknown name');
        my $text = '';
        while (length $text < $length) {
            sysread(STDIN, $text, $length - length $text, length $text) or return undef;
        }
        $files->{$name} = $text;
    }
}

1;
