// Gives the agent a tool that hands a task to a subagent in a git worktree of its own, and its user commands for these
// worktrees. What the tool does is loaded when it is first used: each start of the agent reads this file.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

let loaded;
const main = () => (loaded ??= createRequire(import.meta.url)("./main.mjs"));

// Whether a session before this one may have left worktrees.
function mayHaveTrees(directory) {
  const above = path.dirname(directory);
  return existsSync(path.join(directory, ".worktrees")) || (above !== directory && mayHaveTrees(above));
}

export default function (pi) {
  pi.registerTool({
    name: "spawn_subagent",
    label: "Subagent",
    description:
      "Hand a task to a subagent: another agent with the same model, which works on its own in a git worktree with a branch " +
      "of its own. It begins with the last commit of the current branch and sees neither this conversation nor " +
      "uncommitted changes, so put everything that it needs into the instructions. Several run at the same time if you " +
      "call the tool several times in one turn; give them tasks that do not change the same files. Each can write its " +
      "worktree only. When it has ended, its work is committed; it is pushed if the repository has a remote, and a pull " +
      "request is opened if that is on GitHub. Returns the pull request, or the branch with its commits and changed files, " +
      "and what the subagent said last.",
    promptSnippet: "Hand a task to a subagent in a git worktree of its own",
    parameters: {
      type: "object",
      properties: {
        task: {
          type: "string",
          description: "A short name: letters, digits, `-` and `_`, at most 50. The branch becomes `subagent/NAME`",
        },
        instructions: {
          type: "string",
          description: "What to do, with all that is needed to know, and how to tell that it is done",
        },
      },
      required: ["task", "instructions"],
      additionalProperties: false,
    },
    executionMode: "parallel",
    execute: (_id, params, signal, onUpdate, ctx) => main().spawn(pi, params, signal, onUpdate, ctx),
  });

  const command = (name, description) =>
    pi.registerCommand(name, { description, handler: (args, ctx) => main().command(pi, name, args, ctx) });
  command("worktrees", "List the worktrees of subagents");
  command("cleanup-worktree", "Remove the worktree of a subagent; its branch stays");
  command("cleanup-all", "Remove the worktrees of all subagents that have ended; their branches stay");

  pi.on("session_start", (_event, ctx) => {
    // Nobody waits for it.
    if (mayHaveTrees(ctx.cwd)) void main().begin(ctx.cwd);
  });
  pi.on("session_shutdown", () => loaded?.end());
}
