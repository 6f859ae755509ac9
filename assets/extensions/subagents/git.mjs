// The repository that the agent works in, and the worktrees in it that are subagents'.

import { constants, promises as fs } from "node:fs";
import path from "node:path";
import { run, runConfined } from "./process.mjs";

// Nothing in a repository is run by what only asks.
const QUIET = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"];

// Where subagents' worktrees are, in the repository.
const DIRECTORY = ".worktrees";

// Beside git's own notes on a worktree: what is known of it, and that it is one of these.
const NOTE = "pi-subagent.json";
const REASON = "a subagent of pi works here";

// Asks git; an answer that is not asked for is an error.
export async function git(cwd, words, options = {}) {
  const { code, out, err } = await run("git", [...QUIET, ...words], { ...options, cwd });
  if (code !== 0) throw new Error(`\`git ${words[0]}\`: ${lastLine(err) || `status ${code}`}`);
  return out.replace(/\n$/, "");
}

// The same in a subagent's worktree, which it may have turned against whoever asks there: with its rights.
export async function gitIn(tree, words, options = {}) {
  const { code, out, err } = await runConfined(tree, ["git", ...QUIET, ...words], options);
  if (code !== 0) throw new Error(`\`git ${words[0]}\`: ${lastLine(err) || `status ${code}`}`);
  return out.replace(/\n$/, "");
}

export function lastLine(text) {
  return text.trim().split("\n").at(-1);
}

// The repository around a directory.
export async function repository(cwd) {
  const words = ["rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir"];
  const answer = await run("git", [...QUIET, ...words], { cwd });
  if (answer.code !== 0) throw new Error("this directory is in no git repository, and a subagent needs one");
  const [root, common] = answer.out.trimEnd().split("\n");
  return { root, common, worktrees: path.join(root, DIRECTORY) };
}

