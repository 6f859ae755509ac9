// The life of subagents, from the call of the tool to its answer.

import { promises as fs } from "node:fs";
import { checkInstructions, startAgent } from "./agent.mjs";
import {
  addTree,
  beginning,
  bring,
  bringMore,
  extras,
  git,
  gitIn,
  giveBack,
  isName,
  lend,
  mend,
  printable,
  removeTree,
  repository,
  tipSeen,
  trees,
  writeNote,
} from "./git.mjs";
import { publish } from "./github.mjs";
import { isBusy, kernelConfines } from "./process.mjs";
import { report } from "./words.mjs";

export { command } from "./commands.mjs";

// The launcher's settings.
const DEFAULTS = { at_once: 4, queued: 8, seconds: 1800, prompts: [], extensions: [] };
const settings = { ...DEFAULTS, ...JSON.parse(process.env.PI_BOX_SUBAGENTS ?? "{}") };

// Those that wait or run, by name, each with its way to end it.
export const running = new Map();
const waiting = [];
// Pull requests of this session, by branch.
export const opened = new Map();
let places = settings.at_once;
// Calls of the tool that are not answered yet. Several come at once, before any of them has a name.
let accepted = 0;

const OFTEN_MS = 250;
const FOLLOWING_MS = 1000;

// The tool.
export async function spawn(pi, { task, instructions }, signal, onUpdate, ctx) {
  if (!isName(task)) throw new Error("`task` is no name: give it letters, digits, `-` and `_`, at most 50, with a letter or digit first");
  checkInstructions(instructions);
  if (accepted >= settings.at_once + settings.queued) {
    throw new Error(`${accepted} subagents run or wait, which is the limit; wait for some to end`);
  }
  accepted += 1;
  try {
    return await named(pi, { task, instructions }, signal, onUpdate, ctx);
  } finally {
    accepted -= 1;
  }
}

async function named(pi, { task, instructions }, signal, onUpdate, ctx) {
  const repo = await repository(ctx.cwd);
  const life = { why: undefined, end: () => {} };
  const name = await takeName(repo, task, life);
  const cancel = () => stop(life, "cancelled");
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    if (signal?.aborted) cancel();
    await place(life, () => tell(onUpdate, name, "waits for others to end"));
    if (life.why) throw new Error(`the subagent \`${name}\` was cancelled before it began`);
    try {
      return await live(pi, repo, name, { asked: task, instructions, life, onUpdate, ctx });
    } finally {
      leave();
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
    running.delete(name);
  }
}

function stop(life, why) {
  life.why ??= why;
  life.end();
}

// Waits until fewer than the limit run, or until it is cancelled: then it takes no place.
async function place(life, tellWaiting) {
  if (life.why) return;
  if (places > 0) {
    places -= 1;
    return;
  }
  tellWaiting();
  await new Promise((go) => {
    waiting.push(go);
    life.end = () => {
      const at = waiting.indexOf(go);
      if (at >= 0) waiting.splice(at, 1);
      go();
    };
  });
  life.end = () => {};
}

function leave() {
  const next = waiting.shift();
  if (next) next();
  else places += 1;
}

// Takes the name itself, or the first with a number behind it that neither a worktree nor a branch has.
async function takeName({ root, worktrees }, task, life) {
  const branches = await git(root, ["for-each-ref", "--format=%(refname:lstrip=3)", "refs/heads/subagent/"]);
  const there = await fs.readdir(worktrees).catch(() => []);
  // A file system may not tell large letters from small ones.
  const taken = new Set([...branches.split("\n"), ...there, ...running.keys()].map((name) => name.toLowerCase()));
  for (let n = 1; n < 1000; n += 1) {
    const name = n === 1 ? task : `${task.slice(0, 46)}-${n}`;
    if (taken.has(name.toLowerCase())) continue;
    running.set(name, life);
    return name;
  }
  throw new Error(`too many worktrees or branches are called \`${task}\`; \`/cleanup-all\` removes worktrees`);
}

async function live(pi, repo, name, { asked, instructions, life, onUpdate, ctx }) {
  const from = await beginning(repo);
  const tree = await addTree(repo, name, from);
  tell(onUpdate, name, "starts");
  const ended = await work(pi, tree, instructions, life, onUpdate, ctx);
  tell(onUpdate, name, "has ended; its work is being saved");
  const result = await finish(tree, { ...ended, asked, from, instructions });
  result.unconfined = !(await kernelConfines());
  const text = report(result);
  if (result.state !== "finished") throw new Error(text);
  const { state, branch, pr, commits, files } = result;
  return { content: [{ type: "text", text }], details: { task: name, state, branch, pr, commits, files } };
}

