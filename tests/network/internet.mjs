// A part of the small internet that the network tests see to the end of: everything that reaches it is written down.
//
//     node internet.mjs wan       names, web servers, a fake metadata service; in a network namespace of its own
//     node internet.mjs host      what listens on the machine of the engine itself
//     node internet.mjs victim    another container, on docker's default bridge
//     node internet.mjs agent     the agent of another session
//
// A request carries `case=TOKEN;`. On standard output, one line each:
//
//     hit TOKEN ROLE PROTOCOL ADDRESS:PORT    where a request with this token was reached
//     dns NAME TYPE ROLE                      a question
//     ready …                                 everything listens
//
// Names are their own configuration: `a-10-0-0-1.test` is 10.0.0.1, `both-…-…` has two addresses, `flip-…-…` is the
// first one at the first question and the second ever after, `nx…` does not exist, `allowed.test` and all below it is
// the one good address, and whatever else ends in `.test` is the bad one.

import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import { createConnection, createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { createSecureContext, TLSSocket } from "node:tls";

const role = process.argv[2];
const GOOD = "198.51.100.80";
const BAD = "198.51.100.66";
const GITHUB = "198.51.100.90";
const say = (line) => process.stdout.write(`${line.replace(/[^ -~]/g, "?")}\n`);
const plain = (address) => (address ?? "").replace(/^::ffff:/, "");

// ---- names ----

const asked = new Map();

function addresses(name) {
  const short = name.toLowerCase().replace(/\.$/, "");
  if (short === "github.com" || short === "api.github.com") return [GITHUB];
  if (!/(^|\.)[^.]*\.test$/.test(short) || short.startsWith("nx")) return undefined;
  if (short === "allowed.test" || short.endsWith(".allowed.test")) return [GOOD];
  const [, kind, numbers] = short.match(/^(?:[^.]+\.)*?(a|both|flip|mapped)-([0-9]+(?:-[0-9]+)+)[^.]*\.test$/) ?? [];
  if (!kind) return [BAD];
  const parts = numbers.split("-");
  const all = [];
  for (let at = 0; at + 4 <= parts.length; at += 4) all.push(parts.slice(at, at + 4).join("."));
  if (kind !== "flip") return all;
  const before = asked.get(short) ?? 0;
  asked.set(short, before + 1);
  return [all[before ? 1 : 0]];
}

function answer(query, how) {
  let at = 12;
  const labels = [];
  while (at < query.length && query[at]) {
    labels.push(query.subarray(at + 1, at + 1 + query[at]).toString("latin1"));
    at += query[at] + 1;
  }
  const name = labels.join(".");
  const type = query.readUInt16BE(at + 1);
  const question = query.subarray(12, at + 5);
  say(`dns ${name.toLowerCase()} ${type} ${role} ${how}`);
  const found = addresses(name);
  const mapped = /(^|\.)mapped-/.test(name);
  const records = [];
  const record = (data) => {
    const head = Buffer.from([0xc0, 0x0c, 0, type, 0, 1, 0, 0, 0, 0, 0, data.length]);
    records.push(Buffer.concat([head, data]));
  };
  for (const address of found ?? []) {
    const four = Buffer.from(address.split(".").map(Number));
    if (type === 1 && !mapped) record(four);
    if (type === 28 && mapped) record(Buffer.concat([Buffer.alloc(10), Buffer.from([255, 255]), four]));
  }
  if (type === 16 && found) record(Buffer.from("\x06answer"));
  const head = Buffer.alloc(12);
  query.copy(head, 0, 0, 2);
  head.writeUInt16BE(found ? 0x8180 : 0x8183, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(records.length, 6);
  return Buffer.concat([head, question, ...records]);
}

function names() {
  // An answer has to come from the address that was asked, so each has a socket of its own.
  const udp = (address) => {
    const socket = createSocket("udp4");
    socket.on("message", (query, from) => socket.send(answer(query, "udp"), from.port, from.address));
    return bound(socket, 53, address);
  };
  const tcp = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (data) => {
      const reply = answer(data.subarray(2), "tcp");
      const length = Buffer.alloc(2);
      length.writeUInt16BE(reply.length);
      socket.end(Buffer.concat([length, reply]));
    });
  });
  return [udp("10.77.77.53"), udp("198.51.100.53"), listening(tcp, 53, "0.0.0.0")];
}

// ---- everything else ----

const bound = (socket, port, address) => new Promise((done) => socket.bind(port, address, done));
const listening = (server, port, address) =>
  new Promise((done, fail) => server.on("error", fail).listen(port, address, done));

function tokens(text, where, seen = new Set()) {
  for (const [, token] of text.matchAll(/case=([\w.-]+);/g)) {
    if (!seen.has(token)) say(`hit ${token} ${role} ${where}`);
    seen.add(token);
  }
}

