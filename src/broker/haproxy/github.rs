//! GitHub as a frontend with two backends: git, by its paths, and the API, by its host.

use super::{KEYS, LARGEST, Place, REMOVED, deny, endpoint};
use crate::broker::{
    api::Carrier,
    github::{API, GIT, GitHub, Graph, Write, endpoint as github_at},
    relay::Relay,
    route::Endpoint,
};

/// How the launcher passes on to an endpoint.
type Ways<'a> = &'a dyn Fn(&Endpoint) -> Option<Relay>;

/// The token's name in the map.
pub(super) const KEY: &str = "github";

/// What a session changes of issues and pull requests. Merging, releases, workflows, secrets and the repository's own
/// settings are not among it.
const CHANGES: &str = "(issues(/[0-9]+(/(comments|labels|assignees))?)?|issues/comments/[0-9]+|labels|\
    pulls(/[0-9]+(/(comments|reviews|requested_reviewers))?)?)";

pub(super) fn frontend(place: &Place<'_>) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        "frontend github".to_owned(),
        format!("    bind {}:{} proto h1", place.listen.ip(), place.listen.port() + 1),
        deny(400, "the request names no path", "unless { url_beg / }"),
        deny(
            400,
            "the path is odd",
            "if { path -m reg '(^|/)[.][.]?(/|$)' } or { path -m sub // ';' '\\' } \
             or { path -m sub -i %2e %2f %5c %25 %00 }",
        ),
        deny(403, "no protocol but HTTP is spoken here", "if { req.hdr(upgrade) -m found }"),
        deny(413, "the request is too large", &format!("if {{ req.body_size gt {LARGEST} }}")),
    ];
    lines.extend(REMOVED.iter().map(|name| format!("    http-request del-header {name}")));
    lines.extend([
        "    use_backend github.git if { path_beg /github.com/ }".to_owned(),
        "    use_backend github.api if { req.fhdr(host) -i -m str api.github.com }".to_owned(),
        "    default_backend none".to_owned(),
    ]);
    lines
}

pub(super) fn backends(github: &GitHub, place: &Place<'_>, ways: Ways<'_>) -> Vec<String> {
    let mut lines = git(github, place, ways);
    lines.extend(api(github, place, ways));
    lines
}

fn git(github: &GitHub, place: &Place<'_>, ways: Ways<'_>) -> Vec<String> {
    let placeholder = github.token_placeholder();
    let mut lines = begin("github.git", GIT, place);
    lines.push(unless_known(&format!("unless {{ req.fhdr(x-api-key) -m str '{placeholder}' }}")));
    let services: &[&str] = match github.write {
        Write::Allowed => &["git-upload-pack", "git-receive-pack"],
        Write::Refused => &["git-upload-pack"],
    };
    for repository in &github.repositories {
        for (service, end) in services.iter().flat_map(|service| [(service, ""), (service, ".git")]) {
            // GitHub does not tell upper from lower case here.
            let path = format!("/github.com/{repository}{end}");
            lines.push(known("GET", &format!("{{ pathq -i -m str '{path}/info/refs?service={service}' }}")));
            lines.push(known("POST", &format!("{{ pathq -i -m str '{path}/{service}' }}")));
        }
    }
    lines.push(deny(403, "git may not do this here", "unless { var(txn.known) -m bool }"));
    lines.extend(without_carriers());
    lines.extend([
        "    http-request set-var(txn.user) str(x-access-token:),concat(,txn.token)".to_owned(),
        "    http-request set-header authorization 'Basic %[var(txn.user),base64]'".to_owned(),
        "    http-request replace-path '^/github[.]com(/.*)$' '\\1'".to_owned(),
    ]);
    lines.extend(to(GIT, place, ways));
    lines
}

fn api(github: &GitHub, place: &Place<'_>, ways: Ways<'_>) -> Vec<String> {
    let placeholder = github.token_placeholder();
    let mut lines = begin("github.api", API, place);
    lines.push(unless_known(&format!(
        "unless {{ req.fhdr(authorization) -m str 'token {placeholder}' 'Bearer {placeholder}' }}"
    )));
    lines.push(known("GET", "{ path -m str / /user /rate_limit /meta }"));
    for repository in &github.repositories {
        let path = format!("/repos/{repository}");
        lines.push(known("GET", &format!("{{ path -i -m str '{path}' }}")));
        lines.push(known("GET", &format!("{{ path -i -m beg '{path}/' }}")));
        if github.write == Write::Allowed {
            let path = endpoint::quoted(&path);
            lines.push(known("POST PATCH PUT", &format!("{{ path -i -m reg '^{path}/{CHANGES}$' }}")));
        }
    }
    if github.graph == Graph::Allowed {
        lines.extend(graph(github.write));
    }
    let text = match github.graph {
        Graph::Allowed => {
            "of GraphQL pass questions, and single changes to issues and pull requests as gh writes them"
        }
        Graph::Refused => "gh needs a fine-grained token for this: no other can be limited to a repository",
    };
    lines.push(excuse(text, "if { path -m str /graphql } !{ var(txn.known) -m bool }"));
    lines.push(excuse("gh may not do this here", "unless { var(txn.known) -m bool }"));
    lines.extend(without_carriers());
    lines.push("    http-request set-header authorization 'token %[var(txn.token)]'".to_owned());
    lines.extend(to(API, place, ways));
    lines
}

