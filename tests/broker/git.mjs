// GitHub for the proof: git's own server for whoever brings any token, and an API that answers everything. It opens a pull
// request only for a branch that was pushed.
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { gunzipSync } from "node:zlib";

const ROOT = "/tmp/git";

export function prepare() {
	for (const name of ["me/proj", "me/other"]) {
		const path = `${ROOT}/${name}.git`;
		mkdirSync(path, { recursive: true });
		const git = (...args) => execFileSync("git", ["-C", path, ...args], { stdio: ["ignore", "pipe", "inherit"], encoding: "utf8" }).trim();
		git("init", "--quiet", "--bare", "--initial-branch=main");
		git("config", "http.receivepack", "true");
		const tree = git("hash-object", "-t", "tree", "-w", "/dev/null");
		const who = ["-c", "user.name=n", "-c", "user.email=e@example.com"];
		git("update-ref", "refs/heads/main", git(...who, "commit-tree", tree, "-m", "first"));
	}
}

/** Git over HTTP, as `git http-backend` does it, which not every image has. */
export function git(request, response, body) {
	const [path, query = ""] = request.url.split("?");
	if (request.headers.authorization?.startsWith("Basic ") !== true) return response.writeHead(401).end();
	const [, repository, tail] = path.match(/^\/([^/]+\/[^/]+?)(?:\.git)?\/(info\/refs|git-upload-pack|git-receive-pack)$/) ?? [];
	const service = (tail === "info/refs" ? query.match(/^service=(git-[a-z]+-pack)$/)?.[1] : tail) ?? "";
	if (!/^git-(upload|receive)-pack$/.test(service) || !existsSync(`${ROOT}/${repository}.git`)) return response.writeHead(404).end();
	const version = request.headers["git-protocol"] ?? "";
	const advertises = tail === "info/refs";
	const words = [service.slice(4), "--stateless-rpc", ...(advertises ? ["--advertise-refs"] : []), `${ROOT}/${repository}.git`];
	const program = spawn("git", words, { env: { ...process.env, GIT_PROTOCOL: version }, stdio: ["pipe", "pipe", "inherit"] });
	response.writeHead(200, { "content-type": `application/x-${service}-${advertises ? "advertisement" : "result"}` });
	if (advertises && !version.includes("version=2")) {
		const line = `# service=${service}\n`;
		response.write(`${(line.length + 4).toString(16).padStart(4, "0")}${line}0000`);
	}
	program.stdout.pipe(response);
	program.stdin.on("error", () => {});
	program.stdin.end(request.headers["content-encoding"] === "gzip" ? gunzipSync(body) : body);
}

// As much of a repository as commands of `gh` ask for.
const REPOSITORY = {
	id: "R", name: "proj", owner: { login: "me" }, hasIssuesEnabled: true, viewerPermission: "WRITE", isPrivate: true,
	defaultBranchRef: { name: "main" }, issues: { totalCount: 0, nodes: [] }, pullRequests: { totalCount: 0, nodes: [] },
};
const DATA = {
	viewer: { login: "me" }, repository: REPOSITORY, repo_000: REPOSITORY,
	createPullRequest: { pullRequest: { id: "P", url: "https://github.com/me/proj/pull/1" } },
};

const pulls = [];

function openPull(request, response, body) {
	const { title, head, base } = JSON.parse(body);
	const repository = `${ROOT}/${request.url.slice("/repos/".length).replace(/\/pulls$/, "")}.git`;
	try {
		execFileSync("git", ["-C", repository, "rev-parse", "--verify", "--quiet", `refs/heads/${head}`], { stdio: "ignore" });
	} catch {
		response.writeHead(422, { "content-type": "application/json" });
		return response.end(JSON.stringify({ message: "Validation Failed" }));
	}
	pulls.push(`${head} into ${base}: ${title}`);
	response.writeHead(201, { "content-type": "application/json" });
	response.end(JSON.stringify({ html_url: `https://github.com/me/proj/pull/${pulls.length}`, title }));
}

export function api(request, response, body = "") {
	if (request.method === "POST" && /^\/repos\/me\/[a-z]+\/pulls$/.test(request.url)) return openPull(request, response, body.toString());
	response.writeHead(200, { "content-type": "application/json" });
	response.end(JSON.stringify({ login: "someone", path: request.url, data: DATA }));
}
