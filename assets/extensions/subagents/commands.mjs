// What the user asks for: worktrees of subagents are listed and removed.

import { branchOf, extras, git, gitIn, mend, printable, removeTree, repository, trees } from "./git.mjs";
import { opened, running } from "./main.mjs";
import { isBusy } from "./process.mjs";
import { age } from "./words.mjs";

export async function command(pi, name, args, ctx) {
  try {
    const repo = await repository(ctx.cwd);
    const texts = { worktrees: () => list(repo), "cleanup-worktree": () => cleanOne(repo, args.trim(), ctx), "cleanup-all": () => cleanAll(repo, ctx) };
    say(pi, ctx, await texts[name](), "info");
  } catch (error) {
    say(pi, ctx, error.message, "error");
  }
}

function say(pi, ctx, text, kind) {
  if (ctx.hasUI) ctx.ui.notify(text, kind);
  else if (ctx.mode === "json") pi.sendMessage({ customType: "worktrees", content: text, display: true });
  else process.stdout.write(`${text}\n`);
}

async function stateOf(tree) {
  if (running.has(tree.task) || (await isBusy(tree.directory))) return "running";
  return tree.note.state === "running" ? "interrupted" : (tree.note.state ?? "unknown");
}

async function list(repo) {
  const rows = [];
  for (const tree of await trees(repo)) {
    rows.push([tree.task, tree.branch, await stateOf(tree), age(Date.now() - tree.note.begun), tree.note.pr ?? opened.get(tree.branch) ?? "-"]);
  }
  const withTree = new Set(rows.map(([, branch]) => branch));
  const format = "--format=%(refname:short)%09%(committerdate:unix)";
  for (const line of (await git(repo.root, ["for-each-ref", format, "refs/heads/subagent/"])).split("\n").filter(Boolean)) {
    const [branch, time] = line.split("\t");
    if (withTree.has(branch)) continue;
    rows.push([branch.slice(branchOf("").length), branch, "finished, no worktree", age(Date.now() - time * 1000), opened.get(branch) ?? "-"]);
  }
  if (!rows.length) return "there are no worktrees or branches of subagents";
  const table = [["NAME", "BRANCH", "STATE", "AGE", "PR"], ...rows];
  const width = table[0].map((_, column) => Math.max(...table.map((row) => row[column].length)));
  return table.map((row) => row.map((cell, column) => cell.padEnd(width[column])).join("  ").trimEnd()).join("\n");
}

async function cleanOne(repo, name, ctx) {
  const all = await trees(repo);
  const tree = all.find(({ task }) => task === name);
  if (!tree) {
    const names = all.map(({ task }) => `\`${task}\``).join(", ");
    throw new Error(`${name ? `no subagent has a worktree \`${printable(name)}\`` : "name a worktree"}; there ${names ? `is ${names}` : "is none"}`);
  }
  return clean(tree, ctx);
}

async function cleanAll(repo, ctx) {
  const said = [];
  for (const tree of await trees(repo)) said.push(await clean(tree, ctx));
  return said.join("\n") || "there are no worktrees of subagents";
}

// Removes a worktree, but asks if something would be lost, and leaves it where nobody can be asked.
async function clean(tree, ctx) {
  const { task, directory, branch } = tree;
  if ((await stateOf(tree)) === "running") return `\`${task}\` is running; cancel it first`;
  const lost = await losses(tree);
  if (lost && !(ctx.hasUI && (await ctx.ui.confirm(`Remove the worktree of ${task}?`, `${directory}\n${lost}`)))) {
    return `\`${task}\` stays: ${lost}`;
  }
  if (await removeTree(tree)) return `removed the worktree of \`${task}\`; its branch is \`${branch}\``;
  return `emptied the worktree of \`${task}\`, which goes when this session ends; its branch is \`${branch}\``;
}

async function losses(tree) {
  try {
    await mend(tree);
    const changed = (await gitIn(tree, ["status", "--porcelain"])).split("\n").filter(Boolean);
    const some = changed.slice(0, 5).map((line) => printable(line.slice(3))).join(", ");
    if (changed.length) return `it has uncommitted changes in ${changed.length} files: ${some}${changed.length > 5 ? " …" : ""}`;
    const only = await gitIn(tree, ["rev-list", "--count", "HEAD", "--not", "--branches", "--remotes", "--tags"]);
    if (only !== "0") return `it has ${only} commits that are on no branch`;
    const more = await extras(tree);
    return more.length ? `it has ${more.join(", ")}` : undefined;
  } catch (error) {
    return `it could not be looked at: ${error.message}`;
  }
}
