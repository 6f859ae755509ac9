# Git and `gh` from inside; prints one line of JSON a try. Usage: github.sh SCENARIO BROKER:PORT
broker=$2
export HOME=/tmp/home GH_CONFIG_DIR=/tmp/home/gh GIT_TERMINAL_PROMPT=0
mkdir -p "$GH_CONFIG_DIR"
socket=/tmp/.pi-gh.sock
printf 'version: "1"\nhttp_unix_socket: %s\n' "$socket" >"$GH_CONFIG_DIR/config.yml"
git config --global user.name n
git config --global user.email e@example.com
perl -T /world/forward "$socket" "$broker" &
trap 'kill %1' EXIT
for _ in $(seq 50); do [[ -S /tmp/.pi-gh.sock ]] && break; sleep 0.1; done
cd /tmp/home

# try WANT NAME COMMAND…: whether a command succeeds.
try() {
    local want=$1 name=$2 got=ok said
    shift 2
    said=$("$@" 2>&1) || got=refused
    said=$(tr -d '"\\' <<<"$said" | tr '\n\t' '  ' | cut -c1-200)
    printf '{"name":"%s","want":"%s","got":"%s","said":"%s"}\n' "$name" "$want" "$got" "$said"
}
# ask METHOD PATH HEADER…: one request, as it is.
ask() {
    local method=$1 path=$2 header args=()
    shift 2
    for header in "$@"; do args+=(-H "$header"); done
    curl --silent --show-error --fail --noproxy '*' --path-as-is -X "$method" "${args[@]}" "http://$broker$path"
}

write=refused graph=refused
if [[ $1 == github ]]; then write=ok graph=ok; fi
key="x-api-key: $GH_TOKEN"

try ok "clone by https" git clone --quiet https://github.com/me/proj a
try ok "clone by https, .git" git clone --quiet https://github.com/me/proj.git b
try ok "clone by git@" git clone --quiet git@github.com:me/proj.git c
try ok "clone by ssh" git clone --quiet ssh://git@github.com/me/proj d
try ok "fetch" git -C a fetch --quiet
echo "$1" >a/file && git -C a add file && git -C a commit --quiet -m one >&2
try $write "push" git -C a push --quiet origin HEAD:main
head -c 4000000 /dev/urandom >a/large && git -C a add large && git -C a commit --quiet -m two >&2
try $write "push four megabytes" git -C a push --quiet origin HEAD:large
try refused "another repository" git clone --quiet "http://$broker/github.com/me/other" e
try refused "one whose name begins alike" git clone --quiet https://github.com/me/proj-2 f
try refused "its way up" ask GET "/github.com/me/proj/../other/info/refs?service=git-upload-pack" "$key"
try refused "its way up, encoded" ask GET "/github.com/me/proj/%2e%2e/other/info/refs?service=git-upload-pack" "$key"
try refused "a file of its" ask GET "/github.com/me/proj/HEAD" "$key"
try refused "its page" ask GET "/github.com/me/proj" "$key"
try refused "its settings" ask POST "/github.com/me/proj/settings" "$key"
try refused "another service" ask GET "/github.com/me/proj/info/refs?service=git-upload-archive" "$key"
try refused "no service" ask GET "/github.com/me/proj/info/refs" "$key"
try refused "more in the query" ask GET "/github.com/me/proj/info/refs?service=git-upload-pack&x=1" "$key"
try refused "no placeholder" ask GET "/github.com/me/proj/info/refs?service=git-upload-pack"
try refused "another placeholder" ask GET "/github.com/me/proj/info/refs?service=git-upload-pack" "x-api-key: ghp_00000000000000000000000000000000"
try ok "the same with it" ask GET "/github.com/me/proj/info/refs?service=git-upload-pack" "$key"

