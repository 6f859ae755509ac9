// Every provider at once: answers each API in its own shape, over TLS, and writes down what it was asked.
//
// UPSTREAM_LOG gets one line of JSON a request. `/chunks` streams the time of sending, for comparison.
import { createHash } from "node:crypto";
import { appendFileSync, readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { zstdDecompressSync } from "node:zlib";
import { api, git, prepare } from "./git.mjs";
import { answer, hasResult, responses, shapeOf } from "./shapes.mjs";

const LOG = process.env.UPSTREAM_LOG;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const note = (entry) => appendFileSync(LOG, `${JSON.stringify(entry)}\n`);

function listen(request, response) {
	const body = [];
	request.on("data", (data) => body.push(data));
	request.on("end", async () => {
		const bytes = Buffer.concat(body);
		const text = (request.headers["content-encoding"] === "zstd" ? zstdDecompressSync(bytes) : bytes).toString();
		note({ method: request.method, path: request.url, headers: request.headers, raw: request.rawHeaders, sni: request.socket.servername, body: text.length });
		if (request.headers.host === "github.com") return git(request, response, bytes);
		if (request.headers.host === "api.github.com") return api(request, response);
		if (request.headers["x-want-status"]) {
			response.writeHead(Number(request.headers["x-want-status"]), { "content-type": "application/json" });
			return response.end(JSON.stringify({ error: { message: "the key is refused" } }));
		}
		if (request.headers["x-want-silence"]) return silence(response);
		if (request.headers["x-want-chunks"]) return chunks(response, Number(request.headers["x-want-chunks"]));
		const shape = shapeOf(request.method, request.headers.host.startsWith("radius") ? `${request.url}?radius` : request.url);
		if (!shape) {
			response.writeHead(404, { "content-type": "application/json" });
			return response.end(JSON.stringify({ error: { message: `no shape for ${request.method} ${request.url}` } }));
		}
		const type = shape === "converse" ? "application/vnd.amazon.eventstream" : "text/event-stream";
		response.writeHead(200, { "content-type": type });
		for (const chunk of answer(shape, hasResult(text), command(request.headers.host))) {
			response.write(chunk);
			await pause(2);
		}
		response.end();
	});
}

// In an answer to the tool's call, which host asked for it.
const command = (host) => `echo "turn of ${host}" >> turns.txt`;

// A model that thinks for ever: notes when nobody waits for it any more.
function silence(response) {
	const begun = Date.now();
	response.on("close", () => note({ method: "", path: "", headers: {}, gaveUp: Date.now() - begun }));
}

async function chunks(response, count) {
	response.writeHead(200, { "content-type": "text/event-stream" });
	for (let at = 0; at < count; at++) {
		response.write(`data: ${performance.timeOrigin + performance.now()}\n\n`);
		await pause(20);
	}
	response.end();
}

// A websocket, as far as the agent needs one: text frames, each event in its own.
function upgrade(request, socket) {
	note({ method: request.method, path: request.url, headers: request.headers, raw: request.rawHeaders, sni: socket.servername, upgrade: true });
	const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
	socket.write(`HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ${accept}\r\n\r\n`);
	let pending = Buffer.alloc(0);
	socket.on("error", () => {});
	socket.on("data", (data) => {
		pending = Buffer.concat([pending, data]);
		for (let message = unframe(pending); message; message = unframe(pending)) {
			pending = pending.subarray(message.size);
			if (message.opcode === 8) return socket.end();
			if (message.opcode !== 1) continue;
			const text = message.text.toString();
			for (const event of responses(hasResult(text), JSON.stringify({ command: command(request.headers.host) }))) {
				socket.write(framed(JSON.stringify(event)));
			}
		}
	});
}

function unframe(bytes) {
	if (bytes.length < 6) return undefined;
	let length = bytes[1] & 127;
	let at = 2;
	if (length === 126) [length, at] = [bytes.readUInt16BE(2), 4];
	else if (length === 127) {
		if (bytes.length < 10) return undefined;
		[length, at] = [Number(bytes.readBigUInt64BE(2)), 10];
	}
	if (bytes.length < at + 4 + length) return undefined;
	const mask = bytes.subarray(at, at + 4);
	const text = Buffer.from(bytes.subarray(at + 4, at + 4 + length)).map((byte, i) => byte ^ mask[i % 4]);
	return { opcode: bytes[0] & 15, text, size: at + 4 + length };
}

function framed(text) {
	const bytes = Buffer.from(text);
	const head = bytes.length < 126 ? Buffer.from([0x81, bytes.length]) : Buffer.from([0x81, 126, bytes.length >> 8, bytes.length & 255]);
	return Buffer.concat([head, bytes]);
}

prepare();
const tls = { key: readFileSync("host.key"), cert: readFileSync("host.pem") };
for (const [server, port] of [[https.createServer(tls, listen), 443], [http.createServer(listen), 80]]) {
	server.on("upgrade", upgrade);
	server.listen(port, "0.0.0.0", () => process.stdout.write(`listening on ${port}\n`));
}
