// The other end of a repository: its remote over HTTP, and as much of GitHub's API as is asked.
//
//     /git/…             the repository `owner/repo`
//     GET /branches      of it, each with its subject, a line each
//
// On the socket /socket/gh: POST /repos/…/pulls opens a pull request; GET /pulls lists all. It listens on port 8080 and then
// prints `listening`; it ends with its standard input.

import { execFileSync, spawn } from "node:child_process";
import { chmodSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createGunzip } from "node:zlib";

const repository = "/tmp/git/owner/repo.git";
execFileSync("git", ["init", "--quiet", "--bare", repository]);

// Git's own protocol over HTTP: one process of git for each request.
function serve(request, response) {
  const [, service] = /(git-(?:receive|upload)-pack)$/.exec(request.url) ?? [];
  if (!service) return response.writeHead(404).end();
  const asks = request.method === "GET";
  const words = [service.replace("git-", ""), "--stateless-rpc", ...(asks ? ["--advertise-refs"] : []), repository];
  const kind = asks ? "advertisement" : "result";
  response.writeHead(200, { "content-type": `application/x-${service}-${kind}`, "cache-control": "no-cache" });
  const line = `# service=${service}\n`;
  if (asks) response.write(`${(line.length + 4).toString(16).padStart(4, "0")}${line}0000`);
  const git = spawn("git", words, { stdio: ["pipe", "pipe", "inherit"] });
  const packed = request.headers["content-encoding"] === "gzip";
  (packed ? request.pipe(createGunzip()) : request).pipe(git.stdin);
  git.stdout.pipe(response);
}

createServer((request, response) => {
  if (request.url.startsWith("/git/owner/repo.git/")) return serve(request, response);
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
