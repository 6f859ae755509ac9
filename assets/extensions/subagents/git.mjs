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
  if (code !== 0) throw new Error(`\`git ${words.find((word) => /^[a-z]+(?:-[a-z]+)*$/.test(word))}\`: ${lastLine(err) || `status ${code}`}`);
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

// One after the other: git fails where it finds a worktree that another is just making.
let last = Promise.resolve();
function inTurn(job) {
  const turn = last.then(job);
  last = turn.catch(() => {});
  return turn;
}

// Makes a branch and a worktree for a task.
export function addTree(repository, task, from) {
  return inTurn(() => add(repository, task, from));
}

async function add(repository, task, from) {
  const { root, common, worktrees } = repository;
  await makePlainDirectory(worktrees);
  await exclude(common);
  const directory = path.join(worktrees, task);
  // Locked from its beginning: git forgets worktrees that it does not find, as where they are not mounted.
  const words = ["worktree", "add", "--quiet", "--lock", "--reason", REASON, "-b", branchOf(task), directory, from.commit];
  await git(root, ["-c", "worktree.useRelativePaths=false", ...words], { seconds: 600 });
  const admin = await adminOf(directory);
  const tree = treeOf(repository, task, directory, admin);
  await writeNote(tree, { task, base: from.commit, from: from.branch, begun: Date.now(), state: "running" });
  await lend(tree);
  tree.brought = from.commit;
  return tree;
}

