# Makes a copy of what has come in: $1 is the work tree, $2 the directory below it where the session begins. The lists in
# `.git/pi` have a NUL behind each path. No agent has been here yet. Prints the commit that holds all that was copied.
set -eu
cd "$1"
umask 022
export HOME=/tmp GIT_DIR="$1/.git" GIT_WORK_TREE="$1" GIT_LITERAL_PATHSPECS=1
export GIT_AUTHOR_NAME=pi GIT_AUTHOR_EMAIL=pi@localhost GIT_COMMITTER_NAME=pi GIT_COMMITTER_EMAIL=pi@localhost
pi=.git/pi
head=$(git rev-parse -q --verify 'HEAD^{commit}' || true)
if [ -n "$head" ]; then git read-tree HEAD; fi
git update-index -z --skip-worktree --stdin <$pi/skipped
if [ -s $pi/added ]; then git add --force --intent-to-add --pathspec-from-file=$pi/added --pathspec-file-nul; fi
git update-index -q --refresh >/dev/null || true
if [ -e .git/index ]; then cp .git/index $pi/index; fi
export GIT_INDEX_FILE=$pi/index
git add --all
tree=$(git write-tree)
base=$head
if [ -z "$head" ] || [ "$tree" != "$(git rev-parse 'HEAD^{tree}')" ]; then
    base=$(git commit-tree ${head:+-p "$head"} -m 'What was not committed when the copy was made' "$tree")
fi
git update-ref refs/pi/base "$base"
rm -rf $pi
mkdir -p "./$2"
echo "$base"
