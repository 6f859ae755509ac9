// What the agent is told when something is wrong outside. Usage: faults.mjs BROKER:PORT < summary.json
import { readFileSync } from "node:fs";

const [broker] = process.argv.slice(2);
const { routes } = JSON.parse(readFileSync(0, "utf8"));
const { placeholder } = routes[0];

async function ask(name, want, provider, rest, headers = {}) {
	const route = routes.find((one) => one.provider === provider);
	const path = route ? `/${route.name}/${route.authority}${rest}` : rest;
	const key = { "x-api-key": placeholder, authorization: `Bearer ${placeholder}` };
	const begun = Date.now();
	const answer = await fetch(`http://${broker}${path}`, { method: "POST", body: "{}", headers: { ...key, ...headers } });
	const said = (await answer.text()).slice(0, 100).split("\n")[0];
	process.stdout.write(`${JSON.stringify({ name, want, status: answer.status, ms: Date.now() - begun, said })}\n`);
}

await ask("the provider answers", 200, "anthropic", "/v1/messages");
await ask("the provider refuses the key", 401, "anthropic", "/v1/messages", { "x-want-status": "401" });
await ask("the provider is overloaded", 529, "anthropic", "/v1/messages", { "x-want-status": "529" });
await ask("no placeholder", 403, "anthropic", "/v1/messages", { "x-api-key": "x", authorization: "x" });
await ask("no such request", 403, "anthropic", "/v1/files");
await ask("no such route", 421, "none", "/x/y/z");
await ask("a provider on a private address", 502, "amazon-bedrock", "/model/m/converse");
await ask("a name that nobody knows", 502, "nowhere", "/v1/chat/completions");
await ask("a certificate for someone else", 503, "unsigned", "/v1/chat/completions");
await ask("plain HTTP that the user wrote down", 200, "plain", "/v1/chat/completions");
await ask("a private address that the user wrote down, where nobody listens", 503, "private", "/v1/chat/completions");
await fetch(`http://${broker}/anthropic/api.anthropic.com/v1/messages`, {
	method: "POST", body: "{}", headers: { "x-api-key": placeholder, "x-want-silence": "1" }, signal: AbortSignal.timeout(400),
}).catch(() => {});
await new Promise((done) => setTimeout(done, 600));
await ask("the provider still answers", 200, "anthropic", "/v1/messages");
