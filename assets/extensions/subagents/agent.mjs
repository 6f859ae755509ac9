// The agent process of a subagent: what it is given, and what it says.

import { promises as fs } from "node:fs";
import os from "node:os";
import path from "node:path";
import { printable } from "./git.mjs";
import { startConfined } from "./process.mjs";

// The kernel takes no longer word.
const LONGEST_INSTRUCTIONS = 100_000;

// How much of what it says last comes back.
const LAST_WORDS = 3000;

export function checkInstructions(instructions) {
  if (typeof instructions !== "string" || instructions.trim() === "") throw new Error("the instructions are empty");
  if (Buffer.byteLength(instructions) > LONGEST_INSTRUCTIONS) {
    throw new Error(`the instructions are longer than ${LONGEST_INSTRUCTIONS} bytes; put them into a file and commit it`);
  }
}

// Starts an agent in a worktree. `progress` is called when there is something new to tell; `ended` resolves to
// {code, error, words}.
export async function startAgent(tree, instructions, { prompts, extensions, model, thinking, trusted, progress }) {
  const own = await ownPlaces();
  const words = [process.execPath, process.argv[1], "--mode", "json", "--print", "--no-session", "--no-context-files"];
  if (model) words.push("--provider", model.provider, "--model", model.id);
  if (thinking) words.push("--thinking", thinking);
  words.push(...keyOfParent(), trusted ? "--approve" : "--no-approve");
  for (const extension of extensions) words.push("--extension", extension);
  const instructed = [await instructionsIn(own.env.PI_CODING_AGENT_DIR), await instructionsIn(tree.directory)].filter(Boolean);
  for (const prompt of [...prompts, ...instructed, briefing(tree)]) words.push("--append-system-prompt", prompt);
  // A task that begins with `-` or `@` is no flag and no file.
  words.push(`Your task, \`${tree.task}\`:\n\n${instructions}`);

  const seen = { turns: 0, doing: "", words: "", error: undefined };
  // What all programs of the session share; but a right at a directory is one at all that is below it.
  const shared = ["/tmp", "/var/cache/pi"].filter((place) => !isWithin(tree.root, place) && !isWithin(tree.common, place));
  const writable = [...tree.writable, own.top, ...shared];
  const agent = startConfined({ ...tree, writable }, words, own.env, (line) => {
    if (take(line, seen)) progress(seen);
  });
  const ended = agent.ended.then(async ({ code, err }) => {
    await fs.rm(own.top, { recursive: true, force: true }).catch(() => {});
    const error = code === 0 ? seen.error : (seen.error ?? printable(err).trim().split("\n").slice(-5).join("\n"));
    return { code, error, words: seen.words.slice(-LAST_WORDS) };
  });
  return { ended, end: agent.end };
}

// What the agent itself would take from a directory. It would also take what is above the worktree, and that is the same
// text once more.
async function instructionsIn(directory) {
  for (const name of ["AGENTS.override.md", "AGENTS.md", "AGENTS.MD", "CLAUDE.md", "CLAUDE.MD"]) {
    const file = path.join(directory, name);
    if (await fs.stat(file).then((found) => found.isFile(), () => false)) return file;
  }
  return undefined;
}

function isWithin(directory, place) {
  return `${directory}/`.startsWith(`${place}/`);
}

function briefing({ task, branch, directory }) {
  return (
    `You are the subagent \`${task}\`. You work alone, in the git worktree \`${directory}\` on the branch \`${branch}\`, and ` +
    "nobody answers questions: decide yourself, and say what you decided. You can write this directory and files in " +
    "`$TMPDIR`; other worktrees, the main work tree, other branches and git's config cannot be written. Commit your work " +
    "on this branch in small steps with messages that say why; what you leave uncommitted is committed as it is. Do not " +
    "switch branches. Do not push and open no pull request: that is done when you have ended. End with a few sentences " +
    "for the one who gave you the task: what you did, how you checked it, and what is left."
  );
}

// A key of the command line is in no file.
function keyOfParent() {
  const at = process.argv.indexOf("--api-key");
  return at > 0 && process.argv[at + 1] ? ["--api-key", process.argv[at + 1]] : [];
}

// A home and an agent's directory of the subagent's own, in which it finds what is in the session's: what it writes there,
// the agent that started it neither loads nor runs.
async function ownPlaces() {
  const home = os.homedir();
  const theirs = process.env.PI_CODING_AGENT_DIR || path.join(home, ".pi", "agent");
  const top = await fs.mkdtemp(path.join(os.tmpdir(), "subagent-"));
  const [ownHome, agent, tmp] = ["home", "agent", "tmp"].map((name) => path.join(top, name));
  for (const directory of [ownHome, agent, tmp]) await fs.mkdir(directory, { mode: 0o700 });
  await mirror(theirs, agent, ["sessions", "tmp"]);
  for (const file of ["settings.json", "auth.json", "trust.json", "models-store.json"]) {
    await fs.rm(path.join(agent, file), { force: true });
    await fs.copyFile(path.join(theirs, file), path.join(agent, file)).catch(() => {});
  }
  await mirror(home, ownHome, [".cache", ".config", ".local", ".pi"]);
  for (const name of [".cache", ".config", ".local"]) {
    await fs.mkdir(path.join(ownHome, name), { mode: 0o700 });
    await mirror(path.join(home, name), path.join(ownHome, name), ["tmp"]);
  }
  return { top, env: { HOME: ownHome, TMPDIR: tmp, PI_CODING_AGENT_DIR: agent } };
}

// Links to each thing in a directory.
async function mirror(from, to, without) {
  for (const name of await fs.readdir(from).catch(() => [])) {
    if (!without.includes(name) && name !== ".pi-left") await fs.symlink(path.join(from, name), path.join(to, name));
  }
}

// What an event of the agent's says that is new.
function take(line, seen) {
  if (!/^\{"type":"(?:message_end|tool_execution_start|turn_start)"/.test(line)) return false;
  let event;
  try {
    event = JSON.parse(line);
  } catch {
    return false;
  }
  if (event.type === "turn_start") {
    seen.turns += 1;
  } else if (event.type === "tool_execution_start") {
    seen.doing = `${event.toolName} ${shown(event.args)}`;
  } else if (event.message?.role === "assistant") {
    const { content, stopReason, errorMessage } = event.message;
    const text = (Array.isArray(content) ? content : []).filter(({ type }) => type === "text").map(({ text }) => text);
    if (text.length) seen.words = text.join("");
    seen.error = stopReason === "error" || stopReason === "aborted" ? (errorMessage ?? stopReason) : undefined;
  } else {
    return false;
  }
  return true;
}

function shown(args) {
  const value = args?.command ?? args?.path ?? args?.file_path ?? args?.pattern;
  return typeof value === "string" ? printable(value.split("\n")[0]).slice(0, 80) : "";
}
