# Makes a commit of what is uncommitted in the copy at $1, whatever an agent has made of it, and names it `refs/pi/result`;
# other branches that it does not hold become `refs/pi/other/…`. Prints the size of the copy in KiB.
set -eu
cd "$1"
umask 022
export HOME=/tmp GIT_DIR="$1/.git" GIT_WORK_TREE="$1" GIT_LITERAL_PATHSPECS=1 GIT_TERMINAL_PROMPT=0 GIT_EDITOR=:
unset GIT_INDEX_FILE
git() { command git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c gc.auto=0 -c maintenance.auto=false -c core.splitIndex=false "$@"; }
name=$(git config user.name || true) email=$(git config user.email || true)
export GIT_AUTHOR_NAME="${name:-pi}" GIT_AUTHOR_EMAIL="${email:-pi@localhost}"
export GIT_COMMITTER_NAME="$GIT_AUTHOR_NAME" GIT_COMMITTER_EMAIL="$GIT_AUTHOR_EMAIL"
next=.git/pi-index
rm -rf $next $next.lock
# Of a git that was killed.
rm -f .git/index.lock .git/HEAD.lock
head=$(git rev-parse -q --verify 'HEAD^{commit}' || true)
# With its time: by it git sees that a file may have changed in the moment after it was added.
if [ -e .git/index ]; then cp --preserve=timestamps .git/index $next; fi
export GIT_INDEX_FILE=$next
git add --update
# A repository in the work tree has a slash behind its name. It stays in the copy.
git ls-files -z --others --exclude-standard | grep -zv '/$' | git update-index -z --add --stdin
# Where a submodule stands does not change.
git ls-files -z --stage | sed -zn 's/^160000 [0-9a-f]* [0-9]\t//p' | git update-index -z --force-remove --stdin
if [ -n "$head" ]; then
    git ls-tree -r -z HEAD | sed -zn '/^160000 /p' | git update-index -z --index-info
fi
tree=$(git write-tree)
result=$head
if [ -z "$head" ] || [ "$tree" != "$(git rev-parse 'HEAD^{tree}')" ]; then
    result=$(git commit-tree ${head:+-p "$head"} -m wip "$tree")
fi
busy=
for sign in MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD BISECT_LOG rebase-merge rebase-apply; do
    if [ -e .git/$sign ]; then busy=yes; fi
done
if [ -z "$busy" ] && [ "$result" != "$head" ] && git update-ref -m wip HEAD "$result" "${head:-$(echo "$result" | tr '[:xdigit:]' 0)}"; then
    mv -f $next .git/index
fi
unset GIT_INDEX_FILE
rm -f $next
git for-each-ref --format='delete %(refname)' refs/pi/result refs/pi/other/ | git update-ref --stdin
git update-ref refs/pi/result "$result"
git for-each-ref --no-merged="$result" --count=50 --format='create refs/pi/other/%(refname:lstrip=2) %(objectname)' refs/heads/ |
    git update-ref --stdin
du -sk . | cut -f 1