// The commit and the branch that a subagent begins with.
export async function beginning({ root }) {
  const head = await run("git", [...QUIET, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"], { cwd: root });
  if (head.code !== 0) throw new Error("there is no commit yet for a subagent to begin with; commit something first");
  const branch = await run("git", [...QUIET, "symbolic-ref", "--quiet", "--short", "HEAD"], { cwd: root });
  return { commit: head.out.trim(), branch: branch.code === 0 ? branch.out.trim() : undefined };
}

export function branchOf(task) {
  return `subagent/${task}`;
}

// Makes a branch and a worktree for a task.
export async function addTree(repository, task, from) {
  const { root, common, worktrees } = repository;
  await makePlainDirectory(worktrees);
  await exclude(common);
  const directory = path.join(worktrees, task);
  // Locked from its beginning: git forgets worktrees that it does not find, as where they are not mounted.
  const add = ["worktree", "add", "--quiet", "--lock", "--reason", REASON, "-b", branchOf(task), directory, from.commit];
  await git(root, ["-c", "worktree.useRelativePaths=false", ...add], { seconds: 600 });
  const admin = await adminOf(directory);
  for (const name of WRITTEN) await fs.mkdir(path.join(common, name), { recursive: true });
  const tree = treeOf(repository, task, directory, admin);
  await lend(tree);
  await writeNote(tree, { task, base: from.commit, from: from.branch, begun: Date.now(), state: "running" });
  return tree;
}

// What a subagent can write of the git directory, besides what git knows of its worktree: commits, subagents' branches, and
// what is known of remotes.
const WRITTEN = ["objects", "refs/heads/subagent", "refs/remotes", "logs/refs/heads/subagent", "logs/refs/remotes"];

function treeOf({ root, common }, task, directory, admin) {
  // The last two only where they exist.
  const shared = [...WRITTEN, "lfs", "reftable"].map((name) => path.join(common, name));
  return { root, common, task, branch: branchOf(task), directory, admin, writable: [admin, ...shared] };
}

// What git knows of a worktree lies in a directory whose name need not be the worktree's.
async function adminOf(directory) {
  const [, admin] = /^gitdir: (.*)\n$/.exec(await readSmall(path.join(directory, ".git"))) ?? [];
  if (!admin) throw new Error(`\`${directory}\` is no worktree`);
  return admin;
}

// The worktrees in this repository's directory that we made, each with its note.
export async function trees(repository) {
  const names = await fs.readdir(path.join(repository.common, "worktrees")).catch(() => []);
  const found = [];
  for (const name of names) {
    const admin = path.join(repository.common, "worktrees", name);
    const note = await readNote(admin);
    // A subagent can write its note, so nothing in it leads anywhere.
    const directory = note && path.join(repository.worktrees, note.task);
    if (note && (await isDirectory(directory))) {
      found.push({ ...treeOf(repository, note.task, directory, admin), note });
    }
  }
  return found.sort((a, b) => a.note.begun - b.note.begun);
}

export async function writeNote(tree, note) {
  tree.note = note;
  await write(path.join(tree.admin, NOTE), `${JSON.stringify(note)}\n`);
}

async function readNote(admin) {
  try {
    const { task, begun, ...texts } = JSON.parse(await readSmall(path.join(admin, NOTE)));
    if (!isName(task)) return undefined;
    const text = (name) => (typeof texts[name] === "string" ? printable(texts[name]).slice(0, 300) : undefined);
    return { task, begun: Number(begun) || 0, base: text("base"), from: text("from"), state: text("state"), pr: text("pr") };
  } catch {
    return undefined;
  }
}

// Names that are directories, branches and words of a command at once.
export function isName(task) {
  return typeof task === "string" && /^[A-Za-z0-9][A-Za-z0-9_-]{0,49}$/.test(task);
}

// Gives a worktree a common git directory of its own, of links to the repository's: git makes and removes files at the top of
// it with each commit, and a right to do that at the repository's would be one to exchange its config. Settings that the
// subagent makes stay in here.
export async function lend(tree) {
  const own = path.join(tree.admin, COMMON);
  await fs.rm(own, { recursive: true, force: true });
  await fs.mkdir(own);
  const above = path.join("..", "..", "..");
  for (const entry of await fs.readdir(tree.common, { withFileTypes: true })) {
    const { name } = entry;
    if (entry.isDirectory() || name === "HEAD") await fs.symlink(path.join(above, name), path.join(own, name));
    else if (name === "packed-refs" || name === "shallow") await fs.copyFile(path.join(tree.common, name), path.join(own, name));
  }
  // What the format is, git reads in the file itself.
  const format = await git(tree.root, ["config", "--file", path.join(tree.common, "config"), "--get-regexp", FORMAT]);
  const settings = format.split("\n").map((line) => /^([^.]*)\.(\S*) (.*)$/.exec(line)).filter(Boolean);
  const text = settings.map(([, section, key, value]) => `[${section}]\n\t${key} = ${value}\n`).join("");
  await fs.writeFile(path.join(own, "config"), `${text}[include]\n\tpath = ${path.join(above, "config")}\n`);
  await write(path.join(tree.admin, "commondir"), `${COMMON}\n`);
}

const COMMON = "common";
const FORMAT = "^(core\\.repositoryformatversion|core\\.bare|extensions\\..*)$";

// Puts right what a subagent may have changed of the links between its worktree and the repository, and removes locks that
// nobody holds any more.
export async function mend(tree) {
  for (const lock of ["index.lock", "HEAD.lock"]) await fs.rm(path.join(tree.admin, lock), { force: true });
  await restore(path.join(tree.directory, ".git"), `gitdir: ${tree.admin}\n`);
  await write(path.join(tree.admin, "gitdir"), `${path.join(tree.directory, ".git")}\n`);
  await write(path.join(tree.admin, "commondir"), "../..\n");
  await write(path.join(tree.admin, "locked"), REASON);
  await fs.rm(path.join(tree.admin, COMMON), { recursive: true, force: true });
}

// Writes a new file in place of whatever is there.
async function write(file, text) {
  await fs.rm(file, { recursive: true, force: true });
  await fs.writeFile(file, text, { flag: "wx" });
}

// What stands in the way is kept beside it.
async function restore(file, text) {
  if ((await readSmall(file).catch(() => undefined)) === text) return;
  await fs.rename(file, `${file}.pi-moved-${Date.now()}`).catch(() => {});
  await fs.writeFile(file, text, { flag: "wx" });
}

// Removes a worktree, but not its branch. git itself would look at what is in it first.
export async function removeTree(tree) {
  await fs.rm(tree.directory, { recursive: true, force: true, maxRetries: 3 });
  await fs.rm(tree.admin, { recursive: true, force: true, maxRetries: 3 });
  for (const empty of [path.join(tree.common, "worktrees"), path.dirname(tree.directory)]) await fs.rmdir(empty).catch(() => {});
}

async function makePlainDirectory(directory) {
  await fs.mkdir(directory).catch((error) => {
    if (error.code !== "EEXIST") throw error;
  });
  if (!(await isDirectory(directory))) throw new Error(`\`${directory}\` is not a directory; remove it, subagents need the place`);
}

async function isDirectory(directory) {
  return fs.lstat(directory).then((found) => found.isDirectory(), () => false);
}

// Keeps the worktrees out of `git status`, in a file that is nobody's commit.
async function exclude(common) {
  const file = path.join(common, "info", "exclude");
  const text = await fs.readFile(file, "utf8").catch(() => "");
  if (/^\/?\.worktrees\/?$/m.test(text)) return;
  await fs.mkdir(path.dirname(file), { recursive: true });
  await fs.appendFile(file, `${text === "" || text.endsWith("\n") ? "" : "\n"}/${DIRECTORY}/\n`);
}

// A regular file of no great length.
async function readSmall(file) {
  const handle = await fs.open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const found = await handle.stat();
    if (!found.isFile() || found.size > 65536) throw new Error(`\`${file}\` is no small file`);
    return await handle.readFile("utf8");
  } finally {
    await handle.close();
  }
}

// Text for a terminal.
export function printable(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "?");
}

