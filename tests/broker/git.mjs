// GitHub for the proof: git's own server for whoever brings any token, and an API that answers everything.
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";

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

/** Git over HTTP, as `git http-backend` does it. */
export function git(request, response, body) {
	const [path, query = ""] = request.url.split("?");
	if (request.headers.authorization?.startsWith("Basic ") !== true) return response.writeHead(401).end();
	const repository = path.replace(/^(\/[^/]+\/[^/]+?)(\.git)?(\/.*)$/, "$1.git$3");
	const env = {
		...process.env, GIT_PROJECT_ROOT: ROOT, GIT_HTTP_EXPORT_ALL: "1", PATH_INFO: repository, QUERY_STRING: query,
		REQUEST_METHOD: request.method, CONTENT_TYPE: request.headers["content-type"] ?? "", CONTENT_LENGTH: String(body.length),
		HTTP_CONTENT_ENCODING: request.headers["content-encoding"] ?? "", GIT_PROTOCOL: request.headers["git-protocol"] ?? "",
		REMOTE_USER: "agent", REMOTE_ADDR: "127.0.0.1",
	};
	const backend = spawn("git", ["http-backend"], { env, stdio: ["pipe", "pipe", "inherit"] });
	const chunks = [];
	backend.stdout.on("data", (data) => chunks.push(data));
	backend.on("close", () => {
		const all = Buffer.concat(chunks);
		const end = all.indexOf("\r\n\r\n");
		const headers = all.subarray(0, end).toString().split("\r\n").map((line) => line.split(": "));
		const status = Number(headers.find(([name]) => name === "Status")?.[1]?.slice(0, 3) ?? 200);
		response.writeHead(status, Object.fromEntries(headers.filter(([name]) => name !== "Status")));
		response.end(all.subarray(end + 4));
	});
	backend.stdin.end(body);
}

export function api(request, response) {
	response.writeHead(200, { "content-type": "application/json" });
	response.end(JSON.stringify({ login: "someone", path: request.url, data: { repository: { hasIssuesEnabled: true, issues: { totalCount: 0, nodes: [] } } } }));
}
