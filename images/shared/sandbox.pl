# What the gate of the agent's container and the sidecar must agree on: this file is in both images. It costs each start
# its own time, so it loads no module.
use strict;
use warnings;

sub slurp {
    my ($path) = @_;
    open(my $in, '<', $path) or return undef;
    local $/;
    my $text = <$in>;
    return defined $text ? $text : '';
}

# Names the privilege that a process has or could gain, by its `/proc/PID/status`; returns nothing if there is none.
sub privilege_left {
    my ($status) = @_;
    for my $set (qw(CapInh CapPrm CapEff CapBnd CapAmb)) {
        return "a capability is left ($set)" unless $status =~ /^$set:\s+0+$/m;
    }
    return undef if $status =~ /^NoNewPrivs:\s+1$/m;
    return 'a program could gain privileges (`no-new-privileges` is not set)';
}

# Asks a proxy for a name that cannot be on any list. The launcher knows the shape of these names, and does not report
# them as refused.
sub made_up_request {
    my $name = join('', map { ('a' .. 'z')[rand 26] } 1 .. 20) . '.invalid:443';
    return "CONNECT $name HTTP/1.1\r\nHost: $name\r\n\r\n";
}

# The sidecar's port for the gate alone: it lives as long as the gate's connection.
sub lifeline_port { return 8889 }

# Seconds since the machine started, to the hundredth.
sub now { return (split ' ', slurp('/proc/uptime') // '0')[0] }

# Expects the first line of the answer, or at least its first 13 bytes.
sub is_refusal { return $_[0] =~ m{^HTTP/1\.[01] 403 } }

1;