// Runs the agent until it ends, or is made to. Returns {state, error, words}.
async function work(pi, tree, instructions, life, onUpdate, ctx) {
  const begun = Date.now();
  let next;
  const progress = ({ turns, doing, words }) => {
    next ??= setTimeout(() => {
      next = undefined;
      const seconds = Math.round((Date.now() - begun) / 1000);
      tell(onUpdate, tree.task, `turn ${turns}, ${seconds} s${doing && `, ${doing}`}`, words.slice(-500));
    }, OFTEN_MS);
  };
  const model = ctx.model && { provider: ctx.model.provider, id: ctx.model.id };
  const options = { ...settings, model, thinking: pi.getThinkingLevel(), trusted: ctx.isProjectTrusted?.() ?? false, progress };
  const agent = await startAgent(tree, instructions, options);
  life.end = agent.end;
  if (life.why) agent.end();
  const timer = setTimeout(() => stop(life, "timed out"), settings.seconds * 1000);
  const following = follow(tree);
  const { code, error, words } = await agent.ended;
  clearTimeout(timer);
  await following();
  clearTimeout(next);
  next = 0;
  life.end = () => {};
  if (life.why) return { state: life.why, words };
  if (code > 128) return { state: "killed", error: `signal ${code - 128}`, words };
  if (code !== 0 || error) return { state: "failed", error: error || `status ${code}`, words };
  return { state: "finished", words };
}

// Brings commits over while a subagent works: one that is killed with all others leaves them behind. Returns how to end it.
function follow(tree) {
  let seen;
  let bringing = Promise.resolve();
  const timer = setInterval(async () => {
    const tip = await tipSeen(tree);
    if (!tip || tip === seen) return;
    seen = tip;
    bringing = bringing.then(() => bring(tree, { beside: true })).catch(() => {});
  }, FOLLOWING_MS);
  return () => {
    clearInterval(timer);
    return bringing;
  };
}

// Saves what was done, hands it on, and removes the worktree if nothing in it would be missed.
async function finish(tree, { state, error, words, asked, from, instructions }) {
  const result = { task: tree.task, asked, branch: tree.branch, directory: tree.directory, state, error, words, problems: [] };
  const attempt = async (what, job) => {
    try {
      return await job();
    } catch (failure) {
      result.problems.push(`${what}: ${failure.message}`);
      return undefined;
    }
  };
  result.wip = await attempt("its uncommitted changes could not be committed", () => save(tree));
  const brought = await attempt("its commits could not be brought over", () => bring(tree).then(() => true));
  const list = async (command) => (await gitIn(tree, command)).split("\n").filter(Boolean).map(printable);
  const differences = ["diff", "--no-ext-diff", "--no-textconv", "--name-status", from.commit, "HEAD"];
  result.commits = (await attempt("its commits", () => list(["log", "--format=%h %s", `${from.commit}..HEAD`]))) ?? [];
  result.files = (await attempt("its files", () => list(differences))) ?? [];
  const head = await gitIn(tree, ["symbolic-ref", "--quiet", "HEAD"]).catch(() => undefined);
  const onBranch = head === `refs/heads/${tree.branch}`;
  if (!onBranch) result.problems.push(`it is not on its branch any more${head ? `, but on \`${printable(head)}\`` : ""}`);
  const more = await attempt("its other branches could not be brought over", async () => bringMore(tree, await extras(tree)));
  if (more?.length) result.problems.push(`what it has made on other branches is on ${more.join(", ")}`);
  const whole = brought && onBranch && result.wip && more;
  if (state === "finished" && brought && result.commits.length) {
    const title = result.commits.at(-1).replace(/^\S+ /, "");
    const body = `${words}\n\n---\nTask \`${tree.task}\`, given to a subagent:\n\n${instructions}`.slice(0, 60_000);
    const published = await attempt("it could not be published", () => publish(tree, { from: from.branch, title, body }));
    Object.assign(result, { pr: published?.pr, pushed: published?.pushed });
    if (published?.problem) result.problems.push(published.problem);
    if (result.pr) opened.set(tree.branch, result.pr);
  }
  await attempt("what is known of its worktree", () => mend(tree));
  if (whole) await attempt("what is known of its worktree", () => giveBack(tree));
  if (whole && state === "finished" && result.wip === "nothing") {
    await attempt("its worktree could not be removed", () => removeTree(tree));
    result.removed = true;
  } else {
    await attempt("its note", () => writeNote(tree, { ...tree.note, state, pr: result.pr, ended: Date.now() }));
  }
  return result;
}

// Commits what is uncommitted. Returns "nothing" or "committed".
async function save(tree) {
  await mend(tree);
  await lend(tree);
  if ((await gitIn(tree, ["status", "--porcelain"])) === "") return "nothing";
  await gitIn(tree, ["add", "--all"], { seconds: 300 });
  const message = `wip: what the subagent ${tree.task} had not committed`;
  await gitIn(tree, ["commit", "--quiet", "--no-verify", "--message", message]);
  return "committed";
}

function tell(onUpdate, name, what, words = "") {
  onUpdate?.({ content: [{ type: "text", text: `${name}: ${what}${words && `\n${printable(words)}`}` }], details: undefined });
}

// At the start of a session: what a session that was killed has left is saved.
export async function begin(cwd) {
  try {
    const repo = await repository(cwd);
    for (const tree of await trees(repo)) {
      if (tree.note.state !== "running" || running.has(tree.task) || (await isBusy(tree.directory))) continue;
      await save(tree);
      await bring(tree);
      await bringMore(tree, await extras(tree));
      await giveBack(tree);
      await writeNote(tree, { ...tree.note, state: "interrupted" });
    }
  } catch {
    // `/worktrees` shows what is there.
  }
}

// At its end no subagent lives on.
export function end() {
  for (const life of running.values()) stop(life, "cancelled");
}