/// Changes by GraphQL that are among those of [`CHANGES`], one at a time, as `gh` asks for them.
const MUTATIONS: &str = "(create|update|close|reopen)(Issue|PullRequest)|markPullRequestReadyForReview|\
    convertPullRequestToDraft|requestReviews|addPullRequestReview|(add|updateIssue)Comment|\
    (addLabelsTo|removeLabelsFrom)Labelable|(addAssigneesTo|removeAssigneesFrom)Assignable";

/// How long a question in GraphQL may be: all of it is looked at.
const LONGEST: usize = 24_000;

/// Questions pass. A change passes if it is the one thing that is asked for, written as `gh` writes it: a document with
/// several, a word behind an escape and what does not fit into the buffer are refused.
fn graph(write: Write) -> Vec<String> {
    let asks = "{ path -m str /graphql }";
    let gap = r"( |\\[nt])*";
    let change = format!(
        r#""query":"{gap}mutation [A-Za-z]+\(\$input: ?[A-Za-z]+Input!\){gap}\{{{gap}({MUTATIONS})\(input: ?\$input\){gap}\{{([A-Za-z,{{}} ]|\\[nt])*\}}""#
    );
    let mut lines = vec![
        format!("    http-request wait-for-body time 10s at-least {LONGEST} if {asks}"),
        "    http-request set-var(txn.seen) req.body_len".to_owned(),
    ];
    for odd in [
        format!("{{ req.body_size gt {LONGEST} }}"),
        "!{ req.body_size,sub(txn.seen) eq 0 }".to_owned(),
        "{ req.hdr(content-encoding) -m found }".to_owned(),
        "{ req.hdr(transfer-encoding) -m found }".to_owned(),
        // Another encoding would hide every word.
        r#"!{ req.body -m beg '{"' }"#.to_owned(),
        // A letter behind an escape, which could be one of a word that is looked for.
        r"{ req.body -m reg '\\u00[4567]' }".to_owned(),
    ] {
        lines.push(excuse("this question is too long, or not plain", &format!("if {asks} {odd}")));
    }
    lines.push(known("POST", "{ pathq -m str /graphql } !{ req.body -m sub mutation }"));
    if write == Write::Allowed {
        let one = "!{ req.body -m reg '(?s)mutation.*mutation' }";
        lines.push(known(
            "POST",
            &format!("{{ pathq -m str /graphql }} {one} {{ req.body -m reg '{change}' }}"),
        ));
    }
    lines
}

/// A refusal that `gh` shows to its user.
fn excuse(text: &str, condition: &str) -> String {
    format!(
        "    http-request deny status 403 content-type application/json string '{{\"message\":\"pi: {text}\"}}' {condition}"
    )
}

fn begin(name: &str, host: &str, place: &Place<'_>) -> Vec<String> {
    vec![
        String::new(),
        format!("backend {name}"),
        format!("    http-request set-var(txn.route) str({KEY})"),
        format!("    http-request set-var(txn.host) str({host})"),
        format!("    http-request set-var(txn.token) str({KEY}),map({}/{KEYS})", place.directory),
        deny(421, "there is no token for GitHub now", "unless { var(txn.token) -m found }"),
    ]
}

fn unless_known(condition: &str) -> String {
    deny(403, "this is not the placeholder of this session", condition)
}

fn known(methods: &str, path: &str) -> String {
    format!("    http-request set-var(txn.known) bool(true) if {{ method {methods} }} {path}")
}

fn without_carriers() -> impl Iterator<Item = String> {
    Carrier::ALL.iter().map(|carrier| format!("    http-request del-header {}", carrier.header()))
}

fn to(host: &str, place: &Place<'_>, ways: Ways<'_>) -> Vec<String> {
    let mut lines = vec![format!("    http-request set-header host {host}")];
    let endpoint = github_at(host);
    lines.extend(endpoint::server(&endpoint, place, ways(&endpoint).as_ref()));
    lines
}
