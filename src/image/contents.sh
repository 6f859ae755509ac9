# Prints what an image is made of, a line each: `date`, `os ID VERSION`, `deb NAME VERSION ARCHITECTURE SOURCE
# SOURCE-VERSION`, `run NAME VERSION` for programs that no Debian package brought, and `npm [NAME, VERSION, LICENCE]`.
set -eu
tab=$(printf '\t')
date -u "+date${tab}%Y-%m-%dT%H:%M:%SZ"
. /etc/os-release
printf 'os\t%s\t%s\n' "$ID" "$(cat /etc/debian_version 2>/dev/null || echo "${VERSION_ID-}")"
dpkg-query -W -f='${db:Status-Status} deb\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n' |
    sed -n 's/^installed //p'
while read -r name how; do
    path=$(command -v "$name") || continue
    if dpkg-query -S "$(readlink -f "$path")" >/dev/null 2>&1; then continue; fi
    printf 'run\t%s\t%s\n' "$name" "$("$name" "$how" 2>/dev/null | grep -oE '[0-9]+([.][0-9]+)+' | head -n 1)"
done <<END
node --version
go version
php --version
composer --version
acli --version
END
if command -v node >/dev/null; then
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp \) -prune -o -type f \
        -regex '.*/node_modules/\(@[^/]+/\)?[^/]+/package\.json' -print0 2>/dev/null | node -e '
        const fs = require("fs")
        for (const path of fs.readFileSync(0, "utf8").split("\0").filter(Boolean)) {
            const { name, version, license } = JSON.parse(fs.readFileSync(path, "utf8"))
            if (name && version) console.log("npm\t" + JSON.stringify([name, version, license?.type ?? license]))
        }'
fi
