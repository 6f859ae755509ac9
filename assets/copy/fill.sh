# Makes a copy of what has come in: $1 is the work tree, $2 the directory below it where the session begins. The lists in
# `.git/pi` have a NUL behind each path; in `same` its mode and its time stand before it. No agent has been here yet. Prints the commit that holds all that was copied.
set -eu
cd "$1"
umask 022
export HOME=/tmp GIT_DIR="$1/.git" GIT_WORK_TREE="$1" GIT_LITERAL_PATHSPECS=1
export GIT_AUTHOR_NAME=pi GIT_AUTHOR_EMAIL=pi@localhost GIT_COMMITTER_NAME=pi GIT_COMMITTER_EMAIL=pi@localhost
pi=.git/pi
head=$(git rev-parse -q --verify 'HEAD^{commit}' || true)
if [ -n "$head" ]; then git read-tree HEAD; fi
git update-index -z --skip-worktree --stdin <$pi/skipped
# What is as in the commit comes out of the objects that are here already, byte by byte: no attribute counts.
if [ -s $pi/same ]; then
    attributes=.git/info/attributes
    if [ -e $attributes ]; then mv $attributes $pi/attributes; fi
    echo '* -text !eol -ident -filter -working-tree-encoding' >$attributes
    perl -0 -pe 's/^\S+ \S+ //' $pi/same | git checkout-index --quiet -z --stdin
    rm $attributes
    if [ -e $pi/attributes ]; then mv $pi/attributes $attributes; fi
    perl -0 -ne 'chomp; my ($mode, $time, $path) = split / /, $_, 3; chmod oct $mode, $path; utime $time, $time, $path' $pi/same
fi
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
