// Says what a part of the proof came to; the exit status is the verdict.
//
// Usage: judge.mjs SCRATCH PART [SCENARIO]
import { readFileSync } from "node:fs";

const [scratch, part, scenario] = process.argv.slice(2);
const text = (name) => readFileSync(`${scratch}/${name}`, "utf8");
const lines = (name) => text(name).split("\n").filter(Boolean).map((line) => JSON.parse(line));
let bad = 0;
const say = (ok, what) => {
	if (!ok) bad++;
	console.log(`${ok ? "ok  " : "FAIL"} ${what}`);
};

// What differs between two runs of the agent by itself, what every hop has of its own, and what a client adds for https.
const VOLATILE = /^(accept-encoding|sec-fetch-mode|content-length|connection|keep-alive|sec-websocket-key|session-id|x-client-request-id|x-session-affinity|x-session-id|x-opencode-session|amz-sdk-invocation-id|x-grok-conv-id|conversation_id|session_id|date|x-affinity)$/;

function shape({ method, path, headers, sni, upgrade }) {
	// The SDK notes there that its address is not the usual one.
	headers["user-agent"] = headers["user-agent"]?.replace(/ m\/[A-Z,]+/, "");
	const kept = Object.entries(headers).filter(([name]) => !VOLATILE.test(name)).sort();
	return `${method} ${path} [${sni}] ${upgrade ? "upgraded " : ""}${kept.map(([name, value]) => `${name}: ${value}`).join(" | ")}`;
}

function turns() {
	const direct = new Map(lines(`${scenario}.direct`).map((turn) => [turn.model + turn.provider, turn]));
	for (const turn of lines(`${scenario}.through`)) {
		const fine = (one) => one.status === 0 && one.said === "All is done." && one.tool !== "";
		const other = direct.get(turn.model + turn.provider);
		const note = fine(other) ? "" : `(directly: ${JSON.stringify(other)})`;
		say(fine(turn), `${turn.provider} ${turn.model}: ${turn.tool} ${fine(turn) ? "" : `${turn.status} ${turn.said} ${turn.error}`} ${note}`);
	}
	const [through, straight] = ["through", "direct"].map((way) => new Set(lines(`${scenario}.${way}.seen`).map(shape)));
	for (const one of through) if (!straight.has(one)) say(false, `only through the broker: ${one}`);
	for (const one of straight) if (!through.has(one)) say(false, `only directly: ${one}`);
	say(![...through].some((one) => one.includes("placeholder")), `${through.size} kinds of requests, none with a placeholder`);
	quiet(`${scenario}.log`);
}

function quiet(log) {
	const said = text(log).split("\n").filter(Boolean);
	const odd = said.filter((line) => !/^broker (-|[a-z0-9-]+) (<BADREQ>|[A-Za-z]+) (-|[a-z0-9.:-]+) -?\d+ \d+ -?\d+ [A-Za-z-]{2}$/.test(line) && !/^\[(NOTICE|WARNING)\]/.test(line));
	say(odd.length === 0, `${said.length} lines of log, each only route, method, host, status, bytes, time ${odd.slice(0, 3).join(" / ")}`);
	say(!/secret|placeholder/.test(said.join("\n")), "the log has no secret and no placeholder");
}

function streaming() {
	const result = JSON.parse(text("streaming"));
	console.log(`     ${JSON.stringify(result)}`);
	say(result.direct.chunks === 600 && result.through.chunks === 600, "every chunk arrived");
	say(result.added < 5, `a chunk is ${result.added.toFixed(2)} ms later through the broker (median of ${result.through.chunks})`);
	say(result.together.through - result.together.direct <= 30, "chunks do not wait for each other");
}

