// What becomes of a subagent's branch: it is pushed where there is a remote, and a pull request is opened on GitHub.

import { git, lastLine } from "./git.mjs";
import { run } from "./process.mjs";

// Returns {pushed, pr, problem}, of which each may be missing.
export async function publish(tree, { from, title, body }) {
  const remote = await remoteFor(tree.root, from);
  if (!remote) return {};
  const push = await run("git", ["push", "--quiet", remote.name, `refs/heads/${tree.branch}`], { cwd: tree.root, seconds: 300 });
  if (push.code !== 0) {
    return { problem: `it could not be pushed to \`${remote.name}\`: ${lastLine(push.err) || `status ${push.code}`}` };
  }
  const on = gitHub(remote.url);
  if (!on) return { pushed: remote.name };
  if (!from) return { pushed: remote.name, problem: "no pull request was opened, as no branch was checked out" };
  const fields = { title, head: tree.branch, base: from, body };
  const words = Object.entries(fields).flatMap(([name, value]) => ["--raw-field", `${name}=${value}`]);
  const asked = await gh(tree.root, ["api", "--method", "POST", `repos/${on}/pulls`, ...words, "--jq", ".html_url"]);
  if (asked.code === 0) return { pushed: remote.name, pr: asked.out.trim() };
  const owner = on.split("/")[0];
  const open = `repos/${on}/pulls?state=open&head=${owner}:${tree.branch}`;
  const there = /already exists/i.test(asked.out + asked.err) ? await gh(tree.root, ["api", open, "--jq", ".[0].html_url"]) : undefined;
  if (there?.code === 0 && there.out.trim()) return { pushed: remote.name, pr: there.out.trim() };
  return { pushed: remote.name, problem: `no pull request was opened: ${lastLine(asked.err) || "gh failed"}` };
}

function gh(cwd, words) {
  return run("gh", words, { cwd, seconds: 60 }).catch(() => ({ code: 127, out: "", err: "there is no `gh`" }));
}

// The remote of a branch, else `origin`, else the only one.
async function remoteFor(root, branch) {
  const names = (await git(root, ["remote"])).split("\n").filter(Boolean);
  const value = async (key) => git(root, ["config", "--get", key]).catch(() => "");
  const own = branch ? await value(`branch.${branch}.remote`) : "";
  const name = [own, "origin"].find((name) => names.includes(name)) ?? (names.length === 1 ? names[0] : undefined);
  // As it is written down: what git makes of it may lead through a proxy.
  return name && { name, url: await value(`remote.${name}.url`) };
}

// `OWNER/NAME` of a repository on GitHub.
export function gitHub(url) {
  const [, name] =
    /^(?:https?:\/\/(?:[^@/]*@)?github\.com\/|(?:ssh:\/\/)?git@github\.com[:/])([\w.-]+\/[\w.-]+?)(?:\.git)?\/?$/.exec(url) ?? [];
  return name;
}
