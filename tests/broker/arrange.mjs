// Lays out one user's files for the agent: behind the broker, and directly. Usage: arrange.mjs DIRECTORY
import { readFileSync, writeFileSync } from "node:fs";

const [out] = process.argv.slice(2);
const read = (name) => JSON.parse(readFileSync(`${out}/${name}.json`, "utf8"));
const [user, summary] = [read("user"), read("summary")];
const lines = (env) => Object.entries(env).map(([name, value]) => `${name}=${value}\n`).join("");

writeFileSync(`${out}/direct/auth.json`, JSON.stringify(user.auth ?? {}));
writeFileSync(`${out}/direct/models.json`, JSON.stringify(user.models ?? { providers: {} }));
const settings = Object.fromEntries(Object.entries(user.env).filter(([, value]) => !value.includes("secret")));
writeFileSync(`${out}/agent.env`, lines({ ...settings, ...summary.env }));
writeFileSync(`${out}/direct.env`, lines({ ...user.env, AWS_BEDROCK_FORCE_HTTP1: "1" }));
writeFileSync(`${out}/hosts`, summary.routes.flatMap((route) => route.hosts).map((host) => `${host}\n`).join(""));
