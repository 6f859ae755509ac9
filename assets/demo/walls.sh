#!/usr/bin/env bash
# Tries the walls of the sandbox from inside, as an agent that has been turned against its user would.
#
# Each attempt is a function. `attempt NAME …` runs one and prints `CHECK NAME allowed|refused DETAIL`. What succeeds is
# undone, but for the file in the repository. `check.sh` or `prove.sh` follows.
#
# shellcheck disable=SC2317,SC2329  # Every attempt is called by its name.

# Runs the function of that name, with a time limit. Its last words are the detail.
attempt() {
    local verdict=refused said
    said=$(timeout 10 bash -c "$(declare -f)"$'\n"$@"' bash "$@" 2>&1 </dev/null) && verdict=allowed
    said=${said##*$'\n'} said=${said##*: } said=${said%.}
    printf 'CHECK %s %s %s\n' "$1" "$verdict" "${said,}"
}

# Says why not, and fails.
no() {
    echo "$*"
    return 1
}

write() {
    touch "$1/pi-demo-$$" && rm "$1/pi-demo-$$" && echo "$1"
}

repository-write() {
    echo "An agent wrote this." >agent-was-here.txt && echo agent-was-here.txt
}

home-write() {
    write "$HOME"
}

etc-write() {
    write /etc
}

usr-write() {
    write /usr/bin
}

# A directory of that name may be there, as a part of the path to the repository or as the container's own home. It is
# thrown away with the session, and not what is meant here.
host-home-write() {
    local device own
    device=$(stat -c %d "$1") || no "it is not there" || return
    for own in / /tmp "$HOME"; do
        if [ "$device" = "$(stat -c %d "$own")" ]; then no "there is nothing of yours"; return; fi
    done
    write "$1"
}

ssh-keys() {
    local dir
    for dir in "$1/.ssh" "$HOME/.ssh"; do
        if [ -n "$(ls -A "$dir" 2>/dev/null)" ]; then echo "$dir" && return; fi
    done
    no "none to be seen"
}

other-repositories() {
    local entry
    for entry in ../* ../.[!.]*; do
        if [ -e "$entry" ] && [ ! "$entry" -ef . ]; then realpath "$entry" && return; fi
    done
    no "nothing beside this one"
}

# Root is who holds a capability. The number 0 alone is nobody.
root() {
    local status=/proc/self/status way
    for way in as-i-am by-sudo by-su by-setuid; do
        if "$way" 2>/dev/null | grep -q '^CapEff:.*[1-9a-f]'; then echo "${way//-/ }" && return; fi
    done
    no "not by sudo, su or setuid"
}
as-i-am() { cat "$status"; }
by-sudo() { sudo -n cat "$status"; }
by-su() { su -c "cat $status"; }
by-setuid() { perl -e '$< = $> = 0; exec "cat", @ARGV' "$status"; }

mounting() {
    local said
    if said=$(mount -t tmpfs none /mnt 2>&1); then umount /mnt && echo "on /mnt"; else no "${said%%$'\n'*}"; fi
}

user-namespace() {
    unshare --user --map-root-user echo "root of an own namespace"
}

devices() {
    local device
    for device in /dev/mem /dev/kmsg /dev/kvm /dev/fuse $(find /dev -type b 2>/dev/null); do
        if { : <"$device"; } 2>/dev/null; then echo "$device" && return; fi
    done
    no "none of the machine's"
}

host-processes() {
    if grep -qsx kthreadd /proc/2/comm; then echo "the kernel's threads"; else no "only the container's own"; fi
}

engine-socket() {
    local socket
    for socket in "${DOCKER_HOST#unix://}" "$1/.docker/run/docker.sock" /run/user/*/docker.sock \
        /{var/run,run}/{docker.sock,podman/podman.sock,containerd/containerd.sock}; do
        if [ -S "$socket" ]; then echo "$socket" && return; fi
    done
    no "no socket"
}

# The host has the first address of each network that it shares with a container, and of docker's usual one.
hosts() {
    local net
    printf '%s\n' 127.0.0.1 172.17.0.1 host.docker.internal
    while read -r _ net _; do
        if [[ $net =~ ^[0-9A-F]{8}$ && $net != 00000000 ]]; then
            echo "$((16#${net:6:2})).$((16#${net:4:2})).$((16#${net:2:2})).$((16#${net:0:2} + 1))"
        fi
    done </proc/net/route
}

# Whether one of these ports of the hosts answers.
answers() {
    local hosts host port open
    mapfile -t hosts < <(hosts | grep -vxF "${1:?}")
    shift
    open=$(
        for host in "${hosts[@]}"; do
            for port; do
                timeout 2 bash -c ": <>/dev/tcp/$host/$port" 2>/dev/null && echo "$host:$port" &
            done
        done
        wait
    )
    if [ -n "$open" ]; then echo "$open"; else no "no answer, ${#hosts[@]} addresses tried"; fi
}

engine-port() { answers none 2375 2376; }

# The address is kept for documentation, and nobody has it. So a refusal of the route, by this kernel, is a wall; all
# else, silence included, means that the packet was on its way.
internet() {
    local said
    said=$(LC_ALL=C timeout 5 bash -c ': <>/dev/tcp/198.51.100.1/443' 2>&1)
    case $said in
    *"No route to host" | *"Network is unreachable") no "${said##*: }" ;;
    *) echo "packets leave" ;;
    esac
}

model() {
    : <>"/dev/tcp/${1%:*}/${1##*:}" && echo "$1"
}