try ok "gh api user" gh api user
try ok "gh api of the repository" gh api repos/me/proj
try ok "gh run list" gh api repos/me/proj/actions/runs
try ok "a comparison" gh api repos/me/proj/compare/main...large
try $write "a new issue" gh api repos/me/proj/issues -f title=x
try $graph "gh issue list" gh issue list -R me/proj
try $write "gh pr create" gh pr create -R me/proj --head large --base main --title t --body b
# With a length, which `gh` does not send for what it reads from a pipe.
graphql() { printf %s "$3" >/tmp/question && try "$1" "$2" gh api graphql --input /tmp/question; }
form='mutation F($input: MergePullRequestInput!) { mergePullRequest(input: $input) { clientMutationId } }'
graphql $graph "a question" '{"query":"query { viewer { login } }"}'
graphql refused "a merge by GraphQL" "{\"query\":\"$form\",\"variables\":{}}"
graphql refused "a commit by GraphQL" '{"query":"mutation C($input: CreateCommitOnBranchInput!) { createCommitOnBranch(input: $input) { clientMutationId } }"}'
graphql refused "a change without a name" '{"query":"mutation{mergePullRequest(input:{pullRequestId:\"x\"}){clientMutationId}}"}'
graphql refused "two changes in one" '{"query":"mutation A($input: AddCommentInput!) { addComment(input: $input) { clientMutationId } mergePullRequest(input: $input) { clientMutationId } }"}'
graphql refused "two documents" '{"query":"mutation A($input: AddCommentInput!) { addComment(input: $input) { clientMutationId } }","query":"mutation{deleteRef(input:{refId:\"x\"}){clientMutationId}}"}'
graphql refused "a change behind a question" '{"query":"query A { viewer { login } } mutation B { deleteRef(input: {refId: \"x\"}) { clientMutationId } }","operationName":"B"}'
printf %s '{"query":"mutation{x}"}' | iconv -t utf-16le >/tmp/question
try refused "a change in another encoding" gh api graphql --input /tmp/question
graphql refused "an escaped word" '{"query":"\u006dutation{deleteRef(input:{refId:\"x\"}){clientMutationId}}"}'
graphql refused "an escaped name" '{"\u0071uery":"mutation{deleteRef(input:{refId:\"x\"}){clientMutationId}}"}'
graphql refused "a change behind much else" "{\"x\":\"$(printf %30000s)\",\"query\":\"mutation{deleteRef(input:{refId:1}){clientMutationId}}\"}"
graphql $write "a comment" '{"query":"mutation CommentCreate($input:AddCommentInput!){addComment(input: $input){commentEdge{node{url}}}}","variables":{"input":{"body":"x","subjectId":"I"}}}'
try refused "another repository's" gh api repos/me/other
try refused "one whose name begins alike" gh api repos/me/proj-2/issues
try refused "all of the user's" gh api user/repos
try refused "a new repository" gh api user/repos -f name=x
try refused "a new key" gh api user/keys -f key=x
try refused "its end" gh api -X DELETE repos/me/proj
try refused "its settings" gh api -X PATCH repos/me/proj -f private=false
try refused "a file of its" gh api -X PUT repos/me/proj/contents/x -f message=x
try refused "a merge" gh api -X PUT repos/me/proj/pulls/1/merge
try refused "a hook" gh api repos/me/proj/hooks -f name=web
try refused "a secret" gh api -X PUT repos/me/proj/actions/secrets/X -f encrypted_value=x
try refused "a workflow" gh api repos/me/proj/actions/workflows/1/dispatches -f ref=main
try refused "a gist" gh api gists -f description=x
api="host: api.github.com"
try refused "its way up" ask GET "/repos/me/proj/../other" "$api" "authorization: token $GH_TOKEN"
try refused "its way up, encoded" ask GET "/repos/me/proj/%2e%2e/other" "$api" "authorization: token $GH_TOKEN"
try refused "another host" ask GET "/repos/me/proj" "host: uploads.github.com" "authorization: token $GH_TOKEN"
try refused "no placeholder" ask GET "/repos/me/proj" "$api"
try refused "a token of one's own" ask GET "/repos/me/proj" "$api" "authorization: token ghp_own"
try ok "the same with the placeholder" ask GET "/repos/me/proj" "$api" "authorization: token $GH_TOKEN"