function treeOf({ root, common }, task, directory, admin) {
  // Large files are stored once for all.
  const writable = [admin, path.join(common, "lfs")];
  return { root, common, own: path.join(admin, COMMON), task, branch: branchOf(task), directory, admin, writable };
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
  return found.sort((a, b) => (a.task < b.task ? -1 : 1));
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

// Gives a worktree a common git directory of its own, in which it finds the repository's objects, branches and settings.
// So a subagent writes none of the repository's; what it commits comes over by `bring`. One that has it already keeps it.
export async function lend(tree) {
  const { own, common, root } = tree;
  if (await isDirectory(own)) return;
  for (const name of ["objects/info", "refs/heads", "logs"]) await fs.mkdir(path.join(own, name), { recursive: true });
  await fs.writeFile(path.join(own, "objects/info/alternates"), `${path.join(common, "objects")}\n`);
  const lent = `${await references(root)}\n`;
  await fs.writeFile(path.join(own, "packed-refs"), lent);
  await write(path.join(tree.admin, LENT), lent);
  const above = path.join("..", "..", "..");
  for (const entry of await fs.readdir(common, { withFileTypes: true })) {
    const { name } = entry;
    if (["objects", "refs", "logs", "reftable"].includes(name)) continue;
    if (entry.isDirectory() || name === "HEAD") await fs.symlink(path.join(above, name), path.join(own, name));
    else if (name === "shallow") await fs.copyFile(path.join(common, name), path.join(own, name));
  }
  // What the format is, git reads in the file itself.
  const format = await git(root, ["config", "--file", path.join(common, "config"), "--get-regexp", FORMAT]);
  const settings = format.split("\n").map((line) => /^([^.]*)\.(\S*) (.*)$/.exec(line)).filter(Boolean);
  const text = settings.map(([, section, key, value]) => `[${section}]\n\t${key} = ${value}\n`).join("");
  await fs.writeFile(path.join(own, "config"), `${text}[include]\n\tpath = ${path.join(above, "config")}\n`);
  await write(path.join(tree.admin, "commondir"), `${COMMON}\n`);
}

const COMMON = "common";
const LENT = "pi-references";
const FORMAT = "^(core\\.repositoryformatversion|core\\.bare|extensions\\.(objectformat|partialclone|worktreeconfig|noop))$";

const REFERENCES = ["for-each-ref", "--format=%(objectname) %(refname)"];

function references(root) {
  return git(root, REFERENCES);
}

// Where its branch is, by its own directory's file; git may keep it elsewhere.
export async function tipSeen(tree) {
  return readSmall(path.join(tree.own, "refs/heads", tree.branch)).catch(() => undefined);
}

// Brings a subagent's commits over, and moves its branch to the last one. `beside` a running one it takes no lock.
export async function bring(tree, { beside = false } = {}) {
  tree.brought = await bringTo(tree, `refs/heads/${tree.branch}`, tree.branch, { beside, known: tree.brought });
}

// The same for what it has made besides its branch; returns the branches that there are now.
export async function bringMore(tree, references) {
  const branches = [];
  for (const reference of references) {
    const branch = `subagent-${tree.task}/${reference.replace(/^refs\/(?:heads\/|tags\/|remotes\/)?/, "")}`;
    await bringTo(tree, reference, branch);
    branches.push(branch);
  }
  return branches;
}

async function bringTo(tree, from, branch, { beside = false, known } = {}) {
  const tip = await gitIn(tree, ["rev-parse", "--verify", "--quiet", `${from}^{commit}`], { beside });
  if (tip === known) return tip;
  const pack = path.join(tree.admin, "pi-pack");
  const words = ["git", ...QUIET, "pack-objects", "-q", "--revs", "--thin", "--delta-base-offset", "--stdout"];
  const base = /^[0-9a-f]{40,64}$/.test(tree.note.base) ? `^${tree.note.base}` : "";
  const script = 'revisions=$1; pack=$2; shift 2; printf "$revisions" | "$@" >"$pack"';
  const packed = await runConfined(tree, ["sh", "-c", script, "sh", `${tip}\\n${base}\\n`, pack, ...words], { beside, seconds: 300 });
  if (packed.code !== 0) throw new Error(`\`git pack-objects\`: ${lastLine(packed.err)}`);
  const file = await openPlain(pack);
  try {
    // Many small objects are better off in a pack.
    const large = (await file.stat()).size > 1 << 20;
    const take = large ? ["index-pack", "--stdin", "--fix-thin", "--strict"] : ["unpack-objects", "-q", "--strict"];
    await git(tree.root, take, { from: file.fd, seconds: 300 });
  } finally {
    await file.close();
    await fs.rm(pack, { force: true });
  }
  await git(tree.root, ["update-ref", `refs/heads/${branch}`, tip]);
  return tip;
}

// Branches, tags and stashes that a subagent has made or moved besides its branch.
export async function extras(tree) {
  const lent = await fs.readFile(path.join(tree.admin, LENT), "utf8").catch(() => "");
  const known = new Set([...lent.split("\n"), ...(await references(tree.root)).split("\n")]);
  const own = (await gitIn(tree, REFERENCES)).split("\n").filter((line) => line && !known.has(line));
  const names = own.map((line) => line.replace(/^\S+ /, "")).filter((name) => name !== `refs/heads/${tree.branch}`);
  return names.map(printable);
}

// Puts right what a subagent may have changed of the links between its worktree and the repository, and removes locks that
// nobody holds any more.
export async function mend(tree) {
  for (const lock of ["index.lock", "HEAD.lock"]) await fs.rm(path.join(tree.admin, lock), { force: true });
  await restore(path.join(tree.directory, ".git"), `gitdir: ${tree.admin}\n`);
  await write(path.join(tree.admin, "gitdir"), `${path.join(tree.directory, ".git")}\n`);
  await write(path.join(tree.admin, "locked"), REASON);
}

// Gives a worktree the repository's common directory back, once everything has come over.
export async function giveBack(tree) {
  await write(path.join(tree.admin, "commondir"), "../..\n");
  for (const name of [COMMON, LENT]) await fs.rm(path.join(tree.admin, name), { recursive: true, force: true });
}

// Writes a file in place of whatever is there. At once: git reads what is known of all worktrees whenever it makes one.
async function write(file, text) {
  const fresh = `${file}.pi-new`;
  await fs.rm(fresh, { recursive: true, force: true });
  await fs.writeFile(fresh, text, { flag: "wx" });
  await fs.rename(fresh, file).catch(async () => {
    await fs.rm(file, { recursive: true, force: true });
    await fs.rename(fresh, file);
  });
}

// What stands in the way is kept beside it.
async function restore(file, text) {
  if ((await readSmall(file).catch(() => undefined)) === text) return;
  await fs.rename(file, `${file}.pi-moved-${Date.now()}`).catch(() => {});
  await fs.writeFile(file, text, { flag: "wx" });
}

// Removes a worktree, but not its branch. git itself would look at what is in it first.
// Returns whether it is gone: one from before this session is a mount, and goes with the session.
export async function removeTree(tree) {
  for (const name of await fs.readdir(tree.directory)) {
    if (name !== ".git") await fs.rm(path.join(tree.directory, name), { recursive: true, force: true, maxRetries: 3 });
  }
  const gone = await fs.rm(tree.directory, { recursive: true, force: true }).then(
    () => true,
    (error) => {
      if (!["EBUSY", "EROFS"].includes(error.code)) throw error;
      return false;
    },
  );
  await fs.rm(tree.admin, { recursive: true, force: true, maxRetries: 3 });
  for (const empty of [path.join(tree.common, "worktrees"), path.dirname(tree.directory)]) await fs.rmdir(empty).catch(() => {});
  return gone;
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
  const handle = await openPlain(file);
  try {
    if ((await handle.stat()).size > 65536) throw new Error(`\`${file}\` is too long`);
    return await handle.readFile("utf8");
  } finally {
    await handle.close();
  }
}

// Neither a link nor a pipe, which would never end.
async function openPlain(file) {
  const handle = await fs.open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw new Error(`\`${file}\` is no file`);
}

// Text for a terminal.
export function printable(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "?");
}

