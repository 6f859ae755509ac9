// The other end of a repository: its remote over HTTP, and as much of GitHub's API as is asked.
//
//     /git/…             repositories below /tmp/git, by `git http-backend`
//     GET /branches      of the repository `owner/repo`, each with its subject, a line each
//
// On the socket /socket/gh: POST /repos/…/pulls opens a pull request; GET /pulls lists all. It listens on port 8080 and then
// prints `listening`; it ends with its standard input.

import { execFileSync, spawn } from "node:child_process";
import { chmodSync, rmSync } from "node:fs";
import { createServer } from "node:http";

const repository = "/tmp/git/owner/repo.git";
execFileSync("git", ["init", "--quiet", "--bare", repository]);
execFileSync("git", ["-C", repository, "config", "http.receivepack", "true"]);

function backend(request, response) {
  const { pathname, search } = new URL(request.url, "http://remote");
  const env = {
    ...process.env,
    GIT_PROJECT_ROOT: "/tmp/git",
    GIT_HTTP_EXPORT_ALL: "1",
    PATH_INFO: pathname.slice("/git".length),
    QUERY_STRING: search.slice(1),
    REQUEST_METHOD: request.method,
    CONTENT_TYPE: request.headers["content-type"] ?? "",
    HTTP_CONTENT_ENCODING: request.headers["content-encoding"] ?? "",
    REMOTE_USER: "somebody",
  };
  const git = spawn("git", ["http-backend"], { env, stdio: ["pipe", "pipe", "inherit"] });
  request.pipe(git.stdin);
  const parts = [];
  git.stdout.on("data", (part) => parts.push(part));
  git.stdout.on("end", () => {
    const whole = Buffer.concat(parts);
    const end = whole.indexOf("\r\n\r\n");
    const headers = Object.fromEntries(whole.subarray(0, end).toString().split("\r\n").map((line) => line.split(": ")));
    const { Status: status = "200", ...others } = headers;
    response.writeHead(Number.parseInt(status, 10), others);
    response.end(whole.subarray(end + 4));
  });
}

createServer((request, response) => {
  if (request.url.startsWith("/git/")) return backend(request, response);
  const format = "--format=%(refname:short) %(contents:subject)";
  response.end(execFileSync("git", ["-C", repository, "for-each-ref", format]));
}).listen(8080, () => console.log("listening"));

const pulls = [];
const socket = "/socket/gh";
rmSync(socket, { force: true });
createServer(async (request, response) => {
  const text = (await request.setEncoding("utf8").toArray()).join("");
  const answer = (status, body) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };
  if (request.method === "GET" && request.url === "/pulls") return answer(200, pulls);
  if (request.method !== "POST" || request.url !== "/repos/owner/repo/pulls") return answer(404, { message: "Not Found" });
  pulls.push(JSON.parse(text));
  answer(201, { html_url: `https://github.com/owner/repo/pull/${pulls.length}` });
}).listen(socket, () => chmodSync(socket, 0o777));

process.stdin.resume().on("end", () => process.exit());
