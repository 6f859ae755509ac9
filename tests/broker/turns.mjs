// Runs the agent once for each provider; prints one line of JSON with what came of it.
//
// Usage: turns.mjs PROVIDER=MODEL… ; AGENT_DIR is the template of the agent's directory.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync } from "node:fs";
import { join } from "node:path";

for (const argument of process.argv.slice(2)) {
	const [provider, model] = argument.split("=");
	const place = mkdtempSync("/tmp/turn-");
	const agent = join(place, "agent");
	cpSync(process.env.AGENT_DIR, agent, { recursive: true });
	const env = { ...process.env, PI_CODING_AGENT_DIR: agent, HOME: place };
	const run = spawnSync("pi", ["-p", "--provider", provider, "--model", model, "-na", "--no-session", "Do it."], {
		cwd: place, env, stdio: ["ignore", "pipe", "pipe"], timeout: 60_000, encoding: "utf8",
	});
	let tool = "";
	try { tool = readFileSync(join(place, "turns.txt"), "utf8").trim(); } catch {}
	const said = run.stdout.trim().split("\n").pop();
	process.stdout.write(`${JSON.stringify({ provider, model, status: run.status, said, tool, error: run.stderr.trim().slice(0, 300) })}\n`);
}
