# Prints how many commits of the copy at $1 the commit $2 does not hold, and `+` behind it where something is uncommitted.
set -eu
cd "$1"
export HOME=/tmp GIT_DIR="$1/.git" GIT_WORK_TREE="$1" GIT_OPTIONAL_LOCKS=0
git() { command git -c core.hooksPath=/dev/null -c core.fsmonitor=false "$@"; }
known=
if git cat-file -e "$2^{commit}" 2>/dev/null; then known="--not $2"; fi
# shellcheck disable=SC2086
count=$(git rev-list --count --all HEAD $known 2>/dev/null || git rev-list --count --all $known)
changed=
if [ -n "$(git status --porcelain | head -n 1)" ]; then changed=+; fi
echo "$count$changed"