function attacks() {
	const all = lines("attacks");
	const tried = all.filter((one) => one.name);
	const seen = lines("attacks.seen");
	const of = (tag) => seen.filter((one) => one.headers["x-attempt"] === tag);
	const allowed = /^GET \/backend-api\/codex\/responses$|^POST (\/v1\/messages|\/v1\/responses|\/openai\/v1\/chat\/completions|\/v1\/chat\/completions|\/v1beta\/models\/g:streamGenerateContent\?alt=sse|\/model\/eu\.x%3A0\/converse-stream|\/backend-api\/codex\/responses)$/;
	const foreign = /own|evil|override|original-url|rewrite-url|h2c|x-(other|team)":"secret/;
	for (const { at, name, expect, control, statuses, said } of tried) {
		const controlled = control === "200" && of(`control-${at}`).some((one) => JSON.stringify(one.headers).includes("secret"));
		const arrived = of(`attempt-${at}`);
		const clean = arrived.every((one) => allowed.test(`${one.method} ${one.path}`) && !foreign.test(JSON.stringify(one.headers)) && !(one.method === "POST" && one.headers.upgrade));
		const refused = arrived.length === 0 && !statuses.includes(101) && statuses.every((status, n) => status >= 400 || n === 0 && statuses.length > 1);
		say(controlled && clean && (expect === "harmless" || refused), `${expect}: ${name}: ${statuses.join(" ") || "closed"}${controlled ? "" : ` (control: ${control})`} ${refused || expect === "harmless" ? "" : JSON.stringify(said)}`);
	}
	say(seen.every((one) => allowed.test(`${one.method} ${one.path}`)), `${tried.length} attempts with a control each; ${seen.length} requests arrived, all of them on the list`);
	for (const { port, open } of all.filter((one) => one.port)) say(!open, `port ${port} is closed`);
}

function exchange() {
	console.log(`     the socket said: ${text("exchange.said").trim()}`);
	const keys = lines("exchange.seen").map((one) => one.headers.authorization);
	say(keys[0] === `Bearer a "quoted" $5 \\ ; # 'secret'`, `before: ${keys[0]}`);
	say(keys.at(-1) === `Bearer a "new" secret; \\ $5 # '`, `after: ${keys.at(-1)}`);
}

function faults() {
	for (const { name, want, status, ms, said } of lines("faults.out")) say(status === want, `${name}: ${status} in ${ms} ms: ${said}`);
	const gaveUp = lines("faults.seen").map((one) => one.gaveUp).find((ms) => ms !== undefined);
	say(gaveUp < 1000, `a request that the agent gives up ends at the provider too, after ${gaveUp} ms`);
	quiet("faults.log");
	say(/^broker anthropic POST api.anthropic.com 401 \d+ \d+ --$/m.test(text("faults.log")), "a key that the provider refuses can be told from the log");
}

function github() {
	for (const { name, want, got, said } of lines(`${scenario}.out`)) say(want === got, `${want}: ${name}${want === got ? "" : ` (${got}) ${said}`}`);
	const seen = lines(`${scenario}.seen`);
	const token = JSON.parse(text(`${scenario}/user.json`)).github.token;
	const basic = `Basic ${Buffer.from(`x-access-token:${token}`).toString("base64")}`;
	const write = token.startsWith("github_pat_");
	const reading = /^(GET \/me\/proj(\.git)?\/info\/refs\?service=git-upload-pack|POST \/me\/proj(\.git)?\/git-upload-pack|GET \/(user)?|GET \/repos\/me\/proj(\/.*)?)$/;
	const writing = /^(GET \/me\/proj(\.git)?\/info\/refs\?service=git-receive-pack|POST \/me\/proj(\.git)?\/git-receive-pack|POST \/repos\/me\/proj\/issues|POST \/graphql)$/;
	for (const one of seen) {
		const what = `${one.method} ${one.path}`;
		const keyed = one.headers.host === "github.com" ? one.headers.authorization === basic : one.headers.authorization === `token ${token}`;
		if (!keyed || !(reading.test(what) || (write && writing.test(what)))) say(false, `${what} arrived: ${JSON.stringify(one.headers)}`);
	}
	say(seen.length > 0 && !JSON.stringify(seen).includes("07070707"), `${seen.length} requests arrived, each on the list, with the token and without the placeholder`);
	quiet(`${scenario}.log`);
}

({ turns, github, streaming, attacks, exchange, faults })[part]();
process.exitCode = bad === 0 ? 0 : 1;
