// A provider of models for tests: the resolver that knows its name, a certificate of its own, and the scripted model behind
// a key. It runs in a container of its own.
//
// Every name that ends in `.test` is this container, and so are the hosts of `REAL`. On standard output, one line each:
//
//     ready                            everything listens, and /world/ca.pem is there
//     asked NAME                       a question to the resolver
//     request METHOD PATH KEY          a request, with what stood behind `Bearer`
//     renewed WHO N                    a login that was renewed for the N-th time, with a refresh token that is good once
//     login WHO                        a login that was made, with a code of the page for logging in
//     refused WHO                      a refresh token that is good no more

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer as createPlain, request as ask } from "node:http";
import { createServer } from "node:https";
import { networkInterfaces } from "node:os";

const own = networkInterfaces().eth0[0].address;
const say = (line) => process.stdout.write(`${line.replace(/[^ -~]/g, "?")}\n`);

// In the certificate, and in no resolver.
const BEHIND = "behind.example";

const REAL = ["api.groq.com", "api.anthropic.com", "platform.claude.com", "github.com", "api.github.com", "api.individual.githubcopilot.com"];

function answer(query) {
  let at = 12;
  const labels = [];
  while (query[at]) {
    labels.push(query.subarray(at + 1, at + 1 + query[at]).toString("latin1"));
    at += query[at] + 1;
  }
  const name = labels.join(".").toLowerCase();
  say(`asked ${name}`);
  const known = name.endsWith(".test") || REAL.includes(name);
  const records = known && query.readUInt16BE(at + 1) === 1 ? 1 : 0;
  const head = Buffer.alloc(12);
  query.copy(head, 0, 0, 2);
  head.writeUInt16BE(known ? 0x8180 : 0x8183, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(records, 6);
  const record = Buffer.from([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...own.split(".").map(Number)]);
  return Buffer.concat([head, query.subarray(12, at + 5), records ? record : Buffer.alloc(0)]);
}

function certificates() {
  const [key, ca] = ["/tmp/key.pem", "/tmp/ca.pem"];
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", key,
    "-out", ca, "-subj", "/CN=llm.test", "-addext", `subjectAltName=${["llm.test", BEHIND, ...REAL].map((name) => `DNS:${name}`).join(",")}`], { stdio: "ignore" });
  writeFileSync("/world/next", readFileSync(ca), { mode: 0o644 });
  renameSync("/world/next", "/world/ca.pem");
  return { key: readFileSync(key), cert: readFileSync(ca) };
}

// Renews logins: a refresh token is `r-WHO-N`, and each is good once.
const renewals = new Map();

function renew(request, response) {
  let text = "";
  request.on("data", (part) => (text += part)).on("end", () => {
    const asked = JSON.parse(text);
    if (asked.grant_type === "authorization_code") return logIn(asked, response);
    const [, who, n] = /^r-([a-z-]+)-([0-9]+)$/.exec(asked.refresh_token ?? "") ?? [];
    if (!who || Number(n) !== (renewals.get(who) ?? 0)) {
      say(`refused ${who}`);
      response.writeHead(400, { "content-type": "application/json" });
      return response.end('{"error":"invalid_grant"}');
    }
    const next = Number(n) + 1;
    renewals.set(who, next);
    say(`renewed ${who} ${next}`);
    response.writeHead(200, { "content-type": "application/json" });
    const login = { access_token: `sk-ant-oat01-${who}-${next}`, refresh_token: `r-${who}-${next}`, expires_in: 28800 };
    response.end(JSON.stringify(login));
  });
}

// Gives the first tokens of a login for a code of the page, which is `WHO.CHALLENGE`.
function logIn({ code, code_verifier, redirect_uri }, response) {
  const [who, challenge] = code.split(".");
  const proven = createHash("sha256").update(code_verifier).digest("base64url");
  if (challenge !== proven || redirect_uri !== "http://localhost:53692/callback") {
    say(`refused ${who}`);
    return response.writeHead(400).end('{"error":"invalid_grant"}');
  }
  say(`login ${who}`);
  const login = { access_token: `sk-ant-oat01-${who}-0`, refresh_token: `r-${who}-0`, expires_in: 28800 };
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(login));
}

// GitHub's login by a code on another device, which is good once somebody has looked at the page for it.
let seen = false;
const DEVICE = {
  "POST /login/device/code": () => ({
    device_code: "d", user_code: "ABCD-1234", verification_uri: "https://github.com/login/device", interval: 1, expires_in: 120,
  }),
  "GET /login/device": () => ((seen = true), { seen }),
  "POST /login/oauth/access_token": () => (seen ? { access_token: "gho_of-the-device" } : { error: "authorization_pending" }),
  "GET /copilot_internal/v2/token": ({ authorization }) => ({
    token: `tid=1;for=${authorization.slice(7)};proxy-ep=proxy.individual.githubcopilot.com`, expires_at: Math.floor(Date.now() / 1000) + 3600,
  }),
  "GET /models": () => ({ data: [{ id: "gpt-4.1", model_picker_enabled: true, policy: { state: "enabled" } }] }),
};

// One answer of a model, in the form of Anthropic's.
function message(response) {
  const usage = { input_tokens: 1, output_tokens: 1 };
  const model = { id: "m", type: "message", role: "assistant", model: "x", content: [], stop_reason: null, usage };
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (const event of [
    { type: "message_start", message: model },
    { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "the model has answered" } },
    { type: "content_block_stop", index: 0 },
    { type: "message_delta", delta: { stop_reason: "end_turn" }, usage },
    { type: "message_stop" },
  ]) {
    response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  }
  response.end();
}

// Passes a request on to the scripted model, if the key begins with `KEY`.
function serve(request, response) {
  const key = (request.headers.authorization ?? "-").replace(/^Bearer /, "");
  say(`request ${request.method} ${request.url} ${key}`);
  if (request.url === "/v1/oauth/token") return renew(request, response);
  const device = DEVICE[`${request.method} ${request.url}`];
  if (device) {
    request.resume();
    return response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(device(request.headers)));
  }
  if (request.url.startsWith("/v1/messages")) return request.resume().on("end", () => message(response));
  if (!key.startsWith(process.env.KEY)) {
    response.writeHead(401, { "content-type": "application/json" });
    return response.end('{"error":{"message":"there is no such key"}}');
  }
  // The scripted model would make nothing of it.
  if (request.headers["content-length"] === "2") {
    request.resume();
    return response.writeHead(400, { "content-type": "application/json" }).end('{"error":{"message":"there are no messages"}}');
  }
  const onward = ask({ port: 8080, method: request.method, path: request.url, headers: request.headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on("error", () => response.destroy());
  request.pipe(onward);
}

const names = createSocket("udp4");
names.on("message", (query, from) => names.send(answer(query), from.port, from.address));
await new Promise((done) => names.bind(53, own, done));
await new Promise((done) => createServer(certificates(), serve).listen(443, "0.0.0.0", done));
// What a vendor publishes, for a build.
const acli = readFileSync("/keys/acli");
const publish = ({ url }, response) => (/^\/acli-(amd64|arm64)$/.test(url) ? response.end(acli) : response.writeHead(404).end());
await new Promise((done) => createPlain(publish).listen(8081, "0.0.0.0", done));
await import("/demo/model.mjs");
process.stdin.resume().on("end", () => process.exit());
say("ready");