const web = createHttp((request, response) => {
  if (github && request.headers.host.endsWith("github.com")) return void asGitHub(request, response);
  const where = request.socket.where;
  tokens(`${request.url} ${request.headers["x-case"]}`, where.replace(" ", " tcp "));
  const body = pages[request.url];
  // A registry says what it does not have; any other page is there.
  if (body === undefined && /^\/(go|composer|python)\//.test(request.url)) response.statusCode = 404;
  if (request.url.startsWith("/python/")) response.setHeader("content-type", "text/html");
  response.setHeader("connection", "close");
  response.end(body ?? `reached ${where}\n`);
});

let secure;
let pages = {};
let github;

// What comes with whose token is written down: `github METHOD HOST/PATH TOKEN`.
async function asGitHub(request, response) {
  const [kind, value = ""] = (request.headers.authorization ?? "").split(" ");
  const token = kind === "Basic" ? Buffer.from(value, "base64").toString() : value;
  say(`github ${request.method} ${request.headers.host}${request.url} ${token || "-"}`);
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  if (request.headers.host === "github.com") github.git(request, response, Buffer.concat(chunks));
  else github.api(request, response, Buffer.concat(chunks));
}

// One port speaks TLS and HTTP, whatever the first byte asks for, and answers anything else as well.
function serve(socket) {
  const where = `tcp ${plain(socket.localAddress)}:${socket.localPort}`;
  socket.where = where.slice(4);
  socket.on("error", () => {});
  const seen = new Set();
  socket.once("data", (first) => {
    if (first[0] === 0x16 && secure) {
      const tls = new TLSSocket(socket, { isServer: true, secureContext: secure });
      tls.on("error", () => {});
      tls.where = `tls ${socket.where}`;
      socket.unshift(first);
      web.emit("connection", tls);
      return;
    }
    let text = first.toString("latin1");
    tokens(text, where, seen);
    socket.on("data", (data) => {
      text = (text + data.toString("latin1")).slice(-9000);
      tokens(text, where, seen);
      // A tunnel that is kept open is answered line by line.
      if (/^line /m.test(data.toString("latin1"))) socket.write(data);
    });
    const page = `reached ${socket.where}\n`;
    if (/^line /.test(text)) socket.write(first);
    else socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${page.length}\r\nConnection: close\r\n\r\n${page}`);
  });
}

function datagrams(family, port, address) {
  const udp = createSocket({ type: family, ipv6Only: family === "udp6", reuseAddr: true });
  udp.on("message", (data, from) => {
    tokens(data.toString("latin1"), `udp :${port}`);
    udp.send("reached", from.port, from.address);
  });
  udp.on("error", () => {});
  return bound(udp, port, address);
}

// A company's own proxy.
function upstream(socket) {
  socket.on("error", () => {});
  socket.once("data", (data) => {
    const head = data.toString("latin1");
    const [, host, port] = head.match(/^CONNECT (\S+):(\d+) /) ?? [];
    const login = /^proxy-authorization: basic (\S+)/im.exec(head)?.[1];
    say(`upstream ${host}:${port} ${login ? Buffer.from(login, "base64") : "-"}`);
    const to = host && addresses(host)?.[0];
    if (!to) return void socket.end("HTTP/1.1 502 no\r\n\r\n");
    const onward = createConnection(Number(port), to, () => {
      socket.write("HTTP/1.1 200 ok\r\n\r\n");
      socket.pipe(onward).pipe(socket);
    });
    onward.on("error", () => socket.destroy());
  });
}

async function certificate() {
  const [key, own] = ["/tmp/key.pem", "/tmp/ca.pem"];
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
    "-keyout", key, "-out", own, "-subj", "/CN=allowed.test", "-addext", "subjectAltName=DNS:allowed.test,DNS:github.com,DNS:api.github.com"], { stdio: "ignore" });
  secure = createSecureContext({ key: readFileSync(key), cert: readFileSync(own) });
  writeFileSync("/world/next", readFileSync(own), { mode: 0o644 });
  renameSync("/world/next", "/world/ca.pem");
}

async function until(holds) {
  while (!holds()) await new Promise((done) => setTimeout(done, 10));
}

const open = (port, address) => listening(createServer(serve), port, address);
// Listening on all addresses of both families.
const all = (port) => open(port, "::").catch(() => open(port, "0.0.0.0"));

if (role === "wan") {
  await certificate();
  pages = (await import("./packages.mjs")).default;
  github = await import("/broker/git.mjs");
  github.prepare();
  pages["/repo.git/info/refs?service=git-upload-pack"] = `${"1".repeat(40)}\trefs/heads/main\n`;
  await until(() => existsSync("/sys/class/net/wan0") && networkInterfaces().wan0?.some((one) => one.address === "198.18.77.7"));
  await Promise.all([
    ...names(),
    ...[22, 25, 80, 443, 2375, 8080, 8443, 9000].map((port) => open(port, "0.0.0.0")),
    datagrams("udp4", 443, "198.51.100.80"),
    listening(createServer(upstream), 3128, "0.0.0.0"),
  ]);
  process.env.PI_BOX_DEMO_LISTEN = "0.0.0.0:11434";
  await import("/demo/model.mjs");
} else if (role === "host") {
  await Promise.all([
    ...[18997, 18999].map(all),
    open(18998, "127.0.0.1"),
    datagrams("udp4", 18999),
    datagrams("udp6", 18999).catch(() => {}),
  ]);
} else if (role === "agent") {
  await open(7777, "0.0.0.0");
} else {
  await Promise.all([open(8080, "0.0.0.0"), open(8081, "0.0.0.0"), datagrams("udp4", 8080)]);
}
// The tests hold our standard input: when they are gone, however they ended, so is all of this.
if (role !== "agent") {
  // A mark comes back behind all that was written before it.
  process.stdin.setEncoding("utf8").on("data", (marks) => {
    for (const mark of marks.trim().split("\n")) say(`mark ${role} ${mark}`);
  });
  process.stdin.on("end", () => process.exit());
}
const filter = (of) => Number(readFileSync(`/proc/sys/net/ipv4/conf/${of}/rp_filter`, "utf8"));
say(`ready ${JSON.stringify({ role, interfaces: networkInterfaces(), filter: Math.max(filter("all"), filter("default")) })}`);
