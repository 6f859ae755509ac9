// Runs programs: git and gh, and what a subagent runs, which `/usr/local/lib/pi/subagent` keeps in its worktree.

import { spawn } from "node:child_process";
import { StringDecoder } from "node:string_decoder";

const CONFINED = "/usr/local/lib/pi/subagent";

// How much of an output is kept, from its beginning.
const OUTPUT = 4 << 20;

// What the agent says of itself to its own children, and what would lead git to another repository.
const DROPPED =
  /^(?:PI_SESSION_ID|PI_SESSION_FILE|PI_BOX_.*|GIT_(?:DIR|WORK_TREE|INDEX_FILE|PREFIX|COMMON_DIR|OBJECT_DIRECTORY|NAMESPACE))$/;

export function environment(more = {}) {
  const own = Object.entries(process.env).filter(([name]) => !DROPPED.test(name));
  return { ...Object.fromEntries(own), GIT_TERMINAL_PROMPT: "0", ...more };
}

// Runs a program to its end and returns {code, out, err}; a signal is 128+n. It fails only where there is no such program.
export function run(program, words, { cwd, env = environment(), seconds = 60, from = "pipe" } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { cwd, env, stdio: [from, "pipe", "pipe"] });
    const out = keep(child.stdout);
    const err = keep(child.stderr);
    // The end of its stdin ends what is confined; others have none, or a file.
    if (program !== CONFINED) child.stdin?.end();
    const timer = setTimeout(() => (program === CONFINED ? child.stdin.end() : child.kill("SIGKILL")), seconds * 1000);
    child.once("error", reject);
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code: status(code, signal), out: out(), err: err() });
    });
  });
}

// The same in a subagent's worktree, with its rights; `beside` what runs there already.
export function runConfined(tree, words, { beside = false, seconds } = {}) {
  return run(CONFINED, [...(beside ? ["--beside"] : []), ...confinedWords(tree, words)], { seconds });
}

// Starts a program in a subagent's worktree; `line` gets each line of its stdout.
export function startConfined(tree, words, env, line) {
  const child = spawn(CONFINED, confinedWords(tree, words), {
    env: environment(env),
    stdio: ["pipe", "pipe", "pipe"],
    // What the terminal sends is for the agent.
    detached: true,
  });
  child.stdin.on("error", () => {});
  lines(child.stdout, line);
  const err = keepLast(child.stderr);
  const ended = new Promise((resolve) => {
    child.once("error", (error) => resolve({ code: 125, err: String(error) }));
    child.once("close", (code, signal) => resolve({ code: status(code, signal), err: err() }));
  });
  return { ended, end: () => child.stdin.end() };
}

export async function isBusy(directory) {
  return (await run(CONFINED, ["--busy", directory])).code === 0;
}

export async function kernelConfines() {
  return (await run(CONFINED, ["--confines"])).code === 0;
}

function confinedWords({ directory, writable }, words) {
  return ["--in", directory, ...writable.flatMap((path) => ["--write", path]), "--", ...words];
}

const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGABRT: 6, SIGKILL: 9, SIGSEGV: 11, SIGTERM: 15 };

function status(code, signal) {
  return code ?? 128 + (SIGNALS[signal] ?? 0);
}

function keep(stream) {
  const parts = [];
  let room = OUTPUT;
  stream.on("data", (part) => {
    if (room > 0) parts.push(part.subarray(0, room));
    room -= part.length;
  });
  return () => Buffer.concat(parts).toString();
}

// The end of what is said.
function keepLast(stream) {
  let text = "";
  const decoder = new StringDecoder();
  stream.on("data", (part) => {
    text = (text + decoder.write(part)).slice(-4000);
  });
  return () => text;
}

// The longest line that is read whole; of a longer one the beginning is.
const LONGEST = 16 << 20;

// Only a line feed ends a line of JSON; others may stand in it.
function lines(stream, line) {
  const decoder = new StringDecoder();
  let parts = [];
  let length = 0;
  stream.on("data", (data) => {
    const [first, ...rest] = decoder.write(data).split("\n");
    const add = (part) => {
      if (length < LONGEST) parts.push(part);
      length += part.length;
    };
    add(first);
    for (const part of rest) {
      line(parts.join(""));
      parts = [];
      length = 0;
      add(part);
    }
  });
}
