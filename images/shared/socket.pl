# What the gate of the agent's container and the sidecar's supervisor need of the module Socket, as it is on Linux: to load
# that module takes longer than all that either does with it.
use strict;
use warnings;

sub AF_UNIX () { return 1 }
sub AF_INET () { return 2 }
sub SOCK_STREAM () { return 1 }
sub SOCK_NONBLOCK () { return 0x800 }
sub IPPROTO_TCP () { return 6 }
sub SOL_SOCKET () { return 1 }
sub SO_REUSEADDR () { return 2 }
sub SO_ERROR () { return 4 }
sub SO_BINDTODEVICE () { return 25 }

# The four bytes of an address; nothing for what is none. Unlike Socket's, it asks nobody for a name.
sub inet_aton {
    my @bytes = $_[0] =~ /\A([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\z/ or return undef;
    return undef if grep { $_ > 255 } @bytes;
    return pack('C4', @bytes);
}

sub inet_ntoa { return join('.', unpack('C4', $_[0])) }

sub pack_sockaddr_in { return pack('S n a4 x8', AF_INET, $_[0], $_[1]) }

sub pack_sockaddr_un { return pack('S a108', AF_UNIX, $_[0]) }

1;
